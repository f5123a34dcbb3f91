#!/usr/bin/env python3
"""The paper's comparison in small: every model at equal multiply-adds a token, tokens, batch and schedule, several seeds each.

    scripts/paper_comparison.py --text ../shared/data/books          trains what is not done yet, then reports
    scripts/paper_comparison.py --status                             what is done, under way and to come
    scripts/paper_comparison.py --report                             tables and figures alone, from the results there are

Models are the job files of examples/paper/scaled/. Data, runs and logs land in runs/paper/; each finished run leaves its raw
results in docs/results/paper/NAME-seed-N.json, and the report tables.md and figure*.svg beside them. It goes on where it
stopped: finished runs are skipped, an interrupted one resumes from its newest checkpoint. Ctrl-C or SIGTERM: the runs under
way save and leave. Needs build/bin/smlp (`make build`); figures need gnuplot.
"""
import argparse
import json
import os
import pathlib
import queue
import shutil
import signal
import subprocess
import sys
import threading
import time

sys.dont_write_bytecode = True   # no __pycache__ in the tree
import paper_report  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parents[1]
JOBS = pathlib.Path("examples/paper/scaled")
KEPT_RESULTS = "docs/results/paper"
REFERENCE = "dense-transformer"   # sets the multiply-adds of a token
MODELS = ["small-smlp", "small-hash", "small-base", "small-switch", "small-gshard", "dense-gmlp", "dense-transformer",
          "figure7-smlp-partial", "table7-gmlp-moe-8", "table7-gmlp-moe-16", "figure7-smlp-leaky", "figure4-transformer-1-head",
          "figure4-gmlp-4-heads"]
MOST_APART = 0.02                 # of multiply-adds
# A token passes one expert of the shape of the dense model's block; the plan counts each expert's mixing over all positions.
EQUAL_BY_SHAPE = {"table7-gmlp-moe-8": "dense-gmlp", "table7-gmlp-moe-16": "dense-gmlp"}
CALL_AGAIN = 75                   # smlp's code for "saved and left"
PATIENCE = 900                    # seconds: a run that others leave no processor is not one that hangs


def say(text):
    print(time.strftime("%H:%M:%S ") + text, flush=True)


class Stopped(Exception):
    pass


