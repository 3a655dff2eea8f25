"""What a config is checked for beyond the knobs of each part: whether the parts fit each other, and may stand there."""

from collections.abc import Sequence
from math import prod
from pathlib import Path

import pytest
from torch import Tensor, nn

import vaelab
from vaelab.config.check import check
from vaelab.config.conf import CONF, shipped_targets
from vaelab.config.parts import check_part
from vaelab.errors import ConfigError


class SmallDecoder(nn.Module):
    """Knows of 7 x 7 pixels, whatever the data are."""

    def __init__(self, latent_dim: int, shape: Sequence[int]) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(latent_dim, 49), nn.Unflatten(-1, (1, 7, 7)))

    def forward(self, z: Tensor) -> Tensor:
        image: Tensor = self.layers(z)
        return image


class BoastfulEncoder(nn.Module):
    """Says that it has 100 features, and has 99."""

    def __init__(self, shape: Sequence[int]) -> None:
        super().__init__()
        self.features = 100
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(prod(shape), 99))

    def forward(self, x: Tensor) -> Tensor:
        features: Tensor = self.layers(x)
        return features


class InquisitiveEncoder(nn.Module):
    """Looks at its numbers, which a model without memory has none of."""

    def __init__(self, shape: Sequence[int]) -> None:
        super().__init__()
        self.features = prod(shape)

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) if x.mean() > 0.5 else 1 - x.flatten(1)


def mistakes(*overrides: str, **parts: str) -> str:
    """What is said of a config, with parts of this file."""
    config = vaelab.compose(["data=digits", *overrides])
    for name, part in parts.items():
        config[name] = {"_target_": f"{__name__}.{part}"}
    with pytest.raises(ConfigError) as error:
        check(config, trust=[__name__])
    assert len(error.value.mistakes) == 1
    return error.value.mistakes[0]


@pytest.mark.parametrize(
    "overrides",
    [["encoder.channels=[16,32,64]"], ["decoder.channels=[64]"], ["encoder.features=8", "posterior.codes=8"]],
)
def test_the_grid_of_codes_is_the_decoders(overrides: list[str]) -> None:
    """By their size alone, 8 x 8 images being halved, the numbers of z would fit most of these."""
    assert "as many entries as encoder.channels" in mistakes("model=vq_vae", *overrides)


def test_codes_of_flat_features_may_be_a_grid_to_the_decoder() -> None:
    check(vaelab.compose(["model=vq_vae", "data=digits", "encoder.features=8", "posterior.codes=4"]))


def test_a_decoder_gives_what_the_likelihood_takes() -> None:
    assert mistakes(decoder="SmallDecoder") == (
        "SmallDecoder returns shape (1, 7, 7) for a latent, and loss=bce expects (1, 8, 8)"
    )


def test_an_encoder_has_the_features_that_it_says() -> None:
    said = mistakes(encoder="BoastfulEncoder")
    assert said.startswith("the loss cannot be computed for images (1, 8, 8): ")
    assert "99" in said
    assert "gaussian.py, line" in said


def test_a_part_that_looks_at_numbers_is_not_judged_without_any() -> None:
    config = vaelab.compose(["data=digits"])
    config.encoder = {"_target_": f"{__name__}.InquisitiveEncoder"}
    check(config, trust=[__name__])


def test_a_part_that_is_no_weight_does_not_stand_for_one() -> None:
    said = mistakes("++objective.kl_weight={_target_:vaelab.losses.corruptions.Masking}")
    assert said.startswith("the loss cannot be computed")


def test_parts_stand_where_conf_has_their_like() -> None:
    targets = shipped_targets()
    assert targets["vaelab.sweeps.launchers.Joblib"] == {"hydra.launcher"}
    assert targets["vaelab.losses.MMD"] == {"objective."}
    assert targets["vaelab.models.schedules.Linear"] == {"objective.", "posterior."}
    assert targets["vaelab.models.networks.MLPDecoder"] == {"decoder", "decoder.network"}
    assert all(places for places in targets.values())


@pytest.mark.parametrize(
    "target", ["vaelab.models.networks.MLPEncoder", "vaelab.models.schedules.Linear", "vaelab.losses.MMD"]
)
def test_another_part_for_a_launcher_is_refused_with_the_launchers(target: str) -> None:
    with pytest.raises(ConfigError) as error:
        check_part("hydra.launcher", {"_target_": target})
    _, offered = str(error.value).split("; there are ")
    names = [path.stem for path in Path(CONF, "hydra", "launcher").glob("*.yaml")]
    assert len(offered.split(", ")) == len(names)
    assert all(name.startswith("vaelab.sweeps.launchers.") for name in offered.split(", "))


@pytest.mark.parametrize(
    ("override", "mistake"),
    [
        ("paper.value=abc", "paper.value=abc: should be a valid number"),
        ("~paper.metric", "paper.metric=null: should have a value here"),
        ("+paper.what=2", "paper.what=2: should not be there"),
    ],
)
def test_what_is_wrong_with_the_words_on_a_paper_is_told_by_its_key(override: str, mistake: str) -> None:
    config = vaelab.compose(["experiment=papers/pytorch_vae", "data=digits", "data.validation=200", override])
    with pytest.raises(ConfigError) as error:
        check(config)
    assert error.value.mistakes == (mistake,)
