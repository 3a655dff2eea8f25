import math
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.linear_model import Lasso, LassoCV, LogisticRegression
from sklearn.svm import LinearSVC
from torch import Tensor

from vaelab.metrics import disentanglement
from vaelab.metrics.disentanglement import (
    Halves,
    beta_vae_score,
    dci_boosted_trees,
    dci_lasso,
    explicitness,
    factor_vae_score,
    halves,
    sap,
)


@pytest.fixture(autouse=True)
def few_votes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disentanglement, "VOTES", (400, 400))


def grid() -> Tensor:
    """All combinations of three factors, several times and in a random order."""
    every = torch.cartesian_prod(torch.arange(3), torch.arange(4), torch.arange(4)).repeat(10, 1)
    return every[torch.randperm(len(every), generator=torch.Generator().manual_seed(0))]


def noise(dimensions: int) -> Tensor:
    return torch.randn(len(grid()), dimensions, generator=torch.Generator().manual_seed(1))


FACTORS = grid()
# Independent factors, permuted and rescaled, and a dimension that tells nothing.
PERFECT = torch.cat([FACTORS[:, [1, 2, 0]].float() * torch.tensor([-2.0, 5.0, 0.5]) + 1, 1e-3 * noise(1)], 1)
TURN = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(3)))[0]
STANDARD = (FACTORS - FACTORS.float().mean(0)) / FACTORS.float().std(0)
ROTATED = torch.cat([STANDARD @ TURN, 1e-3 * noise(1)], 1)


@pytest.mark.slow
def test_dci_of_trees_is_one_for_factors_near_zero_for_noise_and_lower_for_rotated_ones() -> None:
    perfect, random, rotated = (dci_boosted_trees(halves(codes, FACTORS), 0) for codes in (PERFECT, noise(4), ROTATED))

    assert perfect == pytest.approx((1, 1, 1), abs=0.01)
    assert max(random.disentanglement, random.completeness) < 0.05
    assert random.informativeness < 0.4  # chance is 0.28
    assert max(rotated.disentanglement, rotated.completeness) < 0.7


def test_dci_of_a_lasso_is_one_for_factors_near_zero_for_noise_and_lower_for_rotated_ones() -> None:
    perfect, rotated = (dci_lasso(halves(codes, FACTORS)) for codes in (PERFECT, ROTATED))
    random = dci_lasso(halves(noise(4), FACTORS))

    assert perfect == pytest.approx((1, 1, 1), abs=0.01)
    assert random.informativeness < 0.02
    assert max(rotated.disentanglement, rotated.completeness) < 0.7
    assert rotated.informativeness == pytest.approx(1, abs=0.01)


def dci_by_the_formula(importance: list[list[float]]) -> tuple[float, float]:
    """Eastwood & Williams (2018): of R[dimension][factor]."""
    dimensions, factors = len(importance), len(importance[0])
    total = sum(map(sum, importance))

    def entropy(values: list[float]) -> float:
        shares = [value / sum(values) for value in values]
        return -sum(share * math.log(share, len(values)) for share in shares if share > 0)

    disentangled = 0.0
    for row in importance:
        if sum(row):
            disentangled += sum(row) / total * (1 - entropy(row))
    completed = 0.0
    for k in range(factors):
        column = [importance[j][k] for j in range(dimensions)]
        if sum(column):
            completed += sum(column) / total * (1 - entropy(column))
    return disentangled, completed


def test_dci_is_that_of_the_importances_by_the_papers_formula() -> None:
    sets = halves(ROTATED, FACTORS)
    trees = [
        GradientBoostingClassifier(random_state=7).fit(sets.codes, sets.factors[:, k]).feature_importances_
        for k in range(3)
    ]
    codes = (sets.codes - sets.codes.mean(0)) / sets.codes.std(0)
    coefficients = []
    for k in range(3):
        v = (sets.factors[:, k] - sets.factors[:, k].mean()) / sets.factors[:, k].std()
        chosen = LassoCV(cv=5).fit(codes, v)
        coefficients.append(np.abs(Lasso(alpha=chosen.alpha_).fit(codes, v).coef_))

    of_trees = dci_by_the_formula([[float(column[j]) for column in trees] for j in range(4)])
    of_lasso = dci_by_the_formula([[float(column[j]) for column in coefficients] for j in range(4)])

    assert dci_boosted_trees(sets, 7)[:2] == pytest.approx(of_trees, rel=1e-6)
    assert dci_lasso(sets)[:2] == pytest.approx(of_lasso, rel=1e-3)


def test_collapsed_codes_score_zero() -> None:
    nothing = torch.zeros(len(FACTORS), 2)

    assert dci_lasso(halves(nothing, FACTORS)) == pytest.approx((0, 0, 0), abs=1e-3)
    assert dci_boosted_trees(halves(nothing, FACTORS), 0)[:2] == (0, 0)
    assert sap(halves(nothing, FACTORS)) == 0
    assert factor_vae_score(nothing, FACTORS, 0) == 0


def test_sap_is_the_gap_of_accuracies_high_for_factors_and_near_zero_for_noise() -> None:
    binary = (FACTORS > 0).long()  # a line tells two values apart, of more it does not tell those in the middle
    codes = torch.cat([binary.float()[:, [2, 0, 1]] * 3, noise(1)], 1)
    turned = torch.cat([(binary - 0.5) @ TURN, noise(1)], 1)

    def by_the_formula(sets: Halves) -> float:
        gaps = []
        for k in range(3):
            found = []
            for j in range(4):
                machine: Any = LinearSVC(C=0.01, class_weight="balanced", dual=False)
                machine.fit(sets.codes[:, j : j + 1], sets.factors[:, k])
                hits = machine.predict(sets.test_codes[:, j : j + 1]) == sets.test_factors[:, k]
                found.append(sum(hits) / len(hits))
            best = max(found)
            found.remove(best)
            gaps.append(best - max(found))
        return float(sum(gaps) / 3)

    assert sap(halves(codes, binary)) == pytest.approx(by_the_formula(halves(codes, binary)), rel=1e-12)
    assert sap(halves(codes, binary)) > 0.3  # the second best is right by chance, of 2/3 or 3/4 of the images
    assert sap(halves(turned, binary)) < sap(halves(codes, binary)) / 2
    assert sap(halves(noise(4), FACTORS)) < 0.05


