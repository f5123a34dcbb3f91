#!/usr/bin/env python3
"""What a restart and a checkpoint cost in the demo job: from SIGKILL of a worker to the first new step beside a cold start
to its first step (at most 2 x), and the stall that training sees of a save beside the time of the steps between two (at
most 1 %). Prints the figures and ends with 1 where a bound is passed. From the repository root, after `make build`:

    scripts/measure_costs.py [--times N] [--every-steps N] [--build FOLDER]
"""
import argparse
import json
import os
import pathlib
import signal
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
RESTART_BOUND, STALL_BOUND = 2.0, 0.01


def lines(path):
    """Whole JSON lines; one that is just being written is left out."""
    text = path.read_text() if path.exists() else ""
    return [json.loads(line) for line in text[:text.rfind("\n") + 1].splitlines()]


def wait_for(condition, seconds, what):
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        if time.monotonic() > deadline:
            sys.exit(f"after {seconds} s still not: {what}")
        time.sleep(0.002)
    return found


class Run:
    """The demo job in a folder of its own, until it is stopped."""

    def __init__(self, smlp, folder, *settings):
        self.folder = folder
        self.began = time.time()
        command = [smlp, "run", "examples/demo.toml", "--run-dir", folder]
        command += [word for setting in settings for word in ("--set", setting)]
        self.process = subprocess.Popen(list(map(str, command)), cwd=ROOT, stdin=subprocess.DEVNULL,
                                        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.leave()

    def steps(self):
        return lines(self.folder / "metrics.jsonl")

    def first_step_of(self, attempt, seconds=300):
        return wait_for(lambda: next((line for line in self.steps() if line["attempt"] == attempt), None), seconds,
                        f"the first step of attempt {attempt}")

    def wait_for_step(self, step):
        wait_for(lambda: self.steps()[-1:] and self.steps()[-1]["step"] >= step, 600, f"step {step}")

    def kill_worker(self, rank):
        words = (self.folder / "heartbeats" / f"rank-{rank:04d}").read_text().split()
        os.kill(int(words[4]), signal.SIGKILL)
        return time.time()

    def leave(self):
        if self.process.poll() is not None:
            return
        for number in (signal.SIGTERM, signal.SIGTERM):  # the second: at once
            self.process.send_signal(number)
            time.sleep(0.2)
        self.process.wait(timeout=60)


def restart_costs(smlp, place, times):
    """Seconds of cold starts, and of restarts after the newest checkpoint: (cold, restarts)."""
    cold, restarts = [], []
    for number in range(times):
        with Run(smlp, place / f"restart-{number}") as run:
            cold.append(run.first_step_of(1)["time"] - run.began)
            run.wait_for_step(30)  # behind the first checkpoint
            wait_for(lambda: [event for event in lines(run.folder / "events.jsonl") if event["event"] == "checkpoint_published"],
                     60, "a checkpoint")
            killed = run.kill_worker(number % 2)
            restarts.append(run.first_step_of(2)["time"] - killed)
    return cold, restarts


def stall_share(smlp, place, every, saves):
    """Seconds that training waits for a save (median, longest), seconds of a step, and the share of all the run's time."""
    with Run(smlp, place / "stall", f"checkpoint.every_steps={every}", "train.steps=100000", "train.eval_every=0") as run:
        run.wait_for_step(every * saves + every // 2)
    steps = [line for line in run.steps() if line["step"] > 1]
    # The step that begins a save has its copy in its checkpoint phase; others have next to nothing there.
    waits = [line["phase_seconds"]["checkpoint"] for line in steps]
    stalls = sorted(waits, reverse=True)[:saves]
    seconds = [line["step_seconds"] for line in steps]
    return statistics.median(stalls), stalls[0], statistics.median(seconds), sum(waits) / sum(seconds)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=5)
    parser.add_argument("--every-steps", type=int, default=25, help="between saves; the demo has 25, the key 50")
    parser.add_argument("--build", type=pathlib.Path, default=ROOT / "build" / "bin")
    options = parser.parse_args()
    if not (ROOT / "demo" / "train.bin").exists():
        subprocess.run([ROOT / "scripts" / "demo_data.sh"], check=True, env={**os.environ, "SMLP": str(options.build / "smlp")})
    with tempfile.TemporaryDirectory(prefix="smlp-costs-") as folder:
        smlp, place = options.build / "smlp", pathlib.Path(folder)
        cold, restarts = restart_costs(smlp, place, options.times)
        ratio = statistics.median(restarts) / statistics.median(cold)
        print(f"cold start to its first step: {shown(cold)}")
        print(f"SIGKILL of a worker to the first new step: {shown(restarts)}")
        print(f"  {ratio:.2f} x a cold start, at most {RESTART_BOUND:g} x")
        typical, longest, step, share = stall_share(smlp, place, options.every_steps, 6)
        print(f"stall of a save: median {1e3 * typical:.2f} ms, longest {1e3 * longest:.2f} ms; a step: {1e3 * step:.1f} ms")
        print(f"  {100 * share:.3f} % of the time with a save every {options.every_steps} steps, at most {100 * STALL_BOUND:g} %")
    sys.exit(0 if ratio <= RESTART_BOUND and share <= STALL_BOUND else 1)


def shown(seconds):
    return f"median {statistics.median(seconds):.2f} s, {min(seconds):.2f} to {max(seconds):.2f} s of {len(seconds)}"


if __name__ == "__main__":
    main()
