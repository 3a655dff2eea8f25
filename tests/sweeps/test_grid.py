from pathlib import Path

import pytest

from vaelab.config.conf import options
from vaelab.errors import ConfigError
from vaelab.sweeps.grid import combinations, compose_grid, subfolder


def parameters(*overrides: str) -> list[dict[str, object]]:
    return [dict(job.parameters) for job in combinations(overrides)]


def test_hydras_ways_to_say_several_values_are_all_understood() -> None:
    assert parameters("latent_dim=2,8") == [{"latent_dim": 2}, {"latent_dim": 8}]
    assert parameters("latent_dim=choice(2,8)") == [{"latent_dim": 2}, {"latent_dim": 8}]
    assert parameters("seed=range(0,6,2)") == [{"seed": 0}, {"seed": 2}, {"seed": 4}]
    assert parameters("model=glob(*vae)") == [{"model": name} for name in options("model") if name.endswith("vae")]
    assert parameters("encoder.hidden=[400],[200,100]") == [{"encoder.hidden": [400]}, {"encoder.hidden": [200, 100]}]
    assert parameters("+x='a,b',c", "y=null,true,1e-3") == [
        {"x": x, "y": y} for x in ("a,b", "c") for y in (None, True, 0.001)
    ]


def test_what_is_not_swept_is_no_parameter_and_reaches_every_job() -> None:
    jobs = combinations(["seed=1,2", "~prior", "+encoder.x=[1,2]", "name='a b'"])
    assert [job.parameters for job in jobs] == [{"seed": 1}, {"seed": 2}]
    assert all(list(job.overrides[1:]) == ["~prior", "+encoder.x=[1,2]", "name='a b'"] for job in jobs)


def test_of_a_key_given_twice_the_later_counts() -> None:
    assert parameters("seed=1,2", "seed=7") == [{}]
    assert [job.overrides for job in combinations(["seed=1,2", "seed=7"])] == [["seed=7"]]


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("seed=range(3,3)", "no value"),
        ("loss=glob(x*)", "no value"),
        ("seed=1,", "not an override"),
        ("seed=1,2,1", "seed=1 is in the sweep twice"),
        ("optimizer.lr=1e-3,0.001", "lr=0.001 is in the sweep twice"),
        ("seed", "key=value"),
        ("objective.kl_weight=interval(0,1)", "single values"),
    ],
)
def test_an_axis_without_values_is_refused(override: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        compose_grid([override, "data=digits"])


def test_other_letters_are_said_to_need_quotes() -> None:
    with pytest.raises(ConfigError, match="in quotes"):
        combinations(["name=größe,größer"])
    assert parameters("+x='größe',b") == [{"x": "größe"}, {"x": "b"}]


def test_paired_axes_are_one_axis() -> None:
    axes = ["latent_dim=2,8", "objective.kl_weight=1,4", "seed=range(0,2)"]
    jobs = combinations(axes, [["objective.kl_weight", "latent_dim"]])
    assert [tuple(job.parameters.values()) for job in jobs] == [(2, 1, 0), (2, 1, 1), (8, 4, 0), (8, 4, 1)]
    assert jobs[2].overrides == ["latent_dim=8", "objective.kl_weight=4", "seed=0"]
    pairs = combinations(["+a=1,1", "+b=2,3", "model=ae,vae", "+c=5,6"], [["a", "b"], ["model", "c"]])
    assert [tuple(job.parameters.values()) for job in pairs] == [
        (1, 2, "ae", 5),
        (1, 2, "vae", 6),
        (1, 3, "ae", 5),
        (1, 3, "vae", 6),
    ]
    grid = compose_grid(["data=digits", *axes, "hydra.sweeper.zip=[latent_dim,objective.kl_weight]"])
    assert [(job.config.latent_dim, job.config.objective.kl_weight) for job in grid] == [(2, 1), (2, 1), (8, 4), (8, 4)]


@pytest.mark.parametrize(
    ("paired", "words"),
    [
        ("latent_dim,kl_weight", "kl_weight is not swept over; did you mean objective.kl_weight"),
        ("latent_dim,seed", "latent_dim has 2, seed has 3"),
        ("latent_dim,latent_dim", "names a parameter twice"),
        ("[latent_dim,objective.kl_weight],[objective.kl_weight,latent_dim]", "names a parameter twice"),
    ],
)
def test_axes_that_cannot_be_paired_are_refused(paired: str, words: str) -> None:
    axes = ["latent_dim=2,8", "objective.kl_weight=1,4", "seed=1,2,3", "data=digits"]
    with pytest.raises(ConfigError, match=words):
        compose_grid([*axes, f"hydra.sweeper.zip=[{paired}]"])


@pytest.mark.slow
def test_a_named_sweep_is_an_axis_and_what_is_typed_goes_before_it() -> None:
    grid = compose_grid(["sweep=kl_weight", "seed=1,2"])
    assert [job.combination.parameters for job in grid[:2]] == [
        {"objective.kl_weight": 0.1, "seed": 1},
        {"objective.kl_weight": 0.1, "seed": 2},
    ]
    assert [job.config.objective.kl_weight for job in compose_grid(["sweep=kl_weight", "objective.kl_weight=3"])] == [3]
    both = compose_grid(["sweep=[loss,seeds]", "seed=1,2"])
    assert {(job.config.loss._target_, job.config.seed) for job in both} >= {("vaelab.models.likelihoods.Bernoulli", 2)}
    of_images = set(options("loss")) - {"columns", "poisson", "negative_binomial"}
    assert len(both) == 2 * len(of_images)


def test_every_mistake_of_every_job_is_said_at_once() -> None:
    with pytest.raises(ConfigError) as error:
        compose_grid(["model=ae,vea", "loss=bce,mes", "optimizer.lrr=1"])
    assert len(error.value.mistakes) == 3
    assert all(word in str(error.value) for word in ("vae", "mse", "did you mean lr?"))


def test_a_jobs_folder_says_its_number_and_its_parameters() -> None:
    grid = compose_grid(["objective.kl_weight=0.5,4", "encoder.hidden=[40,20]", "data.root='a/b c',d"])
    assert subfolder(grid[2], 2, 12) == "02_kl_weight=4,root=a_b_c"
    (alone,) = compose_grid(["latent_dim=3"])
    assert subfolder(alone, 0, 1) == "0"
    (named,) = compose_grid(["seed=4", "hydra.sweep.subdir=${hydra.job.num}/seed${seed}"])
    assert subfolder(named, 3, 9) == "3/seed4"


def test_folders_of_configs_of_ones_own_are_searched(tmp_path: Path) -> None:
    (tmp_path / "loss").mkdir()
    (tmp_path / "loss" / "mine.yaml").write_text("_target_: vaelab.models.likelihoods.Bernoulli\n")
    grid = compose_grid(["loss=bce,mine"], config_dir=tmp_path)
    assert grid[0].config == grid[1].config
