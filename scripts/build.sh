#!/bin/sh
# sam build, then the unzipped size of every function with its layers (Lambda allows 250 MB; we hold 150).
set -eu
cd "$(dirname "$0")/.."
arch=${1:-x86_64}
# SAM looks for python3.13 on PATH; the environment's own interpreter may be the one that really runs.
python_home=$(.venv/bin/python -c 'import sys; print(sys.base_prefix)')
PATH="$python_home/bin:$PATH" WINNOW_ARCHITECTURE="$arch" AWS_DEFAULT_REGION="${AWS_DEFAULT_REGION:-us-east-1}" \
    .cache/sam/bin/sam build --parameter-overrides "Architecture=$arch"
.venv/bin/python scripts/sizes.py .aws-sam/build
