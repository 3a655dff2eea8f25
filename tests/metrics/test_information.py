import math
from collections import Counter

import pytest
import torch
from sklearn.metrics import mutual_info_score
from torch import Tensor

from vaelab.metrics.information import binned, entropies, modularity, mutual_information, mutual_information_gap


def grid(*sizes: int) -> Tensor:
    """All combinations of factors."""
    return torch.cartesian_prod(*map(torch.arange, sizes))


def rotated(codes: Tensor) -> Tensor:
    """By 45 degrees, of two dimensions each."""
    turn = torch.tensor([[1.0, -1.0], [1.0, 1.0]]) / math.sqrt(2)
    return torch.cat([pair @ turn for pair in codes.split(2, 1)], 1)


def noise(rows: int, dimensions: int) -> Tensor:
    return torch.randn(rows, dimensions, generator=torch.Generator().manual_seed(0))


def by_counting(a: list[int], b: list[int]) -> float:
    """I(a; b) by the formula's sum over pairs of values."""
    n, of_a, of_b = len(a), Counter(a), Counter(b)
    pairs = Counter(zip(a, b, strict=True))
    return sum(c / n * math.log(c * n / (of_a[x] * of_b[y])) for (x, y), c in pairs.items())


def test_mutual_information_is_that_of_counts() -> None:
    factors = grid(3, 4).repeat(50, 1)
    codes = factors.float() @ noise(2, 3) + noise(600, 3)

    found = mutual_information(codes, factors)

    bins = binned(codes)
    for j in range(3):
        for k in range(2):
            a, b = bins[:, j].tolist(), factors[:, k].tolist()
            assert found[j, k].item() == pytest.approx(by_counting(a, b), rel=1e-10)
            assert found[j, k].item() == pytest.approx(mutual_info_score(a, b), rel=1e-10)


def test_bins_are_of_equal_width_over_the_range() -> None:
    codes = torch.tensor([[0.0], [0.999], [1.0], [10.0], [19.5], [20.0]])

    assert binned(codes).flatten().tolist() == [0, 0, 1, 10, 19, 19]
    assert binned(torch.full((3, 1), 2.0)).flatten().tolist() == [0, 0, 0]


def test_entropies_are_those_of_the_values() -> None:
    assert entropies(grid(3, 5)).tolist() == pytest.approx([math.log(3), math.log(5)])


def test_permuted_and_rescaled_factors_have_a_gap_and_a_modularity_of_one() -> None:
    factors = grid(3, 4, 5)
    codes = factors[:, [2, 0, 1]].float() * torch.tensor([-3.0, 0.1, 7.0]) + 2
    information = mutual_information(codes, factors)

    assert mutual_information_gap(information, entropies(factors)) == pytest.approx(1)
    assert modularity(information) == pytest.approx(1)
    with_unused = mutual_information(torch.cat([codes, torch.zeros(60, 1)], 1), factors)
    assert modularity(with_unused) == pytest.approx(3 / 4)  # a dimension that tells nothing counts as 0


def test_noise_has_no_gap_and_rotation_lowers_gap_and_modularity() -> None:
    factors = grid(4, 4).repeat(300, 1)
    entropy = entropies(factors)

    assert mutual_information_gap(mutual_information(noise(4800, 4), factors), entropy) < 0.01
    turned = mutual_information(rotated(factors.float()), factors)
    assert mutual_information_gap(turned, entropy) < 0.1
    assert modularity(turned) < 0.1


def test_gap_and_modularity_are_their_definitions() -> None:
    information = torch.rand(4, 3, generator=torch.Generator().manual_seed(1)).double()
    entropy = torch.tensor([1.0, 2.0, 1.5]).double()

    gaps = []
    for k in range(3):
        ordered = sorted(information[:, k].tolist(), reverse=True)
        gaps.append((ordered[0] - ordered[1]) / entropy[k].item())
    scores = []
    for j in range(4):
        row = information[j].tolist()
        best = row.index(max(row))
        template = [row[best] if k == best else 0 for k in range(3)]
        deviation = sum((m - t) ** 2 for m, t in zip(row, template, strict=True)) / (row[best] ** 2 * 2)
        scores.append(1 - deviation)

    assert mutual_information_gap(information, entropy) == pytest.approx(sum(gaps) / 3)
    assert modularity(information) == pytest.approx(sum(scores) / 4)


def test_a_gap_takes_two_dimensions() -> None:
    with pytest.raises(ValueError, match="needs 2 or more"):
        mutual_information_gap(torch.ones(1, 2), torch.ones(2))
