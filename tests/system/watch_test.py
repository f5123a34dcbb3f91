#!/usr/bin/env python3
"""Runs that are watched: a rank that is stopped, a loss that spikes on data gone wrong, memory whose bits flip."""
import json
import os
import random
import re
import signal
import time
import urllib.request

import harness
from harness import smlp, smlp_json

SPIKES = ["--set", 'data.train=["poisoned"]', "--set", "optimizer.learning_rate=0.01", "--set",
          "divergence.spike_window=16", "--set", "divergence.spike_budget=100"]


def checkpoint(run, step):
    return f"{run}/checkpoints/step-{step:08d}"


def same(place, a, b):
    smlp("checkpoint", "diff", place.path / a, place.path / b)


def events(place, run, name):
    return [line for line in place.lines(run, "events.jsonl") if line["event"] == name]


def losses(place, run):
    """By step, as they were done last."""
    return {line["step"]: line["loss"] for line in place.lines(run, "metrics.jsonl")}


def process_of(place, run, rank):
    words = (place.path / run / "heartbeats" / f"rank-{rank:04d}").read_text().split()
    return int(words[4])


def a_stopped_rank_costs_its_limit_and_is_named(place):
    floor = 3  # well beyond the 1.5 s of silence by which a stopped rank is told from a waiting one
    steps = 600
    job = place.job(steps=steps, every=20)
    watched = ["--set", f"cluster.hang_floor_seconds={floor}"]
    process = place.start(job, "stopped", *watched)
    harness.wait_until(lambda: len(place.lines("stopped", "metrics.jsonl")) >= 30, 60, "thirty steps")
    harness.wait_until(lambda: events(place, "stopped", "checkpoint_published"), 60, "a checkpoint to go on from")
    victim = process_of(place, "stopped", 1)
    os.kill(victim, signal.SIGSTOP)
    stopped = time.monotonic()
    harness.wait_until(lambda: events(place, "stopped", "attempt_ended"), floor + 10, "the attempt has ended")
    print(f"      a stopped rank cost {time.monotonic() - stopped:.1f} s, at a limit of {floor} s")
    assert process.wait(timeout=120) == 0
    first = place.lines("stopped", "attempts.jsonl")[0]
    assert first["cause"] == "hang" and "rank 1 " in first["reason"] and f"process {victim}" in first["reason"], first
    assert "rank 0 is the one behind" not in first["reason"], first
    told = events(place, "stopped", "hang")
    assert len(told) == 1 and "stopped or cut off" in told[0]["detail"], told
    place.run(job, "straight", *watched)
    same(place, checkpoint("straight", steps), checkpoint("stopped", steps))
    known = json.loads((place.path / "stopped" / "limits.json").read_text())
    assert known["step"] < 1 and len(known["starts"]) == 1 and known["ranks"] == 2, known


def poison(place):
    """Text with a short stretch of letters that it has nowhere else."""
    chooser = random.Random(7)
    text = (place.path / "train.txt").read_text()[:50000]
    wrong = "".join(chooser.choice("QXZJVK0123456789#%&@") for _ in range(96))
    (place.path / "poisoned.txt").write_text(text[:25000] + wrong + text[25000:])
    smlp("data", "prepare", "--input", "poisoned.txt", "--tokenizer", "bytes", "--output", "poisoned", cwd=place.path)


def spikes(place, run):
    return [(event["step"], event["action"]) for event in events(place, run, "spike")]


