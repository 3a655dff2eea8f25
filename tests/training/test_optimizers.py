import pytest
import torch
from torch import nn

from vaelab.training.optimizers import adam, adamw, sgd


def trained(optimizer_of, steps=5):
    """A parameter after some steps on a quadratic, in double precision."""
    parameter = nn.Parameter(torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64))
    optimizer = optimizer_of([parameter])
    for step in range(steps):
        optimizer.zero_grad()
        (torch.tensor([1.0, 3.0, 5.0], dtype=torch.float64) * (parameter - step).square()).sum().backward()
        optimizer.step()
    return parameter.detach()


@pytest.mark.parametrize(
    ("ours", "theirs", "knobs"),
    [
        (adam, torch.optim.Adam, {}),
        (adam, torch.optim.Adam, {"lr": 0.1, "betas": (0.8, 0.9), "eps": 0.01, "weight_decay": 0.3}),
        (adamw, torch.optim.AdamW, {}),
        (adamw, torch.optim.AdamW, {"lr": 0.1, "betas": (0.8, 0.9), "eps": 0.01, "weight_decay": 0.3}),
        (sgd, torch.optim.SGD, {"lr": 0.01, "momentum": 0.9}),
        (sgd, torch.optim.SGD, {"lr": 0.01, "momentum": 0.0, "weight_decay": 0.3}),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else value.__name__,
)
def test_the_steps_are_those_of_torchs_plain_loop(ours, theirs, knobs):
    expected = trained(lambda parameters: theirs(parameters, **knobs, foreach=False, fused=False))

    torch.testing.assert_close(trained(lambda parameters: ours(parameters, **knobs)), expected, rtol=1e-12, atol=0)


def test_adams_steps_are_the_papers():
    lr, beta1, beta2, eps = 0.1, 0.8, 0.9, 0.01
    theta = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    m = v = torch.zeros(3, dtype=torch.float64)
    for t in range(1, 6):  # Kingma & Ba 2015, algorithm 1
        gradient = 2 * torch.tensor([1.0, 3.0, 5.0]) * (theta - (t - 1))
        m, v = beta1 * m + (1 - beta1) * gradient, beta2 * v + (1 - beta2) * gradient**2
        theta = theta - lr * (m / (1 - beta1**t)) / ((v / (1 - beta2**t)).sqrt() + eps)

    result = trained(lambda parameters: adam(parameters, lr=lr, betas=(beta1, beta2), eps=eps))

    torch.testing.assert_close(result, theta, rtol=1e-12, atol=0)


def test_weight_decay_is_in_the_gradient_for_adam_and_beside_it_for_adamw():
    parameters = [nn.Parameter(torch.tensor([2.0], dtype=torch.float64)) for _ in range(2)]
    for optimizer_of, parameter in zip((adam, adamw), parameters, strict=True):
        optimizer = optimizer_of([parameter], lr=0.1, weight_decay=0.5)
        parameter.grad = torch.zeros_like(parameter)
        optimizer.step()

    # Adam's first step has length lr whatever the gradient; AdamW shrinks by lr * weight_decay.
    assert parameters[0].item() == pytest.approx(2 - 0.1, rel=1e-6)
    assert parameters[1].item() == pytest.approx(2 * (1 - 0.1 * 0.5), rel=1e-12)
