#!/usr/bin/env python3
"""What only a GPU can show, part by part (docs/gpu_check.md says in which order). Prints a line for each figure and verdict as it
comes, a summary at the end, and ends with 1 where something failed.

    scripts/gpu_check.py [PART…] [--build build-cuda] [--out FOLDER] [--minutes 9] [--python PYTHON_WITH_TORCH]

    tests              every verb, the golden models and training steps, with one rank and with two that share the GPU
    sanitizer          the verbs under compute-sanitizer: memcheck, synccheck, and racecheck of own kernels
    curves             a gMLP, an sMLP and a Transformer: 200 steps in f32, bf16 and fp16, each on the GPU and on the CPU
    staged             two ranks on the one GPU train as one rank does
    moves              a checkpoint written on the GPU goes on on the CPU, and back
    speed-smlp         the paper's small sMLP with all its experts, 524,288 tokens a step
    speed-gmlp         the paper's dense gMLP beside PyTorch (scripts/torch_peers.py), in turn
    speed-transformer  the same of the Transformer, and whether cuDNN computes its attention
    profile            the kernels of one step of a cut-down sMLP and Transformer by ncu or nsys, and cuBLASLt's log of them

FOLDER (gpu-check-<date> here, if none is named; an old one is added to) gets three files, written as things happen: report.txt,
what is printed; log.txt, what programs say, 15 MB at most, its beginning and its end; results.jsonl, every curve, benchmark,
table and list of tests whole. --caches names the folder of torch-gmlp.cache and torch-transformer.cache (torch_peers.py --cache).

A program that takes longer than its kind may (SECONDS) is ended, as is what --minutes would be passed by; whatever else a check
breaks on is its own failure, and the next one follows. What this build or machine can't show is named first and counted apart:
a build without MPI has no `staged`, one without HDF5 no `moves`, one without test programs neither `tests` nor `sanitizer`.
--filter takes googletest's patterns for both. --rehearse runs the other parts small and on the CPU: it tries this script, and
says nothing of a GPU.
"""
import argparse
import pathlib
import signal
import sys
import time

from gpu_checks.checks import ROOT, Checks
from gpu_checks.device_tests import TestParts
from gpu_checks.kernels import ProfileParts
from gpu_checks.speed import SpeedParts
from gpu_checks.training import TrainingParts

PARTS = ["tests", "sanitizer", "curves", "staged", "moves", "speed-smlp", "speed-gmlp", "speed-transformer", "profile"]


class GpuCheck(TestParts, TrainingParts, SpeedParts, ProfileParts, Checks):
    """A method for each part, of its name."""


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART")
    parser.add_argument("--build", type=pathlib.Path, default=ROOT / "build-cuda", help="its bin folder holds the programs")
    parser.add_argument("--out", type=pathlib.Path, default=time.strftime("gpu-check-%Y-%m-%d-%H%M%S"))
    parser.add_argument("--minutes", type=float, help="all of it ends by then")
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--filter", default="*")
    parser.add_argument("--caches", type=pathlib.Path, metavar="FOLDER", help="by default that of --out")
    parser.add_argument("--rehearse", action="store_true")
    options = parser.parse_args()
    if unknown := set(options.parts) - set(PARTS):
        parser.error(f"there is no part {unknown.pop()}; there are {', '.join(PARTS)}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    options.out = pathlib.Path(options.out)
    check = GpuCheck(options)
    try:
        check.run_parts(options.parts or (PARTS[2:] if options.rehearse else PARTS))
    finally:
        sound = check.summary()
    sys.exit(0 if sound else 1)


if __name__ == "__main__":
    main()
