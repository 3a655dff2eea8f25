"""`vaelab import`: data of one's own as a mapped array."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from vaelab.errors import DataError

commands = typer.Typer()


class Colour(StrEnum):
    """Of images."""

    rgb = "rgb"
    grey = "grey"


class Fit(StrEnum):
    """How images come to one size."""

    crop = "crop"
    pad = "pad"
    stretch = "stretch"


class Damaged(StrEnum):
    """What is done about images that cannot be read."""

    refuse = "refuse"
    skip = "skip"


@commands.command("import")
def import_data(
    source: Annotated[
        str,
        typer.Argument(
            help="A folder of images; an .npy, .npz or HDF5 file; of Hugging Face, hf:NAME of a dataset, a folder that "
            "save_to_disk wrote, or a .parquet of images.",
            show_default=False,
        ),
    ],
    folder: Annotated[Path, typer.Argument(help="A new folder, for data=array data.root=FOLDER.", show_default=False)],
    size: Annotated[
        str | None, typer.Option(help="Of images: 64, or 48,64 for height and width; by default all have the same.")
    ] = None,
    colour: Annotated[Colour, typer.Option(help="Of images.")] = Colour.rgb,
    fit: Annotated[Fit, typer.Option(help="Scale images of another shape after cropping or padding.")] = Fit.crop,
    damaged: Annotated[Damaged, typer.Option(help="Images that cannot be read.")] = Damaged.refuse,
    key: Annotated[str | None, typer.Option(help="The array or the column of the rows.")] = None,
    labels: Annotated[
        str | None, typer.Option(help="The array or the column of the labels; of an .npy, another .npy.")
    ] = None,
) -> None:
    """Copy data into a folder as a mapped array, once; an interrupted import is resumed by the same command."""
    from vaelab.data import array_import, huggingface_import
    from vaelab.data.image_files import key_of, recipe_for
    from vaelab.data.importing import import_folder

    target, path = folder.expanduser(), Path(source).expanduser()
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise DataError(f"{folder} is there already: name a new folder")
    sides = _sides(size)
    if huggingface_import.is_dataset(source if source.startswith(huggingface_import.PREFIX) else str(path)):
        huggingface_import.import_dataset(
            source if source.startswith(huggingface_import.PREFIX) else str(path),
            target,
            size=sides,
            colour=colour.value,
            fit=fit.value,
            damaged=damaged.value,
            key=key,
            labels=labels,
        )
    elif path.suffix.lower() in array_import.SUFFIXES and not path.is_dir():
        array_import.import_array(path, target, key, labels)
    else:
        if key or labels:
            raise DataError(f"--key and --labels name arrays or columns, and {source} is a folder of images")
        recipe = recipe_for(path, sides, colour.value, fit.value)
        import_folder(path, target, recipe, damaged.value, key_of(path, recipe, damaged.value))
    typer.echo(f"{folder}: vaelab train data=array data.root={folder}")


def _sides(size: str | None) -> int | tuple[int, int] | None:
    """A side, or height and width.

    Raises:
        DataError: it is something else.
    """
    if size is None:
        return None
    parts = size.split(",")
    if len(parts) > 2 or not all(part.isdecimal() and 0 < int(part) <= 16384 for part in parts):
        raise DataError(f"--size {size}: a side of 1 to 16384 pixels, or height,width")
    return int(parts[0]) if len(parts) == 1 else (int(parts[0]), int(parts[1]))
