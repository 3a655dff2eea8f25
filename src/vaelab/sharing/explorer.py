"""`vaelab explore`: a page in which a trained model runs, without a server and without a network.

Encoder and decoder are in it as ONNX, run by ONNX Runtime for the web, whose WebAssembly is in it, too. They take and
give numbers in the units that the model was trained in; a row is shown by where its numbers lie in the range of the
training rows.
"""

import base64
import gzip
import json
import lzma
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup
from torch import Tensor

from vaelab import figures
from vaelab.data import Form, Images, rows_at_once
from vaelab.errors import RunError, unwritten
from vaelab.files import replacing
from vaelab.looking.codes import codes_of, information, scale_of
from vaelab.looking.embedding import projection, umap_points
from vaelab.looking.load import Trained, opened
from vaelab.metrics.subject import split_images
from vaelab.models.latents import changing, fitted_gaussian
from vaelab.pages import embedded_json, source_hash
from vaelab.runs.locate import folder_of
from vaelab.seeding import derive_seed
from vaelab.sharing.export import networks
from vaelab.sharing.formats import FORMATS

if TYPE_CHECKING:
    from vaelab.runs.run import Run

HERE = Path(__file__).parent
MOST_INLINE = 64 << 20  # bytes of encoder and decoder that a page holds
MOST_ROWS = 16 << 20  # bytes of codes and small pictures
MOST_DRAWS, DRAWN_NUMBERS = 1024, 2**20  # draws from the prior, and numbers that they have at most
SLIDERS = 3.0  # standard deviations to both sides of the mean


class Written(NamedTuple):
    """The page, the files beside it, and what is to be said of it."""

    paths: list[Path]
    notes: list[str]


class Draws(NamedTuple):
    """Latents (K, Z) to begin with, and where they come from; none, and why."""

    z: Tensor
    source: str


def explore(
    run: "Run | str | Path",
    *,
    split: str = "test",
    umap: bool = False,
    beside: bool = False,
    seed: int | None = None,
    output: Path | None = None,
    force: bool = False,
    trust: Sequence[str] = (),
) -> Written:
    """Write a page that shows the codes of a split, decodes any other, and encodes images that are dropped onto it.

    Args:
        run: the run, its folder or a checkpoint.
        split: whose codes are shown: train, validation or test.
        umap: place them by UMAP (McInnes et al. 2018) instead of two principal components.
        beside: put encoder, decoder and data into scripts beside the page.
        seed: of the draws from the prior and of UMAP; by default the run's.
        output: the .html file; by default figures/explore.html of the run.
        force: replace it.
        trust: packages of one's own whose classes the config may name.

    Raises:
        RunError: the model is too large for a page, cannot be exported, or the file is in the way.
        DataError: the data are missing.
    """
    path = Path(output) if output is not None else folder_of(run).figures / "explore.html"
    files = path.with_name(f"{path.stem}_files")
    if path.suffix.lower() not in (".html", ".htm"):
        raise RunError(f"--output {path}: explore writes a page, name.html")
    if path.is_dir():
        raise RunError(f"--output {path} is a folder: name a file in it")
    if taken := [found for found in (path, *([files] if beside else [])) if found.exists() and not force]:
        raise RunError(f"{taken[0]} is there already: --force replaces it, --output writes elsewhere")
    FORMATS["onnx"].require()
    trained = opened(run, trust=trust)
    _require_small(trained, path, beside=beside)
    images = split_images(trained.experiment.data, split)
    contents, notes = networks(trained, "onnx", ["encoder", "decoder"], data_units=False)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(derive_seed(trained.experiment.seed if seed is None else seed, "figures"))
        about, arrays = _content(trained, images, split, umap_seed=_umap_seed(trained, seed) if umap else None)
    if about["left_out"]:
        notes.append(about["left_out"])
    parts = {name: _packed(content) for name, content in {**_runtime(), **contents, **arrays}.items()}
    page = _rendered(trained, about, parts, files.name if beside else None)
    scripts = {
        files / f"{name}.js": f"(globalThis.parts ??= {{}}).{name} = {json.dumps(text)};\n"
        for name, text in parts.items()
    }
    texts = {**(scripts if beside else {}), path: page}  # the page last: it is whole when it is there
    for file, text in texts.items():
        try:
            with replacing(file) as temporary:
                temporary.write_text(text, encoding="utf-8")
        except OSError as error:
            raise unwritten(file, error) from error
    return Written([path, *(scripts if beside else {})], notes)


