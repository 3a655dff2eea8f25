"""Parse a command's overrides once into Hydra's objects, and explain what is wrong with them."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import ChoiceSweep, Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from vaelab.config.conf import flat_keys, groups, options
from vaelab.config.loader import Loader, loader
from vaelab.errors import did_you_mean

SYNONYMS = {
    "optimizer.lr": ("learning_rate", "lr", "step_size"),
    "trainer.max_epochs": ("epochs", "num_epochs", "n_epochs"),
    "trainer.max_steps": ("steps", "num_steps", "iterations"),
    "trainer.accelerator": ("device", "gpu", "cuda"),
    "trainer.devices": ("gpus", "num_gpus"),
    "trainer.gradient_clip_val": ("clip", "grad_clip", "clip_grad_norm"),
    "data": ("dataset",),
    "data.root": ("data_dir", "data_path"),
    "data.batch_size": ("bs",),
    "objective.kl_weight": ("beta", "kl_beta", "kl_coef"),
    "latent_dim": ("z_dim", "latent_size", "latent_dims", "n_latent", "code_dim", "zdim", "latents"),
    "encoder.hidden": ("hidden_dims", "hidden_dim", "hidden_size"),
    "threads": ("num_workers", "workers", "num_threads"),
    "loss": ("likelihood", "recon_loss", "criterion"),
    "scheduler": ("lr_scheduler",),
    "seed": ("random_seed",),
    "hydra.run.dir": ("output_dir", "out_dir", "save_dir", "log_dir"),
}
"""Other words of the field for a key. Batches are resident in memory, so `threads` does what workers do elsewhere."""


class Overrides(Sequence[Override]):
    """Parsed overrides, in the order in which they were typed."""

    def __init__(self, parsed: Iterable[Override]) -> None:
        self._parsed = tuple(parsed)

    def __getitem__(self, index: Any) -> Any:
        return self._parsed[index]

    def __len__(self) -> int:
        return len(self._parsed)

    @property
    def texts(self) -> list[str]:
        """Return the overrides as text."""
        return [str(override.input_line) for override in self._parsed]

    def sets(self, key: str) -> bool:
        """Whether one of them sets a key, with or without a + or ++."""
        return any(override.key_or_group == key for override in self._parsed)

    def classes(self) -> Iterator[str]:
        """Yield the keys whose `_target_` one of them sets."""
        for override in self._parsed:
            if override.key_or_group.endswith("._target_") and not override.is_delete():
                yield override.key_or_group.removesuffix("._target_")


def is_below(key: str, others: Sequence[str]) -> bool:
    """Whether a key is one of the others or part of one."""
    return any(key == other or key.startswith((f"{other}.", f"{other}/", f"{other}@")) for other in others)


def parse(texts: Sequence[str], mistakes: list[str]) -> Overrides:
    """Return the overrides that can be parsed; append what is wrong with the others to `mistakes`."""
    parsed = []
    with loader() as hydra:
        for text in texts:
            try:
                override = hydra.parse(f"init.run={text.removeprefix('init=')}" if text.startswith("init=") else text)
            except HydraException as error:
                mistakes.append(f"{text}: not an override ({said(error)}); {_rewritten(text)}")
                continue
            if override.key_or_group.strip("= "):
                parsed.append(override)
            else:
                mistakes.append(f"{text}: not an override (it names no key); write key=value")
    return Overrides(parsed)


def unsearchable(overrides: Overrides) -> Iterator[str]:
    """Refuse anything but folders in hydra.searchpath: a package would be imported, an address fetched."""
    for override in overrides:
        if override.key_or_group != "hydra.searchpath" or override.is_sweep_override():
            continue
        paths = override.value()
        if not isinstance(paths, list) or not paths:
            yield "hydra.searchpath should be a list of folders: hydra.searchpath=[my_conf]"
            continue
        for path in map(str, paths):
            if not Path(path.removeprefix("file://")).is_dir():
                yield f"hydra.searchpath: {path} is not a folder on this machine"


def wrong(overrides: Overrides, hydra: Loader) -> list[str]:
    """Explain overrides that do not compose, as far as each can be judged alone."""
    mistakes: list[str] = []
    sound: list[str] = []
    keys: list[Override] = []
    for override in overrides:
        group, text = override.key_or_group, str(override.input_line)
        if override.is_sweep_override():
            values = text.partition("=")[2]
            listed = isinstance(override.value(), ChoiceSweep)
            as_list = f"; one value that is a list is {group}=[{values}]" if listed else ""
            mistakes.append(f"{text}: several values are a sweep, which needs -m (--multirun){as_list}")
            continue
        offered = options_of(group, overrides, hydra)
        if not offered:
            keys.append(override)
            continue
        chosen = override.value()
        if chosen is None and not override.is_delete():
            instead = f"{did_you_mean('null', offered)}; to leave the part out, write {_left_out(group, hydra)}"
            mistakes.append(f"{text}: no such option{instead}")
        elif override.is_delete() and not _composes([text], hydra):
            mistakes.append(f"{text}: no such choice to drop; to leave the part out: {_left_out(group, hydra)}")
        else:
            names = [str(name) for name in (chosen if isinstance(chosen, list) else [chosen]) if name is not None]
            unknown = [name for name in names if name not in offered]
            mistakes += [f"{group}={name}: no such option{did_you_mean(name, offered)}" for name in unknown]
            chosen_already = override.is_add() and not _composes([text], hydra) and _composes([text[1:]], hydra)
            mistakes += [f"{text}: {group} is a part of every config; leave out the +"] if chosen_already else []
            sound += [] if unknown or chosen_already else [text]
    flat = keys_of(hydra.compose(sound if _composes(sound, hydra) else []))
    for override in keys:
        if not override.is_add() and not override.is_force_add() and override.key_or_group not in flat:
            mistakes.append(unknown_key(override.key_or_group, flat))
    return mistakes


def options_of(group: str, overrides: Overrides, hydra: Loader) -> list[str]:
    """List the options of a group, including those in the user's folders; empty where there is no such group."""
    search = [str(given.input_line) for given in overrides if given.key_or_group == "hydra.searchpath"]
    return hydra.options(group, search)


