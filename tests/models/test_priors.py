import copy
import math
from functools import partial

import pytest
import torch

from vaelab.config.check import check
from vaelab.config.compose import compose
from vaelab.losses import Step
from vaelab.models.autoencoder import Autoencoder
from vaelab.models.distributions.elementary import NUMBERS_AT_ONCE
from vaelab.models.likelihoods import Bernoulli
from vaelab.models.networks import MLPDecoder, MLPEncoder
from vaelab.models.posteriors import Deterministic, FiniteScalarQuantizer, Gaussian, GumbelSoftmax, VectorQuantizer
from vaelab.models.priors import (
    FlowPrior,
    HypersphericalUniform,
    Mixture,
    NearestNeighbours,
    SecondVAE,
    StandardNormal,
    UniformCodes,
    VampPrior,
)


def test_the_prior_has_no_batch_and_an_event_of_the_latent_dimensions():
    p = StandardNormal(3)()

    assert (p.batch_shape, p.event_shape) == ((), (3,))
    assert p.sample((4, 2)).shape == (4, 2, 3)


@pytest.mark.parametrize("latent_dim", [1, 2, 20])
def test_log_prob_is_the_standard_normals_summed_over_the_dimensions(latent_dim):
    z = torch.randn(5, 4, latent_dim, generator=torch.Generator().manual_seed(0))

    expected = -0.5 * z.square().sum(-1) - 0.5 * latent_dim * math.log(2 * math.pi)

    torch.testing.assert_close(StandardNormal(latent_dim)().log_prob(z), expected)


def test_samples_have_mean_zero_and_variance_one():
    torch.manual_seed(0)
    z = StandardNormal(4)().sample((20_000,))

    # Standard errors: 1 / sqrt(n) of the mean, sqrt(2 / n) of the variance; five of them.
    torch.testing.assert_close(z.mean(0), torch.zeros(4), atol=5 / math.sqrt(20_000), rtol=0)
    torch.testing.assert_close(z.var(0), torch.ones(4), atol=5 * math.sqrt(2 / 20_000), rtol=0)


def test_the_prior_goes_where_the_model_goes_and_leaves_nothing_in_a_checkpoint():
    prior = StandardNormal(3)

    assert prior.double()().sample().dtype == torch.float64
    assert prior.to("meta")().mean.device.type == "meta"
    assert prior.state_dict() == {}


def gaussian_model(prior, shape=(1, 2, 2), latent_dim=2, posterior_class=Gaussian):
    encoder = MLPEncoder(shape, hidden=[6])
    posterior = posterior_class(encoder.features, latent_dim)
    return Autoencoder(
        encoder=encoder,
        posterior=posterior,
        decoder=MLPDecoder(posterior.latent_dim, shape, hidden=[6]),
        likelihood=Bernoulli(shape),
        prior=prior,
    )


def off_the_start(prior):
    """The prior with weights of a size that training gives."""
    torch.manual_seed(1)
    for parameter in prior.parameters():
        parameter.data.add_(0.15 * torch.randn(parameter.shape))
    return prior.double()


def joined_vamp_prior():
    return gaussian_model(VampPrior(2, components=5, start_scale=0.5)).double().prior


def started(prior):
    """The same, begun at 40 codes and then off there."""
    prior.double().start(*torch.randn(2, 40, 2, dtype=torch.float64).mul(torch.tensor([2.0, 0.5])).add(0.3))
    return off_the_start(prior)


PRIORS = {
    "mixture": lambda: off_the_start(Mixture(2, components=3)),
    "realnvp": lambda: off_the_start(FlowPrior(2, flow="realnvp", transforms=2, hidden=[8])),
    "maf": lambda: off_the_start(FlowPrior(2, flow="maf", transforms=2, hidden=[8])),
    "nsf": lambda: off_the_start(FlowPrior(2, flow="nsf", transforms=2, hidden=[8])),
    "vamp": joined_vamp_prior,
    "mixture of full covariance": lambda: off_the_start(Mixture(2, components=3, covariance="full")),
    "flow of codes in their units": lambda: started(FlowPrior(2, transforms=2, hidden=[8], standardised=True)),
    "nearest neighbours": lambda: started(NearestNeighbours(2, codes=40)).eval(),
}


