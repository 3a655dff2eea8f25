"""Priors fitted afterwards: runs of the same model, whose prior alone is trained."""

import json
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import torch

import vaelab
from vaelab.cli.main import main
from vaelab.config.conf import options
from vaelab.report.runs import find_runs
from vaelab.runs.locate import prior_of
from vaelab.runs.priors import fit
from vaelab.training.reading import read

SMALL = ["data=digits", "trainer.max_epochs=2", "trainer.limit_train_batches=2", "callbacks.progress_bar=null"]
QUICK = ["trainer.max_epochs=2", "trainer.limit_train_batches=2", "callbacks.progress_bar=null"]
OF = {
    "vae": ["model=vae", "loss=mse", "latent_dim=3", "encoder.hidden=[16]", "decoder.hidden=[16]"],
    "ae": ["model=ae", "latent_dim=3", "encoder.hidden=[16]", "decoder.hidden=[16]"],
    "vq_vae": ["model=vq_vae", "latent_dim=4", "posterior.codebook_size=8", "encoder.channels=[8,8]",
               "decoder.channels=[8,8]", "encoder.blocks=0", "decoder.blocks=0"],
}  # fmt: skip
SMALLER = {
    "mixture": ["prior.components=[2,4]"],
    "flow": ["prior.hidden=[8]", "prior.transforms=2"],
    "second_vae": ["prior.hidden=[8]"],
    "knn": ["prior.codes=300"],
    "transformer": ["prior.width=16", "prior.layers=2", "prior.conditional=true"],
}
Trained = Callable[[str], Path]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    @cache
    def folder(name: str) -> Path:
        run = tmp_path_factory.mktemp("runs") / name
        return vaelab.train(vaelab.compose([*SMALL, *OF[name]]), folder=run).folder

    return folder


def fitted(run: Path, prior: str, *more: str) -> Path:
    return fit(run, [f"prior={prior}", *SMALLER[prior], *QUICK, *more]).folder


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """What a command says that ends with 2."""
    with pytest.raises(SystemExit) as end:
        main([str(argument) for argument in arguments])
    said = capsys.readouterr().err
    assert end.value.code == 2, said
    assert said.count("error: ") == len(said.strip().splitlines()) == 1, said
    return said


@pytest.mark.parametrize("prior", options("fit"))
def test_a_fitted_prior_is_a_run_with_the_frozen_weights_of_the_first(prior: str, trained: Trained) -> None:
    run = trained("vq_vae" if prior == "transformer" else "vae")
    folder = fitted(run, prior)

    assert folder.parent == run / "priors"
    assert folder.name.partition("-")[0] == prior
    of_run, of_prior = (read(each / "checkpoints" / "best.ckpt")["state_dict"] for each in (run, folder))
    shared = {name for name in of_run if ".prior." not in name}
    assert shared == {name for name in of_prior if ".prior." not in name}
    assert all(torch.equal(of_run[name], of_prior[name]) for name in shared)
    started, ended = (read(folder / "checkpoints" / name)["state_dict"] for name in ("previous.ckpt", "last.ckpt"))
    assert any(not started[name].equal(ended[name]) for name in started if ".prior." in name)
    metrics = json.loads((folder / "metrics.json").read_text())
    if prior == "transformer":
        assert metrics["test/kl"] == pytest.approx(metrics["test/nats_per_code"] * 4, rel=1e-6)
        assert metrics["test/elbo"] == pytest.approx(-(metrics["test/kl"] + metrics["test/reconstruction"]), rel=1e-6)
        assert metrics["test/uniform_nats_per_code"] == pytest.approx(2.0794415)
    else:
        assert metrics["test/elbo"] == pytest.approx(-(metrics["test/kl"] + metrics["test/reconstruction"]), rel=1e-6)


def test_it_is_resumed_to_the_same_bits_and_reproduced(trained: Trained, tmp_path: Path) -> None:
    folder = fitted(trained("vae"), "mixture", "name=exact")
    stopped = tmp_path / "stopped"
    shutil.copytree(folder, stopped)
    checkpoints = stopped / "checkpoints"
    shutil.copy(checkpoints / "previous.ckpt", checkpoints / "last.ckpt")
    (stopped / "status.json").write_text('{"state": "interrupted"}')
    (stopped / "metrics.json").unlink()

    resumed = vaelab.resume(stopped)

    assert resumed.metrics == json.loads((folder / "metrics.json").read_text())
    assert vaelab.reproduce(folder, folder=tmp_path / "again").identical