def a_save_that_the_disk_never_answers(place, run, *, asked_to_leave):
    """Rank 1's shard is a pipe that nobody reads: opening it never comes to an end."""
    floor = 1
    process = place.start(place.job(steps=10**6, every=20), run, "--set", f"cluster.hang_floor_seconds={floor}")
    harness.wait_until(lambda: len(events(place, run, "checkpoint_published")) > 3, 60, "limits are known")
    step = place.lines(run, "metrics.jsonl")[-1]["step"]
    for of_step in range(step, step + 2000):
        folder = place.path / run / "checkpoints" / f"step-{of_step:08d}.attempt-0001.tmp"
        try:
            folder.mkdir(exist_ok=True)
            os.mkfifo(folder / "rank-0001.h5")
        except OSError:
            pass  # a save of this step is under way
    planted = time.monotonic()
    if asked_to_leave:
        process.send_signal(signal.SIGTERM)
    limit = 4 * floor  # of a save that usually takes no time
    harness.wait_until(lambda: events(place, run, "attempt_ended"), limit + 20, "the attempt has ended")
    print(f"      it cost {time.monotonic() - planted:.1f} s, at a limit of {limit} s")
    if not asked_to_leave:
        harness.wait_until(lambda: events(place, run, "recovered"), 60, "training again")
        process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 75
    first = place.lines(run, "attempts.jsonl")[0]
    assert first["cause"] == "hang" and first["exit_code"] == 134, first
    told, = events(place, run, "hang")
    saved = re.match(r"rank 1: no progress for [0-9.]+ s \(limit [0-9.]+ s\) in section 'checkpoint' of step (\d+): the disk of "
                     r"the run directory does not answer .*; rank 1 is the one behind: .* on \S+\)$", told["detail"])
    assert saved and int(saved[1]) >= step, told


def a_disk_that_never_answers_ends_the_attempt_while_steps_go_on(place):
    """No further checkpoint was begun, and nothing said so."""
    a_save_that_the_disk_never_answers(place, "beside", asked_to_leave=False)


def a_disk_that_never_answers_keeps_no_rank_that_is_asked_to_leave(place):
    """The ranks asked each other how far they were, which counted as progress, until SLURM's limit."""
    a_save_that_the_disk_never_answers(place, "leaving", asked_to_leave=True)


def a_spike_is_skipped_alike_on_any_layout_and_after_a_restart(place):
    poison(place)
    settings = dict(steps=190, every=10, precision="f64")
    for ranks in (1, 2):
        place.run(place.job(ranks=ranks, **settings), f"on{ranks}", *SPIKES)
    found = spikes(place, "on1")
    assert found and all(action == "skip" for _, action in found), found
    assert found == spikes(place, "on2"), (found, spikes(place, "on2"))
    one, two = losses(place, "on1"), losses(place, "on2")
    assert max(abs(one[step] - two[step]) for step in one) < 1e-9
    # Stopped just behind the first spike, so that the window that judges the others is the checkpoint's.
    place.run(place.job(**{**settings, "steps": found[0][0] + 3}), "parts", *SPIKES)
    place.run(place.job(**settings), "parts", *SPIKES)
    assert spikes(place, "parts") == found
    same(place, checkpoint("on2", 190), checkpoint("parts", 190))
    place.run(place.job(**settings), "unwatched", *SPIKES, "--set", "divergence.spike_zscore=0.0")
    assert not spikes(place, "unwatched") and losses(place, "unwatched")[190] != two[190]


def a_rewind_passes_over_the_data_and_can_be_interrupted(place):
    poison(place)
    settings = dict(steps=190, every=10, precision="f64")
    rewind = [*SPIKES, "--set", 'divergence.spike_policy="rewind"']
    for ranks in (1, 2):
        place.run(place.job(ranks=ranks, **settings), f"on{ranks}", *rewind)
    found = spikes(place, "on2")
    assert found and found == spikes(place, "on1") and all(action == "rewind" for _, action in found), found
    attempts = place.lines("on2", "attempts.jsonl")
    assert [a["exit_code"] for a in attempts] == [76] * len(found) + [0], attempts
    left_out = json.loads((place.path / "on2" / "passed_over.json").read_text())
    assert left_out["spikes"] == [step for step, _ in found]
    assert left_out == json.loads((place.path / "on1" / "passed_over.json").read_text())
    for spike, attempt in zip(found, attempts[1:]):
        assert attempt["first_step"] <= spike[0] - 3, (spike, attempt)  # pass_over_steps = 4, its own among them
    last = place.lines("on2", "metrics.jsonl")[-1]
    assert last["step"] == 190 and last["sequences"] == 190 * 8, last
    one, two = losses(place, "on1"), losses(place, "on2")
    assert max(abs(one[step] - two[step]) for step in one) < 1e-9
    place.run(place.job(**{**settings, "steps": found[-1][0] + 15}), "parts", *rewind)
    place.run(place.job(**settings), "parts", *rewind)
    same(place, checkpoint("on2", 190), checkpoint("parts", 190))