@pytest.mark.parametrize("kind", PRIORS)
def test_a_learned_prior_integrates_to_one_with_the_moments_of_its_samples(kind):
    torch.manual_seed(0)
    p = PRIORS[kind]()()
    width = 0.04
    axis = torch.arange(-12, 12, width, dtype=torch.float64) + width / 2
    grid = torch.cartesian_prod(axis, axis)
    with torch.no_grad():
        density = p.log_prob(grid).exp() * width**2
        z = p.sample((50_000,))

    assert (p.batch_shape, p.event_shape) == ((), (2,))
    assert density.sum().item() == pytest.approx(1, abs=3e-3)
    torch.testing.assert_close(z.mean(0), (density[:, None] * grid).sum(0), atol=0.05, rtol=0.02)
    torch.testing.assert_close(z.square().mean(0), (density[:, None] * grid**2).sum(0), atol=0.05, rtol=0.05)


@pytest.mark.parametrize("kind", PRIORS)
def test_a_gradient_of_the_density_reaches_every_parameter(kind):
    torch.manual_seed(0)
    prior = PRIORS[kind]()
    prior().log_prob(torch.randn(50, 2, dtype=torch.float64)).sum().backward()

    for name, parameter in prior.named_parameters():
        assert parameter.grad.any(), name


@pytest.mark.parametrize("kind", ["realnvp", "maf", "nsf"])
def test_a_flow_prior_inverts(kind):
    prior = PRIORS[kind]()
    transform, z = prior.flow().transform, torch.randn(9, 2, dtype=torch.float64)

    torch.testing.assert_close(transform.inv(transform(z)), z, rtol=1e-6, atol=1e-6)


def blobs(count):
    """Codes around three places of their own spread."""
    centres, spread = torch.tensor([[0.0, 0.0], [8.0, 1.0], [-3.0, 9.0]]), torch.tensor([[1.0, 0.3], [0.5, 2], [1, 1]])
    which = torch.arange(count) % 3
    return centres[which] + spread[which] * torch.randn(count, 2)


@pytest.mark.parametrize("covariance", ["diagonal", "full"])
def test_a_fitted_mixture_begins_at_the_number_of_components_that_held_out_codes_want(covariance):
    torch.manual_seed(0)
    prior = Mixture(2, components=[1, 2, 3, 20], covariance=covariance)
    codes, held_out = blobs(150), blobs(600)
    prior.start(codes, held_out)
    by_number = []
    for number in (1, 2, 3, 20):
        other = Mixture(2, components=number, covariance=covariance)
        other.start(codes, held_out)
        by_number.append(other().log_prob(held_out).mean().item())

    assert prior.in_use == 3
    assert prior().log_prob(held_out).mean().item() == pytest.approx(max(by_number), abs=0.02)
    again = Mixture(2, components=[1, 2, 3, 20], covariance=covariance)
    again.load_state_dict(prior.state_dict())
    assert again().log_prob(held_out).equal(prior().log_prob(held_out))
    with pytest.raises(ValueError, match="21 components are in use of 20"):
        prior.set_extra_state(torch.tensor(21))


