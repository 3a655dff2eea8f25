#!/usr/bin/env bash
# Install vaelab into .venv and train a VAE on 4,000 real digits that come with a dependency: about a minute of
# training on two cores. PYTHON chooses the interpreter (3.11 to 3.13); arguments are passed on as overrides.
set -euo pipefail
cd "$(dirname "$0")/.."
[ -x .venv/bin/python ] || "${PYTHON:-python3}" -m venv .venv
.venv/bin/python -m pip install --quiet --disable-pip-version-check --editable .
.venv/bin/vaelab train experiment=quickstart "$@"
