#!/usr/bin/env python3
"""Draws the speed-up over standard + blocking against link bandwidth, measured beside predicted, from the section "sweep" of
bench/gpu.py's results.

  bench/plot_links.py RESULTS.jsonl OUT.svg
"""
import json
import sys

WIDTH, HEIGHT, LEFT, TOP, RIGHT, BOTTOM = 720, 420, 60, 40, 190, 50
COLOURS = ["#1b6ca8", "#c8553d", "#2a9d6f", "#8a5fb0"]


def read(path):
    """By model: (GB/s, measured, predicted) of the farskip row that simulation says is fastest."""
    curves = {}
    for line in open(path):
        result = json.loads(line)
        if result.get("section") != "sweep":
            continue
        rows = result["rows"]
        base = next(row for row in rows if row["connectivity"] == "standard" and row["schedule"] == "blocking" and row["expert_chunks"] == 1)
        best = min((row for row in rows if row["connectivity"] == "farskip"), key=lambda row: row["predicted_seconds"])
        model, link = result["name"].split(", ")
        curves.setdefault(model, []).append((float(link.split()[0]), base["step_seconds"] / best["step_seconds"],
                                             base["predicted_seconds"] / best["predicted_seconds"]))
    return {model: sorted(points) for model, points in curves.items()}


def draw(curves, machine):
    most = max(value for points in curves.values() for _, a, b in points for value in (a, b))
    links = sorted({link for points in curves.values() for link, _, _ in points})
    x_of = {link: LEFT + (WIDTH - LEFT - RIGHT) * i / max(1, len(links) - 1) for i, link in enumerate(links)}
    top = max(1.1, most * 1.05)

    def y_of(value):
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (value - 1) / (top - 1)

    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="12">',
           '<rect width="100%" height="100%" fill="white"/>',
           f'<text x="{LEFT}" y="20" font-size="14">farskip + overlapped over standard + blocking, 8 ranks, 8,192 tokens a rank ({machine})</text>']
    step = 0.1 if top < 1.8 else 0.25
    value = 1.0
    while value <= top:
        out.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y_of(value):.1f}" y2="{y_of(value):.1f}" stroke="#ddd"/>'
                   f'<text x="{LEFT - 8}" y="{y_of(value) + 4:.1f}" text-anchor="end">{value:.2f}x</text>')
        value += step
    for link in links:
        out.append(f'<text x="{x_of[link]:.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{link:.0f}</text>')
    out.append(f'<text x="{(LEFT + WIDTH - RIGHT) / 2:.0f}" y="{HEIGHT - 12}" text-anchor="middle">link, GB/s each way</text>')
    for i, (model, points) in enumerate(curves.items()):
        colour = COLOURS[i % len(COLOURS)]
        for column, dash in ((1, ""), (2, ' stroke-dasharray="5 4"')):
            line = " ".join(f"{x_of[p[0]]:.1f},{y_of(p[column]):.1f}" for p in points)
            out.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"{dash}/>')
        out += [f'<circle cx="{x_of[p[0]]:.1f}" cy="{y_of(p[1]):.1f}" r="3" fill="{colour}"/>' for p in points]
        out.append(f'<text x="{WIDTH - RIGHT + 12}" y="{TOP + 20 * i + 10}" fill="{colour}">{model}</text>')
    foot = TOP + 20 * len(curves) + 24
    out.append(f'<text x="{WIDTH - RIGHT + 12}" y="{foot}" fill="#555">solid: measured</text>')
    out.append(f'<text x="{WIDTH - RIGHT + 12}" y="{foot + 18}" fill="#555">dashed: simulated</text></svg>')
    return "\n".join(out) + "\n"


def main():
    if len(sys.argv) != 3:
        raise SystemExit(__doc__)
    curves = read(sys.argv[1])
    if not curves:
        raise SystemExit(f"{sys.argv[1]} has no results of section sweep; bench/gpu.py --only sweep makes them")
    first = json.loads(open(sys.argv[1]).readline())
    machine = first.get("machine", {}).get("gpu", first.get("gpu", ""))
    with open(sys.argv[2], "w") as file:
        file.write(draw(curves, machine.split(",")[-1].strip().split(" (")[0]))


if __name__ == "__main__":
    main()
