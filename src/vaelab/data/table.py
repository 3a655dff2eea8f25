"""Rows of a table: numbers as they are, categories as one-hot vectors."""

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from vaelab.data.form import MOST_CLASSES, Form
from vaelab.data.images import Images, Splits
from vaelab.data.own import OwnData, Scale, encoded
from vaelab.data.scaling import Scaling
from vaelab.data.stores import Memory
from vaelab.data.survey import Survey
from vaelab.errors import DataError, did_you_mean

Missing = Literal["refuse", "drop", "mean"]
NOTHING = frozenset(["", "na", "nan", "n/a", "null", "none", "?"])
SEPARATORS = {".csv": ",;\t", ".tsv": "\t", ".txt": "\t,; "}
MOST_VALUES = 100  # of a category
Columns = Mapping[str, np.ndarray]  # name -> float64, NaN where missing, or strings, "" where missing


@dataclass(kw_only=True, eq=False)
class TableData(OwnData):
    """The rows of a CSV or Parquet file `root`.

    A column whose values are all numbers is one number of a row; another one is a category, and as many numbers as it
    has values, one-hot: for `loss=columns`. All numeric columns are taken, unless `columns` names others.

    Args:
        columns: names of columns, in their order; None for all numeric ones.
        label: a column with the labels; it is not part of a row.
        missing: `refuse` rows with missing values, `drop` them, or take the `mean` of a numeric column's training rows.
    """

    scale: Scale = "standardise"
    columns: list[str] | None = None
    label: str | None = None
    missing: Missing = "refuse"

    @property
    def folder(self) -> Path:
        """Where the file is."""
        return self._path.parent

    @property
    def where(self) -> str:
        """The file."""
        return str(self._path)

    def outline(self) -> Form:
        """What the header, and the values of categories, say."""
        names: list[str] = []
        groups: list[int] = []
        for name, values in self._chosen.items():
            categories = _categories(values)
            names += [f"{name}={category}" for category in categories] if categories else [name]
            groups.append(max(1, len(categories)))
        return Form(
            shape=(len(names),), names=self._labels[1], scaling=None, columns=tuple(names), groups=tuple(groups)
        )

    def open(self) -> Images:
        """All rows, in memory."""
        encoded_rows = encode(self._chosen, self.form, self.where, complete=self.missing != "mean")
        return Images(Memory(torch.from_numpy(encoded_rows)), self._labels[0])

    def complete(self, rows: Images, splits: Splits) -> None:
        """Put the mean of the training rows where a number is missing.

        Raises:
            DataError: no training row has one.
        """
        if self.missing != "mean":
            return
        means = splits.train.pixels.nanmean(0)
        if means.isnan().any():
            column = self.form.columns[int(means.isnan().nonzero()[0])]
            raise DataError(f"{self._path}: no training row has a value of the column {column}, so there is no mean")
        values = rows.pixels
        torch.where(values.isnan(), means, values, out=values)

    def _scaling(self, train: Images, survey: Survey) -> Scaling:
        """That of numbers; the zeros and ones of categories stay."""
        scaling = super()._scaling(train, survey)
        if all(size == 1 for size in self.form.groups):
            return scaling
        number = torch.tensor([size == 1 for size in self.form.groups for _ in range(size)])
        shift = torch.as_tensor(scaling.shift, dtype=torch.float64).expand(len(number))
        scale = torch.as_tensor(scaling.scale, dtype=torch.float64).expand(len(number))
        return Scaling(torch.where(number, shift, 0.0), torch.where(number, scale, 1.0))

    @property
    def _path(self) -> Path:
        return Path(self.root).expanduser()

    @cached_property
    def _table(self) -> Columns:
        table = read_table(self._path)
        wanted = [*(self.columns or []), *([self.label] if self.label else [])]
        for name in wanted:
            if name not in table:
                raise DataError(f"{self._path} has no column {name}{did_you_mean(name, table)}")
        if self.columns is not None and len(set(self.columns)) < len(self.columns):
            raise DataError(f"data.columns={self.columns} names a column twice")
        if self.columns is None:
            wanted += [name for name, values in table.items() if values.dtype.kind == "f" and name != self.label]
        if not set(wanted) - {self.label}:
            raise DataError(
                f"{self._path} has no column of numbers: name categories, data.columns=[{next(iter(table))}]"
            )
        return self._complete({name: table[name] for name in dict.fromkeys(wanted)})

    def _complete(self, table: Columns) -> Columns:
        """The columns without missing values.

        Raises:
            DataError: there are some, and `missing` says nothing of them.
        """
        lacking = {name: _missing(values) for name, values in table.items()}
        if not any(missing.any() for missing in lacking.values()):
            return table
        some = [name for name, missing in lacking.items() if missing.any()]
        if self.missing == "refuse":
            name = some[0]
            raise DataError(
                f"{self._path}: {lacking[name].sum()} values of the column {name} are missing, the first in row "
                f"{np.flatnonzero(lacking[name])[0]} (columns with any: {', '.join(some)}): data.missing=drop leaves "
                "such rows out, data.missing=mean takes the column's mean"
            )
        if self.missing == "mean":
            categories = [name for name in some if table[name].dtype.kind != "f"]
            if categories:
                raise DataError(
                    f"{self._path}: values of the category {categories[0]} are missing, which has no mean: "
                    "data.missing=drop"
                )
            return table  # and `complete` goes on
        kept = ~np.logical_or.reduce(list(lacking.values()))
        if not kept.any():
            raise DataError(f"{self._path}: every row has a missing value: name fewer columns, data.columns=[a,b]")
        self.notes.append(f"{(~kept).sum()} of {len(kept)} rows have missing values and are left out")
        return {name: values[kept] for name, values in table.items()}

    @cached_property
    def _chosen(self) -> Columns:
        return {name: values for name, values in self._table.items() if name != self.label}

    @cached_property
    def _labels(self) -> tuple[Tensor, tuple[str, ...]]:
        count = len(next(iter(self._table.values())))
        if self.label is None:
            return torch.zeros(count, dtype=torch.int64), ()
        values = self._table[self.label]
        if values.dtype.kind == "f":
            if (values != np.rint(values)).any():
                raise DataError(
                    f"the column {self.label} of {self._path} has numbers that are not labels, such as "
                    f"{values[values != np.rint(values)][0]:g}"
                )
            values = values.astype(np.int64)
        return encoded(values, f"the column {self.label} of {self._path}", MOST_CLASSES)


