"""Weights of presets against the losses of the papers' code, written down anew."""

import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import vaelab
from vaelab.config.check import check
from vaelab.config.conf import CONF, options
from vaelab.losses import Step


def with_a_frame(images: Tensor) -> Tensor:
    """28 x 28 in 32 x 32, as the code of RAE takes MNIST."""
    return F.pad(images, (2, 2, 2, 2))


@pytest.mark.parametrize(
    ("preset", "beta", "decay"), [("rae_l2", 1e-4, 1e-7), ("rae_gp", 1e-4, 0), ("rae_sn", 9e-3, 0)]
)
def test_the_loss_of_a_regularized_autoencoder_is_that_of_its_papers_code(
    preset: str, beta: float, decay: float
) -> None:
    """Ghosh et al. (2020): their loss is a mean over pixels and numbers of the code, ours 50 * 1,024 times that."""
    words = ["objective.terms.decoder_jacobian=null"] if preset == "rae_gp" else []
    made = check(vaelab.compose([f"model={preset}", *words]))
    model = made.model().double().eval()
    assert made.latent_dim == 16
    x = torch.rand(9, 1, 28, 28, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        z = model.encode(x).mean
        error = with_a_frame(x - model.decode(z).mean).square().mean((1, 2, 3))
        theta = sum(weight.square().sum().item() for weight in model.decoder.parameters())  # type: ignore[attr-defined]
        theirs = (error + beta * z.square().mean(1)).mean().item() + decay * theta
        ours = made.objective(Step(model, x))["loss"].item()

    constant = 784 * (math.log(0.1) + math.log(2 * math.pi) / 2)  # of a Gaussian of scale 0.1, a pixel
    assert ours - constant == pytest.approx(50 * 1024 * theirs, rel=1e-5)


def test_a_preset_with_numbers_says_where_they_are_from() -> None:
    for preset in options("model"):
        text = Path(CONF, "model", f"{preset}.yaml").read_text()
        values = [line.partition("#")[0].partition(":")[2] for line in text.splitlines()]
        if any(character.isdigit() for value in values for character in value):
            assert "# Numbers: " in text, preset
