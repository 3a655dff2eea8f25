"""The words that people try first, and what they are told."""

from pathlib import Path

import pytest
import torch
from pytorch_lightning.callbacks import StochasticWeightAveraging

import vaelab
from vaelab.config.check import check
from vaelab.config.memory import memory


class Slow(torch.optim.SGD):
    """A class of one's own, with a knob of its own."""

    def __init__(self, params, speed: float = 1.0) -> None:  # type: ignore[no-untyped-def]
        super().__init__(params, lr=0.1 * speed)


class Wrapped(StochasticWeightAveraging):
    """Lightning's, under a name of one's own."""


def averaged(folder: Path) -> StochasticWeightAveraging:
    """Lightning's, made by a function of one's own."""
    return StochasticWeightAveraging(swa_lrs=0.01)


def strange(one: int) -> int:
    """What is no scheduler."""
    return one


HINTS = {
    "lr=1e-3": "did you mean optimizer.lr?",
    "epochs=5": "did you mean trainer.max_epochs?",
    "batch_size=64": "did you mean data.batch_size?",
    "beta=4": "did you mean objective.kl_weight?",
    "z_dim=8": "did you mean latent_dim?",
    "experiment=papers/burda_2015_vea": "did you mean papers/burda_2015_vae?",
    "device=cpu": "did you mean trainer.accelerator?",
    "num_workers=2": "did you mean threads?",
    "hidden=[9]": "did you mean encoder.hidden or decoder.hidden?",
    "optimizer.learning_rate=1": "did you mean optimizer.lr?",
    "model.latent_dim=8": "did you mean latent_dim?",
    "model=VAE": "did you mean vae?",
    "data=Fashion-MNIST": "did you mean fashion_mnist?",
    "xyzzy=1": "`vaelab train --show` prints all keys",
    "scheduler._target_=torch.optim.lr_scheduler.StepLR": "or add a class: +scheduler._target_=...",
    "loss=glob(*)": "several values are a sweep, which needs -m (--multirun)",
    "loss=bce,mse": "one value that is a list is loss=[bce,mse]",
    "+experiment=quickstart": "experiment is a part of every config; leave out the +",
    "logger.x._target_=pytorch_lightning.loggers.CSVLogger": "add it: +logger.x._target_=...",
    "vae": "did you mean model=vae?",
    "hydra.run.dir=a[b": "in quotes: hydra.run.dir='\"...\"'",
}
VALUES = {
    "encoder.channels=64 encoder=conv": "encoder.channels=64: should be a list: [64]",
    "latent_dim='8'": "it is text: leave the quotes out, or decode a variable: '\"${oc.decode:${oc.env:NAME}}\"'",
    "optimizer._target_=torch.optim.RAdam +optimizer.rate=1": "RAdam has no rate; there are lr, betas, eps",
    "optimizer._target_=torch.optim.Radam": "torch.optim has no such class; did you mean RAdam?",
    "+callbacks.x._target_=pytorch_lightning.callbacks.StochasticWeightAveraging": "it changes the weights after",
    "+callbacks.x._target_=lightning.Nothing": "or a class of pytorch_lightning.callbacks by its full name",
    "+trainer.max_tim=1": "did you mean max_time?",
    "callbacks.checkpoints.monitor=val_loss": "did you mean val/loss?",
    "callbacks.checkpoints.monitor=val/batch_perplexity model=vq_vae": "callbacks.checkpoints.mode=min or max",
    "callbacks=early_stopping data.validation=0": "needs validations, and data.validation=0 leaves no images",
}


@pytest.mark.parametrize("word", HINTS)
def test_a_word_that_is_no_key_is_told_the_key_in_one_line(word: str) -> None:
    with pytest.raises(vaelab.ConfigError) as error:
        vaelab.compose([word])
    (said,) = error.value.mistakes
    assert HINTS[word] in said
    assert "object at" not in said
    assert "=[glob" not in said


@pytest.mark.parametrize("words", VALUES)
def test_a_value_that_does_not_fit_is_told_what_would(words: str) -> None:
    with pytest.raises(vaelab.ConfigError) as error:
        check(vaelab.compose(["data=digits", *words.split()]))
    (said,) = error.value.mistakes
    assert VALUES[words] in said


