from typing import Any

from omegaconf import OmegaConf

import vaelab
from vaelab.runs.hyperparameters import hyperparameters


def config(*overrides: str) -> Any:
    return OmegaConf.to_container(vaelab.compose(list(overrides)))


def test_hyperparameters_are_flat_and_name_parts_by_their_classes() -> None:
    found = hyperparameters(config("model=annealed_vae", "objective.kl_weight.steps=100", "seed=3"))
    expected = {
        "name": "annealed_vae",
        "seed": 3,
        "latent_dim": 20,
        "data": "MNIST",
        "data.batch_size": 128,
        "encoder": "MLPEncoder",
        "encoder.hidden": "[400]",
        "objective": "elbo",
        "objective.kl_weight": "Linear",
        "objective.kl_weight.steps": 100,
        "loss": "Bernoulli",
        "optimizer.lr": 0.001,
        "trainer.max_epochs": 20,
    }
    assert expected.items() <= found.items()
    assert all(isinstance(value, int | float | str) for value in found.values())


def test_hyperparameters_leave_out_where_a_run_was_made_and_what_is_null() -> None:
    found = hyperparameters(config("model=ae"))
    assert not {"data.root", "trainer", "trainer.devices", "callbacks", "logger", "prior", "scheduler"} & set(found)
    assert not [name for name in found if name.startswith(("callbacks.", "logger."))]
