"""Every model of conf/model on a GPU that is not there: fake tensors say which operation mixes devices.

Under `FakeTensorMode` tensors have a shape and a device and no values, and an operation on two devices raises as on a
GPU. What wants a real device is stood in for: gradients inside a loss, whose shape is that of what they are taken of,
and the seeding of a device's generator. Where a value is read (`item`), a path ends, and it has passed.
"""

from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException, FakeTensorMode

import vaelab
from vaelab import figures
from vaelab.config.check import check
from vaelab.config.conf import options
from vaelab.config.experiment import Experiment
from vaelab.data import Images
from vaelab.figures import View
from vaelab.losses import Step
from vaelab.metrics import latents, likelihood
from vaelab.metrics.images import psnr, ssim
from vaelab.models.autoencoder import Autoencoder
from vaelab.models.distributions import sphere
from vaelab.training import pictures

WORDS = {preset: [f"model={preset}"] for preset in options("model")} | {"plane": ["model=vae", "latent_dim=2"]}
# A RealNVP of zuko picks its halves by `nonzero` of a mask, and how many that gives is a value. Its other flows do not.
WORDS["flow_prior_vae"] += ["prior.flow=maf"]
QUICK = ("conditional_vae", "plane", "vq_vae")
Paths = Iterator[tuple[str, Callable[[], object]]]


def move(module: nn.Module) -> None:
    """Put every parameter and buffer on the GPU, one by one: `Module.to` does not work with fake tensors."""
    for part in module.modules():
        for tensors in (part._parameters, part._buffers):
            for name, tensor in tensors.items():
                if tensor is not None:
                    moved = torch.empty(tensor.shape, dtype=tensor.dtype, device="cuda")
                    is_weight = isinstance(tensor, nn.Parameter)
                    tensors[name] = nn.Parameter(moved, tensor.requires_grad) if is_weight else moved


@pytest.fixture
def on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    def gradients(outputs: Any, inputs: Any, *others: Any, **more: Any) -> tuple[Tensor, ...]:
        inputs = [inputs] if isinstance(inputs, Tensor) else inputs
        return tuple(torch.zeros_like(tensor) for tensor in inputs)

    def array(images: Tensor, *others: Any, **more: Any) -> np.ndarray:
        return np.zeros((*images.shape[-2:], 3), np.uint8)  # a fake tensor has no values to draw

    monkeypatch.setattr(torch.autograd, "grad", gradients)
    monkeypatch.setattr(pictures, "noise_of_its_own", lambda device, seed: nullcontext())
    monkeypatch.setattr(likelihood, "seed_noise", lambda device, seed: None)
    monkeypatch.setattr(figures, "tile", array)
    sphere._legendre.cache_clear()
    with FakeTensorMode():
        yield
    sphere._legendre.cache_clear()  # of fake tensors


def training(made: Experiment, model: Autoencoder, x: Tensor, y: Tensor) -> Paths:
    """Where a training step goes, without its backward passes."""
    step = Step(model, x, y, number=3, dataset_size=1000)
    yield "loss", lambda: made.objective(step)
    yield "critics", lambda: made.objective.critic_losses(step)


def looking(made: Experiment, model: Autoencoder, x: Tensor, y: Tensor) -> Paths:
    """Where evaluation and figures go."""
    yield "evaluation", lambda: likelihood.evaluation_terms(made.objective, Step(model, x, y, training=False))
    yield "reconstruct", lambda: model.reconstruct(x, y, stochastic=True)
    yield "psnr", lambda: psnr(x, model.reconstruct(x, y))
    yield "ssim", lambda: ssim(x.repeat(1, 1, 2, 2), model.reconstruct(x, y).repeat(1, 1, 2, 2))
    if model.prior is not None:
        yield "sample", lambda: model.sample(7)
        yield "sample of labels", lambda: model.sample(6, labels=y if model.classes else None)
    if model.space != "codes":
        yield "interpolate", lambda: model.interpolate(x, x.flip(0), 5, y)
        yield "interpolate between samples", lambda: model.interpolate(x, x.flip(0), 5, y, stochastic=True)
    if model.space == "real vectors":
        z, values = torch.empty(model.posterior.latent_dim, device="cuda"), torch.empty(3, device="cuda")
        if len(z) == 2:
            yield "manifold", lambda: model.manifold(4, y[:1])
        yield "traverse", lambda: model.traverse(z, values.expand(len(z), 3), y[:1])
    yield "latents", lambda: usage(model, x, y)
    if likelihood.why_no_densities(model) is None:
        assert model.prior is not None
        prior = model.prior()
        yield "information", lambda: latents.information([model.encode(x, y)], prior)
        yield "likelihood", lambda: likelihood.importance_weighted_log_likelihood(model, prior, x[:1], 3, y[:1])
    images = Images(torch.empty(x.shape, dtype=torch.uint8, device="cuda"), y)
    yield "pictures", lambda: pictures.portrait(model, images, View(tuple(x.shape[1:])), seed=0)


def usage(model: Autoencoder, x: Tensor, y: Tensor) -> None:
    """What is logged of the latents at a validation."""
    found = latents.LatentsOfImages(model.prior() if model.prior is not None else None)
    found.add(model.encode(x, y))
    for name in ("variances", "kl_per_dimension", "usage"):
        with suppress(DataDependentOutputException, DynamicOutputShapeException):  # of codes, `unique`
            getattr(found, name)


@pytest.mark.parametrize(
    "preset", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in WORDS]
)
@pytest.mark.parametrize("of", [training, looking], ids=["training", "looking"])
def test_no_operation_mixes_the_devices_of_model_and_cpu(
    of: Callable[..., Paths], preset: str, request: pytest.FixtureRequest
) -> None:
    made = check(vaelab.compose(["data=digits", *WORDS[preset]]))
    model = made.model()
    model.train(of is training)
    made.objective.build(model, 0)
    request.getfixturevalue("on_a_gpu")
    move(model)
    move(made.objective)
    x = torch.empty(6, *made.data.shape, device="cuda")
    y = torch.empty(6, dtype=torch.int64, device="cuda")
    for name, path in of(made, model, x, y):
        try:
            with torch.set_grad_enabled(of is training), suppress(DataDependentOutputException):
                path()
        except Exception as error:
            error.add_note(f"in {name} of {preset}")
            raise


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU of NVIDIA")
@pytest.mark.parametrize("preset", WORDS)
@pytest.mark.parametrize("of", [training, looking], ids=["training", "looking"])
def test_a_gpu_that_is_there_runs_every_path(of: Callable[..., Paths], preset: str) -> None:
    made = check(vaelab.compose(["data=digits", *WORDS[preset]]))
    model = made.model()
    model.train(of is training)
    made.objective.build(model, 0)
    model.cuda()
    made.objective.cuda()
    torch.manual_seed(0)
    x = torch.rand(6, *made.data.shape, device="cuda")
    y = torch.arange(6, device="cuda")
    for name, path in of(made, model, x, y):
        try:
            with torch.set_grad_enabled(of is training):
                result = path()
            if name in ("loss", "critics"):
                for loss in [result["loss"]] if name == "loss" else result.values():  # type: ignore[index, attr-defined]
                    assert loss.isfinite()
                    loss.backward()
        except Exception as error:
            error.add_note(f"in {name} of {preset}")
            raise


@pytest.mark.usefixtures("on_a_gpu")
def test_an_operation_that_mixes_devices_is_found() -> None:
    """The tests above could not fail otherwise."""
    with pytest.raises(RuntimeError, match="cuda:0 and cpu"):
        _ = torch.zeros(3, device="cuda") + torch.zeros(3)
