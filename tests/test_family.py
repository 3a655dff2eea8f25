"""Every model of conf/model through every command: each gives the right thing, or says in one line why it does not."""

import json
import math
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor

import vaelab
from tokenizers import OF_GREY_DIGITS
from vaelab import figures
from vaelab.cli.main import main
from vaelab.config.check import check
from vaelab.config.conf import options
from vaelab.data.images import spread
from vaelab.looking.load import opened
from vaelab.metrics.latents import active_units
from vaelab.metrics.likelihood import log_likelihoods
from vaelab.models.distributions import BernoulliImage
from vaelab.seeding import derive_seed, seed_noise

PRESETS = options("model")
SMALL = ["data=digits", "data.batch_size=300", "trainer=cpu", "trainer.max_epochs=2", "callbacks.progress_bar=null"]
VERBS = ("reconstruct", "sample", "interpolate", "traverse", "manifold", "embed")
Trained = Callable[[str], Path]


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """The run of a preset on black and white digits, trained when it is first asked for."""

    @cache
    def folder(preset: str) -> Path:
        config = vaelab.compose([*SMALL, f"model={preset}", "data.binarize=fixed", *OF_GREY_DIGITS.get(preset, [])])
        return vaelab.train(config, folder=tmp_path_factory.mktemp("runs") / preset).folder

    return folder


def ended(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str]:
    """The exit code of a command and its errors; a refusal is a line or more and nothing else."""
    with pytest.raises(SystemExit) as end:
        main([str(argument) for argument in arguments])
    output = capsys.readouterr()
    code = end.value.code or 0
    assert code in (0, 2), output.err
    if code == 2:
        assert output.out == ""
        assert all(line.startswith("error: ") for line in output.err.splitlines()), output.err
    return int(code), output.err


def shows(path: Path, picture: np.ndarray) -> bool:
    """Whether a figure stands on a picture, enlarged."""
    with Image.open(path) as image:
        figure = np.asarray(image.convert("RGB"))
    large = figures.enlarged(picture, figures.WIDTH)
    height, width = large.shape[:2]
    rows = figure[-15 - height : -15]
    return any((rows[:, left : left + width] == large).all() for left in range(rows.shape[1] - width + 1))


@pytest.mark.slow
@pytest.mark.parametrize("preset", PRESETS)
def test_evaluate_finds_what_the_model_has_and_says_why_there_is_no_more(
    preset: str, trained: Trained, capsys: pytest.CaptureFixture[str]
) -> None:
    run = trained(preset)
    model = vaelab.load(run)
    has_densities = model.posterior.has_density and model.prior is not None

    found: Any = vaelab.evaluate(run, samples=10 if has_densities else None)

    reported = json.loads((run / "metrics.json").read_text())
    terms = {name: value for name, value in reported.items() if name.startswith("test/")}
    assert {name: found[name] for name in terms} == terms  # the same bits
    assert all(math.isfinite(number) for value in found.values() for number in np.ravel(value))
    assert ("test/codes_in_use" in found) == (model.space == "codes")
    assert ("test/active_units" in found) == (has_densities and model.space != "codes")
    if has_densities:
        kept = json.loads(next((run / "evaluation").iterdir()).read_text())["metrics"]
        parts = [kept[f"test/{name}"] for name in ("mutual_information", "marginal_kl")]
        error = sum(part["standard_error"] for part in parts)
        assert sum(part["value"] for part in parts) == pytest.approx(found["test/kl"], abs=6 * error + 0.05)
    if "test/kl_per_dimension" in found:
        # in closed form, where the term may be of samples
        assert sum(found["test/kl_per_dimension"]) == pytest.approx(found["test/kl"], rel=0.1, abs=0.2)

    if has_densities:
        assert found["test/nll_10"] < -found["test/elbo"] + 0.5  # from other noise
    else:
        code, errors = ended(capsys, "evaluate", run, "--samples", 10)
        assert code == 2
        assert "no importance-weighted log-likelihood" in errors


