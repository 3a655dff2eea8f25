"""The memory that training takes, over what it imports and the data themselves."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

TRAIN = """
import resource, sys
import torch, torchvision, pytorch_lightning, matplotlib.pyplot, matplotlib.backends.backend_agg, PIL.PngImagePlugin
import tensorboard, torch.utils.tensorboard, vaelab
from vaelab.runs import run
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
imports = peak()
options = ["trainer=cpu", "trainer.max_epochs=1", "callbacks.progress_bar=null"]
config = vaelab.compose([*options, "data.root=" + sys.argv[1]])
vaelab.train(config, folder=sys.argv[2])
print(peak() - imports)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="other systems count in other units")
def test_training_on_as_many_images_as_mnist_has_takes_150_megabytes_over_the_data(tmp_path: Path) -> None:
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    generator = np.random.default_rng(0)
    for part, count in (("train", 60_000), ("t10k", 10_000)):
        pixels, labels = generator.integers(0, 256, (count, 784), np.uint8), generator.integers(0, 10, count, np.uint8)
        header = np.array([0x803, count, 28, 28], ">i4").tobytes()
        (raw / f"{part}-images-idx3-ubyte").write_bytes(header + pixels.tobytes())
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(np.array([0x801, count], ">i4").tobytes() + labels.tobytes())
    result = subprocess.run(
        [sys.executable, "-c", TRAIN, tmp_path, tmp_path / "run"], capture_output=True, text=True, timeout=600
    )
    assert result.returncode == 0, result.stderr
    data = 70_000 * 784 / 2**20
    assert float(result.stdout.splitlines()[-1]) < 150 + data
