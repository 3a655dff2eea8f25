"""Adversaries, against formulas written out, and closed forms of what an ideal critic would say."""

import math

import pytest
import torch
from torch import nn
from torch.distributions import MultivariateNormal, Normal

import vaelab
from vaelab.config.check import check
from vaelab.losses import (
    CriticFeatures,
    ImageAdversary,
    LatentAdversary,
    Step,
    adversarial,
    elbo,
    factor_vae,
    reconstruction,
)
from vaelab.losses.adversaries import discriminator_loss, permuted
from vaelab.losses.divergences import moment_matched_total_correlation
from vaelab.models.autoencoder import Autoencoder
from vaelab.models.likelihoods import Gaussian as GaussianLikelihood
from vaelab.models.networks import Discriminator, ImageDiscriminator, MLPDecoder, MLPEncoder
from vaelab.models.parts import FeatureCritic, UnsuitableError
from vaelab.models.posteriors import Gaussian
from vaelab.models.priors import StandardNormal
from vaelab.seeding import sharing
from vaelab.training.optimizers import adam

SHAPE, PIXELS, LATENT = (1, 2, 3), 6, 2
PARTS = {"discriminator": Discriminator, "discriminator_optimizer": adam}


class Linear(nn.Module):
    """D(z) = w z."""

    def __init__(self, *weights):
        super().__init__()
        self.weights = nn.Parameter(torch.tensor(weights))

    def forward(self, z):
        return z @ self.weights


class Quadratic(FeatureCritic):
    """D(x) = |M x|^2 / 2 + c x - 1 with the features M x, so that dD/dx = M^T M x + c."""

    def __init__(self, shape):
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        self.m = nn.Parameter(torch.randn(4, math.prod(shape), generator=generator))
        self.c = nn.Parameter(torch.randn(math.prod(shape), generator=generator))

    def features(self, x):
        return x.flatten(1) @ self.m.T

    def forward(self, x):
        return self.features(x).square().sum(1) / 2 + x.flatten(1) @ self.c - 1


def built(objective, model):
    objective.build(model, 0)
    return objective


def step_of(model, x, **given):
    """A step of which q, z and p(x|z) are known by now, under the same noise each time."""
    torch.manual_seed(0)
    step = Step(model, x, **given)
    step.reconstruction  # noqa: B018
    return step


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Autoencoder(
        encoder=MLPEncoder(SHAPE, hidden=[5]),
        posterior=Gaussian(5, LATENT),
        decoder=MLPDecoder(LATENT, SHAPE, hidden=[5]),
        likelihood=GaussianLikelihood(SHAPE, scale=0.5),
        prior=StandardNormal(LATENT),
    )


@pytest.fixture
def images():
    return torch.rand(8, *SHAPE, generator=torch.Generator().manual_seed(1))


def test_permuting_keeps_each_dimension_and_breaks_what_ties_them():
    torch.manual_seed(0)
    first = torch.randn(5000)
    z = torch.stack([first, first, -first], 1)
    mixed = permuted(z)
    assert mixed.sort(0).values.equal(z.sort(0).values)  # over the batch, not within a row
    correlations = torch.corrcoef(mixed.T) - torch.eye(3)
    assert correlations.abs().max() < 4 / math.sqrt(5000)


def test_a_discriminator_that_cannot_tell_loses_log_2_and_one_that_can_nothing():
    z = torch.randn(10, 2)
    assert discriminator_loss(lambda z: z.new_zeros(len(z)), z, z).item() == pytest.approx(math.log(2))
    assert discriminator_loss(lambda z: 50 * z.sign()[:, 0], z.abs(), -z.abs()).item() == pytest.approx(0, abs=1e-6)


