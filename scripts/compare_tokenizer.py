#!/usr/bin/env python3
"""Compares `smlp data encode` and `decode` with Hugging Face's tokenizers on whole texts: same ids, same bytes back.

    python3 -m venv /tmp/reference && /tmp/reference/bin/pip install tokenizers
    /tmp/reference/bin/python scripts/compare_tokenizer.py --tokenizer ../shared/data/gpt2-bpe ../shared/data

Prints a line a file and exits with 1 when any id or byte differs. Files that are no UTF-8 are decoded back, but not
compared: the reference takes only text."""
import argparse
import os
import subprocess
import sys
import time

import tokenizers

PIECE = 4_000_000  # characters the reference gets at once; it needs about a gigabyte for them


def files_of(paths):
    for path in paths:
        if os.path.isfile(path):
            yield path
        for folder, folders, names in os.walk(path):
            folders.sort()
            yield from (os.path.join(folder, name) for name in sorted(names))


def pieces_of(text):
    for start in range(0, len(text), PIECE):
        yield text[start:start + PIECE]


class Smlp:
    def __init__(self, program, folder):
        self.program, self.folder = program, folder

    def run(self, command, text):
        done = subprocess.run([self.program, "data", command, "--whole", "--tokenizer", self.folder], input=text,
                              stdout=subprocess.PIPE, check=True)
        return done.stdout


def first_difference(ours, theirs):
    at = next((i for i, (a, b) in enumerate(zip(ours, theirs)) if a != b), min(len(ours), len(theirs)))
    return f"id {at}: {ours[max(0, at - 2):at + 4]} here, {theirs[max(0, at - 2):at + 4]} in the reference"


def compare(path, smlp, reference):
    data = open(path, "rb").read()
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        same = smlp.run("decode", smlp.run("encode", data)) == data
        print(f"{path}: {len(data)} bytes, not UTF-8 (byte {error.start}); decoded back: {'same' if same else 'DIFFERENT'}")
        return same
    count, seconds = 0, 0.0
    for piece in pieces_of(text):
        line = smlp.run("encode", piece.encode("utf-8"))
        ours = [int(word) for word in line.split()]
        start = time.process_time()
        theirs = reference.encode(piece).ids
        seconds += time.process_time() - start
        if ours != theirs:
            print(f"{path}: DIFFERENT after {count} equal ids, {first_difference(ours, theirs)}")
            return False
        if smlp.run("decode", line) != piece.encode("utf-8"):
            print(f"{path}: decoded DIFFERENTLY after {count} ids")
            return False
        count += len(ours)
    rate = len(data) / 1e6 / max(seconds, 1e-9)
    print(f"{path}: {len(data)} bytes, {count} ids, all the same (reference {rate:.1f} MB/s)", flush=True)
    return True


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokenizer", required=True, help="folder with vocab.json and merges.txt")
    parser.add_argument("--smlp", default="build/bin/smlp")
    parser.add_argument("paths", nargs="+", help="texts, or folders of them")
    options = parser.parse_args()
    smlp = Smlp(options.smlp, options.tokenizer)
    reference = tokenizers.ByteLevelBPETokenizer(os.path.join(options.tokenizer, "vocab.json"),
                                                 os.path.join(options.tokenizer, "merges.txt"), add_prefix_space=False)
    results = [compare(path, smlp, reference) for path in files_of(options.paths)]
    print(f"{results.count(True)} of {len(results)} files are the same")
    return 0 if results and all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
