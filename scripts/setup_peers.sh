#!/bin/sh
# The libraries that benchmarks compare with, beside .venv: nothing of ours needs them. They are found by PYTHONPATH.
set -eu
cd "$(dirname "$0")/.."
stamp=.cache/peers/.list-digest
digest=$(cat benchmarks/peers.txt requirements.lock | cksum)
[ -f "$stamp" ] && [ "$(cat "$stamp")" = "$digest" ] && exit 0
echo "winnow: setting up the peers in .cache/peers"
rm -rf .cache/peers
if ! { [ -x .cache/uv/bin/uv ] && .cache/uv/bin/uv pip install --quiet --no-deps --python .venv/bin/python --target .cache/peers -r benchmarks/peers.txt; }; then
    rm -rf .cache/peers
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --target .cache/peers -r benchmarks/peers.txt
fi
echo "$digest" >"$stamp"
