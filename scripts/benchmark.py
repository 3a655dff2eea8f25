"""How fast vaelab trains, beside the loops that people would otherwise write; and what surrounds its training.

    python scripts/benchmark.py                # every network: minutes on a quiet machine
    python scripts/benchmark.py --quick        # the small one, few epochs; so with each of the following
    python scripts/benchmark.py step           # where the time of a step goes
    python scripts/benchmark.py whole          # what validation, checkpoints, test and figures add to a run
    python scripts/benchmark.py mapped         # an epoch over a mapped file beside one over memory
    python scripts/benchmark.py bf16           # bf16-mixed beside float32, where the processor has products of them
    python scripts/benchmark.py sweep          # several processes beside one, and the sweep's own part of a job
    python scripts/benchmark.py startup        # from the command to its answer, or to the first step
    python scripts/benchmark.py memory         # the peak of training over that of the imports
    python scripts/benchmark.py nll            # the likelihood by 5,000 samples, beside its matrix products alone

`train` compares loops over the same 60,000 images of MNIST: the same network, loss (binary cross-entropy summed over
pixels + KL), batch size, Adam and number of threads, which is also that of the cores that the process may use. They
take turns, an epoch each, A B C A B C, in one process, so that whatever else the machine does hits all of them. An
epoch of vaelab is everything between two starts of one: steps, logging to TensorBoard, progress bar, checkpoint. The
first epoch is told apart; of the others the median counts, and ratios are medians of ratios within a turn. Seconds of
processor time stand beside those of the clock: on a busy machine they are the steadier ones. At the end all are tested
on the same images. `pip install "vaelab[benchmark]"` brings JAX; its loop, and pythae's, are left out where they are
not installed; JAX's has the networks without convolutions. `--isa avx2` has torch and JAX leave AVX-512 and AMX unused.

Writes benchmark_<case>.json into --output and, for `train`, a picture to --figure. MNIST is expected in, or downloaded
to, --root.
"""

import argparse
import ctypes
import json
import os
import platform
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from importlib.util import find_spec
from itertools import chain, repeat
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchvision import datasets, transforms

import vaelab
from vaelab.training.bundles import TakesBundles

LATENT, RATE = 20, 1e-3
FORCED = {
    "avx2": {
        "ATEN_CPU_CAPABILITY": "avx2",
        "DNNL_MAX_CPU_ISA": "AVX2",
        "MKL_ENABLE_INSTRUCTIONS": "AVX2",
        "XLA_FLAGS": "--xla_cpu_max_isa=AVX2",
    }
}
console = Console(file=sys.stderr, width=120)


class Case(NamedTuple):
    """One network and batch size: for vaelab, and in plain PyTorch (encoder, its features, decoder)."""

    overrides: list[str]
    network: Callable[[], tuple[nn.Module, int, nn.Module]]
    batch: int = 128
    epochs: int = 3  # of `train`, unless --epochs says


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
    "small": Case([], lambda: mlp(400), epochs=4),
    "large batch": Case(["data.batch_size=1024"], lambda: mlp(400), 1024, epochs=4),
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

    def loss(self, x: Tensor) -> Tensor:
        """Of images (B, 1, 28, 28), summed."""
        logits, mean, log_variance = self.model(x)
        return F.binary_cross_entropy_with_logits(logits, x, reduction="sum") + divergence(mean, log_variance)

    def epoch(self) -> None:
        """One epoch."""
        total = torch.zeros(())
        for index in torch.randperm(len(self.pixels)).split(self.batch):
            x = self.pixels[index].float().div_(255)
            loss = self.loss(x)
            self.optimizer.zero_grad()
            (loss / len(x)).backward()
            self.optimizer.step()
            total += loss.detach()


class Compiled(ByHand):
    """The same with forward pass and loss compiled by torch.compile."""

    def __init__(self, case: Case, root: str) -> None:
        super().__init__(case, root)
        self.loss = torch.compile(super().loss)


