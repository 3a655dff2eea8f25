import math

import pytest
import torch
from torch import Tensor

from vaelab.metrics import two_samples
from vaelab.metrics.two_samples import fidelity, kernel_distance


def by_definition(x: Tensor, y: Tensor, paired: bool = False) -> float:
    """Kernel distance, by the formula's sums."""

    def k(a: Tensor, b: Tensor) -> float:
        return ((a @ b).item() / len(a) + 1) ** 3

    n, m = len(x), len(y)
    within = [
        sum(k(rows[i], rows[j]) for i in range(len(rows)) for j in range(len(rows)) if i != j)
        / (len(rows) * (len(rows) - 1))
        for rows in (x, y)
    ]
    across = [k(x[i], y[j]) for i in range(n) for j in range(m) if not (paired and i == j)]
    return within[0] + within[1] - 2 * sum(across) / len(across)


@pytest.mark.parametrize("paired", [False, True])
def test_the_kernel_distance_is_its_definition_in_any_chunks(paired: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(12, 3, generator=generator).double()
    y = torch.randn(12 if paired else 17, 3, generator=generator).double() + 1
    monkeypatch.setattr(two_samples, "PAIRS_AT_ONCE", 30)

    found = kernel_distance(x, y, paired=paired)

    assert found.value == pytest.approx(by_definition(x, y, paired), rel=1e-12)


def test_the_jackknife_leaves_out_each_row_once() -> None:
    generator = torch.Generator().manual_seed(1)
    x, y = torch.randn(6, 2, generator=generator).double(), torch.randn(8, 2, generator=generator).double()

    def spread(values: list[float]) -> float:
        mean = sum(values) / len(values)
        return (len(values) - 1) / len(values) * sum((value - mean) ** 2 for value in values)

    without_x = [by_definition(torch.cat([x[:i], x[i + 1 :]]), y) for i in range(6)]
    without_y = [by_definition(x, torch.cat([y[:i], y[i + 1 :]])) for i in range(8)]

    assert kernel_distance(x, y).error == pytest.approx(math.sqrt(spread(without_x) + spread(without_y)), rel=1e-9)


@pytest.mark.parametrize(("shift", "most"), [(0.0, 1.6), (0.5, 1.25)])
def test_it_is_unbiased_and_its_standard_error_not_too_small(shift: float, most: float) -> None:
    estimates = []
    for seed in range(300):
        generator = torch.Generator().manual_seed(seed)
        x = torch.randn(40, 2, generator=generator).double()
        y = torch.randn(60, 2, generator=generator).double() + shift
        estimates.append(kernel_distance(x, y))
    values, errors = (torch.tensor(numbers).double() for numbers in zip(*estimates, strict=True))
    sd = values.std().item()

    # E k(a, b) of independent Gaussians in closed form: E (s + 1)^3 with s = a.b / 2, a, b ~ N(mean, I).
    def expected(a: float, b: float) -> float:
        one = 2 * a * b / 2  # E s
        # a.b of independent a ~ N(a 1, I), b ~ N(b 1, I) in 2 dimensions: mean 2ab, variance 2 (1 + a^2 + b^2),
        # third central moment 6 * 2ab.
        second = 2 * (1 + a * a + b * b) / 4
        third = 6 * 2 * a * b / 8
        mean = one + 1
        return mean**3 + 3 * mean * second + third

    true = expected(0, 0) + expected(shift, shift) - 2 * expected(0, shift)
    assert abs(values.mean().item() - true) < 3.5 * sd / math.sqrt(300)
    assert 0.9 < math.sqrt(errors.square().mean().item()) / sd < most


def test_pairs_that_depend_on_each_other_leave_it_unbiased() -> None:
    values = []
    for seed in range(300):
        x = torch.randn(30, 2, generator=torch.Generator().manual_seed(seed)).double()
        values.append(kernel_distance(x, -x, paired=True).value)  # -x is of the same distribution, and nothing but x
    found = torch.tensor(values)

    assert abs(found.mean().item()) < 3.5 * found.std().item() / math.sqrt(300)


def modes(centres: list[float], each: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.cat([torch.randn(each, 2, generator=generator) * 0.1 + centre for centre in centres])


def test_equal_distributions_have_precision_recall_density_and_coverage_near_one() -> None:
    found = fidelity(modes([0, 10], 400, 0), modes([0, 10], 400, 1))

    # k = 3 of 400: a row of the same distribution misses all balls by chance, here of 4 %.
    assert found.precision.value > 0.9
    assert found.recall.value > 0.9
    assert found.density.value == pytest.approx(1, abs=0.1)
    assert found.coverage.value == pytest.approx(1 - 2**-5, abs=0.05)  # Naeem et al. (2020)


def test_half_the_modes_halve_recall_and_coverage_alone() -> None:
    found = fidelity(modes([0, 10], 200, 0), modes([0], 400, 1))

    assert found.precision.value > 0.9
    assert found.recall.value == pytest.approx(0.5, abs=0.05)
    assert found.coverage.value == pytest.approx(0.5, abs=0.05)


def test_wrong_modes_halve_precision_and_density_alone() -> None:
    found = fidelity(modes([0], 400, 0), modes([0, 10], 200, 1))

    assert found.recall.value > 0.9
    assert found.precision.value == pytest.approx(0.5, abs=0.05)
    assert found.density.value == pytest.approx(0.5, abs=0.1)
    assert found.precision.error == pytest.approx(0.5 / math.sqrt(400), rel=0.05)


def test_all_four_are_their_definitions_in_any_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(5)
    x, y = torch.randn(30, 2, generator=generator).double(), torch.randn(25, 2, generator=generator).double() * 1.5
    monkeypatch.setattr(two_samples, "PAIRS_AT_ONCE", 100)

    def radius(rows: Tensor, i: int, k: int) -> float:
        return sorted((rows[i] - rows[j]).norm().item() for j in range(len(rows)) if j != i)[k - 1]

    def inside(point: Tensor, rows: Tensor, k: int) -> list[bool]:
        return [(point - rows[i]).norm().item() <= radius(rows, i, k) for i in range(len(rows))]

    found = fidelity(x, y, manifold=3, ball=5)

    assert found.precision.value == pytest.approx(sum(any(inside(p, x, 3)) for p in y) / 25)
    assert found.recall.value == pytest.approx(sum(any(inside(p, y, 3)) for p in x) / 30)
    assert found.density.value == pytest.approx(sum(sum(inside(p, x, 5)) for p in y) / (5 * 25))
    reached = [any((p - x[i]).norm().item() <= radius(x, i, 5) for p in y) for i in range(30)]
    assert found.coverage.value == pytest.approx(sum(reached) / 30)


def test_too_few_images_are_refused() -> None:
    with pytest.raises(ValueError, match="3 images or more"):
        kernel_distance(torch.zeros(2, 2), torch.zeros(5, 2))
    with pytest.raises(ValueError, match="5 neighbours need 6 images or more, and there are 4"):
        fidelity(torch.zeros(4, 2), torch.zeros(9, 2))
