"""Hydra's private names that we use, and that a caller's own Hydra is left alone."""

import threading
from importlib.metadata import version
from pathlib import Path

import hydra
import pytest
from hydra import initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.plugins import Plugins
from hydra.version import VersionBase
from omegaconf import OmegaConf

import vaelab
from vaelab.config.loader import Loader, loader
from vaelab.errors import ConfigError

HYDRA = version("hydra-core")


def test_hydra_still_has_the_private_names_that_we_use() -> None:
    from hydra._internal.config_loader_impl import ConfigLoaderImpl
    from hydra._internal.config_repository import CachingConfigRepository, ConfigRepository
    from hydra._internal.defaults_list import DefaultsList

    uses = {
        ConfigLoaderImpl: ["load_configuration", "get_group_options", "compute_defaults_list", "repository"],
        ConfigRepository: ["initialize_sources", "get_group_options", "load_config"],
        CachingConfigRepository: ["initialize_sources", "load_config"],
        DefaultsList: ["defaults", "defaults_tree"],
    }
    with loader() as ours:
        made = {ConfigLoaderImpl: ours._loader, DefaultsList: ours.defaults([])}
    for kind, names in uses.items():
        missing = [name for name in names if not hasattr(made.get(kind, kind), name)]
        assert not missing, f"Hydra {HYDRA} has no {kind.__name__}.{missing}: vaelab/config/loader.py"
    Plugins.instance()  # which registers Hydra's own
    assert {"launcher", "sweeper"} <= set(ConfigStore.instance().repo["hydra"]), f"Hydra {HYDRA} keeps them elsewhere"


def test_what_is_read_once_is_as_if_it_were_read_for_each_composition(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    own = tmp_path / "model" / "mine.yaml"
    own.write_text("# @package _global_\ndefaults: [vae]\nname: mine\n")
    compositions = [
        ["seed=4", "optimizer.lr=0.1", "latent_dim=3", "hydra.run.dir=x"],
        ["experiment=papers/burda_2015_iwae_5", "callbacks.checkpoints.every_n_steps=2"],
        ["+term@objective.terms.mmd=mmd", "+optimizer@_global_=sgd", "model=mine"],
        [],
    ]
    with loader(tmp_path) as ours:
        fresh = [OmegaConf.to_yaml(Loader(tmp_path).compose(words)) for words in compositions]
        for _ in range(2):
            assert [OmegaConf.to_yaml(ours.compose(words)) for words in compositions] == fresh
        own.write_text("# @package _global_\ndefaults: [ae]\nname: mine\n")
        assert ours.compose(["model=mine"]).posterior._target_.endswith("Deterministic")  # one's own is read again


def test_a_callers_own_hydra_is_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("a: 1\nb: ${now:%Y}\n")
    with initialize_config_dir(str(tmp_path), version_base="1.2", job_name="theirs"):
        before = GlobalHydra.instance().hydra, VersionBase.instance().getbase()
        vaelab.compose(["latent_dim=3"])
        with pytest.raises(vaelab.ConfigError):
            vaelab.compose(["latent_dimm=3"])
        assert (GlobalHydra.instance().hydra, VersionBase.instance().getbase()) == before
        assert hydra.compose("mine").a == 1
        assert set(hydra.compose("mine", return_hydra_config=True).hydra.launcher) == {"_target_"}  # Hydra's own


def test_threads_compose_at_the_same_time(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "mine.yaml").write_text("# @package _global_\ndefaults: [vae]\nname: mine\n")
    found: dict[int, tuple[int, str]] = {}

    def work(number: int) -> None:
        own = ["model=mine"] if number % 2 else ["model=ae"]
        config = vaelab.compose([f"latent_dim={number}", *own], config_dir=tmp_path if number % 2 else None)
        found[number] = config.latent_dim, config.name

    threads = [threading.Thread(target=work, args=[number]) for number in range(1, 7)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {number: (number, "mine" if number % 2 else "ae") for number in range(1, 7)}


def test_a_folder_of_ones_own_may_have_any_name(tmp_path: Path) -> None:
    folder = tmp_path / "o'brien's \"conf\", [a=b]"
    (folder / "encoder").mkdir(parents=True)
    (folder / "encoder" / "mine.yaml").write_text("_target_: vaelab.models.networks.MLPEncoder\nhidden: [7]\n")
    assert vaelab.compose(["encoder=mine"], config_dir=folder).encoder.hidden == [7]


def test_what_hydra_shows_of_a_config_names_the_places_of_its_files() -> None:
    with loader() as ours:
        assert isinstance(ours, Loader)
        assert ours.sources(ours.compose([]))[1].startswith("file://")
        assert ("data/digits", "data") in [
            (each.config_path, each.package) for each in ours.defaults(["data=digits"]).defaults
        ]


def test_an_option_in_a_folder_of_its_group_is_one_like_the_others(tmp_path: Path) -> None:
    mine = tmp_path / "experiment" / "mine" / "first.yaml"
    mine.parent.mkdir(parents=True)
    mine.write_text("# @package _global_\ndefaults: [/experiment/papers/tutorial_vae]\nlatent_dim: 3\n")

    assert vaelab.compose(["experiment=mine/first"], config_dir=tmp_path).latent_dim == 3
    with pytest.raises(ConfigError) as error:
        vaelab.compose(["experiment=mine/first", "latent_dm=2"], config_dir=tmp_path)
    assert error.value.mistakes == ("latent_dm: there is no latent_dm; did you mean latent_dim?",)
