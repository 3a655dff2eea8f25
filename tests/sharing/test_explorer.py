"""The page in which a model runs, in a headless Chromium without a network."""

import hashlib
import json
import lzma
import shutil
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from PIL import Image

import vaelab
from vaelab.cli.main import main
from vaelab.config.check import check
from vaelab.looking.load import opened
from vaelab.looking.own_images import read_images
from vaelab.losses import kl_per_dimension
from vaelab.models.latents import arc, line
from vaelab.runs.folder import RunFolder
from vaelab.sharing import explorer
from vaelab.training.tensor_files import write_weights

TOLERANCE = {"atol": 1e-4, "rtol": 0}


@contextmanager
def page_of(chrome, path, scheme="light"):
    """The page at `path`, offline, once the model is there; what goes wrong in it makes the test fail."""
    context = chrome.new_context(color_scheme=scheme, viewport={"width": 1200, "height": 900})
    context.set_offline(True)
    page, wrong = context.new_page(), []
    page.on("console", lambda message: wrong.append(message.text))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("request", lambda request: wrong.append(request.url) if request.url.startswith("http") else None)
    page.goto(path.as_uri())
    page.locator("body[data-ready]").wait_for()
    settle(page)
    yield page
    context.close()
    assert not wrong


def settle(page):
    """Wait until nothing is to be decoded; what is looked at: z, and what was decoded."""
    page.evaluate("explorer.idle()")
    page.evaluate("explorer.idle()")
    found = page.evaluate("({z: [...explorer.state.z], x: [...explorer.state.decoded], y: explorer.state.y})")
    return torch.tensor(found["z"]).float(), torch.tensor(found["x"]).float(), found["y"]


def decodes_as(page, model):
    """What is looked at, z, which is decoded as torch does."""
    z, x, y = settle(page)
    with torch.no_grad():
        expected = model.decode(z[None], torch.tensor([y])).mean.flatten()
    torch.testing.assert_close(x, expected, **TOLERANCE)
    return z


def click(page, x, y):
    box = page.locator("#scatter").bounding_box()
    page.mouse.click(box["x"] + x * box["width"], box["y"] + y * box["height"])


def dot(page, row):
    """Where on the map a row is, from 0 to 1."""
    page.locator("#scatter").focus()
    return page.evaluate(
        "(row) => { const box = document.getElementById('scatter').getBoundingClientRect();"
        " const [x, y] = explorer.screen(row); return [x / box.width, y / box.height]; }",
        row,
    )


