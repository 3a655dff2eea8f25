import shutil
import subprocess
import sys

import pytest
import torch

import vaelab
from vaelab.errors import RunError
from vaelab.looking.load import opened
from vaelab.runs.locate import folder_of


def same(model, other):
    mine, its = model.state_dict(), other.state_dict()
    return mine.keys() == its.keys() and all(mine[name].equal(its[name]) for name in mine)


def test_a_run_its_folder_and_its_best_checkpoint_are_the_same_model(small_run):
    folder = small_run("vae")
    run = vaelab.Run(folder, {})

    model = vaelab.load(run)

    assert not model.training
    assert same(model, vaelab.load(str(folder)))
    assert same(model, vaelab.load(folder / "checkpoints" / "best.ckpt"))


def test_a_checkpoint_is_loaded_as_it_is_named(small_run, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(small_run("vae"), folder)
    path = folder / "checkpoints" / "last.ckpt"
    checkpoint = torch.load(path, weights_only=True)
    checkpoint["state_dict"] = {name: torch.zeros_like(weight) for name, weight in checkpoint["state_dict"].items()}
    torch.save(checkpoint, path)

    assert all(not weight.any() for weight in vaelab.load(path).parameters())
    assert not same(vaelab.load(path), vaelab.load(folder))
    assert folder_of(path).path == folder


def test_what_surrounds_a_model_comes_with_it(small_run):
    trained = opened(small_run("ae"))

    assert trained.folder.path == small_run("ae")
    assert (trained.experiment.name, trained.experiment.latent_dim) == ("ae", 4)
    assert trained.model.prior is None


def test_what_is_no_run_is_refused_with_the_reason(small_run, tmp_path):
    with pytest.raises(RunError, match=r"nowhere is not a run folder"):
        vaelab.load(tmp_path / "nowhere")
    with pytest.raises(RunError, match=r"there is no checkpoint .*nowhere\.ckpt"):
        vaelab.load(tmp_path / "nowhere.ckpt")
    stray = shutil.copy(small_run("vae") / "checkpoints" / "last.ckpt", tmp_path)
    with pytest.raises(RunError, match=r"last\.ckpt is not in a run folder: there is no .*config\.yaml"):
        vaelab.load(stray)
    bare = tmp_path / "bare"
    bare.mkdir()
    shutil.copy(small_run("vae") / "config.yaml", bare)
    with pytest.raises(RunError, match=r"bare has no checkpoint.*vaelab resume"):
        vaelab.load(bare)
    (bare / "checkpoints").mkdir()
    (bare / "checkpoints" / "last.ckpt").write_bytes(b"not a checkpoint")
    with pytest.raises(RunError, match=r"last\.ckpt cannot be loaded"):
        vaelab.load(bare)


@pytest.mark.slow
def test_loading_and_sampling_need_neither_lightning_nor_torchvision(small_run):
    program = (
        f"import sys, vaelab; vaelab.load({str(small_run('vae'))!r}).sample(2)\n"
        "print([name for name in ('pytorch_lightning', 'torchvision', 'matplotlib', 'sklearn') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)

    assert result.stdout == "[]\n", result.stderr


def test_loading_leaves_the_random_numbers_alone(small_run):
    before = torch.get_rng_state()

    vaelab.load(small_run("vae"))

    assert torch.get_rng_state().equal(before)


def test_a_checkpoint_that_does_not_say_its_step_is_one_line(small_run, tmp_path):
    folder = shutil.copytree(small_run("vae"), tmp_path / "run")
    path = folder / "checkpoints" / "best.ckpt"
    torch.save({"state_dict": torch.load(path, weights_only=True)["state_dict"]}, path)
    with pytest.raises(vaelab.RunError, match="has no global_step"):
        vaelab.load(folder)
