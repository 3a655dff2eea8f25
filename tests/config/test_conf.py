"""Every option of every config group, composed and run for two batches by the real thing."""

import inspect
import json
import shutil
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

import vaelab
from processes import command
from published import PUBLISHED, make_all
from tokenizers import OF_GREY_DIGITS, mobilenet
from vaelab.config.conf import CONF, groups, options
from vaelab.config.stock import kind_of

TWO_BATCHES = ["trainer=debug", "data=digits", "callbacks.progress_bar=null"]


RUN_ELSEWHERE = (
    "fit",
    "hydra/launcher",
    "hydra/sweeper",
    "hydra/sweeper/pruner",
    "hydra/sweeper/sampler",
    "sweep",
)  # by the tests of fitted priors and of sweeps
# Options that go with others only, and the preset that has them together.
PRESET_OF = {
    ("decoder", "first_layer"): "hierarchical_vae",
    ("decoder", "spectral"): "rae_sn",
    ("objective", "adversarial"): "adversarial_ae",
    ("objective", "capacity"): "capacity_vae",
    ("objective", "ciwae"): "ciwae",
    ("objective", "elbo_monte_carlo"): "mixture_vae",
    ("objective", "factor_vae"): "factor_vae",
    ("objective", "iwae"): "iwae",
    ("objective", "miwae"): "miwae",
    ("objective", "piwae"): "piwae",
    ("objective", "reconstruction"): "ae",
    ("objective", "vector_quantization"): "vq_vae",
    ("posterior", "binary_spherical"): "binary_spherical_vq",
    ("posterior", "bottom_up"): "hierarchical_vae",
    ("posterior", "deterministic"): "ae",
    ("posterior", "finite_scalar_quantizer"): "fsq",
    ("posterior", "full_covariance_gaussian"): "full_covariance_vae",
    ("posterior", "gaussian_grid"): "kl_autoencoder",
    ("posterior", "gumbel_softmax"): "gumbel_vae",
    ("posterior", "iaf"): "iaf_vae",
    ("posterior", "k_sparse"): "k_sparse_ae",
    ("posterior", "ladder"): "ladder_vae",
    ("posterior", "laplace"): "laplace_vae",
    ("posterior", "lookup_free"): "lookup_free_vq",
    ("posterior", "two_grids"): "vq_vae_2",
    ("posterior", "vector_quantizer"): "vq_vae",
    ("posterior", "von_mises_fisher"): "hyperspherical_vae",
    ("prior", "flow_prior"): "flow_prior_vae",
    ("prior", "hyperspherical_uniform"): "hyperspherical_vae",
    ("prior", "mixture"): "mixture_vae",
    ("prior", "top_down"): "hierarchical_vae",
    ("prior", "uniform_codes"): "vq_vae",
    ("prior", "vamp_prior"): "vamp_vae",
}


CODES_OF = {"sparsity": "sparse_ae", "code_entropy": "lookup_free_vq"}  # terms of codes, and a preset that has such


# Options that `vaelab fit` takes, run by the tests of fitted priors.
OF_FITS = {
    ("objective", "prior_likelihood"),
    ("prior", "code_transformer"),
    ("prior", "nearest_neighbours"),
    ("prior", "second_vae"),
}


def every_option() -> Iterator[tuple[str, str]]:
    return ((group, option) for group in groups() if group not in RUN_ELSEWHERE for option in options(group))


