"""A sweep whose jobs are proposed one after the other, by what those before have reached.

Optuna's study holds what was proposed and what it was worth; the jobs are run folders as in any sweep. Whatever was
killed when, one of the two says what is still to be done.
"""

import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import optuna
import torch
from optuna.storages import RDBStorage
from optuna.study import Study
from optuna.trial import FrozenTrial, Trial, TrialState

from vaelab.config.experiment import Experiment
from vaelab.errors import ConfigError, RunError, did_you_mean
from vaelab.losses import Step
from vaelab.metrics.likelihood import evaluation_terms
from vaelab.runs.judging import reported
from vaelab.sweeps.folder import STUDY, Best, Job, SweepFolder, short_names, shown
from vaelab.sweeps.grid import Combination, Composed, subfolder
from vaelab.sweeps.search.proposals import PerTrial
from vaelab.sweeps.search.space import Space
from vaelab.sweeps.search.study import damaged, opened, quiet, require_sound, require_trials, unfinished
from vaelab.sweeps.search.sweepers import Optuna, Pruner
from vaelab.text import clean, one_line

OVER = ("done", "pruned", "failed")


class Search:
    """Jobs for a launcher, and what becomes of them.

    Args:
        folder: the sweep's.
        sweeper: how to search.
        space: what to search.
        compose: overrides -> a checked config.
        seed: of the proposals.
        storage: that several sweeps share; by default the folder's own.
    """

    def __init__(
        self,
        folder: SweepFolder,
        sweeper: Optuna,
        space: Space,
        compose: Callable[[Combination], Composed],
        *,
        seed: int,
        storage: RDBStorage | None = None,
    ) -> None:
        assert folder.record.search is not None
        self.folder = folder
        self.sweeper = sweeper
        self.space = space
        self.compose = compose
        self.shared = storage is not None
        self.identity = folder.record.search.identity
        with quiet(), self._reading():
            self.storage = storage or opened(f"sqlite:///{folder.path.absolute() / STUDY}")
            self.study = optuna.create_study(
                storage=self.storage,
                study_name=sweeper.study_name or "search",
                sampler=PerTrial(lambda seed: sweeper.sampler.sampler(space, seed), seed),
                directions=list(sweeper.directions),
                load_if_exists=True,
            )
            _agree(self.study, sweeper, space)
            require_sound(self.study, space, len(sweeper.metrics))
        if not self.shared:
            require_trials(self.study, folder)

    def jobs(self) -> Iterator[Job]:
        """What was cut off, then what is proposed."""
        with quiet():
            trials = self._own_trials()
            job_of = {job.trial: job for job in self.folder.jobs}
        for known in trials:
            if known.state != TrialState.RUNNING:
                continue
            job = job_of.get(known.number)
            if job is None:  # killed before there was a folder, or waiting for the one it repeats
                with quiet():
                    job = self._proposed(self._trial(known.number))
            elif job.state in OVER:
                self.told(job)
                continue
            elif job.state == "unreadable":
                continue
            if job is not None:
                yield self._watched(job)
        while (trial := self._asked()) is not None:
            with quiet():
                job = self._proposed(trial)
            if job is not None:
                yield self._watched(job)

    def told(self, job: Job) -> None:
        """Tell the study how a job has ended, unless it was stopped."""
        assert job.trial is not None
        if job.state not in OVER:
            return
        with quiet():
            if job.state == "pruned":
                self.study.tell(job.trial, state=TrialState.PRUNED, skip_if_finished=True)
            else:
                values = self._values(job) if job.state == "done" else None
                state = TrialState.FAIL if values is None else TrialState.COMPLETE
                self.study.tell(job.trial, values, state, skip_if_finished=True)
            trials = self.study.get_trials(deepcopy=False)
            for twin in trials:
                if twin.state == TrialState.RUNNING and twin.user_attrs.get("same_as") == job.trial and self._own(twin):
                    self._repeat(trials[job.trial], self._trial(twin.number))
            self._sum_up()  # which the next job's entry takes to the disk

    def note(self) -> None:
        """Write what is best so far into the folder's record."""
        self._sum_up()
        self.folder.save()

    def _sum_up(self) -> None:
        search = self.folder.record.search
        assert search is not None
        run_of = {job.trial: job.number for job in self.folder.jobs}
        search.trials = _counted(self._own_trials())
        search.best = [
            Best(
                trial=trial.number,
                job=run_of.get(trial.number),
                run=trial.user_attrs.get("run"),
                parameters=self.space.parameters(trial.params),
                values=dict(zip(self.sweeper.metrics, trial.values, strict=True)),
            )
            for trial in self.best
        ]

    @property
    def best(self) -> list[FrozenTrial]:
        """The best trial or, for several metrics, those that none is better than in all: the Pareto front."""
        front = [trial for trial in self.study.best_trials if "same_as" not in trial.user_attrs]
        return sorted(front, key=lambda trial: trial.values) if len(self.sweeper.metrics) > 1 else front[:1]

    def require_values(self) -> None:
        """Say so where jobs were done and none reported the metrics.

        Raises:
            ConfigError: that is so.
        """
        done = [job for job in self.folder.jobs if job.state == "done"]
        if done and all(self._values(job) is None for job in done):
            missing = [metric for metric in self.sweeper.metrics if metric not in done[-1].metrics]
            raise ConfigError([_no_such_metric(metric, done[-1].metrics) for metric in missing or self.sweeper.metrics])

    def _asked(self) -> Trial | None:
        """A new trial; None where there have been enough."""
        with quiet(), self._reading():
            if len(self._own_trials()) >= self.sweeper.n_trials:
                return None
            if len(self.study.get_trials(deepcopy=False)) >= self.space.size:
                # All combinations may have been tried, or only as many.
                known = {tuple(trial.params.items()) for trial in self.study.get_trials(deepcopy=False)}
                if len(known) >= self.space.size:
                    return None
            trial = self.study.ask()
            trial.set_user_attr("sweep", self.identity)
            return trial

    def _proposed(self, trial: Trial) -> Job | None:
        """The job of a trial; None where it repeats another one, or its parameters do not go together."""
        trial.set_user_attr("sweep", self.identity)
        with self._reading():
            values = self.space.suggest(trial)
        trials = self.study.get_trials(deepcopy=False)
        known = (
            other
            for other in trials[: trial.number]
            if other.params == values and (other.state.is_finished() or self._own(other))
        )
        original = next(known, None)
        if original is not None:
            trial.set_user_attr("same_as", original.number)
            if original.state.is_finished():
                self._repeat(original, trial)
            return None
        parameters = self.space.parameters(values)
        try:
            composed = self.compose(Combination(self.space.overrides(values), parameters))
        except ConfigError as error:
            self._impossible(trial, parameters, error)
            return None
        name = subfolder(composed, len(self.folder.record.jobs), self.sweeper.n_trials)
        trial.set_user_attr("run", str(self.folder.path.absolute() / name))
        return self.folder.add(composed.config, parameters, composed.combination.overrides, name, trial=trial.number)

    def _impossible(self, trial: Trial, parameters: Mapping[str, Any], error: ConfigError) -> None:
        label = ", ".join(f"{name}={shown(value)}" for name, value in short_names(parameters).items())
        line = one_line(f"trial {trial.number} ({label}) cannot be run: {'; '.join(error.mistakes)}")
        self.folder.log(line)
        print(line, file=sys.stderr)
        trial.set_user_attr("error", clean(str(error)))
        self.study.tell(trial, state=TrialState.FAIL)

    def _repeat(self, original: FrozenTrial, trial: Trial) -> None:
        """End a trial as the one with the same parameters has ended."""
        known = self.study.trials[trial.number].intermediate_values
        for step, value in original.intermediate_values.items():
            if step not in known:
                trial.report(value, step)
        values = original.values if original.state == TrialState.COMPLETE else None
        self.study.tell(trial, values, original.state)

    def _values(self, job: Job) -> list[float] | None:
        """What a job has reached; None where it did not report it."""
        metrics = job.metrics
        values = [metrics.get(metric, math.nan) for metric in self.sweeper.metrics]
        return values if all(map(math.isfinite, values)) else None

    def _watched(self, job: Job) -> Job:
        if self.sweeper.pruner is None:
            return job
        assert job.trial is not None
        url = self.sweeper.storage
        return replace(
            job,
            watch=Watch(url, self.study.study_name, job.trial, self.sweeper.metrics[0], self.sweeper.pruner),
        )

    def _trial(self, number: int) -> Trial:
        return unfinished(self.study, self.storage, number)

    def _reading(self) -> AbstractContextManager[None]:
        return damaged(f"the study of {self.folder.path}")

    def _own(self, trial: FrozenTrial) -> bool:
        return not self.shared or trial.user_attrs.get("sweep") == self.identity

    def _own_trials(self) -> list[FrozenTrial]:
        return [trial for trial in self.study.get_trials(deepcopy=False) if self._own(trial)]


