#!/usr/bin/env bash
# Install vaelab into .venv and train a VAE on 4,000 real digits that come with a dependency: about a minute of
# training on two cores. PYTHON chooses the interpreter (3.11 to 3.13); arguments are passed on as overrides.
set -euo pipefail
cd "$(dirname "$0")/.."
if [ ! -x .venv/bin/vaelab ]; then
  echo "1/2 installing into .venv: torch and what else is missing, some minutes and gigabytes the first time"
  [ -x .venv/bin/python ] || "${PYTHON:-python3}" -m venv .venv
fi
.venv/bin/python -m pip install --quiet --disable-pip-version-check --editable .
echo "2/2 training 30 epochs: about a minute on two idle cores; on a busy machine threads=1 is faster"
.venv/bin/vaelab train experiment=quickstart "$@"
