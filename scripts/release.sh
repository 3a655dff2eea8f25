#!/usr/bin/env bash
# Build what a release consists of and check it: scripts/release.sh 0.2.0. Publishes nothing; says how to.
set -euo pipefail
cd "$(dirname "$0")/.."
version=${1:?"say which version: scripts/release.sh 0.2.0"}
fail() { echo "$1" >&2; exit 2; }
[ -z "$(git status --porcelain)" ] || fail "uncommitted changes: commit or stash them"
for file in pyproject.toml src/vaelab/__init__.py CITATION.cff; do
  grep -Eq "^(version = \"|__version__ = \"|version: )$version\"?$" "$file" || fail "$file: its version is not $version"
done
grep -Eq "^## $version \([0-9]{4}-[0-9]{2}-[0-9]{2}\)$" CHANGELOG.md ||
  fail "CHANGELOG.md: no heading '## $version (YYYY-MM-DD)'"
[ -z "$(git tag --list "v$version")" ] || fail "the tag v$version exists"
bash scripts/test.sh
rm -rf dist
.venv/bin/python -m build
echo "dist/ is ready: git tag v$version && git push --tags, then upload dist/* with twine"
