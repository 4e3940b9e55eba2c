#!/usr/bin/env bash
# Overlap on the CPU, as README reports it: two ranks with one compute thread each, DeepSeek-V2-Lite and Qwen3-30B-A3B widths,
# the link set so that communication takes 60, 75 and 90 % of the compute that can hide it. Appends one JSON line a run to the
# file named, by default bench/results/overlap-cpu.jsonl. The second argument is the routing: balanced, the default, or model,
# with which one rank gets more rows than the other and what the other one waits for it counts as exposed. Twenty minutes on two cores.
set -euo pipefail
cd "$(dirname "$0")/.."

readonly farskip=build/release/bin/farskip
readonly results=${1:-bench/results/overlap-cpu.jsonl} routing=${2:-balanced}

for model in deepseek-v2-lite qwen3-30b-a3b; do
  for fill in 0.6 0.75 0.9; do
    line=$("$farskip" bench "$model" --layers 4 --random-weights --ranks 2 --tokens-per-rank 192 \
      --text data/text/sample.txt --link-fill "$fill" --link-us 50 --routing "$routing" --connectivity standard,farskip --repeat 5 --json |
      python3 -c 'import json, sys; result = json.load(sys.stdin); result["link_fill"] = float(sys.argv[1]); print(json.dumps(result))' \
        "$fill")
    printf '%s\n' "$line" >>"$results"
    python3 - "$line" <<'EOF'
import json, sys
result = json.loads(sys.argv[1])
for row in result["rows"]:
    step, interior = row["step_seconds"], row["interior_percent_overlapped"]
    print(f'{result["model"]}, {result["routing"]} routing, link {result["link_fill"]:.0%}: {row["connectivity"]}, {row["schedule"]}: step {step * 1e3:.0f} ms, '
          f'interior {interior:.1f} %, exposed {row["exposed_seconds"] * 1e3:.1f} ms, over the bound {row["step_over_bound"]:.3f}, '
          f'predicted {row["prediction_error"]:+.1%}')
EOF
  done
done