def overrides_for(group: str, option: str, raw_sets: Path) -> list[str]:
    """What `group`=`option` needs around it to run on small data."""
    on_disk = [f"data.root={raw_sets}", "data.validation=50"]
    if group == "schedule":
        return [*TWO_BATCHES, f"+schedule@objective.kl_weight={option}"]
    if (group, option) == ("term", "perceptual"):
        words = [
            "model=ae",
            "loss=mse",
            "+term@objective.terms.another=perceptual",
            *mobilenet("objective.terms.another"),
        ]
        return ["trainer=debug", "data=array", *on_disk, "callbacks.progress_bar=null", *words]
    if group == "model" and option in OF_GREY_DIGITS:
        words = [f"model={option}", "objective.terms.adversary.start=1", *mobilenet("objective.terms.perceptual")]
        return ["trainer=debug", "data=array", *on_disk, "callbacks.progress_bar=null", *words]
    if group == "term":
        critic = ["+term@objective.terms.adversary=image_adversary"] if option == "critic_features" else []
        of_codes = [f"model={name}" for name in [CODES_OF.get(option)] if name is not None]
        return [*TWO_BATCHES, *of_codes, *critic, f"+term@objective.terms.another={option}"]
    if group == "corruption":
        return [*TWO_BATCHES, "model=ae", f"+corruption@objective.corruption={option}"]
    if group == "data":
        extra = on_disk if option in ("array", "mnist", "fashion_mnist", "kmnist") else []
        extra += [f"data.root={raw_sets / 'published'}", "data.batch_size=8"] if option in PUBLISHED else []
        extra += {
            "image_folder": [
                f"data.root={raw_sets / 'photos'}",
                f"data.cache={raw_sets / 'cache'}",
                "data.batch_size=8",
            ],
            "table": [f"data.root={raw_sets / 'table.csv'}", "data.batch_size=8", "loss=gaussian_shared_scale"],
            "waves": ["loss=gaussian_shared_scale", "data.values=[3,5,4,8]"],
            "wine": ["loss=gaussian_shared_scale"],
            "emnist": ["data.validation=5"],
            "celeba": ["data.size=16"],
            "stl10": ["encoder.hidden=[8]", "decoder.hidden=[8]"],
            "dsprites": ["data.validation=30", "data.test=30"],
            **{name: ["data.validation=8"] for name in ("cifar10", "cifar100", "svhn")},
            "sprites": ["data.size=16", "data.values=[3,3,4,5,5]", "data.validation=50", "data.test=50"],
        }.get(option, [])
        return ["trainer=debug", f"data={option}", "callbacks.progress_bar=null", *extra]
    if group == "augmentation":
        return [*TWO_BATCHES, f"+augmentation@data.augment={option}"]
    if group == "loss" and option in ("poisson", "negative_binomial"):
        counts = [f"data.root={raw_sets / 'counts'}", "data.scale=none", "data.batch_size=8"]
        return ["trainer=debug", "data=array", "callbacks.progress_bar=null", f"loss={option}", *counts]
    if group == "loss" and option == "columns":
        return ["trainer=debug", "data=wine", "callbacks.progress_bar=null", f"loss={option}"]
    if group == "experiment" and option.startswith("papers/"):
        if "freyfaces" in option:
            small = [f"data.root={raw_sets}"]
        elif option.startswith("papers/locatello"):
            small = ["data.size=32", "data.values=[3,3,4,5,5]", "data.validation=50", "data.test=100"]
            small += ["trainer.max_steps=2", "metrics.factors.images=100"]
        else:
            small = ["data=digits", "data.validation=200"]
        return ["trainer=debug", "callbacks.progress_bar=null", f"experiment={option}", *small]
    if group == "experiment":
        extra = on_disk if option.endswith(("mnist", "fashion")) else []
        extra += {
            "vae_cifar10": [
                f"data.root={raw_sets / 'photos'}",
                f"data.cache={raw_sets / 'cache'}",
                "data.batch_size=8",
            ],
            "vae_freyfaces": [f"data.root={raw_sets}"],
            "vae_signals": ["data.values=[3,5,4,8]"],
            "vae_sprites": [
                "trainer.max_steps=2",
                "data.size=32",
                "data.values=[3,3,4,5,5]",
                "data.validation=50",
                "data.test=50",
            ],
        }.get(option, [])
        return ["trainer=debug", "callbacks.progress_bar=null", f"experiment={option}", *extra]
    if group == "metrics":
        small = ["data=sprites", "data.size=8", "data.values=[2,2,4,4,4]", "data.test=100", "data.validation=0"]
        extra = (
            small if option == "factors" else ["metrics.generation.features=pixels", "metrics.generation.images=150"]
        )
        return [*TWO_BATCHES, f"metrics={option}", *extra]
    if group == "trainer":
        # A preset's own limits are what is tested, but for the length of the run.
        extra = ["trainer.max_steps=2", "trainer.limit_test_batches=2"]
        extra += ["trainer.accelerator=cpu"] if option == "ddp" else []
        return ["data=digits", "callbacks.progress_bar=null", f"trainer={option}", *extra]
    if (group, option) == ("callbacks", "generation"):
        few = ["callbacks.generation.features=pixels", "callbacks.generation.images=150"]
        return [*[word for word in TWO_BATCHES if "callbacks" not in word], "callbacks=generation", *few]
    extra = {
        ("logger", "wandb"): ["logger.wandb.offline=true"],
    }.get((group, option), [])
    return [*TWO_BATCHES, *extra, f"{group}={option}"]


