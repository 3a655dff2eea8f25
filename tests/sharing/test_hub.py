"""Models go to a hub and come back, by the Hub's own client and HTTP."""

import json
import shutil
from pathlib import Path

import pytest
import yaml
from hub_stand_in import TOKEN, hub

import vaelab
from processes import command
from vaelab.cli.main import main
from vaelab.runs.documents import signed, unsigned
from vaelab.runs.folder import RunFolder

# Of huggingface_hub 2.4 itself, where it stores by Git LFS.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")


@pytest.fixture
def there(monkeypatch, tmp_path):
    """A hub, which the client takes for the only one, in an empty folder."""
    import huggingface_hub.constants

    with hub() as running:
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", running.address)  # as by HF_ENDPOINT
        template = f"{running.address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", str(tmp_path / "no token"))
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)  # it stores by Git LFS
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        monkeypatch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", "1")
        monkeypatch.chdir(tmp_path)
        yield running


def ended(capsys, *arguments):
    with pytest.raises(SystemExit) as end:
        main(arguments)
    printed = capsys.readouterr()
    return end.value.code or 0, printed.out, printed.err


def test_a_run_that_is_pushed_and_pulled_is_the_same_model_and_done(there, small_run, capsys):
    run = small_run("vae")

    assert ended(capsys, "push", str(run), "me/digits") == (0, f"{there.address}/me/digits\n", "")

    files = there.repositories["me/digits"]
    assert set(files) == {
        *["README.md", "config.yaml", "data.json", "metrics.json", "model.safetensors"],
        *["reconstructions.png", "samples.png"],
    }
    assert any(request.endswith("me/digits.git/info/lfs/objects/batch") for request in there.asked)
    code, output, _ = ended(capsys, "pull", "me/digits")
    assert (code, output) == (0, "outputs/runs/digits\n")
    pulled = RunFolder.open("outputs/runs/digits")
    assert sorted(path.name for path in pulled.path.iterdir()) == [
        *["config.yaml", "data.json", "metrics.json", "model.safetensors", "status.json"]
    ]
    assert pulled.done
    assert pulled.metrics == RunFolder(run).metrics
    model, again = vaelab.load(run), vaelab.load(pulled.path)
    assert all(value.equal(again.state_dict()[name]) for name, value in model.state_dict().items())
    assert ended(capsys, "sample", "outputs/runs/digits", "-o", "a.png")[0] == 0
    assert "is done" in ended(capsys, "resume", "outputs/runs/digits")[1]
    code, _, errors = ended(capsys, "resume", "outputs/runs/digits", "trainer.max_epochs=9")
    assert (code, "nothing of the optimizer" in errors) == (2, True)


def test_the_card_has_figures_numbers_and_the_command_and_no_folder_of_this_machine(there, small_run, capsys, tmp_path):
    run = Path(shutil.copytree(small_run("vae"), tmp_path / "run"))
    config = unsigned((run / "config.yaml").read_text())
    assert "root: null" not in config
    (run / "config.yaml").write_text(signed(config.replace("run: null", "run: /home/me/secret/first")))
    manifest = json.loads((run / "manifest.json").read_text())
    manifest.pop("checksum")
    words = ["vaelab", "train", "data=digits", "latent_dim=3", "data.cache=/home/me/secret/cache"]
    (run / "manifest.json").write_text(json.dumps({**manifest, "repeat": words}))

    assert ended(capsys, "push", "run", "me/digits")[0] == 0

    files = there.repositories["me/digits"]
    card = files["README.md"].decode()
    _, front, text = card.split("---\n", 2)
    assert yaml.safe_load(front) == {"library_name": "vaelab", "tags": ["vaelab", "variational-autoencoder"]}
    assert "![reconstructions](reconstructions.png)" in text
    assert "\nvaelab train data=digits latent_dim=3 data.cache=cache\n" in text
    elbo = RunFolder(run).metrics["test/elbo"]
    assert f"| test/elbo | {elbo:.6g} |" in text
    assert "vaelab pull me/digits" in text
    assert not any(b"secret" in content or str(tmp_path).encode() in content for content in files.values())
    assert ended(capsys, "pull", "me/digits", "-o", "again")[0] == 0
    assert RunFolder.open("again").config.init.run == "first"


