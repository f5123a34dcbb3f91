"""Small models that train on the GPU and on the CPU, by one rank and by two, and go on from each other's checkpoints."""
import json
import math
import os
import statistics

from gpu_checks.checks import ROOT
from gpu_checks.programs import Failure

TEXT = [ROOT / name for name in ("docs/decisions", "core", "tensor", "layers", "worker", "launcher", "commands")]
SECONDS = dict(data=60, train=180)
STEPS, FIRST = 200, 20
# Against the same precision elsewhere: the first losses' median distance, before tokens that are routed otherwise move a curve.
EARLY_BOUNDS = {"f32": 1e-4, "bf16": 2e-3, "fp16": 1e-3}
LATE_BOUND, STAGED_BOUND = 0.003, 1e-4  # the former of the mean of a curve's second half
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


def mean_of_half(losses):
    return statistics.mean([losses[step] for step in sorted(losses)][len(losses) // 2:])


def first_apart(one, other):
    return [abs(one[step] - other[step]) / one[step] for step in sorted(one)[:FIRST]]


class TrainingParts:
    @property
    def steps(self):
        return 10 if self.rehearsal else STEPS

    def smlp(self, *words, seconds):
        return self.programs.run(self.binaries / "smlp", *words, seconds=seconds, cwd=self.folder).demand()

    def train(self, kind, name, *settings, steps=None):
        """The losses of a run by step, and what it said."""
        if not (self.folder / "data").exists():
            self.smlp("data", "prepare", "--input", *TEXT, "--tokenizer", "bytes", "--output", "data/text", seconds=SECONDS["data"])
        job = self.folder / f"{kind}.toml"
        job.write_text(JOB.format(kind=kind, steps=self.steps, **KINDS[kind]))
        words = [word for setting in (*settings, f"train.steps={steps or self.steps}") for word in ("--set", setting)]
        try:
            said = self.smlp("run", job, "--run-dir", name, "--max-restarts", 0, *words, seconds=SECONDS["train"])
        finally:
            losses = self.note_run(self.folder / name, settings)
        return losses, said

    def note_run(self, run, settings):
        for path in sorted(run.glob("logs/*/*")):
            self.record.note(f"--- {run.name}/{path.name}\n{path.read_text(errors='replace')}")
        metrics = run / "metrics.jsonl"
        lines = map(json.loads, metrics.read_text().splitlines()) if metrics.exists() else ()
        losses = {line["step"]: line["loss"] for line in lines if "loss" in line}
        self.record.keep(part=self.part, run=run.name, settings=settings, losses=losses)
        return losses

    def compare(self, name, got, wanted, beside, early_bound=math.inf):
        if len(got) != self.steps or len(wanted) != self.steps:
            raise Failure(f"there are {len(got)} losses, and {len(wanted)} of {beside}, not {self.steps} of both")
        mine, other = mean_of_half(got), mean_of_half(wanted)
        apart = first_apart(wanted, got)
        early = statistics.median(apart)
        bound = f", bound {early_bound:.0e}" if early_bound < 1 else ""
        words = (f"{name}: the mean of the second half's losses is {mine:.4f}, {beside} {other:.4f}: {mine / other - 1:+.2%}, "
                 f"bound {LATE_BOUND:.1%}; the first {len(apart)} are {early:.1e} apart by the median{bound}, "
                 f"{max(apart):.1e} at most")
        self.judge(abs(mine / other - 1) < LATE_BOUND and early <= early_bound, words)

    def on(self, device):
        return (f"cluster.device={device}", f"cluster.threads={min(8, os.cpu_count()) if device == 'cpu' else 1}")

    def curves(self):
        for kind in KINDS:
            in_f32 = {}
            for precision in EARLY_BOUNDS:
                self.curve(kind, precision, in_f32)

    def curve(self, kind, precision, in_f32):
        """Against the CPU's in the same precision: what rounding does to a curve is no fault of the GPU."""
        wanted, got, asked = {}, {}, f"train.precision={precision}"
        with self.check(f"{kind} {precision} on the CPU"):
            wanted, _ = self.train(kind, f"{kind}-{precision}-cpu", *self.on("cpu"), asked)
        if precision == "f32":
            in_f32 |= wanted
        with self.check(f"{kind} {precision}"):
            got, _ = self.train(kind, f"{kind}-{precision}", *self.on(self.device), asked)
            self.compare(f"{kind} {precision}", got, wanted, "the CPU's", EARLY_BOUNDS[precision])
            if precision != "f32" and len(in_f32) == self.steps:
                mine, other = (mean_of_half(losses) / mean_of_half(in_f32) - 1 for losses in (got, wanted))
                self.say("", f"against the CPU's in f32: {mine:+.2%}, the CPU's in {precision} {other:+.2%}")

    def staged(self):
        with self.check("two ranks"):
            both = ["cluster.communicator=staged"] if self.device == "cuda" else []
            one, two = (self.train("smlp", f"ranks{ranks}", f"cluster.device={self.device}", f"cluster.ranks={ranks}", *both)[0]
                        for ranks in (1, 2))
            apart = max(first_apart(one, two))
            self.judge(apart < STAGED_BOUND,
                       f"two ranks against one: the first {min(FIRST, self.steps)} losses are {apart:.1e} apart at most")

    def moves(self):
        whole = {}
        with self.check("undisturbed"):
            whole, _ = self.train("smlp", "whole", *self.on(self.device))
        for number, (first, second) in enumerate(((self.device, "cpu"), ("cpu", self.device)), 1):
            with self.check(f"{first} to {second}"):
                name, half = f"move{number}", self.steps // 2
                self.train("smlp", name, *self.on(first), steps=half)
                got, said = self.train("smlp", name, *self.on(second))
                if f"going on from checkpoint {half}" not in said:
                    raise Failure(f"the second run did not go on from checkpoint {half}")
                self.compare(f"{first} to {second}", got, whole, "undisturbed")
