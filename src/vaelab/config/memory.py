"""Measure the memory of the machine, container or job."""

import os
from collections.abc import Iterator
from pathlib import Path

CGROUPS, OWN = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


def memory(cgroups: Path = CGROUPS, own: Path = OWN) -> float:
    """Return the bytes that this process may use: the machine's, or less where a container or a job has a limit.

    Args:
        cgroups: where Linux shows the control groups, of version 1 or 2.
        own: the file that says which of them this process is in.

    Returns:
        Infinity where the system does not report it.
    """
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        machine = float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    else:
        machine = float("inf")
    return min([machine, *_limits(cgroups, own)])


def _limits(cgroups: Path, own: Path) -> Iterator[float]:
    """Yield the limit of each control group, from this process's own up to the root."""
    try:
        entries = [line.split(":", 2) for line in own.read_text().splitlines()]
    except OSError:
        return
    for _, controllers, path in entries:
        if controllers not in ("", "memory"):
            continue
        root, name = (cgroups, "memory.max") if not controllers else (cgroups / "memory", "memory.limit_in_bytes")
        place = root / path.lstrip("/")
        for folder in [place, *place.parents]:
            if root == folder or root in folder.parents:
                try:
                    yield float((folder / name).read_text())
                except (OSError, ValueError):  # there is no limit, or it is "max"
                    continue
