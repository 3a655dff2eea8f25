import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import vaelab
from processes import finish, start
from vaelab.cli.main import main
from vaelab.data import ImageData, Images
from vaelab.looking import evaluate as module
from vaelab.looking.evaluate import Wanted, evaluation_of
from vaelab.looking.load import opened
from vaelab.metrics import images, likelihood, standard, subject

QUICK = ["data=digits", "trainer=cpu", "trainer.max_epochs=1", "callbacks.progress_bar=null", "logger=[]"]
RUNS = {
    "grey": ["model=vae"],
    "binary": ["model=vae", "data.binarize=dynamic", "seed=3"],
    "gaussian": ["model=vae", "loss=mse"],
    "iwae": ["model=iwae", "objective.samples=2", "data.binarize=fixed"],
    "ae": ["model=ae"],
    "no_validation": ["model=vae", "data.validation=0"],
}
Trained = Callable[[str], Path]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """The run of a name, trained when it is first asked for."""
    root = tmp_path_factory.mktemp("runs")

    def folder(name: str) -> Path:
        if not (root / name).exists():
            vaelab.train(vaelab.compose([*QUICK, *RUNS[name]]), folder=root / name)
        return root / name

    return folder


def kept(run: Path) -> dict[str, Any]:
    """What the run's one evaluation file holds."""
    (path,) = (run / "evaluation").iterdir()
    content: dict[str, Any] = json.loads(path.read_text())
    return content


def command(*arguments: object) -> int:
    """The exit code of `vaelab evaluate`."""
    with pytest.raises(SystemExit) as end:
        main(["evaluate", *map(str, arguments)])
    assert isinstance(end.value.code, int)
    return end.value.code


@pytest.mark.parametrize("name", ["grey", "binary", "gaussian", "iwae", "ae"])
def test_a_second_call_finds_the_same_bits_and_those_that_training_reports(name: str, trained: Trained) -> None:
    samples = 3 if name in ("binary", "gaussian", "iwae") else None
    reported = json.loads((trained(name) / "metrics.json").read_text())

    found = vaelab.evaluate(trained(name), samples=samples)
    torch.manual_seed(99)

    assert vaelab.evaluate(trained(name), samples=samples) == found
    assert all(math.isfinite(v) for value in found.values() for v in (value if isinstance(value, list) else [value]))
    tested = [key for key in reported if key.startswith("test/")]
    assert {"test/loss", "test/mse"} < set(tested)
    assert {key: found[key] for key in tested} == {key: reported[key] for key in tested}


def test_everything_is_written_with_its_unit_and_what_it_depends_on(trained: Trained, tmp_path: Path) -> None:
    run = shutil.copytree(trained("binary"), tmp_path / "run", ignore=shutil.ignore_patterns("evaluation"))

    found = vaelab.evaluate(run, samples=7)

    content = kept(run)
    assert [path.name for path in (run / "evaluation").iterdir()] == ["test_step11_seed3.json"]
    header = {key: content[key] for key in content if key != "metrics"}
    assert header == {
        "split": "test",
        "images": 200,
        "binarize": "dynamic",
        "normalized_over": "binary",
        "conditional": False,
        "step": 11,
        "seed": 3,
    }
    assert {name: metric["value"] for name, metric in content["metrics"].items()} == found
    assert all(metric["unit"] for metric in content["metrics"].values())
    assert content["metrics"]["test/nll_7"] == {
        "value": found["test/nll_7"],
        "standard_error": pytest.approx(0.2, abs=0.15),
        "unit": "nats per image",
        "samples": 7,
    }
    assert content["metrics"]["test/mutual_information"]["at_most"] == pytest.approx(math.log(200))
    assert content["metrics"]["test/linear_probe_accuracy"]["trained_on"] == 1397
    assert len(content["metrics"]["test/kl_per_dimension"]["value"]) == 20


def test_numbers_are_consistent_with_each_other(trained: Trained) -> None:
    found: Any = vaelab.evaluate(trained("binary"), samples=20)
    model = vaelab.load(trained("binary"))
    data = opened(trained("binary")).experiment.data
    x = data.splits.test.pixels.float() / 255

    # The closed form of the same posteriors; float32 sums of 20 dimensions.
    assert sum(found["test/kl_per_dimension"]) == pytest.approx(found["test/kl"], rel=1e-5)
    assert found["test/elbo"] == pytest.approx(-found["test/reconstruction"] - found["test/kl"], rel=1e-6)
    assert 0 < found["test/nll_20"] < -found["test/elbo"]
    assert found["test/elbo_bits_per_dim"] == pytest.approx(-found["test/elbo"] / 64 / math.log(2))
    assert found["test/nll_20_bits_per_dim"] == pytest.approx(found["test/nll_20"] / 64 / math.log(2))
    with torch.no_grad():
        errors = (model.reconstruct(x) - x).square().flatten(1).mean(1)
        assert found["test/active_units"] == int((model.encode(x).mean.var(0, correction=0) > 0.01).sum())
    assert found["test/mse"] == pytest.approx(errors.mean().item(), rel=1e-5)
    assert found["test/psnr"] == pytest.approx((-10 * errors.log10()).mean().item(), rel=1e-5)


