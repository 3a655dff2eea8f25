"""Stock classes of Lightning and torch in real runs: killed, resumed, from somebody else's folder."""

import signal
from pathlib import Path

import pytest

import vaelab
from processes import command, run
from vaelab.cli.main import main
from vaelab.runs.differences import differences, scalars
from vaelab.training.reading import read

CALLBACKS, TORCH = "pytorch_lightning.callbacks", "torch.optim"
TINY = [
    *["data=digits", "data.batch_size=64", "trainer=cpu", "trainer.log_every_n_steps=7", "latent_dim=2"],
    *["encoder.hidden=[16]", "decoder.hidden=[16]", "trainer.max_epochs=4", "~callbacks.progress_bar"],
]  # 22 batches an epoch
PARTS = [
    f"optimizer._target_={TORCH}.RAdam",
    f"+callbacks.lr._target_={CALLBACKS}.LearningRateMonitor",
    *[f"+callbacks.top._target_={CALLBACKS}.ModelCheckpoint", "+callbacks.top.monitor=val/elbo"],
    *["+callbacks.top.mode=max", "+callbacks.top.save_top_k=2"],
    *[f"+scheduler._target_={TORCH}.lr_scheduler.ReduceLROnPlateau", "+scheduler.factor=0.5", "+scheduler.patience=0"],
    *["+scheduler.threshold=1000", "+scheduler.threshold_mode=abs"],
]
AVERAGED = [
    *[f"+callbacks.ema._target_={CALLBACKS}.EMAWeightAveraging", "+callbacks.ema.decay=0.9"],
    *[f"+scheduler._target_={TORCH}.lr_scheduler.OneCycleLR", "+scheduler.max_lr=0.01"],
    *["trainer.max_epochs=3", "callbacks.checkpoints.every_n_steps=5", "+trainer.val_check_interval=0.5"],
]
TRUST = ["--trust=moments", f"--trust={CALLBACKS}", f"--trust={TORCH}"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("parts", "moments"),
    [(PARTS, "start22,start50,test"), (AVERAGED, "end12,start22,val1,start46")],
    ids=["fixed", "averaged"],
)
def test_stock_parts_resume_to_the_bits_of_an_undisturbed_run(parts: list[str], moments: str, tmp_path: Path) -> None:
    for name, at in [("undisturbed", ""), ("killed", moments)]:
        folder = tmp_path / name
        given = [*TINY, *parts, f"hydra.run.dir={folder}", "+callbacks.moments._target_=moments.at"]
        code = run("train", *given, f"+callbacks.moments.moments=[{at}]", "--trust=moments", output=tmp_path / "out")
        kills = 0
        while code == -signal.SIGKILL:
            kills += 1
            code = run("resume", folder, *TRUST, output=tmp_path / "out")
        assert code == 0, (tmp_path / "out").read_text()
        assert kills == (len(moments.split(",")) if at else 0)
    assert differences(tmp_path / "undisturbed", tmp_path / "killed") == []
    checkpoints = sorted(path.name for path in (tmp_path / "killed" / "checkpoints").iterdir())
    assert checkpoints == sorted(path.name for path in (tmp_path / "undisturbed" / "checkpoints").iterdir())
    if parts is PARTS:
        assert len([name for name in checkpoints if name.startswith("epoch=")]) == 2
        rates = [rate for _, rate in scalars(tmp_path / "killed" / "tensorboard")["lr-RAdam"]]
        assert rates[-1] == pytest.approx(rates[0] / 4)  # after the second and the third validation


def test_an_average_of_the_weights_is_what_is_saved_and_tested(tmp_path: Path) -> None:
    run = vaelab.train(vaelab.compose([*TINY, *AVERAGED[:2], "trainer.max_epochs=2"]), folder=tmp_path / "run")
    last = read(run.folder / "checkpoints" / "last.ckpt")
    name = "model.encoder.layers.1.weight"
    assert not last["state_dict"][name].equal(last["current_model_state"][name])
    evaluated = vaelab.evaluate(run)  # of best.ckpt
    assert evaluated["test/elbo"] == run.metrics["test/elbo"]


