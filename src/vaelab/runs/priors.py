"""Fit a prior to the codes of a run: a run of the same model, of which the prior alone is trained.

The config is the run's own, but for prior, objective and what says how to train; the weights are the run's, and frozen.
So a fitted prior is a run like any other, in the folder priors/ of the first.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.types import Quote, QuotedString
from omegaconf import OmegaConf

from vaelab.config.check import checked
from vaelab.config.compose import compose_with_hydra, without_hydra
from vaelab.config.conf import options
from vaelab.config.overrides import parse
from vaelab.errors import ConfigError, RunError, did_you_mean
from vaelab.runs.folder import PRIORS, RunFolder
from vaelab.runs.locate import folder_of
from vaelab.runs.run import Run, train_into

if TYPE_CHECKING:
    from omegaconf import DictConfig

PARTS = ("data", "encoder", "posterior", "decoder", "loss")  # that the fitted model has of the run's
VALUES = ("latent_dim", "conditional", "channels_last", "seed", "threads")
ITS_OWN = {*PARTS, *VALUES, "model", "experiment", "init", "frozen", "fit", "objective._target_"} - {
    "data",
    "seed",
    "threads",
}


def fit(run: "Run | str | Path", overrides: Sequence[str], *, trust: Sequence[str] = ()) -> Run:
    """Fit a density to the codes of a run's training images, its weights frozen.

    Args:
        run: a run that is done, or its folder.
        overrides: prior=mixture, flow, second_vae, knn or transformer, and what differs from its defaults in conf/fit.
        trust: packages of one's own whose classes the config may name.

    Raises:
        RunError: there is no such run, or it is not done.
        ConfigError, DataError: as in `train`.
    """
    folder = folder_of(run)
    words = words_of(folder, overrides, trust=trust)
    config = without_hydra(compose_with_hydra(words))
    what = checked(config, trust=trust, form=folder.form)
    what.experiment.data.fetch = False  # the run's data are somebody else's word
    return train_into(
        folder.path / PRIORS / what.experiment.name, replace(what, own=False), exact=False, overrides=words
    )


def sweep_words(run: "Run | str | Path", overrides: Sequence[str], *, trust: Sequence[str] = ()) -> list[str]:
    """The overrides of a sweep of fitted priors, whose folder is in the run's priors/.

    Raises:
        RunError, ConfigError: as in `fit`.
        DataError: the run's data are not there.
    """
    folder = folder_of(run)
    words = words_of(folder, overrides, trust=trust)
    data = checked(folder.config, trust=trust, own=False, trained=True, form=folder.form).experiment.data
    _ = data.splits  # nothing is fetched for it
    if not parse(overrides, []).sets("hydra.sweep.dir"):
        words.append(f"hydra.sweep.dir={_literal(str(folder.path / PRIORS / '${now:%Y-%m-%d_%H-%M-%S}'))}")
    return words


def words_of(folder: RunFolder, overrides: Sequence[str], *, trust: Sequence[str] = ()) -> list[str]:
    """The overrides that make the config of a fitted prior: those that say what the run is, then those given.

    Raises:
        RunError: the run is not done, or its folder is not as it was written.
        ConfigError: there is no such prior, or what is given would make another model.
    """
    if not folder.done:
        raise RunError(
            f"{folder.path} is not done: a prior is fitted to a trained model; `vaelab resume {folder.path}`"
        )
    checked(folder.config, trust=trust, own=False, trained=True, form=folder.form)
    mistakes: list[str] = []
    given, chosen = [], None
    for override in parse(overrides, mistakes):
        key, text = override.key_or_group, str(override.input_line)
        if key == "prior":
            chosen = text.partition("=")[2]
            mistakes += [
                f"prior={name}: no such prior to fit{did_you_mean(name, options('fit'))}"
                for name in map(str.strip, chosen.split(","))
                if name not in options("fit")
            ]
        elif key.partition(".")[0] in ITS_OWN or (key == "data" and not override.is_delete()):
            mistakes.append(
                f"{text}: a prior is fitted to the model of {folder.path} as it is; `vaelab train` makes another"
            )
        else:
            given.append(text)
    if chosen is None and not mistakes:
        mistakes.append(f"say which prior: prior={' or prior='.join(options('fit'))}")
    if mistakes:
        raise ConfigError(mistakes)
    checkpoint = folder.best_checkpoint().absolute()
    return [f"fit={chosen}", *_said(folder.config), f"init.run={_literal(str(checkpoint))}", *given]


def prior_of(run: "Run | str | Path", name: str) -> Path:
    """The folder of a prior that was fitted to a run.

    Raises:
        RunError: there is none of that name.
    """
    folder = folder_of(run)
    found = folder.path / PRIORS / name
    if ".." in Path(name).parts or Path(name).is_absolute() or not (found / "config.yaml").is_file():
        there = sorted(
            str(path.parent.relative_to(folder.path / PRIORS)) for path in (folder.path / PRIORS).glob("**/config.yaml")
        )
        hint = f"there are {', '.join(there)}" if there else f"`vaelab fit {folder.path} prior=flow` makes one"
        raise RunError(f"--prior {name}: no such prior was fitted to {folder.path}; {hint}")
    return found


def _said(config: "DictConfig") -> Iterator[str]:
    """What a run's config says of its model and data, as overrides."""
    content: Any = OmegaConf.to_container(config)
    for key in VALUES:
        if content.get(key) is not None:
            yield f"{key}={_literal(content[key])}"
    if (accelerator := OmegaConf.select(config, "trainer.accelerator")) is not None:
        yield f"trainer.accelerator={_literal(accelerator)}"
    for part in PARTS:
        node = content[part]
        yield f"{part}._target_={_literal(node['_target_'])}"
        yield from (f"++{part}.{key}={_literal(value)}" for key, value in node.items() if key != "_target_")


def _literal(value: Any) -> str:
    """A value in the grammar of overrides."""
    if isinstance(value, str):
        return QuotedString(text=value, quote=Quote.single).with_quotes()
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{_literal(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_literal, value)) + "]"
    return json.dumps(value)
