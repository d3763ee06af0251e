# Two commands matter: `make demo` and `make test`. Both set themselves up; all they need is python3 (3.11+) and make.
PY := .venv/bin/python
ARCH ?= x86_64
ENV ?= dev
export OPENBLAS_NUM_THREADS ?= 1

.PHONY: demo test check bench labels build deploy smoke-aws docs clean setup sam lock

setup:
	@sh scripts/setup.sh

demo: setup ## the whole loop on real data, on this machine
	@.venv/bin/winnow demo

test: setup sam ## every test
	$(PY) -m pytest -q --cov --cov-report=term:skip-covered

check: setup sam ## style, types, import floors, template lint
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	PYTHONPATH=layers/core:cli:local .venv/bin/lint-imports
	.venv/bin/cfn-lint template.yaml infra/observability.yaml
	AWS_DEFAULT_REGION=us-east-1 .cache/sam/bin/sam validate --lint

labels: setup ## label efficiency beside other libraries, on real sets; hours (needs FLAGS="--data DIR --encoder DIR")
	@sh scripts/setup_peers.sh
	PYTHONPATH=.cache/peers $(PY) -m benchmarks.labels $(FLAGS)

bench: setup ## ratios against limits in one run; PEERS=1 adds other libraries, FLAGS=--quick is smaller
	$(if $(PEERS),@sh scripts/setup_peers.sh)
	PYTHONPATH=.cache/peers $(PY) -m benchmarks $(FLAGS)

sam: ## SAM CLI, in an environment of its own: its pins do not fit ours
	@sh scripts/setup_sam.sh

build: setup sam ## what deploy ships
	sh scripts/build.sh $(ARCH)

deploy: build ## to the account your credentials name
	.cache/sam/bin/sam deploy --config-env $(ENV)

smoke-aws: build ## NOT RUN ON AWS YET: the whole loop once in a stack of its own (needs ACCOUNT=..., may have REGION=... FLAGS=...)
	$(PY) scripts/smoke_aws.py --account "$(ACCOUNT)" $(if $(REGION),--region "$(REGION)") $(FLAGS)

docs: setup ## the generated tables of the documentation
	$(PY) scripts/document.py

lock: ## refresh requirements*.lock
	sh scripts/lock.sh

clean:
	rm -rf .venv .cache .aws-sam build layers/training *.egg-info