@dataclass(frozen=True)
class Watch:
    """Where a job, wherever it runs, reports to and asks whether it is to go on.

    Args:
        storage: the study's; None is the sweep folder's own.
        study: its name.
        trial: the job's number in it.
        metric: what is reported.
        pruner: what decides.
    """

    storage: str | None
    study: str
    trial: int
    metric: str
    pruner: Pruner

    def callback(self, sweep: Path) -> Any:
        """Lightning's callback for the job of the sweep in that folder."""
        from vaelab.training.pruning import Pruning

        with quiet():
            storage = opened(self.storage or f"sqlite:///{sweep / STUDY}")
            study = optuna.load_study(study_name=self.study, storage=storage, pruner=self.pruner.pruner())
            values = study.get_trials(deepcopy=False)[self.trial].intermediate_values
            return Pruning(unfinished(study, storage, self.trial), self.metric, values)


def terms_of(experiment: Experiment) -> list[str]:
    """The names of the terms that the evaluations of an experiment report, found with two images."""
    images = experiment.data.splits.train
    model = experiment.model().eval()
    with torch.no_grad():
        step = Step(model, images.first(2).x.cpu(), images.labels[:2].cpu(), training=False)
        return list(evaluation_terms(experiment.objective, step))


def require_metrics(sweeper: Optuna, experiment: Experiment) -> None:
    """Refuse to search by what the runs of an experiment will not report.

    Raises:
        ConfigError: a metric is not among their terms, or they validate on no images.
    """
    mistakes = []
    names = [f"{split}/{term}" for split in ("val", "test") for term in terms_of(experiment)]
    names += reported(experiment)
    trainer: Mapping[str, Any] = getattr(experiment.trainer, "keywords", {})
    for metric in sweeper.metrics:
        if metric not in names:
            mistakes.append(_no_such_metric(metric, names))
        elif metric.startswith("val/") and experiment.data.validation == 0:
            mistakes.append(
                f"hydra.sweeper.metric={metric} is of the validation images, and data.validation=0 leaves none"
            )
        elif metric.startswith("val/") and trainer.get("limit_val_batches") == 0:
            mistakes.append(f"hydra.sweeper.metric={metric}: there is no validation, trainer.limit_val_batches=0")
    if mistakes:
        raise ConfigError(mistakes)


