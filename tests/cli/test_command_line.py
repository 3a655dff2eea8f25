"""The command line as a user meets it: real processes, their output, exit codes and files."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

import vaelab
from processes import command, in_one_interpreter
from vaelab.__main__ import main as entry
from vaelab.cli.main import main

QUICK = ["data=digits", "trainer.max_epochs=1", "trainer.accelerator=cpu"]


@pytest.mark.slow
def test_train_prints_the_metrics_and_where_they_are(tmp_path: Path) -> None:
    result = command("train", *QUICK, "latent_dim=3", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    (folder,) = (tmp_path / "outputs" / "runs").iterdir()
    assert folder.name.endswith("_vae")
    assert str(folder.relative_to(tmp_path)) in result.stdout
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["test/elbo"] == pytest.approx(-metrics["test/reconstruction"] - metrics["test/kl"])
    assert f"{metrics['test/elbo']:.6g}" in result.stdout
    names = {path.name for path in folder.iterdir()}
    assert names >= {
        "config.yaml",
        "manifest.json",
        "status.json",
        "metrics.json",
        "checkpoints",
        "figures",
        "tensorboard",
        "train.log",
    }
    assert {path.name for path in (folder / "checkpoints").iterdir()} >= {"best.ckpt", "last.ckpt"}
    assert {path.name for path in (folder / "figures").iterdir()} == {"reconstructions.png", "samples.png"}


def test_a_plain_autoencoder_draws_no_samples(tmp_path: Path) -> None:
    result = command("train", "model=ae", *QUICK, "hydra.run.dir=here", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert {path.name for path in (tmp_path / "here" / "figures").iterdir()} == {"reconstructions.png"}


@pytest.mark.slow
def test_python_and_the_command_line_get_the_same_numbers(tmp_path: Path) -> None:
    assert command("train", *QUICK, "hydra.run.dir=cli", cwd=tmp_path).returncode == 0
    trained = vaelab.train(vaelab.compose([*QUICK, "callbacks.progress_bar=null"]), folder=tmp_path / "python")
    assert json.loads((tmp_path / "cli" / "metrics.json").read_text()) == trained.metrics
    test_metrics = {name: value for name, value in trained.metrics.items() if name.startswith("test/")}
    evaluated = vaelab.evaluate(trained)
    assert evaluated == vaelab.evaluate(tmp_path / "cli")
    assert test_metrics.items() <= {name: evaluated.get(name) for name in test_metrics}.items()
    model = vaelab.load(tmp_path / "cli")
    assert all(part in str(model) for part in ("encoder", "posterior", "decoder", "likelihood", "prior"))
    images = torch.rand(5, 1, 8, 8)
    assert model.reconstruct(images).shape == images.shape
    assert model.sample(7).shape == (7, 1, 8, 8)


@pytest.mark.slow
def test_a_resolved_config_is_enough_to_run_again(tmp_path: Path) -> None:
    from omegaconf import OmegaConf

    config = vaelab.compose([*QUICK, "callbacks.progress_bar=null", "model=iwae", "seed=3"])
    first = vaelab.train(config, folder=tmp_path / "first")
    again = vaelab.train(OmegaConf.load(first.folder / "config.yaml"), folder=tmp_path / "again")  # type: ignore[arg-type]
    assert again.metrics == first.metrics


def test_evaluate_prints_the_numbers_of_metrics_json(tmp_path: Path) -> None:
    assert command("train", *QUICK, "hydra.run.dir=here", cwd=tmp_path).returncode == 0
    result = command("evaluate", "here", cwd=tmp_path)
    metrics = json.loads((tmp_path / "here" / "metrics.json").read_text())
    assert result.returncode == 0
    assert f"{metrics['test/elbo']:.6g}" in result.stdout
    result = command("evaluate", "nowhere", cwd=tmp_path)
    assert result.returncode == 2
    assert "nowhere is not a run folder" in result.stderr


@pytest.mark.slow
def test_multirun_runs_each_combination_into_one_sweep_folder(tmp_path: Path) -> None:
    quick = ["experiment=quickstart", "data=digits", "encoder=mlp", "decoder=mlp", "trainer.max_epochs=1"]
    result = command("train", "-m", "model=ae,vae", "latent_dim=2,8", *quick, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    (folder,) = (tmp_path / "outputs" / "sweeps").iterdir()
    assert str(folder.relative_to(tmp_path)) in result.stdout
    jobs = sorted(path for path in folder.iterdir() if path.is_dir())
    assert [job.name for job in jobs] == [
        "0_model=ae,latent_dim=2",
        "1_model=ae,latent_dim=8",
        "2_model=vae,latent_dim=2",
        "3_model=vae,latent_dim=8",
    ]
    assert [json.loads((job / "status.json").read_text())["state"] for job in jobs] == ["done"] * 4
    assert ["test/elbo" in json.loads((job / "metrics.json").read_text()) for job in jobs] == [False, False, True, True]
    made_of = json.loads((jobs[3] / "manifest.json").read_text())
    assert {"model=vae", "latent_dim=8", "experiment=quickstart"} < set(made_of["overrides"])
    # What ran before in the same process leaves no trace.
    alone = [*quick, "model=vae", "latent_dim=8", "hydra.run.dir=alone"]
    assert command("train", *alone, cwd=tmp_path).returncode == 0
    expected = json.loads((tmp_path / "alone" / "metrics.json").read_text())
    assert json.loads((jobs[3] / "metrics.json").read_text()) == pytest.approx(expected, rel=1e-5)


@pytest.mark.slow
def test_hydras_folders_are_honoured(tmp_path: Path) -> None:
    quick = ["trainer=debug", "data=digits"]
    assert command("train", *quick, "hydra.run.dir=a/b", cwd=tmp_path).returncode == 0
    assert (tmp_path / "a" / "b" / "metrics.json").is_file()
    sweep = ["seed=1,2", "hydra.sweep.dir=c", "hydra.sweep.subdir=seed${seed}"]
    assert command("train", "-m", *quick, *sweep, cwd=tmp_path).returncode == 0
    assert {path.name for path in (tmp_path / "c").iterdir() if path.is_dir()} == {"seed1", "seed2"}
    assert not (tmp_path / "outputs").exists()


def test_a_run_folder_is_never_overwritten(tmp_path: Path) -> None:
    arguments = ["train", "trainer=debug", "data=digits", "hydra.run.dir=here"]
    assert command(*arguments, cwd=tmp_path).returncode == 0
    before = (tmp_path / "here" / "metrics.json").stat()
    result = command(*arguments, cwd=tmp_path)
    assert result.returncode == 2
    assert "never overwrites" in result.stderr
    assert (tmp_path / "here" / "metrics.json").stat() == before


MISTAKES = {
    "model=vea": ["model=vea", "did you mean vae?"],
    "latent_dim=-3": ["latent_dim=-3", "greater than 0"],
    "optimzer.lr=1": ["optimzer", "did you mean optimizer.lr?"],
    "optimizer.lrr=1": ["optimizer has no lrr", "did you mean lr?"],
    "optimizer.lr=-1": ["optimizer.lr=-1", "greater than or equal to 0"],
    "data.root=no_such_folder": ["no_such_folder", "data.root", "data=mnist_5k"],
    "model=ae objective=elbo": ["the term kl", "posterior=deterministic", "infinite"],
    "model=ae objective.kl_weight=2": ["objective has no kl_weight"],
    "data.binarize=fixd": ["data.binarize=fixd", "'none', 'fixed' or 'dynamic'", "did you mean fixed?"],
    "trainer.precision=bf16": ["trainer.precision=bf16", "'bf16-mixed'"],
    "encoder.activation=rellu": ["encoder.activation=rellu", "did you mean relu?"],
    "objective.kl_weight=abc": ["objective.kl_weight=abc", "number"],
    "+encoder.foo=1": ["encoder.foo", "has no foo", "hidden"],
    "+foo=1": ["foo: there is no foo"],
    "~prior": ["the term kl", "needs a prior"],
    "prior=null": ["~prior"],
    "latent_dim": ["latent_dim", "key=value"],
    "seed=1,2": ["seed=1,2", "--multirun"],
    "encoder=conv encoder.channels=[1,2,3,4,5]": ["28 x 28", "at most 4"],
    "encoder._target_=os.system": ["os.system", "--trust"],
    "name=../out": ["name=../out"],
    "data.validation=0 callbacks=early_stopping": ["early_stopping", "data.validation=0"],
    "model=vea latent_dim=-3 optimzer.lr=1": ["did you mean vae?", "did you mean optimizer.lr?"],
    "latent_dim=-3 data.batch_size=0 encoder.hidden=[4,x]": [
        "latent_dim=-3",
        "data.batch_size=0",
        "encoder.hidden[1]=x",
    ],
    "-m latent_dim=2,-3 model=ae,vea": ["latent_dim=-3", "did you mean vae?"],
    "latent_dim=1000000000000": ["the model's weights and gradients take", "GB of memory", "latent_dim"],
    "data=digits encoder.hidden=[1000000000]": ["GB of memory", "encoder.layers"],
    "latent_dim=99999999999999999999999999": ["the model cannot be made"],
    "latent_dim=${nothing}": ["latent_dim:", "nothing", "not found"],
    "hydra.run.dir=${nothing}": ["hydra.run.dir", "nothing"],
    "+hydra.foo=1": ["hydra.foo", "hydra.run.dir"],
    "+model.foo=1": ["model.foo", "model is not part of this config"],
    "~data._target_": ["data=", "should be a part"],
    "+callbacks.x=5": ["callbacks.x=5", "_target_"],
    "~logger": ["logger=[]"],
    "logger=null": ["logger=[]"],
    "+@=": ["names no key"],
    "encoder.hidden={a:1}": ["encoder.hidden={a:1}", "Cannot merge"],
    "+schedule@objective.free_bits=linear": ["objective.free_bits", "does not fit there"],
    "encoder._target_=vaelab.models.networks.MLPDecoder": [
        "not a part that fits there",
        "vaelab.models.networks.MLPEncoder",
    ],
    "hydra.searchpath=[nope]": ["nope is not a folder"],
    "data.root=http://x/y": ["data.root=http://x/y", "not an address"],
    "data=digits data.test=-1": ["data.test=-1", "greater than or equal to 0"],
    "data=digits data.batch_size=2000": ["data.batch_size=2000", "1397 images"],
    "data=digits trainer.limit_train_batches=0.01": ["limit_train_batches=0.01", "11 batches"],
    "data=digits trainer.limit_val_batches=0 callbacks=early_stopping": ["early_stopping", "limit_val_batches=0"],
    "data=digits trainer.accelerator=cpu trainer.devices=1000": ["trainer.devices=1000", "cores"],
    "data=digits encoder.normalization=batch data.batch_size=349": [
        "batch_size=349",
        "1 of 1397",
        "normalization=layer",
    ],
    "--config-dir missing": ["missing", "no such folder"],
    "data=digits threads=100000": ["threads=100000", "less than or equal to 1024"],
    "data=digits trainer=cpu trainer.precision=16-mixed": ["trainer.precision=16-mixed needs a GPU", "bf16-mixed"],
    "data=digits trainer.accelerator=tpu": ["trainer:", "trainer.accelerator=auto"],
}


@pytest.mark.parametrize("overrides", MISTAKES)
def test_a_mistake_is_one_clear_message_and_writes_nothing(
    overrides: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["vaelab", "train", *overrides.split()])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2
    errors = capsys.readouterr().err
    assert all(words in errors for words in MISTAKES[overrides]), errors
    assert all(line.startswith("error: ") for line in errors.splitlines())
    assert not list(tmp_path.iterdir())


def test_a_file_of_config_that_is_no_yaml_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine" / "model").mkdir(parents=True)
    (tmp_path / "mine" / "model" / "broken.yaml").write_text("a: [1,")
    with pytest.raises(SystemExit) as end:
        main(["train", "--config-dir", "mine", "model=broken"])
    assert end.value.code == 2
    assert "broken.yaml" in capsys.readouterr().err


def test_a_monitor_that_nothing_logs_is_named(tmp_path: Path) -> None:
    for monitor in ("callbacks.checkpoints.monitor=val/los", "callbacks.early_stopping.monitor=val/los"):
        arguments = ["data=digits", "trainer=debug", "callbacks=early_stopping", "callbacks.progress_bar=null", monitor]
        with pytest.raises(vaelab.ConfigError, match="did you mean val/loss"):
            vaelab.train(vaelab.compose(arguments), folder=tmp_path / monitor)


def test_more_memory_than_there_is_ends_a_run_in_one_line(tmp_path: Path) -> None:
    arguments = ["data=digits", "trainer=debug", "model=iwae", "objective.samples=10000000000"]
    with pytest.raises(vaelab.RunError, match="not enough memory"):
        vaelab.train(vaelab.compose(arguments), folder=tmp_path / "run")


@pytest.mark.parametrize("precision", ["64-true", "bf16-true"])
def test_a_model_of_another_precision_is_drawn(precision: str, tmp_path: Path) -> None:
    config = vaelab.compose(["data=digits", "trainer=debug", f"trainer.precision={precision}"])
    assert len(vaelab.train(config, folder=tmp_path / "run").figures) == 2


def test_a_mistake_ends_a_real_process_with_2_and_no_traceback(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "vaelab", "train", "model=vea", "latent_dim=-3"]
    result = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 2
    assert result.stderr == "error: model=vea: no such option; did you mean vae?\n"


def test_windows_is_refused_in_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    with pytest.raises(SystemExit) as end:
        entry()
    assert end.value.code == 2
    assert capsys.readouterr().err == "error: vaelab runs on Linux and macOS; on Windows, use WSL\n"


BLOWUP = """
import torch
import yaml
from vaelab.losses import Objective