def test_what_another_call_found_is_not_lost(trained: Trained, tmp_path: Path) -> None:
    run = shutil.copytree(trained("binary"), tmp_path / "run", ignore=shutil.ignore_patterns("evaluation"))
    first = vaelab.evaluate(run, samples=5)
    vaelab.evaluate(run, samples=2)

    without = vaelab.evaluate(run)

    assert "test/nll_5" not in without
    metrics = kept(run)["metrics"]
    assert metrics["test/nll_5"]["value"] == first["test/nll_5"]
    assert {"test/nll_2", "test/nll_5"} < set(metrics)
    vaelab.evaluate(run, seed=8)
    vaelab.evaluate(run, split="validation")
    names = {"test_step11_seed3.json", "test_step11_seed8.json", "validation_step11_seed3.json"}
    assert {path.name for path in (run / "evaluation").iterdir()} == names


def test_another_seed_draws_other_noise_and_leaves_what_draws_nothing(trained: Trained) -> None:
    run = trained("binary")

    first, second = vaelab.evaluate(run, samples=2), vaelab.evaluate(run, samples=2, seed=8)

    assert all(first[f"test/{name}"] == second[f"test/{name}"] for name in ("mse", "psnr", "kl_per_dimension"))
    assert all(first[f"test/{name}"] != second[f"test/{name}"] for name in ("elbo", "nll_2", "mutual_information"))