def test_an_ideal_discriminator_says_the_total_correlation():
    """D / (1 - D) = q(z) / prod_j q(z_j); its training on permuted samples finds -1/2 log(1 - rho^2) of a Gaussian."""
    rho, n = 0.8, 20_000
    q = MultivariateNormal(torch.zeros(2), torch.tensor([[1.0, rho], [rho, 1.0]]))
    torch.manual_seed(0)
    z = q.sample((n,))
    normal = Normal(0.0, 1.0)
    ideal = q.log_prob(z) - normal.log_prob(z).sum(-1)
    exact = -0.5 * math.log(1 - rho**2)
    assert ideal.mean().item() == pytest.approx(exact, abs=4 * ideal.std().item() / math.sqrt(n))

    discriminator = Discriminator(2, hidden=[32], activation="silu")
    optimizer = torch.optim.Adam(discriminator.parameters(), 0.01)
    for batch in z.split(500) * 5:
        optimizer.zero_grad()
        discriminator_loss(discriminator, batch, permuted(batch)).backward()
        optimizer.step()
    assert discriminator(z).mean().item() == pytest.approx(exact, abs=0.1)


class TestFactorVAE:
    def test_in_training_the_discriminators_logit_is_the_total_correlation(self, model, images):
        parts = PARTS | {"discriminator": lambda size: Linear(*[1.0] * size)}
        objective = built(factor_vae(tc_weight=3.0, **parts), model)
        step = step_of(model, images)
        terms = objective(step)
        torch.testing.assert_close(terms["total_correlation"], step.z.sum(-1).mean())
        torch.testing.assert_close(
            terms["loss"], terms["reconstruction"] + terms["kl"] + 3 * terms["total_correlation"]
        )
        torch.manual_seed(1)
        losses = objective.critic_losses(step)
        torch.manual_seed(1)
        mixed = permuted(step.z)
        expected = -(step.z.sum(-1).sigmoid().log() + (1 - mixed.sum(-1).sigmoid()).log()).mean() / 2
        torch.testing.assert_close(losses, {"total_correlation_discriminator": expected.detach()})

    def test_in_evaluation_it_is_that_of_a_gaussian(self, model, images):
        step = step_of(model, images, training=False)
        terms = factor_vae(**PARTS)(step)
        assert list(terms) == ["loss", "reconstruction", "kl", "gaussian_tc"]
        torch.testing.assert_close(terms["gaussian_tc"], moment_matched_total_correlation(step.q))
        other = elbo()(step)
        assert terms["reconstruction"].equal(other["reconstruction"])
        assert terms["kl"].equal(other["kl"])


class TestAdversarialAutoencoder:
    def test_the_posterior_is_to_be_taken_for_the_prior(self, model, images):
        parts = PARTS | {"discriminator": lambda size: Linear(1.0, 0.0)}
        objective = built(adversarial(adversarial_weight=2.0, **parts), model)
        step = step_of(model, images)
        terms, z = objective(step), step.z
        torch.testing.assert_close(terms["adversarial"], -z[:, 0].sigmoid().log().mean())
        torch.testing.assert_close(terms["loss"], terms["reconstruction"] + 2 * terms["adversarial"])
        torch.manual_seed(1)
        losses = objective.critic_losses(step)
        torch.manual_seed(1)
        prior = model.prior().sample((8,))
        expected = -(prior[:, 0].sigmoid().log() + (1 - z[:, 0].sigmoid()).log()).mean() / 2
        torch.testing.assert_close(losses, {"adversarial_discriminator": expected.detach()})

    def test_in_evaluation_there_is_the_distance_to_the_prior_in_place_of_an_opinion(self, model, images):
        objective = built(adversarial(adversarial_weight=2.0, **PARTS), model)
        terms = objective(step_of(model, images, training=False))
        assert list(terms) == ["loss", "reconstruction", "mmd"]
        torch.testing.assert_close(terms["loss"], terms["reconstruction"] + 2 * terms["mmd"])
        with torch.no_grad():
            for parameter in objective.terms.adversarial.critic.parameters():
                parameter.normal_()
        assert objective(step_of(model, images, training=False)) == terms


def image_adversary(model, **knobs):
    objective = built(
        reconstruction(terms={"adversary": ImageAdversary(discriminator=Quadratic, optimizer=adam, **knobs)}), model
    )
    return objective, objective.terms.adversary.critic


