"""The mathematics of the objectives, mostly on a linear-Gaussian model, of which everything is known.

z ~ N(0, I), x|z ~ N(W z + b, s^2 I), so that x ~ N(b, W W^T + s^2 I) and, for the columns of W orthogonal,
z|x ~ N(v * W^T (x - b) / s^2, diag(v)) with v = 1 / (1 + diag(W^T W) / s^2).
"""

import math

import pytest
import torch
from torch import nn
from torch.distributions import Independent, MultivariateNormal, Normal, kl_divergence

import vaelab
from vaelab.config.check import check
from vaelab.losses import ELBO, IWAE, Reconstruction, VectorQuantization, kl_per_dimension
from vaelab.losses.schedules import Linear
from vaelab.models.autoencoder import Autoencoder
from vaelab.models.likelihoods import Gaussian as GaussianLikelihood
from vaelab.models.networks import MLPDecoder
from vaelab.models.posteriors import Deterministic, Gaussian, VectorQuantizer
from vaelab.models.priors import StandardNormal, UniformCodes

SHAPE, PIXELS, LATENT, SCALE = (1, 2, 3), 6, 2, 0.7


class LinearPosterior(nn.Module):
    """q(z|x) = N(A x + c, diag(v))."""

    has_density = True

    def __init__(self, weight, bias, variance):
        super().__init__()
        self.weight, self.bias = nn.Parameter(weight), nn.Parameter(bias)
        self.log_variance = nn.Parameter(variance.log())

    def forward(self, features):
        mean = features @ self.weight.T + self.bias
        deviation = (0.5 * self.log_variance).exp().expand_as(mean)
        return Independent(Normal(mean, deviation), 1)


class LinearDecoder(nn.Module):
    """W z + b as an image; `copies` puts it side by side with itself."""

    def __init__(self, weight, bias, copies=1):
        super().__init__()
        self.weight, self.bias, self.copies = nn.Parameter(weight), nn.Parameter(bias), copies

    def forward(self, z):
        return (z @ self.weight.T + self.bias).unflatten(-1, SHAPE).repeat_interleave(self.copies, -1)


def linear_gaussian(*, exact):
    """The model, with its exact posterior or with one that is somewhat off."""
    generator = torch.Generator().manual_seed(0)
    columns = torch.linalg.qr(torch.randn(PIXELS, LATENT, generator=generator, dtype=torch.float64)).Q
    weight = columns * torch.tensor([1.5, 0.8], dtype=torch.float64)
    bias = torch.randn(PIXELS, generator=generator, dtype=torch.float64)
    variance = 1 / (1 + weight.square().sum(0) / SCALE**2)
    gain = variance[:, None] * weight.T / SCALE**2
    shift = -gain @ bias
    if not exact:
        gain, shift, variance = gain * 0.7, shift + 0.3, variance * 1.6
    return Autoencoder(
        encoder=nn.Flatten(),
        posterior=LinearPosterior(gain, shift, variance),
        decoder=LinearDecoder(weight, bias),
        likelihood=GaussianLikelihood(SHAPE, scale=SCALE),
        prior=StandardNormal(LATENT).double(),
    )


def log_marginal(model, x):
    """log p(x) of a linear-Gaussian model, (B,)."""
    weight, bias = model.decoder.weight, model.decoder.bias
    covariance = weight @ weight.T + SCALE**2 * torch.eye(PIXELS, dtype=torch.float64)
    return MultivariateNormal(bias, covariance).log_prob(x.flatten(1)).detach()


def seeded(objective, model, x, step=math.inf, seed=0):
    torch.manual_seed(seed)
    return objective(model, x, step)


def repeated(objective, model, x, runs):
    """The mean loss of `runs` evaluations under different noise, and its standard error."""
    with torch.no_grad():
        losses = torch.stack([seeded(objective, model, x, seed=seed)["loss"] for seed in range(runs)])
    return losses.mean().item(), losses.std().item() / math.sqrt(runs)


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
        terms = Reconstruction()(plain_model, images, 0)

        means = plain_model.decode(plain_model.encode(images).mean).mean
        by_image = (images - means).square().sum((1, 2, 3)) / (2 * SCALE**2)
        constant = PIXELS * math.log(SCALE * math.sqrt(2 * math.pi))
        torch.testing.assert_close(terms["loss"], by_image.mean() + constant)
        assert terms["reconstruction"].equal(terms["loss"])
        assert set(terms) == {"loss", "reconstruction"}

    def test_it_refuses_a_prior_that_nothing_is_trained_against(self, model, plain_model):
        with pytest.raises(ValueError, match=r"objective=reconstruction.*prior"):
            Reconstruction().requires(model)
        Reconstruction().requires(plain_model)


