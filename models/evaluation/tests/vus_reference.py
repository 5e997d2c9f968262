"""VUS-PR of TSB-AD 1.5 for the series in src/vus.rs (pip install tsb-ad==1.5)."""

import numpy as np
from TSB_AD.evaluation.basic_metrics import generate_curve


def series(ranges):
    labels = np.zeros(1000, dtype=int)
    for first, last in ranges:
        labels[first : last + 1] = 1
    scores = np.array([(i * 7919 % 1000) / 1000 for i in range(1000)]) + 0.4 * labels
    return labels, scores


APART = [(100, 120), (400, 400), (700, 760)]
CLOSE = [(100, 120), (125, 126), (990, 999)]
for ranges, tolerance in [(APART, 0), (APART, 20), (APART, 100), (CLOSE, 20)]:
    labels, scores = series(ranges)
    *_, vus_pr = generate_curve(labels, scores, tolerance, "opt", 250)
    print(ranges, tolerance, f"{vus_pr:.9f}")
