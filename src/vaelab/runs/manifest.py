"""Record what a run depends on besides its config: command, code, versions, data, hardware."""

import os
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

import vaelab
from vaelab.config.overrides import is_below, parse
from vaelab.data import ImageData, Images
from vaelab.runs.documents import Git, Manifest
from vaelab.text import clean

PACKAGES = ("vaelab", "torch", "torchvision", "pytorch-lightning", "hydra-core", "omegaconf", "numpy")
NOT_OF_ONE = ("hydra", "sweep")  # keys of overrides that are not a single run's


def manifest(data: ImageData, *, seed: int, overrides: Sequence[str] = ()) -> Manifest:
    """Make the manifest of a run that is started here and now."""
    return Manifest(
        overrides=list(overrides),
        command=sys.argv,
        repeat=_repeated(overrides, sys.argv),
        folder=str(Path.cwd()),
        seed=seed,
        git=_git(),
        packages={"python": platform.python_version()} | {name: _version(name) for name in PACKAGES},
        data={name: _checksum(images) for name, images in data.splits._asdict().items()},
        hardware={
            "platform": platform.platform(),
            "processor": platform.machine(),
            "model": _processor(),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "cpu_capability": torch.backends.cpu.get_cpu_capability(),
            "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        },
    )


def circumstances(then: Manifest, now: Manifest) -> dict[str, list[str]]:
    """List what differs between two manifests in packages, data, hardware and code.

    Code is compared if both runs were started in a git repository.
    """
    changed = {}
    parts: dict[str, tuple[Mapping[str, Any], Mapping[str, Any]]] = {
        "packages": (then.packages, now.packages),
        "data": (then.data, now.data),
        "hardware": (then.hardware, now.hardware),
    }
    for part, (before, after) in parts.items():
        changed[part] = [f"{key} {before[key]} -> {after.get(key)}" for key in before if before[key] != after.get(key)]
    if then.git and now.git:
        commits = then.git.commit[:12], now.git.commit[:12]
        changed["code"] = [f"commit {commits[0]} -> {commits[1]}"] if then.git.commit != now.git.commit else []
        changed["code"] += ["uncommitted changes"] if then.git.diff != now.git.diff else []
    return {part: changes for part, changes in changed.items() if changes}


def _repeated(overrides: Sequence[str], typed: Sequence[str]) -> list[str]:
    """`vaelab train` with the overrides of one run; none where it was begun in Python, or with folders of one's own."""
    if not overrides:
        return ["vaelab", "train"] if list(typed[1:]) == ["train"] else []
    given = parse(overrides, [])
    if given.sets("hydra.searchpath") or any(word.startswith(("--config-dir", "--trust")) for word in typed):
        return []
    return ["vaelab", "train", *(str(one.input_line) for one in given if not is_below(one.key_or_group, NOT_OF_ONE))]


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return vaelab.__version__ if package == "vaelab" else None


def _checksum(images: Images) -> str:
    digest = blake2b(digest_size=16)
    described = images.store.description()
    if described is not None:
        digest.update(described.encode())
        digest.update(images.rows(torch.arange(len(images))).numpy().data)
        return digest.hexdigest()
    for pixels in images.chunks():
        digest.update(pixels.numpy().data)
    return digest.hexdigest()


def _processor() -> str:
    """Return the name of the processor, as far as the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((clean(line.partition(": ")[2]) for line in lines if line.startswith("model name")), "")


def _git() -> Git | None:
    """Return the git commit of the working directory, and the diff of uncommitted changes."""
    commit, diff = _output("git", "rev-parse", "HEAD"), _output("git", "diff", "HEAD")
    return None if commit is None else Git(commit, clean(diff or ""))  # as it will be read


def _output(*command: str) -> str | None:
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return result.stdout.strip() if result.returncode == 0 else None