def test_a_run_folder_names_no_stock_class_without_trust(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    quick = ["data=digits", "trainer=debug", "~callbacks.progress_bar"]
    done = vaelab.train(vaelab.compose([*quick, *PARTS[:2]]), folder=tmp_path / "run").folder
    (done / "status.json").write_text('{"state": "interrupted"}')
    with pytest.raises(SystemExit) as end:
        main(["resume", str(done)])
    said = capsys.readouterr().err
    assert end.value.code == 2
    for name in (f"{TORCH}.RAdam", f"{CALLBACKS}.LearningRateMonitor"):
        assert f"--trust {name}" in said
    vaelab.load(done)  # which needs none of them
    with pytest.raises(SystemExit) as end:
        main(["resume", str(done), "--trust", f"{TORCH}.RAdam", "--trust", f"{CALLBACKS}.LearningRateMonitor"])
    assert not end.value.code


@pytest.mark.parametrize(
    ("setting", "steps"), [("max_time=00:00:10:00", 2), ("fast_dev_run=true", 1), ("overfit_batches=2", 2)]
)
def test_arguments_of_the_trainer_that_conf_does_not_list_are_lightnings(
    setting: str, steps: int, tmp_path: Path
) -> None:
    quick = ["data=digits", "trainer=debug", "~callbacks.progress_bar"]
    run = vaelab.train(vaelab.compose([*quick, f"+trainer.{setting}"]), folder=tmp_path / "run")
    assert run.metrics["steps"] == steps


def test_a_monitor_on_a_training_term_is_there_at_the_end_of_an_epoch(tmp_path: Path) -> None:
    watch = ["callbacks=early_stopping", "callbacks.early_stopping.monitor=train/kl", "data.validation=0"]
    watch += ["callbacks.early_stopping.mode=max", "callbacks.checkpoints.monitor=train/loss"]
    quick = ["data=digits", "trainer=debug", "~callbacks.progress_bar"]
    with pytest.raises(vaelab.ConfigError, match=r"the highest is the worst; callbacks\.early_stopping\.mode=min"):
        vaelab.train(vaelab.compose([*quick, *watch]), folder=tmp_path / "run")
    run = vaelab.train(vaelab.compose([*quick, *watch, "callbacks.early_stopping.mode=min"]), folder=tmp_path / "run")
    assert read(run.folder / "checkpoints" / "best.ckpt")["global_step"] == 2


def test_a_lightning_module_with_steps_of_its_own_gets_the_same_learning_rates(tmp_path: Path) -> None:
    """FactorVAE takes its steps itself; torch's scheduler is stepped as Lightning would step it."""
    schedule = [f"+scheduler._target_={TORCH}.lr_scheduler.StepLR", "+scheduler.step_size=1", "+scheduler.gamma=0.5"]
    model = ["model=factor_vae", "objective.discriminator.hidden=[8]", "trainer.max_epochs=3", "trainer.max_steps=-1"]
    quick = ["data=digits", "trainer=debug", "~callbacks.progress_bar"]
    run = vaelab.train(vaelab.compose([*quick, *model, *schedule]), folder=tmp_path / "run")
    (last,) = read(run.folder / "checkpoints" / "last.ckpt")["lr_schedulers"]
    assert last["_last_lr"] == [pytest.approx(0.001 / 8)]


@pytest.mark.slow
def test_a_run_is_extended_to_the_bits_of_a_longer_one(tmp_path: Path) -> None:
    quick = ["data=digits", "trainer=cpu", "encoder.hidden=[8]", "decoder.hidden=[8]", "latent_dim=2"]
    quick += ["~callbacks.progress_bar", "data.batch_size=512", "+trainer.num_sanity_val_steps=0"]
    long = vaelab.train(vaelab.compose([*quick, "trainer.max_epochs=3"]), folder=tmp_path / "long")
    short = vaelab.train(vaelab.compose([*quick, "trainer.max_epochs=1"]), folder=tmp_path / "short")
    with pytest.raises(vaelab.ConfigError, match=r"only trainer.max_epochs can grow"):
        vaelab.resume(short, ["optimizer.lr=1"])
    with pytest.raises(vaelab.ConfigError, match="started with 1; give a larger number"):
        vaelab.resume(short, ["trainer.max_epochs=1"])
    vaelab.resume(short, ["trainer.max_epochs=2"])
    vaelab.resume(short.folder / "checkpoints" / "last.ckpt", ["trainer.max_epochs=3"])
    assert differences(long.folder, short.folder) == []
    assert vaelab.resume(short).metrics == long.metrics


def test_a_schedule_over_the_whole_run_is_not_extended(tmp_path: Path) -> None:
    quick = ["data=digits", "trainer=debug", "trainer.max_steps=-1", "~callbacks.progress_bar"]
    for name, scheduler in [("ours", ["scheduler=cosine"]), ("torch", AVERAGED[2:4])]:
        run = vaelab.train(vaelab.compose([*quick, *scheduler]), folder=tmp_path / name)
        trust = [f"{TORCH}.lr_scheduler"]
        with pytest.raises(vaelab.ConfigError, match="scheduler depends on its length"):
            vaelab.resume(run, ["trainer.max_epochs=2"], trust=trust)
        assert vaelab.resume(run).metrics == run.metrics


@pytest.mark.slow
def test_a_run_begins_with_the_weights_of_another(tmp_path: Path) -> None:
    quick = ["data=digits", "trainer=debug", "~callbacks.progress_bar", "latent_dim=3"]
    first = vaelab.train(vaelab.compose(quick), folder=tmp_path / "first")
    frozen = [*quick, "optimizer.lr=0", "seed=7"]
    second = vaelab.train(vaelab.compose([*frozen, f"init={first.folder}"]), folder=tmp_path / "second")
    for one, other in zip(vaelab.load(first).parameters(), vaelab.load(second).parameters(), strict=True):
        assert one.equal(other)
    (first.folder / "checkpoints" / "best.ckpt").unlink()
    (first.folder / "checkpoints" / "last.ckpt").unlink()
    assert vaelab.reproduce(second, folder=tmp_path / "again").identical
    with pytest.raises(vaelab.RunError, match=r"best\.ckpt cannot be loaded"):
        vaelab.train(vaelab.compose([*quick, "latent_dim=4", f"init={second.folder}"]), folder=tmp_path / "third")
    assert not (tmp_path / "third").exists()


def test_without_a_terminal_each_epoch_is_a_line_as_it_ends(tmp_path: Path) -> None:
    quick = ["data=digits", "trainer=debug", "trainer.max_steps=-1", "trainer.max_epochs=2", "hydra.run.dir=here"]
    result = command("train", *quick, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert lines[0] == "here"
    assert [line.split(":")[0] for line in lines if line.startswith("epoch")] == [
        "epoch 1/2, step 2",
        "epoch 2/2, step 4",
    ]
    assert lines[-1] == "here"
