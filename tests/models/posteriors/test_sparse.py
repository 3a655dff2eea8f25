import pytest
import torch

from vaelab.models.posteriors import KSparse


def test_the_largest_numbers_are_kept_and_the_others_are_zero() -> None:
    torch.manual_seed(0)
    posterior = KSparse(6, 10, active=3)
    features = torch.randn(50, 6)
    dense, code = posterior.code(features), posterior(features).mean
    assert (code != 0).sum(1).eq(3).all()
    assert code[code != 0].equal(dense[code != 0])
    assert (dense.masked_fill(code != 0, -torch.inf).amax(1) <= code.masked_fill(code == 0, torch.inf).amin(1)).all()


def test_only_what_is_kept_passes_gradients() -> None:
    posterior = KSparse(6, 4, active=1)
    code = posterior(torch.randn(1, 6)).mean
    code.sum().backward()
    assert posterior.code.bias.grad.equal((code[0] != 0).float())  # type: ignore[union-attr, operator]


def test_more_than_there_are_cannot_be_kept() -> None:
    with pytest.raises(ValueError, match=r"posterior\.active=5 of latent_dim=4"):
        KSparse(6, 4, active=5)
