"""A mixed sweep in a real TensorBoard, asked through its HTTP API and looked at in a headless browser."""

import json
import re
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, FrameLocator, Locator, Page, expect
from screenshots import tensorboard

from vaelab.cli.main import main
from vaelab.runs.documents import unsigned

pytestmark = pytest.mark.slow

SWEEP = [
    "model=ae,vae",
    "latent_dim=2,3",
    "data=digits",
    "trainer=cpu",
    "trainer.max_epochs=2",
    "callbacks.progress_bar=null",
]
WAIT = 60_000  # milliseconds at most, for a busy machine


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("board") / "sweep"
    with pytest.raises(SystemExit) as ended:
        main(["train", "-m", *SWEEP, f"hydra.sweep.dir={folder}"])
    assert ended.value.code == 0
    return folder


def jobs(sweep: Path) -> list[str]:
    """The names that TensorBoard gives to its runs."""
    found = sorted(str(path.relative_to(sweep)) for path in sweep.glob("*/tensorboard"))
    assert len(found) == 4
    return found


@pytest.fixture(scope="module")
def address(sweep: Path) -> Iterator[str]:
    with tensorboard(sweep) as address:
        yield address


def ask(address: str, path: str, question: Any) -> Any:
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{address}/data/plugin/hparams/{path}", json.dumps(question).encode(), headers)
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


def test_the_hparams_of_a_mixed_sweep_have_every_run_every_column_and_every_final_metric(
    address: str, sweep: Path
) -> None:
    experiment = ask(address, "experiment", {"experimentName": ""})
    columns = {info["name"]: info["differs"] for info in experiment["hparamInfos"]}
    metrics = [{"metric": info["name"]} for info in experiment["metricInfos"]]
    statuses = ["STATUS_UNKNOWN", "STATUS_SUCCESS", "STATUS_FAILURE", "STATUS_RUNNING"]
    question = {
        "experimentName": "",
        "startIndex": 0,
        "sliceSize": 10,
        "colParams": metrics,
        "allowedStatuses": statuses,
    }

    groups = ask(address, "session_groups", question)["sessionGroups"]

    assert sorted(group["name"] for group in groups) == jobs(sweep)
    for group in groups:
        (session,) = group["sessions"]
        assert session["status"] == "STATUS_SUCCESS"
        run = sweep / session["name"].removesuffix("/tensorboard")
        found = {value["name"]["tag"]: value["value"] for value in session["metricValues"]}
        final = {name: value for name, value in json.loads((run / "metrics.json").read_text()).items() if "/" in name}
        assert {name: found[name] for name in final} == pytest.approx(final, rel=1e-6)
        variational = group["hparams"]["name"] == "vae"
        assert ("test/elbo" in found, "objective.kl_weight" in group["hparams"]) == (variational, variational)
        assert ("loss.scale" in group["hparams"]) != variational  # loss=mse has one
    assert {"objective.kl_weight", "loss.scale", "optimizer.lr", "seed", "data"} < set(columns)
    assert {name for name, differs in columns.items() if differs} >= {"name", "latent_dim", "objective", "posterior"}


@pytest.fixture(scope="module")
def page(chrome: Browser, address: str) -> Page:
    page = chrome.new_page(viewport={"width": 1400, "height": 1000})
    page.set_default_timeout(WAIT)
    return page


@pytest.fixture
def dashboard(page: Page, address: str) -> Iterator[Callable[[str], Page]]:
    """Name -> that dashboard, shown; afterwards nothing may have gone wrong in it."""
    wrong: list[str] = []
    listeners: dict[Any, Callable[[Any], object]] = {
        "console": lambda message: wrong.append(message.text) if message.type == "error" else None,
        "pageerror": lambda error: wrong.append(str(error)),
        "response": lambda answer: wrong.append(f"{answer.status} {answer.url}") if answer.status >= 400 else None,
    }
    for event, listener in listeners.items():
        page.on(event, listener)

    def shown(name: str) -> Page:
        page.goto(f"{address}/#{name}")
        page.reload()
        return page

    yield shown
    for event, listener in listeners.items():
        page.remove_listener(event, listener)
    assert wrong == []


def see(page: Page | FrameLocator | Locator, *texts: str) -> None:
    for text in texts:
        expect(page.get_by_text(text).locator("visible=true").first).to_be_visible(timeout=WAIT)


def test_scalars(dashboard: Callable[[str], Page], sweep: Path) -> None:
    page = dashboard("scalars")
    see(page, "tag: test/elbo", *jobs(sweep))
    names = ["train/kl_weight", "train/learning_rate", "train/images_per_second", "val/active_units"]
    page.locator("tf-tag-filterer input").fill("|".join(names))
    for name in names:
        expect(page.get_by_text(name, exact=True).locator("visible=true").first).to_be_visible(timeout=WAIT)


def test_custom_scalars_put_training_and_validation_side_by_side(dashboard: Callable[[str], Page]) -> None:
    page = dashboard("custom_scalars")
    see(page, "training and validation")
    charts = page.locator("tf-custom-scalar-multi-line-chart-card")
    expect(charts).to_have_count(3)
    for name, lines in {"reconstruction": 8, "kl": 4, "loss": 8}.items():  # of 4 runs, 2 of which have a KL
        see(charts.filter(has_text=re.compile(rf"\b{name}\b")).first, f"Matches ({lines})")


def test_images(dashboard: Callable[[str], Page]) -> None:
    page = dashboard("images")
    see(page, "epoch/reconstructions", "epoch/samples", "epoch/traversals", "epoch/manifold")
    picture = page.locator("tf-image-loader img").first
    expect(picture).to_be_visible(timeout=WAIT)
    assert picture.evaluate("picture => picture.decode().then(() => picture.naturalWidth)") >= 300


@pytest.mark.parametrize(
    ("name", "curves"),
    [("histograms", "vz-histogram-timeseries path.outline"), ("distributions", "vz-distribution-chart path.area")],
)
def test_the_kl_of_each_dimension(name: str, curves: str, dashboard: Callable[[str], Page]) -> None:
    page = dashboard(name)
    see(page, "val/kl_per_dimension")
    expect(page.locator(curves).first).to_be_visible(timeout=WAIT)


def test_text(dashboard: Callable[[str], Page], sweep: Path) -> None:
    page = dashboard("text")
    texts = page.locator("tf-text-loader code")
    expect(texts).to_have_count(8, timeout=WAIT)  # the command and the config of each run
    command, *_, config = texts.all_inner_texts()
    assert re.search(r"\nvaelab train .*latent_dim=\d", command)
    assert config.strip() in [unsigned(path.read_text()).strip() for path in sweep.glob("*/config.yaml")]


def test_the_projector(dashboard: Callable[[str], Page], page: Page) -> None:
    with page.expect_response(lambda answer: "sprite_image" in answer.url) as sprite:
        dashboard("projector")
    assert sprite.value.ok
    see(page.frame_locator("iframe").frame_locator("iframe"), "Points: 200", "4 runs found")


def test_hparams(dashboard: Callable[[str], Page], sweep: Path) -> None:
    page = dashboard("hparams")
    see(page, *jobs(sweep), "Reconstruction", "ELBO", "test/elbo")
    cells = page.locator("vaadin-grid-cell-content").all_inner_texts()
    assert cells.index("latent_dim") < cells.index("posterior") < cells.index("test/elbo")
