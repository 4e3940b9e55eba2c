#!/bin/sh
# Trains data/training/quality.json from scratch in five connectivities on the same data, standard and farskip with two seeds:
#   bench/quality.sh FARSKIP TRAIN.tokens VALID.tokens OUT [--device cuda --dtype bfloat16 ...]
# What is there already is resumed. docs/quality.md has what came out.
set -eu
farskip=$1 train=$2 valid=$3 out=$4
shift 4
for run in standard:1 standard:2 attention-only:1 fresh-shared:1 mlp-only:1 farskip:1 farskip:2; do
  connectivity=${run%:*} seed=${run#*:}
  folder=$out/$connectivity-$seed
  resume=
  [ ! -d "$folder" ] || resume=--resume
  "$farskip" train --model "$(dirname "$0")/../data/training/quality.json" --data "$train" --validation "$valid" \
    --validation-sequences 1024 --connectivity "$connectivity" --seed "$seed" --sequence-length 512 --sequences 128 --steps 916 \
    --learning-rate 1.5e-3 --final-learning-rate 1.5e-4 --warmup-steps 50 --balance-loss 0.01 --validate-every 153 \
    --checkpoint-every 306 --out "$folder" $resume "$@"
done
