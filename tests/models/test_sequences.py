"""A transformer over codes: its density against brute force, and its cache against none."""

import math
from itertools import product
from typing import Any

import pytest
import torch
from torch.distributions import kl_divergence

from vaelab.models.autoencoder import Autoencoder
from vaelab.models.distributions import CodeSequence
from vaelab.models.likelihoods import Gaussian
from vaelab.models.networks import MLPDecoder, MLPEncoder
from vaelab.models.posteriors import GumbelSoftmax, VectorQuantizer
from vaelab.models.priors import CodeTransformer

SHAPE = (1, 2, 3)


def model_of(posterior: Any = None, **knobs: Any) -> Autoencoder:
    """Three codes of four, of one place and two groups or as the posterior has them."""
    torch.manual_seed(0)
    encoder = MLPEncoder(SHAPE, hidden=[8])
    made = posterior(encoder.features) if posterior else VectorQuantizer(encoder.features, 2, codebook_size=4, codes=3)
    prior = CodeTransformer(made.latent_dim, 5, **{"width": 16, "layers": 2, "heads": 2, **knobs})
    model = Autoencoder(
        encoder=encoder,
        posterior=made,
        decoder=MLPDecoder(made.latent_dim, SHAPE),
        likelihood=Gaussian(SHAPE),
        prior=prior,
    ).eval()
    for weight in prior.parameters():
        weight.data.add_(0.3 * torch.randn(weight.shape))
    return model


def p_of(model: Autoencoder, y: torch.Tensor | None = None) -> CodeSequence:
    found = model.p_z(y)
    assert isinstance(found, CodeSequence)
    return found


@pytest.mark.parametrize("conditional", [False, True])
def test_the_probabilities_of_all_rows_of_codes_add_up_to_one_and_are_those_of_samples(conditional: bool) -> None:
    p = p_of(model_of(conditional=conditional))
    every = torch.tensor(list(product(range(4), repeat=3)))
    with torch.no_grad():
        probability = p.log_prob_of_codes(every).exp()
        drawn = p.sample_codes(torch.Size([20_000]))
    share = torch.bincount(drawn @ torch.tensor([16, 4, 1]), minlength=64) / 20_000

    assert probability.sum().item() == pytest.approx(1, abs=1e-5)
    assert (share - probability).abs().max() < 5 * math.sqrt(0.25 / 20_000)
    assert probability.max() > 2 * probability.min()


def test_without_labels_it_is_the_mean_over_the_classes() -> None:
    model = model_of(conditional=True)
    every = torch.tensor(list(product(range(4), repeat=3)))
    with torch.no_grad():
        of_each = [p_of(model, torch.full((64,), label)).log_prob_of_codes(every).exp() for label in range(5)]
        torch.testing.assert_close(p_of(model).log_prob_of_codes(every).exp(), torch.stack(of_each).mean(0))
    assert not torch.allclose(of_each[0], of_each[1])


def test_the_cache_gives_the_logits_of_all_positions_at_once() -> None:
    model = model_of(
        lambda features: VectorQuantizer(features, 4, codebook_size=4, codes=5, groups=2), conditional=True
    )
    assert isinstance(model.prior, CodeTransformer)
    network, shifts = model.prior.network, model.prior.shifts
    codes, context = torch.randint(4, (7, 10)), torch.randint(5, (7,))
    with torch.no_grad():
        at_once = network(codes + shifts, context)
        cache, token = network.empty_cache(7), context
        for position in range(10):
            torch.testing.assert_close(network.next(token, position, cache), at_once[:, position], atol=1e-5, rtol=1e-5)
            token = codes[:, position] + shifts[position]
    assert shifts.tolist() == [0, 4] * 5  # each group has tokens of its own


def test_samples_with_the_cache_are_those_without() -> None:
    p = p_of(model_of(top_k=3, temperature=0.7))
    torch.manual_seed(1)
    drawn = p.sample_codes(torch.Size([50]))
    torch.manual_seed(1)
    context = torch.randint(1, (50,))
    codes = torch.zeros(50, 3, dtype=torch.int64)
    with torch.no_grad():
        for position in range(3):
            logits = p.network(codes, context)[:, position] / 0.7
            logits[logits < logits.topk(3).values[:, -1:]] = -math.inf
            codes[:, position] = torch.multinomial(logits.softmax(-1), 1)[:, 0]
    assert drawn.equal(codes)


def test_the_likeliest_code_alone_is_drawn_at_top_k_one() -> None:
    p = p_of(model_of(top_k=1))
    assert p.sample_codes(torch.Size([40])).unique(dim=0).shape == (1, 3)


def test_the_kl_of_sure_codes_is_minus_their_log_probability_and_z_is_their_vectors() -> None:
    model = model_of()
    q, p = model.encode(torch.randn(6, *SHAPE)), p_of(model)

    torch.testing.assert_close(kl_divergence(q, p), -p.log_prob_of_codes(q.indices))
    torch.manual_seed(0)
    codes = p.sample_codes(torch.Size([9]))
    torch.manual_seed(0)
    assert p.sample(torch.Size([9])).equal(model.posterior.vectors(codes))  # type: ignore[operator]


def test_one_hot_codes_are_told_by_z() -> None:
    model = model_of(lambda features: GumbelSoftmax(features, 4, codes=3))
    q, p = model.encode(torch.randn(6, *SHAPE)), p_of(model)
    z = q.sample()

    torch.testing.assert_close(p.log_prob(z), p.log_prob_of_codes(z.reshape(6, 3, 4).argmax(-1)))


def test_samples_are_of_the_labels_asked_for() -> None:
    model = model_of(conditional=True)
    assert (model.classes, model.sampled_classes) == (None, 5)
    assert model.sample(10).shape == (10, *SHAPE)
    torch.manual_seed(0)
    images = model.sample(3, labels=torch.tensor([1, 4, 2]))
    torch.manual_seed(0)
    z = p_of(model, torch.tensor([1, 4, 2])).sample()
    assert images.equal(model.decode(z).mean)


def test_heads_share_the_width_and_labels_have_to_be_there() -> None:
    with pytest.raises(ValueError, match="of width 16 cannot have 3 heads"):
        model_of(heads=3)
    with pytest.raises(ValueError, match="the data have no two of them"):
        CodeTransformer(6, 0, conditional=True)
