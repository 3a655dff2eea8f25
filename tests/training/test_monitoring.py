import math
import time
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import vaelab
from vaelab.config.check import check
from vaelab.losses import kl_per_dimension
from vaelab.models.autoencoder import Autoencoder
from vaelab.runs.differences import scalars
from vaelab.training.checkpoints import read

SMALL = [
    "data=digits",  # 11 batches an epoch
    "trainer=cpu",
    "trainer.log_every_n_steps=4",
    "encoder.hidden=[16]",
    "decoder.hidden=[16]",
    "callbacks.progress_bar=null",
    "callbacks.pictures.every_n_epochs=2",
]
VAE = [
    "model=annealed_vae",
    "objective.kl_weight.steps=30",
    "latent_dim=2",
    "scheduler=cosine",
    "optimizer.lr=0.01",
    "trainer.max_epochs=3",
]
NOTHING = ["callbacks.rates=null", "callbacks.latents=null", "callbacks.pictures=null", "logger=[]"]
LOGGED = [4, 8, 11, 15, 19, 22, 26, 30, 33]


def train(folder: Path, *overrides: str) -> Path:
    return vaelab.train(vaelab.compose([*SMALL, *overrides]), folder=folder).folder


def events(run: Path) -> EventAccumulator:
    accumulator = EventAccumulator(str(run / "tensorboard"), size_guidance={"images": 0, "histograms": 0})
    return accumulator.Reload()


@pytest.fixture(scope="module")
def vae(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(tmp_path_factory.mktemp("vae") / "run", *VAE)


@pytest.fixture(scope="module")
def ae(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(tmp_path_factory.mktemp("ae") / "run", "model=ae", "latent_dim=3", "trainer.max_epochs=1")


def last_posterior(run: Path) -> tuple[torch.distributions.Distribution, Autoencoder]:
    """q(z|x) of the validation images under the weights at the end of training."""
    experiment = check(vaelab.compose([*SMALL, *VAE]))
    model = experiment.model()
    weights = read(run / "checkpoints" / "last.ckpt")["state_dict"]
    model.load_state_dict({name.removeprefix("model."): value for name, value in weights.items()})
    with torch.no_grad():
        return model.encode(experiment.data.splits.validation.pixels.float() / 255), model


class TestRates:
    def test_the_weight_of_the_kl_is_that_of_its_schedule_wherever_the_terms_are_logged(self, vae: Path) -> None:
        logged = scalars(vae / "tensorboard")
        assert [step for step, _ in logged["train/kl"]] == LOGGED
        assert logged["train/kl_weight"] == [(step, pytest.approx(min(step / 30, 1))) for step in LOGGED]

    def test_each_term_has_its_weight(self, tmp_path: Path) -> None:
        overrides = ["+schedule@objective.terms.code_norm.weight=linear", "trainer.max_epochs=1"]
        steps = "objective.terms.code_norm.weight.steps=100"
        logged = scalars(train(tmp_path / "run", "model=rae_l2", *overrides, steps) / "tensorboard")
        assert logged["train/decoder_norm_weight"] == [(step, pytest.approx(0.00512)) for step in LOGGED[:3]]
        assert logged["train/code_norm_weight"] == [(step, pytest.approx(step / 100)) for step in LOGGED[:3]]

    def test_the_learning_rate_is_that_of_its_schedule(self, vae: Path) -> None:
        expected = [(step, pytest.approx(0.005 * (1 + math.cos(math.pi * step / 33)), abs=1e-9)) for step in LOGGED]
        assert scalars(vae / "tensorboard")["train/learning_rate"] == expected

    def test_images_a_second_are_those_of_an_epoch(self, tmp_path: Path) -> None:
        began = time.monotonic()
        run = train(tmp_path / "run", "trainer.max_epochs=2", "data.batch_size=100")
        seconds = time.monotonic() - began
        ((first, slowest), (second, other)) = scalars(run / "tensorboard")["train/images_per_second"]
        images = len(check(vaelab.compose(SMALL)).data.splits.train)
        assert (first, second) == (math.ceil(images / 100), 2 * math.ceil(images / 100))
        # Both epochs fit into the time that the whole took.
        assert images / slowest + images / other < seconds

    def test_every_term_is_laid_beside_itself_in_validation_the_sum_last(self, vae: Path) -> None:
        from tensorboard.plugins.custom_scalar.layout_pb2 import Layout

        (event,) = events(vae).Tensors("custom_scalars__config__")
        (category,) = Layout.FromString(event.tensor_proto.string_val[0]).category
        charts = {chart.title: list(chart.multiline.tag) for chart in category.chart}
        assert charts == {
            name: [f"^train/{name}$", f"^val/{name}$"]  # ^train/kl$, or train/kl_weight would be in it
            for name in ("reconstruction", "kl", "loss")
        }
        assert list(charts)[-1] == "loss"


class TestLatents:
    def test_active_units_are_counted_over_all_validation_images(self, vae: Path) -> None:
        q, _ = last_posterior(vae)
        logged = scalars(vae / "tensorboard")["val/active_units"]
        assert [step for step, _ in logged] == [11, 22, 33]
        assert logged[-1][1] == (q.mean.var(0) > 0.01).sum()

    def test_the_histogram_is_of_each_dimensions_mean_kl(self, vae: Path) -> None:
        q, model = last_posterior(vae)
        with torch.no_grad():
            kl = kl_per_dimension(q, model.prior()).mean(0)
        history = events(vae).Histograms("val/kl_per_dimension")
        assert [event.step for event in history] == [11, 22, 33]
        histogram = history[-1].histogram_value
        assert histogram.num == 2
        assert (histogram.min, histogram.max) == pytest.approx((kl.min().item(), kl.max().item()), rel=1e-5)

    def test_a_plain_autoencoder_has_neither(self, ae: Path) -> None:
        assert "val/active_units" not in scalars(ae / "tensorboard")
        assert events(ae).Tags()["histograms"] == []


def test_watching_changes_no_weight_and_no_metric(vae: Path, tmp_path: Path) -> None:
    unwatched = train(tmp_path / "run", *VAE, *NOTHING)
    before, after = (read(run / "checkpoints" / "last.ckpt")["state_dict"] for run in (unwatched, vae))
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert (unwatched / "metrics.json").read_text() == (vae / "metrics.json").read_text()


def test_scalars_go_to_a_table_as_well(tmp_path: Path) -> None:
    run = train(tmp_path / "run", "trainer.max_epochs=1", "logger=[csv]")
    header, *_ = (run / "csv" / "metrics.csv").read_text().splitlines()
    wanted = {"train/kl_weight", "train/learning_rate", "train/images_per_second", "val/active_units", "test/elbo"}
    assert wanted < set(header.split(","))
