import csv
import re
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.decomposition import PCA

import vaelab
from vaelab import figures
from vaelab.data import rows_at_once
from vaelab.errors import DataError, RunError
from vaelab.looking import embedding, explore
from vaelab.looking.codes import scale_of
from vaelab.looking.load import opened
from vaelab.losses import kl_per_dimension
from vaelab.models.latents import fitted_gaussian
from vaelab.models.parts import Prior
from vaelab.seeding import derive_seed


def shows(path, picture):
    """Whether a figure has the pixels of a picture in it, enlarged by a whole number."""
    with Image.open(path) as image:
        figure = np.asarray(image.convert("RGB"))
    zoom = max(1, round(figures.WIDTH / picture.shape[1]))
    enlarged = picture.repeat(zoom, axis=0).repeat(zoom, axis=1)
    height, width = enlarged.shape[:2]
    rows = figure[-15 - height : -15]  # it stands on the lower edge
    return any((rows[:, left : left + width] == enlarged).all() for left in range(rows.shape[1] - width + 1))


def images_of(run, split="test"):
    """The images of a split, in [0, 1], and their labels."""
    images = getattr(opened(run).experiment.data.splits, split)
    return images.pixels / 255, images.labels


def noise(seed=0):
    """What the commands draw from."""
    torch.manual_seed(derive_seed(seed, "figures"))


@pytest.fixture
def target(tmp_path):
    return tmp_path / "new folder" / "figure.png"


def test_reconstructions_are_those_of_the_model_to_the_pixel(small_run, target):
    model, (x, _) = vaelab.load(small_run("vae")), images_of(small_run("vae"))

    result = explore.reconstruct(small_run("vae"), images="4,0,7", output=[target])

    chosen = x[[4, 0, 7]]
    assert result.paths == [target]
    assert shows(target, figures.reconstructions(chosen, model.reconstruct(chosen)))
    error = (model.reconstruct(chosen) - chosen).square().mean()
    assert result.notes == [f"mean squared error of these 3 images: {error:.5f} per pixel"]


