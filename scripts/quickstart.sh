#!/usr/bin/env bash
# Install vaelab into .venv and train a VAE on 4,000 real digits that come with a dependency: about a minute of
# training on two cores. PYTHON chooses the interpreter (3.11 to 3.13); arguments are passed on as overrides.
set -euo pipefail
cd "$(dirname "$0")/.."
if [ ! -x .venv/bin/vaelab ]; then
  echo "1/2 installing into .venv: torch and what else is missing; the first time 2 to 10 minutes and up to 6 GB"
  [ -x .venv/bin/python ] || "${PYTHON:-python3}" -m venv .venv
fi
.venv/bin/python -m pip install --disable-pip-version-check --progress-bar off --editable . |
  sed -u -n -E 's/^(Collecting|Downloading|Installing|Successfully)/  \1/p'
echo "2/2 training 30 epochs: one to three minutes; a line for each, then the metrics and where the pictures are"
.venv/bin/vaelab train experiment=quickstart "$@"
