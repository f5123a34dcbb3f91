#!/usr/bin/env python3
"""What only a GPU can show (docs/cuda.md), part by part; prints a line for each figure and ends with 1 where a bound is missed.

    scripts/gpu_check.py [PART…] [--build build-cuda] [--python PYTHON_WITH_TORCH]

    tests      every verb, the golden models and training steps on the GPU                  ctest -L gpu
    sanitizer  the verbs under compute-sanitizer: memcheck, racecheck, synccheck
    curves     a gMLP, an sMLP and a Transformer: 200 steps on the CPU and on the GPU, in f32, bf16 and fp16
    staged     two ranks on the one GPU train as one rank does
    moves      a checkpoint written on the GPU goes on on the CPU, and back
    speed      the paper's small sMLP with all its experts; gMLP and Transformer beside scripts/torch_peers.py, in turn

A build without MPI has neither `tests` nor `staged`, one without HDF5 no `moves`. --rehearse runs the other parts small and on
the CPU: it tries this script, and says nothing of a GPU.
"""
import argparse
import json
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[1]
PAPER = ROOT / "examples" / "paper"
TEXT = ["/usr/include"]
STEPS = 200
CURVE_BOUNDS = {"f32": 0.005, "bf16": 0.02, "fp16": 0.02}  # of the last loss, against the CPU's f32
SMLP_TOKENS_PER_SECOND, SMLP_SHARE, PEER_RATIO = 192_000, 0.5, 1.2
JOB = """
name = "check"
[model]
kind = "{kind}"
context = 128
width = 128
hidden = 512
heads = {heads}
dense_blocks = {dense}
sparse_blocks = {sparse}
experts = 4
[data]
tokenizer = "bytes"
train = ["data/text"]
[schedule]
warmup_steps = 20
[optimizer]
learning_rate = 1e-3
[train]
steps = {steps}
global_batch = 8
micro_batch = 4
[checkpoint]
every_steps = {steps}
[cluster]
ranks = 1
"""
KINDS = {"gmlp": dict(heads=1, dense=4, sparse=0), "smlp": dict(heads=1, dense=2, sparse=2), "transformer": dict(heads=4, dense=4, sparse=0)}


