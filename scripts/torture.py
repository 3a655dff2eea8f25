"""Kill runs with SIGKILL at random moments, resume them, and compare them to the bit with undisturbed ones.

    python scripts/torture.py
    python scripts/torture.py --kills 200 --seed 1 --starved 5

Some runs are killed within their first 300 ms already, while their folder is being made: what is left then is no folder
or one that can be resumed, and the same command can be given again. Searches are starved of disk in a random job and
resumed with room: they end in the trials of undisturbed ones.

Prints a line a kill and a verdict, and exits with 1 where anything differs.
A run is killed again and again, each time at once or some random fraction of the undisturbed run's time after it began
to train, until it comes to its end. Each configuration takes its share of the kills. Of two processes it is the first
one that is killed; the other has to end by itself.
"""

import argparse
import multiprocessing
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from functools import partial
from importlib.util import find_spec
from multiprocessing.process import BaseProcess
from pathlib import Path

from vaelab.cli.main import main
from vaelab.runs.differences import differences
from vaelab.runs.folder import RunFolder
from vaelab.sweeps.folder import SweepFolder

SMALL = ["data=digits", "trainer=cpu", "trainer.log_every_n_steps=7", "~callbacks.progress_bar", "latent_dim=4"]
EVERYTHING = [
    "model=annealed_vae",
    "objective.kl_weight.steps=200",
    "scheduler=cosine",
    "callbacks=early_stopping",
    "callbacks.early_stopping.patience=3",
    "callbacks.early_stopping.min_delta=0.1",
    "callbacks.checkpoints.every_n_steps=2",
    "trainer.accumulate_grad_batches=3",
    "trainer.limit_train_batches=0.9",
    "trainer.max_epochs=40",
    "data.batch_size=16",
]
CONFIGS = {
    "dynamic VAE": ["data.binarize=dynamic", "trainer.max_epochs=30", "data.batch_size=32"],
    "everything": EVERYTHING,
    "large checkpoints": ["trainer.max_epochs=12", "encoder.hidden=[2000]", "callbacks.checkpoints.every_n_steps=3"],
    "IWAE, steps": ["model=iwae", "objective.samples=3", "trainer.max_epochs=-1", "trainer.max_steps=700"],
    "bf16": ["trainer.precision=bf16-mixed", "trainer.max_epochs=30", "callbacks.checkpoints.every_n_steps=4"],
    "two processes": [
        "trainer.strategy=ddp",
        "trainer.devices=2",
        "trainer.max_epochs=25",
        "trainer.accumulate_grad_batches=2",
        "callbacks.checkpoints.every_n_steps=2",
        "data.binarize=dynamic",
    ],
    "AE, no validation": ["model=ae", "data.validation=0", "trainer.max_epochs=60", "optimizer=sgd"],
}
SEARCH = ["hydra/sweeper=optuna", "hydra.sweeper.n_trials=4", "optimizer.lr=tag(log,interval(1e-4,1e-2))"]
SEARCH += ["data=digits", "trainer=cpu", "trainer.max_epochs=2", "encoder.hidden=[64]", "callbacks.pictures=null"]
# Forked from a process that has imported what takes seconds to import: a kill falls into training, not into that.
PROCESSES = multiprocessing.get_context("forkserver")


