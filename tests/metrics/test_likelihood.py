import math
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch.distributions import Independent, Normal, kl_divergence

sys.path.insert(0, str(Path(__file__).parent))
import linear_gaussian

from vaelab.losses import IWAE, Objective, Step, elbo, reconstruction
from vaelab.metrics import likelihood
from vaelab.metrics.likelihood import (
    evaluation_terms,
    importance_weighted_log_likelihood,
    log_likelihoods,
    why_no_bits,
    why_no_likelihood,
)
from vaelab.models.autoencoder import Autoencoder
from vaelab.models.distributions.elementary import NUMBERS_AT_ONCE
from vaelab.models.likelihoods import Bernoulli
from vaelab.models.likelihoods import Gaussian as GaussianLikelihood
from vaelab.models.networks import MLPDecoder, MLPEncoder
from vaelab.models.parts import Likelihood
from vaelab.models.posteriors import Deterministic, Gaussian
from vaelab.models.priors import StandardNormal
from vaelab.models.schedules import Linear

SHAPE = (1, 4, 5)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def vae(likelihood_class=Bernoulli, *, posterior_class=Gaussian, prior=True):
    encoder, p = MLPEncoder(SHAPE, hidden=[16]), likelihood_class(SHAPE)
    return Autoencoder(
        encoder=encoder,
        posterior=posterior_class(encoder.features, 3),
        decoder=MLPDecoder(3, p.parameter_shape, hidden=[16]),
        likelihood=p,
        prior=StandardNormal(3) if prior else None,
    )


@pytest.mark.parametrize("make", [linear_gaussian.exact, linear_gaussian.diagonal])
@pytest.mark.parametrize("samples", [1, 7])
def test_with_the_exact_posterior_every_sample_gives_the_exact_log_likelihood(make, samples):
    model = make()
    x = linear_gaussian.images(model, 20)

    estimate = importance_weighted_log_likelihood(model, model.prior(), x, samples)

    torch.testing.assert_close(estimate, linear_gaussian.log_likelihood(model, x), rtol=0, atol=1e-10)


@pytest.mark.parametrize("make", [linear_gaussian.exact, linear_gaussian.diagonal])
def test_the_elbo_with_the_exact_posterior_is_the_exact_log_likelihood(make):
    """Up to the closed form of its KL, which is a mean where the log-ratio is that of the z drawn."""
    model = make()
    x = linear_gaussian.images(model, 30_000)
    exact = linear_gaussian.log_likelihood(model, x)

    with torch.no_grad():
        terms = evaluation_terms(elbo(kl="monte_carlo"), Step(model, x, training=False))
        torch.testing.assert_close(terms["elbo"], exact.mean(), rtol=0, atol=1e-10)
        if make is linear_gaussian.diagonal:
            # The noise of one sample an image is some nats, divided by sqrt(30,000).
            closed = evaluation_terms(elbo(), Step(model, x, training=False))["elbo"]
            torch.testing.assert_close(closed, exact.mean(), rtol=0, atol=0.05)


def test_the_nll_converges_from_above_to_the_exact_one_where_the_posterior_is_not_exact():
    model = linear_gaussian.diagonal()
    x = linear_gaussian.images(model, 200)
    model.posterior.mean_and_log_variance.bias.data += torch.tensor([0.3, 0.3, 0.7, 0.7])
    exact = linear_gaussian.log_likelihood(model, x)

    nlls = [-importance_weighted_log_likelihood(model, model.prior(), x, k).mean().item() for k in (1, 10, 100, 20_000)]

    assert nlls == sorted(nlls, reverse=True)
    assert nlls[0] > -exact.mean().item() + 0.1
    assert nlls[-1] == pytest.approx(-exact.mean().item(), abs=2e-3)


def test_the_log_likelihood_is_a_log_mean_exp_per_image_and_never_across_images():
    model = vae()
    x = torch.rand(5, *SHAPE).round()
    torch.manual_seed(1)
    found = importance_weighted_log_likelihood(model, model.prior(), x, 6)

    torch.manual_seed(1)
    q, p = model.encode(x), model.prior()
    z = q.rsample((6,))
    for image in range(5):
        weights = [
            model.decode(z[i, image]).log_prob(x[image]) + p.log_prob(z[i, image]) - q.log_prob(z[i])[image]
            for i in range(6)
        ]
        expected = math.log(sum(weight.double().exp().item() for weight in weights) / 6)
        assert found[image].item() == pytest.approx(expected, abs=1e-4)


