"""A perceptual distance with real weights, critics of patches, and a weight that adapts."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torchvision.models import mobilenet_v2

from tokenizers import MOBILENET
from vaelab.losses import ImageAdversary, Perceptual, Step, SumOfTerms
from vaelab.models.autoencoder import Autoencoder
from vaelab.models.likelihoods import Gaussian
from vaelab.models.networks import ConvDecoder, ConvEncoder, PatchDiscriminator
from vaelab.models.parts import UnsuitableError
from vaelab.models.posteriors import Deterministic
from vaelab.training.optimizers import adam

SHAPE = (3, 16, 16)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def model_of(shape: tuple[int, int, int] = SHAPE) -> Autoencoder:
    encoder = ConvEncoder(shape, channels=[4, 8], features=16)
    return Autoencoder(
        encoder=encoder,
        posterior=Deterministic(encoder.features, 5),
        decoder=ConvDecoder(5, shape, channels=[8, 4], features=16),
        likelihood=Gaussian(shape),
    )


def perceptual(**knobs: Any) -> Perceptual:
    return Perceptual(**{"network": "mobilenet_v2", "weights": str(MOBILENET), **knobs})


def photograph_like(count: int) -> Tensor:
    """Images with edges, of a few colours."""
    across = torch.linspace(0, 6, 32)
    phase = torch.rand(count, 3, 1, 1) * 6
    return (torch.sin(across[:, None] + phase) * torch.cos(2 * across + phase) > 0).float() * 0.7 + 0.1


def test_it_is_the_distance_of_unit_features_by_definition() -> None:
    x = photograph_like(3)
    other = x + 0.1 * torch.randn_like(x)
    network = mobilenet_v2(weights=None)
    network.load_state_dict(torch.load(MOBILENET, weights_only=True))
    network.eval()
    mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    features: list[list[Tensor]] = []
    for images in (x, other):
        values, kept = (images - mean[:, None, None]) / deviation[:, None, None], []
        for number, layer in enumerate(network.features):
            values = layer(values)
            kept += [values] if number in (1, 3, 6, 13) else []
        features.append(kept)
    expected = torch.zeros(3)
    for one, two in zip(*features, strict=True):
        unit, also = one / one.norm(dim=1, keepdim=True), two / two.norm(dim=1, keepdim=True)
        expected += (unit - also).square().sum(1).mean((1, 2)).detach()

    with torch.no_grad():
        found = perceptual().distance(x, other)

    torch.testing.assert_close(found, 3 * 32 * 32 * expected, rtol=1e-4, atol=1e-3)
    assert perceptual().distance(x, x).max() < 1e-6


def test_a_blur_costs_more_than_as_much_brightness_in_squared_error() -> None:
    """What it is for: with pretrained weights it sees that edges are gone."""
    x = photograph_like(16)
    blurred = torch.nn.functional.avg_pool2d(x, 5, 1, 2, count_include_pad=False)
    brighter = x + (blurred - x).square().mean((1, 2, 3), keepdim=True).sqrt()

    with torch.no_grad():
        of_blur, of_brightness = perceptual().distance(x, blurred), perceptual().distance(x, brighter)

    assert (of_blur > 1.5 * of_brightness).all()


def test_its_gradient_reaches_the_decoder_and_not_the_network_and_no_checkpoint_holds_it() -> None:
    term = perceptual(layers=["features.1", "features.3"])
    term.ready(fetch=False)
    model = model_of()
    objective = SumOfTerms({"perceptual": term})
    objective.build(model, 0)
    objective(Step(model, torch.rand(4, *SHAPE)))["loss"].backward()

    assert all(weight.grad is not None and weight.grad.any() for weight in model.decoder.parameters())
    assert not any(weight.requires_grad for weight in term.named.on(torch.device("cpu")).parameters())
    assert not term.state_dict()
    assert not objective.state_dict()


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"network": "mobilenet_v9"}, "torchvision.models has no such network"),
        ({"network": "convnext_tiny"}, "say which layers of convnext_tiny"),
        ({"network": "vgg16"}, "cannot be those of vgg16"),
        ({"layers": ["features.99"]}, "mobilenet_v2 has not all of features.99"),
        ({"weights": "nowhere.pth"}, "there are no weights of mobilenet_v2 in nowhere.pth"),
    ],
    ids=str,
)
def test_weights_of_another_network_and_the_like_are_said(knobs: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        perceptual(**knobs).ready(fetch=False)


def test_a_damaged_file_and_one_that_runs_code_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.pth").write_bytes(b"PK not weights")
    torch.save({"a": partial(print, "ran")}, tmp_path / "b.pth")
    for name in ("a.pth", "b.pth"):
        with pytest.raises(ValueError, match="cannot be those of mobilenet_v2"):
            perceptual(weights=str(tmp_path / name)).ready(fetch=True)


def test_grey_images_are_refused() -> None:
    with pytest.raises(UnsuitableError, match=r"images of three channels, and these are of shape \(1, 16, 16\)"):
        perceptual().requires(model_of((1, 16, 16)))


def adversary(**knobs: Any) -> ImageAdversary:
    optimizer = partial(adam, lr=0.1, betas=(0.5, 0.9), eps=1e-8, weight_decay=0.0)
    return ImageAdversary(discriminator=partial(PatchDiscriminator, channels=[4, 8]), optimizer=optimizer, **knobs)


def test_a_critic_of_patches_has_the_mean_over_them() -> None:
    model, term, x = model_of(), adversary(), torch.rand(4, *SHAPE)
    term.build(model)
    step = Step(model, x)
    logits, of_real = term.critic(step.p_x.mean), term.critic(x)

    assert logits.shape == (4, 4, 4)
    torch.testing.assert_close(term(step), -logits.mean())
    expected = (1 - of_real).relu().mean() + (1 + logits).relu().mean()
    torch.testing.assert_close(term.critic_loss(step), expected)


def test_r1_of_patches_is_of_their_mean() -> None:
    model, x = model_of(), torch.rand(4, *SHAPE)
    term, without = adversary(r1=3.0), adversary()
    term.build(model)
    without.critic = term.critic
    points = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(term.critic(points).mean((1, 2)).sum(), points)

    difference = term.critic_loss(Step(model, x)) - without.critic_loss(Step(model, x))
    torch.testing.assert_close(difference, 1.5 * gradient.square().sum((1, 2, 3)).mean())


def test_before_its_start_the_term_is_nothing_and_the_critic_stays() -> None:
    model, term, x = model_of(), adversary(start=5), torch.rand(4, *SHAPE)
    term.build(model)
    optimizer = term.optimizer(term.critic.parameters())
    before = [weight.clone() for weight in term.critic.parameters()]
    for number in (4, 5):
        step = Step(model, x, number=number)
        optimizer.zero_grad()
        assert bool(term(step)) == (number == 5)
        term.critic_loss(step).backward()
        optimizer.step()
        stayed = all(weight.equal(old) for weight, old in zip(term.critic.parameters(), before, strict=True))
        assert stayed == (number == 4)


def test_an_adaptive_weight_makes_both_gradients_as_large_at_the_decoders_last_weights() -> None:
    model, x = model_of(), torch.rand(4, *SHAPE)
    term = adversary(adaptive=True, weight=1.0)
    objective = SumOfTerms({"adversary": term})
    objective.build(model, 0)
    term.critic.logit.weight.data *= 1000  # type: ignore[operator, union-attr]  # the ratio is 10,000 at most
    step = Step(model, x)
    last = [weight for weight in model.decoder.parameters() if weight.ndim > 1][-1]
    found = objective(step)

    def norm(value: Tensor) -> float:
        return torch.autograd.grad(value, last, retain_graph=True)[0].norm().item()

    of_rest, own = norm(found["reconstruction"]), norm(found["adversary"])
    assert own != pytest.approx(of_rest, rel=0.1)
    assert norm(found["loss"] - found["reconstruction"]) == pytest.approx(of_rest * own / (own + 1e-4), rel=1e-4)
