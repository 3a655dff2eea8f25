"""How fast vaelab trains, beside the loops that people would otherwise write; and what surrounds its training.

    python scripts/benchmark.py                # every network; about an hour of a quiet machine
    python scripts/benchmark.py --quick        # the small one, few epochs
    python scripts/benchmark.py whole          # what validation, checkpoints, test and figures add to a run
    python scripts/benchmark.py startup        # from the command to its answer, or to the first step
    python scripts/benchmark.py memory         # the peak of training over that of the imports

`train` compares four loops over the same 60,000 images of MNIST: the same network, loss (binary cross-entropy summed
over pixels + KL), batch size, Adam and number of threads. They take turns, an epoch each, A B C D A B C D, in one
process, so that whatever else the machine does hits all of them. An epoch of vaelab is everything between two starts
of one: steps, logging to TensorBoard, progress bar, checkpoint. The first epoch is told apart; of the others the
median counts, and ratios are medians of ratios within a turn. Seconds of processor time stand beside those of the
clock: on a busy machine they are the steadier ones. At the end all four are tested on the same images.

Writes benchmark_<case>.json and, for `train`, .png into --output. MNIST is expected in, or downloaded to, --root.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchvision import datasets, transforms

import vaelab

LATENT, RATE = 20, 1e-3
console = Console(file=sys.stderr, width=120)


class Case(NamedTuple):
    """One network and batch size: for vaelab, and in plain PyTorch (encoder, its features, decoder)."""

    overrides: list[str]
    network: Callable[[], tuple[nn.Module, int, nn.Module]]
    batch: int = 128


def mlp(*widths: int) -> tuple[nn.Module, int, nn.Module]:
    """784 - widths - 20 - widths reversed - 784, ReLU."""
    encoder: list[nn.Module] = [nn.Flatten()]
    for a, b in zip((784, *widths), widths, strict=False):
        encoder += [nn.Linear(a, b), nn.ReLU()]
    decoder: list[nn.Module] = []
    for a, b in zip((LATENT, *widths[::-1]), widths[::-1], strict=False):
        decoder += [nn.Linear(a, b), nn.ReLU()]
    decoder += [nn.Linear(widths[0], 784), nn.Unflatten(1, (1, 28, 28))]
    return nn.Sequential(*encoder), widths[-1], nn.Sequential(*decoder)


def convolutional() -> tuple[nn.Module, int, nn.Module]:
    """Two convolutions of stride 2 and a layer of 256, and back."""
    encoder = nn.Sequential(
        nn.Conv2d(1, 32, 4, 2, 1), nn.ReLU(), nn.Conv2d(32, 64, 4, 2, 1), nn.ReLU(),
        nn.Flatten(), nn.Linear(64 * 49, 256), nn.ReLU(),
    )  # fmt: skip
    decoder = nn.Sequential(
        nn.Linear(LATENT, 256), nn.ReLU(), nn.Linear(256, 64 * 49), nn.ReLU(), nn.Unflatten(1, (64, 7, 7)),
        nn.ConvTranspose2d(64, 32, 4, 2, 1), nn.ReLU(), nn.ConvTranspose2d(32, 1, 4, 2, 1),
    )  # fmt: skip
    return encoder, 256, decoder


WIDE = ["encoder.hidden=[1024,1024]", "decoder.hidden=[1024,1024]"]
CASES = {
    "small": Case([], lambda: mlp(400)),
    "large batch": Case(["data.batch_size=1024"], lambda: mlp(400), 1024),
    "wide": Case(WIDE, lambda: mlp(1024, 1024)),
    "conv": Case(["encoder=conv", "decoder=conv"], convolutional),
}


class PlainVAE(nn.Module):
    """Mean and log-variance of q(z|x), and the logits at a sample of it."""

    def __init__(self, case: Case) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.encoder, features, self.decoder = case.network()
        self.mean, self.log_variance = nn.Linear(features, LATENT), nn.Linear(features, LATENT)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(logits, mean, log-variance) of images (B, 1, 28, 28)."""
        h = self.encoder(x)
        mean, log_variance = self.mean(h), self.log_variance(h)
        z = mean + torch.exp(0.5 * log_variance) * torch.randn_like(mean)
        return self.decoder(z), mean, log_variance


def divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL(q(z|x) || N(0, I)), summed over the batch."""
    return -0.5 * torch.sum(1 + log_variance - mean.pow(2) - log_variance.exp())


class Tutorial:
    """Per-sample transforms, a DataLoader, Adam as it comes, the loss asked for after every step."""

    def __init__(self, case: Case, root: str) -> None:
        images = datasets.MNIST(root, train=True, transform=transforms.ToTensor())
        self.loader = DataLoader(images, batch_size=case.batch, shuffle=True)
        self.model = PlainVAE(case)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=RATE)

    def epoch(self) -> None:
        """One epoch."""
        total = 0.0
        for x, _ in self.loader:
            self.optimizer.zero_grad()
            logits, mean, log_variance = self.model(x)
            loss = F.binary_cross_entropy(logits.sigmoid(), x, reduction="sum") + divergence(mean, log_variance)
            loss.backward()
            total += loss.item()
            self.optimizer.step()


class ByHand:
    """What a careful engineer writes: pixels in memory, gathered by index, fused Adam, nothing asked of a step."""

    def __init__(self, case: Case, root: str) -> None:
        self.pixels = datasets.MNIST(root, train=True).data.unsqueeze(1)
        self.batch = case.batch
        self.model = PlainVAE(case)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=RATE, fused=True)

    def epoch(self) -> None:
        """One epoch."""
        total = torch.zeros(())
        for index in torch.randperm(len(self.pixels)).split(self.batch):
            x = self.pixels[index].float().div_(255)
            logits, mean, log_variance = self.model(x)
            loss = F.binary_cross_entropy_with_logits(logits, x, reduction="sum") + divergence(mean, log_variance)
            self.optimizer.zero_grad()
            (loss / len(x)).backward()
            self.optimizer.step()
            total += loss.detach()


class Pythae:
    """pythae's BaseTrainer over images that are float tensors in memory already, an epoch at a time."""

    def __init__(self, case: Case, root: str) -> None:
        from pythae.data.datasets import BaseDataset
        from pythae.models import VAE, VAEConfig
        from pythae.models.base.base_utils import ModelOutput
        from pythae.models.nn import BaseDecoder, BaseEncoder
        from pythae.trainers import BaseTrainer, BaseTrainerConfig

        plain = PlainVAE(case)

        class Encoder(BaseEncoder):  # type: ignore[misc]
            def __init__(self) -> None:
                super().__init__()
                self.layers, self.mean, self.log_variance = plain.encoder, plain.mean, plain.log_variance

            def forward(self, x: Tensor) -> Any:
                h = self.layers(x)
                return ModelOutput(embedding=self.mean(h), log_covariance=self.log_variance(h))

        class Decoder(BaseDecoder):  # type: ignore[misc]
            def __init__(self) -> None:
                super().__init__()
                self.layers = plain.decoder

            def forward(self, z: Tensor) -> Any:
                return ModelOutput(reconstruction=self.layers(z).sigmoid())

        self.model = plain
        pixels = datasets.MNIST(root, train=True).data.unsqueeze(1).float() / 255
        config = VAEConfig(input_dim=(1, 28, 28), latent_dim=LATENT, reconstruction_loss="bce")
        self.trainer = BaseTrainer(
            VAE(config, encoder=Encoder(), decoder=Decoder()),
            BaseDataset(pixels, torch.zeros(len(pixels))),
            training_config=BaseTrainerConfig(
                output_dir=tempfile.mkdtemp(),
                per_device_train_batch_size=case.batch,
                learning_rate=RATE,
                optimizer_cls="Adam",
                no_cuda=True,
            ),
        )
        self.trainer.prepare_training()
        self.number = 0

    def epoch(self) -> None:
        """One epoch."""
        self.number += 1
        self.trainer.train_step(self.number)


LOOPS: dict[str, type] = {"tutorial": Tutorial, "by hand": ByHand} | ({"pythae": Pythae} if find_spec("pythae") else {})
Times = dict[str, list[tuple[float, float]]]  # loop -> (clock, processor) seconds of each epoch


