import copy
import math

import pytorch_lightning as pl
import torch
from tests.training.toys import SHAPE, Toy, module_of, trainer_of, variational
from torch import nn

from vaelab.data import Images, Splits
from vaelab.performance.denormals import EVERY, SMALLEST, flush
from vaelab.training.datamodule import ImageDataModule

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


class Faint(pl.Callback):
    """Gives every weight of the first layer a mean gradient that would be denormal some 20 steps later."""

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if trainer.global_step == 10:
            (optimizer,) = trainer.optimizers
            optimizer.state[pl_module.model.encoder.layers[1].weight]["exp_avg"].fill_(1e-37)


class Black(Toy):
    """Images without a pixel that is on."""

    def read(self):
        return Splits(*(Images(torch.zeros_like(split.store.values), split.store_labels) for split in super().read()))


def test_training_flushes():
    module = module_of(variational())
    fit = trainer_of(epochs=None, max_steps=EVERY + 5, callbacks=[Faint()])

    fit.fit(module, ImageDataModule(Black(), seed=0))

    assert module.model.encoder.layers[1].weight.shape[1] == math.prod(SHAPE)
    assert not fit.optimizers[0].state[module.model.encoder.layers[1].weight]["exp_avg"].any()
