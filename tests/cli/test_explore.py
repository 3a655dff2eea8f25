"""The commands that look at a run, as a user meets them."""

import shutil

import numpy as np
import pytest

from processes import in_one_interpreter
from vaelab.cli.main import main

VERBS = ["reconstruct", "sample", "interpolate", "traverse", "manifold", "embed"]


@pytest.fixture
def here(small_run, tmp_path, monkeypatch):
    """A folder with runs `vae` and `ae`, one that has only begun, and some files."""
    monkeypatch.chdir(tmp_path)
    for name in ("vae", "ae"):
        shutil.copytree(small_run(name), name)
    shutil.copytree("vae", "begun", ignore=shutil.ignore_patterns("*.ckpt"))
    np.save("flat.npy", np.zeros(64))
    np.save("images.npy", np.zeros((4, 16, 24)))
    shutil.copy("vae/checkpoints/last.ckpt", "stray.ckpt")
    return tmp_path


def ended(capsys, *arguments):
    """The exit code of a command, its output and its errors."""
    with pytest.raises(SystemExit) as end:
        main(arguments)
    output = capsys.readouterr()
    return end.value.code or 0, output.out, output.err


MISTAKES = {
    "reconstruct nowhere": ["nowhere is not a run folder"],
    "sample begun": ["begun has no checkpoint", "vaelab resume begun"],
    "traverse nowhere.ckpt": ["there is no checkpoint nowhere.ckpt"],
    "embed stray.ckpt": ["stray.ckpt is not in a run folder", "config.yaml"],
    "reconstruct vae --images 0,200": ["--images 0,200: there is no 200", "numbered 0 to 199"],
    "interpolate vae --images 1": ["at least 2 images"],
    "traverse vae --image 200": ["--image", "numbered 0 to 199"],
    "reconstruct vae --split tst": ["--split tst", "did you mean test?"],
    "manifold vae": ["latent_dim=3, not 2", "vaelab traverse", "vaelab embed"],
    "sample ae": ["without a prior", "model=vae", "--fit-gaussian"],
    "sample vae -o out.jpg": ["--output out.jpg: sample writes .png"],
    "sample vae -o out": ["--output out: sample writes .png"],
    "sample vae -o flat.npy/out.png": ["flat.npy/out.png cannot be written"],
    "embed vae -o out.txt -o codes.gif": ["--output out.txt", "--output codes.gif", ".npz, .csv, .png"],
    "sample vae -o vae/figures/samples.png": ["samples.png exists", "--force", "--output"],
    "reconstruct vae flat.npy": ["flat.npy has an array of shape (64,)", "(N, H, W)"],
    "reconstruct vae nothing.png": ["there is no nothing.png"],
    "embed vae vae": ["vae has no images in it"],
    "embed vae images.npy --images 9": ["there are 4 own images"],
    "reconstruct vae --invert": ["--invert needs images of your own"],
}


@pytest.mark.parametrize("command", MISTAKES)
def test_a_mistake_is_one_clear_message_and_writes_nothing(command, here, capsys):
    before = sorted(here.rglob("*"))

    code, output, errors = ended(capsys, *command.split())

    assert code == 2
    assert all(words in errors for words in MISTAKES[command]), errors
    assert all(line.startswith("error: ") for line in errors.splitlines())
    assert output == ""
    assert sorted(here.rglob("*")) == before


@pytest.mark.parametrize("command", ["sample vae --count 0", "traverse vae --steps 1", "sample vae --seed -1"])
def test_a_number_out_of_range_is_refused(command, here, capsys):
    assert ended(capsys, *command.split())[0] == 2


def test_what_is_written_is_said_on_the_output_and_what_was_done_beside_it(here, capsys):
    code, output, errors = ended(capsys, "reconstruct", "vae", "images.npy", "-o", "new/own.png")

    assert code == 0
    assert output == "new/own.png\n"
    assert "4 images of 24 x 16: cropped to its middle 16 x 16, scaled to 8 x 8" in errors
    assert "mean squared error" in errors
    assert (here / "new" / "own.png").is_file()


def test_force_replaces_what_is_there_and_a_seed_gives_the_same_file_again(here, capsys):
    command = ["sample", "vae/checkpoints/last.ckpt", "--seed", "3", "-o", "a.png"]
    assert ended(capsys, *command)[0] == 0
    first = (here / "a.png").read_bytes()
    assert ended(capsys, *command)[0] == 2
    (here / "a.png").write_text("something else")
    assert ended(capsys, *command, "--force")[0] == 0
    assert (here / "a.png").read_bytes() == first


def test_a_plain_autoencoder_is_sampled_with_fit_gaussian(here, capsys):
    assert ended(capsys, "sample", "ae", "--fit-gaussian")[1] == "ae/figures/sample.png\n"


def test_a_run_whose_data_cannot_be_read_can_still_be_sampled_and_given_images(here, capsys):
    config = here / "vae" / "config.yaml"
    *lines, checksum = config.read_text().splitlines(keepends=True)
    assert "checksum" in checksum
    config.write_text("".join(lines).replace("test: 200", "test: 201"))

    assert ended(capsys, "sample", "vae", "-o", "a.png")[0] == 0
    assert ended(capsys, "reconstruct", "vae", "images.npy", "-o", "b.png")[0] == 0
    code, _, errors = ended(capsys, "reconstruct", "vae")
    assert (code, errors) == (2, "error: data.test=201 is not a multiple of the 10 classes\n")


@pytest.mark.slow
def test_the_verbs_need_no_lightning_and_their_help_no_torch(here):
    packages = ["torch", "pytorch_lightning", "torchvision", "umap"]
    assert in_one_interpreter([[verb, "--help"] for verb in VERBS], packages, here) == [["0"]] * len(VERBS)
    drawing = [[verb, "vae"] for verb in ("sample", "reconstruct", "traverse")]
    assert in_one_interpreter(drawing, packages, here) == [["0", "torch"]] * 3
