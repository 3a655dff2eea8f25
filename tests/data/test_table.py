"""Rows of CSV and Parquet files."""

from pathlib import Path

import numpy as np
import pytest
import torch

import vaelab
import vaelab.looking.explore
from vaelab.data import TableData
from vaelab.errors import DataError
from vaelab.looking.own_images import read_own

TEXT = """age,colour,height,kind
10,red,1.5,a
20,green,2.5,b
30,red,3.5,a
40,blue,4.5,b
"""


def table(folder: Path, text: str = TEXT, **options: object) -> TableData:
    (folder / "x.csv").write_text(text)
    defaults: dict[str, object] = {"validation": 0, "test": 0, "batch_size": 1, "scale": "none"}
    return TableData(root=str(folder / "x.csv"), **{**defaults, **options})  # type: ignore[arg-type]


def test_all_columns_of_numbers_are_the_row_by_default(tmp_path: Path) -> None:
    data = table(tmp_path)
    assert data.form.columns == ("age", "height")
    assert data.splits.train.x.tolist() == [[10, 1.5], [20, 2.5], [30, 3.5], [40, 4.5]]
    assert data.classes == 0


def test_categories_are_one_hot_in_the_order_of_their_names(tmp_path: Path) -> None:
    data = table(tmp_path, columns=["height", "colour"], label="kind")
    assert data.form.columns == ("height", "colour=blue", "colour=green", "colour=red")
    assert data.form.groups == (1, 3)
    assert data.splits.train.x.tolist() == [[1.5, 0, 0, 1], [2.5, 0, 1, 0], [3.5, 0, 0, 1], [4.5, 1, 0, 0]]
    assert data.names == ("a", "b")
    assert data.splits.train.labels.tolist() == [0, 1, 0, 1]


def test_numbers_are_standardised_and_categories_are_not(tmp_path: Path) -> None:
    x = table(tmp_path, columns=["age", "colour"], scale="standardise").splits.train.x
    torch.testing.assert_close(x[:, 0].std(correction=0), torch.tensor(1.0))
    assert set(x[:, 1:].unique().tolist()) == {0.0, 1.0}


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_columns_are_separated_by_commas_semicolons_or_tabs(separator: str, tmp_path: Path) -> None:
    assert table(tmp_path, TEXT.replace(",", separator)).form.columns == ("age", "height")