def judged(critic, x):
    """D(x), by numbers."""
    flat = x.flatten(1)
    return 0.5 * torch.stack([(critic.m @ row).square().sum() for row in flat]) + flat @ critic.c - 1


class TestImageAdversary:
    @pytest.mark.parametrize("fakes", ["reconstructions", "samples", "both"])
    @pytest.mark.parametrize("loss", ["non_saturating", "hinge"])
    def test_decoder_and_critic_minimize_the_two_sides_of_the_formula(self, loss, fakes, model, images):
        objective, critic = image_adversary(model, weight=3.0, loss=loss, fakes=fakes)
        step = step_of(model, images)
        torch.manual_seed(1)
        terms = objective(step)
        torch.manual_seed(1)
        losses = objective.critic_losses(step)

        torch.manual_seed(1)
        kinds = {"reconstructions": step.p_x.mean, "samples": model.decode(model.prior().sample((8,))).mean}
        made = [judged(critic, kinds[kind]) for kind in (kinds if fakes == "both" else [fakes])]
        real = judged(critic, images)
        if loss == "hinge":
            of_decoder = sum(-d for d in made)
            of_critic = (1 - real).clamp(min=0) + sum((1 + d).clamp(min=0) for d in made)
        else:
            of_decoder = sum(-d.sigmoid().log() for d in made)
            of_critic = -real.sigmoid().log() - sum((1 - d.sigmoid()).log() for d in made)
        torch.testing.assert_close(terms["adversary"], of_decoder.mean())
        torch.testing.assert_close(terms["loss"], terms["reconstruction"] + 3 * of_decoder.mean())
        torch.testing.assert_close(losses, {"adversary_discriminator": of_critic.mean()})

    @pytest.mark.parametrize("loss", ["non_saturating", "hinge"])
    def test_r1_is_half_the_square_of_the_critics_slope_at_images(self, loss, model, images):
        """Its value, and what it has the critic do, where dD/dx = M^T M x + c is known."""
        plain, penalized = (image_adversary(model, loss=loss, r1=r1) for r1 in (0.0, 5.0))
        penalties, gradients = [], []
        for objective, critic in (plain, penalized):
            penalty = objective.critic_losses(step_of(model, images))["adversary_discriminator"]
            penalties.append(penalty)
            gradients.append(torch.autograd.grad(penalty, [critic.m, critic.c]))
        _, critic = plain
        slope = images.flatten(1) @ critic.m.T @ critic.m + critic.c
        expected = 5 / 2 * slope.square().sum(1).mean()
        torch.testing.assert_close(penalties[1] - penalties[0], expected)
        for ours, without, theirs in zip(
            gradients[1], gradients[0], torch.autograd.grad(expected, [critic.m, critic.c]), strict=True
        ):
            torch.testing.assert_close(ours - without, theirs, rtol=1e-4, atol=1e-4)
        assert not images.requires_grad

    @pytest.mark.parametrize("encoder", [True, False])
    def test_the_encoder_is_trained_by_it_or_is_not(self, encoder, model, images):
        objective, _ = image_adversary(model, encoder=encoder)
        objective.terms.adversary(step_of(model, images)).backward()
        assert all(parameter.grad.any() for parameter in model.decoder.parameters())
        for parameter in [*model.encoder.parameters(), *model.posterior.parameters()]:
            assert (parameter.grad is not None and bool(parameter.grad.any())) is encoder

    def test_an_evaluation_leaves_it_out(self, model, images):
        objective, _ = image_adversary(model, r1=1.0)
        assert list(objective(step_of(model, images, training=False))) == ["loss", "reconstruction"]

    def test_it_wants_images_and_for_samples_a_prior(self, model):
        term = ImageAdversary(discriminator=Quadratic, optimizer=adam, fakes="both")
        term.requires(model)
        model.prior = None
        with pytest.raises(UnsuitableError, match="needs a prior"):
            term.requires(model)
        model.likelihood = GaussianLikelihood((6,), scale=0.5)
        with pytest.raises(UnsuitableError, match=r"sees images \(C, H, W\), and the data have the shape \(6,\)"):
            term.requires(model)


