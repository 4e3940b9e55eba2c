#!/usr/bin/env python3
"""Compares a new run of `farskip bench --json` results with a stored one, by ratio.

  bench/compare_results.py STORED.jsonl NEW.jsonl [--tolerance 0.1]

Rows are matched by what was run: model, layers, routing, link, tokens, transport, ranks, connectivity, rewrites and schedule. What is
compared is what a machine's speed cancels out of: the speed-up over standard + blocking and the step over its lower bound. Exits with 1 if one is worse than the
stored one by more than the tolerance, or if no row matches.
"""
import argparse
import json

# Name, and whether larger is better.
FIGURES = {"speedup_over_blocking": True, "step_over_bound": False}

DEFAULTS = {"dispatch": "per-expert", "wire": "same"}  # of what was measured before these could be chosen


def rows_of(path):
    rows = {}
    for line in open(path):
        result = json.loads(line)
        for row in result.get("rows", []):
            run = [(DEFAULTS | result).get(field) for field in ("section", "name", "model", "layers", "routing", "dispatch", "wire", "link_fill",
                                                               "tokens_per_rank", "transport", "path", "ranks")]
            key = (*run, row["connectivity"], row["two_batch"], row["expert_chunks"], row["pieces"], row["schedule"])
            rows[key] = row
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stored")
    parser.add_argument("new")
    parser.add_argument("--tolerance", type=float, default=0.1, help="largest loss, as a fraction (default 0.1)")
    options = parser.parse_args()
    stored, new = rows_of(options.stored), rows_of(options.new)
    worse = matched = 0
    for key in stored.keys() & new.keys():
        for figure, larger_is_better in FIGURES.items():
            ratio = new[key][figure] / stored[key][figure]
            loss = 1 - ratio if larger_is_better else ratio - 1
            matched += 1
            if loss > options.tolerance:
                worse += 1
                print(f"{figure} {stored[key][figure]:.3f} -> {new[key][figure]:.3f} (x {ratio:.3f}): {key}")
    print(f"{matched} figures compared, {worse} worse by more than {options.tolerance:.0%}")
    return 1 if worse or not matched else 0


if __name__ == "__main__":
    raise SystemExit(main())