class Turns(pl.Callback):
    """Before each epoch of vaelab, one of every other loop; all timed."""

    def __init__(self, others: dict[str, Any], times: Times) -> None:
        self.others, self.times = others, times
        self.started: tuple[float, float] | None = None

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The epoch before, with its checkpoint, is over."""
        self.on_train_end(trainer, pl_module)
        assert trainer.progress_bar_callback is not None
        bar = trainer.progress_bar_callback.progress  # its thread would take time from the others
        bar.stop()
        for name, loop in self.others.items():
            start = now()
            loop.epoch()
            self.times.setdefault(name, []).append(since(start))
        bar.start()
        self.started = now()

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """So is the last one."""
        if self.started is not None:
            self.times.setdefault("vaelab", []).append(since(self.started))
            self.started = None
            turn = {name: seconds[-1][1] for name, seconds in self.times.items()}
            console.print("  ".join(f"{name} {value:.2f}" for name, value in turn.items()), highlight=False)


class Clock(pl.Callback):
    """What went into training batches, all callbacks' work for a batch included: (clock, processor) seconds."""

    def __init__(self) -> None:
        self.batches: list[tuple[float, float]] = []
        self.began = self.started = now()

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """From here on, what is not a batch surrounds them."""
        self.began = now()

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Batches follow."""
        self.started = now()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """The last batch ends them."""
        if trainer.is_last_batch:
            self.batches.append(since(self.started))


class FirstStep(pl.Callback):
    """Says when the optimizer has made its first step."""

    def on_train_batch_end(self, *arguments: Any) -> None:
        """Say so, with the modules that were imported by then."""
        print("first step", len(sys.modules), flush=True)


_watching: pl.Callback = FirstStep()


def watching(folder: Path, /) -> pl.Callback:
    """The callback that a config of this benchmark names."""
    return _watching


def now() -> tuple[float, float]:
    """Seconds of the clock and of this process's processors."""
    return time.perf_counter(), time.process_time()


def since(start: tuple[float, float]) -> tuple[float, float]:
    """Seconds of both since then."""
    clock, processor = now()
    return clock - start[0], processor - start[1]


@contextmanager
def unseen() -> Iterator[None]:
    """Let a progress bar draw as on a terminal, where nobody sees it."""
    os.environ["FORCE_COLOR"] = "1"
    try:
        with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere):
            yield
    finally:
        del os.environ["FORCE_COLOR"]


def vaelab_trains(callback: pl.Callback, *overrides: str) -> vaelab.Run:
    """`vaelab.train` with all its defaults and one more callback."""
    global _watching
    _watching = callback
    config = vaelab.compose([*overrides, f"+callbacks.watching._target_={__name__}.watching"])
    with unseen():
        return vaelab.train(config, folder=Path(tempfile.mkdtemp(), "run"), trust=[__name__])


def train(options: argparse.Namespace) -> dict[str, Any]:
    """Every network: the four loops in turns."""
    results = {}
    test = datasets.MNIST(options.root, train=False).data.unsqueeze(1).float() / 255
    for name in options.networks:
        case, times = CASES[name], Times()
        console.rule(f"{name}, processor seconds")
        others = {loop: made(case, options.root) for loop, made in LOOPS.items()}
        run = vaelab_trains(
            Turns(others, times),
            f"data.root={options.root}",
            "data.validation=0",
            "trainer=cpu",
            f"trainer.max_epochs={options.epochs}",
            f"optimizer.lr={RATE}",
            *case.overrides,
        )
        losses = {loop: negative_elbo(other.model, test) for loop, other in others.items()}
        losses["vaelab"] = -run.metrics["test/elbo"]
        results[name] = summary(times, losses)
    print_ratios(results)
    draw(results, options.output / "benchmark_train.png")
    return results


@torch.no_grad()
def negative_elbo(model: PlainVAE, images: Tensor) -> float:
    """In nats an image, z sampled."""
    logits, mean, log_variance = model.eval()(images)
    total = F.binary_cross_entropy_with_logits(logits, images, reduction="sum") + divergence(mean, log_variance)
    return total.item() / len(images)


