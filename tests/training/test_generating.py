"""Distances of samples and reconstructions while a model trains."""

import json
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torchvision.models import shufflenet_v2_x0_5

import vaelab

SMALL = ["data=digits", "encoder.hidden=[16]", "decoder.hidden=[16]", "trainer.max_epochs=4", "trainer=cpu"]
OF_PIXELS = ["callbacks=generation", "callbacks.generation.features=pixels", "callbacks.generation.images=150"]


def test_they_are_logged_at_the_epochs_chosen_and_those_of_the_last_are_those_of_the_end(tmp_path: Path) -> None:
    words = [*SMALL, *OF_PIXELS, "callbacks.generation.every_n_epochs=2", "callbacks.progress_bar=null"]
    same = ["metrics=generation", "metrics.generation.features=pixels", "metrics.generation.images=150"]
    run = vaelab.train(vaelab.compose([*words, *same]), folder=tmp_path / "run").folder
    accumulator = EventAccumulator(str(run / "tensorboard")).Reload()
    logged = accumulator.Scalars("generation/pixels/reconstruction_frechet")
    final = json.loads((run / "metrics.json").read_text())

    assert [event.step for event in logged] == [22, 44]
    assert logged[-1].value == pytest.approx(final["generation/reconstruction_frechet"], rel=1e-5)  # best is the last
    assert {"generation/pixels/kid", "generation/pixels/frechet"} <= set(accumulator.Tags()["scalars"])


@pytest.mark.slow
def test_the_rfid_in_the_features_of_a_network_of_torchvision_is_logged_too(tmp_path: Path) -> None:
    torch.save(shufflenet_v2_x0_5(weights=None).state_dict(), tmp_path / "small.pth")
    key = "callbacks.generation"
    of_network = [f"{key}.features=shufflenet_v2_x0_5", f"{key}.weights={tmp_path}/small.pth", f"{key}.images=1030"]
    sizes = ["trainer.max_epochs=1", f"{key}.every_n_epochs=1", "data.validation=1030", "data.test=50"]
    words = [*SMALL, "callbacks=generation", "callbacks.progress_bar=null", *of_network, *sizes]
    run = vaelab.train(vaelab.compose(words), folder=tmp_path / "run").folder
    accumulator = EventAccumulator(str(run / "tensorboard")).Reload()

    (logged,) = accumulator.Scalars("generation/shufflenet_v2_x0_5/reconstruction_frechet")
    assert logged.value > 0


def test_features_that_cannot_be_had_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    words = [*SMALL, *OF_PIXELS, "callbacks.generation.images=60"]
    with pytest.raises(vaelab.ConfigError, match=r"callbacks\.generation: features pixels: "):
        vaelab.train(vaelab.compose(words), folder=tmp_path / "run")
    assert not (tmp_path / "run").exists()
