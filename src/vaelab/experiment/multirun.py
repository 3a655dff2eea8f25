"""Many runs at once, by Hydra's own sweepers and launchers."""

import os
import sys
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path

import hydra
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from vaelab.errors import ConfigError
from vaelab.experiment.check import check
from vaelab.experiment.compose import CONF, compose_with_hydra, searchpath, without_hydra
from vaelab.experiment.folder import RunFolder

TRUST = "VAELAB_TRUST"  # how the workers of a launcher learn what the command line trusts


def multirun(overrides: Sequence[str], *, config_dir: str | Path | None = None, trust: Sequence[str] = ()) -> Path:
    """One run for each combination of the swept values, into one sweep folder, which is returned.

    Hydra runs every job even where one fails; it then exits with 1.

    Raises:
        ConfigError, DataError: a job cannot run; none has been started.
    """
    jobs = list(_jobs(overrides))
    mistakes: dict[str, None] = {}  # each once, in order
    needs: dict[str, DictConfig] = {}  # one job for each choice of data and devices
    first: DictConfig | None = None
    for job in jobs:
        try:
            config = compose_with_hydra(job, config_dir=config_dir)
            first = first or config
            own = without_hydra(config)
            check(own, trust=trust)
            needs.setdefault(OmegaConf.to_yaml({"data": own.data, "trainer": own.trainer}), own)
        except ConfigError as error:
            mistakes |= dict.fromkeys(error.mistakes)
    if mistakes or first is None:
        raise ConfigError(list(mistakes) or ["nothing to run: a swept parameter has no values"])
    from vaelab.experiment.run import ready

    for own in needs.values():
        ready(own, trust=trust)
    chosen = any(override.startswith("hydra.sweep.dir=") for override in overrides)
    folder = RunFolder.claim(first.hydra.sweep.dir, exact=chosen).path
    os.environ[TRUST] = ",".join(trust)
    arguments = [text for text in overrides if not text.startswith("hydra.sweep.dir=")]
    arguments += [f"hydra.sweep.dir='{folder}'", *searchpath(config_dir)]
    saved = sys.argv
    sys.argv = ["vaelab", "--multirun", *arguments]
    try:
        hydra.main(version_base="1.3", config_path=str(CONF), config_name="train")(run_job)()
    finally:
        sys.argv = saved
    return folder


def run_job(config: DictConfig) -> None:
    """One job of a multirun, in whatever process the launcher has put it."""
    from vaelab.experiment.run import train_into

    trust = [package for package in os.environ.get(TRUST, "").split(",") if package]
    job = HydraConfig.get()
    overrides = list(job.overrides.task)
    train_into(job.runtime.output_dir, without_hydra(config), exact=True, trust=trust, overrides=overrides)


def _jobs(overrides: Sequence[str]) -> Iterator[Sequence[str]]:
    """The overrides of each job, as Hydra's basic sweeper makes them."""
    parsed = OverridesParser.create().parse_overrides(list(overrides))
    return chain.from_iterable(BasicSweeper.split_arguments(parsed, max_batch_size=None))
