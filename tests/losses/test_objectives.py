"""The ELBO and the reconstruction, mostly on a linear-Gaussian model, of which everything is known."""

import math
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.distributions import MultivariateNormal, Normal, kl_divergence

sys.path.insert(0, str(Path(__file__).parent))
from linear_models import (
    LATENT,
    PIXELS,
    SCALE,
    SHAPE,
    EveryOtherPixel,
    LinearDecoder,
    linear_gaussian,
    log_marginal,
    repeated,
    seeded,
)

import vaelab
from vaelab.config.check import check
from vaelab.losses import IWAE, Step, elbo, kl_per_dimension, reconstruction
from vaelab.models.autoencoder import Autoencoder
from vaelab.models.likelihoods import Gaussian as GaussianLikelihood
from vaelab.models.parts import UnsuitableError
from vaelab.models.posteriors import Deterministic, Gaussian
from vaelab.models.priors import StandardNormal
from vaelab.models.schedules import Linear


@pytest.fixture
def images():
    return torch.rand(5, *SHAPE, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.fixture
def model():
    return linear_gaussian(exact=False)


@pytest.fixture
def exact_model():
    return linear_gaussian(exact=True)


@pytest.fixture
def plain_model(model):
    """A plain autoencoder with the same decoder."""
    torch.manual_seed(0)
    return Autoencoder(
        encoder=nn.Flatten(),
        posterior=Deterministic(PIXELS, LATENT).double(),
        decoder=model.decoder,
        likelihood=model.likelihood,
    )


class TestReconstruction:
    def test_the_loss_is_minus_log_likelihood_at_the_code_averaged_over_images(self, plain_model, images):
        terms = reconstruction()(Step(plain_model, images))

        means = plain_model.decode(plain_model.encode(images).mean).mean
        by_image = (images - means).square().sum((1, 2, 3)) / (2 * SCALE**2)
        constant = PIXELS * math.log(SCALE * math.sqrt(2 * math.pi))
        torch.testing.assert_close(terms["loss"], by_image.mean() + constant)
        assert terms["reconstruction"].equal(terms["loss"])
        assert set(terms) == {"loss", "reconstruction"}

    def test_it_refuses_a_prior_that_nothing_is_trained_against(self, model, plain_model):
        with pytest.raises(ValueError, match=r"no term .*trains StandardNormal"):
            reconstruction().requires(model)
        reconstruction().requires(plain_model)


class TestELBO:
    def test_the_kl_term_is_the_closed_form(self, model, images):
        q = model.encode(images)
        mean, variance = q.mean, q.variance
        by_hand = 0.5 * (mean.square() + variance - variance.log() - 1).sum(1).mean()

        kl = elbo()(Step(model, images))["kl"]

        torch.testing.assert_close(kl, by_hand, rtol=1e-12, atol=0)
        torch.testing.assert_close(kl, kl_divergence(q, model.prior()).mean(), rtol=1e-12, atol=0)

    def test_the_kl_term_agrees_with_the_mean_of_its_samples(self, model, images):
        q = model.encode(images)
        torch.manual_seed(0)
        z = q.sample((20_000,))
        sampled = (q.log_prob(z) - model.prior().log_prob(z)).mean(1)

        kl = elbo()(Step(model, images))["kl"].item()

        standard_error = sampled.std().item() / math.sqrt(20_000)
        assert kl == pytest.approx(sampled.mean().item(), abs=4 * standard_error)
        assert standard_error < 0.01 * kl

    def test_the_kl_term_is_positive_and_zero_only_at_the_prior(self, model, images):
        assert elbo()(Step(model, images))["kl"] > 0

        nn.init.zeros_(model.posterior.weight)
        nn.init.zeros_(model.posterior.bias)
        nn.init.zeros_(model.posterior.log_variance)

        assert elbo()(Step(model, images))["kl"] == 0

    @pytest.mark.parametrize("weight", [0.0, 0.5, 1.0, 4.0])
    @pytest.mark.parametrize("kl", ["closed_form", "monte_carlo"])
    def test_the_loss_is_reconstruction_plus_weight_times_the_unweighted_kl(self, model, images, weight, kl):
        terms = seeded(elbo(kl_weight=weight, kl=kl), model, images, 3, training=True)
        unweighted = seeded(elbo(kl=kl), model, images, 3, training=True)

        torch.testing.assert_close(terms["loss"], terms["reconstruction"] + weight * terms["kl"])
        assert terms["kl"].equal(unweighted["kl"])
        assert terms["reconstruction"].equal(unweighted["reconstruction"])
        assert set(terms) == {"loss", "reconstruction", "kl"}

    def test_the_reconstruction_term_is_taken_at_a_sample_not_at_the_mean(self, model, images):
        terms = seeded(elbo(), model, images)

        torch.manual_seed(0)
        z = model.encode(images).rsample()
        torch.testing.assert_close(terms["reconstruction"], -model.decode(z).log_prob(images).mean())
        assert terms["reconstruction"] != -model.decode(model.encode(images).mean).log_prob(images).mean()

    @pytest.mark.parametrize(("step", "weight"), [(0, 0.0), (5, 1.0), (10, 2.0), (99, 2.0), (None, 2.0)])
    def test_the_weight_follows_its_schedule_and_is_final_in_evaluation(self, model, images, step, weight):
        objective = elbo(kl_weight=Linear(start=0, end=2, steps=10))
        terms = seeded(objective, model, images, step or 0, training=step is not None)

        torch.testing.assert_close(terms["loss"], terms["reconstruction"] + weight * terms["kl"])

    @pytest.mark.parametrize("free_bits", [0.05, 0.5, 3.0])
    def test_free_bits_floor_each_dimensions_mean_kl(self, model, images, free_bits):
        terms = seeded(elbo(kl_weight=2.0, free_bits=free_bits), model, images, training=True)

        q = model.encode(images)
        floored, total = 0.0, 0.0
        for j in range(LATENT):
            kl_of_images = [
                kl_divergence(Normal(q.mean[i, j], q.stddev[i, j]), Normal(0.0, 1.0)).item() for i in range(5)
            ]
            mean = sum(kl_of_images) / 5
            floored += max(free_bits, mean)
            total += mean
        assert terms["loss"].item() == pytest.approx(terms["reconstruction"].item() + 2 * floored, rel=1e-6)
        assert terms["kl"].item() == pytest.approx(total, rel=1e-6)

    def test_the_free_bits_tested_here_bind_for_one_dimension_and_not_for_another(self, model, images):
        smaller, larger = kl_per_dimension(model.encode(images), model.prior()).mean(0).sort().values.tolist()

        assert 0.05 < smaller < 0.5 < larger < 3.0

    def test_free_bits_are_off_in_evaluation(self, model, images):
        free = seeded(elbo(free_bits=3.0), model, images)

        torch.testing.assert_close(free["loss"], seeded(elbo(), model, images)["loss"])
        assert seeded(elbo(free_bits=3.0), model, images, 10**9, training=True)["loss"] > free["loss"]

    def test_a_dimension_within_its_free_bits_is_not_pushed(self, model, images):
        terms = elbo(free_bits=100.0)(Step(model, images))

        (terms["loss"] - terms["reconstruction"]).backward()

        assert all(p.grad is None or not p.grad.any() for p in model.posterior.parameters())

    def test_free_bits_and_a_sampled_kl_exclude_each_other(self):
        with pytest.raises(ValueError, match=r"free_bits.*kl=closed_form"):
            elbo(free_bits=0.1, kl="monte_carlo")

    def test_the_sampled_kl_is_the_log_ratio_at_the_same_sample(self, model, images):
        terms = seeded(elbo(kl="monte_carlo"), model, images)

        torch.manual_seed(0)
        q = model.encode(images)
        z = q.rsample()
        ratio = q.log_prob(z) - model.prior().log_prob(z)
        torch.testing.assert_close(terms["kl"], ratio.mean())

    @pytest.mark.slow
    def test_both_estimators_of_the_loss_have_the_same_mean(self, model, images):
        closed, closed_error = repeated(elbo(), model, images, 2000)
        sampled, sampled_error = repeated(elbo(kl="monte_carlo"), model, images, 2000)

        assert closed == pytest.approx(sampled, abs=4 * math.hypot(closed_error, sampled_error))

    def test_with_the_exact_posterior_every_sample_gives_the_log_marginal(self, exact_model, images):
        # log p(x|z) + log p(z) - log q(z|x) = log p(x) for any z: no noise is left.
        for seed in range(3):
            loss = seeded(elbo(kl="monte_carlo"), exact_model, images, seed=seed)["loss"]
            torch.testing.assert_close(-loss, log_marginal(exact_model, images).mean(), rtol=1e-12, atol=1e-12)

    @pytest.mark.slow
    def test_with_the_exact_posterior_the_closed_form_gives_the_log_marginal_on_average(self, exact_model, images):
        loss, standard_error = repeated(elbo(), exact_model, images, 2000)

        assert -loss == pytest.approx(log_marginal(exact_model, images).mean().item(), abs=4 * standard_error)
        assert standard_error < 0.02

    @pytest.mark.slow
    def test_with_another_posterior_it_falls_short_by_the_kl_between_the_posteriors(self, model, exact_model, images):
        gap = kl_divergence(model.encode(images), exact_model.encode(images)).mean().item()

        loss, standard_error = repeated(elbo(), model, images, 2000)

        assert -loss + gap == pytest.approx(log_marginal(model, images).mean().item(), abs=4 * standard_error)
        assert gap > 20 * standard_error

    @pytest.mark.parametrize(("objective", "name"), [(elbo(), "the term kl"), (IWAE(samples=5), "IWAE")])
    def test_a_deterministic_posterior_is_refused_by_the_names_of_both_parts(self, objective, name, plain_model):
        with pytest.raises(UnsuitableError, match=rf"{name}: Deterministic .*infinite.*: Gaussian would fit"):
            objective.requires(plain_model)

    @pytest.mark.parametrize(("objective", "name"), [(elbo(), "the term kl"), (IWAE(samples=5), "IWAE")])
    def test_a_missing_prior_is_refused_by_the_names_of_both_parts(self, objective, name, model):
        objective.requires(model)
        model.prior = None

        with pytest.raises(UnsuitableError, match=rf"{name}: it needs a prior.*: StandardNormal would fit"):
            objective.requires(model)


class TestReduction:
    """Sum over an event, mean over the batch."""

    @pytest.mark.parametrize("objective", [elbo(kl="monte_carlo"), IWAE(samples=5)])
    def test_a_batch_repeated_has_the_same_loss(self, objective, exact_model, images):
        # With the exact posterior the loss does not depend on the noise.
        once = objective(Step(exact_model, images))["loss"]

        torch.testing.assert_close(objective(Step(exact_model, images.repeat(3, 1, 1, 1)))["loss"], once)

    def test_a_batch_repeated_has_the_same_reconstruction_term(self, plain_model, images):
        once = reconstruction()(Step(plain_model, images))["loss"]

        torch.testing.assert_close(reconstruction()(Step(plain_model, images.repeat(3, 1, 1, 1)))["loss"], once)

    @pytest.mark.parametrize("free_bits", [0.0, 0.5])
    def test_a_batch_repeated_has_the_same_kl_penalty(self, model, images, free_bits):
        objective = elbo(free_bits=free_bits, kl_weight=3.0)
        penalties = []
        for batch in (images, images.repeat(3, 1, 1, 1)):
            terms = objective(Step(model, batch))
            penalties.append(terms["loss"] - terms["reconstruction"])

        torch.testing.assert_close(*penalties)

    @pytest.mark.parametrize("objective", [elbo(), IWAE(samples=5)])
    def test_pixels_doubled_double_the_reconstruction_term_and_leave_the_kl(self, objective, model, images):
        once = seeded(objective, model, images)
        wide = Autoencoder(
            encoder=EveryOtherPixel(),
            posterior=model.posterior,
            decoder=LinearDecoder(model.decoder.weight.detach(), model.decoder.bias.detach(), copies=2),
            likelihood=GaussianLikelihood((1, 2, 6), scale=SCALE),
            prior=model.prior,
        )

        twice = seeded(objective, wide, images.repeat_interleave(2, -1))

        torch.testing.assert_close(twice["reconstruction"], 2 * once["reconstruction"])
        torch.testing.assert_close(twice["kl"], once["kl"])

    def test_pixels_doubled_double_a_plain_autoencoders_loss(self, plain_model, images):
        wide = Autoencoder(
            encoder=EveryOtherPixel(),
            posterior=plain_model.posterior,
            decoder=LinearDecoder(plain_model.decoder.weight.detach(), plain_model.decoder.bias.detach(), copies=2),
            likelihood=GaussianLikelihood((1, 2, 6), scale=SCALE),
        )

        once = reconstruction()(Step(plain_model, images))["loss"]
        twice = reconstruction()(Step(wide, images.repeat_interleave(2, -1)))["loss"]

        torch.testing.assert_close(twice, 2 * once)

    @pytest.mark.parametrize("objective", [elbo(), elbo(free_bits=0.5), elbo(kl="monte_carlo"), IWAE(samples=5)])
    def test_every_term_is_a_scalar(self, objective, model, images):
        assert all(term.shape == () for term in objective(Step(model, images)).values())


def test_kl_per_dimension_adds_up_to_the_kl(model, images):
    q, p = model.encode(images), model.prior()

    parts = kl_per_dimension(q, p)

    assert parts.shape == (5, LATENT)
    torch.testing.assert_close(parts.sum(1), kl_divergence(q, p))


def test_kl_per_dimension_refuses_what_is_no_product_over_dimensions(model):
    correlated = MultivariateNormal(torch.zeros(2), torch.tensor([[1.0, 0.5], [0.5, 1.0]]))

    with pytest.raises(ValueError, match="products"):
        kl_per_dimension(correlated, model.prior())


@pytest.mark.parametrize("network", ["mlp", "conv"])
@pytest.mark.parametrize("preset", ["ae", "vae", "beta_vae", "annealed_vae", "iwae"])
def test_a_gradient_reaches_every_parameter_of_every_preset(preset, network):
    overrides = [f"model={preset}", f"encoder={network}", f"decoder={network}", "data=digits", "latent_dim=4"]
    experiment = check(vaelab.compose(overrides))
    model = experiment.model()
    x = torch.rand(16, *experiment.data.shape, generator=torch.Generator().manual_seed(0))

    seeded(experiment.objective, model, x, 1, training=True)["loss"].backward()

    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


def test_a_schedule_of_a_config_reaches_the_objective():
    config = vaelab.compose(["model=annealed_vae", "data=digits", "objective.kl_weight.steps=10", "latent_dim=2"])
    experiment = check(config)
    model, x = experiment.model(), torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))

    for step, weight in [(0, 0.0), (5, 0.5), (None, 1.0)]:
        terms = seeded(experiment.objective, model, x, step or 0, training=step is not None)
        torch.testing.assert_close(terms["loss"], terms["reconstruction"] + weight * terms["kl"])


def test_the_gaussian_posterior_of_a_preset_has_the_kl_of_its_projections():
    torch.manual_seed(0)
    posterior, features = Gaussian(3, LATENT).double(), torch.randn(5, 3).double()
    mean, log_variance = posterior.mean_and_log_variance(features).chunk(2, -1)

    kl = kl_divergence(posterior(features), StandardNormal(LATENT).double()())

    # Kingma & Welling 2014, appendix B.
    by_hand = -0.5 * (1 + log_variance - mean**2 - log_variance.exp()).sum(1)
    torch.testing.assert_close(kl, by_hand, rtol=1e-12, atol=1e-12)