class TestCriticFeatures:
    def both(self, model, **knobs):
        adversary = ImageAdversary(discriminator=Quadratic, optimizer=adam)
        objective = reconstruction(terms={"features": CriticFeatures(**knobs), "adversary": adversary})
        return built(objective, model)

    def test_it_is_half_the_squared_distance_of_the_critics_features(self, model, images):
        objective = self.both(model, weight=2.0)
        critic, step = objective.terms.adversary.critic, step_of(model, images)
        terms = objective(step)
        differences = (images - step.p_x.mean).flatten(1)
        expected = torch.stack([(critic.m @ row).square().sum() for row in differences]).mean() / 2
        torch.testing.assert_close(terms["features"], expected)
        torch.testing.assert_close(terms["loss"], terms["reconstruction"] + 2 * expected + terms["adversary"])

    def test_the_critic_is_that_of_the_other_term_and_has_one_optimizer(self, model):
        objective = self.both(model)
        assert list(objective.critics()) == ["adversary_discriminator"]
        names = [name for name, _ in objective.named_parameters()]
        assert names == ["terms.adversary.critic.m", "terms.adversary.critic.c"]

    def test_an_evaluation_leaves_it_out(self, model, images):
        assert list(self.both(model)(step_of(model, images, training=False))) == ["loss", "reconstruction"]

    @pytest.mark.parametrize(
        "others",
        [
            {},
            {"rival": ImageAdversary(discriminator=Quadratic, optimizer=adam)},
            {"adversary": LatentAdversary(weight=1.0, discriminator=Discriminator, optimizer=adam)},
            {"adversary": ImageAdversary(discriminator=lambda shape: nn.Flatten(), optimizer=adam)},
        ],
        ids=["alone", "another name", "of latents", "no features"],
    )
    def test_without_a_critic_of_images_that_has_features_it_is_refused(self, others, model):
        message = "the term mine: it needs the features of a critic of images, and no term adversary has such a critic"
        with pytest.raises(UnsuitableError, match=f"{message}: ImageAdversary would fit"):
            built(reconstruction(terms={"mine": CriticFeatures(), **others}), model)


def all_adversaries(**knobs):
    """Three critics, of latents and of images."""
    pictures = ImageAdversary(discriminator=Quadratic, optimizer=adam, fakes="both", r1=1.0)
    latents = LatentAdversary(weight=1.0, discriminator=Discriminator, optimizer=adam)
    return factor_vae(**PARTS, terms={"pictures": pictures, "latents": latents})


@pytest.mark.parametrize(
    ("made", "critics"),
    [
        (lambda: factor_vae(**PARTS), ["total_correlation"]),
        (lambda: adversarial(**PARTS), ["adversarial"]),
        (all_adversaries, ["total_correlation", "pictures", "latents"]),
    ],
    ids=["factor_vae", "adversarial", "three"],
)
def test_the_critics_losses_pass_nothing_to_the_model_and_each_reaches_all_of_its_own(made, critics, model, images):
    objective = built(made(), model)
    step = step_of(model, images)
    terms, losses = objective(step), objective.critic_losses(step)
    assert list(losses) == list(objective.critics()) == [f"{name}_discriminator" for name in critics]
    for name in critics:
        losses[f"{name}_discriminator"].backward()
        assert all(parameter.grad.any() for parameter in objective.terms[name].critic.parameters())
        for other in critics[critics.index(name) + 1 :]:
            assert all(parameter.grad is None for parameter in objective.terms[other].critic.parameters())
    assert all(parameter.grad is None for parameter in model.parameters())
    terms["loss"].backward()
    assert all(parameter.grad.any() for parameter in model.parameters())


def test_a_critics_weights_are_a_function_of_seed_and_name(model):
    def weights(seed, name="adversary", **others):
        torch.rand(3)
        term = ImageAdversary(discriminator=lambda shape: ImageDiscriminator((1, 8, 8)), optimizer=adam)
        objective = reconstruction(terms={**others, name: term})
        objective.build(model, seed)
        return torch.cat([parameter.flatten() for parameter in objective.terms[name].critic.parameters()])

    first = weights(0)
    other = LatentAdversary(weight=1.0, discriminator=Discriminator, optimizer=adam)
    assert weights(0).equal(first)
    assert weights(0, other=other).equal(first)
    assert not weights(1).equal(first)
    assert not weights(0, name="second").equal(first)