def encode(table: Columns, form: Form, where: str, *, complete: bool = True) -> np.ndarray:
    """The rows of a table (N, D), float64, with the columns and categories of a form.

    Args:
        table: of which columns are taken by their names.
        form: says which.
        where: what errors call the table.
        complete: refuse missing numbers, which are NaN otherwise.

    Raises:
        DataError: one is missing, or a category has a value that the form does not know.
    """
    parts, start = [], 0
    for size in form.groups:
        own, start = form.columns[start : start + size], start + size
        name = own[0] if size == 1 and own[0] in table else own[0].rpartition("=")[0]
        if name not in table:
            raise DataError(f"{where} has no column {own[0]}{did_you_mean(own[0], table)}")
        values = table[name]
        if name == own[0]:
            if values.dtype.kind != "f" or (complete and np.isnan(values).any()):
                raise DataError(f"the column {name} of {where} should have a number in every row")
            parts.append(values[:, None])
            continue
        known = [column.removeprefix(f"{name}=") for column in own]
        texts = [f"{value:g}" for value in values] if values.dtype.kind == "f" else list(map(str, values))
        strange = next((text for text in texts if text not in known), None)
        if strange is not None:
            raise DataError(f"the column {name} of {where} has the value {strange!r}{did_you_mean(strange, known)}")
        parts.append(np.array(texts)[:, None] == np.array(known))
    return np.concatenate([part.astype(np.float64) for part in parts], 1)


def read_table(path: Path) -> Columns:
    """The columns of a CSV (separated by commas, semicolons or tabs, with a header) or Parquet file.

    Raises:
        DataError: it cannot be read as such.
    """
    try:
        if path.is_dir():
            raise DataError(f"{path} is a folder: data.root of data=table is a file, such as {path}/table.csv")
        if path.suffix.lower() == ".parquet":
            return _parquet(path)
        if path.suffix.lower() not in SEPARATORS:
            raise DataError(f"{path}: a table is a .csv, .tsv, .txt or .parquet")
        with path.open(newline="", encoding="utf-8-sig") as file:
            header = file.readline()
            separator = max(SEPARATORS[path.suffix.lower()], key=header.count)
            file.seek(0)
            return _of_lines(list(csv.reader(file, delimiter=separator)), path)
    except FileNotFoundError as error:
        raise DataError(f"{path.absolute()} is not there (data.root={path})") from error
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from error


def _of_lines(lines: Sequence[Sequence[str]], path: Path) -> Columns:
    lines = [line for line in lines if line]
    if len(lines) < 2:
        raise DataError(f"{path} has no rows: a table has a line with the names of its columns, then a line a row")
    header = [name.strip() for name in lines[0]]
    twice = next((name for name in header if header.count(name) > 1), None)
    if twice is not None:
        raise DataError(f"{path} has two columns called {twice!r}: the first line should have a name for each")
    for number, line in enumerate(lines[1:], 2):
        if len(line) != len(header):
            raise DataError(f"{path}, line {number}: {len(line)} values for {len(header)} columns")
    columns = zip(*lines[1:], strict=True)
    return {name: _numbers_or_names(values) for name, values in zip(header, columns, strict=True)}


def _numbers_or_names(texts: Sequence[str]) -> np.ndarray:
    stripped = ["" if text.strip().lower() in NOTHING else text.strip() for text in texts]
    try:
        return np.array([float(text) if text else math.nan for text in stripped])
    except ValueError:
        return np.array(stripped)


def _parquet(path: Path) -> Columns:
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise DataError(f'{path} needs the package pyarrow: pip install "vaelab[parquet]"') from error
    try:
        table = pyarrow.parquet.read_table(path)
    except pyarrow.ArrowException as error:
        raise DataError(f"{path} cannot be read: {' '.join(str(error).split())}") from error
    return {name: _of_arrow(table[name].to_pylist()) for name in table.column_names}


def _of_arrow(values: list[object]) -> np.ndarray:
    if all(value is None or isinstance(value, int | float) for value in values):
        return np.array([value if isinstance(value, int | float) else math.nan for value in values], np.float64)
    return np.array(["" if value is None else str(value) for value in values])


def _missing(values: np.ndarray) -> np.ndarray:
    return np.asarray(np.isnan(values) if values.dtype.kind == "f" else values == "")


def _categories(values: np.ndarray) -> list[str]:
    """The values of a category, sorted; none of a column of numbers."""
    if values.dtype.kind == "f":
        return []
    found = sorted(set(values.tolist()))
    if len(found) > MOST_VALUES:
        raise DataError(
            f"a column has {len(found)} different values, such as {found[0]!r}: a category has {MOST_VALUES} at most; "
            "leave it out with data.columns=[a,b]"
        )
    return found