class TestELBO:
    def test_the_kl_term_is_the_closed_form(self, model, images):
        q = model.encode(images)
        mean, variance = q.mean, q.variance
        by_hand = 0.5 * (mean.square() + variance - variance.log() - 1).sum(1).mean()

        kl = ELBO()(model, images, 0)["kl"]

        torch.testing.assert_close(kl, by_hand, rtol=1e-12, atol=0)
        torch.testing.assert_close(kl, kl_divergence(q, model.prior()).mean(), rtol=1e-12, atol=0)

    def test_the_kl_term_agrees_with_the_mean_of_its_samples(self, model, images):
        q = model.encode(images)
        torch.manual_seed(0)
        z = q.sample((20_000,))
        sampled = (q.log_prob(z) - model.prior().log_prob(z)).mean(1)

        kl = ELBO()(model, images, 0)["kl"].item()

        standard_error = sampled.std().item() / math.sqrt(20_000)
        assert kl == pytest.approx(sampled.mean().item(), abs=4 * standard_error)
        assert standard_error < 0.01 * kl

    def test_the_kl_term_is_positive_and_zero_only_at_the_prior(self, model, images):
        assert ELBO()(model, images, 0)["kl"] > 0

        nn.init.zeros_(model.posterior.weight)
        nn.init.zeros_(model.posterior.bias)
        nn.init.zeros_(model.posterior.log_variance)

        assert ELBO()(model, images, 0)["kl"] == 0

    @pytest.mark.parametrize("weight", [0.0, 0.5, 1.0, 4.0])
    @pytest.mark.parametrize("kl", ["closed_form", "monte_carlo"])
    def test_the_loss_is_reconstruction_plus_weight_times_the_unweighted_kl(self, model, images, weight, kl):
        terms = seeded(ELBO(kl_weight=weight, kl=kl), model, images, step=3)
        unweighted = seeded(ELBO(kl=kl), model, images, step=3)

        torch.testing.assert_close(terms["loss"], terms["reconstruction"] + weight * terms["kl"])
        assert terms["kl"].equal(unweighted["kl"])
        assert terms["reconstruction"].equal(unweighted["reconstruction"])
        assert set(terms) == {"loss", "reconstruction", "kl"}

    def test_the_reconstruction_term_is_taken_at_a_sample_not_at_the_mean(self, model, images):
        terms = seeded(ELBO(), model, images)

        torch.manual_seed(0)
        z = model.encode(images).rsample()
        torch.testing.assert_close(terms["reconstruction"], -model.decode(z).log_prob(images).mean())
        assert terms["reconstruction"] != -model.decode(model.encode(images).mean).log_prob(images).mean()

    @pytest.mark.parametrize(("step", "weight"), [(0, 0.0), (5, 1.0), (10, 2.0), (99, 2.0), (math.inf, 2.0)])
    def test_the_weight_follows_its_schedule_and_is_final_in_evaluation(self, model, images, step, weight):
        terms = seeded(ELBO(kl_weight=Linear(start=0, end=2, steps=10)), model, images, step)

        torch.testing.assert_close(terms["loss"], terms["reconstruction"] + weight * terms["kl"])

    @pytest.mark.parametrize("free_bits", [0.05, 0.5, 3.0])
    def test_free_bits_floor_each_dimensions_mean_kl(self, model, images, free_bits):
        terms = seeded(ELBO(kl_weight=2.0, free_bits=free_bits), model, images, step=0)

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
        free = seeded(ELBO(free_bits=3.0), model, images, math.inf)

        torch.testing.assert_close(free["loss"], seeded(ELBO(), model, images, math.inf)["loss"])
        assert seeded(ELBO(free_bits=3.0), model, images, 10**9)["loss"] > free["loss"]

    def test_a_dimension_within_its_free_bits_is_not_pushed(self, model, images):
        terms = ELBO(free_bits=100.0)(model, images, 0)

        (terms["loss"] - terms["reconstruction"]).backward()

        assert all(p.grad is None or not p.grad.any() for p in model.posterior.parameters())

    def test_free_bits_and_a_sampled_kl_exclude_each_other(self):
        with pytest.raises(ValueError, match=r"free_bits.*kl=closed_form"):
            ELBO(free_bits=0.1, kl="monte_carlo")

    def test_the_sampled_kl_is_the_log_ratio_at_the_same_sample(self, model, images):
        terms = seeded(ELBO(kl="monte_carlo"), model, images)

        torch.manual_seed(0)
        q = model.encode(images)
        z = q.rsample()
        ratio = q.log_prob(z) - model.prior().log_prob(z)
        torch.testing.assert_close(terms["kl"], ratio.mean())

    def test_both_estimators_of_the_loss_have_the_same_mean(self, model, images):
        closed, closed_error = repeated(ELBO(), model, images, 2000)
        sampled, sampled_error = repeated(ELBO(kl="monte_carlo"), model, images, 2000)

        assert closed == pytest.approx(sampled, abs=4 * math.hypot(closed_error, sampled_error))

    def test_with_the_exact_posterior_every_sample_gives_the_log_marginal(self, exact_model, images):
        # log p(x|z) + log p(z) - log q(z|x) = log p(x) for any z: no noise is left.
        for seed in range(3):
            loss = seeded(ELBO(kl="monte_carlo"), exact_model, images, seed=seed)["loss"]
            torch.testing.assert_close(-loss, log_marginal(exact_model, images).mean(), rtol=1e-12, atol=1e-12)

    def test_with_the_exact_posterior_the_closed_form_gives_the_log_marginal_on_average(self, exact_model, images):
        loss, standard_error = repeated(ELBO(), exact_model, images, 2000)

        assert -loss == pytest.approx(log_marginal(exact_model, images).mean().item(), abs=4 * standard_error)
        assert standard_error < 0.02

    def test_with_another_posterior_it_falls_short_by_the_kl_between_the_posteriors(self, model, exact_model, images):
        gap = kl_divergence(model.encode(images), exact_model.encode(images)).mean().item()

        loss, standard_error = repeated(ELBO(), model, images, 2000)

        assert -loss + gap == pytest.approx(log_marginal(model, images).mean().item(), abs=4 * standard_error)
        assert gap > 20 * standard_error

    @pytest.mark.parametrize("objective", [ELBO(), IWAE(samples=5)])
    def test_a_deterministic_posterior_is_refused_by_the_names_of_both_parts(self, objective, plain_model):
        name = type(objective).__name__.lower()

        with pytest.raises(ValueError, match=rf"objective={name}.*posterior=deterministic.*infinite"):
            objective.requires(plain_model)

    @pytest.mark.parametrize("objective", [ELBO(), IWAE(samples=5)])
    def test_a_missing_prior_is_refused_by_the_names_of_both_parts(self, objective, model):
        objective.requires(model)
        model.prior = None

        with pytest.raises(ValueError, match=rf"objective={type(objective).__name__.lower()}.*prior=standard_normal"):
            objective.requires(model)