def test_a_number_in_the_environment_is_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VAELAB_TEST_SEED", "7")
    file = tmp_path / "experiment" / "mine.yaml"
    file.parent.mkdir()
    file.write_text("# @package _global_\nseed: ${oc.decode:${oc.env:VAELAB_TEST_SEED}}\n")
    assert vaelab.compose(["experiment=mine"], config_dir=tmp_path).seed == 7
    assert vaelab.compose(['seed="${oc.decode:${oc.env:VAELAB_TEST_SEED}}"']).seed == 7  # as the message below says
    with pytest.raises(vaelab.ConfigError, match="it is text"):
        check(vaelab.compose(["data=digits", "seed=${oc.env:VAELAB_TEST_SEED}"]))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("latent_dim: 3\n", "its first line should be `# @package _global_`"),
        ("", "is empty"),
        ("\ufeff", "is empty"),
        ("\ufeff# @package _global_\nlatent_dim: 3\n", "begins with a byte order mark"),
    ],
)
def test_an_experiment_that_lacks_its_first_line_is_named_with_it(content: str, words: str, tmp_path: Path) -> None:
    file = tmp_path / "experiment" / "mine.yaml"
    file.parent.mkdir()
    file.write_text(content)
    with pytest.raises(vaelab.ConfigError) as error:
        vaelab.compose(["experiment=mine"], config_dir=tmp_path)
    assert str(error.value).startswith(str(file))
    assert words in str(error.value)


def test_another_class_starts_from_its_own_defaults_but_for_what_was_typed() -> None:
    config = vaelab.compose(["optimizer._target_=torch.optim.SGD", "optimizer.lr=0.1"])
    assert dict(config.optimizer) == {"_target_": "torch.optim.SGD", "lr": 0.1}
    check(vaelab.compose(["data=digits", "optimizer._target_=torch.optim.SGD"]))


def test_memory_is_what_the_control_groups_leave(tmp_path: Path) -> None:
    """The files are in the kernel's format, of version 2 and of version 1."""
    groups, own = tmp_path / "cgroup", tmp_path / "own"
    (groups / "job" / "step").mkdir(parents=True)
    (groups / "job" / "memory.max").write_text("1048576\n")
    (groups / "job" / "step" / "memory.max").write_text("max\n")
    own.write_text("0::/job/step\n")
    assert memory(groups, own) == 1 << 20
    (groups / "memory" / "slurm").mkdir(parents=True)
    (groups / "memory" / "slurm" / "memory.limit_in_bytes").write_text("4096\n")
    own.write_text("5:cpu:/x\n4:memory:/slurm\n0::/job/step\n")
    assert memory(groups, own) == 4096
    assert memory(tmp_path / "none", tmp_path / "none") > 1 << 20


def test_an_optimizer_or_scheduler_of_ones_own_is_a_class_as_well() -> None:
    config = vaelab.compose(["data=digits", f"optimizer._target_={__name__}.Slow", "+optimizer.speed=0.5"])
    assert check(config, trust=[__name__]).optimizer.keywords == {"speed": 0.5}
    config = vaelab.compose(["data=digits", f"+scheduler._target_={__name__}.strange"])
    with pytest.raises(vaelab.ConfigError, match=r"strange is called with \(total_steps, steps_per_epoch\)"):
        check(config, trust=[__name__])


def test_a_callback_that_is_refused_is_refused_under_every_name(tmp_path: Path) -> None:
    """What changes the weights after the last checkpoint would be neither saved nor tested."""
    quick = ["data=digits", "trainer=debug", "~callbacks.progress_bar"]
    config = vaelab.compose([*quick, f"+callbacks.x._target_={__name__}.Wrapped", "+callbacks.x.swa_lrs=0.1"])
    with pytest.raises(vaelab.ConfigError, match="Wrapped: cannot be used: it changes the weights after"):
        check(config, trust=[__name__])
    config = vaelab.compose([*quick, f"+callbacks.x._target_={__name__}.averaged"])
    with pytest.raises(vaelab.ConfigError, match="StochasticWeightAveraging cannot be used"):
        vaelab.train(config, folder=tmp_path / "run", trust=[__name__])
    assert not (tmp_path / "run" / "checkpoints").exists()