def parameter(group: str, option: str) -> object:
    # wandb and mlflow use what their own dependencies have deprecated.
    foreign = [pytest.mark.filterwarnings("ignore::DeprecationWarning")] if option in ("wandb", "mlflow") else []
    return pytest.param(group, option, marks=foreign)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("group", "option"), [parameter(*pair) for pair in every_option() if pair not in {*PRESET_OF, *OF_FITS}]
)
def test_every_option_of_every_group_trains_tests_and_draws(
    group: str, option: str, raw_sets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if option == "gpu" and not torch.cuda.is_available():
        pytest.skip("trainer=gpu needs a GPU, and there is none here")
    overrides = overrides_for(group, option, raw_sets)
    folder = tmp_path / "run"
    if option == "ddp":  # its processes are started anew from the command line
        result = command("train", *overrides, f"hydra.run.dir={folder}", cwd=tmp_path)
        assert result.returncode == 0, result.stderr
    else:
        monkeypatch.chdir(tmp_path)
        if option in PUBLISHED:
            monkeypatch.setattr("torchvision.datasets.utils.check_md5", lambda *_: True)  # made by published.py
            make_all(raw_sets / "published")
        vaelab.train(vaelab.compose(overrides), folder=folder)
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["steps"] == 2
    assert np.isfinite(list(metrics.values())).all()
    assert (folder / "figures" / "reconstructions.png").is_file()
    assert json.loads((folder / "status.json").read_text())["state"] == "done"


@pytest.mark.parametrize(("pair", "preset"), PRESET_OF.items(), ids=str)
def test_an_option_that_goes_with_others_only_is_run_as_part_of_its_preset(pair: tuple[str, str], preset: str) -> None:
    group, option = pair
    assert vaelab.compose([f"model={preset}", f"{group}={option}"]) == vaelab.compose([f"model={preset}"])


def test_conf_has_no_option_that_the_shipped_groups_miss() -> None:
    files = {path.relative_to(CONF) for path in CONF.rglob("*.yaml")} - {Path("train.yaml")}
    assert files == {Path(group, f"{option}.yaml") for group in groups() for option in options(group)}


@pytest.mark.parametrize("preset", options("model"))
def test_a_copy_of_a_preset_in_a_folder_of_ones_own_works_under_its_new_name(preset: str, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    shutil.copy(CONF / "model" / f"{preset}.yaml", tmp_path / "model" / "mine.yaml")
    mine = vaelab.compose(["model=mine"], config_dir=tmp_path)
    assert mine == vaelab.compose([f"model={preset}"])


def test_every_knob_of_every_shipped_part_stands_in_its_config() -> None:
    """So that it can be overridden without a `+`, and is seen by who reads the file."""
    for path in CONF.rglob("*.yaml"):
        for node in nodes_with_target(OmegaConf.to_container(OmegaConf.load(path))):
            module, _, name = node["_target_"].rpartition(".")
            target = getattr(import_module(module), name)
            parameters = inspect.signature(target).parameters.values()
            knobs = {parameter.name for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY}
            if stock := kind_of(target):  # a class of torch, with its own arguments and what Lightning asks beside them
                knobs = {parameter.name for parameter in parameters} - {*stock.given} | {*stock.more} & {*node}
            chosen = {
                key.rpartition("@")[2] for entry in node.pop("defaults", []) for key in entry
            }  # groups put at a knob
            assert set(node) - {"_target_"} | chosen == knobs, path


def nodes_with_target(node: object) -> Iterator[dict[str, Any]]:
    if isinstance(node, dict):
        if "_target_" in node:
            yield node
        for child in node.values():
            yield from nodes_with_target(child)