class Jax:
    """A whole epoch in one call: a scan over the batches, compiled by jax.jit."""

    def __init__(self, case: Case, root: str) -> None:
        import jax
        import jax.numpy as jnp
        import optax

        self.model, self.jax = PlainVAE(case), jax
        pixels = datasets.MNIST(root, train=True).data.reshape(-1, 784).numpy()
        adam, batch = optax.adam(RATE), case.batch
        whole = len(pixels) // batch * batch

        def mlp(layers: Any, h: Any) -> Any:
            for weight, bias in layers[:-1]:
                h = jax.nn.relu(h @ weight + bias)
            weight, bias = layers[-1]
            return h @ weight + bias

        def loss(parameters: Any, x: Any, key: Any) -> Any:
            encoder, heads, decoder = parameters
            mean, log_variance = jnp.split(mlp([*encoder, heads], x), 2, axis=1)
            logits = mlp(decoder, mean + jnp.exp(0.5 * log_variance) * jax.random.normal(key, mean.shape))
            kl = -0.5 * (1 + log_variance - mean**2 - jnp.exp(log_variance)).sum()
            return (optax.sigmoid_binary_cross_entropy(logits, x).sum() + kl) / len(x)

        def step(state: Any, index: Any) -> Any:
            parameters, moments, key = state
            key, noise = jax.random.split(key)
            x = self.pixels[index].astype(jnp.float32) / 255
            value, gradients = jax.value_and_grad(loss)(parameters, x, noise)
            updates, moments = adam.update(gradients, moments)
            return (optax.apply_updates(parameters, updates), moments, key), value

        def epoch(state: Any) -> Any:
            parameters, moments, key = state
            key, shuffle = jax.random.split(key)
            order = jax.random.permutation(shuffle, len(pixels))
            state, losses = jax.lax.scan(step, (parameters, moments, key), order[:whole].reshape(-1, batch))
            if whole < len(pixels):
                state, last = step(state, order[whole:])
                return state, losses.sum() + last
            return state, losses.sum()

        def weights(layer: nn.Module) -> Any:
            return jnp.asarray(layer.weight.detach().T.numpy()), jnp.asarray(layer.bias.detach().numpy())

        def layers(network: nn.Module) -> list[Any]:
            return [weights(layer) for layer in network.children() if isinstance(layer, nn.Linear)]

        heads = [weights(self.model.mean), weights(self.model.log_variance)]
        self.pixels = jnp.asarray(pixels)
        parameters = (
            layers(self.model.encoder),
            tuple(jnp.concatenate(both, axis=-1) for both in zip(*heads, strict=True)),
            layers(self.model.decoder),
        )
        self.state = parameters, adam.init(parameters), jax.random.key(0)
        self.run = jax.jit(epoch, donate_argnums=0)

    def epoch(self) -> None:
        """One epoch."""
        self.state, total = self.run(self.state)
        total.block_until_ready()

    def finish(self) -> None:
        """Copy the weights into the model in PyTorch."""
        (encoder, (weight, bias), decoder), *_ = self.jax.device_get(self.state)
        split = [(weight[:, :LATENT], bias[:LATENT]), (weight[:, LATENT:], bias[LATENT:])]
        networks = [self.model.encoder, nn.Sequential(self.model.mean, self.model.log_variance), self.model.decoder]
        for network, arrays in zip(networks, [encoder, split, decoder], strict=True):
            linear = [layer for layer in network.children() if isinstance(layer, nn.Linear)]
            for layer, (w, b) in zip(linear, arrays, strict=True):
                layer.weight.data, layer.bias.data = torch.tensor(w.T), torch.tensor(b)


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
        os.environ["TQDM_DISABLE"] = "1"
        self.number = 0

    def epoch(self) -> None:
        """One epoch."""
        self.number += 1
        self.trainer.train_step(self.number)


LOOPS: dict[str, type] = {"tutorial": Tutorial, "by hand": ByHand, "compiled": Compiled}
LOOPS |= {name: loop for name, loop in {"jax": Jax, "pythae": Pythae}.items() if find_spec(name)}
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


