#!/usr/bin/env python3
"""checkpoint.auto: the interval that the real programs choose is Young's and Daly's, of the cost that they measured and of
the failures that the run has had, restarts included, and saves come at it."""
import json
import math
import statistics

import harness

LEAST, MOST = 0.1, 3600
AUTOMATIC = ["--set", "checkpoint.auto=true", "--set", f"checkpoint.auto_least_seconds={LEAST}", "--set",
             f"checkpoint.auto_most_seconds={MOST}"]
ASSUMED = 24 * 3600  # seconds in which one failure is taken to have been seen before


def events(place, kind):
    return [event for event in place.lines("run", "events.jsonl") if event["event"] == kind]


def kept(place):
    return json.loads((place.path / "run" / "save_intervals.json").read_text())["shared"]


def best(cost, save_seconds, failures):
    young = math.sqrt(2 * cost * ASSUMED / (failures + 1))
    return min(max(young, 2 * save_seconds, LEAST), MOST)


def expect_near(value, wanted, share=0.02):
    assert abs(value - wanted) <= share * wanted, (value, wanted)


def each_failure_brings_saves_closer(place):
    process = place.start(place.job(steps=10**6), "run", *AUTOMATIC)
    for failures in range(3):
        harness.wait_until(lambda: len(events(place, "checkpoint_interval")) > failures, 60, f"an interval after {failures}")
        harness.wait_until(lambda: len(events(place, "start")) > failures and place.lines("run", "metrics.jsonl")[-1]["attempt"]
                           == failures + 1, 60, "steps")
        last = kept(place)
        expect_near(last["interval_seconds"], best(last["cost_seconds"], last["save_seconds"], failures))
        if failures < 2:
            workers = [pid for pid, command in harness.processes_of(place.path / "run").items()
                       if "smlp-worker train" in command and "mpirun" not in command]
            harness.kill(max(workers))
    process.terminate()
    assert process.wait(timeout=60) == 75
    chosen = [event for event in events(place, "checkpoint_interval")]
    assert "(2 failures in" in chosen[-1]["detail"], chosen
    first, last = chosen[0]["seconds"], chosen[-1]["seconds"]
    assert LEAST < last < first < MOST, chosen


def saves_come_at_the_interval_of_a_run_that_fails_often(place):
    """A history of 4000 failures makes the interval short enough to be watched. Being stopped and bad input are none."""
    failures = 4000
    (place.path / "run").mkdir()
    lines = [json.dumps(dict(attempt=number + 1, exit_code=137 if number < failures else 75 if number % 2 else 78,
                             cause="signal", reason="once")) + "\n" for number in range(failures + 1000)]
    (place.path / "run" / "attempts.jsonl").write_text("".join(lines))
    process = place.start(place.job(steps=10**6, micro_batch=4), "run", *AUTOMATIC)
    harness.wait_until(lambda: len(events(place, "checkpoint_published")) > 12, 90, "saves")
    process.terminate()
    assert process.wait(timeout=60) == 75
    last = kept(place)
    expect_near(last["interval_seconds"], best(last["cost_seconds"], last["save_seconds"], failures))
    # Costs are measured anew with each save, so that each gap has an interval of its own: the last that was told before it
    # ended, which is within a tenth of the one that counted.
    told = [(event["step"], event["seconds"]) for event in events(place, "checkpoint_interval")]
    steps = [event["step"] for event in events(place, "checkpoint_published")][:-1]  # the last was asked for
    ends = {line["step"]: line["time"] for line in place.lines("run", "metrics.jsonl")}
    shares = [(ends[b] - ends[a]) / [seconds for step, seconds in told if step < b][-1]
              for a, b in zip(steps, steps[1:]) if told[0][0] < b]
    print(f"      a save costs {last['cost_seconds']:.4f} s, the interval is {last['interval_seconds']:.2f} s; saves came after "
          f"{min(shares):.2f} to {max(shares):.2f} of it, median {statistics.median(shares):.2f}")
    assert len(shares) > 5 and min(shares) > 0.85 and statistics.median(shares) < 2, (shares, told)


if __name__ == "__main__":
    harness.main([each_failure_brings_saves_closer, saves_come_at_the_interval_of_a_run_that_fails_often])
