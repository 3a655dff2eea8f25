"""Exported models: the same numbers elsewhere."""

import json
import shutil

import numpy as np
import pytest
import torch
from torch import nn

import vaelab
from tokenizers import OF_GREY_DIGITS
from vaelab.cli.main import main
from vaelab.config.check import check
from vaelab.config.conf import options
from vaelab.looking.load import Trained, opened
from vaelab.runs.documents import unsigned
from vaelab.runs.folder import RunFolder
from vaelab.sharing.export import TOLERANCE, export, networks, weights_file
from vaelab.sharing.formats import FORMATS
from vaelab.sharing.networks import Decoder, Encoder, Network
from vaelab.training.tensor_files import read_weights, write_weights


def untrained(folder, *overrides):
    """A run folder's model, with the weights that it begins with."""
    config = vaelab.compose(["data=digits", *overrides])
    folder.mkdir()
    run = RunFolder(folder)
    run.write_config(config)
    experiment = check(run.config)
    return Trained(run, experiment, experiment.model().eval(), 0)


def by_onnx(path, **inputs):
    """What ONNX Runtime makes of numpy arrays, by the names of the outputs; and the metadata."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    found = session.run(None, inputs)
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, found, strict=True)), session.get_modelmeta().custom_metadata_map


@pytest.mark.slow
def test_onnx_files_give_what_torch_gives_for_any_number_of_images_and_say_what_they_are(small_run, tmp_path):
    result = export(small_run("vae"), output=tmp_path / "out")
    model = vaelab.load(small_run("vae"))

    assert [path.name for path in result.paths] == ["encoder.onnx", "decoder.onnx", "autoencoder.onnx"]
    assert result.notes[0].startswith("encoder: within ")
    assert "on random rows and 16 test rows" in result.notes[0]
    for count in (1, 7):
        x = torch.rand(count, 1, 8, 8)
        with torch.no_grad():
            q, reconstructed = model.encode(x), model.reconstruct(x)
        codes, said = by_onnx(tmp_path / "out" / "encoder.onnx", x=x.numpy())
        assert codes.keys() == {"mean", "scale"}
        np.testing.assert_allclose(codes["mean"], q.mean, atol=1e-5)
        np.testing.assert_allclose(codes["scale"], q.stddev, atol=1e-5)
        images, _ = by_onnx(tmp_path / "out" / "decoder.onnx", z=codes["mean"])
        np.testing.assert_allclose(images["reconstruction"], reconstructed, atol=1e-5)
        both, _ = by_onnx(tmp_path / "out" / "autoencoder.onnx", x=x.numpy())
        np.testing.assert_allclose(both["reconstruction"], reconstructed, atol=1e-5)
    assert json.loads(said["shape"]) == [1, 8, 8]
    assert json.loads(said["scaling"]) == {"shift": 0, "scale": 255}
    assert json.loads(said["classes"]) == [str(digit) for digit in range(10)]
    assert (said["network"], said["values"]) == ("encoder", "pixels in [0, 1]")
    assert "_target_: vaelab.models.posteriors.Gaussian" in said["config"]


@pytest.mark.slow
def test_a_conditional_model_takes_labels_and_programs_of_torch_run_without_vaelab(tmp_path):
    trained = untrained(tmp_path / "run", "model=conditional_vae", "latent_dim=3")
    contents, _ = networks(trained, "torch_export", ["decoder"])
    path = tmp_path / "decoder.pt2"
    path.write_bytes(contents["decoder"])
    about = {"vaelab.json": ""}
    program = torch.export.load(path, extra_files=about)
    z, y = torch.randn(4, 3), torch.tensor([0, 9, 3, 3])

    with torch.no_grad():
        assert torch.allclose(program.module()(z, y), trained.model.decode(z, y).mean, atol=1e-6)
    assert json.loads(json.loads(about["vaelab.json"])["conditional"]) is True
    with_encoder = sum(value.numel() for value in trained.model.parameters())
    assert sum(value.numel() for value in program.state_dict.values()) < 0.6 * with_encoder


@pytest.mark.slow
def test_rows_that_are_no_pixels_go_in_and_come_out_in_their_own_units(tmp_path):
    generator = np.random.default_rng(0)
    np.save(tmp_path / "images.npy", (500 + 100 * generator.normal(size=(60, 6))).astype(np.float32))
    data = [
        "data=array",
        f"data.root={tmp_path}",
        "data.validation=10",
        "data.test=10",
        "data.batch_size=8",
        "data.scale=standardise",
        "loss=gaussian_shared_scale",
    ]
    run = vaelab.train(
        vaelab.compose([*data, "trainer=debug", "callbacks.progress_bar=null", "latent_dim=2"]), folder=tmp_path / "run"
    )
    contents, _ = networks(opened(run), "onnx", ["autoencoder"])
    x = torch.from_numpy(np.load(tmp_path / "images.npy")[:5])

    found, said = by_onnx(contents["autoencoder"], x=x.numpy())

    with torch.no_grad():
        np.testing.assert_allclose(found["reconstruction"], vaelab.load(run).reconstruct(x), rtol=1e-5)
    assert json.loads(said["scaling"]) == {"shift": 0, "scale": 1}


class Together(nn.Module):
    """Encoders and decoders of several models, one after the other."""

    def __init__(self, models):
        super().__init__()
        self.encoders, self.decoders = nn.ModuleList(map(Encoder, models)), nn.ModuleList(map(Decoder, models))

    def forward(self, x, y):
        numbers = []
        for encoder, decoder in zip(self.encoders, self.decoders, strict=True):
            codes = encoder(x, y)
            numbers += [*codes, decoder(codes[0], y)]
        return tuple(numbers)


@pytest.mark.slow
def test_every_preset_is_exported_to_onnx():
    """In one file, which costs as much as one of them; presets that differ in terms or prior alone are there once."""
    models = {}
    for preset in options("model"):
        model = (
            check(vaelab.compose(["data=digits", f"model={preset}", *OF_GREY_DIGITS.get(preset, [])])).model().eval()
        )
        parts = (model.encoder, model.posterior, model.decoder, model.likelihood)
        models.setdefault(str((*parts, model.prior) if preset == "ladder_vae" else parts), model)
    assert len(models) >= 20
    together, y = Together(models.values()), torch.tensor([0, 9, 4])
    network = Network("all", together.eval(), {"x": torch.rand(3, 1, 8, 8), "y": y}, [])
    with torch.no_grad():
        network = network._replace(outputs=[str(n) for n in range(len(together(*network.inputs.values())))])

        found = (
            FORMATS["onnx"].write(network, {}).run({"x": (x := torch.rand(5, 1, 8, 8)), "y": (y := torch.arange(5))})
        )

        for own, other in zip(together(x, y), found, strict=True):
            assert own.shape == other.shape
            assert (own - other).abs().max() <= TOLERANCE * own.abs().max()


class Branching(nn.Module):
    def forward(self, x):
        return (x + 1 if x.mean() > 0 else x - 1,)


class Counting(nn.Module):
    def forward(self, x):
        return (x.reshape(len(x), -1),)


class Uncommon(nn.Module):
    def forward(self, x):
        return (torch.linalg.eigvals(x.reshape(-1, 8, 8)).real,)


@pytest.mark.parametrize(
    ("module", "words"),
    [
        (Branching(), ["torch.export has no way for", "test_export.py, line", "if x.mean() > 0"]),
        (Counting(), ["depends on the number of rows"]),
        pytest.param(Uncommon(), ["ONNX has no way for", "aten.linalg_eig"], marks=pytest.mark.slow),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_cannot_be_exported_is_named_by_its_operation_in_one_line(module, words):
    network = Network("encoder", module, {"x": torch.rand(3, 1, 8, 8)}, ["mean"])
    with pytest.raises(vaelab.RunError) as refused:
        FORMATS["onnx"].write(network, {})
    assert all(word in str(refused.value) for word in ["the encoder cannot be exported", *words]), str(refused.value)
    assert "\n" not in str(refused.value)


class Different(nn.Module):
    """One network in torch, another one in what is traced."""

    def forward(self, x):
        return (x + 1e-3 * torch.compiler.is_compiling(),)


def test_a_network_that_is_another_one_in_the_file_is_refused(small_run, monkeypatch, tmp_path):
    network = Network("encoder", Different(), {"x": torch.rand(3, 1, 8, 8)}, ["mean"])
    monkeypatch.setattr("vaelab.sharing.export.networks_of", lambda *_: [network])
    with pytest.raises(
        vaelab.RunError, match=r"the encoder of torch_export differs from torch: its mean on .* by 0\.0"
    ):
        export(small_run("vae"), to="torch_export", output=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_safetensors_file_is_loaded_where_it_lies_without_pickle(small_run, tmp_path, monkeypatch):
    run = small_run("vae")
    export(run, to="safetensors", output=tmp_path / "out")
    moved = shutil.move(tmp_path / "out" / "model.safetensors", tmp_path / "mine.safetensors")
    model = vaelab.load(run)
    monkeypatch.setattr(torch, "load", None)

    loaded = vaelab.load(moved)

    assert not loaded.training
    assert loaded.state_dict().keys() == model.state_dict().keys()
    assert all(value.equal(loaded.state_dict()[name]) for name, value in model.state_dict().items())


@pytest.fixture(scope="module")
def weights(small_run, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "model.safetensors"
    path.write_bytes(weights_file(opened(small_run("vae"))))
    return path


SPOILT = {
    "truncated": (lambda content: content[:5000], "is no file of `vaelab export"),
    "no tensors": (lambda content: b"PK\3\4" + bytes(200), "is no file of `vaelab export"),
    "header beyond": (lambda content: (2**60).to_bytes(8, "little") + content[8:], "is no file of `vaelab export"),
    "a value": (lambda content: content[:-4] + b"\0\0\xc0\x7f", "a weight is NaN or infinite"),
}


@pytest.mark.parametrize("what", SPOILT)
def test_a_damaged_file_of_weights_is_one_line(what, weights, tmp_path):
    spoil, words = SPOILT[what]
    path = tmp_path / "model.safetensors"
    path.write_bytes(spoil(weights.read_bytes()))
    with pytest.raises(vaelab.RunError, match=words):
        vaelab.load(path)


HOSTILE = {
    "an interpolation": ({"config": "name: ${oc.env:HOME}\n"}, "has an interpolation"),
    "another class": (
        lambda texts: {"config": unsigned(texts["config"]).replace("vaelab.models.posteriors.Gaussian", "os.system")},
        "os.system",
    ),
    "an edit": (
        lambda texts: {"config": texts["config"].replace("latent_dim: 3", "latent_dim: 4")},
        "edited or is damaged",
    ),
    "no data": ({"data": "{}"}, "does not describe data"),
    "another shape": (
        lambda texts: {"data": texts["data"].replace("[1, 8, 8]", "[1, 9, 9]")},
        r"has the shape \(400, 64\), and in this model \(400, 81\)",
    ),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_file_of_weights_runs_nothing(what, weights, tmp_path):
    change, words = HOSTILE[what]
    _, texts = read_weights(weights)
    path = tmp_path / "model.safetensors"
    write_weights(path, vaelab.load(weights), texts | (change(texts) if callable(change) else change))
    with pytest.raises(vaelab.UserError, match=words):
        vaelab.load(path)


MISTAKES = {
    "export nowhere": "nowhere is not a run folder",
    "export begun": "begun has no checkpoint",
    "export vae --to safetensors": "vae/export/model.safetensors is there already: --force",
    "export vae --to safetensors -o file": "--output file is a file: name a folder",
    "export vae --to tflite": "'tflite' is not one of",
}


def test_a_mistake_is_one_line_and_leaves_nothing_behind(small_run, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(small_run("vae"), "vae")
    shutil.copytree("vae", "begun", ignore=shutil.ignore_patterns("*.ckpt"))
    (tmp_path / "file").touch()
    (tmp_path / "vae" / "export").mkdir()
    (tmp_path / "vae" / "export" / "model.safetensors").touch()
    before = sorted(tmp_path.rglob("*"))
    for command, words in MISTAKES.items():
        with pytest.raises(SystemExit) as end:
            main(command.split())
        printed = capsys.readouterr()
        assert end.value.code == 2
        assert words in " ".join(printed.err.split()), command
        assert not printed.out
    assert sorted(tmp_path.rglob("*")) == before