@pytest.mark.parametrize("seed", [None, 5])
def test_stochastic_reconstructions_are_a_function_of_the_seed(seed, small_run, target):
    model, (x, _) = vaelab.load(small_run("vae")), images_of(small_run("vae"), "train")
    shown = x[[number * len(x) // 10 for number in range(10)]]  # as many as it takes, all over the split
    before = torch.get_rng_state()

    explore.reconstruct(small_run("vae"), split="train", stochastic=True, seed=seed, output=[target])

    assert torch.get_rng_state().equal(before)
    noise(seed or 0)
    assert shows(target, figures.reconstructions(shown, model.reconstruct(shown, stochastic=True)))
    assert not shows(target, figures.reconstructions(shown, model.reconstruct(shown)))


def test_one_draws_what_training_has_drawn(small_run, target):
    run = small_run("vae")
    first = opened(run).model
    noise()

    explore.sample(run, output=[target])

    assert shows(target, figures.samples(first.sample(64)))
    assert target.read_bytes() == (run / "figures" / "samples.png").read_bytes()
    other = target.with_name("other.png")
    explore.reconstruct(run, output=[other])
    assert other.read_bytes() == (run / "figures" / "reconstructions.png").read_bytes()


def test_samples_differ_with_the_seed_and_with_nothing_else(small_run, target):
    def drawn(**options):
        explore.sample(small_run("plane"), count=5, output=[target], force=True, **options)
        return target.read_bytes()

    assert drawn(seed=1) == drawn(seed=1) != drawn(seed=2)
    assert drawn(seed=1) != drawn(seed=1, stochastic=True) == drawn(seed=1, stochastic=True)


def test_a_plain_autoencoder_is_sampled_from_a_gaussian_fitted_to_its_training_codes(small_run, target):
    model, (x, _) = vaelab.load(small_run("ae")), images_of(small_run("ae"), "train")

    explore.sample(small_run("ae"), count=9, fit_gaussian=True, output=[target])

    with torch.no_grad():
        codes = torch.cat([model.encode(part).mean for part in x.split(rows_at_once(x.shape[1:]))])
    noise()
    assert shows(target, figures.samples(model.sample(9, prior=fitted_gaussian(codes))))


@pytest.mark.parametrize("spherical", [False, True])
def test_an_interpolation_goes_from_each_image_to_the_next(spherical, small_run, target):
    model, (x, _) = vaelab.load(small_run("vae")), images_of(small_run("vae"))
    x = x[[3, 1, 4]]

    explore.interpolate(small_run("vae"), images="3,1,4", steps=5, spherical=spherical, output=[target])

    path = model.interpolate(x[:-1], x[1:], 5, spherical=spherical)
    torch.testing.assert_close(path[0], model.reconstruct(x[:-1]))
    assert shows(target, figures.interpolations(x[:-1], path, x[1:]))


def test_a_moving_interpolation_goes_there_and_back(small_run, tmp_path):
    result = explore.interpolate(small_run("vae"), images="3", steps=6, output=[tmp_path / "a.gif"])

    with Image.open(result.paths[0]) as image:
        assert (image.format, image.n_frames, image.info["loop"]) == ("GIF", 10, 0)


def test_a_traversal_shows_each_dimension_over_the_priors_range_by_kl(small_run, tmp_path):
    run = small_run("vae")
    model, (x, _) = vaelab.load(run), images_of(run)

    explore.traverse(run, steps=7, output=[tmp_path / "a.png", tmp_path / "a.gif"])
    explore.traverse(run, steps=7, reach=2, dimensions=2, image=3, output=[tmp_path / "b.png"])

    with torch.no_grad():
        order = kl_per_dimension(model.encode(x), model.prior()).mean(0).argsort(descending=True)
        code = model.encode(x).mean[3]
    assert order.tolist() != [0, 1, 2]  # or else nothing is shown by this
    values = torch.linspace(-3, 3, 7).expand(3, -1)
    assert shows(tmp_path / "a.png", figures.traversals(model.traverse(torch.zeros(3), values)[order]))
    values = torch.linspace(-2, 2, 7).expand(3, -1)
    assert shows(tmp_path / "b.png", figures.traversals(model.traverse(code, values)[order[:2]]))
    with Image.open(tmp_path / "a.gif") as image:
        assert (image.n_frames, image.info["loop"]) == (12, 0)


def test_a_traversal_of_a_plain_autoencoder_goes_over_the_range_of_its_codes_by_variance(small_run, target):
    run = small_run("ae")
    model, (x, _) = vaelab.load(run), images_of(run)

    result = explore.traverse(run, steps=5, output=[target])

    with torch.no_grad():
        codes = model.encode(x).mean
    centre, spread = codes.mean(0), codes.std(0, correction=0)
    values = centre[:, None] + spread[:, None] * torch.linspace(-3, 3, 5)
    order = codes.var(0).argsort(descending=True)
    assert shows(target, figures.traversals(model.traverse(centre, values)[order]))
    assert result.notes == ["this model has no per-dimension KL: dimensions are sorted by the variance of their codes"]


def test_the_manifold_is_drawn_on_the_priors_quantiles_or_those_of_the_codes(small_run, tmp_path):
    explore.manifold(small_run("plane"), steps=6, output=[tmp_path / "a.png"])
    explore.manifold(small_run("ae_plane"), steps=6, output=[tmp_path / "b.png"])

    assert shows(tmp_path / "a.png", figures.manifold(vaelab.load(small_run("plane")).manifold(6)))
    model, (x, _) = vaelab.load(small_run("ae_plane")), images_of(small_run("ae_plane"), "train")
    with torch.no_grad():
        codes = torch.cat([model.encode(part).mean for part in x.split(rows_at_once(x.shape[1:]))])
    assert shows(tmp_path / "b.png", figures.manifold(model.manifold(6, codes=codes)))


def table(path):
    with path.open(newline="") as file:
        header, *rows = csv.reader(file)
    return header, rows


def test_an_embedding_holds_the_means_of_the_posterior_with_their_labels(small_run, tmp_path):
    run = small_run("vae")
    model, (x, labels) = vaelab.load(run), images_of(run)

    embedding.embed(run, output=[tmp_path / "a.npz", tmp_path / "a.csv", tmp_path / "a.png"])

    with torch.no_grad():
        z = model.encode(x).mean.numpy()
    with np.load(tmp_path / "a.npz", allow_pickle=False) as arrays:
        assert set(arrays.files) == {"z", "names", "labels"}
        assert (arrays["z"] == z).all()
        assert (arrays["labels"] == labels.numpy()).all()
        assert arrays["names"].tolist() == [str(n) for n in range(200)]
    header, rows = table(tmp_path / "a.csv")
    assert header == ["image", "label", "z0", "z1", "z2"]
    assert [int(row[1]) for row in rows] == labels.tolist()
    assert (np.array([row[2:] for row in rows], np.float32) == z).all()
    with Image.open(tmp_path / "a.png") as image:
        assert image.size == (900, 900)


def test_an_embedding_of_codes_holds_their_numbers_where_they_are_on_each_grid(tmp_path):
    config = vaelab.compose(["data=digits", "model=vq_vae_2", "trainer=debug", "callbacks.progress_bar=null"])
    run = vaelab.train(config, folder=tmp_path / "run").folder
    model, (x, _) = vaelab.load(run), images_of(run)

    embedding.embed(run, output=[tmp_path / "a.npz", tmp_path / "a.csv"])

    with np.load(tmp_path / "a.npz", allow_pickle=False) as arrays, torch.no_grad():
        upper, lower = arrays["codes_0"], arrays["codes_1"]
        codes = torch.from_numpy(np.concatenate([upper.reshape(200, -1), lower.reshape(200, -1)], 1))
        assert (upper.shape, lower.shape, upper.dtype) == ((200, 1, 1), (200, 2, 2), np.int64)
        assert codes.equal(model.encode(x).indices)
        assert (model.posterior.vectors(codes).numpy() == arrays["z"]).all()
    header, rows = table(tmp_path / "a.csv")
    assert header[-5:] == [f"code{number}" for number in range(5)]
    assert [list(map(int, row[-5:])) for row in rows] == codes.tolist()


def test_a_stochastic_embedding_holds_samples_and_only_the_images_asked_for(small_run, tmp_path):
    run = small_run("vae")
    model, (x, labels) = vaelab.load(run), images_of(run, "validation")

    embedding.embed(
        run, split="validation", images="9,2", stochastic=True, seed=3, output=[tmp_path / "a.csv", tmp_path / "a.npz"]
    )

    noise(3)
    with torch.no_grad():
        z = model.encode(x[[9, 2]]).sample().numpy()
    _, rows = table(tmp_path / "a.csv")
    assert [row[:2] for row in rows] == [["9", str(labels[9].item())], ["2", str(labels[2].item())]]
    assert (np.load(tmp_path / "a.npz")["z"] == z).all()


def test_codes_of_many_dimensions_are_drawn_by_their_principal_components():
    z = np.random.default_rng(0).normal(size=(60, 4)) * [1, 5, 2, 1]

    points, axes = embedding.principal_components(z)

    expected = PCA(4).fit(z)
    np.testing.assert_allclose(points, expected.transform(z)[:, :2], atol=1e-6)
    shares = [int(re.search(r"\((\d+)%", axis).group(1)) for axis in axes]
    np.testing.assert_allclose(shares, 100 * expected.explained_variance_ratio_[:2], atol=0.5)


def test_codes_of_one_or_two_dimensions_are_drawn_as_they_are():
    z = np.array([[3.0], [1.0], [2.0], [4.0]])

    points, _ = embedding.principal_components(z)
    assert points.tolist() == [[3, 0.5], [1, 0], [2, 0.25], [4, 0.75]]
    assert embedding.principal_components(z.repeat(2, 1))[0].tolist() == z.repeat(2, 1).tolist()
    assert np.isfinite(embedding.principal_components(np.ones((5, 3)))[0]).all()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # umap-learn's own
def test_a_umap_is_a_function_of_the_seed_and_keeps_clusters_apart():
    generator = np.random.default_rng(0)
    z = np.concatenate([generator.normal(centre, 0.1, (20, 5)) for centre in (-5, 5)]).astype(np.float32)

    points, axes = embedding.umap_points(z, seed=1)

    assert axes == ("UMAP 1", "UMAP 2")
    assert (points == embedding.umap_points(z, seed=1)[0]).all()
    distances = np.linalg.norm(points[:, None] - points, axis=-1) + 1e9 * np.eye(40)
    assert ((distances.argmin(1) < 20) == (np.arange(40) < 20)).all()


def test_without_umap_learn_one_is_told_what_to_install_before_anything_is_written(small_run, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "umap", None)

    with pytest.raises(RunError, match=r'pip install "vaelab\[umap\]"'):
        embedding.embed(small_run("vae"), umap=True, output=[tmp_path / "a.npz", tmp_path / "a.png"])

    assert not list(tmp_path.iterdir())


def test_ones_own_images_are_fitted_and_it_is_said_how(small_run, tmp_path):
    run = small_run("vae")
    model, (x, _) = vaelab.load(run), images_of(run)
    for number in range(3):
        pixels = (x[number, 0] * 255).byte().repeat_interleave(2, 0).repeat_interleave(2, 1)
        Image.fromarray(pixels.numpy()).save(tmp_path / f"{number}.png")

    result = explore.reconstruct(run, [tmp_path], images="2,0", output=[tmp_path / "a" / "a.png"])
    embedding.embed(run, [tmp_path], output=[tmp_path / "a" / "a.csv"])
    explore.interpolate(run, [tmp_path], output=[tmp_path / "a" / "b.png"])

    own = torch.nn.functional.interpolate(
        (x[:3] * 255).byte().float().repeat_interleave(2, 2).repeat_interleave(2, 3) / 255,
        (8, 8),
        mode="bilinear",
        antialias=True,
    )
    assert shows(tmp_path / "a" / "a.png", figures.reconstructions(own[[2, 0]], model.reconstruct(own[[2, 0]])))
    assert result.notes[0] == "3 images of 16 x 16: scaled to 8 x 8"
    header, rows = table(tmp_path / "a" / "a.csv")
    assert header == ["image", "z0", "z1", "z2"]
    assert [row[0] for row in rows] == ["0.png", "1.png", "2.png"]


@pytest.mark.slow
def test_own_images_that_would_do_better_inverted_are_pointed_out(small_run, tmp_path):
    run = small_run("trained")
    x, _ = images_of(run)
    light_on_dark, dark_on_light = tmp_path / "a.npy", tmp_path / "b.npy"
    np.save(light_on_dark, x[:5].numpy())
    np.save(dark_on_light, 1 - x[:5].numpy())

    right = explore.reconstruct(run, [light_on_dark], output=[tmp_path / "a.png"])
    wrong = explore.reconstruct(run, [dark_on_light], output=[tmp_path / "b.png"])
    inverted = explore.reconstruct(run, [dark_on_light], invert=True, output=[tmp_path / "c.png"])

    assert [any("--invert" in note for note in result.notes) for result in (right, wrong, inverted)] == [
        False,
        True,
        False,
    ]
    assert right.notes[-1] == inverted.notes[-1] != wrong.notes[-2]  # the errors


def test_a_model_of_black_and_white_images_sees_such(small_run, tmp_path):
    run = small_run("binary")
    np.save(tmp_path / "a.npy", np.full((8, 8), 0.7))

    result = embedding.embed(run, [tmp_path / "a.npy"], output=[tmp_path / "a.csv"])
    explore.reconstruct(run, split="train", output=[tmp_path / "a.png"])

    assert any("black and white" in note for note in result.notes)
    z = [float(value) for value in table(tmp_path / "a.csv")[1][0][1:]]
    torch.testing.assert_close(torch.tensor([z]), vaelab.load(run).encode(torch.ones(1, 1, 8, 8)).mean.detach())
    data = opened(run).experiment.data
    drawn = data.splits.train.binarized(derive_seed(data.seed, "binarize train")).spread(10).pixels / 255
    assert shows(tmp_path / "a.png", figures.reconstructions(drawn, vaelab.load(run).reconstruct(drawn)))


def test_without_an_output_figures_go_to_the_runs_folder_and_are_not_overwritten(small_run, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(small_run("plane"), run)

    results = [
        explore.reconstruct(run),
        explore.sample(run / "checkpoints" / "last.ckpt"),
        explore.interpolate(run),
        explore.traverse(run),
        explore.manifold(run),
        embedding.embed(run),
    ]

    names = ["reconstruct.png", "sample.png", "interpolate.png", "traverse.png", "traverse.gif", "manifold.png"]
    written = [path.relative_to(run / "figures") for result in results for path in result.paths]
    assert [str(path) for path in written] == [*names, "embed.npz", "embed.csv", "embed.png"]
    before = (run / "figures" / "sample.png").stat()
    with pytest.raises(RunError, match=r"sample\.png exists: --force"):
        explore.sample(run)
    assert (run / "figures" / "sample.png").stat() == before
    explore.sample(run, force=True)
    assert (run / "figures" / "sample.png").stat().st_mtime_ns > before.st_mtime_ns


class LogNormal(Prior):
    """A prior that torch knows no mean of."""

    def forward(self):
        normal = torch.distributions.Normal(torch.zeros(3), 1)
        return torch.distributions.TransformedDistribution(normal, [torch.distributions.ExpTransform()])


def test_a_prior_without_a_standard_deviation_leaves_the_range_to_the_codes(small_run):
    model = vaelab.load(small_run("vae"))
    codes = torch.tensor([[0.0, 2.0, 4.0], [2.0, 2.0, 0.0]])

    model.prior = None
    centre, spread, scale = scale_of(model, codes)

    assert (centre.tolist(), spread.tolist(), scale) == ([1, 2, 2], [1, 0, 2], "(z - mean) / std")
    model.prior = LogNormal()
    assert scale_of(model, codes)[2] == "(z - mean) / std"


def test_images_that_are_not_there_are_asked_for_in_vain(small_run, target):
    for images, words in [
        ("200,", "no 200; the test images are numbered 0 to 199"),
        ("0,-1", "no -1"),
        ("201", "there are 200 test images; give 1 to 200"),
        ("0", "give 1 to 200"),
        ("a", "numbers such as 0,5,7"),
        ("1,,2", "numbers such as 0,5,7"),
    ]:
        with pytest.raises(DataError, match=words):
            explore.reconstruct(small_run("vae"), images=images, output=[target])
    with pytest.raises(DataError, match=r"--split tets: .*did you mean test"):
        explore.reconstruct(small_run("vae"), split="tets", output=[target])
    with pytest.raises(DataError, match="no validation images"):
        explore.reconstruct(small_run("binary"), split="validation", output=[target])
    assert not target.parent.exists()
