import multiprocessing
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

if TYPE_CHECKING:
    from playwright.sync_api import Browser

TESTS = Path(__file__).parent
# Helpers of several tests; the processes that these start take the paths over.
sys.path[:0] = [str(TESTS), str(TESTS / "runs"), str(TESTS / "sharing"), str(TESTS.parent / "scripts")]


def _forked_from_ours(modules: object) -> None:
    """Jobs of sweeps in this process are forked from the same process as the commands of processes.py."""
    from processes import begin

    begin()


multiprocessing.get_context("forkserver").set_forkserver_preload = _forked_from_ours  # type: ignore[method-assign]


@pytest.fixture(scope="session")
def raw_sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """300 training and 30 test images of noise, under the name of each of torchvision's datasets.

    Beside them an array of 300, one of counts, a table and a folder of photographs.
    """
    root = tmp_path_factory.mktemp("data")
    generator = np.random.default_rng(0)
    for name in ("MNIST", "FashionMNIST", "KMNIST"):
        raw = root / name / "raw"
        raw.mkdir(parents=True)
        for part, count in (("train", 300), ("t10k", 30)):
            pixels = generator.integers(0, 256, (count, 28, 28), dtype=np.uint8)
            labels = generator.integers(0, 10, count, dtype=np.uint8)
            header = np.array([0x803, count, 28, 28], ">i4").tobytes()
            (raw / f"{part}-images-idx3-ubyte").write_bytes(header + pixels.tobytes())
            header = np.array([0x801, count], ">i4").tobytes()
            (raw / f"{part}-labels-idx1-ubyte").write_bytes(header + labels.tobytes())
    np.save(root / "images.npy", generator.integers(0, 256, (300, 3, 12, 10), dtype=np.uint8))
    (root / "counts").mkdir()
    np.save(root / "counts" / "images.npy", generator.poisson(3, (60, 12)))
    rows = "\n".join(f"{a:.3f},{b:.3f}" for a, b in generator.normal(size=(60, 2)))
    (root / "table.csv").write_text(f"a,b\n{rows}\n")
    for number in range(40):
        path = (
            root / "photos" / ("train" if number < 30 else "test") / ("cat" if number % 2 else "dog") / f"{number}.png"
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(path)
    return root


SMALL_RUNS = {
    "vae": ["latent_dim=3"],
    "plane": ["latent_dim=2", "encoder=conv", "decoder=conv"],
    "ae": ["model=ae", "latent_dim=4"],
    "ae_plane": ["model=ae", "latent_dim=2"],
    "trained": ["trainer.max_steps=100", "trainer.max_epochs=-1", "trainer.limit_train_batches=1.0"],
    "binary": ["latent_dim=3", "data.binarize=dynamic", "data.validation=0"],
}


@pytest.fixture(scope="session")
def small_run(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Folders of runs of few steps, each trained once: not to be written to."""
    import vaelab

    @cache
    def folder(name: str) -> Path:
        config = vaelab.compose(["data=digits", "trainer=debug", "callbacks.progress_bar=null", *SMALL_RUNS[name]])
        return vaelab.train(config, folder=tmp_path_factory.mktemp("runs") / name).folder

    return folder


@pytest.fixture(scope="module")
def chrome() -> "Iterator[Browser]":
    """A headless Chromium."""
    from screenshots import browser, chromium

    if chromium() is None:
        pytest.skip("there is no Chromium on this machine (on Debian: apt-get install chromium)")
    with browser() as opened:
        yield opened
