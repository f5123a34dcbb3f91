#!/usr/bin/env python3
"""Many drills, one seed each, and the table of docs/reliability.md: `drills.py` goes on where it stopped. Each finished
drill adds a line to docs/results/drills.jsonl. Those with a node that is cut off are tests/slurm/drills.py."""
import argparse
import json
import os
import pathlib
import shutil
import statistics
import time

import harness

RESULTS = harness.ROOT / "docs" / "results" / "drills.jsonl"
DOCUMENT = harness.ROOT / "docs" / "reliability.md"
BEGIN, END = "<!-- made by tests/system/drills.py -->\n", "<!-- until here -->\n"

SETTINGS = dict(steps=160, every=20, micro_batch=2)  # 152 are needed where one of the two is full-disk
WATCHED = ["--set", "cluster.hang_floor_seconds=2", "--set", "cluster.replica_check_every=20"]
FAULTS = 2  # a drill


def finished():
    return [json.loads(line) for line in RESULTS.read_text().splitlines()] if RESULTS.exists() else []


def record(row):
    RESULTS.parent.mkdir(exist_ok=True)
    with open(RESULTS, "a") as out:
        out.write(json.dumps(row) + "\n")


def one_drill(place, job, seed):
    run = place.path / "drill"
    shutil.rmtree(run, ignore_errors=True)
    begun = time.monotonic()
    done = harness.smlp("drill", job, "--seed", seed, "--count", FAULTS, "--run-dir", run, "--undisturbed",
                        place.path / "undisturbed", *WATCHED, "--json", cwd=place.path, check=False, timeout=900)
    if done.returncode not in (0, 1):
        raise AssertionError(f"drill {seed} ended with {done.returncode}\n{done.stdout}\n{done.stderr}")
    told = json.loads(done.stdout)
    left = harness.processes_of(run)
    assert not left, f"drill {seed}: processes were left: {left}"
    row = dict(seed=seed, passed=told["passed"], problems=told["problems"], seconds=round(time.monotonic() - begun, 1),
               load=round(os.getloadavg()[0], 1), save_every=told["save_every"], faults=told["faults"])
    for fault in row["faults"]:
        for name in ("seconds_to_step", "seconds_to_new_step"):
            fault[name] = round(fault[name], 3)
    return row


def run_drills(count):
    done = {row["seed"] for row in finished()}
    todo = [seed for seed in range(1, count + 1) if seed not in done]
    if not todo:
        return
    with harness.Place() as place:
        job = place.job(**SETTINGS)
        place.run(job, "undisturbed", *WATCHED)
        for seed in todo:
            row = one_drill(place, job, seed)
            record(row)
            print(json.dumps({key: row[key] for key in ("seed", "passed", "seconds", "load", "problems")}),
                  [f"{fault['kind']}/{fault['phase']} {fault['seconds_to_step']}" for fault in row["faults"]], flush=True)
            if not row["passed"]:
                keep = pathlib.Path(f"/tmp/smlp-failed-drill-{seed}")
                shutil.rmtree(keep, ignore_errors=True)
                shutil.copytree(place.path / "drill", keep)
                print(f"its run is kept in {keep}", flush=True)


def table(rows):
    """Median and maximum by kind of fault, as lines of Markdown."""
    kinds = {}
    for row in rows:
        for fault in row["faults"]:
            kinds.setdefault(fault["kind"], []).append(fault)
    lines = ["| fault | drilled | to the next step, s: median | max | to a step never done before, s: median | max | steps lost: median | max | most allowed |",
             "|---|---|---|---|---|---|---|---|---|"]
    for kind, faults in sorted(kinds.items()):
        def numbers(name):
            return [fault[name] for fault in faults]
        cells = [kind, len(faults)]
        for name in ("seconds_to_step", "seconds_to_new_step"):
            cells += [f"{statistics.median(numbers(name)):.2f}", f"{max(numbers(name)):.2f}"]
        cells += [f"{statistics.median(numbers('steps_lost')):.0f}", max(numbers("steps_lost"))]
        cells += [max(numbers("steps_that_may_be_lost")) or "0"]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return lines


def processor():
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return os.uname().machine


def write_table(rows):
    faults = sum(len(row["faults"]) for row in rows)
    loads = [row["load"] for row in rows]
    failed = [row for row in rows if not row["passed"]]
    words = [f"{len(rows)} drills, {faults} faults; {len(rows) - len(failed)} drills passed"
             + (f", those of seed {', '.join(str(row['seed']) for row in failed)} did not" if failed else "") + ".",
             f"Machine: {processor()}, {os.cpu_count()} cores; load average meanwhile: "
             f"{min(loads)} to {max(loads)}, median {statistics.median(loads):.1f}.", "", *table(rows), ""]
    text = DOCUMENT.read_text()
    head, rest = text.split(BEGIN)
    tail = rest.split(END)[1]
    DOCUMENT.write_text(head + BEGIN + "\n".join(words) + END + tail)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--drills", type=int, default=92, help="seeds 1 to this one")
    parser.add_argument("--table", action="store_true", help="only write the table of what is there")
    options = parser.parse_args()
    if not options.table:
        run_drills(options.drills)
    write_table(finished())
