import csv
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

import vaelab
from vaelab.cli.main import main
from vaelab.looking.score import score
from vaelab.report.report import collect

QUICK = ["data=digits", "trainer=cpu", "trainer.max_epochs=2", "callbacks.progress_bar=null", "logger=[]"]
QUICK += ["callbacks.pictures=null"]
RUNS = {
    "grey": [],
    "binary": ["data.binarize=fixed", "seed=3"],
    "conditional": ["model=conditional_vae"],
    "ae": ["model=ae"],
    "sprites": ["data=sprites", "data.size=8", "data.values=[2,2,4,4,4]", "data.test=50", "data.validation=0"],
    "large": ["data=sprites", "data.size=9", "data.values=[2,2,4,4,4]", "data.test=50", "data.validation=0"],
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


def trained(root: Path, name: str) -> Path:
    """The run of a name, trained when it is first asked for."""
    if not (root / name).exists():
        vaelab.train(vaelab.compose([*QUICK, *RUNS[name]]), folder=root / name)
    return root / name


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("name", ["grey", "binary", "conditional"])
def test_scores_have_the_means_that_evaluate_reports(name: str, root: Path, tmp_path: Path) -> None:
    samples = 4 if name == "binary" else None
    evaluated: Any = vaelab.evaluate(trained(root, name), samples=samples)

    score(trained(root, name), samples=samples, output=tmp_path)

    found = np.load(tmp_path / "score.npz")
    assert len(found["names"]) == 200
    means = {key: found[key].mean() for key in found.files if key not in ("names", "labels")}
    # Evaluate's are means in float32: seven digits.
    assert means["reconstruction"] == pytest.approx(evaluated["test/reconstruction"], rel=2e-7)
    assert means["kl"] == pytest.approx(evaluated["test/kl"], rel=2e-7)
    assert -means["negative_elbo"] == pytest.approx(evaluated["test/elbo"], rel=2e-7)
    assert means["squared_error"] == pytest.approx(evaluated["test/mse"], rel=2e-7)
    if samples:
        assert means["nll_4"] == pytest.approx(evaluated["test/nll_4"], rel=1e-12)


def test_table_and_arrays_hold_a_row_an_item_with_its_name_and_label(root: Path, tmp_path: Path) -> None:
    result = score(trained(root, "grey"), output=tmp_path)

    found, table = np.load(tmp_path / "score.npz", allow_pickle=False), rows(tmp_path / "score.csv")
    assert [path.name for path in result.paths] == ["score.csv", "score.npz", "score.png"]
    assert list(table[0]) == ["name", "label", *(key for key in found.files if key not in ("names", "labels"))]
    for number in (0, 117):
        assert table[number]["name"] == found["names"][number] == str(number)
        assert int(table[number]["label"]) == found["labels"][number]
        assert float(table[number]["kl"]) == found["kl"][number]
    data = vaelab.looking.load.opened(trained(root, "grey")).experiment.data
    assert found["labels"].tolist() == data.splits.test.labels.tolist()


def test_by_default_scores_are_in_the_runs_evaluation_and_are_not_replaced(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = shutil.copytree(trained(root, "grey"), tmp_path / "run")
    with pytest.raises(SystemExit) as end:
        main(["score", str(run), "--split", "validation"])
    assert end.value.code == 0
    assert (run / "evaluation" / "score.csv").is_file()

    with pytest.raises(SystemExit) as end:
        main(["score", str(run)])
    assert end.value.code == 2
    assert "score.csv exists: --force" in " ".join(capsys.readouterr().err.split())
    before = (run / "evaluation" / "score.csv").read_text()
    with pytest.raises(SystemExit) as end:
        main(["score", str(run), "--force"])
    assert end.value.code == 0
    assert (run / "evaluation" / "score.csv").read_text() != before
    collect([run])  # files of scores are not taken for evaluations


def test_items_of_ones_own_keep_their_names(root: Path, tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (7, 8, 8), dtype=np.uint8)
    np.savez(tmp_path / "own.npz", images=images, labels=np.arange(7))

    score(trained(root, "grey"), [tmp_path / "own.npz"], output=tmp_path / "out")

    table = rows(tmp_path / "out" / "score.csv")
    assert [row["name"] for row in table] == [f"own.npz[{number}]" for number in range(7)]
    assert [row["label"] for row in table] == list("0123456")


def test_noise_is_told_from_digits_and_the_area_is_scikit_learns(root: Path, tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (60, 8, 8), dtype=np.uint8)
    np.save(tmp_path / "noise.npy", images)

    result = score(trained(root, "grey"), against=tmp_path / "noise.npy", output=tmp_path / "out")

    usual, unusual = (np.load(tmp_path / "out" / f"{name}.npz") for name in ("score", "against"))
    assert (len(usual["names"]), len(unusual["names"])) == (200, 60)
    table = {row["score"]: row for row in rows(tmp_path / "out" / "detection.csv")}
    truth = np.repeat([0, 1], [200, 60])
    for name in ("negative_elbo", "squared_error", "typicality"):
        area = roc_auc_score(truth, np.concatenate([usual[name], unusual[name]]))
        assert float(table[name]["auroc"]) == result.detection[name].auroc == pytest.approx(area)
    assert result.detection["negative_elbo"].auroc > 0.9
    assert (tmp_path / "out" / "histogram.png").is_file()


@pytest.mark.slow
def test_another_runs_data_may_be_scored_against_and_the_same_are_not_told_apart(root: Path, tmp_path: Path) -> None:
    same = score(trained(root, "grey"), against=trained(root, "ae"), output=tmp_path / "same")
    other = score(trained(root, "grey"), against=trained(root, "sprites"), output=tmp_path / "other")

    assert same.detection["squared_error"].auroc == pytest.approx(0.5)
    assert len(np.load(tmp_path / "other" / "against.npz")["names"]) == 50
    assert other.detection["negative_elbo"].auroc != pytest.approx(0.5, abs=0.05)


def test_a_plain_autoencoder_scores_by_its_reconstruction(root: Path, tmp_path: Path) -> None:
    result = score(trained(root, "ae"), output=tmp_path)

    assert result.items.first == "reconstruction"
    assert not {"kl", "negative_elbo"} & set(rows(tmp_path / "score.csv")[0])


@pytest.mark.slow
def test_signals_and_vectors_are_scored_and_drawn_and_own_rows_are_scaled_as_the_data(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name, shape in {"signal": (200, 2, 24), "vector": (200, 5)}.items():
        root = tmp_path / name
        root.mkdir()
        rows_of = rng.normal(3, 10, shape).astype(np.float32)
        np.save(root / "images.npy", rows_of)
        overrides = ["data=array", f"data.root={root}", "data.test=50", "data.validation=0", "loss=mse"]
        vaelab.train(vaelab.compose([*QUICK[1:], *overrides]), folder=root / "run")
        np.save(root / "odd.npy", rows_of[:20] * 8)

        result = score(root / "run", against=root / "odd.npy", output=root / "out")

        assert {"score.png", "histogram.png"} < {path.name for path in result.paths}
        assert "likelihood_ratio" not in result.items.scores
        assert result.detection["squared_error"].auroc > 0.9
        np.save(root / "wrong.npy", rows_of[:, :1])
        with pytest.raises(vaelab.DataError, match="wrong"):
            score(root / "run", [root / "wrong.npy"], output=root / "other")


MISTAKES = {
    "another shape": (["{grey}", "--against", "{large}"], "its items have the shape (1, 9, 9), this model's (1, 8, 8)"),
    "no densities": (["{ae}", "--samples", "3"], "--samples 3: there is no importance-weighted log-likelihood"),
    "no such file": (["{grey}", "none.npy"], "there is no none.npy"),
    "no run": (["nowhere"], "nowhere is not a run folder"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line_and_nothing_is_written(
    mistake: str, root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words, message = MISTAKES[mistake]
    paths = {name: trained(root, name) for name in RUNS if any(f"{{{name}}}" in word for word in words)}

    with pytest.raises(SystemExit) as end:
        main(["score", *(word.format(**paths) for word in words), "--output", str(tmp_path / "out")])

    assert end.value.code == 2
    assert message in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "out").exists()