class OnceTrained(Objective):
    def forward(self, step):
        reconstruction = -step.p_x.log_prob(step.x).mean()
        return {"loss": reconstruction * (1 if step.training else float("VALUE")), "reconstruction": reconstruction}
"""


@pytest.mark.parametrize(
    ("validation", "value", "words"), [(0, "nan", "test/loss is nan"), (200, "inf", "val/loss is inf")]
)
def test_a_loss_that_goes_wrong_in_evaluation_alone_ends_the_run_with_3_and_reaches_no_metrics(
    validation: int,
    value: str,
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    package = f"blowup_{value}"
    (tmp_path / f"{package}.py").write_text(BLOWUP.replace("VALUE", value))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    arguments = ["model=ae", "data=digits", "trainer=debug", f"data.validation={validation}", "hydra.run.dir=run"]
    arguments += [f"objective._target_={package}.OnceTrained", "callbacks.checkpoints.every_n_steps=1"]
    with pytest.raises(SystemExit) as end:
        main(["train", "--trust", package, *arguments])
    assert end.value.code == 3
    assert f"{words} at step 2" in capsys.readouterr().err
    assert not (tmp_path / "run" / "metrics.json").exists()
    assert vaelab.load(tmp_path / "run", trust=[package]).encoder is not None
    status = json.loads((tmp_path / "run" / "status.json").read_text())
    assert status["state"] == "failed"
    assert words in status["error"]


def test_a_multirun_looks_for_data_before_the_first_job(tmp_path: Path) -> None:
    result = command("train", "-m", "seed=1,2", "data.root=no_such_folder", cwd=tmp_path)
    assert result.returncode == 2
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: MNIST in ")
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU to give")
def test_a_gpu_that_is_not_there_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    result = command("train", "trainer=gpu", "data=digits", cwd=tmp_path)
    assert result.returncode == 2
    assert "trainer: " in result.stderr
    assert "Traceback" not in result.stderr
    assert not list(tmp_path.iterdir())


def test_help_and_a_misspelt_key_do_not_wait_for_torch(tmp_path: Path) -> None:
    mistakes = [["train", words] for words in ("model=vea", "optimizer.lrr=1", "optimzer=adam", "+foo=1")]
    packages = ["torch", "pytorch_lightning", "matplotlib", "sklearn"]
    ended = in_one_interpreter([["--help"], ["train", "--help"], *mistakes], packages, tmp_path)
    assert ended == [["0"], ["0"], *[["2"]] * 4]


@pytest.mark.slow
def test_a_wrong_value_does_not_wait_for_lightning(tmp_path: Path) -> None:
    mistakes = ["latent_dim=-1", "trainer.max_epochs=x", "callbacks.checkpoints.monitor=3", "model=ae objective=elbo"]
    commands = [["train", *words.split()] for words in mistakes]
    assert in_one_interpreter(commands, ["pytorch_lightning", "torchvision"], tmp_path) == [["2"]] * 4


@pytest.mark.slow
def test_the_first_step_does_not_wait_for_what_comes_after_it(tmp_path: Path) -> None:
    """What draws, what reads other datasets, and loggers that were not asked for are imported when they are needed."""
    late = ["mlxtend", "wandb", "mlflow", "matplotlib.backends.backend_agg"]
    late += ["pytorch_optimizer", "ray", "submitit", "vaelab.sweeps.sweep"]
    script = (
        "import sys, os\n"
        "from vaelab.training.module import AutoencoderModule\n"
        "def first(self, *arguments):\n"
        f"    print([m for m in {late} if m in sys.modules], flush=True); os._exit(0)\n"
        "AutoencoderModule.on_before_optimizer_step = first\n"
        "from vaelab.cli.main import main; main()"
    )
    arguments = ["train", *QUICK, "logger=tensorboard"]
    result = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, cwd=tmp_path)
    assert result.stdout.splitlines()[-1] == "[]", result.stderr


@pytest.mark.slow
def test_two_processes_see_the_losses_of_one(tmp_path: Path) -> None:
    """At the same global batch, with the same noise; an epoch's last batch has one image, so one process has none."""
    arguments = [
        "train",
        "model=iwae",
        "objective.samples=2",
        *QUICK,
        "data.batch_size=349",
        "trainer.max_epochs=3",
        "trainer.log_every_n_steps=1",
    ]
    assert command(*arguments, "logger=csv", "hydra.run.dir=one", cwd=tmp_path).returncode == 0
    result = command(*arguments, "logger=csv", "trainer=ddp", "hydra.run.dir=two", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    one, two = (
        [
            [float(cell or "nan") for name, cell in row.items() if name != "train/images_per_second"]
            for row in csv.DictReader((tmp_path / name / "csv" / "metrics.csv").read_text().splitlines())
        ]
        for name in ("one", "two")
    )
    assert len(one) == len(two) > 15
    torch.testing.assert_close(torch.tensor(two), torch.tensor(one), rtol=1e-5, atol=1e-5, equal_nan=True)
    assert {path.name for path in tmp_path.iterdir()} == {"one", "two"}


def test_ctrl_c_while_the_command_is_imported_ends_it_quietly():
    script = (
        "import sys\n"
        "class Interrupting:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'typer':\n"
        "            raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Interrupting())\n"
        "from vaelab.__main__ import main\n"
        "main()\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)

    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def test_hydras_ways_to_look_at_a_config_print_it_and_write_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    said = {}
    for words in ["--cfg job", "--cfg job --resolve", "--cfg hydra", "--info defaults", "--info defaults-tree"]:
        with pytest.raises(SystemExit) as end:
            main(["train", "data=digits", *words.split()])
        assert not end.value.code
        said[words] = capsys.readouterr().out
    assert yaml.safe_load(said["--cfg job"]) == yaml.safe_load(said["--cfg job --resolve"])
    assert yaml.safe_load(said["--cfg job"])["data"]["test"] == 200
    assert set(yaml.safe_load(said["--cfg hydra"])) == {"hydra"}
    assert "data/digits @ data" in said["--info defaults"]
    assert "    data: digits" in said["--info defaults-tree"].splitlines()
    assert not list(tmp_path.iterdir())


def test_show_prints_what_training_would_take_and_refuses_what_it_would_refuse(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as end:
        main(["train", "data=digits", "latent_dim=-1", "--show"])
    assert end.value.code == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "latent_dim=-1" in printed.err
    with pytest.raises(SystemExit) as end:
        main(["train", "data=digits", "--show"])
    assert not end.value.code
    assert yaml.safe_load(capsys.readouterr().out)["latent_dim"] == 20


@pytest.mark.parametrize(
    ("words", "position", "found"),
    [
        ("vaelab train model=vamp", 2, ["model=vamp_vae"]),
        ("vaelab train model = vamp", 4, ["vamp_vae"]),  # as bash splits it
        ("vaelab train hydra/lau", 2, ["hydra/launcher="]),
        ("vaelab train optimizer.weig", 2, ["optimizer.weight_decay="]),
        ("vaelab train --conf", 2, ["--config-dir"]),
    ],
)
def test_a_shell_completes_groups_options_and_keys(
    words: str, position: int, found: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("_VAELAB_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", words)
    monkeypatch.setenv("COMP_CWORD", str(position))
    with pytest.raises(SystemExit):
        main([])
    assert capsys.readouterr().out.split() == found


@pytest.mark.parametrize("prefix", ["", "+", "++"])
def test_a_run_folder_that_was_typed_is_exact_however_it_was(
    prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "something").touch()
    with pytest.raises(SystemExit) as end:
        main(["train", "data=digits", f"{prefix}hydra.run.dir=here"])
    assert end.value.code == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["here"]
    assert "here" in capsys.readouterr().err


def test_text_is_printed_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        main(["resume", "a:x:b[bold]c"])
    assert "a:x:b[bold]c is not a run folder" in capsys.readouterr().err


def test_a_folder_that_is_gone_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = Path.cwd()
    gone = tmp_path / "gone"
    gone.mkdir()
    os.chdir(gone)
    gone.rmdir()
    try:
        with pytest.raises(SystemExit) as end:
            main(["train", "data=digits"])
    finally:
        os.chdir(before)
    assert end.value.code == 2
    assert capsys.readouterr().err.startswith("error: the folder that this command runs in was removed")