def _agree(study: Study, sweeper: Optuna, space: Space) -> None:
    """Refuse a study of another search; `n_trials` may differ.

    Raises:
        RunError: it is one.
    """
    knobs = asdict(sweeper)
    for name in ("n_trials", "storage", "params"):
        del knobs[name]
    for name in ("sampler", "pruner"):
        knobs[name] = {"": type(getattr(sweeper, name)).__name__} | (knobs[name] or {})
    here = {"overrides": space.of_runs, "sweeper": knobs}
    there = study.user_attrs.get("search")
    if there is None:
        study.set_user_attr("search", here)
    elif there != here:
        there = there if isinstance(there, dict) else {}
        differing = next((key for key in here if there.get(key) != here[key]), "sweeper")
        raise RunError(
            f"the study {study.study_name} is of another search: its {differing} "
            f"{one_line(f'are {there.get(differing)} there and {here[differing]} here', 1000)}; "
            "choose another hydra.sweeper.study_name"
        )


def _counted(trials: Sequence[FrozenTrial]) -> dict[str, int]:
    """How many trials ended how."""
    return {
        "all": len(trials),
        "trained": sum(trial.state == TrialState.COMPLETE and "same_as" not in trial.user_attrs for trial in trials),
        "pruned": sum(trial.state == TrialState.PRUNED and "same_as" not in trial.user_attrs for trial in trials),
        "failed": sum(trial.state == TrialState.FAIL and "same_as" not in trial.user_attrs for trial in trials),
        "repeated": sum("same_as" in trial.user_attrs for trial in trials),
    }


def _no_such_metric(metric: str, names: Sequence[str] | Mapping[str, Any]) -> str:
    return f"hydra.sweeper.metric={metric}: no job reports it{did_you_mean(metric, names)}"
