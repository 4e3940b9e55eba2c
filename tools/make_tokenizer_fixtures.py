#!/usr/bin/env python3
"""Writes tests/fixtures/tokenizers: small tokenizers of the kinds that model families use, and the ids
that the `tokenizers` package gives for real and for odd text, which the tests compare with.

    python3 -m venv VENV && VENV/bin/pip install tokenizers
    VENV/bin/python tools/make_tokenizer_fixtures.py

Each <kind>.json is trained on data/text/sample.txt and odd.txt. For every kind and both texts, ids.json
holds the number of ids, their hash (FNV-1a of 64 bits over eight bytes an id), and the first of them;
and the ids of "a b" with special tokens. The shipped tokenizer, data/tokenizer/tokenizer.json, is among
them as "farskip".
"""
import json
import pathlib
import sys

import tokenizers
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

ROOT = pathlib.Path(__file__).resolve().parent.parent
FOLDER = ROOT / "tests" / "fixtures" / "tokenizers"
SAMPLE = ROOT / "data" / "text" / "sample.txt"
SHIPPED = ROOT / "data" / "tokenizer" / "tokenizer.json"
VOCABULARY = 512

LLAMA_3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
           r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
QWEN_2 = LLAMA_3.replace(r"\p{N}{1,3}", r"\p{N}")
GPT_4O = (r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
          r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
          r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+")
DEEPSEEK_V3 = (r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"""
               r"| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")


def byte_level(prefix=False, regex=False):
    return pre_tokenizers.ByteLevel(add_prefix_space=prefix, use_regex=regex)


def split(expression, behavior="isolated", invert=False):
    return pre_tokenizers.Split(Regex(expression), behavior, invert)


def sequence(*parts):
    return pre_tokenizers.Sequence(list(parts))


def special(*contents, **options):
    return [AddedToken(content, special=True, normalized=False, **options) for content in contents]


# kind -> pre-tokenizer, normalizer, added tokens, more fields of the file
KINDS = {
    "gpt2": dict(pre_tokenizer=byte_level(prefix=True, regex=True), added=special("<|endoftext|>")),
    "gpt_neox": dict(pre_tokenizer=byte_level(regex=True), normalizer=normalizers.NFC(),
                     added=special("<|endoftext|>", "<|padding|>") +
                     [AddedToken(" " * n, normalized=True) for n in (4, 3, 2)]),
    "llama3": dict(pre_tokenizer=sequence(split(LLAMA_3), byte_level()),
                   added=special("<|begin_of_text|>", "<|end_of_text|>"), ignore_merges=True, template=True),
    "qwen2": dict(pre_tokenizer=sequence(split(QWEN_2), byte_level()), normalizer=normalizers.NFC(),
                  added=special("<|endoftext|>", "<|im_start|>", "<|im_end|>")),
    "gpt_4o": dict(pre_tokenizer=sequence(split(GPT_4O), byte_level()), added=special("<|endoftext|>")),
    "deepseek_v2": dict(pre_tokenizer=sequence(
        split("[\r\n]"), split(r"\s?[A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳΑ-ΡΣ-ϿЀ-ҁҊ-ԯ]+"),
        split(r"\s?[!-/:-~！-／：-～‘-‟　-。]+"), split(r"\s+$"), split("[一-龥ࠀ-一가-퟿]+"),
        pre_tokenizers.Digits(individual_digits=True), byte_level()),
        added=special("<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>")),
    "deepseek_v3": dict(pre_tokenizer=sequence(
        split(r"\p{N}{1,3}"), split("[一-龥぀-ゟ゠-ヿ]+"), split(DEEPSEEK_V3), byte_level()),
        added=special("<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>")),
    # No family's, but every behavior, and tokens that take white space.
    "behaviors": dict(pre_tokenizer=sequence(
        split(r"\n", "removed"), split(r"[,.;]", "merged_with_previous"), split(r"\(|-", "merged_with_next"),
        split(r"[A-Z]", "contiguous"), split(r"\p{L}+|\s+", "isolated", invert=True),
        pre_tokenizers.Split("the", "isolated"), pre_tokenizers.Digits(individual_digits=False),
        byte_level(prefix=True)), normalizer=normalizers.Sequence([normalizers.NFKD(), normalizers.NFC()]),
        added=special("<|endoftext|>", lstrip=True) + special("<|mask|>", rstrip=True) +
        [AddedToken("Holmes", normalized=True, lstrip=True, rstrip=True)]),
}


def train(kind, texts):
    parts = KINDS[kind]
    tokenizer = Tokenizer(models.BPE(ignore_merges=parts.get("ignore_merges", False)))
    tokenizer.pre_tokenizer = parts["pre_tokenizer"]
    tokenizer.decoder = decoders.ByteLevel()
    if "normalizer" in parts:
        tokenizer.normalizer = parts["normalizer"]
    added = parts["added"]
    trainer = trainers.BpeTrainer(vocab_size=VOCABULARY - len(added), show_progress=False,
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator(texts, trainer)
    # Behind the vocabulary, where most families have theirs.
    for token in added:
        (tokenizer.add_special_tokens if token.special else tokenizer.add_tokens)([token])
    if parts.get("template"):
        name = added[0].content
        tokenizer.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), processors.TemplateProcessing(
            single=f"{name} $A", special_tokens=[(name, tokenizer.token_to_id(name))])])
    return tokenizer


def hash_of(ids):
    state = 0xCBF29CE484222325
    for value in ids:
        for byte in value.to_bytes(8, "little"):
            state = (state ^ byte) * 0x100000001B3 % (1 << 64)
    return state


def summary_of(ids):
    return {"tokens": len(ids), "hash": hash_of(ids), "first": ids[:50]}


def main():
    sample = SAMPLE.read_text(encoding="utf-8")
    with open(FOLDER / "odd.txt", encoding="utf-8", newline="") as file:
        odd = file.read()
    results = {"tokenizers": tokenizers.__version__, "kinds": {}}
    for kind in [*KINDS, "farskip"]:
        if kind == "farskip":
            tokenizer = Tokenizer.from_file(str(SHIPPED))
        else:
            tokenizer = train(kind, [sample, odd])
            tokenizer.save(str(FOLDER / f"{kind}.json"), pretty=False)
        results["kinds"][kind] = {
            "sample": summary_of(tokenizer.encode(sample, add_special_tokens=False).ids),
            "odd": summary_of(tokenizer.encode(odd, add_special_tokens=False).ids),
            "special": tokenizer.encode("a b").ids,
        }
    lines = ",\n".join(f'  "{kind}": {json.dumps(result)}' for kind, result in results["kinds"].items())
    text = f'{{"tokenizers": "{results["tokenizers"]}", "kinds": {{\n{lines}\n}}}}\n'
    (FOLDER / "ids.json").write_text(text, encoding="utf-8")
    print(f"{FOLDER}: {len(results['kinds'])} kinds")


if __name__ == "__main__":
    sys.exit(main())
