"""How fast vaelab trains on a GPU, with and without a CUDA graph, beside loops by hand, torch.compile and JAX.

    python scripts/benchmark_gpu.py --root data --output outputs

The same networks, loss and Adam as in benchmark.py, over the 60,000 images of MNIST, which all loops keep on the GPU.
They take turns, an epoch each, in one process; an epoch ends when the GPU has done all of it. Of vaelab it is
everything between two starts of one, with TensorBoard, progress bar and checkpoint. Writes benchmark_gpu.json. JAX
needs jax and optax: --loops "by hand" torch.compile does without.
"""

import argparse
import json
import os
from pathlib import Path
from statistics import median
from typing import Any

os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from benchmark import CASES, RATE, Case, PlainVAE, console, divergence, now, since, vaelab_trains
from torch import Tensor
from torchvision import datasets

Seconds = dict[str, list[float]]


class ByHand:
    """What a careful engineer writes: pixels on the GPU, gathered by index, fused Adam, nothing asked of a step."""

    def __init__(self, case: Case, root: str) -> None:
        self.pixels = datasets.MNIST(root, train=True).data.unsqueeze(1).cuda()
        self.batch = case.batch
        self.model = PlainVAE(case).cuda()
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=RATE, fused=True)

    def loss(self, x: Tensor) -> Tensor:
        """-ELBO of a batch, the mean."""
        logits, mean, log_variance = self.model(x)
        total = F.binary_cross_entropy_with_logits(logits, x, reduction="sum") + divergence(mean, log_variance)
        return total / len(x)

    def epoch(self) -> None:
        """One epoch."""
        total = torch.zeros((), device="cuda")
        for index in torch.randperm(len(self.pixels), device="cuda").split(self.batch):
            loss = self.loss(self.pixels[index].float().div_(255))
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            total += loss.detach()


class Compiled(ByHand):
    """The same with the loss, and so its gradient, by torch.compile."""

    def __init__(self, case: Case, root: str) -> None:
        super().__init__(case, root)
        self.loss = torch.compile(super().loss, dynamic=False)  # type: ignore[method-assign]


class Jax:
    """The same in JAX: a whole epoch, its last smaller batch left out, in one jitted scan."""

    def __init__(self, case: Case, root: str) -> None:
        import jax
        import jax.numpy as jnp
        import optax

        plain = PlainVAE(case)
        parts = [*plain.encoder, "sample", *plain.decoder]
        jax.config.update("jax_default_matmul_precision", "highest")
        pixels = jnp.asarray(datasets.MNIST(root, train=True).data.unsqueeze(1).numpy())
        heads = [plain.mean, plain.log_variance]
        weights = [
            (jnp.asarray(layer.weight.detach().numpy()), jnp.asarray(layer.bias.detach().numpy()))
            for layer in [*parts, *heads]
            if hasattr(layer, "weight")
        ]
        optimizer = optax.adam(RATE)

        def linear(h: Any, weight: Any) -> Any:
            return h @ weight[0].T + weight[1]

        def loss(weights: Any, x: Any, key: Any) -> Any:
            rest, h, kl = iter(weights[:-2]), x, None
            for layer in parts:
                if layer == "sample":
                    mean, log_variance = linear(h, weights[-2]), linear(h, weights[-1])
                    h = mean + jnp.exp(0.5 * log_variance) * jax.random.normal(key, mean.shape)
                    kl = -0.5 * jnp.sum(1 + log_variance - mean**2 - jnp.exp(log_variance))
                elif isinstance(layer, torch.nn.Linear):
                    h = linear(h, next(rest))
                elif isinstance(layer, torch.nn.ReLU):
                    h = jax.nn.relu(h)
                elif isinstance(layer, torch.nn.Flatten):
                    h = h.reshape(len(h), -1)
                elif isinstance(layer, torch.nn.Unflatten):
                    h = h.reshape(len(h), *layer.unflattened_size)
                elif isinstance(layer, torch.nn.ConvTranspose2d):
                    weight, bias = next(rest)
                    flipped = jnp.flip(weight, (2, 3)).swapaxes(0, 1)
                    h = jax.lax.conv_general_dilated(h, flipped, (1, 1), [(2, 2)] * 2, lhs_dilation=(2, 2))
                    h = h + bias[:, None, None]
                else:
                    weight, bias = next(rest)
                    h = jax.lax.conv_general_dilated(h, weight, (2, 2), [(1, 1)] * 2) + bias[:, None, None]
            cross_entropy = jnp.sum(jnp.maximum(h, 0) - h * x + jnp.log1p(jnp.exp(-jnp.abs(h))))
            return (cross_entropy + kl) / len(x)

        def step(state: Any, given: Any) -> Any:
            (weights, moments), (rows, key) = state, given
            x = pixels[rows].astype(jnp.float32) / 255
            value, gradient = jax.value_and_grad(loss)(weights, x, key)
            updates, moments = optimizer.update(gradient, moments)
            return (optax.apply_updates(weights, updates), moments), value

        def epoch(state: Any, key: Any) -> Any:
            steps = len(pixels) // case.batch
            rows = jax.random.permutation(key, len(pixels))[: steps * case.batch].reshape(steps, case.batch)
            return jax.lax.scan(step, state, (rows, jax.random.split(key, steps)))

        self.run, self.state = jax.jit(epoch), (weights, optimizer.init(weights))
        self.key, self.split, self.losses = jax.random.key(0), jax.random.split, None

    def epoch(self) -> None:
        """One epoch."""
        self.key, key = self.split(self.key)
        self.state, self.losses = self.run(self.state, key)
        self.losses.block_until_ready()  # type: ignore[attr-defined]


