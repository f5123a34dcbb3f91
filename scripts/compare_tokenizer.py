#!/usr/bin/env python3
"""Compares `smlp data encode` and `decode` with Hugging Face's tokenizers on whole texts: same ids, same bytes back.

    python3 -m venv /tmp/reference && /tmp/reference/bin/pip install tokenizers
    /tmp/reference/bin/python scripts/compare_tokenizer.py --tokenizer ../shared/data/gpt2-bpe --awkward ../shared/data

Prints a line a file and exits with 1 when any id or byte differs. --awkward adds texts made to trip a tokenizer.
--speed FILE encodes that file alone, one thread each, ours as `smlp data prepare`. Texts that are no UTF-8 are decoded
back, but not compared: the reference takes only text."""
import argparse
import os
import random
import subprocess
import sys
import tempfile
import time

os.environ["RAYON_NUM_THREADS"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
import tokenizers

PIECE = 4_000_000  # characters the reference gets at once; it needs about a gigabyte for them


def files_of(paths):
    for path in paths:
        if os.path.isfile(path):
            yield path
        for folder, folders, names in os.walk(path):
            folders.sort()
            yield from (os.path.join(folder, name) for name in sorted(names))


def awkward_texts():
    """Yields names and bytes: every character there is, runs, broken UTF-8, and random mixtures of all of it."""
    characters = [chr(c) for c in range(0x110000) if not 0xD800 <= c < 0xE000]
    yield "every character", "".join(characters).encode()
    yield "every character after a blank", " ".join(characters).encode()
    yield "every character between letters", "".join(f"a{c}b" for c in characters).encode()
    yield "every character between blanks and an apostrophe", "".join(f" {c} 's{c}'ll " for c in characters).encode()
    for unit in (" ", "\n", "\r\n", "\t", "\0", "a", "A1", "1", "=-", "'s", "\u3000", "\u0301", "\u4e2d",
                 "\U0001f468\u200d\U0001f469\u200d\U0001f467", "<|endoftext|>", "\u00a0", "\ufeff", "\u180e"):
        yield f"a run of {unit!r}", (unit * (100_000 // len(unit)) + "x" + unit * 33 + " y").encode()
    yield "<|endoftext|> within text", b"a<|endoftext|>b <|endoftext|>\n<|endoftext|><|endoftext|>"
    dice = random.Random(1)
    atoms = ["'", "'s", "'LL", "'re", " ", "  ", "\n", "\r\n", "\t", "\0", "e\u0301", "\u0301", "the", "don't", "12", "!?",
             "\u00bd", "\u2028", "\u0085", "\u00a0", "\u3000", "\u200b", "\u200d", "\ufe0f", "\U0001f1e9\U0001f1ea", "\u05d0\u05b4",
             "\u0e01\u0e33", "<|endoftext|>", "\u0130", "\u00df", "\ufb01", "\u2160", "\u0660", "\u4e00", "\uac00", "_", "\x7f"]
    mixed = lambda: dice.choice(atoms) if dice.random() < 0.9 else dice.choice(characters)
    yield "mixtures", "".join(mixed() for _ in range(400_000)).encode()
    broken = bytearray("".join(mixed() for _ in range(200_000)).encode())
    for _ in range(20_000):
        broken[dice.randrange(len(broken))] = dice.randrange(256)
    yield "mixtures with broken UTF-8", bytes(broken)
    yield "random bytes", dice.randbytes(500_000)
    yield "surrogates, overlong and cut characters", b"\xed\xa0\x80\xc0\x80 \xf4\x90\x80\x80 \xe2\x82 \xf0\x9f\x98" * 1000


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


def compare(path, data, smlp, reference):
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        same = smlp.run("decode", smlp.run("encode", data)) == data
        print(f"{path}: {len(data)} bytes, not UTF-8 (byte {error.start}); decoded back: {'same' if same else 'DIFFERENT'}")
        return same
    count = 0
    for piece in pieces_of(text):
        line = smlp.run("encode", piece.encode("utf-8"))
        ours = [int(word) for word in line.split()]
        theirs = reference.encode(piece).ids
        if ours != theirs:
            print(f"{path}: DIFFERENT after {count} equal ids, {first_difference(ours, theirs)}")
            return False
        if smlp.run("decode", line) != piece.encode("utf-8"):
            print(f"{path}: decoded DIFFERENTLY after {count} ids")
            return False
        count += len(ours)
    print(f"{path}: {len(data)} bytes, {count} ids, all the same", flush=True)
    return True


def compare_speed(path, smlp, reference):
    """Processor seconds, since other programs may want the machine; ours with start-up, reading and writing."""
    text = open(path, encoding="utf-8").read()
    with tempfile.TemporaryDirectory() as folder:
        before = os.times()
        subprocess.run([smlp.program, "data", "prepare", "--threads", "1", "--input", path, "--tokenizer", smlp.folder,
                        "--output", os.path.join(folder, "t")], check=True, stdout=subprocess.DEVNULL)
        after = os.times()
    ours = after.children_user + after.children_system - before.children_user - before.children_system
    lines = text.splitlines(keepends=True)
    start = time.process_time()
    for line in lines:
        reference.encode(line)
    theirs = time.process_time() - start
    size = len(text.encode("utf-8")) / 1e6
    print(f"{path}: {size / ours:.1f} MB/s here, {size / theirs:.1f} MB/s the reference line by line, one thread each")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokenizer", required=True, help="folder with vocab.json and merges.txt")
    parser.add_argument("--smlp", default="build/bin/smlp")
    parser.add_argument("--awkward", action="store_true", help="adds texts made to trip a tokenizer")
    parser.add_argument("--speed", metavar="FILE", help="encodes this text with both and compares the time")
    parser.add_argument("paths", nargs="*", help="texts, or folders of them")
    options = parser.parse_args()
    smlp = Smlp(options.smlp, options.tokenizer)
    reference = tokenizers.ByteLevelBPETokenizer(os.path.join(options.tokenizer, "vocab.json"),
                                                 os.path.join(options.tokenizer, "merges.txt"), add_prefix_space=False)
    texts = ((path, open(path, "rb").read()) for path in files_of(options.paths))
    results = [compare(name, data, smlp, reference) for name, data in texts]
    if options.awkward:
        results += [compare(name, data, smlp, reference) for name, data in awkward_texts()]
    if options.speed:
        compare_speed(options.speed, smlp, reference)
    print(f"{results.count(True)} of {len(results)} texts are the same")
    return 0 if (results or options.speed) and all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
