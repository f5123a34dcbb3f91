#!/usr/bin/env python3
"""What a run says of itself, in numbers and in events: that they are right, and that docs/metrics.md lists them all."""
import json
import re
import urllib.request

import harness
import metrics_document
from harness import smlp_json


def page_of(place, run, rank=0):
    address = json.loads((place.path / run / "targets.json").read_text())[rank]["targets"][0]
    return urllib.request.urlopen(f"http://{address}/metrics", timeout=10).read().decode()


def scrape(place, run, rank=0):
    """The values of a rank's page by series."""
    return {series: float(value) for series, value in
            (line.rsplit(" ", 1) for line in page_of(place, run, rank).splitlines() if not line.startswith("#"))}


def started(place, run, attempt, *more, **settings):
    """A run that goes on and on, with a step of this attempt behind it."""
    process = place.start(place.job(**{**dict(steps=10**6, every=10**6, eval_every=10**6), **settings}), run, *more)
    harness.wait_until(lambda: any(line["attempt"] == attempt for line in place.lines(run, "metrics.jsonl")), 120,
                       f"a step of attempt {attempt}")
    return process


def leave(process):
    process.terminate()
    assert process.wait(timeout=120) == 75


def the_stall_of_saves_holds_all_that_training_waited_for_them(place):
    """The wait for the save before was left out, nearly all of it where saves come at every step: only the copy counted."""
    place.run(place.job(steps=20, every=1), "run")
    lines = place.lines("run", "metrics.jsonl")
    waited = sum(line["phase_seconds"]["checkpoint"] for line in lines)
    assert abs(lines[-1]["checkpoint_stall_seconds_total"] - waited) < 1e-9 * len(lines), (lines[-1], waited)
    whole = sum(line["step_seconds"] for line in lines)
    in_phases = sum(sum(line["phase_seconds"].values()) for line in lines)
    assert abs(whole - in_phases) < 0.05 * whole + 0.02, ("the phases are all of a step", whole, in_phases)


def an_evaluation_that_ends_no_step_is_known_to_all_who_ask(place):
    """That of step 0 was in its event alone, and a restart forgot the last one until the next."""
    for attempt in (1, 2):
        process = started(place, "run", attempt)
        values, status = scrape(place, "run"), smlp_json("status", "run", cwd=place.path)
        told, = [event for event in place.lines("run", "events.jsonl") if event["event"] == "evaluation"]
        assert told["step"] == 0 and abs(status["validation_loss"] - told["validation_loss"]) < 1e-9, (attempt, status, told)
        assert abs(values['smlp_validation_loss{rank="0"}'] - told["validation_loss"]) < 1e-9, (attempt, told)
        share, = told["routing_agreement_blocks"]
        series = f'smlp_routing_agreement{{block="{share["block"]}",rank="0"}}'
        assert abs(values[series] - share["share"]) < 1e-9, (attempt, share)
        leave(process)


def a_start_from_the_nodes_knows_the_shared_directory_s_newest_too(place):
    """Its gauges were empty until the next one was published."""
    local = ["--set", f"checkpoint.local_dir={place.path / 'local'}", "--set", "checkpoint.local_every_steps=1"]
    process = started(place, "run", 1, *local)
    shared = smlp_json("save", "run", cwd=place.path)["step"]
    lines = lambda: place.lines("run", "metrics.jsonl")
    harness.wait_until(lambda: lines()[-1].get("local_checkpoint_last_step", 0) > shared, 120, "a later save on the node")
    workers = [pid for pid, command in harness.processes_of(place.path / "run").items()
               if "smlp-worker train" in command and "mpirun" not in command]
    harness.kill(max(workers))
    harness.wait_until(lambda: lines()[-1]["attempt"] == 2, 120, "a step of the second attempt")
    first = next(line for line in lines() if line["attempt"] == 2)
    assert first["checkpoint_last_step"] == shared and first["checkpoint_last_timestamp_seconds"] > 0, (first, shared)
    assert first["local_checkpoint_last_step"] > shared, (first, shared)
    leave(process)


def an_overflow_of_fp16_is_a_reason_of_its_own(place):
    """It counted as a gradient that is not finite, by which alarms know a run that diverges."""
    half = ["--set", "train.loss_scale=16777216", "--set", "divergence.spike_zscore=0.0"]
    process = started(place, "run", 1, *half, precision="fp16")
    skipped = lambda: [event for event in place.lines("run", "events.jsonl") if event["event"] == "update_skipped"]
    assert skipped() and all(event["reason"] == "overflow" for event in skipped()), skipped()
    values = scrape(place, "run")
    counts = {series: value for series, value in values.items() if series.startswith("smlp_skipped_updates_total")}
    assert counts.pop('smlp_skipped_updates_total{rank="0",reason="overflow"}') > 0, counts
    assert not any(counts.values()), counts
    leave(process)