@pytest.mark.slow
def test_commands_take_a_prior_by_its_name(
    trained: Trained, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    run = trained("vae")
    folder = fitted(run, "flow", "name=another")
    ordinary = vaelab.evaluate(run, samples=20)
    with pytest.raises(SystemExit) as end:
        main(["evaluate", str(run), "--prior", "another", "--samples", "20"])
    assert not end.value.code
    (kept,) = (folder / "evaluation").iterdir()
    found = {name: value["value"] for name, value in json.loads(kept.read_text())["metrics"].items()}

    assert found == vaelab.evaluate(folder, samples=20) | found
    assert found["test/nll_20"] != ordinary["test/nll_20"]
    assert found["test/mse"] == ordinary["test/mse"]
    with pytest.raises(SystemExit) as end:
        main(["sample", str(run), "--prior", "another", "-o", str(tmp_path / "a.png")])
    assert not end.value.code
    assert (tmp_path / "a.png").is_file()
    reported = [each.name for each in find_runs([run])]
    assert run.name in reported
    assert "priors/another" in reported
    assert "there are another" in refused(capsys, "sample", run, "--prior", "flw").replace("exact, ", "")
    assert "no such prior" in refused(capsys, "sample", run, "--prior", "../../vae")


@pytest.mark.slow
def test_a_sweep_of_priors_is_in_the_runs_folder(trained: Trained) -> None:
    run = trained("ae")
    with pytest.raises(SystemExit) as end:
        main(["fit", str(run), "-m", "prior=flow,knn", "seed=0", *QUICK])
    assert not end.value.code
    (sweep,) = (path for path in (run / "priors").iterdir() if (path / "sweep.json").exists())
    jobs = sorted(path.name for path in sweep.iterdir() if (path / "metrics.json").exists())
    assert jobs == ["0_fit=flow", "1_fit=knn"]
    assert prior_of(run, f"{sweep.name}/{jobs[0]}").is_dir()


def test_what_cannot_be_fitted_is_said_in_one_line(trained: Trained, capsys: pytest.CaptureFixture[str]) -> None:
    vae, vq = trained("vae"), trained("vq_vae")
    before = sorted(vae.rglob("*"))
    assert "say which prior: prior=flow" in refused(capsys, "fit", vae)
    assert "did you mean flow?" in refused(capsys, "fit", vae, "prior=flo")
    assert "has no componnts" in refused(capsys, "fit", vae, "prior=mixture", "prior.componnts=3")
    assert "is fitted to the model of" in refused(capsys, "fit", vae, "prior=flow", "encoder.hidden=[3]")
    assert "is fitted to the model of" in refused(capsys, "fit", vae, "prior=flow", "data=mnist")
    assert "the prior needs 9,000 codes to begin at, and there are 1,397 training images" in refused(
        capsys, "fit", vae, "prior=mixture", "prior.components=9000"
    )
    assert "posterior=gaussian are continuous" in refused(capsys, "fit", vae, "prior=transformer")
    assert "prior=code_transformer would fit" in refused(capsys, "fit", vq, "prior=mixture")
    assert "of a transformer over codes" in refused(capsys, "sample", vae, "--temperature", "0.5")
    assert sorted(vae.rglob("*")) == before


def test_a_run_that_is_not_done_is_refused(
    trained: Trained, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    shutil.copytree(trained("vae"), tmp_path / "run", ignore=shutil.ignore_patterns("priors"))
    (tmp_path / "run" / "status.json").write_text('{"state": "interrupted"}')
    assert "is not done: a prior is fitted to a trained model" in refused(capsys, "fit", tmp_path / "run", "prior=flow")
    assert "is not a run folder" in refused(capsys, "fit", tmp_path, "prior=flow")


def test_a_run_begins_with_some_parts_of_another_and_leaves_the_frozen_ones(trained: Trained, tmp_path: Path) -> None:
    first = trained("vae")
    words = [*SMALL, *OF["vae"], f"init={first}", "init.parts=[decoder]", "frozen=[decoder]", "seed=3"]
    folder = vaelab.train(vaelab.compose(words), folder=tmp_path / "run").folder
    one, other = (read(each / "checkpoints" / "last.ckpt")["state_dict"] for each in (first, folder))

    best = read(first / "checkpoints" / "best.ckpt")["state_dict"]
    assert all(best[name].equal(other[name]) for name in other if ".decoder." in name)
    assert not any(one[name].equal(other[name]) for name in other if ".encoder." in name and "weight" in name)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["latent_dim=4"], "posterior.mean_and_log_variance.weight has the shape (6, 16), and in this model (8, 16)"),
        (["init.parts=[decoder]", "decoder.hidden=[8]"], "decoder.layers.0.weight has the shape (16, 3)"),
        (["init.parts=[decoder]", "decoder.hidden=[16,16]"], "has the shape"),
        (["init.parts=[decodr]"], "should be 'encoder', 'posterior', 'decoder', 'likelihood' or 'prior'"),
        (["model=ae", "init.parts=[prior]"], "init.parts or frozen name the prior, and this model has none"),
        (["init=null", "init.parts=[decoder]"], "init.run names none"),
        (["frozen=[encodr]"], "should be 'encoder', 'posterior', 'decoder', 'likelihood' or 'prior'"),
        (["init=nowhere"], "nowhere is not a run folder"),
    ],
    ids=str,
)
def test_weights_that_do_not_fit_are_said_in_one_line(
    words: list[str], message: str, trained: Trained, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    said = refused(capsys, "train", *SMALL, *OF["vae"], f"init={trained('vae')}", *words, f"hydra.run.dir={run}")
    assert message in said
    assert not run.exists()
