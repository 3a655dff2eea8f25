import warnings
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import vaelab
from vaelab import figures
from vaelab.config.check import check
from vaelab.data import Images
from vaelab.models.autoencoder import Autoencoder
from vaelab.training.pictures import portrait

VIEW = figures.View((1, 8, 8))
SMALL = ["data=digits", "trainer=cpu", "encoder.hidden=[16]", "decoder.hidden=[16]", "callbacks.progress_bar=null"]


def drawn(run: Path) -> dict[str, list[int]]:
    """Tag -> steps."""
    accumulator = EventAccumulator(str(run / "tensorboard"), size_guidance={"images": 0}).Reload()
    return {tag: [event.step for event in accumulator.Images(tag)] for tag in accumulator.Tags()["images"]}


def train(folder: Path, *overrides: str) -> Path:
    return vaelab.train(vaelab.compose([*SMALL, *overrides]), folder=folder).folder


def untrained(*overrides: str) -> tuple[Autoencoder, Images]:
    experiment = check(vaelab.compose([*SMALL, *overrides]))
    return experiment.model(), experiment.data.splits.test


def test_by_default_nothing_is_drawn_every_epoch() -> None:
    assert vaelab.compose([]).callbacks.pictures.every_n_epochs == 10


def test_a_run_draws_after_its_first_epoch_every_so_many_and_at_its_end(tmp_path: Path) -> None:
    run = train(tmp_path / "run", "latent_dim=2", "trainer.max_epochs=5", "callbacks.pictures.every_n_epochs=2")
    names = ("reconstructions", "samples", "traversals", "manifold")
    epochs, final = {f"epoch/{name}": [11, 22, 44] for name in names}, {f"final/{name}": [55] for name in names}
    assert drawn(run) == epochs | final


def test_a_model_has_the_pictures_that_it_can_have(tmp_path: Path) -> None:
    run = train(tmp_path / "run", "model=ae", "latent_dim=3", "trainer.max_epochs=1", "data.validation=0")
    assert set(drawn(run)) == {
        f"{when}/{name}" for when in ("epoch", "final") for name in ("reconstructions", "traversals")
    }


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["bf16-true", "64-true", "bf16-mixed"])
def test_a_run_draws_in_every_precision(precision: str, tmp_path: Path) -> None:
    run = train(tmp_path / "run", "latent_dim=2", "trainer.max_epochs=1", f"trainer.precision={precision}")
    assert len(drawn(run)) == 8


def test_a_portrait_leaves_the_model_in_its_mode_and_the_generator_in_its_state() -> None:
    model, images = untrained("latent_dim=2")
    model.train()
    state = torch.get_rng_state()
    portrait(model, images, VIEW, seed=0)
    assert model.training
    assert torch.get_rng_state().equal(state)


def test_samples_are_those_of_the_seed() -> None:
    model, images = untrained()
    one, same, other = (portrait(model, images, VIEW, seed=seed)["samples"] for seed in (0, 0, 1))
    assert (one == same).all()
    assert (one != other).any()
    torch.manual_seed(0)
    assert (one == figures.tile(model.sample(64), 8)).all()


def test_a_conditional_model_reconstructs_images_with_their_labels_and_traverses_with_the_first_ones() -> None:
    model, images = untrained("model=conditional_vae")
    drawn = portrait(model, images, VIEW, seed=0)
    shown = images.spread(10)
    x = shown.pixels / 255
    with torch.no_grad():
        reconstructed = model.reconstruct(x, shown.labels)
    assert (drawn["reconstructions"] == figures.reconstructions(x, reconstructed)).all()


def test_the_codes_of_a_single_image_have_pictures_without_nan() -> None:
    model, images = untrained("latent_dim=2")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pictures = portrait(model, images.first(1), VIEW, seed=0)
    assert set(pictures) == {"reconstructions", "samples", "traversals", "manifold"}
