"""The importance-weighted family against brute force: densities and sums written out for a Gaussian model."""

import math
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from torch.distributions import Independent, Normal

sys.path.insert(0, str(Path(__file__).parent))
from linear_models import linear_gaussian, log_marginal, repeated, seeded

import vaelab
from vaelab.config.check import check
from vaelab.losses import CIWAE, IWAE, MIWAE, PIWAE, elbo
from vaelab.models.autoencoder import Autoencoder
from vaelab.models.likelihoods import Gaussian as GaussianLikelihood
from vaelab.models.networks import MLPDecoder, MLPEncoder
from vaelab.models.posteriors import Gaussian
from vaelab.models.priors import StandardNormal

SHAPE, PIXELS, LATENT = (1, 2, 3), 6, 2
PLAIN, DREG = "reparameterized", "doubly_reparameterized"
FAMILY = [
    IWAE(samples=6),
    MIWAE(samples=3, groups=2),
    CIWAE(samples=6, elbo_share=0.3),
    PIWAE(samples=3, groups=2),
    IWAE(samples=6, gradient=DREG),
    MIWAE(samples=3, groups=2, gradient=DREG),
    CIWAE(samples=6, elbo_share=0.3, gradient=DREG),
    PIWAE(samples=3, groups=2, gradient=DREG),
]


def named(objective):
    return f"{type(objective).__name__}-{objective.gradient}"


@pytest.fixture
def model():
    """z -> 6 pixels, all maps linear, in float64; the posterior is not the exact one."""
    torch.manual_seed(3)
    return Autoencoder(
        encoder=MLPEncoder(SHAPE, hidden=[]),
        posterior=Gaussian(PIXELS, LATENT),
        decoder=MLPDecoder(LATENT, SHAPE, hidden=[]),
        likelihood=GaussianLikelihood(SHAPE, scale=0.7),
        prior=StandardNormal(LATENT),
    ).double()


