"""What a sweep costs: several processes beside one, and the sweep's own part of a job.

    python scripts/benchmark_sweep.py --root data            # 8 jobs of 5 epochs of MNIST, some minutes
    python scripts/benchmark_sweep.py --jobs 4 --epochs 1 --rounds 2

basic and joblib take turns, each as a command of its own, so that whatever else the machine does hits both. The
sweep's own part is the time of a sweep of short jobs in this process, less that of the same runs by `vaelab.train`.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from statistics import median

import vaelab
from vaelab.sweeps.sweep import sweep

SHORT = ["data=digits", "trainer=cpu", "trainer.max_epochs=1", "callbacks.progress_bar=null"]


def side_by_side(folder: Path, root: str, jobs: int, epochs: int, rounds: int) -> None:
    """Print the time of either launcher and its ratio, turn by turn."""
    arguments = [f"seed=range({jobs})", f"trainer.max_epochs={epochs}", f"data.root={Path(root).absolute()}"]
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    ratios = []
    for turn in range(rounds):
        seconds = {}
        for launcher in ("basic", "joblib"):
            where = f"hydra.sweep.dir='{folder / f'{launcher} {turn}'}'"
            command = [sys.executable, "-m", "vaelab", "train", "-m", *arguments, where, f"hydra/launcher={launcher}"]
            began = time.perf_counter()
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environment)
            seconds[launcher] = time.perf_counter() - began
        ratios.append(seconds["joblib"] / seconds["basic"])
        print(f"basic {seconds['basic']:.1f} s, joblib {seconds['joblib']:.1f} s: {ratios[-1]:.2f}", flush=True)
    print(f"joblib / basic, {jobs} jobs of {epochs} epochs: {median(ratios):.2f}")


def own_part(folder: Path, jobs: int) -> None:
    """Print what a job costs beyond its training, in seconds of the clock and of the processor."""

    def timed(number: str) -> tuple[float, float]:
        began, worked = time.perf_counter(), time.process_time()
        if number.startswith("sweep"):
            with redirect_stdout(StringIO()):
                sweep([*SHORT, f"seed=range({jobs})", f"hydra.sweep.dir='{folder / number}'"])
        else:
            for seed, config in enumerate(configs):
                vaelab.train(config, folder=folder / f"{number} {seed}")
        return time.perf_counter() - began, time.process_time() - worked

    configs = [vaelab.compose([*SHORT, f"seed={seed}"]) for seed in range(jobs)]
    timed("first")  # imports, and what else is done once
    pairs = [(timed(f"train {turn}"), timed(f"sweep {turn}")) for turn in range(5)]
    clock, processor = (median((swept[i] - alone[i]) / jobs for alone, swept in pairs) for i in (0, 1))
    print(f"a sweep's own part of a job: {clock:.3f} s, of the processor {processor:.3f} s")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", default="data")
    parser.add_argument("--jobs", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        own_part(Path(temporary), options.jobs)
        side_by_side(Path(temporary), options.root, options.jobs, options.epochs, options.rounds)