class Driver:
    def __init__(self, options):
        self.options = options
        self.smlp = pathlib.Path(options.bin) / "smlp"
        self.work, self.results = pathlib.Path(options.work), pathlib.Path(options.results)
        self.stopping = threading.Event()
        self.children = set()
        self.guard = threading.Lock()

    def call(self, *words, check=True):
        done = subprocess.run([str(self.smlp), *map(str, words)], capture_output=True, text=True, stdin=subprocess.DEVNULL)
        if check and done.returncode != 0:
            raise SystemExit(f"smlp {' '.join(map(str, words))} ended with {done.returncode}: {done.stderr.strip()}")
        return done

    # ---- data ----------------------------------------------------------------------------------------------------
    def prepare(self):
        data = self.work / "data"
        marker = data / "prepared.json"
        wanted = {"text": str(self.options.text), "vocabulary": self.options.vocabulary}
        if marker.exists():
            if json.loads(marker.read_text()) != wanted:
                raise SystemExit(f"{data} was prepared from other text: {marker.read_text()}; remove it, or take another --work")
            return
        if not self.options.text:
            raise SystemExit("say where the text is: --text FOLDER, with train.txt and valid.txt in it")
        text = pathlib.Path(self.options.text)
        for part in ("train", "valid"):
            if not (text / f"{part}.txt").is_file():
                raise SystemExit(f"{text}/{part}.txt is not there: --text wants a folder with train.txt and valid.txt")
        data.mkdir(parents=True, exist_ok=True)
        say(f"training a tokenizer of {self.options.vocabulary} tokens, turning text into tokens")
        shutil.rmtree(data / "bpe", ignore_errors=True)
        self.call("data", "train-tokenizer", "--input", text / "train.txt", "--vocabulary", self.options.vocabulary, "--output", data / "bpe")
        for part in ("train", "valid"):
            self.call("data", "prepare", "--input", text / f"{part}.txt", "--tokenizer", data / "bpe", "--output", data / part)
        marker.write_text(json.dumps(wanted))

    def overrides(self, seed):
        data = self.work / "data"
        values = {"seed": seed, "data.tokenizer": json.dumps(str(data / "bpe")), "data.train": json.dumps([str(data / "train")]),
                  "data.valid": json.dumps([str(data / "valid")]),
                  "cluster.hang_floor_seconds": PATIENCE}
        if self.options.steps:
            values["train.steps"] = self.options.steps
        if self.options.eval_every:
            values["train.eval_every"] = self.options.eval_every
        return [word for key, value in values.items() for word in ("--set", f"{key}={value}")]

    # ---- what there is to do ---------------------------------------------------------------------------------------
    def check_equal_work(self):
        macs = {name: json.loads(self.call("plan", JOBS / f"{name}.toml", "--json").stdout)["forward_macs"]["paper"]
                for name in dict.fromkeys([REFERENCE, *self.options.models]) if name not in EQUAL_BY_SHAPE}
        for name, count in macs.items():
            apart = count / macs[REFERENCE] - 1
            if abs(apart) > MOST_APART:
                raise SystemExit(f"{name} takes {100 * apart:+.1f} % multiply-adds a token against {REFERENCE}: the models would "
                                 f"not compare; adjust blocks or hidden width in {JOBS}/{name}.toml")

    def result_file(self, name, seed):
        return self.results / f"{name}-seed-{seed}.json"

    def run_folder(self, name, seed):
        return self.work / f"{name}-seed-{seed}"

    def is_done(self, name, seed):
        file = self.result_file(name, seed)
        return file.exists() and (not self.options.steps or json.loads(file.read_text())["steps"] == self.options.steps)

    # ---- one run -----------------------------------------------------------------------------------------------------
    def train(self, name, seed):
        folder = self.run_folder(name, seed)
        folder.parent.mkdir(parents=True, exist_ok=True)
        known = self.processor_seconds(folder) if folder.exists() else 0.0
        self.seconds_file(folder).unlink(missing_ok=True)
        words = [str(self.smlp), "run", str(JOBS / f"{name}.toml"), "--run-dir", str(folder), *self.overrides(seed)]
        with open(f"{folder}.out", "ab") as output, self.guard:
            if self.stopping.is_set():
                raise Stopped
            # A session of its own: Ctrl-C reaches it through us, once.
            child = subprocess.Popen(words, stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, start_new_session=True)
            self.children.add(child)
        code = self.wait(child, folder, known)
        with self.guard:
            self.children.discard(child)
        if code == CALL_AGAIN and self.stopping.is_set():
            raise Stopped
        if code != 0:
            last = pathlib.Path(f"{folder}.out").read_text(errors="replace").strip().splitlines()[-1:]
            raise RuntimeError(f"{name}, seed {seed}, ended with {code}: {' '.join(last)} ({folder}.out)")

    # Processor seconds of a run over all its parts: unlike the clock's they are the same on a shared machine.
    def seconds_file(self, folder):
        return pathlib.Path(f"{folder}.processor_seconds")

    def processor_seconds(self, folder):
        """None where a part of the run was killed together with this driver, so that nobody counted it."""
        file = self.seconds_file(folder)
        return float(file.read_text()) if file.exists() else None

    def wait(self, child, folder, known):
        _, status, used = os.wait4(child.pid, 0)   # of the launcher and all it waited for: mpirun, workers
        child.returncode = os.waitstatus_to_exitcode(status)
        if known is not None:
            self.seconds_file(folder).write_text(f"{known + used.ru_utime + used.ru_stime:.2f}")
        return child.returncode

    def collect(self, name, seed):
        """Raw results of a finished run, small enough to keep for good."""
        folder = self.run_folder(name, seed)
        facts = json.loads(self.call("compare", folder, "--json").stdout)["runs"][0]
        whole = json.loads(self.call("eval", folder, "--data", self.work / "data" / "valid", "--json").stdout)
        losses = {}
        agreement = []
        for line in (folder / "metrics.jsonl").read_text().splitlines():
            try:
                step = json.loads(line)
            except ValueError:
                continue
            if not isinstance(step.get("step"), int) or not isinstance(step.get("loss"), float):
                continue
            losses[step["step"]] = step["loss"]
            if isinstance(step.get("routing_agreement"), float):
                agreement.append([step["step"], round(step["routing_agreement"], 5)])
        every = max(1, len(losses) // 128)
        curve = []
        steps = sorted(losses)
        for first in range(0, len(steps), every):
            part = steps[first:first + every]
            curve.append([part[-1], round(sum(losses[s] for s in part) / len(part), 5)])
        keep = ("kind", "parameters", "non_expert_parameters", "expert_parameters", "experts", "forward_macs_per_token", "steps",
                "step_tokens", "training_seconds", "tokens_per_second", "expert_balance", "dropped_share", "restarts")
        result = {"name": name, "seed": seed, **{key: facts[key] for key in keep},
                  "processor_seconds": self.processor_seconds(folder), "tokens": facts["step"] * facts["step_tokens"],
                  "validation": {"loss": whole["loss"], "perplexity": whole["perplexity"], "bits_per_byte": whole["bits_per_byte"],
                                 "tokens": whole["tokens"]},
                  "evaluations": [[e["step"], round(e["seconds"], 3), round(e["loss"], 6)] for e in facts["evaluations"]],
                  "training_losses": curve, "routing_agreement": agreement, "runs_at_once": self.options.jobs,
                  "processor": processor(), "version": self.call("--version").stdout.strip(),
                  "job": (JOBS / f"{name}.toml").as_posix(), "fingerprint": fingerprint(folder)}
        self.results.mkdir(parents=True, exist_ok=True)
        file = self.result_file(name, seed)
        beside = file.with_suffix(".tmp")
        beside.write_text(paper_report.compact_json(result))
        beside.replace(file)
        return result

    def work_off(self, tasks, failures):
        while not self.stopping.is_set():
            try:
                name, seed = tasks.get_nowait()
            except queue.Empty:
                return
            started = time.monotonic()
            say(f"{name}, seed {seed}: {'goes on' if self.run_folder(name, seed).exists() else 'begins'}")
            try:
                self.train(name, seed)
                result = self.collect(name, seed)
            except Stopped:
                say(f"{name}, seed {seed}: saved, to go on later")
                return
            except (RuntimeError, SystemExit) as error:
                failures.append(str(error))
                say(f"FAILED {error}")
                continue
            say(f"{name}, seed {seed}: perplexity {result['validation']['perplexity']:.2f} after {(time.monotonic() - started) / 60:.1f} minutes")

    def stop(self, *_):
        with self.guard:
            first = not self.stopping.is_set()
            self.stopping.set()
            for child in self.children:
                child.send_signal(signal.SIGTERM)
        if first:
            say("stopping: the runs under way save and leave")

    def run(self):
        self.check_equal_work()
        self.prepare()
        tasks = queue.Queue()
        for seed in self.options.seeds:
            for name in self.options.models:
                if not self.is_done(name, seed):
                    tasks.put((name, seed))
        if tasks.empty():
            say("every run is done")
            return 0
        say(f"{tasks.qsize()} runs to do, {self.options.jobs} at once")
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self.stop)
        failures = []
        workers = [threading.Thread(target=self.work_off, args=(tasks, failures)) for _ in range(self.options.jobs)]
        for worker in workers:
            worker.start()
        while any(worker.is_alive() for worker in workers):   # a join would keep signals waiting
            time.sleep(0.2)
        if self.stopping.is_set():
            return CALL_AGAIN
        return 1 if failures else 0

    def status(self):
        for name in self.options.models:
            states = []
            for seed in self.options.seeds:
                file = self.result_file(name, seed)
                if file.exists():
                    states.append(f"{json.loads(file.read_text())['validation']['perplexity']:.2f}")
                elif self.run_folder(name, seed).exists():
                    status = self.call("status", self.run_folder(name, seed), "--json", check=False)
                    states.append(f"step {json.loads(status.stdout)['step']}" if status.returncode == 0 else "begun")
                else:
                    states.append("-")
            print(f"{name:30} " + "  ".join(f"{state:>10}" for state in states))
        return 0