@pytest.fixture(scope="module")
def page_file(small_run, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "a page.html"
    result = explorer.explore(small_run("trained"), output=path)
    assert result.paths == [path]
    return path


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_points_sliders_walks_and_draws_decode_as_torch_does(page_file, small_run, chrome, scheme):
    run = small_run("trained")
    model, images = vaelab.load(run), opened(run).experiment.data.splits.test
    with torch.no_grad():
        q = model.encode(images.x)
    order = kl_per_dimension(q, model.prior()).mean(0).argsort(descending=True).tolist()
    with page_of(chrome, page_file, scheme) as page:
        assert [f"z{j}" for j in order] == page.locator("#sliders label > span:first-child").all_inner_texts()
        assert decodes_as(page, model).abs().max() == 0

        click(page, *dot(page, 17))  # an image
        torch.testing.assert_close(decodes_as(page, model), q.mean[17], **TOLERANCE)
        assert page.inner_text("#status") == f"image 17, label {images.labels[17]}"
        assert page.locator("#original").is_visible()
        page.mouse.move(5, 5)
        assert page.locator("#tip").is_hidden()
        box, (x, y) = page.locator("#scatter").bounding_box(), dot(page, 3)
        page.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"])
        assert page.inner_text("#tip").strip() == f"3: {images.labels[3]}"
        page.locator("#from").click()

        click(page, 0.03, 0.05)  # a point of the plane
        b = decodes_as(page, model)
        assert page.inner_text("#status").startswith("point ")
        page.locator("#to").click()
        page.locator("#strip").wait_for()
        a = q.mean[17]
        page.locator("#t").fill("0.25")
        torch.testing.assert_close(decodes_as(page, model), line(a, b, 5)[1], **TOLERANCE)
        page.locator("#arc").check()
        torch.testing.assert_close(decodes_as(page, model), arc(a, b, 5)[1], **TOLERANCE)

        page.locator("#draw").click()
        first = decodes_as(page, model)
        page.locator("#draw").click()
        assert not decodes_as(page, model).equal(first)

        before = decodes_as(page, model)
        page.locator("#sliders input").first.focus()
        page.keyboard.press("ArrowRight")
        changed = (decodes_as(page, model) - before).abs() > 1e-6
        assert changed.nonzero().flatten().tolist() == [order[0]]
        page.locator("#reset").click()
        assert decodes_as(page, model).abs().max() == 0

        page.locator("#legend button").first.click()
        assert page.locator("#legend button").first.get_attribute("aria-pressed") == "false"


@pytest.mark.slow
def test_the_page_is_used_by_keyboard_alone(page_file, small_run, chrome):
    model = vaelab.load(small_run("trained"))
    with page_of(chrome, page_file) as page:
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.id") == "scatter"
        page.keyboard.press("Enter")
        decodes_as(page, model)
        assert page.inner_text("#status").startswith("image ")
        page.keyboard.press("a")
        page.keyboard.press("Shift+ArrowRight")
        assert page.inner_text("#status").startswith("image ")
        page.keyboard.press("ArrowUp")
        end = decodes_as(page, model)
        assert page.inner_text("#status").startswith("point ")
        page.keyboard.press("b")
        page.locator("#strip").wait_for()
        page.keyboard.press("p")
        assert page.inner_text("#status") == "draw 1 from the prior"
        decodes_as(page, model)
        for _ in range(60):
            page.keyboard.press("Tab")
            if page.evaluate("document.activeElement.id") == "t":
                break
        page.keyboard.press("End")
        torch.testing.assert_close(decodes_as(page, model), end, **TOLERANCE)


@pytest.mark.slow
def test_an_image_of_ones_own_is_encoded_as_reconstruct_takes_it(page_file, small_run, chrome, tmp_path):
    model, generator = vaelab.load(small_run("trained")), np.random.default_rng(0)
    Image.fromarray(generator.integers(0, 256, (8, 8), dtype=np.uint8)).save(tmp_path / "exact.png")
    Image.fromarray(generator.integers(0, 256, (31, 20, 3), dtype=np.uint8)).save(tmp_path / "photo.png")
    (tmp_path / "text.png").write_text("no image")
    with page_of(chrome, page_file) as page:
        for name, close in (("exact.png", 1e-4), ("photo.png", 2e-3)):
            for invert in (False, True):
                page.locator("#invert").set_checked(invert)
                page.locator("#file").set_input_files(tmp_path / name)
                page.get_by_text(f"{name}, encoded").wait_for()
                z = decodes_as(page, model)
                x = read_images([tmp_path / name], (1, 8, 8), invert=invert).images
                with torch.no_grad():
                    torch.testing.assert_close(z, model.encode(x).mean[0], atol=close, rtol=0)
                page.locator("#draw").click()
        page.locator("#file").set_input_files(tmp_path / "text.png")
        page.get_by_text("text.png is no image").wait_for()
        data = page.evaluate_handle(
            "(bytes) => { const data = new DataTransfer();"
            " data.items.add(new File([new Uint8Array(bytes)], 'dropped.png', {type: 'image/png'})); return data; }",
            list((tmp_path / "exact.png").read_bytes()),
        )
        page.dispatch_event("body", "drop", {"dataTransfer": data})
        page.get_by_text("dropped.png, encoded").wait_for()


def untrained(folder, *overrides):
    """The folder of a run that has weights, those that it begins with."""
    folder.mkdir()
    run = RunFolder(folder)
    run.write_config(vaelab.compose(["data=digits", *overrides]))
    write_weights(folder / "model.safetensors", check(run.config).model(), {"step": "0"})
    return folder


@pytest.mark.slow
def test_a_conditional_model_has_a_selector_of_labels(tmp_path, chrome):
    run = untrained(tmp_path / "run", "model=conditional_vae", "latent_dim=2")
    explorer.explore(run, output=tmp_path / "page.html")
    model, images = vaelab.load(run), opened(run).experiment.data.splits.test
    with page_of(chrome, tmp_path / "page.html") as page:
        page.locator("#label").select_option("7")
        decodes_as(page, model)
        assert settle(page)[2] == 7
        click(page, *dot(page, 4))
        assert settle(page)[2] == images.labels[4]
        decodes_as(page, model)


@pytest.mark.slow
def test_on_the_sphere_one_walks_and_codes_are_taken_as_they_are(tmp_path, chrome):
    sphere = untrained(tmp_path / "sphere", "model=hyperspherical_vae", "latent_dim=3")
    codes = untrained(tmp_path / "codes", "model=vq_vae", "latent_dim=4")
    explorer.explore(sphere, output=tmp_path / "sphere.html")
    result = explorer.explore(codes, output=tmp_path / "codes.html", beside=True)
    assert {path.name for path in result.paths} >= {"codes.html", "wasm.js", "encoder.js", "decoder.js"}
    assert (tmp_path / "codes.html").stat().st_size < 300_000
    with page_of(chrome, tmp_path / "sphere.html") as page:
        model = vaelab.load(sphere)
        assert page.locator("#sliders").count() == 0
        click(page, 0.1, 0.1)
        assert decodes_as(page, model).norm() == pytest.approx(1, abs=1e-5)
        page.locator("#from").click()
        click(page, 0.9, 0.6)
        settle(page)
        page.locator("#to").click()
        page.locator("#t").fill("0.5")
        assert decodes_as(page, model).norm() == pytest.approx(1, abs=1e-5)
    with page_of(chrome, tmp_path / "codes.html") as page:
        model = vaelab.load(codes)
        assert page.locator("#sliders, #walk").count() == 0
        click(page, 0.02, 0.02)
        settle(page)
        assert page.inner_text("#status").startswith("image ")
        decodes_as(page, model)
        page.locator("#draw").click()
        decodes_as(page, model)


def test_the_runtime_is_that_of_the_npm_package():
    folder = explorer.HERE / "onnxruntime_web"
    sums = json.loads((folder / "about.json").read_text())["sha256"]
    packed = (folder / "ort-wasm-simd-threaded.wasm.xz").read_bytes()
    found = {
        "ort.wasm.bundle.min.mjs": (folder / "ort.wasm.bundle.min.mjs").read_bytes(),
        "ort-wasm-simd-threaded.wasm": lzma.decompress(packed),
    }
    assert {name: hashlib.sha256(content).hexdigest() for name, content in found.items()} == sums


def test_a_mistake_is_one_line_and_leaves_nothing_behind(small_run, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(small_run("vae"), "vae")
    (tmp_path / "old.html").touch()
    (tmp_path / "folder.html").mkdir()
    monkeypatch.setattr(explorer, "MOST_INLINE", 100_000)
    before = sorted(tmp_path.rglob("*"))
    mistakes = {
        "explore nowhere": "nowhere is not a run folder",
        "explore vae -o page.png": "--output page.png: explore writes a page, name.html",
        "explore vae -o old.html": "old.html is there already: --force",
        "explore vae -o folder.html": "--output folder.html is a folder",
        "explore vae -o page.html": "MB: --beside puts them into page_files/ beside page.html",
        "explore vae -o page.html --beside --split tst": "did you mean test?",
    }
    for command, words in mistakes.items():
        with pytest.raises(SystemExit) as end:
            main(command.split())
        printed = capsys.readouterr()
        assert end.value.code == 2
        assert words in " ".join(printed.err.split()), command
        assert printed.err.count("error: ") == 1
    assert sorted(tmp_path.rglob("*")) == before
