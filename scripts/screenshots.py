"""Train four small runs, open TensorBoard on them in a headless browser, and picture its dashboards.

    python scripts/screenshots.py
    python scripts/screenshots.py --output docs/images

Needs Chromium (on Debian: apt-get install chromium) and the package playwright, which `pip install "vaelab[test]"`
brings. Takes about two minutes.
"""

import argparse
import io
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

import vaelab

COMMON = ["data=mnist_5k", "trainer=cpu", "callbacks.progress_bar=null"]
RUNS = {
    "vae": ["model=annealed_vae", "objective.kl_weight.steps=400", "latent_dim=10", "trainer.max_epochs=20"],
    "vae_plane": ["model=vae", "latent_dim=2", "trainer.max_epochs=20"],
    "beta_vae": ["model=beta_vae", "latent_dim=10", "trainer.max_epochs=10"],
    "ae": ["model=ae", "latent_dim=10", "trainer.max_epochs=10"],
}
SETTINGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]


def chromium() -> str | None:
    """Where Debian's Chromium, or another one, is."""
    return next(filter(None, map(shutil.which, ["chromium", "chromium-browser", "google-chrome"])), None)


@contextmanager
def tensorboard(folder: Path) -> Iterator[str]:
    """A TensorBoard over `folder`: its address, once it answers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(folder), "--port", str(port)]
    with tempfile.TemporaryFile() as output:
        server = subprocess.Popen([*command, "--load_fast=false"], stdout=output, stderr=output)
        try:
            address = f"http://127.0.0.1:{port}"
            while True:
                try:
                    urllib.request.urlopen(f"{address}/data/environment", timeout=5).close()
                    break
                except OSError:
                    if server.poll() is not None:
                        output.seek(0)
                        raise RuntimeError(f"TensorBoard ended: {output.read().decode()}") from None
                    time.sleep(0.2)
            yield address
        finally:
            server.terminate()
            server.wait()


@contextmanager
def browser() -> Iterator[Browser]:
    """A headless Chromium."""
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=chromium(), args=SETTINGS)
        yield opened
        opened.close()


def picture(page: Page, path: Path) -> None:
    """The page as a PNG of 256 colours."""
    image = Image.open(io.BytesIO(page.screenshot()))
    image.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(path, optimize=True)
    print(f"{path} ({path.stat().st_size / 1000:.0f} kB)")


def main(output: Path) -> None:
    """Train, serve, picture."""
    with tempfile.TemporaryDirectory() as temporary:
        for name, overrides in RUNS.items():
            sys.argv = ["vaelab", "train", *COMMON, *overrides, f"name={name}"]  # what the text dashboard shows
            vaelab.train(vaelab.compose(sys.argv[2:]), folder=Path(temporary, name))
        with tensorboard(Path(temporary)) as address, browser() as chrome:
            page = chrome.new_page(viewport={"width": 1280, "height": 760})
            for name in ["scalars", "custom_scalars", "images", "histograms", "text", "projector", "hparams"]:
                page.goto(f"{address}/#{name}")
                page.reload()
                page.wait_for_timeout(8000)
                if name == "scalars":
                    page.locator("tf-tag-filterer input").fill("kl_weight|images_per_second|active_units|train/kl$")
                    page.wait_for_timeout(4000)
                picture(page, output / f"tensorboard_{name}.png")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("docs", "images"))
    main(parser.parse_args().output)
