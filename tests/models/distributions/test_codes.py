import math
from itertools import product

import pytest
import torch
from torch.distributions import kl_divergence

from vaelab.models.distributions import Codes, OneHotCodes, UniformCodes


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def every_row(codes, size):
    """All rows of one-hot vectors, (size^codes, codes * size)."""
    eye = torch.eye(size, dtype=torch.float64)
    return torch.stack([torch.cat([eye[k] for k in row]) for row in product(range(size), repeat=codes)])


def uniform(codes, size):
    return UniformCodes(codes, size, lambda i: torch.eye(size, dtype=torch.float64)[i].flatten(-2), torch.zeros(()))


def test_the_probabilities_of_all_rows_add_up_to_one_with_the_mean_that_it_says():
    q = OneHotCodes(torch.randn(5, 2, 3, dtype=torch.float64))
    rows = every_row(2, 3)
    probability = q.log_prob(rows[:, None]).exp()  # (9, 5)

    torch.testing.assert_close(probability.sum(0), torch.ones(5, dtype=torch.float64), rtol=1e-12, atol=0)
    torch.testing.assert_close(probability.T @ rows, q.mean, rtol=1e-12, atol=0)
    entropy = -(probability * probability.log()).sum(0)
    torch.testing.assert_close(q.entropy(), entropy, rtol=1e-12, atol=0)


def test_hard_samples_are_one_hot_and_as_frequent_as_they_should_be():
    q = OneHotCodes(torch.randn(2, 3, 4))
    z = q.sample((20_000,)).unflatten(-1, (3, 4))

    assert set(z.unique().tolist()) == {0.0, 1.0}
    assert z.sum(-1).eq(1).all()
    torch.testing.assert_close(z.mean(0).flatten(1), q.mean, atol=5 * 0.5 / math.sqrt(20_000), rtol=0)


def test_relaxed_samples_are_inside_the_simplex_and_the_largest_is_as_frequent_as_it_should_be():
    q = OneHotCodes(torch.randn(2, 3, 4), temperature=0.7)
    z = q.rsample((20_000,)).unflatten(-1, (3, 4))

    torch.testing.assert_close(z.sum(-1), torch.ones(20_000, 2, 3))
    assert z.min() >= 0
    frequency = torch.nn.functional.one_hot(z.argmax(-1), 4).float().mean(0).flatten(1)
    torch.testing.assert_close(frequency, q.mean, atol=5 * 0.5 / math.sqrt(20_000), rtol=0)


def test_relaxed_samples_become_one_hot_as_the_temperature_falls():
    logits = torch.randn(2, 3, 4)
    torch.manual_seed(1)
    hard = OneHotCodes(logits).rsample((100,))
    torch.manual_seed(1)
    cold = OneHotCodes(logits, temperature=1e-4).rsample((100,))

    assert (cold - hard).abs().mean() < 1e-3


def test_straight_through_samples_are_one_hot_with_the_gradient_of_the_relaxed():
    gradients = []
    for straight_through in (False, True):
        logits = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(3)).requires_grad_()
        torch.manual_seed(1)
        z = OneHotCodes(logits, temperature=0.5, straight_through=straight_through).rsample()
        (gradient,) = torch.autograd.grad((z * torch.arange(12.0)).sum(), logits)
        gradients.append(gradient)

    assert gradients[0].any()
    torch.testing.assert_close(*gradients)
    torch.testing.assert_close(z.round(), z, atol=1e-6, rtol=0)


def test_the_kl_of_categoricals_to_the_uniform_is_the_sum_over_all_rows():
    q, p = OneHotCodes(torch.randn(5, 2, 3, dtype=torch.float64)), uniform(2, 3)
    rows = every_row(2, 3)[:, None]
    by_hand = (q.log_prob(rows).exp() * (q.log_prob(rows) - p.log_prob(rows))).sum(0)

    torch.testing.assert_close(kl_divergence(q, p), by_hand, rtol=1e-12, atol=0)


def test_the_kl_of_codes_to_the_uniform_is_the_logarithm_of_the_number_of_rows():
    q = Codes(torch.zeros(5, 6), torch.zeros(5, 2, dtype=torch.int64), 3, commitment=torch.zeros(5))

    torch.testing.assert_close(kl_divergence(q, uniform(2, 3)), torch.full((5,), math.log(3**2)))


def test_uniform_codes_are_all_drawn_as_often():
    p = uniform(2, 3)
    z = p.sample((9_000,))
    which = (z[:, None] == every_row(2, 3)).all(-1).double().mean(0)

    assert p.event_shape == (6,)
    torch.testing.assert_close(which, torch.full((9,), 1 / 9, dtype=torch.float64), atol=5 * 0.32 / 95, rtol=0)
    torch.testing.assert_close(p.log_prob(z).exp().mean().item(), 1 / 9)
