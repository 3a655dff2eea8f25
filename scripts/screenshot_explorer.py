"""Train a small run, write its page, and picture it in a headless browser.

    python scripts/screenshot_explorer.py
    python scripts/screenshot_explorer.py --output docs/images

Needs Chromium and what `pip install "vaelab[test]"` brings. Takes about a minute.
"""

import argparse
import tempfile
from pathlib import Path

from screenshots import browser

import vaelab
from vaelab.sharing.explorer import explore

RUN = ["experiment=quickstart", "callbacks.progress_bar=null"]


def main() -> None:
    """Write explore.png."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("docs/images"))
    output = parser.parse_args().output
    with tempfile.TemporaryDirectory() as folder, browser() as opened:
        page_file = Path(folder, "page.html").resolve()
        explore(vaelab.train(vaelab.compose(RUN), folder=Path(folder, "run")), output=page_file)
        page = opened.new_page(color_scheme="light", viewport={"width": 1100, "height": 860})
        page.goto(page_file.as_uri())
        page.locator("body[data-ready]").wait_for()
        box = page.locator("#scatter").bounding_box()
        assert box is not None
        for x, y, button in ((0.35, 0.35, "#from"), (0.6, 0.65, "#to")):
            page.mouse.click(box["x"] + x * box["width"], box["y"] + y * box["height"])
            page.evaluate("explorer.idle()")
            page.locator(button).click()
        page.locator("#strip").wait_for()
        page.mouse.move(box["x"] + 0.5 * box["width"], box["y"] + 0.3 * box["height"])
        page.screenshot(path=output / "explore.png")


if __name__ == "__main__":
    main()