def test_weights_too_small_for_any_float_do_not_become_zero():
    model = linear_gaussian.exact(scale=0.01)
    x = linear_gaussian.images(model, 3) + 50.0  # log p(x) of minus many thousands

    found = importance_weighted_log_likelihood(model, model.prior(), x, 5)

    assert (found < -1e5).all()
    torch.testing.assert_close(found, linear_gaussian.log_likelihood(model, x), rtol=1e-9, atol=0)


@pytest.mark.parametrize("pixels", [1, 20 * 7, 20 * 1000])
def test_chunks_of_decoded_pixels_change_nothing(pixels, monkeypatch):
    model, x = vae(), torch.rand(1, *SHAPE).round()
    torch.manual_seed(1)
    whole = importance_weighted_log_likelihood(model, model.prior(), x, 50)
    monkeypatch.setitem(NUMBERS_AT_ONCE, "cpu", pixels)

    torch.manual_seed(1)
    torch.testing.assert_close(
        importance_weighted_log_likelihood(model, model.prior(), x, 50), whole, rtol=0, atol=1e-5
    )


def test_no_more_is_decoded_at_a_time_however_many_samples_there_are(monkeypatch):
    model, x = vae(), torch.rand(1, *SHAPE).round()
    decode, decoded = model.decode, []
    monkeypatch.setattr(model, "decode", lambda z, y: decoded.append(len(z) * x.numel()) or decode(z, y))
    importance_weighted_log_likelihood(model, model.prior(), x, 20_000)

    assert sum(decoded) == 20_000 * x.numel()
    assert max(decoded) <= NUMBERS_AT_ONCE["cpu"]


def test_chunks_of_samples_are_added_up_by_their_weights(monkeypatch):
    model, x = vae(), torch.rand(2, *SHAPE).round()
    prior = model.prior()
    torch.manual_seed(1)
    parts = [importance_weighted_log_likelihood(model, prior, x, k) + math.log(k) for k in (20, 20, 10)]
    monkeypatch.setattr(likelihood, "DRAWN_AT_ONCE", 20)

    torch.manual_seed(1)
    found = importance_weighted_log_likelihood(model, prior, x, 50)

    torch.testing.assert_close(found, torch.stack(parts).logsumexp(0) - math.log(50), rtol=0, atol=1e-12)


def test_float32_gives_what_float64_gives_from_the_same_noise():
    noise = torch.randn(5000, 1, 3)

    class SameNoise(Gaussian):
        def forward(self, features):
            q = super().forward(features)
            normal = q.base_dist
            normal.rsample = lambda shape: normal.loc + normal.scale * noise.to(normal.loc)
            return q

    model = vae(posterior_class=SameNoise)
    for parameter in model.decoder.parameters():
        parameter.data *= 5  # logits as sure as a trained model's
    x = torch.rand(20, *SHAPE).round()
    single = torch.stack(list(log_likelihoods(model, x, 5000, 0)))
    double = torch.stack(list(log_likelihoods(model.double(), x.double(), 5000, 0)))

    assert single.dtype == torch.float64
    torch.testing.assert_close(single, double, rtol=0, atol=1e-5)


def test_the_noise_of_an_image_depends_on_the_seed_and_its_number_alone():
    model, x = vae(), torch.rand(3, *SHAPE).round()

    found = list(log_likelihoods(model, x, 4, seed=0))
    torch.manual_seed(99)
    alone = list(log_likelihoods(model, x[:1], 4, seed=0))
    swapped = list(log_likelihoods(model, torch.stack([x[0], x[2], x[1]]), 4, seed=0))

    assert alone[0] == found[0] == swapped[0]
    assert swapped[1] != found[2]
    assert next(iter(log_likelihoods(model, x, 4, seed=1))) != found[0]


def test_the_evaluated_elbo_samples_z_and_does_not_decode_the_mean():
    model = linear_gaussian.diagonal(scale=0.1)
    x = linear_gaussian.images(model, 2000)
    q = model.encode(x)
    flattering = model.decode(q.mean).log_prob(x).mean() - kl_divergence(q, model.prior()).mean()

    sampled = evaluation_terms(elbo(), Step(model, x, training=False))["elbo"]

    # Half a nat for each of the two latent dimensions, in the limit of a small scale.
    assert (flattering - sampled).item() == pytest.approx(1.0, abs=0.1)


