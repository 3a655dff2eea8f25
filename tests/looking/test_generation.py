"""`vaelab evaluate --generation`, `--factors` and `--metric`: real runs, real files."""

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import vaelab
from vaelab.cli.main import main
from vaelab.metrics import classifier, disentanglement
from vaelab.metrics.frechet import Moments, frechet_distance
from vaelab.metrics.two_samples import kernel_distance
from vaelab.seeding import derive_seed

QUICK = ["trainer=cpu", "trainer.max_epochs=1", "callbacks.progress_bar=null", "callbacks.pictures=null", "logger=[]"]
SPRITES = ["data=sprites", "data.size=8", "data.values=[2,2,4,4,4]", "data.test=120", "data.validation=0"]
RUNS = {
    "vae": ["data=digits"],
    "ae": ["data=digits", "model=ae"],
    "vq": [*SPRITES, "model=vae", "latent_dim=3"],
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("runs")
    for name, overrides in {"vae": RUNS["vae"], "ae": RUNS["ae"], "sprites": RUNS["vq"]}.items():
        vaelab.train(vaelab.compose([*QUICK, *overrides]), folder=root / name)
    return root


@pytest.fixture(autouse=True)
def quick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(classifier, "STEPS", 60)
    monkeypatch.setattr(disentanglement, "VOTES", (200, 100))


def command(*arguments: object) -> int:
    with pytest.raises(SystemExit) as end:
        main(["evaluate", *map(str, arguments)])
    assert isinstance(end.value.code, int)
    return end.value.code


def test_samples_and_reconstructions_are_compared_with_the_images_of_the_split(runs: Path) -> None:
    found: Any = vaelab.evaluate(runs / "vae", generation=300, features="pixels")

    model, data = vaelab.load(runs / "vae"), vaelab.looking.load.opened(runs / "vae").experiment.data
    real = data.splits.test.x.flatten(1)
    with torch.no_grad():
        torch.manual_seed(derive_seed(0, "samples", 0))
        drawn = model.sample(300).flatten(1)
        again = model.reconstruct(data.splits.test.x).flatten(1)
    moments = [Moments() for _ in range(3)]
    for of, rows in zip(moments, (real, drawn, again), strict=True):
        of.add(rows)
    assert found["test/frechet_pixels"] == pytest.approx(frechet_distance(moments[0], moments[1]), rel=1e-6)
    assert found["test/reconstruction_frechet_pixels"] == pytest.approx(
        frechet_distance(moments[0], moments[2]), rel=1e-6
    )
    assert found["test/kernel_distance_pixels"] == pytest.approx(kernel_distance(real, drawn).value, rel=1e-6)
    paired = kernel_distance(real, again, paired=True)
    assert found["test/reconstruction_kernel_distance_pixels"] == pytest.approx(paired.value, rel=1e-6)


def test_features_sizes_and_standard_errors_are_in_the_file_and_a_second_call_finds_the_same(runs: Path) -> None:
    first: Any = vaelab.evaluate(runs / "vae", generation=150)
    second: Any = vaelab.evaluate(runs / "vae", generation=150)
    other: Any = vaelab.evaluate(runs / "vae", generation=150, seed=5)

    assert first == second
    assert first["test/frechet_classifier"] != other["test/frechet_classifier"]
    (path,) = (runs / "vae" / "evaluation").glob("test_*_seed0.json")
    metrics = json.loads(path.read_text())["metrics"]
    distance = metrics["test/kernel_distance_classifier"]
    assert distance["standard_error"] > 0
    assert {key: distance[key] for key in ("features", "dimensions", "images", "generated")} == {
        "features": "classifier",
        "dimensions": 64,
        "images": 150,
        "generated": 150,
    }
    assert 0 < distance["accuracy"] < 1
    assert metrics["test/frechet_extrapolated_classifier"]["of_halves"] > metrics["test/frechet_classifier"]["value"]
    assert 0 <= metrics["test/recall_classifier"]["value"] <= 1


def test_a_model_without_a_prior_is_sampled_from_a_fitted_gaussian_where_asked(runs: Path) -> None:
    without = vaelab.evaluate(runs / "ae", generation=200, features="pixels")
    fitted = vaelab.evaluate(runs / "ae", generation=200, features="pixels", fit_gaussian=True)

    assert "test/reconstruction_frechet_pixels" in without
    assert "test/frechet_pixels" not in without
    assert "test/frechet_pixels" in fitted


@pytest.mark.slow
def test_factors_get_their_scores_a_heat_map_and_traversals(runs: Path) -> None:
    assert command(runs / "sprites", "--factors") == 0

    (path,) = (runs / "sprites" / "evaluation").glob("*.json")
    metrics = json.loads(path.read_text())["metrics"]
    names = ["mig", "sap", "factor_vae_score", "beta_vae_score", "modularity", "explicitness"]
    names += [f"{kind}_{part}" for kind in ("dci", "dci_lasso") for part in ("disentanglement", "completeness")]
    for name in names:
        assert -1 <= metrics[f"test/{name}"]["value"] <= 1
        assert metrics[f"test/{name}"]["factors"] == "shape, scale, angle, x, y"
    figures = sorted(file.name for file in path.parent.glob("*.png"))
    assert [name.partition("seed0")[2] for name in figures] == ["_factor_traversals.png", "_factors.png"]


@pytest.mark.slow
def test_a_run_reports_the_metrics_of_its_config_of_the_validation_images(tmp_path: Path) -> None:
    config = ["data=digits", *QUICK[:-1], "logger=csv", "metrics=generation", "metrics.generation.images=180"]
    run = vaelab.train(vaelab.compose(config), folder=tmp_path / "run")

    assert run.metrics["generation/frechet"] > 0
    validated: Any = vaelab.evaluate(tmp_path / "run", split="validation")
    assert run.metrics["generation/kid"] == validated["val/generation/kid"]
    assert "generation/kid" in (tmp_path / "run" / "csv" / "metrics.csv").read_text()
    assert vaelab.reproduce(tmp_path / "run", folder=tmp_path / "again").identical


def test_a_metric_of_ones_own_is_found_in_a_config_and_by_its_name(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The package and the config are those that docs/metrics.md shows."""
    text = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text()
    (code,) = re.findall(r"```python\n(# my_metrics/sharpness.py\n.*?)```", text, re.DOTALL)
    (config,) = re.findall(r"```yaml\n(# configs/metrics/sharpness.yaml\n.*?)```", text, re.DOTALL)
    assert len(code.splitlines()) + len(config.splitlines()) <= 40
    for path, content in {
        "my_metrics/__init__.py": "",
        "my_metrics/sharpness.py": code,
        "configs/metrics/sharpness.yaml": config,
    }.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(content)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "my_metrics", raising=False)
    composed = vaelab.compose(
        ["data=digits", *QUICK, "metrics=sharpness", "metrics.sharpness.step=2"], config_dir=tmp_path / "configs"
    )

    run = vaelab.train(composed, folder=tmp_path / "run", trust=["my_metrics"])

    assert 0 < run.metrics["sharpness/sharpness"] < 1
    found: Any = vaelab.evaluate(runs / "vae", metrics=["my_metrics.sharpness.sharpness"], trust=["my_metrics"])
    assert 0 < found["test/sharpness"] < 1
    assert vaelab.evaluate(tmp_path / "run", trust=["my_metrics"]).keys() >= {"test/sharpness/sharpness"}
    assert command(tmp_path / "run") == 2  # nothing of a run folder runs code without trust
    capsys.readouterr()
    assert command(runs / "vae", "--metric", "my_metrics.sharpness.sharpness") == 2
    assert "--metric my_metrics.sharpness.sharpness: not a part" in " ".join(capsys.readouterr().err.split())
    assert command(runs / "vae", "--metric", "my_metrics.sharpness.energy", "--trust", "my_metrics") == 2


MISTAKES = {
    "fewer samples than features": (["{vae}", "--generation", "40"], "40 images are too few for a covariance of 64"),
    "no samples": (["{vae}", "--generation", "0"], "--generation 0: give a number of images"),
    "no such features": (["{vae}", "--generation", "200", "--features", "pixel"], "did you mean pixels?"),
    "an untrusted file": (["{vae}", "--generation", "200", "--features", "a.py:B"], "allow it with --trust a.py"),
    "no factors": (["{vae}", "--factors"], "--factors: the data know no factors of variation"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line_and_nothing_is_written(
    mistake: str, runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments, message = MISTAKES[mistake]
    before = sorted((runs / "vae").rglob("*"))

    assert command(*(word.format(vae=runs / "vae") for word in arguments)) == 2

    error = capsys.readouterr().err
    assert message in " ".join(error.split())
    assert "Traceback" not in error
    assert sorted((runs / "vae").rglob("*")) == before


def test_a_factor_with_one_value_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sprites = ["data=sprites", "data.size=8", "data.values=[2,1,4,4,4]", "data.test=60", "data.validation=0"]
    vaelab.train(vaelab.compose([*QUICK, *sprites, "data.batch_size=32"]), folder=tmp_path / "run")

    assert command(tmp_path / "run", "--factors") == 2
    assert "the factor scale has one value" in " ".join(capsys.readouterr().err.split())


def test_metrics_that_the_data_cannot_have_are_refused_before_training(tmp_path: Path) -> None:
    for overrides, message in {
        ("metrics=factors",): "metrics.factors: the data know no factors",
        ("metrics=generation", "metrics.generation.features=pixel"): "did you mean pixels?",
        (
            "metrics=generation",
            "metrics.generation.features=resnet18",
            "metrics.generation.weights=no.pth",
        ): "images are too few for a covariance of 512 features",
        ("metrics=generation", "metrics.generation.features=a.py:B"): "its code would run: allow it with --trust",
        ("metrics=generation", "metrics.generation.weights=a.pth"): "for features that are a network of torchvision",
        ("metrics=generation", "data.validation=50"): "50 images are too few for a covariance of 64 features",
    }.items():
        with pytest.raises(vaelab.ConfigError) as found:
            vaelab.train(vaelab.compose(["data=digits", *QUICK, *overrides]), folder=tmp_path / "run")
        assert message in str(found.value)
        assert not (tmp_path / "run").exists()
