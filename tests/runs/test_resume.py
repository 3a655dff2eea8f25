import csv
import json
import random
import signal
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from moments import kill_before_write

import vaelab
from processes import SILENCE, finish, run, start
from vaelab.errors import StorageError
from vaelab.runs.differences import differences
from vaelab.runs.folder import RunFolder
from vaelab.training.monitoring import IMAGES_PER_SECOND
from vaelab.training.reading import read

TINY = [
    "data=digits",
    "data.batch_size=64",  # 22 batches an epoch
    "trainer=cpu",
    "trainer.log_every_n_steps=7",
    "encoder.hidden=[16]",
    "decoder.hidden=[16]",
    "latent_dim=2",
    "~callbacks.progress_bar",
    "--trust=moments",
    "+callbacks.moments._target_=moments.at",
]
CONFIGS = {
    "dynamic": ["trainer.max_epochs=4", "data.binarize=dynamic"],
    "everything": [
        "model=annealed_vae",
        "objective.kl_weight.steps=20",
        "scheduler=cosine",
        "callbacks=early_stopping",
        "callbacks.early_stopping.patience=2",
        "callbacks.early_stopping.min_delta=0.5",  # stops it in its seventh epoch
        "callbacks.checkpoints.every_n_steps=2",
        "trainer.max_epochs=12",
        "trainer.accumulate_grad_batches=3",
        "trainer.limit_train_batches=17",
    ],
    "steps": ["trainer.max_epochs=-1", "trainer.max_steps=50", "callbacks.checkpoints.every_n_steps=5"],
    "bf16": ["trainer.max_epochs=2", "trainer.precision=bf16-mixed", "callbacks.checkpoints.every_n_steps=5"],
    "two optimizers": [
        "model=factor_vae",
        "objective.discriminator.hidden=[16]",
        "scheduler=cosine",
        "callbacks.checkpoints.every_n_steps=5",
        "trainer.max_epochs=3",
    ],
    "averaged weights": [
        "callbacks=averaging",
        "callbacks.averaging.decay=0.9",
        "encoder.normalization=batch",
        "scheduler=warmup",
        "scheduler.steps=10",
        "trainer.accumulate_grad_batches=3",
        "callbacks.checkpoints.every_n_steps=2",
        "trainer.max_epochs=3",
    ],
    "two processes": [
        "trainer.max_epochs=3",
        "trainer.strategy=ddp",
        "trainer.devices=2",
        "callbacks.checkpoints.every_n_steps=5",
        "data.binarize=dynamic",
    ],
}
Train = Callable[..., tuple[int, Path]]


def train(folder: Path, config: str, *overrides: str, output: Path) -> int:
    return run("train", *CONFIGS[config], *TINY, f"hydra.run.dir={folder}", *overrides, output=output)


def resume(folder: Path, *, output: Path = SILENCE) -> int:
    return run("resume", folder, "--trust=moments", output=output)


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    root = tmp_path_factory.mktemp("undisturbed")

    def trained(config: str) -> Path:
        folder = root / config
        if not folder.exists():
            assert train(folder, config, "+callbacks.moments.moments=[]", output=root / "output") == 0
        return folder

    return trained


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "output"


def disturbed(
    folder: Path, *moments: str, action: str = "SIGKILL", config: str = "dynamic", output: Path = SILENCE
) -> int:
    extra = [f"+callbacks.moments.moments=[{','.join(moments)}]", f"+callbacks.moments.action={action}"]
    return train(folder, config, *extra, output=output)


def running(folder: Path) -> list[Path]:
    """The processes of a run on several devices that there still are."""
    return [mark for mark in folder.glob("process_*") if command_line(int(mark.read_text()))]


def command_line(process: int) -> bytes:
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes()  # empty for one that only waits to be forgotten
    except FileNotFoundError:
        return b""


def errors_in(output: Path) -> list[str]:
    """The lines that say what went wrong; torch may have said more, but there is no traceback."""
    said = output.read_text()
    assert "Traceback" not in said
    return [line for line in said.splitlines() if line.startswith("error: ")]


def await_the_end_of_all_processes(folder: Path) -> None:
    deadline = time.monotonic() + 60
    while running(folder) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert running(folder) == []


