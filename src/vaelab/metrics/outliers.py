"""Separate unusual items from usual ones by a score."""

from typing import NamedTuple

import numpy as np


class Detection(NamedTuple):
    """Area under the ROC curve, average precision of the unusual, and their share, which is the latter by chance."""

    auroc: float
    average_precision: float
    chance: float


def detection(usual: np.ndarray, unusual: np.ndarray) -> Detection:
    """Measure how well a score, higher for unusual items, separates two sets (N,) and (M,), by scikit-learn.

    AUROC is the probability that an unusual item has the higher score, equal ones counting half: 0.5 is chance, and
    below it the score is higher for usual items.

    Raises:
        ValueError: a score is not finite.
    """
    from sklearn.metrics import average_precision_score, roc_auc_score

    scores = np.concatenate([usual, unusual])
    if not np.isfinite(scores).all():
        raise ValueError("a score is NaN or infinite")
    is_unusual = np.concatenate([np.zeros(len(usual)), np.ones(len(unusual))])
    return Detection(
        float(roc_auc_score(is_unusual, scores)),
        float(average_precision_score(is_unusual, scores)),
        len(unusual) / len(scores),
    )
