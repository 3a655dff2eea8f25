"""What strangers meet first: the site, workflows, forms, the citation, the release script."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from vaelab.config.conf import options

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
FORMS = [
    *((path, "github-workflows") for path in sorted((ROOT / ".github" / "workflows").glob("*.yml"))),
    (ROOT / ".github" / "ISSUE_TEMPLATE" / "config.yml", "github-issue-config"),
    (ROOT / ".github" / "ISSUE_TEMPLATE" / "bug.yml", "github-issue-forms"),
    (ROOT / ".github" / "ISSUE_TEMPLATE" / "model.yml", "github-issue-forms"),
    (ROOT / "CITATION.cff", "citation-file-format"),
]


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    result = subprocess.run(
        build, cwd=ROOT, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True, check=False
    )

    assert result.returncode == 0, result.stdout + result.stderr
    api = (tmp_path / "site" / "api" / "index.html").read_text()
    assert all(f'id="vaelab.{name}"' in api for name in ("looking.load.load", "models.autoencoder.Autoencoder"))
    assert "https://fonts." not in api


def test_every_page_is_in_the_navigation() -> None:
    named = set(re.findall(r"\S+\.(?:md|ipynb)", (ROOT / "mkdocs.yml").read_text()))

    assert named == {str(path.relative_to(DOCS)) for kind in ("*.md", "notebooks/*.ipynb") for path in DOCS.glob(kind)}


@pytest.mark.parametrize(("path", "schema"), FORMS, ids=lambda value: getattr(value, "name", ""))
def test_a_file_that_others_read_follows_its_schema(path: Path, schema: str) -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", f"vendor.{schema}", str(path)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)

    assert result.returncode == 0, result.stdout


def test_the_workflow_runs_scripts_that_exist_on_supported_pythons() -> None:
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "tests.yml").read_text())["jobs"]
    matrix = jobs["quick"]["strategy"]["matrix"]
    commands = [step["run"] for job in jobs.values() for step in job["steps"] if "run" in step]

    assert matrix == {"os": ["ubuntu-latest", "macos-latest"], "python": ["3.11", "3.12", "3.13"]}
    assert 'bash scripts/test.sh -m "not slow"' in commands
    assert "mkdocs build --strict" in commands
    assert all((ROOT / script).is_file() for script in re.findall(r"scripts/\S+\.sh|\.ci/run", "\n".join(commands)))


def test_the_release_script_refuses_what_does_not_fit(tmp_path: Path) -> None:
    for name in ("pyproject.toml", "CITATION.cff", "CHANGELOG.md", "scripts/release.sh", "src/vaelab/__init__.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run([*git, "init", "-q"], cwd=tmp_path, check=True)
    assert "uncommitted changes" in _refusal(tmp_path, "0.1.0")
    subprocess.run([*git, "add", "."], cwd=tmp_path, check=True)
    subprocess.run([*git, "commit", "-qm", "all"], cwd=tmp_path, check=True)

    assert "say which version" in _refusal(tmp_path)
    assert "pyproject.toml: its version is not 9.9.9" in _refusal(tmp_path, "9.9.9")
    assert "CHANGELOG.md: no heading" in _refusal(tmp_path, "0.1.0")


def _refusal(folder: Path, *arguments: str) -> str:
    command = ["bash", "scripts/release.sh", *arguments]
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert result.returncode != 0
    return result.stderr


def test_the_gallery_has_every_preset_with_its_picture() -> None:
    sections = dict(re.findall(r"## (\w+)\n.*?\]\((\S+)\)", (DOCS / "gallery.md").read_text(), re.DOTALL))

    assert set(sections) == set(options("model"))
    assert all((DOCS / picture).is_file() for picture in sections.values())
