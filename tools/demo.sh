#!/usr/bin/env bash
# The main job on one machine: what overlap would buy a cluster (simulated), overlap itself (measured), and a model trained
# with it.
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
  --connectivity standard,farskip --repeat 3 --trace "$out"

step "3. Trained from nothing: DeepSeek-V2's shape with 4.6 M parameters a rank, on two ranks of this machine"
for split in train valid; do
  xz --decompress --keep --stdout "data/corpus/$split.txt.xz" >"$out/$split.txt"
  run tokenize --tokenizer data/tokenizer/tokenizer.json --out "$out/$split.tokens" "$out/$split.txt" |
    tee "$out/$split.log"
done
rm -rf "$out/run"
run train --model data/training/small.json --data "$out/train.tokens" --validation "$out/valid.tokens" \
  --validation-sequences 1200 --out "$out/run" --ranks 2 --connectivity farskip --sequence-length 128 --sequences 8 \
  --steps 240 --warmup-steps 20 --learning-rate 3e-3 --final-learning-rate 3e-4 --balance-loss 0.01 --log-every 20 |
  tee "$out/train.log"
run plot "$out/run" --out "$out/training.svg"
awk -v loss="$(awk '/validation loss/ { print $NF }' "$out/train.log")" \
  -v entropy="$(awk '/^unigram entropy/ { print $NF }' "$out/valid.log")" 'BEGIN {
    printf "validation loss %.4f nats a token, entropy of the single tokens of the same text %.4f: ", loss, entropy
    print loss < entropy ? "the loss is lower, the model has learned from what stands before a token" : \
                           "the loss is not lower, the model has learned too little"
    exit !(loss < entropy)
  }'

step "4. Where to look"
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