class Check:
    def __init__(self, options):
        self.device, self.rehearsal = ("cpu" if options.rehearse else "cuda"), options.rehearse
        self.build, self.python = ROOT / options.build, options.python
        self.steps = 10 if options.rehearse else STEPS
        self.failed = []
        self.place = tempfile.TemporaryDirectory(prefix="smlp-gpu-")
        self.folder = pathlib.Path(self.place.name)

    def say(self, part, sound, words):
        print(f"{part:9} {'ok    ' if sound else 'FAILED'} {words}", flush=True)
        if not sound:
            self.failed.append(part)

    def run(self, *command, cwd=None):
        done = subprocess.run(list(map(str, command)), cwd=cwd or self.folder, capture_output=True, text=True)
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join(map(str, command))} ended with {done.returncode}\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
        return done.stdout

    def smlp(self, *words):
        return self.run(self.build / "bin" / "smlp", *words)

    def train(self, kind, name, *settings, steps=None):
        """The losses of a run by step."""
        if not (self.folder / "data").exists():
            (self.folder / "data").mkdir()
            self.smlp("data", "prepare", "--input", *TEXT, "--tokenizer", "bytes", "--output", "data/text")
        job = self.folder / f"{kind}.toml"
        job.write_text(JOB.format(kind=kind, steps=self.steps, **KINDS[kind]))
        words = [word for setting in settings for word in ("--set", setting)]
        if steps:
            words += ["--set", f"train.steps={steps}"]
        self.smlp("run", job, "--run-dir", name, *words)
        lines = map(json.loads, (self.folder / name / "metrics.jsonl").read_text().splitlines())
        return {line["step"]: line["loss"] for line in lines if "loss" in line}

    def tests(self):
        self.run("ctest", "--test-dir", self.build, "-L", "gpu", "--output-on-failure")
        self.say("tests", True, "ctest -L gpu")

    def sanitizer(self):
        tool = shutil.which("compute-sanitizer") or "/usr/local/cuda/bin/compute-sanitizer"
        for kind in ("memcheck", "racecheck", "synccheck"):
            self.run(tool, "--tool", kind, "--error-exitcode", "1", self.build / "bin" / "cuda_device_test", cwd=ROOT)
            self.say("sanitizer", True, kind)

    def curves(self):
        for kind in KINDS:
            wanted = self.train(kind, f"{kind}-cpu", "cluster.device=cpu")[self.steps]
            for precision, bound in CURVE_BOUNDS.items():
                got = self.train(kind, f"{kind}-{precision}", f"cluster.device={self.device}", f"train.precision={precision}")[self.steps]
                self.say("curves", abs(got / wanted - 1) < bound, f"{kind} {precision}: {got:.4f}, CPU in f32 {wanted:.4f}")

    def staged(self):
        one, two = (self.train("smlp", f"ranks{ranks}", f"cluster.device={self.device}", f"cluster.ranks={ranks}",
                               *(["cluster.communicator=staged"] if self.device == "cuda" else [])) for ranks in (1, 2))
        apart = max(abs(one[step] - two[step]) / one[step] for step in list(one)[:20])
        self.say("staged", apart < 1e-4, f"two ranks against one, first 20 losses: {apart:.1e} apart at most")

    def moves(self):
        half = self.steps // 2
        whole = self.train("smlp", "whole", f"cluster.device={self.device}")
        there, back = self.device, "cpu"
        for first, second in ((there, back), (back, there)):
            name = f"{first}-{second}"
            self.train("smlp", name, f"cluster.device={first}", steps=half)
            got = self.train("smlp", name, f"cluster.device={second}")[self.steps]
            wanted = whole[self.steps]
            self.say("moves", abs(got / wanted - 1) < 0.005, f"{first} to {second}: {got:.4f}, undisturbed {wanted:.4f}")

    def bench(self, job, *settings):
        small = ("model.dense_blocks=2", "model.width=64", "model.hidden=128", "model.context=32", "model.vocabulary=256",
                 "model.experts=4", "train.global_batch=8", "train.micro_batch=4") if self.rehearsal else ()
        words = [word for setting in (f"cluster.device={self.device}", "cluster.ranks=1", "cluster.expert_ranks=1", "train.precision=bf16",
                                      "model.dropout=0", *settings, *small) for word in ("--set", setting)]
        return json.loads(self.smlp("bench", "step", "--job", job, *words, "--json"))

    def largest_that_fits(self, *sizes):
        """The paper's small sMLP with all its experts, 524,288 tokens a step: the larger the micro-batch, the less its weights are moved."""
        for size in sizes:
            try:
                return self.bench(PAPER / "small-smlp.toml", "train.global_batch=512", f"train.micro_batch={size}", "routing.group_sequences=4")
            except RuntimeError as error:
                if "memory" not in str(error) or size == sizes[-1]:
                    raise
                print(f"speed     a micro-batch of {size} does not fit: {str(error).splitlines()[-1][:160]}", flush=True)

    def speed(self):
        found = self.largest_that_fits(64, 32, 16)
        sound = found["tokens_per_second"] >= SMLP_TOKENS_PER_SECOND and found["share"] >= SMLP_SHARE
        self.say("speed", sound or self.rehearsal, f"sMLP, 32 experts: {found['tokens_per_second']:,.0f} tokens/s, {found['share']:.2f} of "
                 f"{found['matmul_flops_per_second'] / 1e12:.0f} TFLOP/s, on {found['device']}")
        small = ("--blocks", 2, "--width", 64, "--hidden", 128, "--heads", 4, "--context", 32, "--vocabulary", 256) if self.rehearsal else ()
        for model in ("gmlp", "transformer"):
            ours, theirs = [], []
            for _ in range(3):
                ours.append(self.bench(PAPER / f"dense-{model}.toml", "train.global_batch=16", "train.micro_batch=16")["tokens_per_second"])
                peer = self.run(self.python, ROOT / "scripts" / "torch_peers.py", model, "--device", self.device, "--sequences", 16, *small)
                theirs.append(json.loads(peer.splitlines()[-1])["tokens_per_second"])
            ratio = statistics.median(ours) / statistics.median(theirs)
            self.say("speed", ratio >= PEER_RATIO or self.rehearsal, f"{model}: {statistics.median(ours):,.0f} tokens/s, PyTorch {statistics.median(theirs):,.0f}: "
                     f"{ratio:.2f} x")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    every = ["tests", "sanitizer", "curves", "staged", "moves", "speed"]
    parser.add_argument("parts", nargs="*", metavar="PART")
    parser.add_argument("--build", default="build-cuda")
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--rehearse", action="store_true")
    options = parser.parse_args()
    if unknown := set(options.parts) - set(every):
        parser.error(f"there is no part {unknown.pop()}; there are {', '.join(every)}")
    check = Check(options)
    for part in options.parts or (every[2:] if options.rehearse else every):
        try:
            getattr(check, part)()
        except (RuntimeError, OSError) as error:
            check.say(part, False, str(error))
    sys.exit(1 if check.failed else 0)


if __name__ == "__main__":
    main()
