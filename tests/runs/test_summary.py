import json
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

import vaelab
from vaelab.config.check import check
from vaelab.runs.differences import differences

SMALL = ["data=digits", "trainer=cpu", "trainer.max_epochs=1", "callbacks.progress_bar=null", "latent_dim=2"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return vaelab.train(vaelab.compose(SMALL), folder=tmp_path_factory.mktemp("summary") / "run").folder


def files(run: Path) -> list[str]:
    folder = run / "tensorboard"
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def sessions(run: Path) -> list[HParamsPluginData]:
    """What TensorBoard's HParams dashboard reads of a run."""
    values = [
        value
        for path in sorted((run / "tensorboard").glob("events*"))
        for event in EventFileLoader(str(path)).Load()
        for value in event.summary.value
    ]
    plugins = [value.metadata.plugin_data for value in values]
    return [HParamsPluginData.FromString(plugin.content) for plugin in plugins if plugin.plugin_name == "hparams"]


def test_a_run_leaves_one_event_file_and_the_projectors(run: Path) -> None:
    (event_file,) = [name for name in files(run) if name.startswith("events.out.tfevents.")]
    latents = [f"00011/latents/{name}" for name in ("metadata.tsv", "sprite.png", "tensors.tsv")]
    assert sorted([event_file, *latents, "projector_config.pbtxt"]) == files(run)


def test_the_projector_has_the_labels_and_latents_of_the_test_images(run: Path) -> None:
    folder = run / "tensorboard" / "00011" / "latents"
    images = check(vaelab.compose(SMALL)).data.splits.test
    assert [int(line) for line in (folder / "metadata.tsv").read_text().split()] == images.labels.tolist()
    latents = vaelab.load(run).encode(images.pixels.float() / 255).mean
    table = [[float(value) for value in line.split()] for line in (folder / "tensors.tsv").read_text().splitlines()]
    assert table == pytest.approx(latents.detach().numpy(), rel=1e-4, abs=1e-6)


def test_a_run_can_do_without_the_projector(tmp_path: Path) -> None:
    config = vaelab.compose([*SMALL, "logger.tensorboard.projector=0"])
    (event_file,) = files(vaelab.train(config, folder=tmp_path / "run").folder)
    assert event_file.startswith("events.out.tfevents.")


def test_a_row_of_hparams_begins_and_ends_and_says_nothing_for_other_runs(run: Path) -> None:
    start, end = sessions(run)
    assert start.WhichOneof("data") == "session_start_info"
    assert start.session_start_info.hparams["latent_dim"].number_value == 2
    assert start.session_start_info.hparams["objective"].string_value == "elbo"
    assert end.WhichOneof("data") == "session_end_info"


def test_an_end_that_is_repeated_is_there_once(run: Path, tmp_path: Path) -> None:
    """A run killed after the last of its files was written, but before it was said to be done."""
    again = vaelab.train(vaelab.compose(SMALL), folder=tmp_path / "run").folder
    status = json.loads((again / "status.json").read_text())
    (again / "status.json").write_text(
        json.dumps({name: value for name, value in status.items() if name != "checksum"} | {"state": "running"})
    )
    (again / "metrics.json").unlink()

    vaelab.resume(again)

    assert differences(run, again) == []
    assert [one.WhichOneof("data") for one in sessions(again)] == ["session_start_info", "session_end_info"]
    for name in (name for name in files(run) if "tfevents" not in name):
        assert (run / "tensorboard" / name).read_bytes() == (again / "tensorboard" / name).read_bytes()
