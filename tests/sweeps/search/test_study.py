"""What we use of Optuna beyond its documentation, held against new versions."""

import re
from pathlib import Path

import optuna
from optuna.storages import RDBStorage

import vaelab.sweeps.search
from vaelab.sweeps.search.study import opened, quiet, unfinished


def test_optuna_has_what_finds_a_trial_by_its_number() -> None:
    used = ("get_study_id_from_name", "get_trial_id_from_study_id_trial_number")
    missing = [name for name in used if not hasattr(RDBStorage, name)]
    assert missing == [], f"Optuna {optuna.__version__} no longer has RDBStorage.{missing}, which search/study.py uses"


def test_nothing_private_of_optuna_is_used() -> None:
    private = re.compile(r"(?<!self)(?<!cls)\._[a-z]\w*")
    for path in Path(vaelab.sweeps.search.__path__[0]).glob("*.py"):
        assert not private.findall(path.read_text()), path.name


def test_a_trial_that_another_process_began_is_reported_to_and_ended(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'study.db'}"
    with quiet():
        begun = optuna.create_study(storage=opened(url), study_name="search")
        begun.ask()
        begun.ask()
        storage = opened(url)
        study = optuna.load_study(study_name="search", storage=storage)
        trial = unfinished(study, storage, 1)
        trial.report(2.5, 0)
        study.tell(trial, 2.0)
    assert [trial.value for trial in begun.trials] == [None, 2.0]
    assert begun.trials[1].intermediate_values == {0: 2.5}