def test_nearest_neighbours_are_kernels_as_wide_as_the_way_to_the_kth():
    torch.manual_seed(0)
    prior = NearestNeighbours(3, neighbours=2, codes=50)
    codes, z = torch.randn(12, 3), torch.randn(7, 3)
    prior.start(codes, codes)
    prior.log_scale.data.fill_(-0.3)
    distances = torch.cdist(codes, codes).sort(1).values[:, 2] * math.exp(-0.3)
    kernels = [
        torch.distributions.Independent(torch.distributions.Normal(c, s), 1)
        for c, s in zip(codes[prior_order(prior, codes)], distances[prior_order(prior, codes)], strict=True)
    ]
    each = torch.stack([kernel.log_prob(z) for kernel in kernels], 1)  # (7, 12)

    torch.testing.assert_close(prior.eval()().log_prob(z), each.logsumexp(1) - math.log(12), atol=1e-4, rtol=1e-4)
    nearest = torch.cdist(z, codes[prior_order(prior, codes)]).argmin(1)
    each[torch.arange(7), nearest] = -math.inf
    torch.testing.assert_close(prior.train()().log_prob(z), each.logsumexp(1) - math.log(11), atol=1e-4, rtol=1e-4)


def prior_order(prior, codes):
    """Where the codes that it keeps stand among those given."""
    return torch.cdist(prior.centres[: prior.in_use], codes).argmin(1)


def test_a_second_vae_is_the_density_in_expectation():
    """exp(log_prob) is p(z) on average: over a grid it adds up to one, and the mean of its logarithm is the ELBO."""
    torch.manual_seed(0)
    prior = started(SecondVAE(2, size=1, hidden=[8]))
    width = 0.1
    axis = torch.arange(-10, 10, width, dtype=torch.float64) + width / 2
    grid = torch.cartesian_prod(axis, axis)
    with torch.no_grad():
        total = torch.stack([prior().log_prob(grid).exp().sum() * width**2 for _ in range(40)])
        z = prior().sample((20_000,))
        density = prior().log_prob(grid.expand(40, -1, -1)).exp().mean(0) * width**2

    assert total.mean().item() == pytest.approx(1, abs=0.03)
    torch.testing.assert_close(z.mean(0), (density[:, None] * grid).sum(0), atol=0.15, rtol=0.05)


def test_a_mixture_is_the_weighted_sum_of_its_components():
    prior = PRIORS["mixture"]()
    z = torch.randn(9, 2, dtype=torch.float64)
    scale = prior.log_scales.exp()
    normal = (-0.5 * ((z[:, None] - prior.means) / scale) ** 2).exp() / (scale * math.sqrt(2 * math.pi))

    by_hand = (prior.logits.softmax(0) * normal.prod(-1)).sum(-1).log()

    torch.testing.assert_close(prior().log_prob(z), by_hand, rtol=1e-9, atol=0)


def test_a_mixtures_density_takes_no_more_memory_for_more_vectors(monkeypatch):
    torch.manual_seed(0)
    prior = Mixture(4, components=10)
    z = torch.randn(5, 7, 4)
    whole = prior().log_prob(z)
    seen = []
    of_components = torch.distributions.Normal.log_prob
    monkeypatch.setattr(
        torch.distributions.Normal,
        "log_prob",
        lambda self, value: seen.append(numbers := of_components(self, value)) or numbers,
    )
    monkeypatch.setitem(NUMBERS_AT_ONCE, "cpu", 3 * 4 * 10)
    in_parts = prior().log_prob(z)

    assert [len(numbers) for numbers in seen] == [3] * 11 + [2]
    assert torch.equal(in_parts, whole)


def test_the_vamp_prior_is_the_mean_of_the_posteriors_of_its_pseudo_inputs():
    torch.manual_seed(0)
    model = gaussian_model(VampPrior(2, components=5, start_scale=0.5))
    z = torch.randn(9, 2)
    u = model.prior.pseudo_inputs

    by_hand = model.encode(u).log_prob(z[:, None]).exp().mean(1).log()

    assert u.shape == (5, 1, 2, 2)
    torch.testing.assert_close(model.prior().log_prob(z), by_hand)


def test_the_vamp_prior_trains_the_encoder_and_has_it_once():
    torch.manual_seed(0)
    model = gaussian_model(VampPrior(2, components=5, start_scale=0.5))
    model.prior().log_prob(torch.randn(9, 2)).sum().backward()

    assert all(parameter.grad.any() for parameter in model.encoder.parameters())
    assert [name for name in model.state_dict() if name.startswith("prior")] == ["prior.logits"]