def command(arguments: list[str]) -> None:
    """`vaelab ARGUMENTS`, silently."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    main(arguments)


def start(*arguments: str) -> BaseProcess:
    """A process of its own for a command."""
    process = PROCESSES.Process(target=command, args=(list(arguments),))
    process.start()
    return process


def on_a_small_disk(arguments: list[str], largest: int) -> int:
    """The exit code of a command that writes no file larger than that, nor do the processes that it starts."""
    limit = partial(resource.setrlimit, resource.RLIMIT_FSIZE, (largest, resource.RLIM_INFINITY))
    nowhere = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return subprocess.run([sys.executable, "-m", "vaelab", *arguments], preexec_fn=limit, **nowhere).returncode


def killed_at_the_start(folder: Path, config: list[str], draw: random.Random) -> BaseProcess:
    """A run that goes on after it was killed while it was being started, by resuming or by the same command."""
    arguments = ["train", *config, *SMALL, f"hydra.run.dir='{folder}'"]
    process = start(*arguments)
    deadline = time.monotonic() + 60
    made = folder.parent / f".{folder.name}."  # until it is renamed
    while process.is_alive() and not folder.exists() and not list(folder.parent.glob(f"{made.name}*")):
        if time.monotonic() > deadline:
            sys.exit(f"{folder.name}: it has not begun within a minute")
    process.join(draw.choice([0, 0.3 * draw.random()]))
    process.kill()
    process.join()
    there = folder.exists()
    print(f"          killed at the start: {'a whole folder' if there else 'no folder'}", flush=True)
    return start("resume", str(folder)) if there else start(*arguments)


def starve(root: Path, draw: random.Random, number: int) -> bool:
    """Whether a search whose disk is full in some job ends, with room, in what an undisturbed one ends in."""
    reference, folder = root / "search undisturbed", root / f"search {number}"
    if not reference.exists():
        start("train", "-m", *SEARCH, f"hydra.sweep.dir='{reference}'").join()
    codes = [on_a_small_disk(["train", "-m", *SEARCH, f"hydra.sweep.dir='{folder}'"], draw.randrange(20_000, 900_000))]
    if SweepFolder.is_one(folder):
        process = start("resume", str(folder))
    else:
        process = start("train", "-m", *SEARCH, f"hydra.sweep.dir='{folder}'")
    process.join()
    codes.append(process.exitcode)
    ends = [SweepFolder.open(path).jobs for path in (reference, folder)]
    same = codes[0] in (0, 1) and codes[1] == 0 and len(ends[0]) == len(ends[1])
    found = [str(line) for one, other in zip(*ends, strict=False) for line in differences(one.run.path, other.run.path)]
    same = same and not found and [job.parameters for job in ends[0]] == [job.parameters for job in ends[1]]
    verdict = "the same trials" if same else "DIFFERENT"
    print(f"starved {number}: {codes[0]}, then {codes[1]}: {verdict}", flush=True)
    for line in found:
        print(f"            {line}")
    shutil.rmtree(folder)
    return same


def wait_until_it_trains(process: BaseProcess, folder: Path, log_before: int) -> None:
    """Return when the run has begun to write its log, or has ended."""
    log = folder / "train.log"
    while process.is_alive() and (not log.exists() or log.stat().st_size <= log_before):
        time.sleep(0.001)


def companions(folder: Path) -> list[int]:
    """The other processes of a run on several devices that there still are."""
    mine = [b"vaelab.runs.companion", str(folder.absolute()).encode()]
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            if set(mine) <= set(path.read_bytes().split(b"\0")):
                found.append(int(path.parent.name))
    return found


def end_by_themselves(folder: Path) -> bool:
    """Whether a killed run leaves no process behind."""
    deadline = time.monotonic() + 30
    while companions(folder) and time.monotonic() < deadline:
        time.sleep(0.01)
    return not companions(folder)


def state(folder: Path) -> str:
    """Where a killed run stands."""
    names = sorted(path.name for path in folder.glob("checkpoints/*.ckpt") if not path.name.startswith("."))
    partial = " (killed while writing one)" if list(folder.glob("checkpoints/.*")) else ""
    epochs = (folder / "train.log").read_text().count(": epoch ") if (folder / "train.log").exists() else 0
    return f"{epochs} epochs trained, {', '.join(names) or 'no checkpoint'}{partial}"


def torture(root: Path, kills: int, starved: int, seed: int) -> bool:
    """Whether every run came to the bits of the undisturbed one."""
    draw = random.Random(seed)
    exact, killed, runs = True, 0, 0
    times: dict[str, float] = {}
    while killed < kills:
        name, config = list(CONFIGS.items())[runs % len(CONFIGS)]
        reference, folder = root / f"{name} undisturbed", root / f"{name} {runs}"
        if name not in times:
            process = start("train", *config, *SMALL, f"hydra.run.dir='{reference}'")
            wait_until_it_trains(process, reference, 0)
            began = time.monotonic()
            process.join()
            if process.exitcode != 0:
                sys.exit(f"{name}: the undisturbed run failed with {process.exitcode}")
            times[name] = time.monotonic() - began
        if draw.random() < 0.5:
            process = killed_at_the_start(folder, config, draw)
            killed += 1
        else:
            process = start("train", *config, *SMALL, f"hydra.run.dir='{folder}'")
        log_before = 0
        for _ in range(3):  # then it may come to its end
            wait_until_it_trains(process, folder, log_before)
            wait = draw.choice([0, 0.2, 0.7, 0.7]) * draw.random() * times[name]
            process.join(wait)
            process.kill()
            process.join()
            if process.exitcode != -signal.SIGKILL or RunFolder(folder).done:
                break
            killed += 1
            if not end_by_themselves(folder):
                sys.exit(f"{name}: processes {companions(folder)} outlive the first one")
            print(f"kill {killed:3}  {name}: after {wait:.2f} s; {state(folder)}", flush=True)
            log = folder / "train.log"
            log_before = log.stat().st_size if log.exists() else 0
            process = start("resume", str(folder))
        process.join()
        done = RunFolder(folder).done
        found = [str(line) for line in differences(reference, folder)] if done else [f"exit code {process.exitcode}"]
        exact = exact and not found
        print(f"          {name}: {'the same bits' if not found else 'DIFFERENT'}", flush=True)
        for line in found:
            print(f"            {line}")
        shutil.rmtree(folder)
        runs += 1
    for number in range(starved):
        exact = starve(root, draw, number) and exact
    verdict = "every run ended in the same bits" if exact else "NOT EXACT"
    print(f"{killed} kills, {runs} runs, {starved} starved searches: {verdict}")
    return exact


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--starved", type=int, default=3, help="searches")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if options.starved and find_spec("optuna") is None:
        parser.error('--starved needs Optuna: pip install "vaelab[optuna]", or --starved 0 to leave the searches out')
    PROCESSES.set_forkserver_preload(
        [
            "vaelab.runs.run",
            "vaelab.sweeps.search.search",
            "sklearn.datasets",
            "torch.utils.tensorboard",
            "matplotlib.figure",
        ]
    )
    with tempfile.TemporaryDirectory() as temporary:
        sys.exit(not torture(Path(temporary), options.kills, options.starved, options.seed))
