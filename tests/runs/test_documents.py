"""The documents of a run folder: what one of ours writes, a reader gets back; what nobody of ours writes is refused."""

import json
import math
from pathlib import Path

import pytest

from vaelab.errors import RunError
from vaelab.metrics.registry import Value
from vaelab.runs.documents import Metrics, Progress, Status
from vaelab.runs.evaluations import Evaluation
from vaelab.runs.folder import RunFolder

EVALUATION = Evaluation("test", 10, "none", None, False, 55, 0, {"test/psnr": Value(20.5, "dB", 0.25)})


def test_progress_is_in_the_status_and_stays_when_the_state_changes(tmp_path: Path) -> None:
    folder, progress = RunFolder(tmp_path), Progress(5, 20, 55, {"train/loss": 30.5, "val/loss": math.inf})
    folder.update_status("running")
    folder.update_progress(progress)
    folder.update_status("interrupted")
    assert folder.status.progress == progress
    assert folder.status.state == "interrupted"
    assert set(folder.status.at) == {"running", "interrupted"}


def test_a_run_writes_how_far_it_is(small_run) -> None:  # type: ignore[no-untyped-def]
    folder = RunFolder(small_run("vae"))
    progress = folder.status.progress
    assert progress is not None
    assert (progress.epoch, progress.epochs, progress.step) == (1, 1, folder.metrics["steps"])
    assert {"train/loss", "val/loss"} <= set(progress.terms)


def test_numbers_that_json_does_not_have_come_back(tmp_path: Path) -> None:
    Metrics({"a": math.nan, "b": -math.inf, "c": 1}).write(tmp_path / "metrics.json")
    found = Metrics.read(tmp_path / "metrics.json")
    assert math.isnan(found.pop("a"))
    assert found == {"b": -math.inf, "c": 1.0}


def test_an_evaluation_comes_back_and_a_later_one_adds_to_it(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    kl = Value([0.5, math.nan], "nats per image", details={"images": 10, "features": "pixels"})
    folder.keep_evaluation(EVALUATION)
    folder.keep_evaluation(Evaluation("test", 10, "none", None, False, 55, 0, {"test/kl_per_dimension": kl}))
    folder.keep_evaluation(Evaluation("test", 10, "none", None, False, 11, 0, {}))
    earlier, later = folder.evaluations
    assert (earlier.step, later.step) == (11, 55)
    assert later.metrics["test/psnr"] == EVALUATION.metrics["test/psnr"]
    assert str(later.metrics["test/kl_per_dimension"]) == str(kl)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"step": "55"}, "step: Input should be a valid integer"),
        ({"more": 1}, "it should not hold more"),
        ({"metrics": {"a": {"value": "${x}", "unit": "dB"}}}, "metrics.a.value"),
        ({"metrics": {"a": 1.0}}, "a: Input should be an object"),
        ({"metrics": {"a": {"unit": "dB"}}}, "metrics.a.value: Field required"),
    ],
)
def test_an_evaluation_that_nobody_of_ours_writes_is_refused(
    change: dict[str, object], words: str, tmp_path: Path
) -> None:
    EVALUATION.write(tmp_path / "it.json")
    content = json.loads((tmp_path / "it.json").read_text())
    (tmp_path / "it.json").write_text(json.dumps(content | change))
    with pytest.raises(RunError, match=r"it\.json cannot be read: .*") as refused:
        Evaluation.read(tmp_path / "it.json")
    assert words in str(refused.value)


@pytest.mark.parametrize("kind", [Status, Metrics, Evaluation])
def test_a_document_that_is_a_link_is_refused_and_a_text_obeys_nobody(kind, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "elsewhere").write_text("{}")
    (tmp_path / "it.json").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RunError, match="it is a link"):
        kind.read(tmp_path / "it.json")
    RunFolder(tmp_path).update_status("failed", error="\x1b[2J")
    assert RunFolder(tmp_path).status.error == "\N{REPLACEMENT CHARACTER}[2J"
