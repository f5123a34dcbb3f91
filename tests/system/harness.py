"""What the system tests share: a small job on text made here, run by the real binaries in a folder of its own."""
import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
BIN = pathlib.Path(os.environ.get("SMLP_BIN", ROOT / "build" / "bin"))

JOB = """
name = "{name}"
seed = 5
[model]
kind = "smlp"
context = 32
width = 32
hidden = 64
dense_blocks = 2
sparse_blocks = 1
experts = 4
dropout = 0.1
[data]
tokenizer = "bytes"
train = ["train"]
valid = ["valid"]
[schedule]
warmup_steps = 10
[train]
steps = {steps}
global_batch = 8
micro_batch = {micro_batch}
precision = "{precision}"
eval_every = {eval_every}
[checkpoint]
every_steps = {every}
keep_last = {keep_last}
[cluster]
ranks = {ranks}
hang_floor_seconds = 15
"""
DEFAULTS = dict(name="job", steps=60, micro_batch=1, precision="f32", eval_every=0, every=5, keep_last=3, ranks=2)


def smlp(*arguments, cwd=None, check=True, timeout=120):
    """Runs `smlp …` to its end; the completed process with text output."""
    command = [str(BIN / "smlp"), *map(str, arguments)]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, errors="replace", timeout=timeout, stdin=subprocess.DEVNULL)
    if check and done.returncode != 0:
        raise AssertionError(f"{' '.join(command)} ended with {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done


def smlp_json(*arguments, **options):
    return json.loads(smlp(*arguments, "--json", **options).stdout)


def train_on(count, run, attempt, cwd):
    """Trains in a run directory without a supervisor, on so many ranks whatever its job says."""
    environment = {**os.environ, "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    command = ["mpirun", "--oversubscribe", "-n", str(count), str(BIN / "smlp-worker"), "train", "--run-dir", str(run),
               "--attempt", str(attempt)]
    subprocess.run(command, check=True, timeout=120, env=environment, cwd=cwd, stdin=subprocess.DEVNULL)


class Place:
    """A temporary folder, in `parent` if given, with prepared data; `with Place() as place`."""

    def __init__(self, parent=None):
        self.folder = tempfile.TemporaryDirectory(prefix="smlp-test-", dir=parent)
        self.path = pathlib.Path(self.folder.name)

    def __enter__(self):
        words = "the a sparse dense token expert gate block layer of to and in is on routes mixes learns".split()
        chooser = random.Random(3)
        text = " ".join(chooser.choice(words) for _ in range(20000))
        (self.path / "train.txt").write_text(text[:90000])
        (self.path / "valid.txt").write_text(text[90000:96000])
        for part in ("train", "valid"):
            smlp("data", "prepare", "--input", f"{part}.txt", "--tokenizer", "bytes", "--output", part, cwd=self.path)
        return self

    def __exit__(self, *_):
        # What a failed test left running would write on, and hide why it failed.
        deadline = time.monotonic() + 10
        while (left := processes_of(self.path)) and time.monotonic() < deadline:
            for pid in left:
                kill(pid)
            time.sleep(0.05)
        self.folder.cleanup()

    def job(self, **changes):
        settings = {**DEFAULTS, **changes}
        path = self.path / f"{settings['name']}.toml"
        path.write_text(JOB.format(**settings))
        return path

    def start(self, job, run, *more):
        """`smlp run` in the background, output to RUN.out."""
        with open(self.path / f"{run}.out", "ab") as output:
            return subprocess.Popen([str(BIN / "smlp"), "run", str(job), "--run-dir", str(run), *map(str, more)],
                                    cwd=self.path, stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)

    def run(self, job, run, *more, expect=0, timeout=120):
        done = smlp("run", job, "--run-dir", run, *more, cwd=self.path, check=False, timeout=timeout)
        if done.returncode != expect:
            raise AssertionError(f"run {run} ended with {done.returncode}, not {expect}\n{done.stdout}\n{done.stderr}")
        return done

    def lines(self, run, name):
        return [json.loads(line) for line in self.whole_lines(run, name)]

    def whole_lines(self, run, name):
        """Lines of a .jsonl file of a run, but the one being written: a reader sees an append page by page."""
        path = self.path / run / name
        text = path.read_text() if path.exists() else ""
        return text[:text.rfind("\n") + 1].splitlines()


def processes_of(folder):
    """Process ids of smlp, mpirun and workers whose command line names this folder."""
    found = {}
    for entry in pathlib.Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            state = (entry / "stat").read_text().rsplit(")", 1)[1].split()[0]
        except (OSError, IndexError):
            continue
        if str(folder) in command and state != "Z" and "python" not in command.split(" ", 1)[0]:
            found[int(entry.name)] = command
    return found


def wait_until(condition, seconds, what):
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"after {seconds} s still not: {what() if callable(what) else what}")
        time.sleep(0.02)


def kill(pid, number=signal.SIGKILL):
    try:
        os.kill(pid, number)
        return True
    except ProcessLookupError:
        return False


def main(tests, parent=None):
    """Runs the given functions, each in a Place (in `parent` if given), and closes with one line that CI reads."""
    failed = 0
    for test in tests:
        try:
            with Place(parent) as place:
                started = time.monotonic()
                test(place)
                print(f"ok    {test.__name__} ({time.monotonic() - started:.1f} s)", flush=True)
        except Exception as error:  # a test that breaks is a failed test; the others still run
            failed += 1
            print(f"FAILED {test.__name__}: {error}", flush=True)
    print(f"{len(tests) - failed} passed, {failed} failed")
    sys.exit(1 if failed else 0)
