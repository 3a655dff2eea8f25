"""The wheel, installed where nothing of the checkout is in reach."""

import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[1]


@pytest.mark.slow
def test_the_wheel_in_a_new_environment_trains_in_an_empty_folder(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "build", "--wheel", "--outdir", str(tmp_path / "dist"), str(PROJECT)]
    subprocess.run(build, check=True, capture_output=True, timeout=300)
    (wheel,) = (tmp_path / "dist").iterdir()
    names = zipfile.ZipFile(wheel).namelist()
    assert "vaelab/conf/train.yaml" in names
    assert "vaelab/conf/experiment/quickstart.yaml" in names
    assert {f"vaelab/report/report.{kind}" for kind in ("css", "html.jinja", "js")} <= set(names)
    assert {f"vaelab/sharing/explorer.{kind}" for kind in ("css", "html.jinja", "js")} <= set(names)
    assert "vaelab/sharing/onnxruntime_web/ort-wasm-simd-threaded.wasm.xz" in names
    assert not [name for name in names if name.startswith(("tests", "outputs", "data"))]
    # The dependencies are those of this environment; vaelab itself is the wheel's.
    environment = tmp_path / "environment"
    venv.create(environment, with_pip=True)
    packages = next(environment.glob("lib/python*/site-packages"))
    (packages / "dependencies.pth").write_text(str(next(Path(sys.prefix).glob("lib/python*/site-packages"))))
    pip = [str(environment / "bin" / "python"), "-m", "pip", "install", "--no-deps", "--quiet", str(wheel)]
    subprocess.run([*pip, "--ignore-installed"], check=True, capture_output=True, timeout=300)
    outside = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    empty = tmp_path / "empty"
    empty.mkdir()
    command = [str(environment / "bin" / "vaelab"), "train", "data=digits", "trainer=debug"]
    result = subprocess.run(command, cwd=empty, env=outside, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    (folder,) = (empty / "outputs" / "runs").iterdir()
    assert (folder / "metrics.json").is_file()
    where = [str(environment / "bin" / "python"), "-c", "import vaelab; print(vaelab.__file__)"]
    assert subprocess.run(where, cwd=empty, env=outside, capture_output=True, text=True).stdout.startswith(
        str(environment)
    )
