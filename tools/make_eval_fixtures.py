#!/usr/bin/env python3
"""Writes tests/fixtures/eval/requests.json: how the questions of data/eval are cut into tokens, by the
`tokenizers` package and the rules of lm-evaluation-harness, which the tests compare with.

    python3 -m venv VENV && VENV/bin/pip install tokenizers
    VENV/bin/python tools/make_eval_fixtures.py

For every task: the number of requests, the ids in them, the ids that are scored, and a hash of all
(FNV-1a of 64 bits over eight bytes a number: the scored ids' number, then the ids).
"""
import json
import pathlib

from tokenizers import Tokenizer

ROOT = pathlib.Path(__file__).resolve().parent.parent
OUT = ROOT / "tests" / "fixtures" / "eval" / "requests.json"
TASKS = ("arc_easy", "arc_challenge", "piqa", "winogrande")


def pairs(question):
    """Contexts and continuations as the harness's own tasks of these names have them."""
    if "choices" in question:
        context = question["query"].rstrip() + "\nAnswer:"
        return [(context, " " + choice) for choice in question["choices"]]
    return [(option, " " + question["continuation"]) for option in question["context_options"]]


def encode_pair(tokenizer, context, continuation):
    """The harness's TemplateLM._encode_pair."""
    spaces = len(context) - len(context.rstrip())
    if spaces > 0:
        continuation = context[-spaces:] + continuation
        context = context[:-spaces]
    whole = tokenizer.encode(context + continuation, add_special_tokens=False).ids
    return whole, len(whole) - len(tokenizer.encode(context, add_special_tokens=False).ids)


def add(state, value):
    for byte in value.to_bytes(8, "little"):
        state = (state ^ byte) * 0x100000001B3 % (1 << 64)
    return state


def main():
    tokenizer = Tokenizer.from_file(str(ROOT / "data" / "tokenizer" / "tokenizer.json"))
    tasks = {}
    for name in TASKS:
        requests, tokens, scored_tokens, state = 0, 0, 0, 0xCBF29CE484222325
        for line in (ROOT / "data" / "eval" / f"{name}.jsonl").read_text(encoding="utf-8").splitlines():
            for context, continuation in pairs(json.loads(line)):
                ids, scored = encode_pair(tokenizer, context, continuation)
                requests, tokens, scored_tokens = requests + 1, tokens + len(ids), scored_tokens + scored
                state = add(state, scored)
                for value in ids:
                    state = add(state, value)
        tasks[name] = {"requests": requests, "tokens": tokens, "scored": scored_tokens, "hash": state}
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(json.dumps(tasks, indent=2) + "\n", encoding="utf-8")
    print(f"{OUT}: {sum(task['requests'] for task in tasks.values())} requests")


if __name__ == "__main__":
    main()
