#!/usr/bin/env python3
"""Drills with a node that is cut off from its network at a step that follows from the seed: `drills.py --drills 8`. Its
processes go on, and it comes back before the run ends. Results: docs/results/drills.jsonl, as tests/system/drills.py."""
import argparse
import os
import pathlib
import random
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "system"))
import drills  # noqa: E402
from cluster import Cluster, why_not  # noqa: E402
from scenarios import DEFAULTS, Stage, now  # noqa: E402

STEPS, EVERY = DEFAULTS["steps"], DEFAULTS["every"]
PATIENCE = 120


def one_drill(seed):
    begun, chooser = time.monotonic(), random.Random(seed)
    planned = chooser.randint(2 * EVERY, STEPS - 2 * EVERY)
    with Cluster(5) as cluster, Stage(cluster) as stage:
        job = stage.submit(stage.job(spare_nodes=1))
        stage.wait_for_step(planned, timeout=PATIENCE)
        victims = [node for node in stage.nodes_of_workers() if node != stage.supervisor_node()]
        victim, began = chooser.choice(victims), now()
        rank = stage.nodes_of_workers().index(victim)
        cluster.cut(victim)
        at = stage.newest_step()["step"]
        stage.wait_for_step(1, timeout=PATIENCE, attempt=2)
        last, first = stage.restart_of(attempt=2)
        stage.wait_for_step(last + 1, timeout=PATIENCE, attempt=2)
        again = [line for line in stage.steps() if line["attempt"] == 2]
        cluster.join(victim)
        ended = stage.wait_for_end(job)
        problems = []
        if ended["Restarts"] != "0" or {line["attempt"] for line in stage.steps()} != {1, 2}:
            problems.append(f"more than one attempt ended: {ended}")
        if last - first + 1 > 2 * EVERY:
            problems.append(f"back from step {last} to {first}")
        stage.is_as_undisturbed()
        stage.nothing_is_left()
        noticed = stage.lines("run", "attempts.jsonl")[0]["reason"]
    fault = dict(kind="cut-off", phase="step", rank=rank, planned_step=planned, step=at, attempt=1,
                 seconds_to_step=round(again[0]["time"] - began, 3),
                 seconds_to_new_step=round(next(l["time"] for l in again if l["step"] > last) - began, 3),
                 first_step=first, steps_lost=max(0, last - first + 1), steps_that_may_be_lost=2 * EVERY, noticed=noticed)
    return dict(seed=seed, passed=not problems, problems=problems, seconds=round(time.monotonic() - begun, 1),
                load=round(os.getloadavg()[0], 1), save_every=EVERY, faults=[fault])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--drills", type=int, default=8)
    parser.add_argument("--first", type=int, default=1001, help="seed of the first")
    options = parser.parse_args()
    reason = why_not()
    if reason:
        sys.exit(f"no SLURM for drills here: {reason}")
    done = {row["seed"] for row in drills.finished()}
    for number in range(options.first, options.first + options.drills):
        if number in done:
            continue
        result = one_drill(number)
        drills.record(result)
        print(result, flush=True)
    drills.write_table(drills.finished())