def _umap_seed(trained: Trained, seed: int | None) -> int:
    return trained.experiment.seed if seed is None else seed


def _require_small(trained: Trained, path: Path, *, beside: bool) -> None:
    model = trained.model
    size = sum(value.nbytes for part in (model.encoder, model.posterior, model.decoder) for value in part.parameters())
    if size > MOST_INLINE and not beside:
        raise RunError(
            f"encoder and decoder take {size / 1e6:,.0f} MB, and a page holds {MOST_INLINE / 1e6:,.0f} MB: --beside "
            f"puts them into {path.stem}_files/ beside {path.name}"
        )


def _content(
    trained: Trained, images: Images, split: str, *, umap_seed: int | None
) -> tuple[dict[str, Any], dict[str, bytes]]:
    """What the page says of the model, and the arrays that it draws."""
    model, form = trained.model, trained.experiment.data.form
    latents = model.posterior.latent_dim
    shown = _small(images.first(1).x, form)
    most = max(1, MOST_ROWS // (4 * latents + shown[0].numel()))
    rows = _evenly(images, most)
    left_out = f"{len(rows)} of {len(images)} {split} {form.noun} are shown" if len(rows) < len(images) else ""
    z = codes_of(model, rows, rows.labels)
    weights, by, unit = information(model, rows, rows.labels, z)
    centre, spread, _ = scale_of(model, z)
    draws = _draws(trained, z)
    points, plane = _plane(z.numpy(), umap_seed)
    order = weights.argsort(descending=True, stable=True)
    if model.space == "real vectors":
        order = order[_seen(trained, centre, spread)[order]]
    low, high = z.amin(0).minimum(centre - SLIDERS * spread), z.amax(0).maximum(centre + SLIDERS * spread)
    small = torch.cat([_small(part.x, form) for part in _parts(rows)])
    about = {
        "name": trained.experiment.name,
        "rows": len(rows),
        "what": f"{split} {form.noun}",
        "noun": form.noun[:-1],
        "left_out": left_out,
        "shape": list(form.shape),
        "small": list(small.shape[1:]),
        "range": list(form.span),
        "pixels": form.is_image and form.values == "levels" and form.shape[0] in (1, 3),
        "binary": trained.experiment.data.binarize != "none",
        "columns": list(form.columns),
        "classes": list(form.names),
        "labels": rows.labels.tolist() if form.names else [],
        "conditional": model.classes is not None,
        "space": model.space,
        "latents": latents,
        "dimensions": [
            {"number": j, "weight": weights[j].item(), "low": low[j].item(), "high": high[j].item()}
            for j in (order.tolist() if model.space == "real vectors" else [])
        ],
        "by": f"{by}{unit and f', in{unit}'}",
        "centre": centre.tolist() if model.space == "real vectors" else z[0].tolist(),
        "plane": plane,
        "draws": len(draws.z),
        "source": draws.source,
    }
    arrays = {
        "codes": z.float().numpy().astype("<f4").tobytes(),
        "points": points.astype("<f4").tobytes(),
        "rows": (small * 255).round().to(torch.uint8).numpy().tobytes(),
        "draws": draws.z.float().numpy().astype("<f4").tobytes(),
    }
    return about, arrays


def _plane(z: np.ndarray, umap_seed: int | None) -> tuple[np.ndarray, dict[str, Any]]:
    """Where codes (N, Z) are shown, (N, 2), and the axes; with the way back where the plane is one of the latents."""
    if umap_seed is not None:
        points, axes = umap_points(z, umap_seed)
        return points, {"axes": axes, "centre": None, "directions": None}
    if z.shape[1] == 1:
        z = np.column_stack([z, np.zeros_like(z)])
        return z, {"axes": ("z0", ""), "centre": [0.0], "directions": [[1.0], [0.0]]}
    found = projection(z)
    plane = {"axes": found.axes, "centre": found.centre.tolist(), "directions": found.directions.tolist()}
    return found.points(z), plane


def _draws(trained: Trained, codes: Tensor) -> Draws:
    """Latents from the prior or, of a model without one, from a Gaussian fitted to codes (N, Z)."""
    model, latents = trained.model, codes.shape[1]
    count = torch.Size([max(1, min(MOST_DRAWS, DRAWN_NUMBERS // latents))])
    if model.prior is not None:
        return Draws(model.prior().sample(count), "from the prior")
    if model.space == "real vectors":
        return Draws(fitted_gaussian(codes).sample(count), "from a Gaussian fitted to these codes")
    return Draws(codes.new_zeros(0, latents), "this model has no prior")


def _seen(trained: Trained, centre: Tensor, spread: Tensor) -> Tensor:
    """Which dimensions the decoder sees, (Z,): of a hierarchy those of the first layer alone."""
    model = trained.model
    if not model.posterior.layers:
        return torch.ones(len(centre), dtype=torch.bool)
    ends = centre[:, None] + spread[:, None] * torch.tensor([-1.0, 1.0])
    return changing(model.traverse(centre, ends, torch.zeros(1, dtype=torch.int64)))


def _evenly(images: Images, most: int) -> Images:
    if len(images) <= most:
        return images
    return images.take(torch.linspace(0, len(images) - 1, most).long().to(images.store.device))


def _parts(images: Images) -> list[Images]:
    """A few at a time."""
    size = rows_at_once(images.shape)
    return [images.take(torch.arange(start, min(start + size, len(images)))) for start in range(0, len(images), size)]


def _small(x: Tensor, form: Form) -> Tensor:
    """Rows as small pictures of themselves in [0, 1]: images (N, 1 or 3, H, W), others (N, *event)."""
    low, high = form.span
    values = ((x - low) / max(high - low, 1e-12)).clamp(0, 1)
    return figures.thumbnails(figures.drawable(values)) if form.is_image else values


def _runtime() -> dict[str, bytes]:
    """The WebAssembly of ONNX Runtime."""
    return {"wasm": lzma.decompress((HERE / "onnxruntime_web" / "ort-wasm-simd-threaded.wasm.xz").read_bytes())}


def _script_of_runtime() -> str:
    """ONNX Runtime's script, whose exports become a global: a page without a server has nothing to import from."""
    text = (HERE / "onnxruntime_web" / "ort.wasm.bundle.min.mjs").read_text(encoding="utf-8")
    start, end = text.rindex("export{"), text.rindex("}")
    names = (pair.split(" as ") for pair in text[start + len("export{") : end].split(","))
    return text[:start] + f"globalThis.ort={{{','.join(f'{public}:{own}' for own, public in names)}}};"


def _packed(content: bytes) -> str:
    return base64.b64encode(gzip.compress(content, 6, mtime=0)).decode()


def _rendered(trained: Trained, about: Mapping[str, Any], parts: Mapping[str, str], files: str | None) -> str:
    style, script = ((HERE / f"explorer.{kind}").read_text(encoding="utf-8") for kind in ("css", "js"))
    runtime = _script_of_runtime()
    sources = [source_hash(runtime), source_hash(script), "'wasm-unsafe-eval'"]
    sources += [] if files is None else ["'self'", "file:"]
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string((HERE / "explorer.html.jinja").read_text(encoding="utf-8")).render(
        about=about,
        step=trained.step,
        runtime_license=(HERE / "onnxruntime_web" / "LICENSE").read_text(encoding="utf-8"),
        data=Markup(embedded_json(about)),
        parts=parts,
        files=files,
        style=Markup(style),
        runtime=Markup(runtime),
        script=Markup(script),
        policy=f"default-src 'none'; img-src blob: data:; style-src {source_hash(style)}; "
        f"script-src {' '.join(sources)}",
    )
