"""Running a run again, and saying whether the same came out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from vaelab.errors import RunError
from vaelab.runs.differences import Difference, differences
from vaelab.runs.folder import RunFolder
from vaelab.runs.manifest import circumstances
from vaelab.runs.run import Run, train_into


@dataclass(frozen=True)
class Reproduction:
    """A run that was made again.

    Args:
        run: the new one.
        differences: the places where its results are not those of the old one, to the bit.
        circumstances: what the two were made of and is not the same: packages, data, hardware, code.
    """

    run: Run
    differences: Sequence[Difference]
    circumstances: Mapping[str, Sequence[str]]

    @property
    def identical(self) -> bool:
        """Whether metrics, weights, optimizer and every logged scalar have the same bits."""
        return not self.differences


def reproduce(run: Run | str | Path, *, folder: str | Path | None = None, trust: Sequence[str] = ()) -> Reproduction:
    """Run a run's config again and compare the two.

    Args:
        run: a run that is done, or its folder; also a job of a sweep, and one that was interrupted and resumed.
        folder: the new run folder; by default outputs/runs/<time>_<name>_again.
        trust: packages of one's own whose classes the config may name.

    Raises:
        RunError: there is no run, it is not done, or `folder` exists.
        ConfigError, DataError: as in `train`.
    """
    original = RunFolder.open(run.folder if isinstance(run, Run) else run)
    if not original.done:
        raise RunError(
            f"{original.path} is not done, so there is nothing to compare with yet: `vaelab resume {original.path}`"
        )
    original.require_known_servers(trust)
    differences(original.path, original.path)  # can it be compared at all?
    config, made_of = original.config, original.manifest
    if made_of is None:
        raise RunError(f"{original.path} has no manifest.json, so there is nothing to say what it was made of")
    name = f"{datetime.now():%Y-%m-%d_%H-%M-%S}_{config.get('name')}_again"
    again = train_into(
        folder or Path("outputs", "runs", name),
        config,
        exact=folder is not None,
        trust=trust,
        overrides=made_of.overrides,
        fetch=False,
    )
    now = RunFolder.open(again.folder).manifest
    assert now is not None
    return Reproduction(again, differences(original.path, again.folder), circumstances(made_of, now))