def test_one_image_is_a_split(trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = shutil.copytree(trained("binary"), tmp_path / "run", ignore=shutil.ignore_patterns("evaluation"))
    whole = module.split_images

    def first(data: ImageData, split: str) -> Images:
        return whole(data, split).take(torch.arange(1)) if split == "test" else whole(data, split)

    monkeypatch.setattr(module, "split_images", first)

    found: Any = vaelab.evaluate(run, samples=3)

    content = kept(run)
    assert content["images"] == 1
    assert content["metrics"]["test/nll_3"]["standard_error"] == "nan"
    assert found["test/active_units"] == 0
    assert found["test/mutual_information"] == pytest.approx(0, abs=1e-5)
    assert found["test/linear_probe_accuracy"] in (0, 1)
    assert not any("cluster" in name for name in found)


@pytest.mark.parametrize("name", ["ae", "gaussian"])
def test_a_smaller_last_batch_counts_by_its_images(
    name: str, trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole: Any = vaelab.evaluate(trained(name))
    monkeypatch.setattr(subject, "rows_at_once", lambda shape: 77)  # of 200 images

    parts: Any = vaelab.evaluate(trained(name))

    exact = ["mse", "psnr"] + (["loss"] if name == "ae" else ["kl", "kl_per_dimension", "active_units"])
    for metric in exact:
        assert parts[f"test/{metric}"] == pytest.approx(whole[f"test/{metric}"], rel=1e-5)


def test_validation_and_training_images_are_evaluated_under_their_names(trained: Trained) -> None:
    validation: Any = vaelab.evaluate(trained("binary"), split="validation")
    train: Any = vaelab.evaluate(trained("binary"), split="train")

    assert validation["val/elbo"] < 0
    assert 0 < validation["val/linear_probe_accuracy"] <= 1
    assert train["train/elbo"] < 0
    assert "train/linear_probe_accuracy" not in train  # it would be tested on what it was trained on
    assert "train/cluster_nmi" in train


def test_dynamic_binarization_is_one_draw_that_the_runs_seed_does_not_change(trained: Trained) -> None:
    data = opened(trained("binary")).experiment.data

    drawn = [module.split_images(data, "train").pixels for _ in range(2)]

    assert drawn[0].equal(drawn[1])
    assert likelihood.is_binary(drawn[0])
    assert not likelihood.is_binary(data.splits.train.pixels)


def test_large_splits_are_cut_to_a_draw_where_the_cost_grows_faster(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = shutil.copytree(trained("gaussian"), tmp_path / "run", ignore=shutil.ignore_patterns("evaluation"))
    monkeypatch.setattr(standard, "MOST", 50)
    monkeypatch.setattr(subject, "MOST", 50)

    vaelab.evaluate(run)

    metrics = kept(run)["metrics"]
    assert metrics["test/mutual_information"]["images"] == metrics["test/cluster_nmi"]["images"] == 50
    assert metrics["test/linear_probe_accuracy"]["trained_on"] == 50
    assert metrics["test/mutual_information"]["at_most"] == pytest.approx(math.log(50))


def test_grey_pixels_get_no_likelihood_of_a_bernoulli(trained: Trained, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(trained("grey"), "--samples", 10) == 2
    refusal = capsys.readouterr()
    assert "samples=10: the Bernoulli is no likelihood of grey pixels" in refusal.err
    assert "data.binarize=dynamic" in refusal.err

    assert command(trained("grey")) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "not computed: test/elbo_bits_per_dim, test/nll: the Bernoulli is no likelihood of grey pixels" in shown
    assert "test/elbo" in kept(trained("grey"))["metrics"]


def test_a_density_has_a_likelihood_but_no_bits(trained: Trained) -> None:
    evaluation = evaluation_of(trained("gaussian"), Wanted(samples=4), split="test", seed=None, trust=[])

    assert "test/nll_4" in evaluation.found.metrics
    assert "continuous" in evaluation.omitted["test/nll_4_bits_per_dim"]


def test_images_too_small_for_ssim_say_so_and_others_have_it(trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    evaluation = evaluation_of(trained("gaussian"), Wanted(), split="test", seed=None, trust=[])
    assert "8 x 8 pixels are smaller" in evaluation.omitted["test/ssim"]

    monkeypatch.setattr(images, "ssim", lambda a, b: torch.full((len(a),), 0.25))
    assert vaelab.evaluate(trained("gaussian"))["test/ssim"] == 0.25


def test_a_plain_autoencoder_gets_what_needs_no_density(trained: Trained, capsys: pytest.CaptureFixture[str]) -> None:
    found = vaelab.evaluate(trained("ae"))
    assert {"test/mse", "test/psnr", "test/linear_probe_accuracy", "test/cluster_ari"} < set(found)
    assert not {"test/elbo", "test/kl_per_dimension", "test/mutual_information", "test/active_units"} & set(found)

    assert command(trained("ae"), "--samples", 10) == 2
    assert "a plain autoencoder" in capsys.readouterr().err


def test_the_table_shows_values_errors_units_and_the_file(trained: Trained, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(trained("binary"), "--samples", 4) == 0

    shown = capsys.readouterr().out
    metrics = json.loads((trained("binary") / "evaluation" / "test_step11_seed3.json").read_text())["metrics"]
    for name in ("test/elbo", "test/nll_4", "test/psnr"):
        (line,) = (line for line in shown.splitlines() if line.split()[:1] == [name])
        assert f"{metrics[name]['value']:.6g}" in line
    assert "nats per image" in shown
    assert "test_step11_seed3.json" in shown


MISTAKES = {
    "no run": (["nowhere"], "nowhere is not a run folder"),
    "no checkpoint file": (["nowhere/last.ckpt"], "there is no checkpoint nowhere/last.ckpt"),
    "no samples": (["{binary}", "--samples", "0"], "samples=0: the importance-weighted log-likelihood needs one"),
    "negative samples": (["{binary}", "--samples", "-5"], "samples=-5"),
    "no such split": (["{binary}", "--split", "tset"], "--split tset: there is no such split; did you mean test?"),
    "an empty split": (["{no_validation}", "--split", "validation"], "have no validation images"),
    "a negative seed": (["{binary}", "--seed", "-1"], "--seed"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_clear_message(
    mistake: str, trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments, message = MISTAKES[mistake]
    paths = {name: trained(name) for name in ("binary", "no_validation") if any(name in word for word in arguments)}
    monkeypatch.chdir(tmp_path)

    assert command(*(word.format(**paths) for word in arguments)) == 2

    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_run_without_a_checkpoint_says_so(
    trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = shutil.copytree(trained("binary"), tmp_path / "run", ignore=shutil.ignore_patterns("checkpoints"))

    assert command(run) == 2

    assert "has no checkpoint" in capsys.readouterr().err


def test_a_folder_that_takes_no_files_is_said_in_one_line(
    trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = shutil.copytree(trained("ae"), tmp_path / "run", ignore=shutil.ignore_patterns("evaluation"))
    (run / "evaluation").write_text("in the way")

    assert command(run) == 2  # the disk is not full

    (line,) = capsys.readouterr().err.splitlines()
    assert "cannot be written" in line


def test_a_checkpoint_of_a_run_is_evaluated_by_its_step(trained: Trained) -> None:
    run = trained("binary")

    assert vaelab.evaluate(run / "checkpoints" / "last.ckpt") == vaelab.evaluate(run)


@pytest.mark.slow
def test_ctrl_c_keeps_what_is_finished_and_says_where(trained: Trained, tmp_path: Path) -> None:
    run = shutil.copytree(trained("binary"), tmp_path / "run", ignore=shutil.ignore_patterns("evaluation"))
    path, output = run / "evaluation" / "test_step11_seed3.json", tmp_path / "output"
    process = start("evaluate", run, "--samples", "10000000", output=output)
    while process.is_alive() and not (path.is_file() and "cluster_accuracy" in path.read_text()):
        time.sleep(0.05)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGINT)

    assert finish(process) == 130
    errors = output.read_text()
    assert f"interrupted: finished metrics are in {path}" in errors
    assert "Traceback" not in errors
    assert {"test/elbo", "test/psnr", "test/cluster_accuracy"} < set(json.loads(path.read_text())["metrics"])


@pytest.mark.slow
def test_evaluating_does_not_wait_for_lightning(trained: Trained) -> None:
    script = (
        f"import sys, vaelab\nvaelab.evaluate({str(trained('gaussian'))!r})\nprint('pytorch_lightning' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=300, check=True)
    assert result.stdout.split() == ["False"]
