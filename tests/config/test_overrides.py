"""Whatever is written after `vaelab train`: a config that trains, or a message; never another exception.

`VAELAB_EXAMPLES=10` tries ten times as much.
"""

import os
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

import vaelab
from vaelab.config.check import check
from vaelab.config.compose import compose
from vaelab.config.conf import flat_keys, groups, options
from vaelab.errors import UserError

EXAMPLES = int(os.environ.get("VAELAB_EXAMPLES", "1"))
SILENT = "a mistake without a message"
BASE = ["data=digits", "trainer=debug", "callbacks.progress_bar=null"]
WORDS = ["relu", "closed_form", "fixed", "auto", "cpu", "32-true", "bf16-mixed", "val/loss", "null", "true", "''", "x"]
NUMBERS = ["0", "1", "2", "3", "8", "0.5", "1.0", "-1", "1e-3", "100"]
MAD = [
    *["nan", "inf", "-inf", "1e400", "1e-320", "9223372036854775808", "99999999999999999999999999", "1000000000000"],
    *[
        "[]",
        "[[]]",
        "[1]",
        "[8,8]",
        "[0.9,0.99]",
        "[null]",
        "{}",
        "{a:1}",
        "{_target_:os.system}",
        "[1,x]",
        "1,2",
        "[",
        "}",
    ],
    *[
        "${seed}",
        "${latent_dim}",
        "${nothing}",
        "${oc.env:HOME}",
        "${now:%Y}",
        "${",
        "$",
        "é",
        "'é'",
        "'a b'",
        "../x",
        "\\",
    ],
    *["os.system", "vaelab.models.networks.MLPEncoder", "vaelab.losses.elbo", "range(1,3)", "choice(1,2)", "glob(*)"],
]


@cache
def known_keys() -> list[str]:
    """Every key of some composed configs."""
    chosen = [[], ["model=ae"], ["encoder=conv", "decoder=conv"], ["+schedule@objective.kl_weight=cyclical"]]
    chosen += [["callbacks=early_stopping"], ["scheduler=cosine"], ["loss=mse"], ["logger=[csv,mlflow]"]]
    found = {key for more in chosen for key in flat_keys(OmegaConf.to_container(compose([*BASE, *more])))}  # type: ignore[arg-type]
    return sorted(found | {"hydra.run.dir", "hydra.callbacks", "hydra.searchpath", "hydra.job.chdir", "hydra.x"})


def misspelt(word: str) -> st.SearchStrategy[str]:
    cut = st.integers(0, max(len(word) - 1, 0))
    return st.one_of(
        cut.map(lambda i: word[:i] + word[i + 1 :]),
        cut.map(lambda i: word[:i] + word[i : i + 1] * 2 + word[i + 1 :]),
        st.sampled_from(["x", ".", "_", "@", "/", " ", "=", "[0]"]).map(lambda end: word + end),
    )


def overrides() -> st.SearchStrategy[str]:
    """One override, mostly of what exists, mostly wrong in one way."""
    values = st.one_of(st.sampled_from(NUMBERS), st.sampled_from(WORDS), st.sampled_from(MAD), st.text(max_size=5))
    key = st.sampled_from(known_keys())
    group = st.sampled_from(groups())
    choice = group.flatmap(
        lambda name: st.sampled_from([*options(name), "null", "[]", "nope"]).map(lambda option: f"{name}={option}")
    )
    plain = st.tuples(key, values).map("=".join)
    package = st.tuples(group, st.sampled_from(["linear", "mlp", "elbo"]), key).map(lambda t: f"+{t[0]}@{t[2]}={t[1]}")
    return st.one_of(
        plain,
        plain,
        choice,
        st.tuples(st.sampled_from(["+", "++", "~", ""]), st.one_of(plain, choice)).map("".join),
        st.one_of(key, group).map(lambda name: f"~{name}"),
        package,
        st.tuples(key.flatmap(misspelt), values).map("=".join),
        choice.flatmap(misspelt),
        st.tuples(key, st.sampled_from(["foo", "_target_", "_partial_", "0"]), values).map(
            lambda t: f"+{t[0]}.{t[1]}={t[2]}"
        ),
        st.text(max_size=12),
    )


def outcome(given: list[str], *, trained: bool) -> str:
    """What `given` leads to: a message, or nothing. What is sound is trained for two steps where it costs little."""
    try:
        config = compose([*BASE, *given])
        check(config)
        if trained and _affordable(config):
            with tempfile.TemporaryDirectory() as folder:
                vaelab.train(config, folder=Path(folder) / "run")
                assert (Path(folder) / "run" / "metrics.json").is_file()
    except UserError as error:
        return str(error).strip() or SILENT
    return ""


def _affordable(config: Any) -> bool:
    """Whether training it takes neither network nor long."""
    logger, trainer = config.get("logger") or {}, config.trainer
    few = trainer.get("limit_train_batches") == 2 and trainer.get("max_steps") == 2 and trainer.get("max_epochs") == 1
    small = config.latent_dim < 1000 and config.encoder.get("hidden") in (None, [400], [8, 8], [1], [])
    bundled = config.data.get("root") is None and config.data._target_.endswith("ScikitDigits")
    alone = trainer.get("num_nodes", 1) == 1 and trainer.get("devices") == 1 and trainer.get("strategy") == "auto"
    return few and small and bundled and alone and set(logger) <= {"tensorboard", "csv"}


PROFILE = {"deadline": None, "derandomize": True, "database": None, "suppress_health_check": list(HealthCheck)}


@pytest.mark.slow
@settings(max_examples=20 * EXAMPLES, **PROFILE)  # type: ignore[arg-type]
@given(st.lists(overrides(), min_size=1, max_size=3))
def test_any_overrides_give_a_config_or_a_message(given: list[str]) -> None:
    assert outcome(given, trained=False) != SILENT


@pytest.mark.filterwarnings("ignore")  # a config may well be worth a warning, such as torch's on a gradient of NaN
@settings(max_examples=5, **PROFILE)  # type: ignore[arg-type]
@given(
    st.lists(st.tuples(st.sampled_from(known_keys()), st.sampled_from(NUMBERS)).map("=".join), min_size=1, max_size=1)
)
def test_a_config_that_is_sound_trains_or_says_why_not(given: list[str]) -> None:
    assert outcome(given, trained=True) != SILENT


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@settings(max_examples=50 * EXAMPLES, **PROFILE)  # type: ignore[arg-type]
@given(st.lists(overrides(), min_size=1, max_size=4))
def test_many_more_overrides_train_or_give_a_message(given: list[str]) -> None:
    assert outcome(given, trained=True) != SILENT