class Clock(TakesBundles, pl.Callback):
    """What went into an epoch's batches, all callbacks' work for a batch included: (clock, processor) seconds."""

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
            nowhere.isatty = lambda: True  # type: ignore[method-assign]
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
    """Every network: the loops in turns."""
    results = {}
    if hasattr(os, "sched_setaffinity"):  # JAX takes a thread for each core that it may use
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.threads])
    test = datasets.MNIST(options.root, train=False).data.unsqueeze(1).float() / 255
    for name in options.networks:
        case, times = CASES[name], Times()
        console.rule(f"{name}, processor seconds")
        loops = [loop for loop in options.loops if loop != "jax" or name != "conv"]
        others = {loop: made(case, options.root) for loop, made in LOOPS.items() if loop in loops}
        run = vaelab_trains(
            Turns(others, times),
            f"data.root={options.root}",
            "data.validation=0",
            "trainer=cpu",
            f"threads={options.threads}",  # not those that are fastest for the network, which the others would get too
            f"trainer.max_epochs={options.epochs or case.epochs}",
            f"optimizer.lr={RATE}",
            *case.overrides,
        )
        if "jax" in others:
            others["jax"].finish()
        losses = {loop: negative_elbo(other.model, test) for loop, other in others.items()}
        losses["vaelab"] = -run.metrics["test/elbo"]
        results[name] = summary(times, losses)
    print_ratios(results)
    if "by hand" in options.loops:  # the one that the picture is relative to
        draw(results, options.figure or options.output / "benchmark_train.png")
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

    colors = {"vaelab": "#d1495b", "by hand": "#8d99ae", "compiled": "#00798c", "jax": "#30638e", "pythae": "#ccd5ae"}
    colors["tutorial"] = "#e9c46a"
    loops = [loop for loop in colors if all(loop in result["loops"] for result in results.values())]
    figure, axes = plt.subplots(figsize=(1.5 + 1.7 * len(results), 3.2), layout="constrained")
    width = 0.8 / len(loops)
    for i, loop in enumerate(loops):
        heights = [
            result["loops"][loop]["epoch_processor_s"] / result["loops"]["by hand"]["epoch_processor_s"]
            for result in results.values()
        ]
        places = [case + (i - (len(loops) - 1) / 2) * width for case in range(len(results))]
        bars = axes.bar(places, heights, width, label=loop, color=colors[loop])
        axes.bar_label(bars, fmt="%.2f", fontsize=7)
    axes.axhline(1, color="black", linewidth=0.5)
    axes.set_xticks(range(len(results)), list(results))
    axes.set_ylabel("time of an epoch,\nrelative to the loop by hand")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=150)


def whole(options: argparse.Namespace) -> dict[str, Any]:
    """What surrounds the batches of a run: validation on 10,000 images, checkpoints, test, figures."""
    clock, epochs = Clock(), options.epochs or (3 if options.quick else 20)
    vaelab_trains(clock, f"data.root={options.root}", "trainer=cpu", f"trainer.max_epochs={epochs}")
    result: dict[str, Any] = {"epochs": epochs}
    for i, kind in enumerate(("clock", "processor")):
        batches = sum(seconds[i] for seconds in clock.batches)
        around = since(clock.began)[i] - batches
        result[kind] = {"batches_s": batches, "around_s": around, "share": around / batches}
        console.print(
            f"{epochs} epochs of the small network, by the {kind}: {batches:.1f} s of batches; validation, "
            f"checkpoints, test and figures add {around:.1f} s, {100 * around / batches:.1f} %"
        )
    return result


SILENT = ["callbacks.progress_bar=null", "callbacks.pictures=null", "trainer.limit_test_batches=1"]


