import copy
import math

import torch
from torch import nn

from vaelab.performance.denormals import EVERY, SMALLEST, flush

TINY = torch.finfo(torch.float32).tiny


def denormals(optimizer):
    states = [tensor for state in optimizer.state.values() for tensor in state.values() if tensor.ndim > 0]
    return sum(int(((tensor != 0) & (tensor.abs() < TINY)).sum()) for tensor in states)


def test_a_weight_without_a_gradient_has_no_denormal_state_and_the_same_bits_as_without():
    """A pixel that is on in the first images only: Adam's mean of its gradient is multiplied by 0.9 from then on."""
    torch.manual_seed(0)
    plain = nn.Parameter(torch.randn(1000))
    flushed = copy.deepcopy(plain)
    optimizers = {weights: torch.optim.Adam([weights], fused=True) for weights in (plain, flushed)}
    seen = dict.fromkeys(optimizers, 0)
    for step in range(1, 1201):
        gradient = torch.randn(1000) if step < 5 else torch.cat([torch.randn(500), torch.zeros(500)])
        for weights, optimizer in optimizers.items():
            weights.grad = gradient.clone()
            optimizer.step()
            if weights is flushed and step % EVERY == 0:
                flush(optimizer)
            seen[weights] += denormals(optimizer)

    assert seen[plain] > 10_000
    assert seen[flushed] == 0
    assert flushed.equal(plain)


def test_only_what_is_nearly_denormal_is_set_to_0():
    weights, doubles = nn.Parameter(torch.zeros(6)), nn.Parameter(torch.zeros(1, dtype=torch.float64))
    optimizer = torch.optim.SGD([weights, doubles], lr=0.1, momentum=0.9)
    given = torch.tensor([1e-40, -SMALLEST, 2 * SMALLEST, -1.0, math.inf, math.nan])
    optimizer.state[weights] = {"momentum_buffer": given.clone(), "step": torch.tensor(1e-40), "note": "text"}
    optimizer.state[doubles] = {"momentum_buffer": torch.tensor([1e-40], dtype=torch.float64)}

    flush(optimizer)

    expected = torch.tensor([0.0, 0.0, 2 * SMALLEST, -1.0, math.inf, math.nan])
    torch.testing.assert_close(optimizer.state[weights]["momentum_buffer"], expected, rtol=0, atol=0, equal_nan=True)
    assert optimizer.state[weights]["step"] == torch.tensor(1e-40)
    assert optimizer.state[doubles]["momentum_buffer"].item() == 1e-40
