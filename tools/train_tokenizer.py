#!/usr/bin/env python3
"""Trains a byte-level BPE tokenizer on text and writes it as a tokenizer.json.

Needs the `tokenizers` package, which nothing else in the project does:
    python3 -m venv VENV && VENV/bin/pip install tokenizers
    VENV/bin/python tools/train_tokenizer.py --out tokenizer.json TEXT...

Text is split as GPT-4's and Llama 3's tokenizers split it; every byte has a token, so that any text
can be encoded. A TEXT ending in .xz is unpacked on the way. Documents are separated by lines that
hold one form feed. The same text and version of the package give the same file.
"""
import argparse
import lzma
import os

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

END_OF_TEXT = "<|endoftext|>"
PATTERN = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
           r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")


def documents(path):
    """The documents of a text, without the lines between them."""
    opened = lzma.open if path.endswith(".xz") else open
    lines = []
    with opened(path, "rt", encoding="utf-8", newline="") as text:
        # Not by iteration over lines: only \n ends one, and lines may be of any length.
        for line in text.read().split("\n"):
            if line == "\f":
                yield "\n".join(lines) + "\n"
                lines = []
            else:
                lines.append(line)
    yield "\n".join(lines)


def new_tokenizer():
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(PATTERN), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("texts", nargs="+", metavar="TEXT", help="UTF-8 text, plain or .xz")
    parser.add_argument("--out", required=True, help="the tokenizer.json to write")
    parser.add_argument("--vocabulary", type=int, default=8192, help="ids in all [%(default)s]")
    options = parser.parse_args()
    tokenizer = new_tokenizer()
    trainer = trainers.BpeTrainer(vocab_size=options.vocabulary, special_tokens=[END_OF_TEXT],
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
                                  show_progress=False)
    tokenizer.train_from_iterator((d for path in options.texts for d in documents(path)), trainer)
    temporary = options.out + ".tmp"
    tokenizer.save(temporary)
    os.replace(temporary, options.out)
    print(f"{options.out}: {tokenizer.get_vocab_size()} ids")


if __name__ == "__main__":
    main()
