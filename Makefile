# The front door. The work is CMake's (CMakePresets.json) and that of the scripts in tools/.
PREFIX ?= /usr/local
JOBS ?= $(shell nproc)

.DEFAULT_GOAL := help
.PHONY: help deps build test test-gpu demo format format-check install clean

help: ## This list
	@echo "farskip: Mixture-of-Experts models without the waiting"
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{ printf "  make %-13s %s\n", $$1, $$2 }'

deps: ## Install what is missing: Debian packages, libtorch in .venv (no network when all is there)
	@tools/deps.sh

build: ## Configure and build everything, optimised, in build/release
	@cmake --preset release --log-level=WARNING >/dev/null
	@cmake --build --preset release --parallel $(JOBS)

test: ## deps, build, then every test
	@$(MAKE) --no-print-directory deps
	@$(MAKE) --no-print-directory build
	@ctest --preset release

test-gpu: ## deps, build, then the tests that need a GPU
	@$(MAKE) --no-print-directory deps
	@$(MAKE) --no-print-directory build
	@ctest --preset release -L gpu

demo: ## deps, build, then the main job: plan for a cluster, overlap measured here, a model trained
	@$(MAKE) --no-print-directory deps
	@$(MAKE) --no-print-directory build
	@tools/demo.sh

format: ## Format the sources with clang-format
	@tools/format.sh

format-check: ## Fail if a source is not formatted
	@tools/format.sh --check

install: ## Install command, libraries and headers to PREFIX (/usr/local); run build first
	@cmake --install build/release --prefix $(PREFIX)

clean: ## Remove build outputs; .venv stays
	@rm -rf build out
