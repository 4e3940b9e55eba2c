#!/usr/bin/env bash
# Formats the project's C++ sources; with --check only says which are not formatted, and fails if there are any.
set -euo pipefail
cd "$(dirname "$0")/.."

mode=(-i)
if [[ ${1:-} == --check ]]; then mode=(--dry-run -Werror); fi
# From git where there is one, so that build outputs and scratch files are left alone.
if git rev-parse --is-inside-work-tree >/dev/null 2>&1; then
  sources=$(git ls-files -- '*.h' '*.cpp' '*.cuh' '*.cu')
else
  sources=$(find src tests bench -name '*.h' -o -name '*.cpp' -o -name '*.cuh' -o -name '*.cu')
fi
[[ -n $sources ]] || exit 0
xargs -d '\n' -P 2 -n 32 clang-format "${mode[@]}" <<<"$sources"