def summary(times: Times, losses: dict[str, float]) -> dict[str, Any]:
    """Median seconds of each loop, and vaelab's ratios to the others."""
    later = {name: seconds[1:] for name, seconds in times.items()}
    return {
        "loops": {
            name: {
                "first_epoch_s": times[name][0][0],
                "epoch_s": median(clock for clock, _ in seconds),
                "epoch_processor_s": median(processor for _, processor in seconds),
                "test_negative_elbo": losses[name],
            }
            for name, seconds in later.items()
        },
        "vaelab_to": {
            name: {
                kind: median(ours[i] / theirs[i] for ours, theirs in zip(later["vaelab"], seconds, strict=True))
                for i, kind in enumerate(("clock", "processor"))
            }
            for name, seconds in later.items()
            if name != "vaelab"
        },
    }


def print_ratios(results: dict[str, Any]) -> None:
    """A table of both."""
    table = Table("network", "loop", "first epoch s", "epoch s", "processor s", "vaelab / loop", "processor", "-ELBO")
    for case, result in results.items():
        for loop, numbers in result["loops"].items():
            ratio = result["vaelab_to"].get(loop, {"clock": 1.0, "processor": 1.0})
            table.add_row(
                case,
                loop,
                *(f"{numbers[key]:.2f}" for key in ("first_epoch_s", "epoch_s", "epoch_processor_s")),
                *(f"{ratio[key]:.2f}" for key in ("clock", "processor")),
                f"{numbers['test_negative_elbo']:.2f}",
            )
        table.add_section()
    Console(width=120).print(table)


def draw(results: dict[str, Any], path: Path) -> None:
    """Bars of processor seconds an epoch, relative to the loop by hand."""
    import matplotlib as mpl

    mpl.use("agg")
    import matplotlib.pyplot as plt

    loops = ["vaelab", "by hand", "pythae", "tutorial"]
    loops = [loop for loop in loops if all(loop in result["loops"] for result in results.values())]
    figure, axes = plt.subplots(figsize=(1.5 + 1.7 * len(results), 3.2), layout="constrained")
    width = 0.8 / len(loops)
    for i, loop in enumerate(loops):
        heights = [
            result["loops"][loop]["epoch_processor_s"] / result["loops"]["by hand"]["epoch_processor_s"]
            for result in results.values()
        ]
        places = [case + (i - (len(loops) - 1) / 2) * width for case in range(len(results))]
        bars = axes.bar(places, heights, width, label=loop, color=["#d1495b", "#8d99ae", "#ccd5ae", "#e9c46a"][i])
        axes.bar_label(bars, fmt="%.2f", fontsize=7)
    axes.axhline(1, color="black", linewidth=0.5)
    axes.set_xticks(range(len(results)), list(results))
    axes.set_ylabel("time of an epoch,\nrelative to the loop by hand")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=150)


def whole(options: argparse.Namespace) -> dict[str, Any]:
    """What surrounds the batches of a run: validation on 10,000 images, checkpoints, test, figures."""
    clock = Clock()
    vaelab_trains(clock, f"data.root={options.root}", "trainer=cpu", f"trainer.max_epochs={options.epochs}")
    result: dict[str, Any] = {"epochs": options.epochs}
    for i, kind in enumerate(("clock", "processor")):
        batches = sum(seconds[i] for seconds in clock.batches)
        around = since(clock.began)[i] - batches
        result[kind] = {"batches_s": batches, "around_s": around, "share": around / batches}
        console.print(
            f"{options.epochs} epochs of the small network, by the {kind}: {batches:.1f} s of batches; validation, "
            f"checkpoints, test and figures add {around:.1f} s, {100 * around / batches:.1f} %"
        )
    return result


