"""Every model of conf/model: its parts together, trained, stopped and gone on with."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch

import vaelab
from tokenizers import OF_GREY_DIGITS
from vaelab.config.check import check
from vaelab.config.conf import options
from vaelab.config.experiment import Experiment
from vaelab.losses import Step
from vaelab.models.autoencoder import Autoencoder
from vaelab.training.checkpoints import AtomicCheckpointIO, read
from vaelab.training.datamodule import ImageDataModule
from vaelab.training.module import AutoencoderModule
from vaelab.training.reading import load_weights

PRESETS = options("model")
ON_GRIDS = {name for name in PRESETS if name.endswith("_vq")} | {"vq_vae", "vq_vae_2", "fsq"} | {*OF_GREY_DIGITS}


def experiment(preset: str, *overrides: str) -> Experiment:
    return check(
        vaelab.compose(
            [f"model={preset}", "data=digits", "data.batch_size=300", *OF_GREY_DIGITS.get(preset, []), *overrides]
        )
    )


def fitted(made: Experiment, epochs: int, checkpoint: Path | None = None) -> tuple[Autoencoder, pl.Trainer]:
    trainer = pl.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        plugins=[AtomicCheckpointIO()],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        limit_train_batches=3,
    )
    model = made.model()
    module = AutoencoderModule(model, made.objective, made.optimizer, seed=made.seed)
    trainer.fit(module, ImageDataModule(made.data, seed=made.seed), ckpt_path=checkpoint, weights_only=True)
    return model, trainer


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TQDM_DISABLE", "1")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning:pytorch_lightning")
@pytest.mark.filterwarnings("ignore::pytorch_lightning.utilities.warnings.PossibleUserWarning")
@pytest.mark.parametrize("preset", PRESETS)
def test_a_model_that_was_stopped_goes_on_to_the_same_bits_and_is_loaded_as_it_was(preset: str, tmp_path: Path) -> None:
    made = experiment(preset)
    undisturbed, trainer = fitted(made, 2)
    trainer.save_checkpoint(tmp_path / "undisturbed.ckpt")
    _, trainer = fitted(made, 1)
    trainer.save_checkpoint(tmp_path / "stopped.ckpt")
    _, trainer = fitted(made, 2, tmp_path / "stopped.ckpt")
    trainer.save_checkpoint(tmp_path / "resumed.ckpt")

    one, other = (read(tmp_path / f"{name}.ckpt") for name in ("undisturbed", "resumed"))
    assert one["global_step"] == other["global_step"] == 6
    assert same(one["state_dict"], other["state_dict"])
    assert same(one["optimizer_states"], other["optimizer_states"])

    loaded = made.model()
    load_weights(loaded, tmp_path / "undisturbed.ckpt")
    x, labels = made.data.splits.test.pixels[:5].float() / 255, made.data.splits.test.labels[:5]
    undisturbed, loaded = undisturbed.eval(), loaded.eval()
    assert loaded.reconstruct(x, labels).equal(undisturbed.reconstruct(x, labels))
    if loaded.prior is not None:
        torch.manual_seed(0)
        samples = loaded.sample(7)
        torch.manual_seed(0)
        assert samples.equal(undisturbed.sample(7))
        assert samples.shape == (7, 1, 8, 8)


def same(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return bool(one.equal(other))
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


@pytest.mark.parametrize("preset", PRESETS)
def test_the_gradient_reaches_every_parameter_that_is_trained(preset: str) -> None:
    made = experiment(preset)
    model = made.model()
    x, labels = made.data.splits.train.pixels[:100].float() / 255, made.data.splits.train.labels[:100]
    made.objective.build(model, 0)
    # Two passes: a quantizer starts with k-means, after which nothing is left to commit to in a small batch.
    for _ in range(2):
        loss = made.objective(Step(model, x, labels, number=10_000))["loss"]
    loss.backward()

    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
            assert parameter.grad.any(), name


@pytest.mark.parametrize("preset", PRESETS)
def test_distributions_say_what_the_other_parts_of_vaelab_ask_of_them(preset: str) -> None:
    made = experiment(preset)
    model = made.model().eval()
    x, labels = made.data.splits.test.pixels[:6].float() / 255, made.data.splits.test.labels[:6]
    q = model.encode(x, labels)
    z = q.rsample(torch.Size([3]))

    assert z.shape == (3, 6, made.posterior(model.encoder.features, made.latent_dim).latent_dim)  # type: ignore[attr-defined]
    assert q.mean.shape == z.shape[1:]
    assert model.decode(z, labels).log_prob(x).shape == (3, 6)
    assert model.decode(q.mean, labels).mean.shape == x.shape
    if model.posterior.has_density:
        assert model.prior is not None
        assert q.log_prob(z).shape == model.prior().log_prob(z).shape == (3, 6)


@pytest.mark.slow
@pytest.mark.parametrize("preset", PRESETS)
def test_under_mixed_precision_densities_and_losses_have_all_their_bits(preset: str) -> None:
    made = experiment(preset)
    model = made.model()
    made.objective.build(model, 0)
    x, labels = made.data.splits.test.pixels[:64].float() / 255, made.data.splits.test.labels[:64]
    with torch.autocast("cpu", torch.bfloat16):
        q = model.encode(x, labels)
        z = q.rsample()
        numbers = {"likelihood": model.decode(z, labels).log_prob(x)} | dict(made.objective(Step(model, x, labels)))
        if model.posterior.has_density:
            assert model.prior is not None
            numbers |= {"posterior": q.log_prob(z), "prior": model.prior().log_prob(z)}
    assert z.dtype == torch.float32
    assert {name: number.dtype for name, number in numbers.items()} == dict.fromkeys(numbers, torch.float32)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["prior=mixture"], "posterior=gaussian to prior=mixture has no closed form: estimate it by samples"),
        (["posterior=iaf"], "posterior=iaf to prior=standard_normal has no closed form: estimate it by samples"),
        (
            ["posterior=von_mises_fisher"],
            "posterior=von_mises_fisher is over the unit sphere and prior=standard_normal over real vectors: "
            "prior=hyperspherical_uniform would fit",
        ),
        (["posterior=von_mises_fisher", "prior=hyperspherical_uniform", "latent_dim=1"], "latent_dim=2"),
        (["posterior=vector_quantizer"], "the term kl: posterior=vector_quantizer has no density q(z|x)"),
        (["posterior=gumbel_softmax"], "prior=uniform_codes would fit"),
        (["prior=uniform_codes"], "needs a posterior over codes, and posterior=gaussian is none"),
        (["objective=vector_quantization"], "the term commitment: it needs codes, and posterior=gaussian has none"),
        (["model=fsq", "latent_dim=5"], "posterior.levels has 4 entries and latent_dim=5"),
        (["model=fsq", "posterior.levels=[1,5,5,5]"], "greater than 1"),
        (["model=vq_vae", "encoder.features=256", "latent_dim=63"], "goes with a posterior over codes"),
        (["model=vq_vae", "posterior.groups=3"], "posterior.groups=3 does not divide latent_dim=64"),
        (["model=vq_vae_2", "encoder.channels=[8,8,8]", "decoder.channels=[8,8,8]"], "1 x 1, which cannot be halved"),
        (["model=vq_vae", "+term@objective.terms.entropy=code_entropy"], "posterior=lookup_free or"),
        (["model=lookup_free_vq", "latent_dim=63"], "more bits of a code than can be numbered"),
        (["model=vq_vae", "posterior.codes=3"], "does not go with the encoder's grid of 2 x 2"),
        (["encoder=conv", "encoder.channels=[8,8,8,8]"], "an image of 8 x 8: it can be halved 3 times"),
        (["model=vamp_vae", "conditional=true"], "pseudo-inputs without labels, and the model is conditional"),
        (
            ["model=vamp_vae", "encoder=conv", "encoder.normalization=batch"],
            "and normalization=batch would make the code",
        ),
        (["model=vamp_vae", "posterior=deterministic"], "posterior=deterministic has none: posterior=gaussian"),
        (["posterior=ladder", "objective=elbo_monte_carlo"], "prior=top_down would fit"),
        (["decoder=first_layer"], "posterior"),  # its layers are those of the posterior
        (["posterior=gumbel_softmax", "prior=uniform_codes", "posterior.temperature=0"], "greater than 0"),
        (["model=gumbel_vae", "objective=iwae"], "it weighs samples by their probability"),
        (["model=gumbel_vae", "objective=piwae"], "posterior=gumbel_softmax relaxes them in training"),
        (["model=gumbel_vae", "objective=elbo_monte_carlo"], "take the objective elbo with kl=closed_form"),
        (
            ["model=gumbel_vae", "+term@objective.terms.second=kl", "objective.terms.second.kl=monte_carlo"],
            "the term second: it weighs samples by their probability",
        ),
        (["model=iwae_dreg", "loss=gaussian_optimal_scale"], "loss=gaussian_optimal_scale makes it depend on the"),
        (["model=piwae", "loss=gaussian_optimal_scale"], "take the objective iwae with gradient=reparameterized"),
        (
            ["model=full_covariance_vae", "objective.free_bits=0.1"],
            "the term kl: it needs the density of each latent dimension, and posterior=full",
        ),
        (["model=gumbel_vae", "objective.free_bits=0.1"], "posterior=gumbel_softmax has none: posterior=gaussian or"),
        (["model=vq_vae", "conditional=true"], "and no labels (conditional=false)"),
        (["model=vq_vae", "conditional=true", "decoder.channels=[1,1,1]"], "a label cannot be put before those"),
        (["model=k_sparse_ae", "objective=elbo"], "posterior=k_sparse"),
        (["model=contractive_ae", "compile=true"], "which the term encoder_jacobian needs: compile=false"),
        (["model=rae_gp", "compile=true"], "which the term decoder_jacobian needs: compile=false"),
    ],
    ids=str,
)
def test_parts_that_do_not_go_together_are_named_with_what_would(overrides: list[str], message: str) -> None:
    with pytest.raises(vaelab.ConfigError) as error:
        check(vaelab.compose(["data=digits", *overrides]))
    assert message in str(error.value)


def test_a_conditional_model_on_data_without_labels_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "images.npy", np.zeros((40, 8, 8), dtype=np.uint8))
    with pytest.raises(vaelab.ConfigError, match=r"data=array has none: conditional=false or, .* a labels\.npy"):
        experiment("conditional_vae", "data=array", f"data.root={tmp_path}")


@pytest.mark.slow
@pytest.mark.parametrize("preset", sorted(set(PRESETS) - {*ON_GRIDS, "vamp_vae"}))  # which refuse
def test_any_other_model_can_be_made_conditional(preset: str) -> None:
    """What it decodes and, where the posterior is not of the prior alone, what it encodes, depends on the label."""
    made = experiment(preset, "conditional=true")
    model = made.model().eval()
    x = made.data.splits.test.pixels[:1].float().expand(2, -1, -1, -1) / 255
    labels = torch.tensor([3, 8])
    codes = model.encode(x, labels).mean
    images = model.decode(codes[:1].expand_as(codes), labels).mean

    assert not codes[0].equal(codes[1])
    assert images.shape == (2, 1, 8, 8)
    assert not images[0].equal(images[1])


@pytest.mark.parametrize("preset", ["hierarchical_vae", "ladder_vae"])
@pytest.mark.parametrize("conditional", [False, True])
def test_the_decoder_of_layers_sees_the_first_one_alone(preset: str, conditional: bool) -> None:
    made = experiment(preset, f"conditional={str(conditional).lower()}")
    model = made.model().eval()
    z = torch.randn(1, model.posterior.latent_dim, requires_grad=True)
    (gradient,) = torch.autograd.grad(model.decode(z, torch.zeros(1, dtype=torch.int64)).mean.square().sum(), z)

    assert gradient[0, : made.latent_dim].all()
    assert not gradient[0, made.latent_dim :].any()


@pytest.mark.parametrize("preset", ["contractive_ae", "rae_gp"])
def test_the_slopes_of_conditional_models_are_there_in_validation_too(preset: str, tmp_path: Path) -> None:
    """Where Lightning makes tensors that cannot be differentiated by."""
    config = vaelab.compose([f"model={preset}", "conditional=true", "data=digits", "trainer=debug"])
    assert "test/loss" in vaelab.train(config, folder=tmp_path / "run").metrics


def test_a_temperature_has_a_schedule() -> None:
    overrides = ["posterior.temperature.start=2.0", "posterior.temperature.steps=100"]
    made = experiment("gumbel_vae", *overrides)
    assert made.model().encode(torch.rand(2, 1, 8, 8)).temperature == 2.0  # type: ignore[attr-defined]
