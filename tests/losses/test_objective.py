"""Sums of terms: what is added up, by which name, and what is refused."""

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
from small_models import SHAPE, model_of

import vaelab
from vaelab.config.check import check, checked
from vaelab.losses import (
    DIP,
    KL,
    MMD,
    CodeNorm,
    EncoderJacobian,
    Sparsity,
    Step,
    SumOfTerms,
    Term,
    TotalCorrelation,
    adversarial,
    capacity,
    elbo,
    factor_vae,
    reconstruction,
)
from vaelab.losses.corruptions import Masking
from vaelab.models.networks import Discriminator
from vaelab.models.parts import UnsuitableError
from vaelab.models.posteriors import Deterministic
from vaelab.models.schedules import Linear
from vaelab.runs.ready import ready
from vaelab.training.optimizers import adam

CRITIC = {"discriminator": Discriminator, "discriminator_optimizer": adam}


@pytest.fixture
def model():
    return model_of()


@pytest.fixture
def images():
    return torch.rand(9, *SHAPE, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


class Squared(Term):
    """z^2, reported only; an evaluation has another name for it."""

    only_reported = True
    evaluated_as = "power"

    def forward(self, step):
        return step.z.square().mean()


class TestSumOfTerms:
    @pytest.mark.parametrize(("number", "weight"), [(0, 0.0), (5, 1.5), (None, 3.0)])
    def test_the_loss_is_reconstruction_plus_each_weight_times_its_unweighted_term(self, number, weight, model, images):
        objective = SumOfTerms({"kl": KL(weight=2.0)}, {"code": CodeNorm(weight=Linear(end=3.0, steps=10))})
        terms = objective(Step(model, images, number=number or 0, training=number is not None))
        assert list(terms) == ["loss", "reconstruction", "kl", "code"]
        expected = terms["reconstruction"] + 2 * terms["kl"] + weight * terms["code"]
        torch.testing.assert_close(terms["loss"], expected)

    def test_with_the_kl_added_a_reconstruction_is_the_elbo(self, model, images):
        torch.manual_seed(0)
        ours = reconstruction(terms={"kl": KL(weight=4.0)})(Step(model, images))
        torch.manual_seed(0)
        theirs = elbo(kl_weight=4.0)(Step(model, images))
        assert ours.keys() == theirs.keys()
        assert all(ours[name].equal(theirs[name]) for name in theirs)

    def test_images_are_encoded_and_decoded_once_for_all_terms(self, model, images):
        calls = []
        for part in (model.encoder, model.decoder):
            part.register_forward_hook(lambda module, *_: calls.append(module))
        objective = elbo(terms={"mmd": MMD(), "dip": DIP(), "tc": TotalCorrelation(), "norm": CodeNorm()})
        objective(Step(model, images))
        assert calls == [model.encoder, model.decoder]

    def test_a_corruption_is_seen_by_the_encoder_alone_and_in_training_alone(self, images):
        model = model_of(Deterministic, prior=False)
        objective = reconstruction(corruption=Masking(amount=1.0))
        black = -model.decode(model.encode(torch.zeros_like(images)).mean).log_prob(images).mean()
        torch.testing.assert_close(objective(Step(model, images, number=5))["loss"], black)
        clean = reconstruction()(Step(model, images, training=False))["loss"]
        torch.testing.assert_close(objective(Step(model, images, training=False))["loss"], clean)

    def test_an_evaluation_takes_the_reconstruction_at_weight_1(self, model, images):
        objective = elbo(reconstruction_weight=0.25)
        terms = objective(Step(model, images))
        torch.testing.assert_close(terms["loss"], 0.25 * terms["reconstruction"] + terms["kl"])
        terms = objective(Step(model, images, training=False))
        torch.testing.assert_close(terms["loss"], terms["reconstruction"] + terms["kl"])

    def test_a_term_without_a_weight_is_reported_and_left_out_of_the_loss(self, model, images):
        objective = elbo(terms={"z2": Squared(), "gone": None})
        terms = objective(Step(model, images))
        torch.testing.assert_close(terms["loss"], terms["reconstruction"] + terms["kl"])
        assert list(terms) == ["loss", "reconstruction", "kl", "z2"]
        assert list(objective(Step(model, images, training=False))) == ["loss", "reconstruction", "kl", "power"]
        assert objective.weights(0) == {"kl_weight": 1.0}

    def test_what_an_evaluation_calls_by_another_name_never_hides_a_term_of_that_name(self, model, images):
        """The adversary of an adversarial autoencoder is evaluated as `mmd`, which may be there as a term as well."""
        objective = adversarial(**CRITIC, adversarial_weight=3.0, terms={"mmd": MMD(weight=5.0, kernel="rbf")})
        terms = objective(Step(model, images, training=False))
        assert list(terms) == ["loss", "reconstruction", "adversarial", "mmd"]
        expected = terms["reconstruction"] + 3 * terms["adversarial"] + 5 * terms["mmd"]
        torch.testing.assert_close(terms["loss"], expected)
        two = elbo(terms={"one": Squared(), "other": Squared()})(Step(model, images, training=False))
        assert list(two) == ["loss", "reconstruction", "kl", "power", "other"]

    @pytest.mark.parametrize("name", ["loss", "reconstruction", "elbo", "mse", "items", "forward", "two words", "a.b"])
    def test_names_of_something_else_are_refused(self, name):
        with pytest.raises(ValueError, match=f"terms.{name}: no term can have this name"):
            elbo(terms={name: CodeNorm()})

    @pytest.mark.parametrize("name", ["adversarial_discriminator", "adversarial_weight", "norm_weight"])
    def test_names_of_what_another_term_reports_are_refused(self, name, model):
        objective = adversarial(**CRITIC, terms={"norm": CodeNorm(), name: CodeNorm()})
        with pytest.raises(ValueError, match=f"terms.{name}: another term reports something by this name"):
            objective.build(model, 0)

    def test_what_a_term_refuses_names_the_term_in_the_words_of_mathematics(self):
        message = "the term tc: it needs the density of each latent dimension, and Deterministic has none"
        with pytest.raises(UnsuitableError, match=f"{message}: Gaussian or Laplace would fit"):
            reconstruction(terms={"tc": TotalCorrelation()}).requires(model_of(Deterministic, prior=False))

    @pytest.mark.parametrize(
        ("objective", "coupling"),
        [
            (elbo(), None),
            (elbo(terms={"norm": CodeNorm(), "slope": EncoderJacobian()}), None),
            (adversarial(**CRITIC), None),
            (elbo(free_bits=0.1), "the term kl"),
            (capacity(), "the term kl"),
            (factor_vae(**CRITIC), "the term total_correlation"),
            (elbo(terms={"norm": CodeNorm(), "mine": MMD()}), "the term mine"),
            (elbo(terms={"mine": DIP()}), "the term mine"),
            (elbo(terms={"mine": TotalCorrelation()}), "the term mine"),
            (reconstruction(terms={"mine": Sparsity()}), "the term mine"),
        ],
    )
    def test_terms_that_are_no_mean_over_images_are_named(self, objective, coupling):
        assert objective.coupling() == coupling

    @pytest.mark.parametrize(
        ("made", "coupled"),
        [
            (lambda nats: elbo(kl_weight=2.0), False),
            (lambda nats: elbo(kl="monte_carlo", terms={"norm": CodeNorm()}), False),
            (lambda nats: capacity(capacity=nats.sum().item()), True),
            (lambda nats: elbo(free_bits=nats[0].item()), True),
            (lambda nats: elbo(terms={"dip": DIP()}), True),
            (lambda nats: elbo(terms={"tc": TotalCorrelation()}), True),
        ],
        ids=["elbo", "norm", "capacity", "free_bits", "dip", "total_correlation"],
    )
    def test_losses_of_two_shares_have_the_mean_of_the_whole_just_where_nothing_is_coupled(
        self, made, coupled, model, images
    ):
        step, losses = Step(model, images[:8]), []
        objective = made(step.kl_per_dimension.detach())
        for share in (slice(0, 4), slice(4, 8)):
            half = Step(model, images[share])
            half.z = step.z[share]
            losses.append(objective(half)["loss"])
        difference = torch.stack(losses).mean() - objective(step)["loss"]
        assert (abs(difference.item()) > 1e-6) is coupled is (objective.coupling() is not None)


ADD = "+term@objective.terms"


def refusal(overrides):
    with pytest.raises(vaelab.ConfigError) as error:
        check(vaelab.compose(["data=digits", *overrides]))
    message = str(error.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["model=wae_mmd", "~prior"], "the term mmd: it needs a prior p(z), and the model has none: prior=standard_no"),
        (["model=wae_mmd", "prior=mixture"], "those of prior=mixture pass no gradients to it: prior=standard_normal"),
        (["model=wae_mmd", "posterior=von_mises_fisher"], "prior=hyperspherical_uniform would fit"),
        (["model=beta_tcvae", "posterior=deterministic"], "the term kl: posterior=deterministic has no density"),
        (["model=rae_l2", f"{ADD}.tc=total_correlation"], "posterior=deterministic has none: posterior=gaussian or"),
        (
            ["model=beta_tcvae", "posterior=full_covariance_gaussian"],
            "the term total_correlation: it needs the density of each latent dimension",
        ),
        (["model=dip_vae_ii", "posterior=iaf", "objective.kl=monte_carlo"], "posterior=iaf does not know: covari"),
        (["model=sparse_ae", "posterior.activation=null"], "posterior=deterministic with activation=sigmoid are"),
        (["model=rae_l2", "prior=standard_normal"], "no term (code_norm, decoder_norm) trains prior=standard_normal"),
        (["model=rae_l2", "posterior=vector_quantizer"], "nothing trains the codes of posterior=vector_quantizer"),
        (["objective=reconstruction"], "no term (there is none) trains prior=standard_normal"),
        (["model=wae_mmd", "objective.terms.mmd.scales=[]"], "at least 1 item"),
        (["model=wae_mmd", "objective.terms.mmd.kernel=rfb"], "did you mean rbf?"),
        (["model=wae_mmd", "objective.terms.mmd.wieght=1"], "did you mean weight?"),
        (["model=wae_mmd", "objective.terms.mmd.weight=heavy"], "objective.terms.mmd.weight=heavy: should be a v"),
        (["objective.kl_weight=heavy"], "should be a valid number, or be a part: +schedule@objective.kl_weight="),
        (["model=wae_mmd", "objective.terms.mmd=3"], "objective.terms.mmd=3: should be a part"),
        (["model=denoising_ae", "objective.corruption.amount=2"], "less than or equal to 1"),
        (["model=k_sparse_ae", "latent_dim=10"], "posterior.active=25 of latent_dim=10"),
        (["model=capacity_vae", "posterior=iaf"], "posterior=iaf to prior=standard_normal has no closed form"),
        (["model=free_bits_vae", "prior=mixture"], "estimate it by samples, kl=monte_carlo and free_bits=0"),
        (["model=hinge_vae", f"{ADD}.adversary_discriminator=mmd"], "terms.adversary_discriminator: another term rep"),
        (["model=rae_gp", "loss=gaussian_optimal_scale"], "and loss=gaussian_optimal_scale makes it depend on the"),
        ([f"{ADD}.kl=kl"], "objective: there are two terms kl: give the one that you add, terms.kl, another name"),
        (["model=factor_vae", f"{ADD}.total_correlation=total_correlation"], "there are two terms total_correlation"),
        ([f"{ADD}.elbo=mmd"], "objective: terms.elbo: no term can have this name; take another, such as my_elbo"),
        ([f"{ADD}.train=mmd"], "objective: terms.train: no term can have this name"),
        (
            ["model=contractive_ae", "encoder.normalization=batch"],
            "the term encoder_jacobian: it takes the gradient of",
        ),
        (["model=rae_gp", "decoder.normalization=batch"], "and normalization=batch makes it depend on the others"),
    ],
    ids=str,
)
def test_what_does_not_go_together_is_named_with_what_would(overrides, message):
    assert message in refusal(overrides)