def test_pseudo_inputs_start_as_they_are_told_to_and_between_black_and_white():
    torch.manual_seed(0)
    u = gaussian_model(VampPrior(2, components=2000, start_mean=0.2, start_scale=0.03)).prior.pseudo_inputs
    assert u.mean().item() == pytest.approx(0.2, abs=5 * 0.03 / math.sqrt(8000))
    assert u.std().item() == pytest.approx(0.03, rel=5 / math.sqrt(16000))

    u = gaussian_model(VampPrior(2, components=2000, start_mean=0.0, start_scale=0.5)).prior.pseudo_inputs
    assert (u.min().item(), u.max().item()) == pytest.approx((0.5 / 255, 1 - 0.5 / 255))


def test_no_pixel_of_a_pseudo_input_loses_its_gradient_at_a_learning_rate_of_three_times_the_start():
    """0.015 a step from pixels of 0.05 +- 0.01: parameters that are clamped to [0, 1] are dead after a few."""
    made = check(
        compose(["model=vamp_vae", "data=digits", "latent_dim=5", "prior.components=10", "optimizer.lr=0.015"])
    )
    model = made.model()
    optimizer = made.optimizer(model.parameters())
    x = made.data.splits.train.pixels[:200].float() / 255
    torch.manual_seed(0)
    losses = []
    for step in range(40):
        optimizer.zero_grad()
        loss = made.objective(Step(model, x, number=step))["loss"]
        loss.backward()
        optimizer.step()
        losses.append(loss.item())

    u = model.prior.pseudo_inputs
    assert (model.prior.logits.grad != 0).all()
    assert ((u > 0) & (u < 1)).all()
    assert losses[-1] < 0.8 * losses[0]


def test_a_copy_of_a_model_has_a_vamp_prior_of_its_own_encoder():
    model = gaussian_model(VampPrior(2, components=5))
    other = copy.deepcopy(model)
    before = model.prior().log_prob(torch.zeros(2))
    with torch.no_grad():
        other.posterior.mean_and_log_variance.bias[:2] += 3.0

    assert model.prior().log_prob(torch.zeros(2)).equal(before)
    assert other.prior().log_prob(torch.zeros(2)) < before - 1


def test_a_vamp_prior_needs_a_posterior_with_a_density():
    with pytest.raises(ValueError, match="Deterministic has none: Gaussian would fit"):
        gaussian_model(VampPrior(2), posterior_class=Deterministic)


@pytest.mark.parametrize(
    "posterior_class",
    [
        partial(VectorQuantizer, codebook_size=4, codes=3),
        partial(FiniteScalarQuantizer, levels=[3, 2], codes=3),
        partial(GumbelSoftmax, codes=3),
    ],
)
def test_uniform_codes_are_those_of_the_posterior(posterior_class):
    model = gaussian_model(UniformCodes(6), posterior_class=posterior_class).eval()
    size, p = model.posterior.codebook_size, model.prior()
    z = p.sample((500,))

    assert z.shape == (500, model.posterior.latent_dim)
    possible = model.posterior.vectors(torch.arange(size)[:, None])
    assert (z.unflatten(-1, (3, -1))[:, :, None] == possible).all(-1).any(-1).all()
    torch.testing.assert_close(p.log_prob(z), torch.full((500,), -3 * math.log(size)))
    assert model.sample(7).shape == (7, 1, 2, 2)


def test_uniform_codes_need_a_posterior_that_has_some():
    with pytest.raises(ValueError, match="needs a posterior over codes, and Gaussian is none: VectorQuantizer or"):
        gaussian_model(UniformCodes(2))


def test_the_sphere_is_uniform():
    p = HypersphericalUniform(3)()

    assert p.sample((5,)).shape == (5, 3)
    assert p.log_prob(torch.eye(3)).exp().tolist() == pytest.approx([1 / (4 * math.pi)] * 3)