class TestMissingValues:
    text = "a,b,c\n1,2,x\n,4,y\n5,NA,x\n7,8,\n"

    def test_are_refused_with_column_and_row(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"1 values of the column a are missing, the first in row 1 .*: a, b\)"):
            _ = table(tmp_path, self.text).shape

    def test_may_be_dropped_with_their_rows(self, tmp_path: Path) -> None:
        data = table(tmp_path, self.text, missing="drop", label="c")
        assert data.splits.train.x.tolist() == [[1, 2]]
        assert data.notes == ["3 of 4 rows have missing values and are left out"]

    def test_may_be_the_mean_of_the_others(self, tmp_path: Path) -> None:
        x = table(tmp_path, self.text, missing="mean").splits.train.x
        torch.testing.assert_close(x, torch.tensor([[1, 2], [13 / 3, 4], [5, 14 / 3], [7, 8]]))

    def test_are_the_mean_of_the_rows_that_are_trained_on(self, tmp_path: Path) -> None:
        (tmp_path / "test.txt").write_text("3\n")
        files = {"test": "test.txt"}
        splits = table(tmp_path, 'a\n1\n3\n""\n100\n', missing="mean", split_files=files).splits
        assert splits.train.x.flatten().tolist() == [1, 3, 2]
        (tmp_path / "test.txt").write_text("0\n1\n3\n")
        with pytest.raises(DataError, match="no training row has a value of the column a"):
            _ = table(tmp_path, 'a\n1\n3\n""\n100\n', missing="mean", split_files=files).splits

    def test_of_a_category_have_no_mean(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="category c are missing, which has no mean"):
            _ = table(tmp_path, self.text, missing="mean", columns=["b", "c"]).shape


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        (TEXT, {"columns": ["aeg"]}, r"has no column aeg; did you mean age\?"),
        (TEXT, {"label": "knid"}, r"has no column knid; did you mean kind\?"),
        (TEXT, {"columns": ["age", "age"]}, "names a column twice"),
        (TEXT, {"label": "height"}, "numbers that are not labels, such as 1.5"),
        ("a,b\n1\n", {}, "line 2: 1 values for 2 columns"),
        ("a,a\n1,2\n", {}, "two columns called 'a'"),
        ("a,b\n", {}, "has no rows"),
        ("a\nx\ny\n", {}, r"no column of numbers: name categories, data.columns=\[a\]"),
    ],
)
def test_what_is_no_such_table_is_refused(text: str, options: dict[str, object], message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        _ = table(tmp_path, text, **options).splits


def test_what_is_no_table_at_all_is_refused(tmp_path: Path) -> None:
    for name, message in {"none.csv": "is not there", "": "is a folder", "x.xlsx": "a table is a .csv"}.items():
        with pytest.raises(DataError, match=message):
            _ = TableData(root=str(tmp_path / name)).shape


def test_parquet_is_read_as_csv_is(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    columns = {"age": [10, 20, None], "colour": ["red", "green", "red"], "height": [1.5, 2.5, 3.5]}
    parquet.write_table(pyarrow.table(columns), tmp_path / "x.parquet")
    data = TableData(root=str(tmp_path / "x.parquet"), scale="none", missing="drop", validation=0, test=0, batch_size=1)
    assert data.form.columns == ("age", "height")
    assert data.splits.train.x.tolist() == [[10, 1.5], [20, 2.5]]


@pytest.mark.slow
def test_a_model_of_a_table_takes_tables_and_refuses_other_losses(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    lines = [
        f"{a:.3f},{'uvw'[c]},{2 * a + c:.3f},{'left' if c else 'right'}"
        for a, c in zip(generator.normal(size=80), generator.integers(0, 3, 80), strict=True)
    ]
    (tmp_path / "x.csv").write_text("a,c,b,side\n" + "\n".join(lines))
    overrides = ["data=table", f"data.root={tmp_path / 'x.csv'}", "data.columns=[a,c,b]", "data.batch_size=8"]
    overrides += ["data.label=side", "conditional=true"]
    overrides += [
        "latent_dim=2",
        "encoder.hidden=[8]",
        "decoder.hidden=[8]",
        "trainer=debug",
        "callbacks.progress_bar=null",
    ]

    with pytest.raises(vaelab.ConfigError, match=r"categories, which are one-hot.*loss=columns"):
        vaelab.train(vaelab.compose([*overrides, "loss=gaussian_shared_scale"]), folder=tmp_path / "wrong")
    run = vaelab.train(vaelab.compose([*overrides, "loss=columns"]), folder=tmp_path / "run")

    assert np.isfinite(list(run.metrics.values())).all()
    _, written = vaelab.looking.explore.reconstruct(run, images="0,1", label="left").paths
    header, *rows = (line.split(",") for line in written.read_text().splitlines())
    originals = {tuple(row[2:]) for row in rows[::2]}
    assert header == ["name", "row", "a", "c=u", "c=v", "c=w", "b"]
    assert [row[1] for row in rows] == ["original", "reconstructed"] * 2
    assert all(any(float(line.split(",")[0]) == pytest.approx(float(row[0])) for line in lines) for row in originals)
    with pytest.raises(vaelab.RunError, match=r"label leff: .* did you mean left"):
        vaelab.looking.explore.reconstruct(run, label="leff", output=[tmp_path / "a.png"])
    (tmp_path / "x.csv").rename(tmp_path / "y.csv")
    model = vaelab.load(run)  # without the data
    assert model.sample(3, labels=torch.zeros(3, dtype=torch.int64)).shape == (3, 5)
    form = vaelab.runs.folder.RunFolder(run.folder).form
    assert form is not None
    assert read_own([tmp_path / "y.csv"], form).images.shape == (80, 5)
