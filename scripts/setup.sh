#!/bin/sh
# Makes .venv/ with everything the two commands need. Safe to run again: it does nothing while the lock is unchanged.
set -eu
cd "$(dirname "$0")/.."

stamp=.venv/.lock-digest
digest=$(cat requirements.lock pyproject.toml scripts/setup.sh | cksum)
[ -f "$stamp" ] && [ "$(cat "$stamp")" = "$digest" ] && exit 0

# A python3.13 on PATH can be a shim that runs nothing: only an interpreter that really starts, with venv, counts.
usable() { "$1" -c 'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info < (3, 15))' >/dev/null 2>&1; }
python=
for candidate in python3.13 "$HOME"/.pyenv/versions/3.13*/bin/python3 python3.14 "$HOME"/.pyenv/versions/3.14*/bin/python3 \
    python3.12 "$HOME"/.pyenv/versions/3.12*/bin/python3 python3.11 "$HOME"/.pyenv/versions/3.11*/bin/python3 python3; do
    if usable "$candidate"; then python=$candidate; break; fi
done
if [ -z "$python" ]; then
    echo "winnow: no usable Python 3.11 to 3.14 was found; install one (with venv) and run again" >&2
    exit 1
fi
echo "winnow: setting up .venv with $("$python" -V) ($python)"

# uv installs the lock in seconds; pip does the same, slower, where uv cannot be had.
if ! [ -x .cache/uv/bin/uv ]; then
    "$python" -m venv .cache/uv && .cache/uv/bin/python -m pip install --quiet --disable-pip-version-check uv || true
fi
# What is there is brought up to date in place: somebody may be using it.
if ! usable .venv/bin/python; then
    rm -rf .venv
    "$python" -m venv .venv
fi
if ! { [ -x .cache/uv/bin/uv ] && .cache/uv/bin/uv pip sync --quiet --require-hashes --python .venv/bin/python requirements.lock; }; then
    echo "winnow: installing with pip (slower)"
    # The lock is complete, but for what pyproject.toml says is never imported.
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements.lock
fi
if ! { [ -x .cache/uv/bin/uv ] && .cache/uv/bin/uv pip install --quiet --python .venv/bin/python --no-deps --no-build-isolation -e .; }; then
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
fi
echo "$digest" >"$stamp"
