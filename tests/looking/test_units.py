"""A trained model takes and gives its data's own units, and needs nothing but its run folder."""

from pathlib import Path

import numpy as np
import pytest
import torch

import vaelab
from vaelab.looking import embedding, explore
from vaelab.looking.load import opened

SMALL = ["data=array", "data.batch_size=8", "trainer=debug", "callbacks.progress_bar=null", "latent_dim=2"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of vectors far from 0, whose data are gone."""
    root = tmp_path_factory.mktemp("data")
    values = np.random.default_rng(0).normal([1000, -5, 0.3], [100, 2, 0.01], (80, 3))
    np.save(root / "images.npy", values)
    np.save(root / "labels.npy", np.array(["cat", "dog"] * 40))
    overrides = [*SMALL, f"data.root={root}", "data.scale=standardise", "loss=gaussian_shared_scale"]
    overrides += ["encoder.hidden=[8]", "decoder.hidden=[8]", "conditional=true"]
    trained = vaelab.train(vaelab.compose(overrides), folder=tmp_path_factory.mktemp("runs") / "run").folder
    (root / "images.npy").unlink()
    (root / "labels.npy").unlink()
    return trained


def test_the_loaded_model_is_the_trained_one_in_the_units_of_the_data(run: Path) -> None:
    loaded, trained = vaelab.load(run), opened(run)
    scaling = trained.experiment.data.form.scaling
    assert scaling is not None
    x, y = torch.randn(5, 3), torch.tensor([0, 1, 0, 1, 1])
    values = scaling.undo(x.double()).float()

    with torch.no_grad():
        torch.testing.assert_close(loaded.encode(values, y).mean, trained.model.encode(x, y).mean, rtol=1e-3, atol=1e-3)
        z = torch.randn(5, 2)
        p, q = loaded.decode(z, y), trained.model.decode(z, y)
        torch.testing.assert_close(p.mean, scaling.undo(q.mean.double()).float())
        log_scale = torch.as_tensor(scaling.scale).log().sum().float()
        torch.testing.assert_close(p.log_prob(values), q.log_prob(x) - log_scale, rtol=1e-3, atol=1e-3)
    assert (loaded.sample(200).mean(0) - torch.tensor([1000, -5, 0.3])).abs().max() < 300


def test_what_does_not_look_at_the_training_data_does_without_them(run: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "own.npy", np.array([[1010.0, -4, 0.31], [990, -6, 0.29]]))
    explore.sample(run, output=[tmp_path / "sample.png"])
    explore.reconstruct(run, [tmp_path / "own.npy"], label=1, output=[tmp_path / "reconstruct.png"])
    result = embedding.embed(run, [tmp_path / "own.npy"], label=1, output=[tmp_path / "own.csv"])

    assert result.paths == [tmp_path / "own.csv"]
    with pytest.raises(vaelab.DataError, match=r"images.npy is not there"):
        explore.reconstruct(run, output=[tmp_path / "of_a_split.png"])


def test_a_picture_that_cannot_be_drawn_does_not_stop_the_table(run: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "one.npy", np.array([[1010.0, -4, 0.31]]))
    result = embedding.embed(run, [tmp_path / "one.npy"], label=0, force=True)
    assert sorted(path.name for path in result.paths) == ["embed.csv", "embed.npz"]
    assert "no picture: a picture of codes needs at least 3" in result.notes[-1]


def test_labels_are_seen_by_their_names_and_not_at_all_where_there_are_none(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 256, (60, 8, 8), np.uint8)
    np.save(tmp_path / "images.npy", values)
    overrides = [*SMALL, f"data.root={tmp_path}", "encoder.hidden=[8]", "decoder.hidden=[8]"]
    without = vaelab.train(vaelab.compose(overrides), folder=tmp_path / "without").folder
    np.save(tmp_path / "labels.npy", np.array(["cat", "dog", "ox"] * 20))
    named = vaelab.train(vaelab.compose(overrides), folder=tmp_path / "named").folder

    for run, label in ((without, None), (named, {"cat", "dog", "ox"})):
        embedding.embed(run, split="train", output=[run / "codes.csv", run / "codes.npz"])
        header, *lines = (run / "codes.csv").read_text().splitlines()
        assert ("label" in header.split(",")) == bool(label)
        assert not label or {line.split(",")[1] for line in lines} == label
        with np.load(run / "codes.npz") as codes:
            assert ("labels" in codes) == bool(label)