def test_samples_of_the_prior_are_shared_out_among_processes(model, images):
    """Those of N(0, I): the images of two processes see what they see in one."""
    torch.manual_seed(3)
    whole = Step(model, images).sample_prior()
    torch.manual_seed(3)
    torch.testing.assert_close(model.prior().sample((len(images),)), whole)
    for rank in (0, 1):
        with sharing(len(images), rank=rank, world_size=2, seed=3, device=images.device):
            assert Step(model, images[rank::2]).sample_prior().equal(whole[rank::2])


def test_what_is_said_of_a_missing_optimizer_adds_it():
    critic = "{_target_:vaelab.models.networks.ImageDiscriminator,channels:[4],features:8}"
    added = f"++objective.terms.mine={{_target_:vaelab.losses.ImageAdversary,discriminator:{critic}}}"
    with pytest.raises(vaelab.ConfigError) as error:
        check(vaelab.compose(["data=digits", added]))
    said = str(error.value).rpartition("add it with ")[2]
    assert check(vaelab.compose(["data=digits", added, said])).objective.terms.mine.optimizer.func is adam


ADD = "+term@objective.terms"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["objective=factor_vae", "posterior=deterministic"], "the term kl: posterior=deterministic has no density"),
        (["objective=factor_vae", "posterior=full_covariance_gaussian"], "needs the density of each latent dimension"),
        (["objective=factor_vae", "prior=mixture"], "has no closed form"),
        (["model=adversarial_ae", "~prior"], "the term adversarial: it needs a prior p(z), and the model has none"),
        (["model=adversarial_ae", "prior=mixture"], "would not train prior=mixture itself: prior=standard_normal"),
        (["model=adversarial_ae", "posterior=von_mises_fisher"], "prior=hyperspherical_uniform would fit"),
        (["model=factor_vae", "objective.discriminator.hidden=[0]"], "greater than 0"),
        (["model=factor_vae", "objective.discriminator_optimizer.lr=-1"], "greater than or equal to 0"),
        (["model=factor_vae", "objective.discriminator=null"], "objective.discriminator=null: should be a part"),
        (
            ["model=factor_vae", "~objective.discriminator_optimizer"],
            "optimizer@objective.discriminator_optimizer=adam",
        ),
        (["model=hinge_vae", "objective.terms.adversary.discriminator=null"], "objective.terms.adversary.discriminat"),
        (["model=hinge_vae", "~objective.terms.adversary.discriminator"], "objective.terms.adversary.discriminator: m"),
        (
            ["model=hinge_vae", "~objective.terms.adversary.optimizer"],
            "optimizer: missing; add it with +optimizer@objective.terms.adversary.optimizer=adam",
        ),
        (["model=hinge_vae", "objective.terms.adversary.weight=much"], "objective.terms.adversary.weight=much: should"),
        (["model=hinge_vae", "objective.terms.adversary.loss=hing"], "did you mean hinge?"),
        (
            ["model=hinge_vae", "objective.terms.adversary.discriminator.normalization=batch"],
            "r1 takes the critic's gr",
        ),
        ([f"{ADD}.features=critic_features"], "the term features: it needs the features of a critic of images"),
        (["model=vae_gan", "objective.terms.adversary=null"], "and no term adversary has such a critic: term=image_ad"),
        (["model=vae_gan", "objective.terms.features.adversary='{0}'"], "and no term {0} has such a critic"),
        (["model=ae", f"{ADD}.one=image_adversary", "objective.terms.one.fakes=both"], "the term one: it needs a pri"),
    ],
    ids=str,
)
def test_what_does_not_go_together_is_named_with_what_would(overrides, message):
    with pytest.raises(vaelab.ConfigError) as error:
        check(vaelab.compose(["data=digits", *overrides]))
    assert message in str(error.value)
    assert "\n" not in str(error.value)
