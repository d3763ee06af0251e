#!/bin/sh
# SAM CLI pins boto3 below the version our code is written for, so it lives in .cache/sam.
set -eu
cd "$(dirname "$0")/.."
stamp=.cache/sam/.lock-digest
digest=$(cksum <requirements-sam.lock)
[ -f "$stamp" ] && [ "$(cat "$stamp")" = "$digest" ] && exit 0
sh scripts/setup.sh
rm -rf .cache/sam
.venv/bin/python -m venv .cache/sam
if ! { [ -x .cache/uv/bin/uv ] && .cache/uv/bin/uv pip sync --quiet --require-hashes --python .cache/sam/bin/python requirements-sam.lock; }; then
    .cache/sam/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-sam.lock
fi
echo "$digest" >"$stamp"
