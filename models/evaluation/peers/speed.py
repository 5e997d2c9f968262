"""Times peers on a series, one core.

speed.py SERIES STEPS    SERIES: one value a line, minutes, oldest first
                         STEPS: how far to forecast

Writes one JSON object: what a peer needs for a forecast of STEPS steps with
nine quantiles (or the intervals that it has), in milliseconds, and for the
anomaly score of one value, in microseconds. The fastest of three runs counts,
as others may use the machine; compiling and loading do not.
"""

import json
import os
import sys
import time

for threads in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[threads] = "1"

import numpy as np
from flaircast import forecast as flair
from pyod.models.pca import PCA
from statsforecast.models import AutoETS, AutoTheta
from TSB_AD.models.SR import SR

RUNS = 3
DAY = 1440
# Sliding windows of an hour, for detectors that look at several values.
EMBEDDED = 60
QUANTILES = np.arange(1, 10) / 10


def fastest(job):
    def once():
        begin = time.perf_counter()
        job()
        return time.perf_counter() - begin

    job()
    return min(once() for _ in range(RUNS))


def main(path, steps):
    values = np.loadtxt(path)
    last_day = values[-DAY:]
    embedded = np.lib.stride_tricks.sliding_window_view(values, EMBEDDED)
    forecasts = {
        "flair": lambda: np.quantile(
            flair(values, horizon=steps, freq="min", n_samples=200, seed=1), QUANTILES, axis=0
        ),
        "statsforecast_autoets_last_day": lambda: AutoETS(season_length=1).forecast(
            last_day, h=steps, level=[80, 95]
        ),
        "statsforecast_autotheta_last_day": lambda: AutoTheta(season_length=1).forecast(
            last_day, h=steps, level=[80, 95]
        ),
    }
    scores = {
        "tsb_ad_spectral_residual": lambda: SR(values, EMBEDDED),
        "pyod_pca_60": lambda: PCA(n_components=10).fit(embedded),
    }
    figures = {f"{name}_ms": fastest(job) * 1e3 for name, job in forecasts.items()}
    for name, job in scores.items():
        figures[f"{name}_us"] = fastest(job) * 1e6 / len(values)
    print(json.dumps(figures))


main(sys.argv[1], int(sys.argv[2]))