def processor():
    try:
        names = [line.split(":", 1)[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")]
        return names[0] if names else ""
    except OSError:
        return ""


def fingerprint(folder):
    return json.loads((folder / "run.json").read_text()).get("fingerprint", "")


def from_project(path):
    """The same words for the same folder, whoever asks: a run knows its data by them."""
    return path.relative_to(ROOT) if path.is_relative_to(ROOT) else path


def numbers(text):
    return [int(part) for part in text.split(",")]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", default="", help="folder with train.txt and valid.txt; needed until the data is prepared")
    parser.add_argument("--models", type=lambda t: t.split(","), default=MODELS, help="a,b: these alone")
    parser.add_argument("--seeds", type=numbers, default=[1, 2, 3])
    parser.add_argument("--jobs", type=int, default=min(2, os.cpu_count() or 1), help="runs at once, one core each (2)")
    parser.add_argument("--steps", type=int, default=0, help="in place of the jobs' own, to try things out")
    parser.add_argument("--eval-every", type=int, default=0)
    parser.add_argument("--vocabulary", type=int, default=4096)
    parser.add_argument("--work", default="runs/paper")
    parser.add_argument("--results", default=KEPT_RESULTS)
    parser.add_argument("--bin", default=os.environ.get("SMLP_BIN", "build/bin"))
    parser.add_argument("--status", action="store_true")
    parser.add_argument("--report", action="store_true")
    options = parser.parse_args()
    if options.steps and pathlib.Path(options.results) == pathlib.Path(KEPT_RESULTS):
        parser.error(f"--steps tries things out: name another folder by --results than {KEPT_RESULTS}, whose results it would replace")
    for path in ("text", "work", "results", "bin"):
        given = pathlib.Path(getattr(options, path))
        if getattr(options, path) and (given.exists() or path == "text"):
            setattr(options, path, str(from_project(given.resolve())))   # as seen from where this was started
    os.chdir(ROOT)
    unknown = [name for name in options.models if not (JOBS / f"{name}.toml").is_file()]
    if unknown:
        parser.error(f"there is no {JOBS}/{unknown[0]}.toml")
    driver = Driver(options)
    code = 0
    if options.status:
        return driver.status()
    if not options.report:
        code = driver.run()
    if code != CALL_AGAIN:
        paper_report.write(pathlib.Path(options.results))
    return code


if __name__ == "__main__":
    sys.exit(main())
