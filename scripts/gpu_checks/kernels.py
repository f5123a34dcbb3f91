"""Where the time of one step goes, kernel by kernel, and which of cuBLASLt's algorithms its products take."""
import collections
import csv
import re

from gpu_checks.programs import NotHere, json_in
from gpu_checks.speed import PAPER, SMALL_JOB

SECONDS = dict(profile=150, log=90)
# Cut down so that a step has some hundreds of kernels, each at its full size; no graphs, whose kernels profilers may join.
PROFILED = {
    "sMLP": ("small-smlp.toml", "model.dense_blocks=2", "model.sparse_blocks=1", "model.experts=32",
             "routing.group_sequences=4", "train.global_batch=32", "train.micro_batch=32"),
    "Transformer": ("dense-transformer.toml", "model.dense_blocks=4", "train.global_batch=16", "train.micro_batch=16"),
}
MOST_LAUNCHES, MOST_NAMED, MOST_CALLS, MOST_LOG_BYTES = 1500, 25, 400, 60_000_000
UPDATE = "AdamW<"  # of the name of the kernel that ends a step, many times where there are many parameters
NANOSECONDS = {"ns": 1, "nsecond": 1, "us": 1e3, "usecond": 1e3, "ms": 1e6, "msecond": 1e6, "s": 1e9, "second": 1e9}
NSYS_LINE = re.compile(r"^\s*[\d.]+\s+([\d,]+)\s+([\d,]+)\s+(?:[\d.,]+\s+){5}(\S.*)$", re.MULTILINE)


def launches_in(text):
    """Names and seconds, in order, of what ncu wrote as CSV."""
    rows = csv.DictReader(line for line in text.splitlines() if line.startswith('"'))
    return [(row["Kernel Name"], float(row["Metric Value"].replace(",", "")) * NANOSECONDS[row["Metric Unit"]] / 1e9)
            for row in rows if row.get("Metric Name") == "gpu__time_duration.sum"]


def one_step(launches):
    """Those of the second step, and that it is one; all where no two updates are among them."""
    ends = [i for i, (name, _) in enumerate(launches[:-1]) if UPDATE in name and UPDATE not in launches[i + 1][0]]
    return (launches[ends[0] + 1:ends[1] + 1], True) if len(ends) > 1 else (launches, False)


def table_of(launches):
    """Calls and seconds by name, the longest first."""
    table = collections.defaultdict(lambda: [0, 0.0])
    for name, seconds in launches:
        table[name][0] += 1
        table[name][1] += seconds
    return sorted(((name, calls, seconds) for name, (calls, seconds) in table.items()), key=lambda line: -line[2])


def table_of_nsys(text):
    def number(digits):
        return int(digits.replace(",", ""))
    kernels = text.partition("cuda_gpu_kern_sum")[2].partition("\n **")[0]
    return [(name.strip(), number(calls), number(total) / 1e9) for total, calls, name in NSYS_LINE.findall(kernels)]


def short(name):
    """A kernel's name without what every one of ours or of NVIDIA's has."""
    return re.sub(r"smlp::cuda::|\(anonymous namespace\)::|<unnamed>::|^void ", "", name)[:100]


def products_in(log):
    """How often each kind of product was asked for, in cuBLASLt's own log: addresses, times and processes are left out."""
    calls = collections.Counter()
    for line in log:
        if "cublasLtMatmul]" in line or "cublasLtMatmul(" in line:
            calls[re.sub(r"\b0[xX][0-9a-fA-F]+", "*", line.partition("cublasLtMatmul")[2].lstrip("](").strip())[:1200]] += 1
    return calls.most_common(MOST_CALLS)


