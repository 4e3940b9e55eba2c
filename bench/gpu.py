#!/usr/bin/env python3
"""Measures the GPU figures of README on a machine without network, in less than ten minutes, half of which is torch.compile of
other programs, and writes one JSON line a run; with --all those of docs/gpu.md and docs/training.md too, which takes some twenty.
With a second GPU in reach, paced collectives cross to it and back (loopback path peer) as well as being copied within one (path
device), and two real ranks run over NCCL.

  bench/gpu.py [--farskip build/release/bin/farskip] [--results bench/results/gpu.jsonl] [--all] [--only prefill,v3,...]
               [--match TEXT] [--dry-run]

Then bench/compare_results.py says how a run compares with a stored one, bench/plot_links.py draws the sweep over links.
"""
import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
MODELS = ROOT / "data" / "models"
COMMON = "--random-weights --device cuda --dtype bfloat16".split()
LOOPBACK = "--transport loopback --loopback-ranks 8 --link-us 10".split()
LINKS = (50, 100, 200, 300, 450)  # GB/s each way


class Run:
    def __init__(self, options, scratch):
        self.options, self.scratch = options, pathlib.Path(scratch)
        self.gpus = 0 if options.dry_run else len(self.shell("nvidia-smi", "-L").splitlines())
        self.paths = ["device"] + (["peer"] if self.gpus != 1 else [])

    def shell(self, *command, **more):
        return subprocess.run(command, check=True, capture_output=True, text=True, **more).stdout

    def clocks(self):
        if self.options.dry_run:
            return {}
        fields = "driver_version,clocks.sm,clocks.mem,power.draw,temperature.gpu"
        values = self.shell("nvidia-smi", "--query-gpu=" + fields, "--format=csv,noheader").splitlines()[0].split(", ")
        return dict(zip(fields.split(","), values))

    def record(self, section, name, command, environments=({},), readme=False):
        """Runs the command, once for each environment side by side, and keeps what the first prints. `readme`: README states it."""
        wanted = readme or self.options.all
        if not wanted or self.options.match not in name:
            return
        if self.options.dry_run:
            print(section, name, *command)
            return
        start = time.monotonic()
        processes = [subprocess.Popen(command, env=os.environ | more, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
                     for more in environments]
        outputs = [process.communicate(timeout=300) for process in processes]
        if processes[0].returncode != 0:
            lines = [line for line in outputs[0][1].splitlines() if line.startswith("farskip:")] or outputs[0][1].splitlines()[-1:]
            print(f"{section}, {name}: failed: {lines}", file=sys.stderr)
            return
        text = outputs[0][0]
        result = {"section": section, "name": name, "clocks": self.clocks()} | json.loads(text[text.index("{"):])
        with open(self.options.results, "a") as file:
            file.write(json.dumps(result) + "\n")
        print(f"{section}, {name} ({time.monotonic() - start:.0f} s)")
        for row in result.get("rows", [result]):
            print("   ", line_of(row, result.get("layers")))
        sys.stdout.flush()

    def bench(self, section, name, model, arguments, environments=({},), readme=False):
        if "--sequence-length" not in arguments:
            arguments = ["--sequence-length", "2048", *arguments]
        self.record(section, name, [self.options.farskip, "bench", str(model), *COMMON, *arguments, "--json"], environments, readme)

    def config(self, model, **changes):
        """A shipped configuration with other fields."""
        fields = json.loads((MODELS / f"{model}.json").read_text()) | changes
        path = self.scratch / f"{model}.json"
        path.write_text(json.dumps(fields))
        return path


def line_of(row, layers):
    text = f"{row['step_seconds'] * 1e3:8.2f} ms, {row['tokens_per_second']:9.0f} tokens/s"
    if "schedule" not in row:
        return text
    label = f"{row['connectivity']}, {row['schedule']}"
    label += f", chunks {row['expert_chunks']}, pieces {row['pieces']}" + (", two-batch" if row["two_batch"] else "")
    percent = [row[part + "interior_percent" + end] for part, end in (("", "_overlapped"), ("forward_", ""), ("backward_", ""))]
    interior = " / ".join(format(value, ".1f") for value in percent if value is not None) or "-"
    launch = f", a layer launched in {row['layers_host_seconds'] / layers * 1e6:.0f} us" if row["host_seconds"] else ""
    return (f"{label:45} {text}, interior {interior} %, "
            f"over bound {row['step_over_bound']:.3f} (loaded {row['step_over_loaded_bound']:.3f}), predicted {row['prediction_error']:+.1%}, x best std {row['speedup_over_best_standard']:.2f} (untimed {row['untimed_speedup_over_best_standard']:.2f}){launch}")


def prefill(run):
    whole = "--tokens-per-rank 16384 --ranks 1 --connectivity standard --schedule blocking --repeat 7".split()
    for model, layers in (("deepseek-v2-lite", 27), ("qwen3-30b-a3b", 12)):
        run.bench("prefill", model, model, [*whole, "--layers", str(layers)], readme=True)
        run.record("prefill", model + ", transformers compiled",
                   [sys.executable, str(ROOT / "bench" / "transformers_step.py"), str(MODELS / f"{model}.json"), "--layers", str(layers),
                    "--compile"], readme=True)


def v3(run):
    model = run.config("deepseek-v3", num_hidden_layers=6, first_k_dense_replace=0)
    for path in run.paths:
        for routing in ("balanced", "model"):
            run.bench("v3", f"300 GB/s, {path}, {routing}", model, [
                *LOOPBACK, "--tokens-per-rank", "8192", "--loopback-path", path, "--link-gb-per-s", "300", "--routing", routing,
                "--connectivity", "standard,farskip", "--pieces", "1,2" if path == "device" and routing == "balanced" else "1",
                "--repeat", "3"], readme=path == run.paths[-1] and routing == "balanced")
    run.bench("v3", "300 GB/s, device, balanced, 8 multiprocessors left free", model, [
        *LOOPBACK, "--tokens-per-rank", "8192", "--link-gb-per-s", "300", "--routing", "balanced", "--connectivity", "standard,farskip",
        "--free-multiprocessors", "8", "--repeat", "3"])


def equal(run):
    """A link on which communication takes as long as what can hide it."""
    model = run.config("deepseek-v3", num_hidden_layers=6, first_k_dense_replace=0)
    run.bench("equal", f"link filled, {run.paths[-1]}", model, [
        *LOOPBACK, "--tokens-per-rank", "8192", "--loopback-path", run.paths[-1], "--link-fill", "1", "--routing", "balanced",
        "--connectivity", "farskip", "--schedule", "released,overlapped", "--pieces", "1,2", "--repeat", "3"])


def v2_lite(run):
    for path in run.paths:
        for routing in ("balanced", "model"):
            run.bench("v2-lite", f"300 GB/s, {path}, {routing}", "deepseek-v2-lite", [
                *LOOPBACK, "--tokens-per-rank", "16384", "--loopback-path", path, "--link-gb-per-s", "300", "--routing", routing,
                "--connectivity", "standard,farskip", "--expert-chunks", "1,2", "--repeat", "3"],
                readme=path == run.paths[-1] and routing == "balanced")


def slow(run):
    model = run.config("deepseek-v3", num_hidden_layers=6, first_k_dense_replace=0)
    for path in [*run.paths, "pcie"]:
        link = [] if path == "pcie" else ["--link-gb-per-s", "50"]
        run.bench("slow", f"{'bus' if path == 'pcie' else '50 GB/s'}, {path}", model, [
            *LOOPBACK, "--tokens-per-rank", "8192", "--loopback-path", path, *link, "--routing", "balanced", "--connectivity",
            "standard,farskip", "--expert-chunks", "1,4", "--repeat", "3"], readme=path == run.paths[-1])


def sweep(run):
    models = {"deepseek-v2-lite": run.config("deepseek-v2-lite", num_hidden_layers=7),
              "deepseek-v3": run.config("deepseek-v3", num_hidden_layers=3, first_k_dense_replace=0),
              "qwen3-30b-a3b": run.config("qwen3-30b-a3b", num_hidden_layers=6),
              "kimi-k2": run.config("kimi-k2", num_hidden_layers=3, first_k_dense_replace=0)}
    for name, model in models.items():
        for link in LINKS:
            run.bench("sweep", f"{name}, {link} GB/s", model, [
                *LOOPBACK, "--tokens-per-rank", "8192", "--loopback-path", run.paths[-1], "--link-gb-per-s", str(link), "--routing",
                "balanced", "--connectivity", "standard,farskip", "--expert-chunks", "1,4", "--repeat", "3"])


def batches(run):
    """The variant that the simulation chooses from blocking runs, against every standard one."""
    model = run.config("deepseek-v2-lite", num_hidden_layers=7)
    for link in (50, 300):
        for tokens in (128, 512, 1024, 2048, 4096, 16384):
            run.bench("batches", f"{tokens} tokens, {link} GB/s", model, [
                *LOOPBACK, "--tokens-per-rank", str(tokens), "--sequence-length", str(min(2048, tokens // 2)), "--loopback-path", run.paths[-1],
                "--link-gb-per-s", str(link), "--routing", "balanced", "--connectivity", "standard,farskip", "--schedule", "overlapped",
                "--expert-chunks", "1,2,4", "--two-batch", "--choose", "--repeat", "5" if tokens <= 4096 else "3"],
                readme=tokens in (128, 1024))


def dispatch(run):
    """Tokens that travel once to each rank that needs them, and rows in FP8 on the wire."""
    model = run.config("deepseek-v3", num_hidden_layers=6, first_k_dense_replace=0)
    for link in (50, 300):
        for form in ("per-expert", "per-rank"):
            for wire in ("same", "fp8"):
                run.bench("dispatch", f"{form}, wire {wire}, {link} GB/s", model, [
                    *LOOPBACK, "--tokens-per-rank", "8192", "--loopback-path", run.paths[-1], "--link-gb-per-s", str(link), "--routing", "model",
                    "--dispatch", form, "--wire", wire, "--connectivity", "standard,farskip", "--expert-chunks", "1,2", "--repeat", "3"],
                    readme=(link, form, wire) == (50, "per-rank", "fp8"))


def nccl(run):
    if run.gpus == 1:
        print("nccl: skipped, one GPU")
        return
    ranks = [{"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29513", "WORLD_SIZE": "2", "RANK": str(r), "LOCAL_RANK": str(r)} for r in (0, 1)]
    run.bench("nccl", "two GPUs", "deepseek-v2-lite", [
        "--tokens-per-rank", "16384", "--transport", "nccl", "--routing", "balanced", "--connectivity", "standard,farskip", "--expert-chunks",
        "1,2", "--repeat", "3"], ranks, readme=True)


def training(run):
    """Forward and backward: one rank beside other programs; rank 0 of 8 on sequences of 4,096 tokens."""
    cut = run.config("deepseek-v2-lite", num_hidden_layers=5)
    run.bench("training", "one rank, deepseek-v2-lite, 5 layers", cut, [
        "--training", "--tokens-per-rank", "16384", "--ranks", "1", "--connectivity", "standard", "--schedule", "blocking", "--repeat", "7"],
        readme=True)
    for script in (["transformers_step.py", "--train"], ["autograd_step.py"]):
        for more in ([], ["--compile"]):
            run.record("training", " ".join([*script, *more]), [
                sys.executable, str(ROOT / "bench" / script[0]), str(cut), "--layers", "5", *script[1:], *more],
                readme=(script[0], more) == ("transformers_step.py", ["--compile"]))
    rank = [*LOOPBACK, "--training", "--sequence-length", "4096", "--loopback-path", run.paths[-1], "--link-gb-per-s", "300", "--routing",
            "balanced", "--repeat", "3"]
    deep = run.config("deepseek-v3", num_hidden_layers=5, first_k_dense_replace=0)  # 6 do not fit 80 GB
    # As few rows as say it: each keeps the activations of both passes, and where memory does not last the host waits for some.
    for name, model, tokens, chunks in (("deepseek-v2-lite", "deepseek-v2-lite", "8192", "2"), ("deepseek-v3, 5 layers", deep, "4096", "1")):
        run.bench("training", f"rank 0 of 8, {name}", model, [
            *rank, "--tokens-per-rank", tokens, "--connectivity", "standard,farskip", "--schedule", "blocking,overlapped", "--expert-chunks",
            chunks], readme=name == "deepseek-v2-lite")
    run.bench("training", "rank 0 of 8, deepseek-v2-lite, two batches", "deepseek-v2-lite", [
        *rank, "--tokens-per-rank", "8192", "--connectivity", "standard,farskip", "--schedule", "overlapped", "--two-batch"])


SECTIONS = {"v3": v3, "v2-lite": v2_lite, "equal": equal, "slow": slow, "dispatch": dispatch, "nccl": nccl, "batches": batches,
            "training": training, "prefill": prefill, "sweep": sweep}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--farskip", default=str(ROOT / "build" / "release" / "bin" / "farskip"))
    parser.add_argument("--results", default=str(ROOT / "bench" / "results" / "gpu.jsonl"))
    parser.add_argument("--all", action="store_true", help="what only docs state too")
    parser.add_argument("--only", help="sections, by comma: " + ", ".join(SECTIONS))
    parser.add_argument("--match", default="", help="only runs whose name has this")
    parser.add_argument("--dry-run", action="store_true", help="print the commands")
    options = parser.parse_args()
    names = options.only.split(",") if options.only else list(SECTIONS)
    unknown = [name for name in names if name not in SECTIONS]
    if unknown:
        parser.error(f"unknown section {unknown[0]}; there are {', '.join(SECTIONS)}")
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        run = Run(options, scratch)
        for name in names:
            SECTIONS[name](run)
    if not options.dry_run:
        print(f"{time.monotonic() - start:.0f} s in all")


if __name__ == "__main__":
    main()
