"""Disentanglement scores: DCI, SAP, explicitness, FactorVAE and beta-VAE.

Protocols are those of disentanglement_lib (Locatello et al. 2019), over codes (N, Z) and factors (N, F) of one set of
images. Images that share a factor are found in the set, where that library renders new ones.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from vaelab.metrics.labels import single_threaded

PRUNED = 0.05  # variance below which FactorVAE's score takes a dimension for one that is not used
PARTNERS = 64  # images of one vote, pairs of one difference
VOTES = 10_000, 5_000  # to train on and to be tested on


class Halves(NamedTuple):
    """Codes and factors to train on, and others to be tested on, as arrays."""

    codes: np.ndarray
    factors: np.ndarray
    test_codes: np.ndarray
    test_factors: np.ndarray


def halves(codes: Tensor, factors: Tensor) -> Halves:
    """The first two thirds to train on, the rest to be tested on."""
    cut = trained_on(len(codes))
    z, v = codes.double().numpy(), factors.numpy()
    return Halves(z[:cut], v[:cut], z[cut:], v[cut:])


def trained_on(images: int) -> int:
    """How many of so many images classifiers are trained on: two thirds."""
    return 2 * images // 3


class DCI(NamedTuple):
    """Disentanglement, completeness, informativeness."""

    disentanglement: float
    completeness: float
    informativeness: float


def dci_boosted_trees(sets: Halves, seed: int) -> DCI:
    """DCI of gradient boosted trees (scikit-learn's defaults), one classifier a factor.

    The importance R (Z, F) of a dimension for a factor is the trees' decrease of impurity; informativeness is the mean
    accuracy on the test set (Eastwood & Williams 2018; trees as in Locatello et al. 2019).
    """
    from sklearn.ensemble import GradientBoostingClassifier

    importance, accuracies = [], []
    with single_threaded():
        for v, test_v in zip(sets.factors.T, sets.test_factors.T, strict=True):
            trees = GradientBoostingClassifier(random_state=seed % 2**32).fit(sets.codes, v)
            importance.append(np.abs(trees.feature_importances_))
            accuracies.append(trees.score(sets.test_codes, test_v))
    return _dci(np.stack(importance, 1), float(np.mean(accuracies)))


def dci_lasso(sets: Halves) -> DCI:
    """DCI of a lasso, one regression a factor on its number, codes and numbers standardised.

    The importance is the size of the coefficient; informativeness is the mean of 1 - RMSE / (RMSE of guessing the
    mean) on the test set, at least 0 (Eastwood & Williams 2018). The penalty is chosen by
    cross-validation in five parts (scikit-learn's LassoCV).
    """
    from sklearn.linear_model import LassoCV

    mean, scale = sets.codes.mean(0), sets.codes.std(0)
    scale = np.where(scale > 0, scale, 1)
    codes, test_codes = (sets.codes - mean) / scale, (sets.test_codes - mean) / scale
    importance, informativeness = [], []
    with single_threaded():
        for v, test_v in zip(sets.factors.T, sets.test_factors.T, strict=True):
            centre, spread = v.mean(), v.std()
            lasso = LassoCV(cv=5).fit(codes, (v - centre) / spread)
            importance.append(np.abs(lasso.coef_))
            error = np.sqrt(np.mean((lasso.predict(test_codes) - (test_v - centre) / spread) ** 2))
            guess = np.sqrt(np.mean(((test_v - centre) / spread) ** 2))
            informativeness.append(max(0.0, 1 - error / guess) if guess > 0 else 0.0)
    return _dci(np.stack(importance, 1), float(np.mean(informativeness)))


def sap(sets: Halves) -> float:
    """Separated attribute predictability: by how much the best dimension predicts a factor better than the second.

    The mean over factors of the difference of the test accuracies of linear support vector machines (C = 0.01, classes
    weighted by their frequency), one for each single dimension (Kumar et al. 2018).

    Raises:
        ValueError: there is one dimension.
    """
    from sklearn.svm import LinearSVC

    if sets.codes.shape[1] < 2:
        raise ValueError("a gap between dimensions needs 2 or more")
    gaps = []
    with single_threaded():
        for v, test_v in zip(sets.factors.T, sets.test_factors.T, strict=True):
            accuracies = []
            for z, test_z in zip(sets.codes.T[:, :, None], sets.test_codes.T[:, :, None], strict=True):
                machine = LinearSVC(C=0.01, class_weight="balanced", dual=False).fit(z, v)
                accuracies.append(np.mean(machine.predict(test_z) == test_v))
            second, best = np.sort(accuracies)[-2:]
            gaps.append(best - second)
    return float(np.mean(gaps))


def explicitness(sets: Halves) -> float:
    """Accuracy of a linear classifier for each value of each factor, 2 AUROC - 1: 1 = perfect, 0 = chance.

    The mean over the values of a factor, then over factors, of logistic regressions of one value against all others, on
    standardised codes of the test set (Ridgeway & Mozer 2018). Values that the test set does not have
    are left out.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    scores = []
    with single_threaded():
        for v, test_v in zip(sets.factors.T, sets.test_factors.T, strict=True):
            areas = []
            for value in np.unique(v):
                is_it = test_v == value
                if is_it.all() or not is_it.any():
                    continue
                classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
                classifier.fit(sets.codes, v == value)
                areas.append(roc_auc_score(is_it, classifier.decision_function(sets.test_codes)))
            scores.append(2 * np.mean(areas) - 1 if areas else 0.0)
    return float(np.mean(scores))


def factor_vae_score(codes: Tensor, factors: Tensor, seed: int) -> float:
    """Accuracy of a majority vote that predicts the shared factor of images from the dimension that varies least.

    A vote: draw a factor and a value of it, 64 images that have this value, and take the dimension with the smallest
    variance relative to that over all images. 10,000 votes say which factor each dimension stands for, 5,000 others
    are told by it (Kim & Mnih 2018). Dimensions with a variance below 0.05 are left out; without any
    other the score is 0. Chance is 1 / F.
    """
    rng = np.random.default_rng(seed)
    z, v = codes.double().numpy(), factors.numpy()
    variance = z.var(0, ddof=1)
    used = variance >= PRUNED
    if not used.any():
        return 0.0
    z, members = z[:, used] / np.sqrt(variance[used]), _members(v)
    tables = []
    for number in VOTES:
        table = np.zeros((z.shape[1], v.shape[1]), np.int64)
        for _ in range(number):
            k = rng.integers(v.shape[1])
            alike = members[k](v[rng.integers(len(v)), k])
            rows = alike[rng.integers(len(alike), size=PARTNERS)]
            table[z[rows].var(0, ddof=1).argmin(), k] += 1
        tables.append(table)
    train, test = tables
    chosen = train.argmax(1)
    return float(test[np.arange(len(chosen)), chosen].sum() / test.sum())


def beta_vae_score(codes: Tensor, factors: Tensor, seed: int) -> float:
    """Accuracy of a logistic regression that predicts the shared factor of pairs of images.

    It sees the mean of |z_a - z_b| over 64 pairs, whose two images have the same value of that factor; 10,000 such
    means to train on, 5,000 to be tested on (Higgins et al. 2017). Chance is 1 / F.
    """
    from sklearn.linear_model import LogisticRegression

    rng = np.random.default_rng(seed)
    z, v = codes.double().numpy(), factors.numpy()
    members, sets = _members(v), []
    for number in VOTES:
        chosen = rng.integers(v.shape[1], size=number)
        differences = np.empty((number, z.shape[1]))
        for i, k in enumerate(chosen):
            first = rng.integers(len(v), size=PARTNERS)
            second = np.empty_like(first)
            for value in np.unique(v[first, k]):
                alike, own = members[k](value), v[first, k] == value
                second[own] = alike[rng.integers(len(alike), size=own.sum())]
            differences[i] = np.abs(z[first] - z[second]).mean(0)
        sets.append((differences, chosen))
    (x, k), (test_x, test_k) = sets
    with single_threaded():
        return float(LogisticRegression(max_iter=1000).fit(x, k).score(test_x, test_k))


def _dci(importance: np.ndarray, informativeness: float) -> DCI:
    """Both scores of importances R (Z, F): 1 - entropy of each row and of each column, weighted by their sums."""
    total = importance.sum()
    if total == 0:
        return DCI(0.0, 0.0, informativeness)
    by_dimension, by_factor = importance.sum(1) / total, importance.sum(0) / total
    return DCI(
        float(by_dimension @ (1 - _entropies(importance))),
        float(by_factor @ (1 - _entropies(importance.T))),
        informativeness,
    )


def _entropies(rows: np.ndarray) -> np.ndarray:
    """Entropy of each row, normalized to sum 1, to the base of its length."""
    sums = rows.sum(1, keepdims=True)
    shares = torch.from_numpy(rows / np.where(sums > 0, sums, 1))
    base = np.log(max(2, rows.shape[1]))  # of one number the entropy is 0 to any
    found: np.ndarray = (torch.special.entr(shares).sum(1) / base).numpy()
    return np.where(sums[:, 0] > 0, found, 1.0)


def _members(factors: np.ndarray) -> list[Callable[[Any], np.ndarray]]:
    """Of each factor, a look-up of the rows that have a value."""
    found: list[Callable[[Any], np.ndarray]] = []
    for v in factors.T:
        found.append({value: np.flatnonzero(v == value) for value in np.unique(v)}.__getitem__)
    return found