def test_explicitness_is_one_for_values_a_line_tells_apart_and_near_zero_for_noise() -> None:
    one_hot = torch.cat([torch.nn.functional.one_hot(v).float() for v in FACTORS.T], 1)

    assert explicitness(halves(one_hot, FACTORS)) == pytest.approx(1)
    assert explicitness(halves(one_hot @ torch.linalg.qr(torch.randn(11, 11))[0], FACTORS)) == pytest.approx(1)
    assert abs(explicitness(halves(noise(4), FACTORS))) < 0.1


def test_explicitness_is_the_share_of_pairs_in_the_right_order() -> None:
    sets = halves(ROTATED + noise(4), FACTORS)
    scale = sets.codes.std(0)
    codes, test = (rows / scale for rows in (sets.codes - sets.codes.mean(0), sets.test_codes - sets.codes.mean(0)))

    scores = []
    for k in range(3):
        areas = []
        for value in sorted(set(sets.factors[:, k])):
            score: Any = LogisticRegression(max_iter=1000).fit(codes, sets.factors[:, k] == value)
            score = score.decision_function(test)
            ones, zeros = (score[(sets.test_factors[:, k] == value) == truth] for truth in (True, False))
            areas.append(np.mean([[(a > b) + (a == b) / 2 for b in zeros] for a in ones]))
        scores.append(2 * np.mean(areas) - 1)

    assert explicitness(sets) == pytest.approx(np.mean(scores), rel=1e-9)


@pytest.mark.parametrize("score", [factor_vae_score, beta_vae_score])
def test_scores_of_shared_factors_are_one_for_factors_and_chance_for_noise(score: Any) -> None:
    assert score(PERFECT, FACTORS, 0) == pytest.approx(1, abs=0.01)
    assert score(noise(4), FACTORS, 0) == pytest.approx(1 / 3, abs=0.12)
    assert score(PERFECT, FACTORS, 5) == score(PERFECT, FACTORS, 5)


def test_two_factors_that_are_mixed_evenly_are_not_told_from_each_other() -> None:
    pair = STANDARD[:, 1:] @ torch.tensor([[1.0, -1.0], [1.0, 1.0]])
    mixed = torch.cat([STANDARD[:, :1], pair], 1)

    assert factor_vae_score(mixed, FACTORS, 0) == pytest.approx(2 / 3, abs=0.08)
    assert beta_vae_score(mixed, FACTORS, 0) == pytest.approx(2 / 3, abs=0.08)
    # Any other rotation leaves both at 1: what varies less of two dimensions is still the same one.
    assert factor_vae_score(ROTATED, FACTORS, 0) == pytest.approx(1, abs=0.01)
    assert beta_vae_score(ROTATED, FACTORS, 0) == pytest.approx(1, abs=0.01)


def test_both_scores_agree_with_a_second_implementation_over_other_draws() -> None:
    """Kim & Mnih (2018) and Higgins et al. (2017), by loops over single images."""
    codes, factors, rng = (ROTATED + 0.8 * noise(4)).double(), FACTORS.tolist(), np.random.default_rng(99)
    deviation = codes.std(0)
    rows_of = {
        (k, v): [i for i, row in enumerate(factors) if row[k] == v]
        for k, size in enumerate((3, 4, 4))
        for v in range(size)
    }

    def alike(k: int, value: int, number: int) -> list[int]:
        rows = rows_of[k, value]
        return [rows[rng.integers(len(rows))] for _ in range(number)]

    def vote() -> tuple[int, int]:
        k = int(rng.integers(3))
        rows = alike(k, factors[rng.integers(len(factors))][k], 64)
        return int((codes[rows] / deviation).var(0).argmin()), k

    train, test = ([vote() for _ in range(400)] for _ in range(2))
    majority = {
        d: max(range(3), key=lambda k, d=d: sum(vote == (d, k) for vote in train)) for d in {d for d, _ in train}
    }
    voted = sum(majority.get(d) == k for d, k in test) / 400

    def difference() -> tuple[list[float], int]:
        k, pairs = int(rng.integers(3)), []
        for first in rng.integers(len(factors), size=64).tolist():
            pairs.append((first, *alike(k, factors[first][k], 1)))
        first, second = zip(*pairs, strict=True)
        return (codes[list(first)] - codes[list(second)]).abs().mean(0).tolist(), k

    seen, asked = ([difference() for _ in range(number)] for number in (200, 100))
    classifier = LogisticRegression(max_iter=1000).fit([x for x, _ in seen], [k for _, k in seen])
    told = classifier.score([x for x, _ in asked], [k for _, k in asked])

    # Both are shares of 400 and of 100: three standard errors of their difference.
    assert factor_vae_score(codes, FACTORS, 0) == pytest.approx(voted, abs=0.12)
    assert beta_vae_score(codes, FACTORS, 0) == pytest.approx(told, abs=0.17)


def test_one_dimension_has_no_gap() -> None:
    with pytest.raises(ValueError, match="needs 2 or more"):
        sap(halves(noise(1), FACTORS))
