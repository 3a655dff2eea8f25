import copy
import io

import pytest
import torch
from torch import nn

from vaelab.training.optimizers import adam, adamw, sgd, soap


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


def gradients(count):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(3, 5, dtype=torch.float64, generator=generator) for _ in range(count)]


def stepped(optimizer, parameter, grads):
    for gradient in grads:
        parameter.grad = gradient.clone()
        optimizer.step()
    return parameter.detach()


def test_soap_is_adam_in_the_eigenvectors_of_the_first_gradients_products():
    lr, beta, eps = 0.1, 0.9, 0.01
    grads = gradients(6)  # the bases stay: they move every 10 steps; the first gradient only makes them
    left = torch.linalg.eigh(grads[0] @ grads[0].T)[1]
    theta = torch.zeros(3, 5, dtype=torch.float64)
    m = v = torch.zeros_like(theta)
    for t, gradient in enumerate(grads[1:], 1):  # Vyas et al. 2024, algorithm 3, of one side
        m, v = beta * m + (1 - beta) * left.T @ gradient, beta * v + (1 - beta) * (left.T @ gradient) ** 2
        # The library adds eps before it corrects the bias, as torch's own Adam of old did.
        debiased = ((1 - beta**t) ** 0.5, 1 - beta**t)
        theta = theta - lr * debiased[0] / debiased[1] * (left @ (m / (v.sqrt() + eps)))

    parameter = nn.Parameter(torch.zeros(3, 5, dtype=torch.float64))
    optimizer = soap([parameter], lr=lr, betas=(beta, beta), eps=eps, precondition_frequency=10, max_precondition_dim=4)

    torch.testing.assert_close(stepped(optimizer, parameter, grads), theta, rtol=1e-9, atol=1e-12)


def test_soap_goes_on_from_its_saved_state():
    grads = gradients(12)
    parameter = nn.Parameter(torch.zeros(3, 5, dtype=torch.float64))
    optimizer = soap([parameter], precondition_frequency=5)
    stepped(optimizer, parameter, grads[:7])
    other = copy.deepcopy(parameter)
    saved = io.BytesIO()
    torch.save(optimizer.state_dict(), saved)
    saved.seek(0)
    resumed = soap([other], precondition_frequency=5)
    resumed.load_state_dict(torch.load(saved, weights_only=True))

    assert stepped(resumed, other, grads[7:]).equal(stepped(optimizer, parameter, grads[7:]))
