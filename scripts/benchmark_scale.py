"""How a step and memory grow with batch, image size, latent dimension, images and jobs: measured, and drawn.

    python scripts/benchmark_scale.py                      # about ten minutes of one core
    python scripts/benchmark_scale.py --only batch jobs

Each point is a process of its own: a VAE of the defaults on random images in a mapped file, a hundred steps, of which
those after the first epoch count, in seconds of the processor; memory is the peak less that of the imports. Jobs are of
one sweep, of two steps each; with `report`, their folders are copied until there are 5,000 and `vaelab report` reads
them. Writes benchmark_scale.json into --output, and a picture to --figure.
"""

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure

SIDE, IMAGES, BATCH, LATENT, STEPS = 28, 10_000, 128, 20, 50
TINY = ["data=digits", "trainer=cpu", "trainer.max_epochs=1", "trainer.limit_train_batches=2", "logger=[]"]
TINY += ["callbacks.progress_bar=null", "callbacks.pictures=null", "threads=1"]


class Point(NamedTuple):
    """What one run is of."""

    batch: int = BATCH
    side: int = SIDE
    latent: int = LATENT
    images: int = IMAGES


AXES = {
    "batch": [Point(batch=n) for n in (32, 128, 512, 2048)],
    "side": [Point(side=n) for n in (16, 32, 64, 128)],
    "latent": [Point(latent=n) for n in (2, 32, 512, 2048)],
    "images": [Point(images=n) for n in (1_000, 10_000, 100_000, 1_000_000)],
}
NAMES = {
    "batch": "images in a batch",
    "side": "pixels of an image",
    "latent": "latent dimensions",
    "images": "images",
    "jobs": "jobs of a sweep",
    "report": "runs of a report",
}


def number(axis: str, point: Point) -> int:
    """What stands on the axis of a picture."""
    return point.side**2 if axis == "side" else int(getattr(point, axis))


def measured(point: Point) -> dict[str, float]:
    """Milliseconds of the processor a step, and megabytes over those of the imports: of this process."""
    import torch
    from benchmark import SILENT, Clock, vaelab_trains

    torch.set_num_threads(1)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        rows = np.lib.format.open_memmap(
            Path(folder) / "images.npy", "w+", np.uint8, (point.images + 200, point.side, point.side)
        )
        for start in range(0, len(rows), 10_000):  # in pieces, so that this process holds few of them
            rows[start : start + 10_000] = np.random.default_rng(start).integers(0, 256, (1, point.side, point.side))
        del rows
        vaelab_trains(
            clock,
            *["data=array", f"data.root={folder}", "data.test=100", "data.validation=100", "threads=1"],
            *[f"data.batch_size={point.batch}", f"latent_dim={point.latent}", f"trainer.limit_train_batches={STEPS}"],
            *["trainer=cpu", "trainer.max_epochs=4", *SILENT],
        )
    steps = min(STEPS, -(-point.images // point.batch))
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    return {"step_ms": 1000 * median(seconds[1] for seconds in clock.batches[1:]) / steps, "memory_mb": grown}


def in_a_process(point: Point) -> dict[str, float]:
    """The same of a process that has measured nothing else."""
    command = [sys.executable, __file__, "--point", *map(str, point)]
    output = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    found: dict[str, float] = json.loads(output.splitlines()[-1])
    return found


def jobs(count: int, folder: Path) -> dict[str, float]:
    """Seconds by the clock of a sweep's jobs, one after the other."""
    where = f"hydra.sweep.dir='{folder}'"
    command = [sys.executable, "-m", "vaelab", "train", "-m", *TINY, f"seed=range({count})", where]
    began = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return {"seconds": time.perf_counter() - began}


def report(runs: int, source: Path, folder: Path) -> dict[str, float]:
    """Seconds of the processor and megabytes that a report takes, over copies of a sweep's runs."""
    copied = sorted(path.parent for path in source.glob("*/metrics.json"))
    for number in range(runs):
        shutil.copytree(copied[number % len(copied)], folder / str(number), ignore=shutil.ignore_patterns("*.ckpt"))
    command = [sys.executable, "-m", "vaelab", "report", str(folder), "--output", str(folder / "page.html")]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    if status:
        raise RuntimeError(f"{command} ended with {os.waitstatus_to_exitcode(status)}")
    page = (folder / "page.html").stat().st_size / 2**20
    return {"seconds": used.ru_utime + used.ru_stime, "memory_mb": used.ru_maxrss / 1024, "page_mb": page}


def draw(found: dict[str, dict[str, dict[str, float]]], figure: Path) -> None:
    """Each axis, doubly logarithmic, with the line of proportion through its last point."""
    panels = [(axis, "step_ms", "ms a step") for axis in AXES if axis in found]
    panels += [("images", "memory_mb", "MB")] if "images" in found else []
    panels += [(axis, "seconds", "s") for axis in ("jobs", "report") if axis in found]
    rows, columns = -(-len(panels) // 4), min(4, len(panels))
    picture = Figure(figsize=(2.6 * columns, 2.4 * rows), layout="constrained")
    picture.subplots(rows, columns)
    for place in picture.axes[len(panels) :]:
        place.remove()
    for place, (axis, what, unit) in zip(picture.axes, panels, strict=True):
        x = [int(number) for number in found[axis]]
        y = [value[what] for value in found[axis].values()]
        place.loglog(x, y, "o-")
        place.loglog(x, [y[-1] * number / x[-1] for number in x], ":", color="grey")
        place.set(xlabel=NAMES[axis], ylabel=unit)
    picture.savefig(figure, dpi=110)


def main() -> None:
    """Measure the axes that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=NAMES, default=list(NAMES))
    parser.add_argument("--jobs", nargs="+", type=int, default=[10, 100, 1000])
    parser.add_argument("--runs", nargs="+", type=int, default=[50, 500, 5000])
    parser.add_argument("--output", type=Path, default=Path("outputs"))
    parser.add_argument("--figure", type=Path, help="by default benchmark_scale.png in --output")
    parser.add_argument("--point", nargs=4, type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.point:
        print(json.dumps(measured(Point(*options.point))))
        return
    options.output.mkdir(parents=True, exist_ok=True)
    file = options.output / "benchmark_scale.json"
    found = json.loads(file.read_text()) if file.exists() else {}
    for axis in [axis for axis in AXES if axis in options.only]:
        found[axis] = {str(number(axis, point)): in_a_process(point) for point in AXES[axis]}
        print(axis, found[axis], flush=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if "jobs" in options.only:
            found["jobs"] = {str(count): jobs(count, folder / f"jobs {count}") for count in options.jobs}
            print(found["jobs"], flush=True)
        if "report" in options.only:
            jobs(10, source := folder / "source")
            found["report"] = {str(runs): report(runs, source, folder / f"runs {runs}") for runs in options.runs}
            print(found["report"], flush=True)
    file.write_text(json.dumps(found, indent=2))
    draw(found, options.figure or options.output / "benchmark_scale.png")


if __name__ == "__main__":
    main()