def a_run_that_stops_at_a_spike_stays_stopped_until_it_is_started_again(place):
    poison(place)
    job = place.job(steps=190, every=10)
    done = place.run(job, "run", *SPIKES, "--set", 'divergence.spike_policy="stop"', expect=76)
    assert "divergence.spike_policy" in done.stderr, done.stderr
    assert len(place.lines("run", "attempts.jsonl")) == 1
    place.run(job, "run", *SPIKES)
    assert spikes(place, "run")[1] == (spikes(place, "run")[0][0], "skip"), spikes(place, "run")


def a_run_that_diverges_says_why_it_gave_up(place):
    """It said that rank 0 left with exit code 76, and no more."""
    done = place.run(place.job(steps=40, every=50), "run", "--max-restarts", 0, "--set", "optimizer.learning_rate=1e9", "--set",
                     "schedule.warmup_steps=0", "--set", "optimizer.clip_norm=0.0", "--set", "divergence.spike_zscore=0.0",
                     expect=76)
    assert "the gradients of steps" in done.stderr and "not finite" in done.stderr, done.stderr


def a_step_whose_gradients_are_not_finite_is_never_saved(place):
    """keep_every saves each step; one that a broken gradient leaves as it is may be the first of a run gone wrong."""
    place.run(place.job(steps=40, every=50), "run", "--max-restarts", 0, "--set", "optimizer.learning_rate=1e9", "--set",
              "schedule.warmup_steps=0", "--set", "optimizer.clip_norm=0.0", "--set", "divergence.spike_zscore=0.0", "--set",
              "checkpoint.keep_every=1", expect=76)
    broken = {event["step"] for event in events(place, "run", "update_skipped")}
    saved = {event["step"] for event in events(place, "run", "checkpoint_published")}
    assert broken and saved and not broken & saved, (broken, saved)


def flip_in_memory(pid, pattern):
    """One bit of the last byte of each place that holds the pattern; how many."""
    flipped = 0
    with open(f"/proc/{pid}/mem", "r+b", buffering=0) as memory:
        for line in open(f"/proc/{pid}/maps"):
            span, rights = line.split()[:2]
            start, end = (int(bound, 16) for bound in span.split("-"))
            if not rights.startswith("rw") or "/" in line or "[stack" in line:
                continue
            try:
                memory.seek(start)
                content = memory.read(end - start)
            except OSError:
                continue
            at = content.find(pattern)
            while at >= 0:
                place = start + at + len(pattern) - 1
                memory.seek(place)
                memory.write(bytes([pattern[-1] ^ 1]))
                flipped += 1
                at = content.find(pattern, at + 1)
    return flipped