class TestIWAE:
    def test_one_sample_gives_the_monte_carlo_elbo(self, model, images):
        iwae = seeded(IWAE(samples=1), model, images)
        elbo = seeded(ELBO(kl="monte_carlo"), model, images)

        assert set(iwae) == set(elbo)
        for name, term in elbo.items():
            torch.testing.assert_close(iwae[name], term, rtol=1e-13, atol=1e-13)

    @pytest.mark.parametrize("k", [1, 2, 7])
    def test_the_bound_is_the_log_of_the_mean_weight(self, model, images, k):
        terms = seeded(IWAE(samples=k), model, images)

        torch.manual_seed(0)
        z = model.encode(images).sample((k,))
        log_likelihoods, log_ratios, bounds = [], [], []
        for b in range(len(images)):
            weights = []
            for i in range(k):
                q = model.encode(images[b : b + 1])
                log_likelihood = model.decode(z[i, b : b + 1]).log_prob(images[b : b + 1]).item()
                log_ratio = (q.log_prob(z[i, b : b + 1]) - model.prior().log_prob(z[i, b : b + 1])).item()
                weights.append(math.exp(log_likelihood - log_ratio))
                log_likelihoods.append(log_likelihood)
                log_ratios.append(log_ratio)
            bounds.append(math.log(sum(weights) / k))
        assert terms["loss"].item() == pytest.approx(-sum(bounds) / len(bounds), rel=1e-10)
        assert terms["reconstruction"].item() == pytest.approx(-sum(log_likelihoods) / len(log_likelihoods), rel=1e-10)
        assert terms["kl"].item() == pytest.approx(sum(log_ratios) / len(log_ratios), rel=1e-10)

    def test_its_gradient_favours_the_best_samples(self, model, images):
        # Burda et al. 2015, equation 13: the gradient is the mean of the samples' gradients, weighted by
        # w_i / sum_j w_j.
        parameters = list(model.parameters())
        gradients = torch.autograd.grad(seeded(IWAE(samples=7), model, images)["loss"], parameters)

        torch.manual_seed(0)
        q = model.encode(images)
        z = q.rsample((7,))
        log_weights = model.decode(z).log_prob(images) + model.prior().log_prob(z) - q.log_prob(z)
        normalised = log_weights.detach().softmax(0)
        expected = torch.autograd.grad(-(normalised * log_weights).sum(0).mean(), parameters)

        for gradient, by_hand in zip(gradients, expected, strict=True):
            torch.testing.assert_close(gradient, by_hand, rtol=1e-10, atol=1e-10)

    def test_the_bound_tightens_with_more_samples_and_converges_to_the_log_marginal(self, model, images):
        exact = log_marginal(model, images).mean().item()
        results = {k: repeated(IWAE(samples=k), model, images, 500) for k in (1, 5, 50, 2000)}

        bounds = {k: -loss for k, (loss, _) in results.items()}
        errors = {k: error for k, (_, error) in results.items()}
        assert bounds[1] + 4 * errors[1] < bounds[5] - 4 * errors[5]
        assert bounds[5] + 4 * errors[5] < bounds[50] - 4 * errors[50]
        assert all(bound <= exact + 4 * errors[k] for k, bound in bounds.items())
        assert bounds[2000] == pytest.approx(exact, abs=4 * errors[2000] + 0.002)
        assert errors[2000] < 0.002

    @pytest.mark.parametrize("k", [1, 5])
    def test_with_the_exact_posterior_any_number_of_samples_gives_the_log_marginal(self, exact_model, images, k):
        loss = seeded(IWAE(samples=k), exact_model, images)["loss"]

        torch.testing.assert_close(-loss, log_marginal(exact_model, images).mean(), rtol=1e-12, atol=1e-12)

    def test_weights_too_small_for_a_float_do_not_make_it_infinite(self, model):
        far = torch.full((2, *SHAPE), 1e3, dtype=torch.float64)
        log_weight = -seeded(IWAE(samples=1), model, far)["loss"].item()

        assert log_weight < -800  # exp of it is 0
        assert math.isfinite(seeded(IWAE(samples=5), model, far)["loss"].item())


