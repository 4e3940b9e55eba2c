#!/usr/bin/env python3
"""Draws how far the validation loss of each connectivity is from that of standard (the mean of its seeds), by tokens seen, from
bench/results/quality.jsonl.

  bench/plot_quality.py RESULTS.jsonl OUT.svg
"""
import json
import statistics
import sys

WIDTH, HEIGHT, LEFT, TOP, RIGHT, BOTTOM = 720, 400, 60, 40, 150, 50
COLOURS = {"standard": "#555555", "attention-only": "#2a9d6f", "fresh-shared": "#8a5fb0", "mlp-only": "#c8553d", "farskip": "#1b6ca8"}


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    runs = [json.loads(line) for line in open(sys.argv[1])]
    tokens = [at for at, _ in runs[0]["validation"]]
    base = [statistics.mean(run["validation"][i][1] for run in runs if run["connectivity"] == "standard") for i in range(len(tokens))]
    curves = [(run["connectivity"], [100 * (loss / base[i] - 1) for i, (_, loss) in enumerate(run["validation"])]) for run in runs]
    values = [value for _, points in curves for value in points]
    least, most = min(values) - 0.1, max(values) + 0.1

    def x_of(at):
        return LEFT + (WIDTH - LEFT - RIGHT) * at / tokens[-1]

    def y_of(value):
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (value - least) / (most - least)

    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="12">',
           '<rect width="100%" height="100%" fill="white"/>',
           f'<text x="{LEFT}" y="20" font-size="14">Validation loss against standard, percent</text>']
    tick = -(-int(least * 10) // 5) * 0.5
    while tick <= most:
        if tick >= least:
            out.append(f'<line x1="{LEFT}" y1="{y_of(tick):.1f}" x2="{WIDTH - RIGHT}" y2="{y_of(tick):.1f}" '
                       f'stroke="{"#888" if tick == 0 else "#ddd"}"/>')
            out.append(f'<text x="{LEFT - 8}" y="{y_of(tick) + 4:.1f}" text-anchor="end">{tick:+.1f}</text>')
        tick = round(tick + 0.5, 1)
    for at in tokens:
        out.append(f'<text x="{x_of(at):.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{at / 1e6:.0f}</text>')
    out.append(f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 10}" text-anchor="middle">million tokens</text>')
    labelled = []
    for name, points in curves:
        path = " ".join(f"{x_of(at):.1f},{y_of(value):.1f}" for at, value in zip(tokens, points))
        out.append(f'<polyline points="{path}" fill="none" stroke="{COLOURS[name]}" stroke-width="2"/>')
        if name in (known for known, _ in labelled):
            continue
        y = y_of(points[-1]) + 4
        while any(abs(y - other) < 14 for _, other in labelled):
            y += 14
        labelled.append((name, y))
        out.append(f'<text x="{WIDTH - RIGHT + 8}" y="{y:.1f}" fill="{COLOURS[name]}">{name}</text>')
    with open(sys.argv[2], "w") as file:
        file.write("\n".join([*out, "</svg>", ""]))


if __name__ == "__main__":
    main()