def unknown_key(key: str, known: Collection[str]) -> str:
    """Explain a key that is not known: which part of it is wrong, and the nearest key.

    >>> unknown_key("lr", ["optimizer", "optimizer.lr"])
    'lr: there is no lr; did you mean optimizer.lr?'
    """
    parent, _, last = key.rpartition(".")
    while parent and parent not in known:
        parent, _, last = parent.rpartition(".")
    where = f"{parent} has no {last}" if parent else f"there is no {last}"
    if not parent and last in groups() and last != key:  # a group that is not chosen, or whose options have no key
        where = f"{last} is not part of this config"
        if key == f"{last}._target_":
            return f"{key}: {where}; choose one, {last}={options(last)[0]}, or add a class: +{key}=..."
    if last not in known and parent in ("callbacks", "logger", "metrics") and key == f"{parent}.{last}._target_":
        return f"{key}: {where}; add it: +{key}=..."
    named = _named(key.rpartition(".")[2], known)
    if named:
        return f"{key}: {where}; did you mean {' or '.join(named)}?"
    siblings = {
        name.removeprefix(f"{parent}.") if parent else name
        for name in known
        if (name.startswith(f"{parent}.") if parent else True)
    }
    siblings = {name for name in siblings if "." not in name and name not in ("_target_", "hydra")}
    near = did_you_mean(last, siblings | (set() if parent else set(groups())))
    if not parent and ("did you mean" not in near or last in groups()):
        near = "; `vaelab train --show` prints all keys"
    return f"{key}: {where}{near}"


def _named(word: str, known: Collection[str]) -> list[str]:
    """Return up to three keys that a word may mean: by a synonym, or as the last part of the key."""
    meant = [key for key, words in SYNONYMS.items() if word.lower() in words and key in {*known, *groups()}]
    last = [key for key in known if "." in key and key.rpartition(".")[2] == word and not key.startswith("hydra.")]
    top = [word] if word in known else []
    return list(dict.fromkeys([*meant, *top, *sorted(last, key=lambda key: key.count("."))]))[:3]


def _rewritten(text: str) -> str:
    """Say how to write a text that cannot be parsed as an override."""
    key, equals, _ = text.partition("=")
    if equals:
        return f"write key=value, and a value with brackets, spaces or other letters in quotes: {key}='\"...\"'"
    fitting = [f"{group}={text}" for group in groups() if group != "sweep" and text in options(group)]
    return f"did you mean {fitting[0]}?" if fitting else "write key=value"


def keys_of(config: DictConfig) -> list[str]:
    """List every dotted key of a composed config."""
    content: Any = OmegaConf.to_container(config, resolve=False)
    return list(flat_keys(content))


def said(error: BaseException) -> str:
    """Format an error and its cause in one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    cause = error.__cause__
    reason = str(cause).splitlines()[0] if cause is not None and str(cause) not in ("", "None") else ""
    lines += [reason] if reason not in " ".join(lines) else []
    return "; ".join(lines)[:400]


def _composes(overrides: Sequence[str], hydra: Loader) -> bool:
    try:
        hydra.compose(overrides)
    except Exception:  # Hydra fails in many ways over what it is given, not all of them its own
        return False
    return True


def _left_out(group: str, hydra: Loader) -> str:
    """Return the override that leaves a group out; for a group of which a list is chosen it differs."""
    return f"~{group}" if _composes([f"~{group}"], hydra) else f"{group}=[]"
