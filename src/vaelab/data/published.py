"""Datasets that are known by name: read from `root`, and downloaded whole or not at all where they are missing."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

from vaelab.data.images import ImageData
from vaelab.data.own import Root
from vaelab.errors import DataError


@dataclass(kw_only=True, eq=False)
class Published(ImageData, ABC):
    """A dataset in `root`.

    Args:
        root: the folder it is in, or is downloaded to.
    """

    name: ClassVar[str]
    files: ClassVar[tuple[str, ...]]  # of it, in `root`

    root: Root = "data"

    @abstractmethod
    def download(self, folder: Path) -> None:
        """Download `files` into a folder."""

    @property
    def place(self) -> Path:
        """`root`, with ~ as the home it stands for."""
        return Path(self.root).expanduser()

    @property
    def where(self) -> str:
        """What errors call the data."""
        return f"{self.name} in {(self.place / self.files[0]).absolute()} (data.root={self.root})"

    def require(self) -> None:
        """Have the files in `root`.

        Raises:
            DataError: they are not there, and cannot be downloaded or must not be, for a run folder that says where.
        """
        try:
            if self.place.is_file():
                raise DataError(f"{self.root} is a file: data.root is a folder, with {self.files[0]} in it")
            missing = not (self.place / self.files[0]).exists()
        except OSError as error:
            raise DataError(f"{self.where} cannot be read: {error.strerror}") from error
        if missing and not self.fetch:
            raise DataError(
                f"{self.where} is not there, and nothing is downloaded to where a run folder says: put it there, or "
                "change data.root in the run's config.yaml to a folder that has it"
            )
        if missing:
            self._download()

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Say of any error in reading the files that they are damaged.

        Raises:
            DataError: there was one.
        """
        try:
            yield
        except DataError:
            raise
        except PermissionError as error:
            raise DataError(f"{self.where} cannot be read: {error.strerror}") from error
        except Exception as error:
            raise DataError(
                f"{self.where} is incomplete or damaged: {_one_line(error)}. Remove it to fetch it again"
            ) from error

    def _download(self) -> None:
        """Download the dataset as a whole or, where that fails, leave nothing behind."""
        made = [path for path in [self.place, *self.place.parents] if not path.exists()]
        try:
            self.place.mkdir(parents=True, exist_ok=True)
            with TemporaryDirectory(dir=self.place, prefix=".download-") as folder:
                self.download(Path(folder))
                for name in reversed(self.files):  # the first one says that all are there
                    _put(Path(folder) / name, self.place / name)
        except Exception as error:
            raise DataError(
                f"{self.where} is not there and could not be downloaded: {_one_line(error)}. Connect to a network, "
                "point data.root to a folder that has it, or take data=mnist_5k or data=digits, which need none"
            ) from error
        finally:
            for path in made:  # innermost first; what has something in it stays
                with suppress(OSError):
                    path.rmdir()


def of_torchvision(name: str) -> Any:
    """A class of torchvision's datasets, which are slow to import."""
    import torchvision.datasets

    return getattr(torchvision.datasets, name)


def _put(made: Path, place: Path) -> None:
    """Rename a file or a folder into place, where no other process has put one meanwhile."""
    try:
        made.rename(place)
    except OSError:
        if not place.exists():
            raise


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".")
