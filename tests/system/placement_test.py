#!/usr/bin/env python3
"""Where ranks are on this host is what `smlp plan --placement` shows: bound to cores of their own when they fill the host,
and left alone when they outnumber its cores or leave room for another job."""
import os
import signal

import harness
from harness import smlp_json


def ranks_are_where_the_plan_says(place, run, ranks, bound, *settings):
    job = place.job(steps=100000, every=1000, ranks=ranks)
    job.write_text(job.read_text().replace("global_batch = 8", f"global_batch = {ranks}"))
    plan = smlp_json("plan", job, "--placement", *settings, cwd=place.path)
    assert plan["bound"] == bound and plan["starter"] == "mpirun", plan
    process = place.start(job, run, *settings)
    harness.wait_until(lambda: place.lines(run, "metrics.jsonl")[2:], 60, "three steps")
    for one in plan["ranks"]:
        words = (place.path / run / "heartbeats" / f"rank-{one['rank']:04d}").read_text().split()
        for thread in os.listdir(f"/proc/{words[4]}/task"):
            taken = sorted(os.sched_getaffinity(int(thread)))
            assert taken == (one["processors"] or sorted(os.sched_getaffinity(0))), (one, taken)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=30) == 75
    started = [line["detail"] for line in place.lines(run, "events.jsonl") if line["event"] == "attempt_started"]
    assert plan["binding"] in started[0], (plan, started)
    return plan


def a_job_that_fills_the_host_has_a_core_a_rank(place):
    count = len(os.sched_getaffinity(0))  # where hardware threads share cores, fewer ranks fill it
    ranks = next((n for n in range(count, 0, -1)
                  if smlp_json("plan", place.job(ranks=n), "--placement", "--set", f"train.global_batch={n}", cwd=place.path)["bound"]), 0)
    if ranks < 2:
        print("      not run: there is one core")
        return
    plan = ranks_are_where_the_plan_says(place, "full", ranks, True)
    taken = sum((one["processors"] for one in plan["ranks"]), [])
    assert len(taken) == len(set(taken)), plan
    ranks_are_where_the_plan_says(place, "off", ranks, False, "--set", "cluster.bind_cores=false")


def more_ranks_than_cores_are_not_bound(place):
    ranks_are_where_the_plan_says(place, "crowded", len(os.sched_getaffinity(0)) + 1, False)


if __name__ == "__main__":
    harness.main([a_job_that_fills_the_host_has_a_core_a_rank, more_ranks_than_cores_are_not_bound])