class TestReduction:
    """Sum over an event, mean over the batch."""

    @pytest.mark.parametrize("objective", [ELBO(kl="monte_carlo"), IWAE(samples=5)])
    def test_a_batch_repeated_has_the_same_loss(self, objective, exact_model, images):
        # With the exact posterior the loss does not depend on the noise.
        once = objective(exact_model, images, 0)["loss"]

        torch.testing.assert_close(objective(exact_model, images.repeat(3, 1, 1, 1), 0)["loss"], once)

    def test_a_batch_repeated_has_the_same_reconstruction_term(self, plain_model, images):
        once = Reconstruction()(plain_model, images, 0)["loss"]

        torch.testing.assert_close(Reconstruction()(plain_model, images.repeat(3, 1, 1, 1), 0)["loss"], once)

    @pytest.mark.parametrize("free_bits", [0.0, 0.5])
    def test_a_batch_repeated_has_the_same_kl_penalty(self, model, images, free_bits):
        objective = ELBO(free_bits=free_bits, kl_weight=3.0)
        penalties = []
        for batch in (images, images.repeat(3, 1, 1, 1)):
            terms = objective(model, batch, 0)
            penalties.append(terms["loss"] - terms["reconstruction"])

        torch.testing.assert_close(*penalties)

    @pytest.mark.parametrize("objective", [ELBO(), IWAE(samples=5)])
    def test_pixels_doubled_double_the_reconstruction_term_and_leave_the_kl(self, objective, model, images):
        once = seeded(objective, model, images)
        wide = Autoencoder(
            encoder=lambda x: x[..., ::2].flatten(1),
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
            encoder=lambda x: x[..., ::2].flatten(1),
            posterior=plain_model.posterior,
            decoder=LinearDecoder(plain_model.decoder.weight.detach(), plain_model.decoder.bias.detach(), copies=2),
            likelihood=GaussianLikelihood((1, 2, 6), scale=SCALE),
        )

        once = Reconstruction()(plain_model, images, 0)["loss"]
        twice = Reconstruction()(wide, images.repeat_interleave(2, -1), 0)["loss"]

        torch.testing.assert_close(twice, 2 * once)

    @pytest.mark.parametrize("objective", [ELBO(), ELBO(free_bits=0.5), ELBO(kl="monte_carlo"), IWAE(samples=5)])
    def test_every_term_is_a_scalar(self, objective, model, images):
        assert all(term.shape == () for term in objective(model, images, 0).values())


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

    seeded(experiment.objective, model, x, step=1)["loss"].backward()

    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


