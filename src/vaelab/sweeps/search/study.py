"""Where Optuna keeps the trials of a search: opened, and refused where it is damaged or somebody else's doing."""

import json
import math
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import optuna
from optuna.exceptions import ExperimentalWarning, OptunaError, StorageInternalError
from optuna.storages import RDBStorage
from optuna.study import Study
from optuna.trial import FrozenTrial, Trial, TrialState
from sqlalchemy.engine import make_url
from sqlalchemy.exc import (
    ArgumentError,
    IntegrityError,
    NoSuchModuleError,
    OperationalError,
    ProgrammingError,
    SQLAlchemyError,
)

from vaelab.errors import RunError
from vaelab.sweeps.folder import STUDY, SweepFolder
from vaelab.sweeps.search.space import Space
from vaelab.text import clean, one_line

DATABASES = ("sqlite", "postgresql", "mysql")
PATIENCE = 10  # seconds, for a server to answer


def opened(url: str) -> RDBStorage:
    """The storage at a URL.

    Raises:
        RunError: there is none, it cannot be reached, or the driver for it is missing.
    """
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError) as error:
        raise _unusable(url, "not the URL of a database; write postgresql://user@host/database") from error
    database = parsed.get_backend_name()
    if database not in DATABASES:
        raise _unusable(url, f"not a database that a study is kept in; there are {', '.join(DATABASES)}")
    if parsed.password is not None:
        shown_url = parsed.render_as_string(hide_password=True)
        raise _unusable(shown_url, "a password would be written into the folders: put it into ~/.pgpass or PGPASSWORD")
    if parsed.drivername == "postgresql":
        parsed = parsed.set(drivername="postgresql+psycopg")  # which driver that means depends on SQLAlchemy's version
    wait = {"timeout": 60} if database == "sqlite" else {"connect_timeout": PATIENCE}
    connect = partial(RDBStorage, parsed.render_as_string(), engine_kwargs={"connect_args": wait})
    try:
        with quiet():
            try:
                return connect()
            except (IntegrityError, ProgrammingError, StorageInternalError, OperationalError) as error:
                if isinstance(error, OperationalError) and "already exists" not in str(error):
                    raise
                time.sleep(1)  # somebody else was making the tables at that moment
                return connect()
    except (ImportError, NoSuchModuleError) as error:
        extra = ': pip install "vaelab[postgresql]"' if database == "postgresql" else ""
        raise _unusable(url, f"its driver is not installed ({_reason(error)}){extra}") from error
    except (SQLAlchemyError, OptunaError, RuntimeError, ValueError) as error:
        raise _unusable(url, f"it cannot be used: {_reason(error)}") from error


def unfinished(study: Study, storage: RDBStorage, number: int) -> Trial:
    """A trial that was begun by another process, to report to and to end."""
    of = storage.get_study_id_from_name(study.study_name)
    return Trial(study, storage.get_trial_id_from_study_id_trial_number(of, number))


def require_sound(study: Study, space: Space, metrics: int) -> None:
    """Refuse trials that no search over `space` has.

    Raises:
        ValueError: there is one.
    """
    _ = study.user_attrs, study.directions
    trials = study.get_trials(deepcopy=False)
    for number, trial in enumerate(trials):
        if trial.number != number:
            raise ValueError(f"trial {number} is missing")
        for key, value in trial.params.items():
            if key not in space.distributions:
                raise ValueError(f"trial {number} has a parameter {key}, which is not searched")
            if trial.distributions[key] != space.distributions[key] or not space.has(key, value):
                raise ValueError(f"trial {number} has {key}={value}, which is not among what is searched")
        if trial.state == TrialState.COMPLETE and not (
            trial.values and len(trial.values) == metrics and all(map(math.isfinite, trial.values))
        ):
            raise ValueError(f"trial {number} has no value of each metric")
        _require_notes(trial)


def require_trials(study: Study, folder: SweepFolder) -> None:
    """Refuse a study that is not the one of the jobs in its folder.

    Raises:
        RunError: it lacks a job's trial.
    """
    trials = study.get_trials(deepcopy=False)
    lacking = [job.number for job in folder.jobs if job.trial is None or job.trial >= len(trials)]
    if lacking:
        raise RunError(
            f"{folder.path / STUDY} is damaged: it has {len(trials)} trials, and none is that of job {lacking[0]}"
        )


@contextmanager
def damaged(place: str) -> Iterator[None]:
    """Say of whatever reading a study fails with that the study is damaged.

    Raises:
        RunError: that is so.
    """
    try:
        yield
    except (OptunaError, LookupError, ValueError, TypeError, AttributeError) as error:
        raise RunError(f"{place} is damaged: {_reason(error)}") from error
    except SQLAlchemyError as error:
        raise RunError(f"{place} cannot be used: {_reason(error)}") from error


@contextmanager
def quiet() -> Iterator[None]:
    """Without Optuna's lines about its trials, which the sweep's table shows, and its news of what is experimental."""
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(verbosity)


def _require_notes(trial: FrozenTrial) -> None:
    """Refuse what a search does not write beside a trial."""
    notes = trial.user_attrs
    same_as = notes.get("same_as")
    if same_as is not None and not (type(same_as) is int and 0 <= same_as < trial.number):
        raise ValueError(f"trial {trial.number} repeats {json.dumps(same_as):.50}")
    for name in ("sweep", "run", "error"):
        text = notes.get(name, "")
        if not isinstance(text, str) or clean(text) != text:
            raise ValueError(f"trial {trial.number} has no text as its {name}")


def _unusable(url: str, reason: str) -> RunError:
    return RunError(f"hydra.sweeper.storage={one_line(url, 300)}: {reason}")


def _reason(error: BaseException) -> str:
    """What a database or its driver says, in one line."""
    cause = error.__cause__ if isinstance(error, ImportError) and error.__cause__ else error
    cause = getattr(cause, "orig", None) or cause
    return one_line(f"{cause}" or type(cause).__name__, 300)
