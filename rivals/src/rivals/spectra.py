"""Classifiers of single spectra: they see a pixel's bands and nothing around it."""

from __future__ import annotations

import numpy as np
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC


def svm(spectra: np.ndarray, classes: np.ndarray, others: np.ndarray, seed: int) -> np.ndarray:
    """Support vector machine with a Gaussian kernel on standardised bands.

    Penalty and kernel width are chosen by cross-validation on the training pixels: three folds, or two where a class
    has two pixels; with a single one, C is 100 and the width scikit-learn's default.

    Args:
        spectra, classes: training pixels, `(n, bands)` and `(n,)`.
        others: `(m, bands)`.
        seed: of the folds.

    Returns:
        classes of the others, `(m,)`.
    """
    model = make_pipeline(StandardScaler(), SVC(C=100.0, cache_size=500))
    folds = min(3, int(np.unique(classes, return_counts=True)[1].min()))
    if folds > 1:
        grid = {"svc__C": [1.0, 10.0, 100.0, 1000.0], "svc__gamma": [0.1 / spectra.shape[1], 1 / spectra.shape[1]]}
        model = GridSearchCV(model, grid, cv=StratifiedKFold(folds, shuffle=True, random_state=seed))
    return model.fit(spectra, classes).predict(others)


def forest(spectra: np.ndarray, classes: np.ndarray, others: np.ndarray, seed: int) -> np.ndarray:
    """Random forest of 500 trees; arguments as for `svm`."""
    return RandomForestClassifier(500, random_state=seed).fit(spectra, classes).predict(others)