@pytest.mark.slow
@pytest.mark.parametrize("preset", PRESETS)
def test_each_command_draws_what_the_model_decodes_or_refuses(
    preset: str, trained: Trained, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    run = trained(preset)
    trained_model = opened(run)
    model, test = trained_model.model, trained_model.experiment.data.splits.test
    x, labels = test.pixels.float() / 255, test.labels
    refused = {
        "sample": model.prior is None,
        "interpolate": model.space == "codes",
        "traverse": model.space != "real vectors",
        "manifold": model.space != "real vectors" or model.posterior.latent_dim != 2,
    }

    for verb in VERBS:
        output = tmp_path / (f"{verb}.npz" if verb == "embed" else f"{verb}.png")
        code, errors = ended(capsys, verb, run, "--output", output)
        assert code == (2 if refused.get(verb) else 0), (verb, errors)
        assert output.exists() == (code == 0)

    with torch.no_grad():
        ten = spread(10, len(x))
        reconstructed = model.reconstruct(x[ten], labels[ten])
        codes = model.encode(x, labels).mean
    assert shows(tmp_path / "reconstruct.png", figures.reconstructions(x[ten], reconstructed))
    assert np.load(tmp_path / "embed.npz")["z"] == pytest.approx(codes.numpy(), abs=1e-5)
    if model.prior is not None:
        torch.manual_seed(derive_seed(0, "figures"))
        assert shows(tmp_path / "sample.png", figures.samples(model.sample(64), model.classes))
    if model.space != "codes":
        six = torch.tensor(spread(6, len(x)))
        alike = six if model.classes is None else (labels == labels[0]).nonzero().flatten()[:6]
        chosen = x[alike]
        told = labels[alike[:-1]]
        path = model.interpolate(chosen[:-1], chosen[1:], 11, told)
        assert shows(tmp_path / "interpolate.png", figures.interpolations(chosen[:-1], path, chosen[1:]))
        torch.testing.assert_close(path[0], model.reconstruct(chosen[:-1], told), rtol=0, atol=1e-5)
        torch.testing.assert_close(path[-1], model.reconstruct(chosen[1:], told), rtol=0, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("preset", PRESETS)
def test_tensorboard_shows_what_there_is_of_the_model(preset: str, trained: Trained) -> None:
    run = trained(preset)
    model = vaelab.load(run)
    tags = EventAccumulator(str(run / "tensorboard")).Reload().Tags()

    pictures = {"reconstructions"}
    pictures |= {"samples"} if model.prior is not None else set()
    pictures |= {"traversals"} if model.space == "real vectors" else set()
    assert {tag.removeprefix("final/") for tag in tags["images"] if tag.startswith("final/")} == pictures
    assert ("val/codes_in_use" in tags["scalars"]) == (model.space == "codes")
    assert ("val/perplexity" in tags["scalars"]) == (model.space == "codes")
    assert ("val/active_units" in tags["scalars"]) == (model.posterior.has_density and model.space != "codes")


@pytest.mark.slow
def test_active_units_are_counted_of_the_images_and_not_of_the_priors_pseudo_inputs(tmp_path: Path) -> None:
    """A VampPrior calls the posterior as well: here with twenty pseudo-inputs that are all alike."""
    overrides = ["model=vamp_vae", "latent_dim=5", "optimizer.lr=0.01", "logger=[csv]", "prior.components=20"]
    run = vaelab.train(
        vaelab.compose([*SMALL, *overrides, "prior.start_scale=1e-6", "objective.kl_weight=0.01"]),
        folder=tmp_path / "run",
    )
    trained = opened(run.folder / "checkpoints" / "last.ckpt")
    images = trained.experiment.data.splits.validation
    with torch.no_grad():
        means = trained.model.encode(images.pixels.float() / 255).mean
        of_prior = trained.model.encode(trained.model.prior.pseudo_inputs).mean  # type: ignore[union-attr]
    active, of_pseudo_inputs = (active_units(each.var(0, correction=0)) for each in (means, of_prior))

    header, *rows = [line.split(",") for line in (run.folder / "csv" / "metrics.csv").read_text().splitlines()]
    logged = [row[header.index("val/active_units")] for row in rows]

    assert float(next(value for value in reversed(logged) if value)) == active
    assert active > of_pseudo_inputs


def log_bernoulli(logits: Tensor, x: Tensor) -> Tensor:
    log_sigmoid = torch.nn.functional.logsigmoid
    return (x * log_sigmoid(logits) + (1 - x) * log_sigmoid(-logits)).flatten(-3).sum(-1)


def log_normal(z: Tensor, mean: Tensor, deviation: Tensor) -> Tensor:
    return (-((z - mean) ** 2) / (2 * deviation**2) - deviation.log() - math.log(2 * math.pi) / 2).sum(-1)


def log_determinant(function: Callable[[Tensor], Tensor], points: Tensor) -> Tensor:
    """Log |det df/dz| at each of the points (N, Z), by automatic differentiation."""
    jacobians = [torch.autograd.functional.jacobian(function, point) for point in points]
    return torch.stack([jacobian.det().abs().log() for jacobian in jacobians])  # type: ignore[union-attr]


@pytest.mark.parametrize("preset", ["conditional_vae", "vamp_vae", "iaf_vae", "mixture_vae", "flow_prior_vae"])
def test_the_log_likelihood_is_that_of_brute_force(preset: str) -> None:
    """log 1/k sum_i p(x|z_i) p(z_i) / q(z_i|x) from the same z, each density written down anew."""
    experiment = check(vaelab.compose(["data=digits", "data.binarize=fixed", f"model={preset}", "latent_dim=3"]))
    model: Any = experiment.model().eval().double()
    images = experiment.data.splits.test.take(torch.tensor([3, 50, 120]))
    x, labels = images.pixels.double() / 255, images.labels
    normal = torch.zeros(3, dtype=torch.float64), torch.ones(3, dtype=torch.float64)
    expected = []
    for number in range(3):
        y = labels[number : number + 1]
        seed_noise(x.device, derive_seed(7, "importance weights", number))
        q = model.encode(x[number : number + 1], y)
        if preset == "iaf_vae":
            u = q.base.rsample([6])
            z = q.flow.call_and_ladj(u)[0].detach()

            def forth(point: Tensor, q: Any = q) -> Tensor:
                return q.flow.call_and_ladj(point[None])[0][0]

            at = log_normal(u, q.base.mean, q.base.stddev)[:, 0]
            log_q = at - log_determinant(forth, u[:, 0].detach())
        else:
            z = q.rsample([6])
            log_q = log_normal(z, q.mean, q.stddev)[:, 0]
        z = z[:, 0]
        if preset == "mixture_vae":
            prior = model.prior
            each = log_normal(z[:, None], prior.means, prior.log_scales.exp()) + prior.logits.log_softmax(0)
            log_p = each.logsumexp(1)
        elif preset == "vamp_vae":
            of = model.encode(model.prior.pseudo_inputs)
            log_p = log_normal(z[:, None], of.mean, of.stddev).logsumexp(1) - math.log(len(of.mean))
        elif preset == "flow_prior_vae":
            back = model.prior().transform
            log_p = log_normal(back(z), *normal) + log_determinant(back, z.detach())
        else:
            log_p = log_normal(z, *normal)
        decoded = model.decoder(z, y.expand(len(z))) if preset == "conditional_vae" else model.decoder(z)
        weights = log_bernoulli(decoded, x[number]) + log_p - log_q
        expected.append(weights.logsumexp(0) - math.log(6))

    found = torch.stack(list(log_likelihoods(model, x, 6, seed=7, labels=labels)))

    torch.testing.assert_close(found, torch.stack(expected), rtol=0, atol=1e-8)


@pytest.mark.slow
class TestLabels:
    @pytest.fixture
    def run(self, trained: Trained, tmp_path: Path) -> Path:
        np.savez(tmp_path / "labelled.npz", images=np.eye(8)[None].repeat(3, 0), labels=np.array([2, 2, 2]))
        np.savez(tmp_path / "eleven.npz", images=np.eye(8)[None].repeat(3, 0), labels=np.array([2, 11, 2]))
        np.save(tmp_path / "unlabelled.npy", np.eye(8)[None].repeat(3, 0))
        return trained("conditional_vae")

    MISTAKES = {  # noqa: RUF012
        "reconstruct {run} {tmp}/unlabelled.npy": "give one for all with --label 3",
        "embed {run} {tmp}/unlabelled.npy": "give one for all with --label 3",
        "reconstruct {run} {tmp}/eleven.npz": "label 11: this model knows the labels 0 to 9",
        "reconstruct {run} --label 10": "label 10: this model knows the labels 0 to 9",
        "sample {run} --labels 3,12": "label 12: this model knows the labels 0 to 9",
        "sample {run} --labels three": "label three: the model knows no such label; there are 0, 1, 2",
        "interpolate {run} --images 0,30": "the images have different labels",
        "traverse {run} --label 10": "label 10",
        "sample {vae} --labels 1": "this model is not conditional on labels",
        "traverse {vae} --label 1": "--label 1: this model is not conditional on labels",
        "manifold {vae} --label 1": "manifold draws a plane",
        "reconstruct {vae} --label 1": "--label 1: this model is not conditional on labels",
    }

    @pytest.mark.parametrize("command", MISTAKES)
    def test_a_mistake_with_them_is_one_clear_message(
        self, command: str, run: Path, trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        words = [word.format(run=run, tmp=tmp_path, vae=trained("vae")) for word in command.split()]
        code, errors = ended(capsys, *words, "-o", tmp_path / ("a.npz" if "embed" in command else "a.png"))
        assert code == 2
        assert self.MISTAKES[command] in errors

    def test_own_images_have_those_of_their_file_or_are_given_one(
        self, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        for name, label in (("labelled.npz", []), ("unlabelled.npy", ["--label", 2])):
            output = tmp_path / f"{name}.png"
            assert ended(capsys, "reconstruct", run, tmp_path / name, *label, "-o", output)[0] == 0
            x = torch.eye(8).expand(3, 1, 8, 8)
            with torch.no_grad():
                reconstructed = vaelab.load(run).reconstruct(x, torch.tensor([2, 2, 2]))
            assert shows(output, figures.reconstructions(x, reconstructed))

    def test_samples_are_of_the_labels_in_turn(
        self, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        output = tmp_path / "a.png"
        assert ended(capsys, "sample", run, "--labels", "4,7,1", "--count", 9, "-o", output)[0] == 0
        torch.manual_seed(derive_seed(0, "figures"))
        samples = vaelab.load(run).sample(9, labels=torch.tensor([4, 7, 1] * 3))
        assert shows(output, figures.tile(samples, 3))

    def test_a_traversal_is_told_one(self, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        model = vaelab.load(run)
        for words, label in (([], 0), (["--label", 5], 5), (["--image", 30], None)):
            output = tmp_path / f"{label}.png"
            assert ended(capsys, "traverse", run, *words, "--dimensions", 1, "-o", output)[0] == 0
        test = opened(run).experiment.data.splits.test
        with torch.no_grad():
            q = model.encode(test.pixels.float() / 255, test.labels)
            most = int((0.5 * (q.mean**2 + q.variance - q.variance.log() - 1)).mean(0).argmax())
        values = torch.linspace(-3, 3, 11).expand(20, -1)
        for label, told, held in (
            (0, 0, torch.zeros(20)),
            (5, 5, torch.zeros(20)),
            (None, test.labels[30], q.mean[30]),
        ):
            rows = model.traverse(held, values, torch.as_tensor([told]))
            assert shows(tmp_path / f"{label}.png", figures.traversals(rows[most : most + 1])), label


@pytest.mark.slow
def test_of_a_hierarchy_only_the_layer_that_the_decoder_sees_is_traversed(
    trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = trained("ladder_vae")  # layers of 32, 16 and 8
    code, notes = ended(capsys, "traverse", run, "--dimensions", 100, "-o", tmp_path / "a.png")
    assert code == 0
    assert "24 dimensions are left out, since the decoder ignores them" in notes
    with Image.open(tmp_path / "a.png") as image:
        height = image.height
    zoom = max(1, round(figures.WIDTH / (11 * 10 + 2)))
    assert height == zoom * (32 * 10 + 2) + 45 + 20 + 15


@pytest.mark.slow
def test_active_units_of_a_hierarchy_are_told_by_layer(trained: Trained) -> None:
    run = trained("hierarchical_vae")
    found: Any = vaelab.evaluate(run)
    kept = json.loads(next((run / "evaluation").iterdir()).read_text())["metrics"]["test/active_units"]
    assert kept["unit"] == "of 150 dimensions"
    assert kept["layer_1"] + kept["layer_2"] == kept["value"] == found["test/active_units"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("sample {} --stochastic", "this model's likelihood p(x|z) cannot be sampled: leave out --stochastic"),
        ("traverse {} --reach nan", "--reach nan: give a number of standard deviations above 0"),
        ("traverse {} --reach inf", "--reach inf: give a number"),
        ("traverse {} --reach 0", "--reach 0: give a number"),
    ],
)
def test_what_a_model_or_a_number_cannot_do_is_one_line(
    command: str,
    message: str,
    trained: Trained,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr(BernoulliImage, "sample")  # as a likelihood of one's own may be
    code, errors = ended(capsys, *command.format(trained("vae")).split(), "-o", tmp_path / "a.png")
    assert (code, errors.splitlines()[0].startswith(f"error: {message}")) == (2, True), errors
    assert len(errors.splitlines()) == 1