def test_annealing_and_free_bits_are_off_when_reporting():
    model, x = vae(), torch.rand(4, *SHAPE).round()
    torch.manual_seed(1)
    plain = evaluation_terms(elbo(), Step(model, x, training=False))

    torch.manual_seed(1)
    annealed = elbo(kl_weight=Linear(start=0.0, end=1.0, steps=10**6), free_bits=9.0)
    terms = evaluation_terms(annealed, Step(model, x, training=False))

    assert terms == plain
    assert terms["loss"] == -terms["elbo"]


def test_a_model_whose_objective_has_no_kl_gets_its_elbo_all_the_same():
    class Bare(Objective):
        def forward(self, step):
            return {"loss": torch.zeros(()), "reconstruction": step.reconstruction}

    model = linear_gaussian.exact()  # of its KL, torch knows no closed form
    x = linear_gaussian.images(model, 10)
    terms = evaluation_terms(Bare(), Step(model, x, training=False))

    torch.testing.assert_close(terms["elbo"], linear_gaussian.log_likelihood(model, x).mean(), rtol=0, atol=1e-10)
    assert terms["loss"] == 0


def test_a_plain_autoencoder_has_no_elbo():
    model, x = vae(posterior_class=Deterministic, prior=False), torch.rand(4, *SHAPE)

    terms = evaluation_terms(reconstruction(), Step(model, x, training=False))

    assert set(terms) == {"loss", "reconstruction", "mse"}
    torch.testing.assert_close(terms["mse"], (model.reconstruct(x) - x).square().mean())


def test_the_elbo_of_an_iwae_is_the_one_its_training_reports():
    model, x = vae(), torch.rand(4, *SHAPE).round()

    terms = evaluation_terms(IWAE(samples=5), Step(model, x, training=False))

    assert -terms["loss"] > terms["elbo"] == -(terms["reconstruction"] + terms["kl"])


@pytest.mark.parametrize("objective", [elbo(), IWAE(samples=5), elbo(kl="monte_carlo")])
def test_images_are_encoded_once_and_their_error_is_of_the_decoded_mean(objective):
    model, x = vae(), torch.rand(4, *SHAPE).round()
    encoded = []
    model.encoder.register_forward_hook(lambda network, images, features: encoded.append(images[0]))

    torch.manual_seed(1)
    terms = evaluation_terms(objective, Step(model, x, training=False))

    assert len(encoded) == 1
    assert encoded[0] is x
    torch.manual_seed(1)
    assert terms["loss"] == objective(Step(model, x, training=False))["loss"]
    torch.testing.assert_close(terms["mse"], (model.decode(model.encode(x).mean).mean - x).square().mean())


GREY = torch.arange(40, dtype=torch.uint8).reshape(2, *SHAPE)
BLACK_AND_WHITE = (GREY % 2) * 255


def test_only_of_binary_images_is_a_bernoulli_a_likelihood():
    assert why_no_likelihood(vae(), BLACK_AND_WHITE) is None
    assert "grey pixels" in why_no_likelihood(vae(), GREY)
    assert why_no_likelihood(vae(GaussianLikelihood), GREY) is None

    class Unknown(Likelihood):
        def forward(self, parameters):
            return parameters

    unknown = SimpleNamespace(likelihood=Unknown())
    assert "normalized_over" in why_no_likelihood(unknown, GREY)


def test_bits_are_told_of_probabilities_only():
    assert why_no_bits(vae(), BLACK_AND_WHITE) is None
    assert "grey pixels" in why_no_bits(vae(), GREY)
    assert "continuous" in why_no_bits(vae(GaussianLikelihood), GREY)


def test_bits_per_dimension_are_the_length_of_a_code():
    """A fair coin a pixel takes one bit a pixel, whatever the image."""
    model, x = vae(), torch.rand(3, *SHAPE).round()
    for parameter in model.decoder.parameters():
        parameter.data.zero_()
    nll = -torch.stack(list(log_likelihoods(model, x, 1, 0)))
    kl_free = Independent(Normal(torch.zeros(3), torch.ones(3)), 1)
    model.posterior.forward = lambda features: kl_free.expand((len(features),))
    nll = -torch.stack(list(log_likelihoods(model, x, 1, 0)))

    assert likelihood.bits_per_dimension(nll.mean().item(), 20) == pytest.approx(1, abs=1e-6)
