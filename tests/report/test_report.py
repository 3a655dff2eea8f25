"""Reports on run folders that are written by hand, on a sweep that is trained, and in a headless browser."""

import base64
import csv
import io
import json
import re
import shlex
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from playwright.sync_api import expect

import vaelab
from vaelab import figures
from vaelab.cli.main import main
from vaelab.report import page as report_page
from vaelab.report.page import rendered
from vaelab.report.report import Report, as_csv, as_table, collect, remarks, write
from vaelab.report.runs import ReportedRun

ELBOS = {0.5: [-101.5, -102.25, -104.0], 4.0: [-120.0, -121.0, -122.5]}
MINUS = "\N{MINUS SIGN}"
HOSTILE = "</script><script>window.hacked=1</script><img src=x onerror=window.hacked=1>"


def make_run(
    folder: Path,
    config: dict[str, Any] | None = None,
    metrics: dict[str, Any] | None = None,
    *,
    state: str = "done",
    overrides: list[str] | None = None,
    pictures: bool = False,
    **status: Any,
) -> Path:
    """A run folder with what a report reads."""
    folder.mkdir(parents=True)
    whole = {"name": folder.name, "seed": 0, "latent_dim": 2, "trainer": {"devices": 1}} | (config or {})
    (folder / "config.yaml").write_text(yaml.safe_dump(whole, sort_keys=False))
    files = {"manifest": {"repeat": ["vaelab", "train", *(overrides or [])]}, "metrics": metrics}
    for name, content in (files | {"status": {"state": state, **status}}).items():
        if content is not None:
            (folder / f"{name}.json").write_text(json.dumps(content))
    if pictures:
        (folder / "figures").mkdir()
        for name in report_page.FIGURES:
            pixels = np.random.default_rng(0).integers(0, 256, (145, 100, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / "figures" / f"{name}.png")
    return folder


def make_grid(folder: Path) -> Path:
    """Two weights of the KL by three seeds."""
    for weight, elbos in ELBOS.items():
        for seed, elbo in enumerate(elbos):
            metrics = {"test/elbo": elbo, "test/kl": 20 / weight + seed, "test/reconstruction": -elbo - 20 / weight}
            config = {"seed": seed, "objective": {"_target_": "vaelab.losses.ELBO", "kl_weight": weight}}
            overrides = [f"objective.kl_weight={weight}", f"seed={seed}"]
            name = f"kl_weight={weight},seed={seed}"
            make_run(folder / name, config, metrics | {"steps": 100}, overrides=overrides, pictures=True)
    return folder


def by_name(report: Report) -> dict[str, ReportedRun]:
    return {run.name: run for run in report.runs}


def rows(report: Report) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(as_csv(report))))


