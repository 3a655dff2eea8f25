import subprocess
import sys
from itertools import product

import numpy as np
import pytest
import torch

from vaelab.seeding import derive_seed, rademacher_like, sharing, standard_normal_like, uniform_like


@pytest.mark.slow
def test_a_seed_is_the_same_in_every_process():
    code = "from vaelab.seeding import derive_seed; print(derive_seed(3, 'order', 7))"
    elsewhere = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout

    # The number itself is written down: a change of it would change every run there is.
    assert derive_seed(3, "order", 7) == int(elsewhere) == 7353139687491058433


def test_seeds_differ_for_every_seed_purpose_and_index():
    keys = list(product(range(12), ["order", "noise", "val", "test", "binarize/1", "binarize/11"], range(50)))

    assert len({derive_seed(*key) for key in keys}) == len(keys)


@pytest.mark.parametrize("index", [0, 1, 10**9])
def test_torch_and_numpy_take_the_seeds(index):
    seed = derive_seed(2**40, "noise", index)

    assert 0 <= seed < 2**63
    torch.Generator().manual_seed(seed)
    np.random.default_rng(seed)


def test_every_bit_of_a_seed_is_set_half_of_the_time():
    seeds = np.array([derive_seed(0, "noise", index) for index in range(4000)], dtype=np.uint64)
    shares = (seeds[:, None] >> np.arange(63, dtype=np.uint64) & np.uint64(1)).mean(0)

    # The standard error of a share is 0.5 / sqrt(4000) = 0.008; five of them.
    assert np.abs(shares - 0.5).max() < 0.04


def test_noise_of_neighbouring_batches_is_uncorrelated():
    noise = [
        torch.randn(10_000, generator=torch.Generator().manual_seed(derive_seed(0, "noise", index)))
        for index in range(4)
    ]
    correlations = torch.corrcoef(torch.stack(noise)) - torch.eye(4)

    # The standard error of a correlation is 1 / sqrt(10,000) = 0.01; five of them.
    assert correlations.abs().max() < 0.05


@pytest.mark.parametrize("draw", [standard_normal_like, uniform_like, rademacher_like])
@pytest.mark.parametrize("sample_shape", [(), (3,)])
def test_processes_that_share_a_batch_draw_together_what_one_would_draw(draw, sample_shape):
    parameter = torch.zeros(5, 2)
    torch.manual_seed(7)
    alone = draw(parameter, sample_shape)
    parts = []
    for rank in range(2):
        with sharing(5, rank=rank, world_size=2, seed=7, device=torch.device("cpu")):
            parts.append(draw(parameter[rank::2], sample_shape))

    assert alone.shape == (*sample_shape, 5, 2)
    for rank, part in enumerate(parts):
        assert torch.equal(part, alone[..., rank::2, :])


def test_a_process_without_an_image_draws_for_the_first_one():
    with sharing(1, rank=1, world_size=2, seed=7, device=torch.device("cpu")):
        assert standard_normal_like(torch.zeros(1, 2)).shape == (1, 2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_signs_are_fair_and_nothing_else(dtype):
    torch.manual_seed(0)
    signs = rademacher_like(torch.zeros(100, 50, dtype=dtype), (4,))

    assert (signs.shape, signs.dtype) == ((4, 100, 50), dtype)
    assert set(signs.unique().tolist()) == {-1.0, 1.0}
    # The standard error of the mean of 20,000 signs is 0.007; five of them.
    assert abs(signs.double().mean().item()) < 0.035