@pytest.mark.parametrize(
    "overrides",
    [
        ["model=contractive_ae", "decoder.normalization=batch"],
        ["model=contractive_ae", "loss=gaussian_optimal_scale"],
        ["model=rae_gp", "encoder.normalization=batch"],
        ["model=iwae_dreg", "encoder.normalization=batch"],
        ["model=piwae", "encoder.normalization=batch"],
        ["model=capacity_vae", "posterior=iaf", "objective.kl=monte_carlo"],
        ["model=factor_vae", "prior=mixture", "objective.kl=monte_carlo"],
        ["model=free_bits_vae", "prior=mixture", "objective.kl=monte_carlo", "objective.free_bits=0.0"],
    ],
    ids=str,
)
def test_no_more_is_refused_than_has_to_be(overrides):
    """Gradients are taken of the encoder or of the decoder, and what couples images in the other does no harm."""
    check(vaelab.compose(["data=digits", *overrides]))


@pytest.mark.parametrize(
    ("overrides", "what"),
    [
        (["model=capacity_vae"], "the term kl"),
        (["model=free_bits_vae"], "the term kl"),
        (["model=wae_mmd"], "the term mmd"),
        (["model=beta_tcvae"], "the term total_correlation"),
        (["model=factor_vae"], "the term total_correlation"),
        (["model=dip_vae_i"], "the term dip"),
        (["model=sparse_ae"], "the term sparsity"),
        (["model=vae_gan", "objective.terms.adversary.discriminator.normalization=batch"], "the term adversary"),
        (["loss=gaussian_optimal_scale"], "loss=gaussian_optimal_scale"),
    ],
    ids=str,
)
def test_several_processes_are_refused_where_the_images_of_a_batch_are_coupled(overrides, what):
    config = vaelab.compose(["data=digits", "trainer=ddp", "trainer.accelerator=cpu", *overrides])
    with pytest.raises(vaelab.ConfigError) as error:
        ready(checked(config))
    message = f"{what} depends on all images of a batch, which are split between 2 processes: take trainer.devices=1"
    assert message in str(error.value)


@pytest.mark.parametrize("model", ["vae", "adversarial_ae", "hinge_vae"])
def test_several_processes_may_share_a_loss_that_is_a_mean_over_images(model):
    ready(checked(vaelab.compose(["data=digits", "trainer=ddp", "trainer.accelerator=cpu", f"model={model}"])))
