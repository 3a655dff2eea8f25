"""The card of a model: what a stranger should know of it, made from its run."""

import shlex
from collections.abc import Mapping, Sequence

from vaelab.looking.load import Trained
from vaelab.runs.documents import Manifest
from vaelab.sharing.export import without_place
from vaelab.text import one_line


def card(trained: Trained, repo: str, *, metrics: Mapping[str, float], figures: Sequence[str]) -> str:
    """README.md of a repository: parts, figures, numbers, the command, and how to load it.

    Args:
        trained: the model and its run.
        repo: the repository's name.
        metrics: of the run.
        figures: names of the pictures in the repository.
    """
    experiment, model = trained.experiment, trained.model
    form = experiment.data.form
    kind = "autoencoder" if model.prior is None else "variational autoencoder"
    rows = form.noun
    told = f", conditional on {model.classes} labels" if model.classes is not None else ""
    parts = {
        "encoder": model.encoder,
        "posterior": model.posterior,
        "decoder": model.decoder,
        "likelihood": model.likelihood,
        "prior": model.prior,
    }
    lines = [
        "---",
        "library_name: vaelab",
        f"tags: [vaelab, {kind.replace(' ', '-')}]",
        "---",
        "",
        f"# {experiment.name}",
        "",
        f"A {kind} of {rows} of shape {tuple(form.shape)}, with {model.posterior.latent_dim} latent numbers{told}; "
        f"trained for {trained.step} steps with [vaelab](https://pypi.org/project/vaelab/).",
        "",
        *[f"![{name.removesuffix('.png')}]({name})\n" for name in figures],
        "## Parts",
        "",
        "| part | class |",
        "|---|---|",
        *[f"| {name} | {type(part).__name__ if part is not None else 'none'} |" for name, part in parts.items()],
        "",
        "## Numbers",
        "",
    ]
    if metrics:
        values = [f"| {_cell(name)} | {value:.6g} |" for name, value in metrics.items()]
        lines += ["Terms are in nats a row; `mse` is a pixel's.", "", "| metric | value |", "|---|---|", *values, ""]
    else:
        lines += ["The run has none: it was not finished.", ""]
    if again := command(trained.folder.manifest):
        lines += ["## Train it again", "", "```bash", again, "```", ""]
    lines += [
        "`config.yaml` is the whole config.",
        "",
        "## Use it",
        "",
        "```bash",
        f"vaelab pull {repo} --output model",
        "vaelab evaluate model",
        "```",
        "",
        "```python",
        "import vaelab",
        "",
        'model = vaelab.load("model")',
        "```",
        "",
    ]
    return "\n".join(lines)


def command(manifest: Manifest | None) -> str:
    """The command that trains such a run, without the folders in which things are here; "" where none is known."""
    words = manifest.repeat if manifest is not None else ()
    return one_line(shlex.join(map(without_place, words))).replace("`", "'")


def _cell(text: str) -> str:
    return one_line(text).replace("|", "\\|")