def test_a_schedule_of_a_config_reaches_the_objective():
    config = vaelab.compose(["model=annealed_vae", "data=digits", "objective.kl_weight.steps=10", "latent_dim=2"])
    experiment = check(config)
    model, x = experiment.model(), torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))

    for step, weight in [(0, 0.0), (5, 0.5), (math.inf, 1.0)]:
        terms = seeded(experiment.objective, model, x, step)
        torch.testing.assert_close(terms["loss"], terms["reconstruction"] + weight * terms["kl"])


def test_the_gaussian_posterior_of_a_preset_has_the_kl_of_its_projections():
    torch.manual_seed(0)
    posterior, features = Gaussian(3, LATENT).double(), torch.randn(5, 3).double()
    mean, log_variance = posterior.mean(features), posterior.log_variance(features)

    kl = kl_divergence(posterior(features), StandardNormal(LATENT).double()())

    # Kingma & Welling 2014, appendix B.
    by_hand = -0.5 * (1 + log_variance - mean**2 - log_variance.exp()).sum(1)
    torch.testing.assert_close(kl, by_hand, rtol=1e-12, atol=1e-12)


def quantizing(update="gradient"):
    torch.manual_seed(0)
    posterior = VectorQuantizer(PIXELS, 2, codebook_size=4, codes=3, update=update)
    model = Autoencoder(
        encoder=nn.Flatten(),
        posterior=posterior,
        decoder=MLPDecoder(posterior.latent_dim, SHAPE, hidden=[4]),
        likelihood=GaussianLikelihood(SHAPE, scale=SCALE),
        prior=UniformCodes(posterior.latent_dim),
    )
    return model.eval()


def test_the_loss_of_a_quantizer_is_reconstruction_commitment_and_the_codebooks_error():
    model, x = quantizing(), torch.rand(7, *SHAPE)
    codes = model.encode(x)
    reconstruction = -model.decode(codes.mean).log_prob(x).mean()
    error = (model.posterior.project(x.flatten(1)).flatten(1) - codes.mean).square().sum(1).mean()

    terms = VectorQuantization(commitment_weight=0.25)(model, x, 0)

    torch.testing.assert_close(terms["reconstruction"], reconstruction)
    torch.testing.assert_close(terms["commitment"], error)
    torch.testing.assert_close(terms["loss"], reconstruction + 1.25 * error)
    assert terms["kl"].item() == pytest.approx(3 * math.log(4))
    usage = codes.indices.flatten().bincount(minlength=4) / 21
    assert terms["batch_perplexity"].item() == pytest.approx(torch.special.entr(usage).sum().exp().item())


def test_averages_that_move_the_codebook_leave_no_error_of_it_in_the_loss():
    model, x = quantizing(update="ema"), torch.rand(7, *SHAPE)
    terms = VectorQuantization(commitment_weight=Linear(start=0.0, end=0.5, steps=10))(model, x, 4)

    torch.testing.assert_close(terms["loss"], terms["reconstruction"] + 0.2 * terms["commitment"])


def test_the_terms_of_a_quantizer_do_not_depend_on_the_batch_size():
    model, x = quantizing(), torch.rand(7, *SHAPE)
    objective = VectorQuantization()

    one, many = objective(model, x, 0), objective(model, x.repeat(5, 1, 1, 1), 0)

    for name in one:
        torch.testing.assert_close(one[name], many[name])


def test_a_part_that_looks_at_values_is_not_refused():
    """What a model needs is found out without values; where that fails, training says."""

    class Curious(nn.Flatten):
        def forward(self, x):
            return super().forward(x) if x.sum().item() < 1e9 else x

    model = quantizing()
    model.encoder = Curious()

    VectorQuantization().requires(model)
