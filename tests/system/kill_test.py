#!/usr/bin/env python3
"""SIGKILL of a random process of a job at random moments: nothing lost, nothing wrong, no orphan, and the end
bit-identical to the undisturbed run. `kill_test.py --runs 50 --seed 1 --table FILE` is the full experiment."""
import argparse
import json
import random
import time

import harness


def kill_somebody(place, run, job, chooser):
    """One random process of the running job, launcher included; its kind."""
    folder = str(place.path / run)
    found = harness.processes_of(folder)
    if not found:
        return None
    victim = chooser.choice(sorted(found))
    command = found[victim]
    kind = "worker" if "smlp-worker train" in command and "mpirun" not in command else (
        "mpirun" if "mpirun" in command else "launcher")
    return kind if harness.kill(victim) else None


def disturbed_run(place, job, run, chooser, longest):
    """Starts the job again until it is done, killing up to three times on the way. The kinds that were killed."""
    kills, killed = chooser.randint(1, 3), []
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        process = place.start(job, place.path / run)
        while process.poll() is None and len(killed) < kills:
            time.sleep(chooser.uniform(0, longest))
            if process.poll() is None:
                kind = kill_somebody(place, run, job, chooser)
                if kind:
                    killed.append(kind)
        try:
            code = process.wait(timeout=max(1, deadline - time.monotonic()))
        except Exception:
            process.kill()
            raise AssertionError(f"{run} hangs; killed: {killed}")
        if code == 0:
            return killed
        # Killed itself, refused for a moment, or given up after three attempts that were killed before any progress.
        assert code in (-9, 75, 137), f"{run} ended with {code}; killed: {killed}"
    raise AssertionError(f"{run} is not done after 120 s; killed: {killed}")


def experiment(place, runs, seed, table=None):
    # A slow enough run that kills fall everywhere; a checkpoint every other step, so many fall into a write.
    job = place.job(steps=60, every=2)
    started = time.monotonic()
    place.run(job, place.path / "undisturbed")
    longest = time.monotonic() - started
    final = "checkpoints/step-00000060"
    rows = []
    for number in range(runs):
        chooser = random.Random(seed * 1000 + number)
        run = f"run{number}"
        begun = time.monotonic()
        killed = []
        while not killed:  # done before the first kill: once more
            harness.subprocess.run(["rm", "-rf", str(place.path / run)], check=True)
            killed = disturbed_run(place, job, run, chooser, longest)
        left = harness.processes_of(str(place.path / run))
        assert not left, f"{run}: processes were left behind: {left}"
        harness.smlp("checkpoint", "verify", place.path / run / final)
        harness.smlp("checkpoint", "diff", place.path / "undisturbed" / final, place.path / run / final)
        rejected = [e for e in place.lines(run, "events.jsonl") if e["event"] == "checkpoint_rejected"]
        assert not rejected, f"{run}: a kill left a checkpoint under its final name that did not hold: {rejected}"
        attempts = len(place.lines(run, "attempts.jsonl"))
        row = dict(run=number, killed=killed, attempts=attempts, rejected=len(rejected),
                   seconds=round(time.monotonic() - begun, 2), identical=True)
        rows.append(row)
        if table:
            with open(table, "a") as out:
                out.write(json.dumps(row) + "\n")
        harness.subprocess.run(["rm", "-rf", str(place.path / run)], check=True)
    return rows


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--table")
    options = parser.parse_args()

    def every_killed_run_ends_as_the_undisturbed_one(place):
        for row in experiment(place, options.runs, options.seed, options.table):
            print("     ", json.dumps(row), flush=True)

    harness.main([every_killed_run_ends_as_the_undisturbed_one])
