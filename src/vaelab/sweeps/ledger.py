"""Reproduce a published number: train an experiment of conf/experiment/papers with several seeds, and evaluate each."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from vaelab.config.conf import contents, options
from vaelab.config.experiment import Paper
from vaelab.errors import ConfigError, RunError, did_you_mean
from vaelab.metrics.subject import Track
from vaelab.runs.folder import RunFolder, portable
from vaelab.sweeps.folder import SweepFolder
from vaelab.sweeps.grid import Composed, compose_grid, subfolder
from vaelab.sweeps.sweep import resume, sweep

PAPERS = "papers/"


def rows() -> list[str]:
    """Return the names of the experiments that reproduce a published number."""
    return [name.removeprefix(PAPERS) for name in options("experiment") if name.startswith(PAPERS)]


def paper_of(name: str) -> Paper:
    """Return the published number of a row.

    Raises:
        ConfigError: there is no such row.
    """
    if name not in rows():
        raise ConfigError([f"{name}: no such row of the ledger{did_you_mean(name, rows())}"])
    (option,) = (option for option in contents() if (option.group, option.name) == ("experiment", f"{PAPERS}{name}"))
    return Paper(**option.content["paper"])


def train_row(name: str, overrides: Sequence[str], *, output: Path, trust: Sequence[str] = ()) -> SweepFolder:
    """Train a row in the sweep folder `output`/`name`; jobs that are done there stay as they are.

    Args:
        name: such as "burda_2015_iwae_5".
        overrides: the seeds, "seed=1,2,3", and what differs from the experiment.
        output: the folder of all rows.
        trust: as `sweep`.

    Raises:
        ConfigError: there is no such row, or a mistake in the overrides.
        RunError: the folder has a job of the same seed and another config.
    """
    paper_of(name)
    words, folder = [f"experiment={PAPERS}{name}", "hydra.sweep.subdir=seed_${seed}", *overrides], output / name
    if not SweepFolder.is_one(folder):
        return sweep([*words, f"hydra.sweep.dir='{folder}'"], trust=trust)
    _extend(SweepFolder.open(folder), compose_grid(words, trust=trust))
    return resume(folder, trust=trust)


def evaluate_row(name: str, folder: SweepFolder, *, trust: Sequence[str] = (), track: Track) -> list[float]:
    """Return the metric of the paper's row for each job that is done; evaluate those that have not been.

    Raises:
        RunError: the evaluation of such a model does not have the metric.
    """
    from vaelab.looking.evaluate import Wanted, evaluation_of

    metric = paper_of(name).metric
    samples = re.match(r"nll_(\d+)", metric)
    wanted = Wanted(samples=int(samples[1]) if samples else None)
    runs = [job.run for job in folder.jobs if job.state == "done"]
    for run in runs:
        if result_of(run, metric) is None:
            evaluation_of(run.path, wanted, split="test", seed=None, trust=trust, track=track)
    found = [result_of(run, metric) for run in runs]
    if None in found:
        raise RunError(f"{name}: paper.metric={metric}, but `vaelab evaluate` reports no test/{metric} of this model")
    return [value for value in found if value is not None]


def result_of(run: RunFolder, metric: str) -> float | None:
    """Return a metric of the test split that a run has been evaluated by; None where it has not been."""
    found = [evaluation.metrics.get(f"test/{metric}") for evaluation in run.evaluations]
    values = [value.value for value in found if value is not None]
    return values[-1] if values and isinstance(values[-1], float) else None


def _extend(folder: SweepFolder, grid: Sequence[Composed]) -> None:
    """Add the jobs that a sweep does not have yet."""
    with folder.locked():
        jobs = {job.folder: job for job in folder.jobs}
        for number, job in enumerate(grid, len(jobs)):
            name = subfolder(job, number, len(grid))
            if name not in jobs:
                folder.add(job.config, job.combination.parameters, job.combination.overrides, name)
            elif _compared(jobs[name].run.config) != _compared(job.config):
                raise RunError(f"{jobs[name].run.path} has another config: give another folder with --output")


def _compared(config: DictConfig) -> Any:
    """Return what a config trains, without the place of its data and the words on the paper."""
    content: Any = OmegaConf.to_container(portable(config))
    return content | {"paper": None, "data": content["data"] | {"root": None}}
