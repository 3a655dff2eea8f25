"""Report on 1,000 run folders, copies of one trained run with other settings, and say how long it took.

python scripts/benchmark_report.py
python scripts/benchmark_report.py --runs 5000
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import vaelab
from vaelab.runs.documents import Metrics
from vaelab.runs.folder import RunFolder


def main(runs: int) -> None:
    """Train one, copy it, report."""
    with tempfile.TemporaryDirectory() as temporary:
        config = vaelab.compose(["data=digits", "trainer=debug", "callbacks.progress_bar=null"])
        run = vaelab.train(config, folder=Path(temporary, "run")).folder
        metrics = json.loads((run / "metrics.json").read_text())
        for number in range(runs):
            folder = RunFolder(shutil.copytree(run, Path(temporary, "runs", f"{number:04}")))
            seed, setting = number % 5, number // 5
            config.seed, config.latent_dim = seed, 2 + setting % 10
            config.objective.kl_weight = 0.1 * 1.5 ** (setting // 10)
            folder.write_config(config)
            folder.write_metrics(Metrics({name: value + seed + setting for name, value in metrics.items()}))
        started, worked = time.perf_counter(), os.times().children_user
        subprocess.run([sys.executable, "-m", "vaelab", "report", Path(temporary, "runs")], check=True)
        seconds, busy = time.perf_counter() - started, os.times().children_user - worked
        size = Path(temporary, "runs", "report.html").stat().st_size
        print(f"{runs} runs: {seconds:.1f} s, {busy:.1f} s of the processor; report.html has {size / 1e6:.1f} MB")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=1000)
    main(parser.parse_args().runs)