def seen(lines):
    """The keys of all lines, and of what is nested in them, by key."""
    keys = {}
    for line in lines:
        for key, value in line.items():
            nested = keys.setdefault(key, set())
            for one in value if isinstance(value, list) else [value]:
                nested.update(one if isinstance(one, dict) else ())
    return keys


def every_metric_key_and_event_is_in_the_document_and_no_other(place):
    """Most were listed nowhere, and readers were sent to a document that had some of them."""
    more = ["--set", "checkpoint.auto=true", "--set", "checkpoint.auto_least_seconds=0.1", "--set",
            f"checkpoint.local_dir={place.path / 'local'}"]
    process = started(place, "run", 1, *more, precision="fp16", eval_every=5)
    documented = metrics_document.metrics()
    gpus = {name for name in documented if name.startswith("smlp_gpu_")}
    complete = lambda: all(f'smlp_checkpoint_{fact}{{rank="0",tier="{tier}"}}' in scrape(place, "run")
                           for tier in ("local", "shared") for fact in ("interval_seconds", "last_step"))
    harness.wait_until(complete, 120, "an interval and a save of each tier")
    for rank in (0, 1):
        page = page_of(place, "run", rank)
        types = {name: kind for name, kind in re.findall(r"^# TYPE (smlp_\w+) (\w+)$", page, re.M) if name not in gpus}
        there = {name: kind for name, (kind, _, ranks) in documented.items()
                 if name not in gpus and (rank == 0 or ranks != "rank 0")}
        assert types == there, (rank, set(types.items()) ^ set(there.items()))
        for name, found in re.findall(r"^(smlp_\w+?)(?:_bucket|_sum|_count)?\{(.*)\} ", page, re.M):
            labels = dict(re.findall(r'(\w+)="([^"]*)"', found))
            assert set(labels) - {"rank", "le"} == documented[name][1], (name, labels)
    values = metrics_document.label_values()
    for label, of in values:
        shown = set(re.findall(rf'^{"smlp_" if of == "all" else of}\S*\b{label}="(\w+)"', page_of(place, "run"), re.M))
        assert shown == values[label, of], (label, of, shown)
    assert gpus == set(re.findall(r'"(smlp_gpu_\w+)"', (harness.ROOT / "metrics" / "gpu_metrics.cpp").read_text()))

    rare = {"checkpoint_last_timestamp_seconds", "local_checkpoint_last_step", "validation_loss"}
    harness.wait_until(lambda: rare <= set(seen(place.lines("run", "metrics.jsonl"))), 120, f"lines with {rare}")
    leave(process)
    place.run(place.job(name="gated", steps=4, every=2), "gated", "--set", "model.kind=switch")
    keys = seen(place.lines("run", "metrics.jsonl") + place.lines("gated", "metrics.jsonl"))
    listed = metrics_document.keys_of_lines()
    assert set(keys) == set(listed), set(keys) ^ set(listed)
    assert keys["blocks"] == listed["blocks"], keys["blocks"] ^ listed["blocks"]
    assert keys["phase_seconds"] == values["phase", "smlp_phase_seconds_total"], keys["phase_seconds"]
    assert keys["goodput_seconds_total"] == values["phase", "smlp_goodput_seconds_total"], keys["goodput_seconds_total"]

    told, known = metrics_document.events(), metrics_document.events_of_the_sources()
    assert set(told) == known, set(told) ^ known
    for event in place.lines("run", "events.jsonl") + place.lines("gated", "events.jsonl"):
        fields = set(event) - {"time", "event", "attempt", "step", "detail"}
        assert fields <= told[event["event"]], event


if __name__ == "__main__":
    harness.main([the_stall_of_saves_holds_all_that_training_waited_for_them,
                  an_evaluation_that_ends_no_step_is_known_to_all_who_ask,
                  a_start_from_the_nodes_knows_the_shared_directory_s_newest_too,
                  an_overflow_of_fp16_is_a_reason_of_its_own,
                  every_metric_key_and_event_is_in_the_document_and_no_other],
                 parent="/dev/shm")  # where saves keep up, however busy the disk