def without(name):
    return lambda files: files.pop(name)


def changed(name, old, new):
    def change(files):
        text = files[name].decode()
        text = unsigned(text) if name == "config.yaml" else text
        assert old in text
        files[name] = text.replace(old, new).encode()

    return change


STRANGE = {
    "no config": (without("config.yaml"), "me/digits is no model of vaelab: it has no config.yaml"),
    "no weights": (without("model.safetensors"), "it has no model.safetensors"),
    "code": (changed("config.yaml", "vaelab.models.posteriors.Gaussian", "os.system"), "os.system"),
    "the environment": (changed("config.yaml", "name: vae", "name: ${oc.env:HF_TOKEN}"), "has an interpolation"),
    "other weights": (changed("data.json", '"levels"', '"else"'), "does not describe data"),
    "no numbers": (lambda files: files.update({"metrics.json": b'{"a": "b"}'}), '"b" is not a number'),
    "damaged": (lambda files: files.update({"model.safetensors": b"x" * 99}), "cannot be loaded"),
    "large": (lambda files: files.update({"config.yaml": b" " * (17 << 20)}), "its config.yaml is larger than 16 MB"),
}


def test_what_is_no_model_of_vaelab_is_one_line_and_leaves_nothing_behind(there, small_run, capsys, tmp_path):
    assert ended(capsys, "push", str(small_run("vae")), "me/digits")[0] == 0
    honest = dict(there.repositories["me/digits"])
    for what, (change, words) in STRANGE.items():
        files = dict(honest)
        change(files)
        there.repositories["me/digits"] = files
        code, output, errors = ended(capsys, "pull", "me/digits")
        assert (code, output) == (2, ""), what
        assert words in errors, what
        assert errors.count("error: ") == 1
        assert TOKEN not in errors
        assert not [path for path in tmp_path.rglob("*") if path.is_file()], what
    # Pickles, scripts and names that lead elsewhere are not even asked for.
    there.repositories["me/digits"] = {**honest, "best.ckpt": b"", "run.py": b"", "../up": b"", "status.json": b"{}"}
    there.asked.clear()
    assert ended(capsys, "pull", "me/digits")[0] == 0
    names = {request.split("/")[-1] for request in there.asked if "/resolve/" in request}
    assert names == {"config.yaml", "data.json", "metrics.json", "model.safetensors"}


def test_a_mistake_is_one_line(there, small_run, capsys, tmp_path, monkeypatch):
    run = str(small_run("vae"))
    (tmp_path / "taken").mkdir()
    for words, *arguments in [
        ("there is no repository me/nothing", "pull", "me/nothing"),
        ("me/digits/more is no name of a repository", "pull", "me/digits/more"),
        ("taken is there already", "pull", "me/digits", "-o", "taken"),
        ("the token may not do this", "push", run, "you/digits"),
        ("nowhere is not a run folder", "push", "nowhere", "me/digits"),
    ]:
        code, output, errors = ended(capsys, *arguments)
        assert (code, output) == (2, ""), arguments
        assert words in errors, errors
        assert errors.count("error: ") == 1
    monkeypatch.setenv("HF_TOKEN", "another")
    assert "the token is not accepted" in ended(capsys, "push", run, "me/digits")[2]
    monkeypatch.delenv("HF_TOKEN")
    code, _, errors = ended(capsys, "push", run, "me/digits")
    assert (code, errors.startswith("error: there is no token for the Hugging Face Hub: `hf auth login`")) == (2, True)


@pytest.mark.slow
def test_the_address_is_that_of_the_environment(small_run, tmp_path):
    settings = {"HF_TOKEN": TOKEN, "HF_HOME": str(tmp_path / "home"), "HF_HUB_DISABLE_XET": "1"}
    with hub() as running:
        result = command("push", str(small_run("vae")), "me/x", cwd=tmp_path, HF_ENDPOINT=running.address, **settings)
        assert (result.returncode, result.stdout) == (0, f"{running.address}/me/x\n")
    result = command("pull", "me/x", cwd=tmp_path, HF_ENDPOINT="http://127.0.0.1:9", **settings)
    assert result.returncode == 2
    assert "http://127.0.0.1:9 cannot be reached" in result.stderr