@pytest.fixture
def images():
    return torch.rand(4, *SHAPE, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def log_weights(model, x, *samples, seed=0):
    """(*samples, B), from the parameters alone."""
    torch.manual_seed(seed)
    posterior, decoder = model.posterior, model.decoder.layers[0]
    layer = posterior.mean_and_log_variance
    mean, log_variance = (x.flatten(1) @ layer.weight.T + layer.bias).chunk(2, -1)
    deviation = (0.5 * log_variance).exp()
    noise = torch.randn(*samples, *mean.shape, dtype=torch.float64)
    z = mean + deviation * noise
    error = x.flatten(1) - (z @ decoder.weight.T + decoder.bias)
    log_2pi = math.log(2 * math.pi)
    log_likelihood = -(error / 0.7).square().sum(-1) / 2 - PIXELS * (math.log(0.7) + log_2pi / 2)
    log_prior = -z.square().sum(-1) / 2 - LATENT * log_2pi / 2
    log_posterior = -(noise.square() / 2 + deviation.log()).sum(-1) - LATENT * log_2pi / 2
    return log_likelihood + log_prior - log_posterior


def gradients(model, loss, part=""):
    parameters = [parameter for name, parameter in model.named_parameters() if name.startswith(part)]
    return torch.cat([gradient.flatten() for gradient in torch.autograd.grad(loss, parameters)])


def brute_force(objective, model, x):
    """The loss as its definition says, by exponentials and logarithms of sums."""
    if type(objective) is MIWAE:
        weights = log_weights(model, x, objective.groups, objective.samples).exp()
        return -weights.mean(1).log().mean()
    samples = (objective.groups, objective.samples) if isinstance(objective, PIWAE) else (objective.samples,)
    log_weight = log_weights(model, x, *samples).flatten(0, -2)
    bound = log_weight.exp().mean(0).log().mean()
    if isinstance(objective, CIWAE):
        bound = objective.elbo_share * log_weight.mean() + (1 - objective.elbo_share) * bound
    return -bound


@pytest.mark.parametrize("objective", FAMILY, ids=named)
def test_the_loss_is_that_of_its_definition(objective, model, images):
    torch.testing.assert_close(seeded(objective, model, images)["loss"], brute_force(objective, model, images))


@pytest.mark.parametrize("objective", FAMILY[:3], ids=named)
def test_the_plain_gradient_is_that_of_the_definition(objective, model, images):
    ours = gradients(model, seeded(objective, model, images)["loss"])
    torch.testing.assert_close(ours, gradients(model, brute_force(objective, model, images)))


@pytest.mark.parametrize("objective", FAMILY, ids=named)
def test_an_evaluation_without_gradients_has_the_same_terms(objective, model, images):
    terms = seeded(objective, model, images)
    with torch.inference_mode():
        evaluated = seeded(objective, model, images)
    assert terms.keys() == evaluated.keys() == {"loss", "reconstruction", "kl"}
    for name in terms:
        torch.testing.assert_close(evaluated[name], terms[name].detach())


def test_one_group_is_iwae_and_groups_of_one_sample_are_the_elbo(model, images):
    iwae = seeded(IWAE(samples=5), model, images)["loss"]
    torch.testing.assert_close(seeded(MIWAE(samples=5, groups=1), model, images)["loss"], iwae)
    torch.testing.assert_close(seeded(PIWAE(samples=5, groups=1), model, images)["loss"], iwae)
    terms = seeded(MIWAE(samples=1, groups=5), model, images)
    torch.testing.assert_close(terms["loss"], terms["reconstruction"] + terms["kl"])
    one = seeded(MIWAE(samples=1, groups=1), model, images)["loss"]
    torch.testing.assert_close(one, seeded(elbo(kl="monte_carlo"), model, images)["loss"])


def test_the_ends_of_the_combination_are_iwae_and_the_elbo(model, images):
    torch.testing.assert_close(
        seeded(CIWAE(samples=5, elbo_share=0), model, images)["loss"], seeded(IWAE(samples=5), model, images)["loss"]
    )
    terms = seeded(CIWAE(samples=5, elbo_share=1), model, images)
    torch.testing.assert_close(terms["loss"], terms["reconstruction"] + terms["kl"])


def test_piwae_trains_the_decoder_as_iwae_and_the_encoder_as_miwae(model, images):
    loss = seeded(PIWAE(samples=3, groups=2), model, images)["loss"]
    iwae = -(log_weights(model, images, 2, 3).flatten(0, 1).exp().mean(0).log().mean())
    miwae = seeded(MIWAE(samples=3, groups=2), model, images)["loss"]

    parameters = list(model.named_parameters())
    ours = torch.autograd.grad(loss, [parameter for _, parameter in parameters])
    of_decoder = dict(zip([name for name, _ in parameters], ours, strict=True))
    for name, parameter in parameters:
        expected = iwae if name.startswith("decoder") else miwae
        (gradient,) = torch.autograd.grad(expected, parameter, retain_graph=True)
        torch.testing.assert_close(of_decoder[name], gradient, msg=name)


@pytest.mark.parametrize(
    ("plain", "doubly"),
    [
        (IWAE(samples=16), IWAE(samples=16, gradient=DREG)),
        (MIWAE(samples=8, groups=2), MIWAE(samples=8, groups=2, gradient=DREG)),
        (CIWAE(samples=16, elbo_share=0.3), CIWAE(samples=16, elbo_share=0.3, gradient=DREG)),
        (PIWAE(samples=8, groups=2), PIWAE(samples=8, groups=2, gradient=DREG)),
    ],
    ids=named,
)
@pytest.mark.parametrize("acts_on", ["mean", "scale"])
def test_the_doubly_reparameterized_gradient_has_the_same_mean_and_less_variance(plain, doubly, acts_on, model, images):
    runs = 2000
    many = images[:1].repeat(runs, 1, 1, 1)  # independent estimates for one image, all at once

    def each(objective):
        """The gradient to what acts on every image's mean or logarithm of the scale alike, (runs, Z)."""
        shift = torch.zeros(runs, LATENT, dtype=torch.float64, requires_grad=True)
        encode = model.encode

        def shifted(x, y):
            q = encode(x, y)
            if acts_on == "mean":
                q.base_dist.loc = q.base_dist.loc + shift
            else:
                q.base_dist.scale = q.base_dist.scale * shift.exp()
            return q

        model.encode = shifted
        try:
            return torch.autograd.grad(seeded(objective, model, many)["loss"] * runs, shift)[0]
        finally:
            model.encode = encode

    one, other = each(plain), each(doubly)
    difference, error = (one - other).mean(0), ((one.var(0) + other.var(0)) / runs).sqrt()
    assert (difference.abs() < 4 * error).all()
    assert (other.var(0) < one.var(0)).all()


@pytest.mark.parametrize(
    "objective",
    [
        partial(IWAE, samples=6),
        partial(MIWAE, samples=3, groups=2),
        partial(CIWAE, samples=6, elbo_share=0.3),
        partial(PIWAE, samples=3, groups=2),
    ],
)
def test_the_decoder_gets_the_same_gradient_either_way(objective, model, images):
    plain, doubly = (seeded(objective(gradient=gradient), model, images) for gradient in (PLAIN, DREG))
    one, other = gradients(model, plain["loss"], "decoder"), gradients(model, doubly["loss"], "decoder")
    torch.testing.assert_close(one, other)


class TestWithBatchNormalizationInTheEncoder:
    """Which has the gradients of an image's posterior go to the whole batch, and those of each sample stay its own."""

    @pytest.fixture
    def model(self, model):
        model.encoder = MLPEncoder(SHAPE, hidden=[5], normalization="batch").double()
        model.posterior = Gaussian(5, LATENT).double()
        return model

    def log_weight_of_fixed_posterior(self, model, x, samples):
        torch.manual_seed(0)
        q = model.encode(x)
        z = q.rsample((samples,))
        fixed = Independent(Normal(q.base_dist.loc.detach(), q.base_dist.scale.detach()), 1)
        return model.decode(z).log_prob(x) + model.prior().log_prob(z) - fixed.log_prob(z)

    def test_the_doubly_reparameterized_gradient_is_that_of_its_formula(self, model, images):
        """Tucker et al. 2019, equation 8: log w through z alone, by the square of each sample's share."""
        for part in ("encoder", "posterior"):
            log_weight = self.log_weight_of_fixed_posterior(model, images, 6)
            expected = -(log_weight.softmax(0).square().detach() * log_weight).sum(0).mean()
            loss = seeded(IWAE(samples=6, gradient=DREG), model, images)["loss"]
            torch.testing.assert_close(gradients(model, loss, part), gradients(model, expected, part))

    def test_piwae_trains_the_encoder_as_miwae(self, model, images):
        for part in ("encoder", "posterior"):
            piwae, miwae = (
                gradients(model, seeded(bound(samples=3, groups=2), model, images)["loss"], part)
                for bound in (PIWAE, MIWAE)
            )
            torch.testing.assert_close(piwae, miwae)


class TestIWAE:
    """On a linear-Gaussian model, whose log p(x) is known."""

    @pytest.fixture
    def model(self):
        return linear_gaussian(exact=False)

    @pytest.fixture
    def exact_model(self):
        return linear_gaussian(exact=True)

    @pytest.fixture
    def images(self):
        return torch.rand(5, *SHAPE, generator=torch.Generator().manual_seed(1), dtype=torch.float64)

    def test_one_sample_gives_the_monte_carlo_elbo(self, model, images):
        ours = seeded(IWAE(samples=1), model, images)
        theirs = seeded(elbo(kl="monte_carlo"), model, images)

        assert set(ours) == set(theirs)
        for name, term in theirs.items():
            torch.testing.assert_close(ours[name], term, rtol=1e-13, atol=1e-13)

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

    @pytest.mark.slow
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


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["objective=iwae", "posterior=deterministic"], "objective=iwae: posterior=deterministic has no density"),
        (["objective=piwae", "posterior=iaf"], "objective=piwae: it needs z as a smooth map of noise"),
        (["model=iwae_dreg", "posterior=iaf"], "posterior=gaussian or posterior=full_covariance_gaussian or"),
        (["model=iwae_dreg", "posterior=von_mises_fisher", "prior=hyperspherical_uniform"], "posterior=von_mises"),
        (["model=iwae_dreg", "posterior=gumbel_softmax", "prior=uniform_codes"], "posterior=gumbel_softmax"),
        (["model=iwae_dreg", "decoder.normalization=batch"], "objective=iwae: it weighs the gradient of each sample"),
        (["model=piwae", "decoder.normalization=batch"], "objective=piwae: it weighs the gradient of each sample"),
        (["model=piwae", "loss=gaussian_optimal_scale"], "and loss=gaussian_optimal_scale makes it depend on the"),
        (["objective=ciwae", "objective.elbo_share=1.5"], "less than or equal to 1"),
        (["objective=miwae", "~prior"], "objective=miwae: it needs a prior"),
    ],
    ids=str,
)
def test_what_does_not_go_together_is_named_with_what_would(overrides, message):
    with pytest.raises(vaelab.ConfigError) as error:
        check(vaelab.compose(["data=digits", *overrides]))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("overrides", [["model=iwae"], ["model=ciwae"], ["model=miwae"]], ids=str)
def test_the_plain_gradient_goes_with_batch_normalization(overrides):
    check(vaelab.compose(["data=digits", *overrides, "decoder.normalization=batch"]))