def mapped(options: argparse.Namespace) -> dict[str, Any]:
    """Epochs over images in a mapped file, which the page cache has, in turns with epochs over the same in memory."""
    images = torch.cat([datasets.MNIST(options.root, train=train).data for train in (True, False)])
    epochs: dict[str, list[tuple[float, float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        np.save(Path(folder) / "images.npy", images.numpy())
        sources = {
            "memory": [f"data.root={options.root}"],
            "mapped": ["data=array", f"data.root={folder}", "data.test=10000", "data.validation=10000"],
        }
        for _ in range(2 if options.quick else 5):
            for name, source in sources.items():
                clock = Clock()
                vaelab_trains(clock, *source, "trainer=cpu", f"trainer.max_epochs={options.epochs or 3}", *SILENT)
                epochs.setdefault(name, []).extend(clock.batches[1:])
    result: dict[str, Any] = {}
    for i, kind in enumerate(("clock", "processor")):
        memory, read = (median(seconds[i] for seconds in epochs[name]) for name in sources)
        result[kind] = {"memory_s": memory, "mapped_s": read, "ratio": read / memory}
        console.print(f"an epoch by the {kind}: memory {memory:.2f} s, mapped {read:.2f} s: {read / memory:.3f}")
    return result


def step(options: argparse.Namespace) -> dict[str, Any]:
    """Milliseconds of processor time that each part of a step takes, and how many times the layers alone."""
    return {name: step_of(CASES[name], options) for name in options.networks}


BARE = ["logger=[]", *(f"callbacks.{name}=null" for name in ("progress_bar", "rates", "latents", "pictures"))]


def step_of(case: Case, options: argparse.Namespace) -> dict[str, float]:
    """The same, of one network: its parts by themselves, then whole runs without and with all that logs."""
    from vaelab.config.check import check
    from vaelab.data import Batches
    from vaelab.losses import Step

    given = [f"data.root={options.root}", "data.validation=0", "trainer=cpu", *case.overrides]
    experiment = check(vaelab.compose(given))
    model, batch_size = experiment.model(), experiment.data.batch_size
    optimizer = experiment.optimizer(model.parameters())
    images = Batches(experiment.data.splits.train, batch_size=batch_size, seed=0)
    batches = chain.from_iterable(repeat(images))
    x = next(batches).images
    layers = recorded_layers(model, lambda: experiment.objective(Step(model, x)))
    logits = torch.randn(len(x), *x.shape[1:], requires_grad=True)
    features = torch.randn(len(x), model.encoder(x).shape[1], requires_grad=True)

    def layers_alone() -> None:
        for layer, inputs in layers:
            outputs = layer(inputs)
            wanted = [*layer.parameters(), *([inputs] if inputs.requires_grad else [])]
            torch.autograd.grad(outputs, wanted, torch.ones_like(outputs))

    def log_likelihood() -> None:
        torch.autograd.grad(-model.likelihood(logits).log_prob(x).mean(), logits)

    def kl() -> None:
        assert model.prior is not None
        torch.autograd.grad(
            torch.distributions.kl_divergence(model.posterior(features), model.prior()).mean(), features
        )

    def forward_and_backward(images: Tensor = x) -> None:
        optimizer.zero_grad()
        experiment.objective(Step(model, images))["loss"].backward()

    def all_three() -> None:
        forward_and_backward(next(batches).images)
        optimizer.step()

    forward_and_backward()
    parts: dict[str, Callable[[], object]] = {
        "layers alone": layers_alone,
        "log-likelihood alone": log_likelihood,
        "posterior and KL alone": kl,
        "forward and backward": forward_and_backward,
        "optimizer": optimizer.step,
        "gather": lambda: next(batches),
        "these three in turn": all_three,  # each finds its caches colder than by itself
    }
    ms: dict[str, list[float]] = {}
    for _ in range(3 if options.quick else 9):
        for name, part in parts.items():
            start = now()
            for _ in range(20):
                part()
            ms.setdefault(name, []).append(1000 * since(start)[1] / 20)
    steps = 100 if options.quick else 200
    given += [f"trainer.limit_train_batches={min(steps, len(images))}", "trainer.max_epochs=3"]
    for _ in range(2):
        for name, overrides in {"a run that logs nothing": BARE, "a run": []}.items():
            clock = Clock()
            vaelab_trains(clock, *given, "trainer.limit_test_batches=1", *overrides)
            ms.setdefault(name, []).extend(1000 * batch[1] / min(steps, len(images)) for batch in clock.batches[1:])
    result = {name: median(values) for name, values in ms.items()}
    result["Lightning"] = result["a run that logs nothing"] - result["these three in turn"]
    result["logging, progress bar"] = result["a run"] - result["a run that logs nothing"]
    table = Table("a step of " + ("784-400-20" if not case.overrides else " ".join(case.overrides)), "ms", "of layers")
    for name, value in result.items():
        table.add_row(name, f"{value:.3f}", f"{value / result['layers alone']:.2f}")
    Console(width=120).print(table)
    return result


def recorded_layers(model: nn.Module, forward: Callable[[], object]) -> list[tuple[nn.Module, Tensor]]:
    """The layers that have weights, in the order in which `forward` uses them, each with what it is given."""
    found: list[tuple[nn.Module, Tensor]] = []

    def record(layer: nn.Module, arguments: tuple[Tensor], outputs: object) -> None:
        (inputs,) = arguments
        found.append((layer, inputs.detach().requires_grad_(inputs.requires_grad)))

    hooks = [
        layer.register_forward_hook(record)
        for layer in model.modules()
        if isinstance(layer, nn.Linear | nn.Conv2d | nn.ConvTranspose2d)
    ]
    forward()
    for hook in hooks:
        hook.remove()
    return found


def bf16(options: argparse.Namespace) -> dict[str, Any]:
    """Epochs of vaelab in bf16-mixed beside those in float32, and the difference of the final -ELBO."""
    if not machine(options.threads)["bfloat16"]:
        reason = "this processor has neither amx_bf16 nor avx512_bf16 (see /proc/cpuinfo), so no products of bfloat16"
        console.print(reason)
        return {"not measured": reason}
    result: dict[str, Any] = {}
    for name in ("wide", "conv"):
        epochs: dict[str, list[float]] = {}
        elbos: dict[str, list[float]] = {}
        for _ in range(1 if options.quick else 2):
            for precision in ("32-true", "bf16-mixed"):
                clock = Clock()
                run = vaelab_trains(
                    clock,
                    f"data.root={options.root}",
                    "trainer=cpu",
                    f"trainer.max_epochs={options.epochs or 3}",
                    f"trainer.precision={precision}",
                    f"channels_last={str(name == 'conv' and precision != '32-true').lower()}",
                    *CASES[name].overrides,
                )
                epochs.setdefault(precision, []).extend(seconds[0] for seconds in clock.batches[1:])
                elbos.setdefault(precision, []).append(run.metrics["test/elbo"])
        full, half = (median(epochs[precision]) for precision in ("32-true", "bf16-mixed"))
        apart = abs(median(elbos["32-true"]) - median(elbos["bf16-mixed"]))
        result[name] = {"float32_epoch_s": full, "bf16_epoch_s": half, "faster": full / half, "elbo_apart": apart}
        console.print(f"{name}: {full:.2f} s an epoch, bf16 {half:.2f} s: {full / half:.2f} times as fast; {apart:.2f}")
    return result


SHORT = ["data=digits", "trainer=cpu", "trainer.max_epochs=1", "callbacks.progress_bar=null"]


def sweep(options: argparse.Namespace) -> dict[str, Any]:
    """Sweeps of MNIST by `basic` and by `joblib` in turns; and what a job costs beyond its training."""
    jobs, epochs, rounds = (2, 1, 1) if options.quick else (8, options.epochs or 5, 3)
    with tempfile.TemporaryDirectory() as folder:
        own = sweeps_own_part(Path(folder), jobs)
        ratio = side_by_side(Path(folder), options.root, jobs, epochs, rounds)
    return {"jobs": jobs, "epochs": epochs, "joblib_to_basic": ratio, "own_part_of_a_job": own}


def side_by_side(folder: Path, root: str, jobs: int, epochs: int, rounds: int) -> float:
    """The median ratio of the times of a sweep of MNIST under joblib and under basic, each a command of its own."""
    arguments = [f"seed=range({jobs})", f"trainer.max_epochs={epochs}", f"data.root={root}"]
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    ratios = []
    for turn in range(rounds):
        seconds = {}
        for launcher in ("basic", "joblib"):
            where = f"hydra.sweep.dir='{folder / f'{launcher} {turn}'}'"
            command = [sys.executable, "-m", "vaelab", "train", "-m", *arguments, where, f"hydra/launcher={launcher}"]
            began = time.perf_counter()
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environment)
            seconds[launcher] = time.perf_counter() - began
        ratios.append(seconds["joblib"] / seconds["basic"])
        console.print(f"basic {seconds['basic']:.1f} s, joblib {seconds['joblib']:.1f} s: {ratios[-1]:.2f}")
    console.print(f"joblib / basic, {jobs} jobs of {epochs} epochs: {median(ratios):.2f}")
    return median(ratios)


def sweeps_own_part(folder: Path, jobs: int) -> dict[str, float]:
    """What a job costs beyond its training: so many jobs more in a sweep, less the same runs in this process."""
    # The process that jobs are forked from outlives the sweep: as its subreaper we wait for it, and count it.
    ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)

    def swept(count: int, name: str) -> tuple[float, float]:
        where = [f"seed=range({count})", f"hydra.sweep.dir='{folder / name}'"]
        clock, used = time.perf_counter(), os.times()
        subprocess.run(
            [sys.executable, "-m", "vaelab", "train", "-m", *SHORT, *where], check=True, stdout=subprocess.DEVNULL
        )
        clock = time.perf_counter() - clock
        with suppress(ChildProcessError):
            while True:
                os.wait()
        return clock, sum(os.times()[2:4]) - sum(used[2:4])

    def alone(name: str) -> tuple[float, float]:
        began = now()
        for seed, config in enumerate(configs):
            vaelab.train(config, folder=folder / f"{name} {seed}")
        return since(began)

    configs = [vaelab.compose([*SHORT, f"seed={seed}"]) for seed in range(jobs)]
    alone("first")  # imports, and what else is done once
    turns = [(alone(f"alone {turn}"), swept(1, f"one {turn}"), swept(1 + jobs, f"more {turn}")) for turn in range(3)]
    clock, processor = (median((more[i] - one[i] - runs[i]) / jobs for runs, one, more in turns) for i in (0, 1))
    console.print(f"a sweep's own part of a job: {clock:.3f} s, of the processor {processor:.3f} s")
    return {"clock": clock, "processor": processor}


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
    seconds: dict[str, list[tuple[float, float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(options.repeats):
            for name, arguments in commands.items():
                seconds.setdefault(name, []).append(time_to_answer(arguments, folder))
    kinds = ("clock", "processor")
    result = {
        name: {kind: median(value[i] for value in values) for i, kind in enumerate(kinds)}
        for name, values in seconds.items()
    }
    table = Table("", "s", "processor s")
    for name, value in result.items():
        table.add_row(name, *(f"{value[kind]:.2f}" for kind in kinds))
    Console(width=120).print(table)
    return result


def time_to_answer(arguments: list[str], folder: str) -> tuple[float, float]:
    """Seconds, of the clock and of the processor, until a command ends or has made its first step."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path[1:]])}
    start = time.perf_counter()
    process = subprocess.Popen(
        arguments, cwd=folder, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert process.stdout is not None
    for line in process.stdout:
        if "first step" in line:
            process.send_signal(signal.SIGKILL)
    seconds = time.perf_counter() - start
    process.stdout.close()
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if arguments[-1].endswith(".watching") and process.returncode != -signal.SIGKILL:
        raise RuntimeError(f"{' '.join(arguments)} ended with {process.returncode}, and made no step")
    return seconds, used.ru_utime + used.ru_stime


MEMORY = """
import resource, sys, tempfile
import torch, torchvision, pytorch_lightning, matplotlib.pyplot, matplotlib.backends.backend_agg, PIL.PngImagePlugin
import tensorboard, torch.utils.tensorboard, vaelab
from vaelab.runs import run
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
        "instructions": torch.backends.cpu.get_cpu_capability(),  # what torch's kernels take
        "bfloat16": sorted({"amx_bf16", "avx512_bf16"} & set(named.get("flags", "").split())),
        "torch": torch.__version__,
        "load": os.getloadavg(),
    }


@torch.no_grad()
def nll(options: argparse.Namespace) -> dict[str, float]:
    """The time and memory of a log-likelihood by 5,000 samples beside the time of its decoder's layers alone.

    Of the 784-400-20 VAE, whose weights do not matter for it; the layers by oneDNN, where vaelab asks it, and by MKL.
    """
    from vaelab.config.check import check
    from vaelab.metrics.likelihood import log_likelihoods

    experiment = check(vaelab.compose([f"data.root={options.root}", "data.binarize=dynamic"]))
    model, count = experiment.model().eval(), 5 if options.quick else 20
    images = experiment.data.splits.test.first(count).pixels.float() / 255
    layers = [module for module in model.decoder.modules() if isinstance(module, nn.Linear)]
    z = torch.randn(5000, LATENT)

    def products(linear: Callable[[nn.Linear, Tensor], Tensor]) -> None:
        for _ in range(count):
            rows = z
            for layer in layers:
                rows = linear(layer, rows)

    parts: dict[str, Callable[[], object]] = {
        "5,000 samples": lambda: list(log_likelihoods(model, images, 5000, 0)),
        "products alone": lambda: products(lambda layer, rows: layer(rows)),
        "products alone, by MKL": lambda: products(lambda layer, rows: F.linear(rows, layer.weight, layer.bias)),
    }
    before, grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, 0.0
    ms: dict[str, list[float]] = {name: [] for name in parts}
    for _ in range(3):
        for name, part in parts.items():
            start = now()
            part()
            ms[name].append(1000 * since(start)[1] / count)
            if not grown:  # the samples come first
                grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    result = {name: median(values) for name, values in ms.items()}
    for name, value in result.items():
        console.print(f"{name}: {value:.1f} ms of the processor an image")
    console.print(f"samples / products: {result['5,000 samples'] / result['products alone']:.2f}; {grown:.0f} MB")
    return result | {"grown_mb": grown}


def main() -> None:
    """Run one benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    benchmarks = {
        function.__name__: function for function in (train, step, whole, mapped, bf16, sweep, startup, memory, nll)
    }
    parser.add_argument("case", nargs="?", default="train", choices=benchmarks)
    parser.add_argument("--quick", action="store_true", help="the small network only, few epochs")
    parser.add_argument("--networks", nargs="+", choices=CASES)
    parser.add_argument("--loops", nargs="+", choices=LOOPS, default=list(LOOPS), help="of train, beside vaelab")
    parser.add_argument("--epochs", type=int, help="by default what fits the case")
    parser.add_argument("--repeats", type=int, default=5, help="of startup")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--root", default="data", help="where MNIST is")
    parser.add_argument("--figure", type=Path, help="the picture of train; by default benchmark_train.png in --output")
    parser.add_argument("--output", type=Path, default=Path("outputs"))
    parser.add_argument("--isa", choices=FORCED, help="leave later instructions of the processor unused")
    options = parser.parse_args()
    if options.isa and not FORCED[options.isa].items() <= os.environ.items():
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **FORCED[options.isa]})
    options.root = str(Path(options.root).absolute())
    if options.quick:
        options.repeats = 1
    options.networks = options.networks or (["small"] if options.quick else list(CASES))
    torch.set_num_threads(options.threads)
    os.environ["OMP_NUM_THREADS"] = str(options.threads)
    options.output.mkdir(parents=True, exist_ok=True)
    where = machine(options.threads)
    console.print(f"{where['processor']}, {where['instructions']}, threads: {options.threads}", highlight=False)
    try:
        result = {"machine": where, options.case: benchmarks[options.case](options)}
    except vaelab.UserError as error:  # the data are not there, say
        parser.exit(2, f"error: {error}\n")
    path = options.output / f"benchmark_{options.case}.json"
    path.write_text(json.dumps(result, indent=2) + "\n")
    console.print(path)


if __name__ == "__main__":
    main()
