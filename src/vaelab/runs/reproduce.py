"""Run a config again, and compare the two runs bit by bit."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from vaelab.config.check import checked
from vaelab.errors import RunError
from vaelab.runs.differences import Difference, differences
from vaelab.runs.folder import RunFolder
from vaelab.runs.locate import folder_of
from vaelab.runs.manifest import circumstances
from vaelab.runs.run import Run, train_into
from vaelab.training.checkpoints import INITIAL


@dataclass(frozen=True)
class Reproduction:
    """A run that was reproduced.

    Args:
        run: the new one.
        differences: the places where its results differ from those of the old one.
        circumstances: what differs between them: packages, data, hardware, code.
    """

    run: Run
    differences: Sequence[Difference]
    circumstances: Mapping[str, Sequence[str]]

    @property
    def identical(self) -> bool:
        """Whether metrics, weights, optimizer and every logged scalar are equal bit by bit."""
        return not self.differences


def reproduce(run: Run | str | Path, *, folder: str | Path | None = None, trust: Sequence[str] = ()) -> Reproduction:
    """Run a run's config again and compare the two.

    Args:
        run: a run that is done, its folder, or a checkpoint in it; also a job of a sweep, and one that was resumed.
        folder: the new run folder; by default outputs/runs/<time>_<name>_again.
        trust: packages of one's own whose classes the config may name.

    Raises:
        RunError: there is no run, it is not done, or `folder` exists.
        ConfigError, DataError: as in `train`.
    """
    original = folder_of(run)
    if not original.done:
        raise RunError(f"{original.path} is not done, so it cannot be compared yet: `vaelab resume {original.path}`")
    original.require_known_servers(trust)
    differences(original.path, original.path)  # raises if it cannot be compared
    config, made_of = original.config, original.manifest
    if made_of is None:
        raise RunError(f"{original.path} has no manifest.json, which says what the run depends on")
    if (kept := original.checkpoints / INITIAL).is_file():
        config.init.run = str(kept.absolute())  # its initial weights, whatever has become of the run that they are from
    what = checked(config, trust=trust, own=False)
    name = f"{datetime.now():%Y-%m-%d_%H-%M-%S}_{what.experiment.name}_again"
    again = train_into(
        folder or Path("outputs", "runs", name),
        what,
        exact=folder is not None,
        overrides=made_of.overrides,
    )
    now = RunFolder.open(again.folder).manifest
    assert now is not None
    return Reproduction(again, differences(original.path, again.folder), circumstances(made_of, now))
