#!/usr/bin/env bash
# The main job on one machine: what overlap would buy a cluster (simulated), then overlap itself (measured).
set -euo pipefail
cd "$(dirname "$0")/.."

readonly farskip=build/release/bin/farskip
readonly out=out/demo

step() { printf '\n== %s\n' "$1"; }
# Prints the command as one would type it, then runs it.
run() {
  printf '$ farskip'
  printf ' %s' "$@"
  printf '\n'
  "$farskip" "$@"
}

[[ -x $farskip ]] || {
  echo "demo: $farskip is not there: run 'make build'" >&2
  exit 1
}
mkdir -p "$out"

step "1. Simulated: DeepSeek-V3 on 8, 16 and 32 H200s"
run plan deepseek-v3 --hardware h200 --expert-parallel 8,16,32

step "2. Measured: DeepSeek-V2-Lite's widths, 4 layers, two ranks on this machine, an emulated link"
run bench deepseek-v2-lite --layers 4 --random-weights --ranks 2 --tokens-per-rank 64 \
  --text data/text/sample.txt --link-fill 0.75 --link-us 50 \
  --connectivity standard,farskip --pieces 4 --repeat 2 --trace "$out"

step "3. Where to look"
found=no
for file in "$out"/*.svg "$out"/*.json; do
  [[ -e $file ]] || continue
  found=yes
  case $file in
    *.svg) echo "picture: $file (any browser)" ;;
    *) echo "trace:   $file (open it at ui.perfetto.dev)" ;;
  esac
done
[[ $found == yes ]] || {
  echo "demo: bench left no trace in $out" >&2
  exit 1
}
