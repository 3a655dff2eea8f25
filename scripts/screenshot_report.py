"""Train a sweep over the weight of the KL and the latent dimension, report on it, and picture the page.

    python scripts/screenshot_report.py
    python scripts/screenshot_report.py --output docs/images

Needs what scripts/screenshots.py needs. Takes about two minutes.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from screenshots import browser, picture

AXES = ["objective.kl_weight=0.25,1,4", "latent_dim=2,10", "seed=1,2,3"]
SHORT = ["data=mnist_5k", "trainer=cpu", "trainer.max_epochs=8"]


def main(output: Path) -> None:
    """Train, report, picture."""
    with tempfile.TemporaryDirectory() as temporary:
        sweep = Path(temporary, "kl_weight_and_latent_dim")
        vaelab = [sys.executable, "-m", "vaelab"]
        subprocess.run([*vaelab, "train", "-m", *SHORT, *AXES, f"hydra.sweep.dir={sweep}"], check=True)
        subprocess.run([*vaelab, "report", sweep], check=True)
        with browser() as chrome:
            for scheme, top in {"light": "header", "dark": "#parallel"}.items():
                page = chrome.new_page(viewport={"width": 1280, "height": 1120}, color_scheme=scheme)
                page.goto((sweep / "report.html").as_uri())
                page.locator(top).evaluate("part => part.scrollIntoView()")
                picture(page, output / f"report_{scheme}.png")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("docs", "images"))
    main(parser.parse_args().output)