def fails(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """The one message with which a command ends that a user got wrong."""
    with pytest.raises(SystemExit) as ended:
        main(["report", *map(str, arguments)])
    assert ended.value.code == 2
    message = capsys.readouterr().err
    assert message.count("error:") == 1
    assert "Traceback" not in message
    return message


def test_mean_deviation_and_n_are_those_over_seeds(tmp_path: Path) -> None:
    report = collect([make_grid(tmp_path)])
    assert report.parameters == ["objective.kl_weight"]
    assert [group.values for group in report.groups] == [(0.5,), (4.0,)]
    cells = [list(column.cells) for column in as_table(report).columns]
    assert cells[:2] == [["0.5", "4"], ["3", "3"]]
    for cell, elbos in zip(cells[2], ELBOS.values(), strict=True):
        mean, deviation, _ = cell.replace(" ± ", " ").split()
        assert float(mean) == pytest.approx(np.mean(elbos), abs=0.05)
        assert float(deviation) == pytest.approx(np.std(elbos, ddof=1), abs=0.05)


def test_of_two_runs_with_one_seed_the_last_counts(tmp_path: Path) -> None:
    for name, elbo in {"a": -1.0, "b": -2.0}.items():
        make_run(tmp_path / name, metrics={"test/elbo": elbo})
    make_run(tmp_path / "c", state="failed", error="no")
    (group,) = collect([tmp_path]).groups
    assert len(group.runs) == 3
    assert group.numbers("test/elbo") == [-2.0]


def test_parameters_are_what_differs_but_not_where_a_run_was_made_or_what_follows_from_a_part(tmp_path: Path) -> None:
    parts = {
        "a": {"encoder": {"_target_": "x.MLP", "hidden": [400]}, "data": {"root": "/a"}},
        "b": {"encoder": {"_target_": "x.MLP", "hidden": [400]}, "latent_dim": 8, "trainer": {"devices": 2}},
        "c": {"encoder": {"_target_": "x.Conv", "channels": 32}, "seed": 5, "data": {"root": "/c"}},
    }
    for name, config in parts.items():
        make_run(tmp_path / name, config, {"test/elbo": -1.0})
    assert collect([tmp_path]).parameters == ["latent_dim", "encoder"]


def test_the_parameters_of_a_sweep_are_its_axes(tmp_path: Path) -> None:
    jobs = []
    for number, model in enumerate(["ae", "vae"]):
        make_run(tmp_path / model, {"objective": {"_target_": f"x.{model}"}, "prior": model}, {"test/mse": 0.1})
        jobs.append({"number": number, "folder": model, "parameters": {"model": model}, "overrides": []})
    jobs.append(
        {"number": 2, "folder": "iwae", "parameters": {"model": "iwae"}, "overrides": ["model=iwae", "sweep=x"]}
    )
    (tmp_path / "iwae").mkdir()
    (tmp_path / "iwae" / "config.yaml").write_text("seed: 0\n")  # all that a waiting job has
    record = {"name": "x", "command": [], "overrides": [], "parameters": {}, "launcher": {}, "jobs": jobs}
    (tmp_path / "sweep.json").write_text(json.dumps(record))
    report = collect([tmp_path])
    assert report.parameters == ["model"]
    assert [report.values(run) for run in report.runs] == [("ae",), ("iwae",), ("vae",)]
    assert by_name(report)["iwae"].state == "waiting"
    assert by_name(report)["iwae"].command == ""
    assert collect([tmp_path, tmp_path / "ae"]).parameters == ["model"]  # no run is there twice
    make_run(tmp_path / "alone", {"objective": {"_target_": "x.vae"}, "prior": "vae"}, {"test/mse": 0.2})
    report = collect([tmp_path])  # a run that has no axes: the configs tell
    assert report.parameters == ["objective", "prior"]
    assert report.values(by_name(report)["alone"]) == report.values(by_name(report)["vae"]) == ("vae", "vae")


def test_evaluations_under_the_runs_seed_are_metrics_with_their_units(tmp_path: Path) -> None:
    run = tmp_path / "run"
    quick = ["data=digits", "trainer=debug", "model=vae", "loss=mse", "callbacks.progress_bar=null", "logger=[]"]
    vaelab.train(vaelab.compose(quick), folder=run)
    found = vaelab.evaluate(run, split="validation", samples=2)
    vaelab.evaluate(run, split="validation", samples=3, seed=7)

    report = collect([tmp_path])

    assert report.runs[0].metrics["val/nll_2"] == found["val/nll_2"]
    assert report.units["val/nll_2"] == "nats per image"
    assert not {"val/nll_3", "val/kl_per_dimension"} & set(report.metrics)


def test_chosen_metrics_are_compared_in_their_order_and_an_unknown_one_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_grid(tmp_path)

    report = collect([tmp_path], ["test/kl", "test/elbo"])

    assert report.metrics == ["test/kl", "test/elbo"]
    assert list(rows(report)[0])[-4:-2] == ["test/kl", "test/elbo"]
    message = fails(capsys, tmp_path, "--metrics", "test/kl,test/elbow")
    assert "--metrics test/elbow: no run in" in message
    assert "did you mean test/elbo?" in message


def test_differences_within_the_noise_of_the_seeds_are_marked(tmp_path: Path) -> None:
    for width, means in {8: (1.0, 1.2, 1.1), 16: (1.1, 1.3, 1.0), 32: (9.0, 9.1, 9.2)}.items():
        for seed, value in enumerate(means):
            config = {"seed": seed, "latent_dim": width}
            make_run(tmp_path / f"{width},{seed}", config, {"test/mse": value})

    report = collect([tmp_path])

    assert report.marks["test/mse"] == ["a", "a", "b"]
    assert "share a letter" in "".join(remarks(report))
    page = report_page.rendered(report, title="t")
    assert "<sup>a</sup>" in page
    assert "share a letter" in page


def test_runs_that_did_not_end_well_are_shown_with_their_errors_and_stop_nothing(tmp_path: Path) -> None:
    make_run(tmp_path / "done", metrics={"test/elbo": -3.0, "test/kl": "nan"})
    make_run(tmp_path / "failed", state="failed", error="ValueError: too\nlarge", traceback="Traceback: here")
    make_run(tmp_path / "interrupted", state="interrupted")
    make_run(tmp_path / "pruned", state="pruned")
    make_run(tmp_path / "running", state="running")
    broken = {name: make_run(tmp_path / name, metrics={}) for name in ("json", "text", "list", "yaml", "alias", "code")}
    (broken["json"] / "metrics.json").write_text('{"test/elbo": ')
    (broken["text"] / "metrics.json").write_text('{"test/elbo": "x"}')
    (broken["list"] / "status.json").write_text("[]")
    (broken["yaml"] / "config.yaml").write_text("a: [")
    (broken["alias"] / "config.yaml").write_text("a: &a [1]\nb: [*a, *a]")
    target = tmp_path / "hacked"
    (broken["code"] / "config.yaml").write_text(f"a: !!python/object/apply:pathlib.Path.touch [{target}]")
    report = collect([tmp_path])
    assert {run.name: run.state for run in report.runs} == {
        **{name: name for name in ("done", "failed", "interrupted", "pruned", "running")},
        **dict.fromkeys(broken, "unreadable"),
    }
    assert all(by_name(report)[name].error for name in broken)
    assert not target.exists()
    states, *errors = remarks(report)
    assert states == "1 done, 1 pruned, 1 running, 1 interrupted, 1 failed, 6 unreadable"
    assert "failed failed: ValueError: too" in errors
    assert len(errors) == 7
    assert not by_name(report)["pruned"].error
    page = rendered(report, title="x")
    assert "ValueError: too" in page
    assert "Traceback: here" in page
    assert [row["error"] for row in rows(report) if row["run"] == "failed"] == ["ValueError: too\nlarge"]
    assert [row["test/kl"] for row in rows(report) if row["run"] == "done"] == ["nan"]


def test_what_is_linked_from_elsewhere_is_not_read(tmp_path: Path) -> None:
    runs, outside = tmp_path / "runs", make_grid(tmp_path / "outside")
    inside = make_run(runs / "picture", metrics={"test/elbo": -1.0}, pictures=True)
    (inside / "figures" / "samples.png").unlink()
    (inside / "figures" / "samples.png").symlink_to(next(outside.glob("*/figures/samples.png")))
    make_run(runs / "metrics").joinpath("metrics.json").symlink_to(next(outside.glob("*/metrics.json")))
    (runs / "folder").symlink_to(next(outside.iterdir()))
    report = collect([runs])
    assert {run.name: run.state for run in report.runs} == {"picture": "done", "metrics": "unreadable"}
    assert rendered(report, title="x").count("data:image/webp") == 1  # the reconstructions
    linked = tmp_path / "latest"
    linked.symlink_to(runs)
    assert len(collect([linked]).runs) == 2  # the folder that was asked for may be one


@pytest.mark.parametrize("damage", ["no picture", "an enormous one", "not a PNG"])
def test_pictures_that_cannot_be_shown_are_left_out(damage: str, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", metrics={"test/elbo": -1.0}, pictures=True)
    picture = run / "figures" / "samples.png"
    if damage == "no picture":
        picture.write_bytes(b"\x89PNG")
    elif damage == "an enormous one":
        Image.new("1", (20_000, 1000)).save(picture)
    else:
        Image.new("RGB", (500, 500)).save(picture, format="gif")
    assert rendered(collect([tmp_path]), title="x").count("data:image/webp") == 1


def test_few_of_many_pictures_are_in_the_page_and_it_says_so(tmp_path: Path) -> None:
    for number in range(report_page.SHOWN + 10):
        make_run(tmp_path / f"{number:02}", {"latent_dim": number}, {"test/elbo": -1.0 * number}, pictures=number < 60)
    page = rendered(collect([tmp_path]), title="x")
    assert page.count("data:image/webp") == 2 * report_page.SHOWN
    assert page.count("10 of 58 are left out") == 2
    assert "latent_dim=0<" in page
    assert "latent_dim=57<" in page


def test_the_title_is_cut_off_a_picture_and_nothing_else(tmp_path: Path) -> None:
    images = torch.zeros(64, 1, 8, 8)
    path = figures.save(figures.samples(images), tmp_path / "x.png", title="gjpqy|[]")
    pixels = np.asarray(Image.open(path).convert("L"))
    dark = np.flatnonzero((pixels < 128).any(axis=1))
    first_below = dark[dark >= report_page.TITLE][0]
    assert dark[0] < report_page.TITLE  # the title
    assert (pixels[first_below : first_below + 8] == 0).mean() > 0.5  # the first row of images
    assert not (dark == report_page.TITLE).any()


def test_csv_has_all_digits_and_no_formulas(tmp_path: Path) -> None:
    elbo = -101.23456789012345
    make_run(tmp_path / "=cmd()", {"latent_dim": "@x"}, {"test/elbo": elbo}, overrides=["+a=1"])
    make_run(tmp_path / "run", metrics={"test/elbo": 2.0}, state="failed", error="-1 is negative")
    first, second = rows(collect([tmp_path]))
    assert float(first["test/elbo"]) == elbo
    assert first["run"] == "'=cmd()"
    assert first["latent_dim"] == "'@x"
    assert second["error"] == "'-1 is negative"


@pytest.mark.parametrize("words", [["vaelab", "train", "+a.b='$(touch x)'", "name=two words"], []])
def test_the_command_repeats_the_run(words: list[str], tmp_path: Path) -> None:
    run = make_run(tmp_path / "a run", metrics={"test/elbo": -1.0})
    (run / "manifest.json").write_text(json.dumps({"repeat": words}))
    (found,) = collect([tmp_path]).runs
    assert shlex.split(found.command) == (words or ["vaelab", "reproduce", str(run)])


def test_no_command_has_what_a_terminal_would_obey(tmp_path: Path) -> None:
    make_run(tmp_path / "run", metrics={"test/elbo": -1.0}, overrides=["name=\x1b[201~\nrm -rf x"])
    make_run(tmp_path / "a\x1b[2J", state="failed", error="\x1b[31m\u202e")
    report = collect([tmp_path])
    assert by_name(report)["run"].command == ""
    assert not re.search("[\x1b\u202e]", rendered(report, title="x") + as_csv(report))


def test_a_mistake_is_one_message(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "nowhere is not a folder" in fails(capsys, tmp_path / "nowhere")
    assert "there is no run in it" in fails(capsys, tmp_path)
    make_run(tmp_path / "run", state="failed", error="ValueError: no")
    assert "no run in it has metrics (1 failed); run: ValueError: no" in fails(capsys, tmp_path)
    assert "should end in .html" in fails(capsys, tmp_path, "--output", tmp_path / "page.txt")
    make_run(tmp_path / "other", metrics={"test/elbo": -1.0})
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit) as ended:
        main(["report", str(tmp_path), "--output", str(tmp_path / "file" / "page.html")])
    assert ended.value.code == 2
    assert "cannot be written" in capsys.readouterr().err


def test_a_report_replaces_the_one_before(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_grid(tmp_path / "grid")
    other = make_run(tmp_path / "other", metrics={"test/elbo": -1.0})
    _run("report", folder)
    assert capsys.readouterr().out.splitlines()[-2:] == [str(folder / f"report.{kind}") for kind in ("html", "csv")]
    make_run(folder / "one more", metrics={"test/elbo": -1.0})
    _run("report", folder)
    assert len((folder / "report.csv").read_text().splitlines()) == 8
    monkeypatch.chdir(tmp_path)
    _run("report", folder, other)  # of several, in the current folder
    assert len((tmp_path / "report.csv").read_text().splitlines()) == 9
    assert not list(tmp_path.rglob(".report*"))


def _run(*arguments: object) -> None:
    with pytest.raises(SystemExit) as ended:
        main(list(map(str, arguments)))
    assert ended.value.code == 0


class Elements(HTMLParser):
    """Each element with its attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep, a failure, and texts that would run as code if they were not escaped."""
    folder = make_grid(tmp_path_factory.mktemp("hostile"))
    config = {"latent_dim": HOSTILE, HOSTILE: 1}
    error = {"error": HOSTILE, "traceback": HOSTILE}
    make_run(folder / HOSTILE.replace("/", "\\"), config, state="failed", overrides=[HOSTILE], **error)
    make_run(folder / "names", config, {HOSTILE: 1.0, "test/kl": 2.0, "test/reconstruction": 99.0}, pictures=True)
    return folder


def test_hostile_texts_add_no_elements(hostile: Path) -> None:
    page = rendered(collect([hostile]), title=HOSTILE)
    elements = Elements(page).found
    assert [attributes for tag, attributes in elements if tag == "script"] == [
        {"type": "application/json", "id": "data"},
        {},
    ]
    assert all(
        str(attributes["src"]).startswith("data:image/webp") for tag, attributes in elements if "src" in attributes
    )
    assert not [name for _, attributes in elements for name in attributes if name.startswith("on")]
    (policy,) = (attributes["content"] for _, attributes in elements if "http-equiv" in attributes)
    assert str(policy).startswith("default-src 'none'; img-src data:;")
    assert "unsafe" not in str(policy)


@pytest.fixture(scope="module")
def address(hostile: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    page, _ = write(collect([hostile]), tmp_path_factory.mktemp("pages") / "a report.html", title=HOSTILE)
    return page.as_uri()


@pytest.fixture(params=["light 1280", "dark 400"])
def page(request: pytest.FixtureRequest, chrome: Any, address: str) -> Iterator[Any]:
    """The page, open; afterwards it must have asked for nothing but itself, and nothing have gone wrong."""
    scheme, width = request.param.split()
    context = chrome.new_context(
        color_scheme=scheme,
        viewport={"width": int(width), "height": 800},
        permissions=["clipboard-read", "clipboard-write"],
    )
    page = context.new_page()
    wrong: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: wrong.append(message.text))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("dialog", lambda dialog: wrong.append(dialog.message))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(address)
    yield page
    assert page.evaluate("window.hacked") is None
    context.close()
    assert wrong == []
    assert [url for url in asked if not url.startswith("data:")] == [address]


def names(page: Any) -> list[str]:
    found: list[str] = page.locator("#runs tbody tr:not([hidden]) td.name").all_inner_texts()
    return found


def test_the_page_draws_every_chart_within_its_width(page: Any) -> None:
    assert page.locator("#plane .mean").count() == 3  # two weights, and the run of hostile names
    assert page.locator("#plane .run").count() == 6
    assert page.locator("#effects svg").count() >= 6
    assert page.locator("#parallel .path").count() == 7
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.locator("#plane .mean").first.hover()
    told = page.locator("#tip").inner_text()
    assert "kl_weight=0.5" in told
    assert "test/kl: 41.0 ± 1.0 nats per image" in told


def test_a_line_through_points_of_several_colours_has_none_of_them_and_strips_are_wide(
    chrome: Any, tmp_path: Path
) -> None:
    page, _ = write(collect([make_grid(tmp_path / "grid")]), tmp_path / "report.html", title="grid")
    shown = chrome.new_page(viewport={"width": 1280, "height": 800})
    shown.goto(page.as_uri())
    style = "(all, name) => all.map(one => getComputedStyle(one)[name])"
    (line,) = shown.locator("#plane .line").evaluate_all(style, "stroke")
    points = shown.locator("#plane .mean").evaluate_all(style, "fill")
    assert len({*points}) == 2
    assert line not in points
    assert min(shown.locator(".strips img").evaluate_all("all => all.map(one => one.clientWidth)")) >= 280
    shown.close()


def test_the_page_shows_the_pictures(page: Any) -> None:
    pictures = page.locator(".sheet img")
    assert pictures.count() == 6
    widths = pictures.evaluate_all("all => Promise.all(all.map(one => one.decode().then(() => one.naturalWidth)))")
    assert all(width == 100 for width in widths)
    pictures.first.click()
    assert page.locator("#large img").evaluate("large => large.naturalWidth") == 100


def test_a_click_on_a_column_sorts_by_it(page: Any) -> None:
    head = page.locator("#runs th", has_text="test/elbo").locator("button")
    head.click()
    ascending = names(page)
    assert ascending[0] == "kl_weight=4.0,seed=2"
    assert ascending[5] == "kl_weight=0.5,seed=0"  # those without it come last
    head.click()
    assert names(page)[0] == "kl_weight=0.5,seed=0"
    assert set(names(page)[6:]) == set(ascending[6:])


def test_the_filter_narrows_tables_and_charts(page: Any) -> None:
    page.locator("#filter").fill("kl_weight=4 done")
    assert len(names(page)) == 3
    expect(page.locator("#plane .mean")).to_have_count(1)
    page.locator("#filter").fill("seed=1")
    assert names(page) == ["kl_weight=0.5,seed=1", "kl_weight=4.0,seed=1"]
    means = page.locator("#groups tbody tr:not([hidden])").all_inner_texts()
    assert all(f"{MINUS}102.25" in row or f"{MINUS}121.00" in row for row in means)
    page.locator("#filter").fill("")
    page.locator("#state").select_option("failed")
    assert len(names(page)) == 1
    expect(page.locator("#plane")).to_be_hidden()


def test_a_command_is_copied(page: Any) -> None:
    row = page.locator("#runs tbody tr", has_text="kl_weight=4.0,seed=2")
    row.locator(".command button").click()
    assert page.evaluate("navigator.clipboard.readText()") == "vaelab train objective.kl_weight=4.0 seed=2"


def test_tables_and_pictures_are_there_without_a_script(chrome: Any, address: str) -> None:
    context = chrome.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(address)
    assert page.locator("#runs tbody tr").count() == 8
    assert f"{MINUS}102.6 ± 1.3" in page.locator("#groups").inner_text()
    assert page.locator(".sheet img").count() == 6
    assert page.locator("#controls").is_hidden()
    context.close()


@pytest.mark.slow
def test_a_sweep_is_reported_as_it_was_trained_and_the_commands_repeat_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    axes = ["objective.kl_weight=1,4", "seed=1,2"]
    small = ["data=digits", "trainer=debug", "encoder.hidden=[16, 8]"]
    _run("train", "-m", *small, *axes, "hydra.sweep.dir=sweep")
    _run("report", "sweep")
    assert "kl_weight" in capsys.readouterr().out
    report = collect([Path("sweep")])
    assert [group.values for group in report.groups] == [(1,), (4,)]
    for run, row in zip(report.runs, rows(report), strict=True):
        metrics = json.loads((run.folder / "metrics.json").read_text())
        assert {name: float(row[name]) for name in metrics} == metrics
    encoded = re.findall(r"data:image/webp;base64,([\w+/=]+)", Path("sweep", "report.html").read_text())
    assert len(encoded) == 4  # samples and reconstructions of the first seed of each weight
    assert all(Image.open(io.BytesIO(base64.b64decode(picture))).width > 300 for picture in encoded)
    last = report.runs[-1]
    main_words = shlex.split(last.command)[1:]
    _run(*main_words, "hydra.run.dir=again")
    again = json.loads(Path("again", "metrics.json").read_text())
    assert again == json.loads((last.folder / "metrics.json").read_text())