LOOPS = {"by hand": ByHand, "torch.compile": Compiled, "JAX": Jax}


class Turns(pl.Callback):
    """Before each epoch of vaelab, one of every other loop; all timed."""

    def __init__(self, name: str, others: dict[str, Any], times: Seconds) -> None:
        self.name, self.others, self.times = name, others, times
        self.started: Any = None

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The epoch before, with its checkpoint, is over."""
        self.on_train_end(trainer, pl_module)
        for name, loop in self.others.items():
            start = now()
            loop.epoch()
            torch.cuda.synchronize()
            self.times.setdefault(name, []).append(since(start)[0])
        self.started = now()

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """So is the last one."""
        torch.cuda.synchronize()
        if self.started is not None:
            self.times.setdefault(self.name, []).append(since(self.started)[0])
            self.started = None


def main() -> None:
    """Measure every network."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", choices=CASES, default=["small", "wide", "conv"])
    parser.add_argument("--loops", nargs="+", choices=LOOPS, default=list(LOOPS))
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--root", default="data", help="where MNIST is")
    parser.add_argument("--output", type=Path, default=Path("outputs"))
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    results: dict[str, Any] = {"gpu": torch.cuda.get_device_name(), "torch": torch.__version__}
    for name in options.networks:
        case, times, elbos = CASES[name], Seconds(), {}
        others = {loop: LOOPS[loop](case, options.root) for loop in options.loops}
        for graph in (False, True):
            loop = "vaelab, CUDA graph" if graph else "vaelab"
            run = vaelab_trains(
                Turns(loop, {} if graph else others, times),
                f"data.root={options.root}",
                "data.validation=0",
                "trainer=gpu",
                f"trainer.max_epochs={options.epochs}",
                f"trainer.cuda_graph={graph}",
                f"optimizer.lr={RATE}",
                *case.overrides,
            )
            elbos[loop] = run.metrics["test/elbo"]
        epochs = {loop: median(seconds[1:]) for loop, seconds in times.items()}
        results[name] = {"epoch_s": epochs, "all": times, "test/elbo": elbos}
        console.print(name, {loop: round(seconds, 3) for loop, seconds in epochs.items()}, elbos, highlight=False)
        (options.output / "benchmark_gpu.json").write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