def startup(options: argparse.Namespace) -> dict[str, Any]:
    """Median seconds of commands beside those of the imports that bound them, in turns."""
    python = [sys.executable, "-c"]
    command = [sys.executable, "-m", "vaelab", "train"]
    me = Path(__file__).stem
    first = [*command, "trainer=cpu", f"data.root={options.root}", "--trust", me]
    first += [f"+callbacks.watching._target_={me}.watching"]
    commands = {
        "import torch": [*python, "import torch"],
        "vaelab --help": [*command[:-1], "--help"],
        "an unknown option": [*command, "model=vea"],
        "a value out of range": [*command, "latent_dim=-1"],
        "import torch, pytorch_lightning": [*python, "import torch, pytorch_lightning"],
        "command to first step": first,
    }
    seconds: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(options.repeats):
            for name, arguments in commands.items():
                seconds.setdefault(name, []).append(time_to_answer(arguments, folder))
    result = {name: median(values) for name, values in seconds.items()}
    table = Table("", "s")
    for name, value in result.items():
        table.add_row(name, f"{value:.2f}")
    Console(width=120).print(table)
    return result


def time_to_answer(arguments: list[str], folder: str) -> float:
    """Seconds until a command ends, or has made its first step."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path[1:]])}
    start = time.perf_counter()
    with subprocess.Popen(
        arguments, cwd=folder, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if "first step" in line:
                seconds = time.perf_counter() - start
                process.kill()
                return seconds
    return time.perf_counter() - start


MEMORY = """
import resource, sys, tempfile
import torch, torchvision, pytorch_lightning, matplotlib.pyplot, matplotlib.backends.backend_agg, PIL.PngImagePlugin
import tensorboard, torch.utils.tensorboard, vaelab
from vaelab.experiment import run
from vaelab.data import MNIST
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
imports = peak()
config = vaelab.compose(["trainer=cpu", "trainer.max_epochs=1", "data.root=" + sys.argv[1]])
vaelab.train(config, folder=tempfile.mkdtemp() + "/run")
print("\\n", imports, peak())
"""


def memory(options: argparse.Namespace) -> dict[str, Any]:
    """Peak resident megabytes of a run on MNIST, over those of its imports."""
    output = subprocess.run(
        [sys.executable, "-c", MEMORY, options.root], stdout=subprocess.PIPE, text=True, check=True
    ).stdout
    imports, peak = map(float, output.splitlines()[-1].split())
    data = 70_000 * 784 / 2**20
    console.print(
        f"imports {imports:.0f} MB, data {data:.0f} MB, peak {peak:.0f} MB: {peak - imports - data:.0f} MB over both"
    )
    return {"imports_mb": imports, "data_mb": data, "peak_mb": peak}


def machine(threads: int) -> dict[str, Any]:
    """What the numbers were measured on."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    named = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    return {
        "processor": named.get("model name", platform.processor()),
        "cores": os.cpu_count(),
        "threads": threads,
        "amx_bf16": "amx_bf16" in named.get("flags", "").split(),
        "torch": torch.__version__,
        "load": os.getloadavg(),
    }


def main() -> None:
    """Run one benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    benchmarks = {function.__name__: function for function in (train, whole, startup, memory)}
    parser.add_argument("case", nargs="?", default="train", choices=benchmarks)
    parser.add_argument("--quick", action="store_true", help="the small network only, few epochs")
    parser.add_argument("--networks", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--epochs", type=int, help="by default 6 for train, 20 for whole")
    parser.add_argument("--repeats", type=int, default=5, help="of startup")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--root", default="data", help="where MNIST is")
    parser.add_argument("--output", type=Path, default=Path("outputs"))
    options = parser.parse_args()
    options.root = str(Path(options.root).absolute())
    if options.quick:
        options.networks, options.repeats = ["small"], 1
    options.epochs = options.epochs or {True: 3, False: 6}[options.quick] * (1 if options.case == "train" else 3)
    torch.set_num_threads(options.threads)
    os.environ["OMP_NUM_THREADS"] = str(options.threads)
    options.output.mkdir(parents=True, exist_ok=True)
    result = {"machine": machine(options.threads), options.case: benchmarks[options.case](options)}
    path = options.output / f"benchmark_{options.case}.json"
    path.write_text(json.dumps(result, indent=2) + "\n")
    console.print(path)


if __name__ == "__main__":
    main()
