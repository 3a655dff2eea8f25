"""Train every preset on 5,000 digits, draw what it reconstructs and samples, and write the site's gallery.

python scripts/gallery.py                 # all presets, about a quarter of an hour on one thread
python scripts/gallery.py vae iwae        # these pictures; the page is of all that have one
"""

import argparse
import tempfile
from pathlib import Path

import torch
from PIL import Image

import vaelab
from vaelab import figures
from vaelab.config.conf import options
from vaelab.looking.load import opened
from vaelab.metrics.subject import split_images
from vaelab.models.latents import fitted_gaussian

DOCS = Path(__file__).parents[1] / "docs"
PICTURES = DOCS / "images" / "gallery"
# Digits are grey, and the weights of the perceptual term's network would be downloaded.
GREY = ["objective.terms.perceptual=null", "objective.terms.adversary.start=100"]
OWN = {"kl_autoencoder": GREY, "vqgan": GREY}
HEAD = """# Gallery

<!-- made by scripts/gallery.py -->

Every preset after 30 epochs, or 6 of convolutions, on the 5,000 digits that come with a dependency: seconds to a few
minutes of one thread, far from what the models reach ([results.md](results.md)). Each picture has ten test digits,
their reconstructions, and ten samples: from the prior or, where a model has none, from a Gaussian fitted to its codes.
Formulas and papers: [models.md](models.md).
"""


def overrides(preset: str) -> list[str]:
    """What trains a preset for its picture."""
    given = [f"model={preset}", "data=mnist_5k", *OWN.get(preset, [])]
    epochs = 30 if "MLP" in vaelab.compose(given).encoder._target_ else 6
    return [*given, f"trainer.max_epochs={epochs}"]


def picture(preset: str) -> None:
    """Train a preset and draw test digits, reconstructions and samples, one row each."""
    silent = ["callbacks.pictures=null", "callbacks.progress_bar=null", "logger=[]", "trainer=cpu", "threads=1"]
    with tempfile.TemporaryDirectory() as folder:
        run = vaelab.train(vaelab.compose([*overrides(preset), *silent]), folder=Path(folder) / "run")
        trained = opened(run)
    model = trained.model
    few = split_images(trained.experiment.data, "test").take(torch.arange(10))
    labels = few.labels if model.classes else None
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        prior = None
        if model.prior is None:
            train = split_images(trained.experiment.data, "train")
            prior = fitted_gaussian(model.encode(train.x, train.labels if model.classes else None).mean)
        rows = [few.x, model.reconstruct(few.x, labels), model.sample(10, prior=prior)]
    PICTURES.mkdir(parents=True, exist_ok=True)
    tiled = figures.enlarged(figures.tile(torch.cat(rows), 10), 600)
    Image.fromarray(tiled).save(PICTURES / f"{preset}.png", optimize=True)


def page() -> str:
    """The page, with a section for each preset that has a picture."""
    sections = [
        f"## {preset}\n\n```bash\nvaelab train {' '.join(overrides(preset))}\n```\n\n"
        f"![digits, their reconstructions, and samples of {preset}](images/gallery/{preset}.png)\n"
        for preset in options("model")
        if (PICTURES / f"{preset}.png").is_file()
    ]
    return "\n".join([HEAD, *sections])


def main() -> None:
    """Draw the pictures that are asked for, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("presets", nargs="*", help="by default all")
    for preset in parser.parse_args().presets or options("model"):
        print(preset, flush=True)
        picture(preset)
    (DOCS / "gallery.md").write_text(page())


if __name__ == "__main__":
    main()
