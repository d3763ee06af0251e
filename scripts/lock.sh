#!/bin/sh
# Pins everything, with digests, for every Python we run on; no registry is named in a lock.
set -eu
cd "$(dirname "$0")/.."
uv=.cache/uv/bin/uv
flags="--universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --no-header --no-annotate --quiet"
# shellcheck disable=SC2086
$uv pip compile pyproject.toml --extra local --extra dev $flags -o requirements.lock
# shellcheck disable=SC2086
echo "aws-sam-cli==1.170.0" | $uv pip compile - $flags -o requirements-sam.lock