def resume_to_the_end(folder: Path, code: int) -> int:
    """Resume for as long as it is killed; how often it was."""
    kills = 0
    while code == -signal.SIGKILL:
        kills += 1
        await_the_end_of_all_processes(folder)
        code = resume(folder)
    assert code == 0
    return kills


@pytest.mark.slow
def test_a_csv_log_is_continued_to_the_same_rows(tmp_path: Path, output: Path) -> None:
    tables = []
    for name, moments in [("undisturbed", "[]"), ("killed", "[start50,test]")]:
        folder = tmp_path / name
        code = train(folder, "dynamic", "logger=[csv]", f"+callbacks.moments.moments={moments}", output=output)
        resume_to_the_end(folder, code)
        with (folder / "csv" / "metrics.csv").open(newline="") as file:
            tables.append([row | {IMAGES_PER_SECOND: bool(row[IMAGES_PER_SECOND])} for row in csv.DictReader(file)])
    assert tables[0] == tables[1]


def some_moments(seed: int, batches: int) -> list[str]:
    draw = random.Random(seed)
    return [f"{draw.choice(['start', 'end'])}{draw.randrange(batches)}" for _ in range(3)]


@pytest.mark.parametrize(
    ("config", "moments"),
    [
        ("dynamic", ["start9"]),  # before there is a checkpoint
        pytest.param("dynamic", ["val1", "end65", "test"], marks=pytest.mark.slow),
        pytest.param("everything", ["start4", "end5", "start25"], marks=pytest.mark.slow),
        pytest.param("everything", ["val0", "val3"], marks=pytest.mark.slow),
        pytest.param("everything", ["test"], marks=pytest.mark.slow),  # after the early stop
        ("steps", ["start30", "end47"]),
        pytest.param("bf16", ["start8", "end30"], marks=pytest.mark.slow),
        pytest.param("two optimizers", ["start8", "end30", "test"], marks=pytest.mark.slow),
        pytest.param("averaged weights", ["start8", "val1", "end58"], marks=pytest.mark.slow),  # val: in place
        *[pytest.param("dynamic", some_moments(seed, 88), marks=pytest.mark.slow) for seed in range(1)],
        *[pytest.param("everything", some_moments(seed, 119), marks=pytest.mark.slow) for seed in range(2)],
    ],
)
def test_a_killed_run_resumes_to_the_bits_of_an_undisturbed_one(
    config: str, moments: list[str], undisturbed: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    kills = resume_to_the_end(folder, disturbed(folder, *moments, config=config))
    assert kills > 0
    assert differences(undisturbed(config), folder) == []


@pytest.mark.slow
def test_a_run_killed_while_it_writes_checkpoints_resumes_to_the_same_bits(tmp_path: Path) -> None:
    large = ["encoder.hidden=[3000]", "+callbacks.moments.moments=[]"]  # takes a while to write
    folder, other = tmp_path / "killed", tmp_path / "undisturbed"
    assert train(other, "dynamic", *large, output=tmp_path / "output") == 0
    process = start("train", *CONFIGS["dynamic"], *TINY, f"hydra.run.dir={folder}", *large)
    fragment = f"checkpoints/.*.{process.pid}"
    for _ in range(2):
        while process.is_alive() and not list(folder.glob(fragment)):
            time.sleep(0.0001)
        process.kill()
        assert finish(process) == -signal.SIGKILL
        process = start("resume", folder, "--trust=moments")
        fragment = f"checkpoints/.*.{process.pid}"
    assert finish(process) == 0
    assert not list(folder.glob("checkpoints/.*"))
    assert differences(other, folder) == []


@pytest.mark.parametrize(
    ("action", "code"),
    [
        ("SIGINT", 130),
        pytest.param("SIGTERM", 143, marks=pytest.mark.slow),
        pytest.param("SIGUSR1", 143, marks=pytest.mark.slow),
    ],
)
def test_a_signal_stops_after_the_step_with_a_checkpoint_and_the_run_resumes_to_the_same_bits(
    action: str, code: int, undisturbed: Callable[[str], Path], tmp_path: Path, output: Path
) -> None:
    folder = tmp_path / "run"
    assert disturbed(folder, "start30", action=action, output=output) == code
    assert "Traceback" not in output.read_text()
    assert RunFolder(folder).status.state == "interrupted"
    assert read(folder / "checkpoints" / "last.ckpt")["global_step"] == 31
    assert not (folder / "figures").exists()
    assert resume(folder) == 0
    assert differences(undisturbed("dynamic"), folder) == []


@pytest.mark.slow
def test_a_signal_waits_for_the_gradients_of_an_accumulated_step(
    undisturbed: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    assert disturbed(folder, "start18", action="SIGTERM", config="everything") == 143
    progress = read(folder / "checkpoints" / "last.ckpt")["loops"]["fit_loop"]["epoch_loop.batch_progress"]
    assert progress["current"]["ready"] == 3
    assert resume(folder) == 0
    assert differences(undisturbed("everything"), folder) == []


@pytest.mark.slow
def test_a_signal_during_validation_stops_at_the_end_of_the_epoch(
    undisturbed: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    assert disturbed(folder, "val3", action="SIGTERM") == 143  # the last epoch
    assert read(folder / "checkpoints" / "last.ckpt")["global_step"] == 88
    assert not (folder / "metrics.json").exists()
    assert resume(folder) == 0
    assert differences(undisturbed("dynamic"), folder) == []


def test_a_second_signal_stops_at_once(tmp_path: Path, output: Path) -> None:
    folder = tmp_path / "run"
    assert disturbed(folder, "start30", action="SIGINT twice", output=output) == 130
    assert "Traceback" not in output.read_text()
    assert RunFolder(folder).status.state == "interrupted"
    assert read(folder / "checkpoints" / "last.ckpt")["global_step"] == 22


def in_two(folder: Path, moment: str, action: str, *extra: str, rank: int = 0, output: Path) -> int:
    """The exit code of a run in two processes; by then there is neither."""
    moments = [f"+callbacks.moments.moments=[{moment}]", f"+callbacks.moments.action={action}"]
    code = train(folder, "two processes", *moments, f"+callbacks.moments.rank={rank}", *extra, output=output)
    assert {path.name for path in folder.glob("process_*")} == {"process_0", "process_1"}
    await_the_end_of_all_processes(folder)
    return code


@pytest.mark.slow
def test_what_ends_one_of_two_processes_ends_both_and_the_run_resumes_to_the_same_bits(
    undisturbed: Callable[[str], Path], tmp_path: Path, output: Path
) -> None:
    """One run that is ended in one way after another."""
    ends = [
        ("start12", "SIGKILL", 1, 1, "failed", 10),
        ("start25", "SIGTERM", 0, 143, "interrupted", 26),
        ("start32", "SIGTERM", 1, 143, "interrupted", 33),
        ("start48", "SIGINT twice", 0, 130, "interrupted", 45),
        ("val2", "SIGKILL", 0, -signal.SIGKILL, "running", 65),
    ]
    folder, extra = tmp_path / "run", []
    for moment, action, rank, *_ in ends:
        end = f"+callbacks.at_{moment}"
        extra += [f"{end}._target_=moments.at", f"{end}.moments=[{moment}]", f"{end}.action={action}"]
        extra += [f"{end}.rank={rank}"]
    code = train(folder, "two processes", "+callbacks.moments.moments=[]", *extra, output=output)
    for moment, _, rank, expected, state, step in ends:
        await_the_end_of_all_processes(folder)
        assert (code, moment) == (expected, moment), output.read_text()
        assert (folder / f"was_at_{moment}_{rank}").exists()
        assert RunFolder(folder).status.state == state
        assert read(folder / "checkpoints" / "last.ckpt")["global_step"] == step
        code = resume(folder, output=output)
    assert code == 0
    assert differences(undisturbed("two processes"), folder) == []


@pytest.mark.slow
def test_a_disk_that_fills_up_under_one_of_two_processes_is_one_clear_line(tmp_path: Path, output: Path) -> None:
    assert in_two(tmp_path / "run", "start32", "full disk", output=output) == 1
    (line,) = errors_in(output)
    assert "make room" in line


@pytest.mark.slow
def test_a_process_that_waits_in_vain_for_another_ends_and_says_so(tmp_path: Path, output: Path) -> None:
    folder = tmp_path / "run"
    other = ["+callbacks.other._target_=moments.at", "+callbacks.other.moments=[end31]", "+callbacks.other.rank=1"]
    assert in_two(folder, "end31", "hang", *other, output=output) == 1
    assert "process 1 of the run ended with exit code -9" in output.read_text()
    assert RunFolder(folder).status.state == "failed"


@pytest.mark.slow
def test_a_nan_in_one_of_two_processes_stops_both_with_the_step_where_it_arose(tmp_path: Path, output: Path) -> None:
    folder = tmp_path / "run"
    assert in_two(folder, "start32", "poison", rank=1, output=output) == 3
    (line,) = errors_in(output)
    assert line == "error: train/reconstruction is nan, train/kl is nan at step 32"
    assert RunFolder(folder).status.state == "failed"
    assert read(folder / "checkpoints" / "last.ckpt")["global_step"] == 30


@pytest.mark.slow
def test_a_weight_that_is_nan_in_the_other_process_only_reaches_no_checkpoint(tmp_path: Path, output: Path) -> None:
    folder = tmp_path / "run"
    assert in_two(folder, "end34", "poison", rank=1, output=output) == 3
    assert "the weights are NaN or infinite after step 35" in output.read_text()
    assert read(folder / "checkpoints" / "last.ckpt")["global_step"] == 30


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def flip_a_bit_of_a_weight(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[content.index(read(path)["state_dict"]["model.encoder.layers.1.weight"].numpy().tobytes()) + 9] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [truncate, pytest.param(flip_a_bit_of_a_weight, marks=pytest.mark.slow)])
def test_a_damaged_last_checkpoint_gives_way_to_the_one_before(
    damage: Callable[[Path], None], undisturbed: Callable[[str], Path], tmp_path: Path, output: Path
) -> None:
    folder = tmp_path / "run"
    assert disturbed(folder, "start60") == -signal.SIGKILL
    damage(folder / "checkpoints" / "last.ckpt")
    assert resume(folder, output=output) == 0
    assert "last.ckpt is damaged" in output.read_text()
    assert differences(undisturbed("dynamic"), folder) == []


def test_a_run_whose_checkpoints_are_all_damaged_says_which(tmp_path: Path, output: Path) -> None:
    folder = tmp_path / "run"
    assert disturbed(folder, "start60") == -signal.SIGKILL
    for name in ("last.ckpt", "previous.ckpt"):
        truncate(folder / "checkpoints" / name)
    assert resume(folder, output=output) == 2
    message = output.read_text()
    assert "last.ckpt is damaged" in message
    assert "previous.ckpt is damaged" in message
    assert "Traceback" not in message


def test_a_full_disk_is_one_clear_line_and_the_run_resumes_once_there_is_room(
    undisturbed: Callable[[str], Path], tmp_path: Path, output: Path
) -> None:
    folder = tmp_path / "run"
    assert disturbed(folder, "start30", action="full disk", output=output) == 1
    (line,) = errors_in(output)
    assert "make room" in line
    assert read(folder / "checkpoints" / "last.ckpt")["global_step"] == 22
    assert resume(folder) == 0
    assert differences(undisturbed("dynamic"), folder) == []


def test_a_nan_stops_the_run_and_no_checkpoint_has_it(tmp_path: Path, output: Path) -> None:
    folder = tmp_path / "run"
    assert disturbed(folder, "start30", action="poison", output=output) == 3
    assert "train/reconstruction is nan, train/kl is nan at step 30" in output.read_text()
    status = RunFolder(folder).status
    assert status.state == "failed"
    assert "step 30" in status.error
    last = read(folder / "checkpoints" / "last.ckpt")
    assert last["global_step"] == 22
    assert all(bool(tensor.isfinite().all()) for tensor in last["state_dict"].values())


def test_a_nan_between_two_loggings_reaches_no_checkpoint_either(tmp_path: Path, output: Path) -> None:
    extra = ["callbacks.checkpoints.every_n_steps=1", "+callbacks.moments.moments=[end29]"]
    extra += ["+callbacks.moments.action=poison"]
    assert train(tmp_path / "run", "dynamic", *extra, output=output) == 3
    assert "the weights are NaN or infinite after step 30" in output.read_text()
    assert read(tmp_path / "run" / "checkpoints" / "last.ckpt")["global_step"] == 29


def test_a_run_in_float64_resumes_to_the_same_bits(tmp_path: Path) -> None:
    """It was read back through float32."""
    given = [*TINY[:-2], "trainer.precision=64-true", "callbacks.pictures=null"]
    one = [*given, "trainer.max_epochs=2"]
    undisturbed = vaelab.train(vaelab.compose(one), folder=tmp_path / "undisturbed")
    resumed = vaelab.train(vaelab.compose([*given, "trainer.max_epochs=1"]), folder=tmp_path / "resumed")
    vaelab.resume(resumed, ["trainer.max_epochs=2"])

    assert not differences(undisturbed.folder, resumed.folder)


def test_a_run_that_is_done_is_left_as_it_is(undisturbed: Callable[[str], Path], output: Path) -> None:
    folder = undisturbed("dynamic")
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert resume(folder, output=output) == 0
    assert "is done; to train for more epochs" in output.read_text()
    metrics = vaelab.resume(folder).metrics  # its config names a callback of our own, which nothing imports
    assert metrics == json.loads((folder / "metrics.json").read_text())
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_a_run_folder_in_use_is_refused(tmp_path: Path, output: Path) -> None:
    folder = tmp_path / "run"
    assert disturbed(folder, "start30") == -signal.SIGKILL
    with RunFolder(folder).locked():
        assert resume(folder, output=output) == 2
        assert "in use" in output.read_text()


@pytest.mark.slow
def test_a_run_taken_to_another_machine_is_resumed_with_a_warning(tmp_path: Path, output: Path) -> None:
    folder = tmp_path / "run"
    assert disturbed(folder, "start30") == -signal.SIGKILL
    manifest = RunFolder(folder).manifest
    assert manifest is not None
    RunFolder(folder).write_manifest(replace(manifest, hardware={**manifest.hardware, "threads": 64}))
    assert resume(folder, output=output) == 0
    assert "threads 64 -> " in output.read_text()


def test_what_is_no_run_folder_is_refused(tmp_path: Path, output: Path) -> None:
    assert resume(tmp_path, output=output) == 2
    assert "not a run folder" in output.read_text()


@pytest.mark.parametrize(
    ("action", "words"),
    [
        ("rename", "removed or renamed"),
        ("remove checkpoints", "checkpoints"),
        ("remove tensorboard", "is gone"),
    ],
)
def test_what_is_taken_away_under_a_run_is_noticed_and_it_can_be_resumed(
    action: str, words: str, tmp_path: Path
) -> None:
    overrides = [override for override in TINY if not override.startswith(("--trust", "~callbacks"))]
    moment = ["+callbacks.moments.moments=[start30]", f"+callbacks.moments.action={action}"]
    config = vaelab.compose([*overrides, "callbacks.progress_bar=null", "trainer.max_epochs=2", *moment])
    with pytest.raises(StorageError, match=words):
        vaelab.train(config, folder=tmp_path / "run", trust=["moments"])
    (left,) = tmp_path.iterdir()
    assert left.name == ("renamed" if action == "rename" else "run")
    assert RunFolder(left).status.state in ("running", "interrupted")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".* was removed, and with it everything that was logged to it")
        assert vaelab.resume(left, trust=["moments"]).metrics["epochs"] == 2


@pytest.mark.slow
@pytest.mark.parametrize("write", [1, 2, 3, 4, 6])
def test_a_run_killed_while_its_folder_is_made_leaves_none_or_a_whole_one(write: int, tmp_path: Path) -> None:
    command = ["train", "data=digits", "trainer=debug", "~callbacks.progress_bar", f"hydra.run.dir={tmp_path / 'run'}"]
    assert run(*command, first=partial(kill_before_write, write)) == -signal.SIGKILL
    again = ["resume", tmp_path / "run"] if (tmp_path / "run").exists() else command
    assert run(*again) == 0
    assert RunFolder(tmp_path / "run").done
