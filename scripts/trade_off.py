"""Train what asks for independent codes at several weights each, and draw total correlation over reconstruction error.

    python scripts/trade_off.py
    python scripts/trade_off.py --root ../data --epochs 2 --output trade_off.png

Writes trade_off.json beside the picture. The runs stay in --runs, where the same command goes on with them. With 5
epochs it takes a quarter of an hour on two cores.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import torch
from matplotlib.figure import Figure

from vaelab.files import replacing
from vaelab.looking.load import opened
from vaelab.metrics.latents import gaussian_total_correlation
from vaelab.runs.documents import write_text

COMMON = ["data=mnist", "loss=mse", "latent_dim=10", "hydra/launcher=joblib"]
COMMON += [f"callbacks.{name}=null" for name in ("pictures", "progress_bar")]
FAMILIES = {
    "beta-VAE": ["model=beta_vae", "objective.kl_weight=1,2,4,8,16"],
    "beta-TCVAE": ["model=beta_tcvae", "objective.terms.total_correlation.weight=1,3,7,15,31"],
    "FactorVAE": ["model=factor_vae", "objective.discriminator.hidden=[256,256]", "objective.tc_weight=1,3,7,15,31"],
    "WAE": ["model=wae_mmd", "objective.terms.mmd.weight=5,50,500,5000,50000"],
    "RAE": ["model=rae_l2", "objective.terms.code_norm.weight=0.05,0.5,5,20,80"],
}


class Run(NamedTuple):
    """A run's weight, and what came of it on the test images."""

    family: str
    weight: float
    total_correlation: float
    mse: float
    elbo: float | None


def main(root: str, runs: Path, epochs: int, output: Path) -> None:
    """Train, evaluate, draw."""
    found = []
    for family, words in FAMILIES.items():
        sweep = runs / family
        overrides = [*COMMON, *words, f"data.root={root}", f"trainer.max_epochs={epochs}", f"hydra.sweep.dir={sweep}"]
        command = ["resume", str(sweep)] if (sweep / "sweep.json").exists() else ["train", "-m", *overrides]
        subprocess.run([sys.executable, "-m", "vaelab", *command], check=True)
        axis = words[-1].partition("=")[0]
        jobs = sorted(
            json.loads((sweep / "sweep.json").read_text())["jobs"], key=lambda job: float(job["parameters"][axis])
        )
        found += [evaluated(family, float(job["parameters"][axis]), sweep / job["folder"]) for job in jobs]
    write_text(output.with_suffix(".json"), json.dumps([run._asdict() for run in found], indent=2) + "\n")
    draw(found, output)


@torch.no_grad()
def evaluated(family: str, weight: float, folder: Path) -> Run:
    """Of codes z ~ q(z|x) of all test images, and of reconstructions of the means."""
    trained = opened(folder)
    images = trained.experiment.data.splits.test.to(torch.device("cpu"))
    torch.manual_seed(0)
    codes = torch.cat([trained.model.encode(chunk / 255).sample() for chunk in images.chunks()])
    metrics = json.loads((folder / "metrics.json").read_text())
    return Run(family, weight, gaussian_total_correlation(codes), metrics["test/mse"], metrics.get("test/elbo"))


def draw(runs: list[Run], output: Path) -> None:
    """A line for each family, from one weight to the next."""
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    for family in FAMILIES:
        own = [run for run in runs if run.family == family]
        mse, correlation = [run.mse for run in own], [run.total_correlation for run in own]
        label = f"{family}, {own[0].weight:g} to {own[-1].weight:g}"
        axes.plot(mse, correlation, "o-", label=label, markersize=4)
    axes.set(xlabel="test MSE, per pixel", ylabel="Gaussian total correlation of codes, nats", yscale="log")
    axes.set_title("MNIST, 10 dimensions: a dot a weight, which grows to the right", fontsize=10)
    axes.legend(frameon=False)
    with replacing(output) as temporary:
        figure.savefig(temporary, format="png", dpi=110)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", default="data", help="where the images are")
    parser.add_argument("--runs", type=Path, default=Path("outputs", "trade_off"))
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--output", type=Path, default=Path("docs", "images", "trade_off.png"))
    arguments = parser.parse_args()
    main(arguments.root, arguments.runs, arguments.epochs, arguments.output)
