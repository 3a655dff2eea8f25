"""FactorVAE and the adversarial autoencoder, against closed forms of what an ideal discriminator would say."""

import math

import pytest
import torch
from torch.distributions import MultivariateNormal, Normal

import vaelab
from vaelab.config.check import check
from vaelab.losses import ELBO, Adversarial, AdversarialAutoencoder, FactorVAE, Reconstruction
from vaelab.losses.adversarial import permuted, telling_apart
from vaelab.losses.regularizers import total_correlation
from vaelab.models.autoencoder import Autoencoder
from vaelab.models.likelihoods import Gaussian as GaussianLikelihood
from vaelab.models.networks import Discriminator, MLPDecoder, MLPEncoder
from vaelab.models.posteriors import Gaussian
from vaelab.models.priors import StandardNormal
from vaelab.training.optimizers import adam

SHAPE, LATENT = (1, 2, 3), 2
PARTS = {"discriminator": Discriminator, "discriminator_optimizer": adam}


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


def seeded(call, *arguments):
    torch.manual_seed(0)
    return call(*arguments)


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
    assert telling_apart(lambda z: z.new_zeros(len(z)), z, z).item() == pytest.approx(math.log(2))
    assert telling_apart(lambda z: 50 * z.sign()[:, 0], z.abs(), -z.abs()).item() == pytest.approx(0, abs=1e-6)


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
        telling_apart(discriminator, batch, permuted(batch)).backward()
        optimizer.step()
    assert discriminator(z).mean().item() == pytest.approx(exact, abs=0.1)


class TestFactorVAE:
    def test_in_training_the_discriminators_logit_is_the_total_correlation(self, model, images):
        objective = FactorVAE(tc_weight=3.0, **PARTS)
        terms, loss = seeded(objective.against, model, lambda z: z.sum(-1), images, 0)
        torch.manual_seed(0)
        z = model.encode(images).rsample()
        torch.testing.assert_close(terms["total_correlation"], z.sum(-1).mean())
        torch.testing.assert_close(
            terms["loss"], terms["reconstruction"] + terms["kl"] + 3 * terms["total_correlation"]
        )
        assert terms["discriminator"] is loss

    def test_in_evaluation_it_is_that_of_the_batch(self, model, images):
        terms = seeded(FactorVAE(**PARTS), model, images, math.inf)
        torch.manual_seed(0)
        q = model.encode(images)
        torch.testing.assert_close(terms["total_correlation"], total_correlation(q, q.rsample()))
        elbo = seeded(ELBO(), model, images, math.inf)
        assert terms["reconstruction"].equal(elbo["reconstruction"])
        assert terms["kl"].equal(elbo["kl"])


class TestAdversarialAutoencoder:
    def test_the_posterior_is_to_be_taken_for_the_prior(self, model, images):
        objective = AdversarialAutoencoder(adversarial_weight=2.0, **PARTS)
        terms, loss = seeded(objective.against, model, lambda z: z[:, 0], images, 0)
        torch.manual_seed(0)
        z = model.encode(images).rsample()
        prior = model.prior().sample((8,))
        torch.testing.assert_close(terms["adversarial"], -z[:, 0].sigmoid().log().mean())
        expected = -(prior[:, 0].sigmoid().log() + (1 - z[:, 0].sigmoid()).log()).mean() / 2
        torch.testing.assert_close(loss, expected)
        torch.testing.assert_close(terms["loss"], terms["reconstruction"] + 2 * terms["adversarial"])

    def test_in_evaluation_it_is_the_reconstruction(self, model, images):
        terms = seeded(AdversarialAutoencoder(**PARTS), model, images, math.inf)
        assert terms["loss"].equal(seeded(Reconstruction(), model, images, math.inf)["loss"])


@pytest.mark.parametrize(
    "objective", [FactorVAE(**PARTS), AdversarialAutoencoder(**PARTS)], ids=lambda o: type(o).__name__
)
def test_the_discriminators_loss_passes_nothing_to_the_model_and_the_models_reaches_all_of_it(objective, model, images):
    assert isinstance(objective, Adversarial)
    discriminator = Discriminator(LATENT, hidden=[6])
    terms, loss = seeded(objective.against, model, discriminator, images, 0)
    loss.backward(retain_graph=True)
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(parameter.grad.any() for parameter in discriminator.parameters())
    terms["loss"].backward()
    assert all(parameter.grad.any() for parameter in model.parameters())


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["objective=factor_vae", "posterior=deterministic"], "objective=factor_vae does not go with posterior="),
        (["objective=factor_vae", "posterior=full_covariance_gaussian"], "needs the density of each latent dimension"),
        (["objective=factor_vae", "prior=mixture"], "has no closed form"),
        (["model=adversarial_ae", "~prior"], "objective=adversarial needs a prior to draw samples of"),
        (["model=adversarial_ae", "prior=mixture"], "would not train the prior itself: prior=standard_normal"),
        (["model=factor_vae", "objective.discriminator.hidden=[0]"], "greater than 0"),
        (["model=factor_vae", "objective.discriminator_optimizer.lr=-1"], "greater than or equal to 0"),
        (["model=factor_vae", "objective.discriminator=null"], "objective.discriminator"),
    ],
    ids=str,
)
def test_what_does_not_go_together_is_named_with_what_would(overrides, message):
    with pytest.raises(vaelab.ConfigError) as error:
        check(vaelab.compose(["data=digits", *overrides]))
    assert message in str(error.value)