class ProfileParts:
    def bench_words(self, model):
        job, *settings = PROFILED[model]
        every = (f"cluster.device={self.device}", "cluster.ranks=1", "cluster.expert_ranks=1", "cluster.cuda_graphs=off",
                 "train.precision=bf16", "model.dropout=0", *settings, *(SMALL_JOB if self.rehearsal else ()))
        words = [word for setting in every for word in ("--set", setting)]
        return [self.binaries / "smlp", "bench", "step", "--job", PAPER / job, *words, "--json"]

    def profile(self):
        for model in PROFILED:
            with self.check(f"kernels of {model}"):
                self.tell_kernel_times(model)
        for model in PROFILED:
            with self.check(f"cuBLASLt's log of {model}"):
                self.tell_products(model)

    def tell_kernel_times(self, model):
        """By ncu, which can tell one step from the next; else by nsys."""
        ncu, nsys = map(self.profiler_path, ("ncu", "nsys"))
        if not ncu and not nsys:
            raise NotHere("neither ncu nor nsys is here")
        table, what = (self.by_ncu(ncu, model) if ncu else ((), ""))
        if not table and nsys:
            table, what = self.by_nsys(nsys, model)
        if not table:
            raise NotHere(f"{' and '.join(filter(None, (ncu, nsys)))} told no kernel's time (log.txt)")
        whole, calls = sum(seconds for _, _, seconds in table), sum(calls for _, calls, _ in table)
        self.record.keep(part=self.part, model=model, settings=PROFILED[model], what=what, kernels=table)
        self.say("measured", f"{model}, {what}: {whole * 1e3:.2f} ms in {calls} kernels")
        for name, number, seconds in table[:MOST_NAMED]:
            self.say("", f"{seconds * 1e3:9.3f} ms {seconds / whole:6.1%} {number:5} x {short(name)}")

    def by_ncu(self, tool, model):
        report = self.folder / "ncu.csv"
        report.unlink(missing_ok=True)
        # Clocks stay as they are; a cache has what the kernel before left in it; a launch too many ends the program.
        words = [tool, "--clock-control", "none", "--cache-control", "none", "--target-processes", "all",
                 "--metrics", "gpu__time_duration.sum", "--print-units", "base", "--print-kernel-base", "demangled", "--csv",
                 "--log-file", report, "--launch-count", MOST_LAUNCHES, "--kill", "yes"]
        outcome = self.programs.run(*words, *self.bench_words(model), seconds=SECONDS["profile"], cwd=self.folder)
        text = report.read_text(errors="replace") if report.exists() else ""
        self.record.note("\n".join(line for line in text.splitlines() if not line.startswith('"')))
        launches, whole = one_step(launches_in(text))
        if not launches:
            self.say("note", f"ncu: {outcome.sentence()}")
        return table_of(launches), "one step" if whole else "all launches that ncu saw, among which it found no step"

    def by_nsys(self, tool, model):
        words = [tool, "profile", "--trace=cuda", "--sample=none", "--cpuctxsw=none", "--stats=true", "--force-overwrite=true",
                 "--output", self.folder / "nsys"]
        outcome = self.programs.run(*words, *self.bench_words(model), seconds=SECONDS["profile"], cwd=self.folder)
        return table_of_nsys(outcome.text), "all steps of a benchmark, and its large products"

    def tell_products(self, model):
        log = self.folder / f"cublaslt-{model}.log"
        variables = ("CUBLASLT_LOG_LEVEL=5", f"CUBLASLT_LOG_FILE={log}")
        words = ("env", *variables, *self.bench_words(model))
        outcome = self.programs.run(*words, seconds=SECONDS["log"], cwd=self.folder)
        outcome.name = "smlp bench"
        found = json_in(outcome.demand())
        if not log.exists():
            raise NotHere("cuBLASLt wrote none: this build or job asks it for nothing")
        with open(log, errors="replace") as lines:
            said = lines.readlines(MOST_LOG_BYTES)
        products = products_in(said)
        if not products:
            self.record.note("".join(said[:100]))
        self.record.keep(part=self.part, model=model, settings=PROFILED[model], steps=found["steps"], cublaslt=products)
        self.say("measured", f"{model}: {len(products)} kinds of calls of cuBLASLt (results.jsonl), by its log of "
                             f"{log.stat().st_size / 1e6:.1f} MB")
        log.unlink()
