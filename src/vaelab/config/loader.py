"""Call Hydra's config loader on conf/: everything that we use of Hydra that is not public.

Hydra's own `compose` uses the one GlobalHydra of the process, which may be the caller's, and runs callbacks that a
config names. So its loader is called directly. tests/config/test_loader.py checks these names in new versions.
"""

import copy
import pickle
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from typing import Any

from hydra import version
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import ConfigRepository
from hydra._internal.config_search_path_impl import ConfigSearchPathImpl
from hydra._internal.defaults_list import DefaultsList
from hydra._internal.sources_registry import SourcesRegistry
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.config_store import ConfigStore
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.utils import setup_globals
from hydra.plugins.config_source import ConfigResult
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from vaelab.config.conf import CONF

_ONE_AT_A_TIME = threading.RLock()  # Hydra's version base is global to the process


class _Repository(ConfigRepository):
    """Find configs in conf/, the search path and Hydra's own, except its launchers and sweepers.

    Hydra would validate ours against its own, and its plugins', of the same names. Files of conf/ and of Hydra are read
    once: reading them is a third of composing. A composition changes what it is given, so each has a copy of its own.
    """

    def __init__(self, config_search_path: ConfigSearchPath) -> None:
        self._read: dict[str, bytes] = {}
        super().__init__(config_search_path)

    def __deepcopy__(self, memo: dict[int, Any]) -> "_Repository":
        """What Hydra has for each composition, to give it other sources."""
        return copy.copy(self)

    def load_config(self, config_path: str) -> ConfigResult | None:
        if (kept := self._read.get(config_path)) is not None:
            read: ConfigResult = pickle.loads(kept)  # a quarter of the time of copy.deepcopy
            return read
        found = super().load_config(config_path)
        if found is not None and found.provider in ("hydra", "main"):
            self._read[config_path] = pickle.dumps(found)
        return found

    def initialize_sources(self, config_search_path: ConfigSearchPath) -> None:
        super().initialize_sources(config_search_path)
        store = copy.copy(ConfigStore.instance())
        theirs = store.repo["hydra"]
        store.repo = store.repo | {
            "hydra": {name: node for name, node in theirs.items() if name not in ("launcher", "sweeper")}
        }
        for source in self.sources:
            if source.scheme() == "structured":
                source.store = store  # type: ignore[attr-defined]


class Loader:
    """Parse overrides and compose conf/train.yaml with them."""

    def __init__(self, config_dir: Path | None = None) -> None:
        from hydra._internal.core_plugins.file_config_source import FileConfigSource
        from hydra._internal.core_plugins.importlib_resources_config_source import ImportlibResourcesConfigSource
        from hydra._internal.core_plugins.structured_config_source import StructuredConfigSource

        for source in (FileConfigSource, ImportlibResourcesConfigSource, StructuredConfigSource):
            SourcesRegistry.instance().register(source)
        if not OmegaConf.has_resolver("now"):  # the caller's Hydra may have registered them
            setup_globals()
        places = ConfigSearchPathImpl()
        places.append("hydra", "pkg://hydra.conf")
        places.append("main", f"file://{CONF}")
        if config_dir is not None:
            places.append("--config-dir", f"file://{config_dir}")
        places.append("schema", "structured://")
        self._loader = ConfigLoaderImpl(places)
        self._loader.repository = _Repository(places)
        self._parser = OverridesParser.create(self._loader)  # glob(...) asks the loader for a group's options

    def parse(self, text: str) -> Override:
        """Parse one override.

        Raises:
            HydraException: the text is not an override.
        """
        override = self._parser.parse_override(text)
        override.config_loader = self._loader
        return override

    def compose(self, overrides: Sequence[str]) -> DictConfig:
        """Compose train.yaml with the overrides, unresolved, with Hydra's own node `hydra`."""
        return self._loader.load_configuration("train", list(overrides), run_mode=RunMode.RUN, from_shell=False)

    def options(self, group: str, searched: Sequence[str] = ()) -> list[str]:
        """List the options of a group, including those in a folder that the override `hydra.searchpath=...` names."""
        within = partial(self._loader.get_group_options, config_name="train", overrides=list(searched))
        folders = [] if group.startswith("hydra") else within(group, ObjectType.GROUP)
        return [*within(group), *(f"{name}/{one}" for name in folders for one in within(f"{group}/{name}"))]

    @staticmethod
    def sources(config: DictConfig) -> list[str]:
        """List the places that were searched for the files of a composed config, in order."""
        return [f"{source.schema}://{source.path}" for source in config.hydra.runtime.config_sources]

    def defaults(self, overrides: Sequence[str]) -> DefaultsList:
        """List the files that a config is composed of; also as a tree."""
        return self._loader.compute_defaults_list("train", list(overrides), run_mode=RunMode.RUN)


@contextmanager
def loader(config_dir: str | Path | None = None) -> Iterator[Loader]:
    """Give the loader to one thread at a time, and restore the settings of the caller's Hydra afterwards.

    Args:
        config_dir: a folder with config groups of the user's own, searched after conf/.
    """
    with _ONE_AT_A_TIME:
        base = version.VersionBase.instance()
        before = base.getbase()
        version.setbase("1.3")
        try:
            yield _loader(None if config_dir is None else Path(config_dir).absolute())
        finally:
            base.version_base = before


_loader = cache(Loader)
