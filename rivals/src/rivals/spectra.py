"""Classifiers of single spectra, without a pixel's neighbours."""

from __future__ import annotations

import numpy as np
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC


def svm(spectra: np.ndarray, classes: np.ndarray, others: np.ndarray, seed: int) -> np.ndarray:
    """Classify by a support vector machine with a Gaussian kernel on standardised bands.

    Cross-validation on the training pixels chooses penalty and kernel width: three folds, or two if a class has only
    two pixels. If a class has one pixel, C is 100 and the width is scikit-learn's default.

    Args:
        spectra, classes: training pixels, `(n, bands)` and `(n,)`.
        others: pixels to classify, `(m, bands)`.
        seed: seed of the folds.

    Returns:
        classes of `others`, `(m,)`.
    """
    model = make_pipeline(StandardScaler(), SVC(C=100.0, cache_size=500))
    folds = min(3, int(np.unique(classes, return_counts=True)[1].min()))
    if folds > 1:
        grid = {"svc__C": [1.0, 10.0, 100.0, 1000.0], "svc__gamma": [0.1 / spectra.shape[1], 1 / spectra.shape[1]]}
        model = GridSearchCV(model, grid, cv=StratifiedKFold(folds, shuffle=True, random_state=seed))
    return model.fit(spectra, classes).predict(others)


def forest(spectra: np.ndarray, classes: np.ndarray, others: np.ndarray, seed: int) -> np.ndarray:
    """Classify by a random forest of 500 trees; arguments as in `svm`."""
    return RandomForestClassifier(500, random_state=seed).fit(spectra, classes).predict(others)
