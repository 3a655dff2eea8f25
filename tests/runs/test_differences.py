import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.tensorboard import SummaryWriter

from vaelab.errors import RunError
from vaelab.runs.differences import Difference, differences, scalars, summary
from vaelab.runs.documents import Metrics, write_text
from vaelab.runs.folder import RunFolder

STATE = {
    "state_dict": {"a": torch.tensor([1.0, -4.0]), "b": torch.zeros(2)},
    "optimizer_states": [{"step": 3, "lr": 0.5}],
    "window": [[({"loss": torch.tensor(2.0)}, 8, 1)]],
}
METRICS = {"test/elbo": -8.0, "test/mse": 0.25}


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    """Two folders of the same results."""
    one, other = tmp_path / "one", tmp_path / "other"
    folder = RunFolder(one)
    folder.checkpoints.mkdir(parents=True)
    write_text(one / "config.yaml", "name: made up\n")
    folder.write_metrics(Metrics(METRICS))
    torch.save(STATE, folder.checkpoints / "last.ckpt")
    torch.save({"state_dict": STATE["state_dict"]}, folder.checkpoints / "best.ckpt")
    with SummaryWriter(one / "tensorboard") as writer:
        for step in range(5):
            writer.add_scalar("train/loss", 10.0 - step, step)
    shutil.copytree(one, other)
    return one, other


def test_copies_do_not_differ(pair: tuple[Path, Path]) -> None:
    assert differences(*pair) == []


def test_a_figure_differs_by_an_absolute_and_a_relative_amount(pair: tuple[Path, Path]) -> None:
    RunFolder(pair[1]).write_metrics(Metrics(METRICS | {"test/elbo": -8.5}))
    expected = Difference(("metrics", "test/elbo"), "-8.0 and -8.5", 0.5, 0.0625)
    assert differences(*pair) == [expected]
    assert summary([expected]) == [expected]
    assert str(expected) == "/metrics/test/elbo: -8.0 and -8.5"


def test_one_bit_of_one_weight_is_seen(pair: tuple[Path, Path]) -> None:
    weight = torch.tensor([1.0, -4.0])
    weight[0] = torch.nextafter(weight[0], torch.tensor(2.0))
    state = STATE | {"state_dict": STATE["state_dict"] | {"a": weight}}
    torch.save(state, pair[1] / "checkpoints" / "last.ckpt")
    bit = 2.0**-23
    assert differences(*pair) == [Difference(("last", "state_dict", "a"), "1 of 2 numbers", bit, bit / 4)]


def another_kind(path: Path) -> None:
    torch.save(STATE | {"state_dict": {"a": torch.zeros(3), "b": torch.zeros(2)}}, path / "checkpoints" / "last.ckpt")


def a_step_more(path: Path) -> None:
    torch.save(STATE | {"optimizer_states": [{"step": 4, "lr": 0.5}]}, path / "checkpoints" / "last.ckpt")


def no_best(path: Path) -> None:
    (path / "checkpoints" / "best.ckpt").unlink()


def a_step_twice(path: Path) -> None:
    with SummaryWriter(path / "again") as writer:
        writer.add_scalar("train/loss", 6.0, 4)
    (written,) = (path / "again").iterdir()
    written.rename(path / "tensorboard" / "events.out.tfevents.9999999999.again")  # read after the other one


def no_scalars(path: Path) -> None:
    shutil.rmtree(path / "tensorboard")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (another_kind, "/last/state_dict/a: torch.float32 (2,) and torch.float32 (3,)"),
        (a_step_more, "/last/optimizer_states/0/step: 3 and 4"),
        (no_best, "/best/state_dict: in the first only"),
        (a_step_twice, "/scalars/train/loss/5 (step 4): in the second only"),
        (no_scalars, "/scalars/train/loss: in the first only"),
    ],
)
def test_what_is_in_one_only_or_of_another_kind_is_said(
    change: Callable[[Path], None], said: str, pair: tuple[Path, Path]
) -> None:
    change(pair[1])
    assert [str(difference) for difference in differences(*pair)] == [said]


def test_the_summary_names_the_largest_difference_of_many(pair: tuple[Path, Path]) -> None:
    shutil.rmtree(pair[1] / "tensorboard")
    with SummaryWriter(pair[1] / "tensorboard") as writer:
        for step in range(5):
            writer.add_scalar("train/loss", 10.0 - step + (step == 1) * 0.25 + (step == 3) * 0.5, step)
    found = differences(*pair)
    assert len(found) == 2
    expected = "in 2 places, the largest at 3 (step 3): 7.0 and 7.5"
    assert summary(found) == [Difference(("scalars", "train/loss"), expected, 0.5, 0.5 / 7)]


def test_a_damaged_checkpoint_is_said_with_its_name(pair: tuple[Path, Path]) -> None:
    path = pair[1] / "checkpoints" / "last.ckpt"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(RunError, match=r"other/checkpoints/last\.ckpt is damaged"):
        differences(*pair)


def test_scalars_are_in_the_order_of_the_files(pair: tuple[Path, Path]) -> None:
    assert scalars(pair[0] / "tensorboard") == {"train/loss": [(step, 10.0 - step) for step in range(5)]}


def write_more(path: Path, speed: float, shade: int) -> None:
    with SummaryWriter(path / "tensorboard") as writer:
        writer.add_scalar("train/images_per_second", speed, 5)
        writer.add_image("samples", np.full((4, 4, 3), shade, np.uint8), 5, dataformats="HWC")
        writer.add_histogram("kl", np.array([0.0, 1.0]), 5)
        writer.add_text("command", str(speed), 5)


def test_speed_and_texts_may_differ_if_they_are_there(pair: tuple[Path, Path]) -> None:
    write_more(pair[0], speed=1000.0, shade=9)
    missing = {difference.place for difference in differences(*pair)}
    assert missing == {("scalars", "train/images_per_second")} | {
        ("pictures", tag) for tag in ("samples", "kl", "command/text_summary")
    }
    write_more(pair[1], speed=2000.0, shade=9)
    assert differences(*pair) == []


def test_another_shade_in_a_picture_is_seen(pair: tuple[Path, Path]) -> None:
    for path, shade in zip(pair, (9, 10), strict=True):
        write_more(path, speed=1000.0, shade=shade)
    assert [difference.place[:2] for difference in differences(*pair)] == [("pictures", "samples")]
