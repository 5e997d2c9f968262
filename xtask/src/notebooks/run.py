"""What is done with notebooks in Python.

run.py check NOTEBOOK…             whether they are valid, and without outputs
run.py execute NOTEBOOK RESULT     runs every cell; any error is one
"""

import pathlib
import sys

import nbformat
from nbclient import NotebookClient

# For one cell; they take about a second.
TIMEOUT_SECS = 120


def check(path):
    notebook = nbformat.read(path, as_version=nbformat.NO_CONVERT)
    nbformat.validate(notebook)
    problems = []
    for number, cell in enumerate(notebook.cells):
        if cell.get("outputs") or cell.get("execution_count") is not None:
            problems.append(f"{path}: cell {number} has outputs; clear them before you commit")
    if not any("parameters" in cell.metadata.get("tags", []) for cell in notebook.cells):
        problems.append(f"{path}: no cell is tagged `parameters`")
    return problems


def execute(path, result):
    notebook = nbformat.read(path, as_version=4)
    folder = pathlib.Path(path).resolve().parent
    client = NotebookClient(
        notebook,
        kernel_name="python3",
        timeout=TIMEOUT_SECS,
        resources={"metadata": {"path": str(folder)}},
    )
    try:
        client.execute()
    finally:
        # Also of a run that failed: to look at.
        nbformat.write(notebook, result)
    warnings = [
        output["text"]
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if output.get("name") == "stderr"
    ]
    return [f"{path}: {text.strip()}" for text in warnings]


command, *files = sys.argv[1:]
if command == "check":
    problems = [problem for file in files for problem in check(file)]
else:
    problems = execute(*files)
for problem in problems:
    print(problem, file=sys.stderr)
sys.exit(1 if problems else 0)