def a_bit_that_flips_in_the_memory_of_a_rank_ends_the_attempt_and_does_no_harm(place):
    # Weights that do not change, so that they can be found in memory by what a checkpoint holds.
    still = ["--set", "optimizer.learning_rate=0.0", "--set", "schedule.initial_rate=0.0", "--set",
             "cluster.replica_check_every=20"]
    process = place.start(place.job(steps=10**9, every=20), "run", *still)
    harness.wait_until(lambda: events(place, "run", "checkpoint_published"), 60, "a checkpoint")
    folder = place.path / checkpoint("run", events(place, "run", "checkpoint_published")[0]["step"])
    pattern = first_bytes(folder, "embed.weight")
    assert len(set(pattern)) > 20, "the first values of the embedding"
    before = smlp_json("checkpoint", "digest", folder)["tensors"]["embed.weight"]
    victim = process_of(place, "run", 1)
    os.kill(victim, signal.SIGSTOP)  # nothing moves while it is searched
    flipped = flip_in_memory(victim, pattern)
    step = place.lines("run", "metrics.jsonl")[-1]["step"]  # done by both; the next one may be, and not told yet
    os.kill(victim, signal.SIGCONT)
    assert flipped > 0
    harness.wait_until(lambda: len(events(place, "run", "recovered")) == 1, 60, "training again")
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 75
    told = events(place, "run", "replicas_differ")
    assert len(told) == 1 and "'embed.weight'" in told[0]["detail"] and "1 (" in told[0]["detail"], told
    first, second = place.lines("run", "attempts.jsonl")
    assert first["exit_code"] == 70 and "embed.weight" in first["reason"], first
    alike = int(re.search(r"all was alike at step (\d+)", told[0]["detail"])[1])
    # Compared every 20 steps and before every save, which on a slow disk comes later than it is due.
    assert second["from_checkpoint"] <= alike <= step + 1 and step <= told[0]["step"] <= step + 21, (second, step, told)
    assert smlp_json("checkpoint", "digest", place.path / "run")["tensors"]["embed.weight"] == before


def first_bytes(folder, tensor):
    for shard in json.loads((folder / "manifest.json").read_text())["shards"]:
        for piece in shard["pieces"]:
            if piece["tensor"] == tensor and piece["offset"] == 0:
                return (folder / shard["file"]).read_bytes()[piece["position"]:][:64]
    raise AssertionError(f"{folder} has no {tensor}")


def counters_begin_anew_in_each_attempt(place):
    poison(place)
    place.run(place.job(steps=190, every=10), "run", *SPIKES)
    before = len(spikes(place, "run"))
    assert before > 0
    process = place.start(place.job(steps=1000000, every=1000000), "run", *SPIKES)
    harness.wait_until(lambda: place.lines("run", "metrics.jsonl")[-1]["attempt"] == 2, 60, "a step of the second attempt")
    address = json.loads((place.path / "run" / "targets.json").read_text())[0]["targets"][0]
    page = urllib.request.urlopen(f"http://{address}/metrics", timeout=10).read().decode()
    values = dict(line.rsplit(" ", 1) for line in page.splitlines() if not line.startswith("#"))
    step, steps = float(values['smlp_step{rank="0"}']), float(values['smlp_steps_total{rank="0"}'])
    assert step > 190 and abs(190 + steps - step) <= 1, (step, steps)
    skipped = float(values['smlp_skipped_updates_total{rank="0",reason="spike"}'])
    assert skipped <= len(spikes(place, "run")) - before, (skipped, before)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=30) == 75


if __name__ == "__main__":
    harness.main([a_stopped_rank_costs_its_limit_and_is_named,
                  a_disk_that_never_answers_ends_the_attempt_while_steps_go_on,
                  a_disk_that_never_answers_keeps_no_rank_that_is_asked_to_leave,
                  a_spike_is_skipped_alike_on_any_layout_and_after_a_restart,
                  a_rewind_passes_over_the_data_and_can_be_interrupted,
                  counters_begin_anew_in_each_attempt,
                  a_run_that_stops_at_a_spike_stays_stopped_until_it_is_started_again, a_run_that_diverges_says_why_it_gave_up,
                  a_step_whose_gradients_are_not_finite_is_never_saved,
                  a_bit_that_flips_in_the_memory_of_a_rank_ends_the_attempt_and_does_no_harm],
                 parent="/dev/shm")  # where saves keep up, however busy the disk
