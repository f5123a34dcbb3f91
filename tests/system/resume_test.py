#!/usr/bin/env python3
"""Runs that stop and go on: bit for bit on the same layout, to rounding on another; damaged checkpoints; requests to
leave; a second run in the same directory. Real processes, real files."""
import json
import os
import pathlib
import shutil
import signal
import socket
import time

import harness
from harness import smlp, smlp_json


def final(run, step):
    return pathlib.Path(run) / "checkpoints" / f"step-{step:08d}"


def same(place, a, b):
    smlp("checkpoint", "diff", place.path / a, place.path / b)


def ten_and_ten_steps_are_twenty(place):
    place.run(place.job(steps=20, every=7), "straight")
    place.run(place.job(steps=10, every=7), "parts")
    place.run(place.job(steps=20, every=7), "parts")
    same(place, final("straight", 20), final("parts", 20))
    assert len(place.lines("parts", "attempts.jsonl")) == 2


def an_fp16_run_goes_on_with_the_scale_it_had(place):
    """The scale falls at first, and rises again after each third step without an overflow."""
    half = ["--set", "train.precision=fp16", "--set", "train.loss_scale=16777216", "--set", "train.loss_scale_window=3"]
    place.run(place.job(steps=40, every=7), "straight", *half)
    place.run(place.job(steps=22, every=7), "parts", *half)
    place.run(place.job(steps=40, every=7), "parts", *half)
    same(place, final("straight", 40), final("parts", 40))
    scales = [line["loss_scale"] for line in place.lines("straight", "metrics.jsonl") if "loss" in line]
    assert scales[0] == 16777216 and min(scales) < scales[0], scales
    assert any(later > earlier for earlier, later in zip(scales[22:], scales[23:])), scales
    assert scales == [line["loss_scale"] for line in place.lines("parts", "metrics.jsonl") if "loss" in line]
    skipped = [line for line in place.lines("straight", "events.jsonl") if line["event"] == "update_skipped"]
    assert skipped and "the gradient overflows at a loss scale of 16777216" in skipped[0]["detail"], skipped[:1]
    smlp("eval", place.path / "straight", "--data", "valid", cwd=place.path)


def sigterm_saves_and_leaves_and_the_run_goes_on(place):
    job = place.job(steps=400, every=1000)
    process = place.start(job, "stopped")
    harness.wait_until(lambda: len(place.lines("stopped", "metrics.jsonl")) > 5, 60, "five steps")
    process.send_signal(signal.SIGTERM)
    asked = time.monotonic()
    assert process.wait(timeout=30) == 75, "a run that was asked to leave ends with 75"
    assert time.monotonic() - asked < 10
    saved = smlp_json("checkpoint", "ls", place.path / "stopped")
    assert len(saved) == 1 and saved[0]["valid"], saved
    place.run(job, "stopped")
    place.run(job, "straight")
    same(place, final("straight", 400), final("stopped", 400))


def a_flipped_bit_is_found_and_the_run_falls_back(place):
    place.run(place.job(steps=20, every=5), "straight")
    place.run(place.job(steps=10, every=5), "flipped")
    shard = place.path / final("flipped", 10) / "rank-0001.h5"
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 4
    shard.write_bytes(content)
    bad = smlp("checkpoint", "verify", place.path / final("flipped", 10), check=False)
    assert bad.returncode == 65 and "rank-0001.h5" in bad.stderr, bad
    place.run(place.job(steps=20, every=5), "flipped")
    rejected = [e for e in place.lines("flipped", "events.jsonl") if e["event"] == "checkpoint_rejected"]
    assert len(rejected) == 1 and "rank-0001.h5" in rejected[0]["detail"], rejected
    started = [e for e in place.lines("flipped", "events.jsonl") if e["event"] == "start"]
    assert started[-1]["step"] == 5, started
    same(place, final("straight", 20), final("flipped", 20))


def any_number_of_ranks_reads_what_four_wrote(place):
    settings = dict(steps=12, every=6, ranks=4, precision="f64")
    place.run(place.job(**settings), "four")
    source = place.path / final("four", 12)
    losses = [smlp_json("eval", source, "--data", "valid", "--ranks", ranks, cwd=place.path)["loss"]
              for ranks in (1, 2, 4)]
    assert max(losses) - min(losses) < 1e-12, losses
    weights = smlp_json("checkpoint", "digest", source)["tensors"]
    place.run(place.job(**{**settings, "steps": 14}), "straight")
    straight = [line["loss"] for line in place.lines("straight", "metrics.jsonl") if line["step"] > 12]
    for ranks in (1, 2, 8):
        # A step that changes no weight: what was loaded in this layout is what is saved by it.
        still, run = f"still{ranks}", f"on{ranks}"
        for copy in (still, run):
            shutil.copytree(place.path / "four", place.path / copy)
        place.run(place.job(**{**settings, "steps": 13, "ranks": ranks}), still, "--set", "optimizer.learning_rate=0.0",
                  "--set", "schedule.initial_rate=0.0", "--accept-change", "optimizer.learning_rate",
                  "--accept-change", "schedule.initial_rate")
        after = smlp_json("checkpoint", "digest", place.path / final(still, 13))["tensors"]
        for name, digest in weights.items():
            if "/" not in name:
                assert after[name] == digest, f"{name} differs after being loaded by {ranks} ranks"
        place.run(place.job(**{**settings, "steps": 14, "ranks": ranks}), run)
        resumed = [line["loss"] for line in place.lines(run, "metrics.jsonl") if line["step"] > 12]
        assert len(resumed) == 2 and max(abs(a - b) for a, b in zip(straight, resumed)) < 1e-10, (straight, resumed)


def three_ranks_do_the_work_of_four(place):
    """What is left of a cluster need not divide the global batch: uneven rounds give the same losses."""
    settings = dict(ranks=4, precision="f64", every=6)
    place.run(place.job(steps=6, **settings), "three")
    place.run(place.job(steps=12, **settings), "four")
    job = place.path / "three" / "job.toml"
    job.write_text(job.read_text().replace("steps = 6\n", "steps = 12\n", 1))
    harness.train_on(3, place.path / "three", attempt=2, cwd=place.path)

    def losses(run):
        return [line["loss"] for line in place.lines(run, "metrics.jsonl") if line["step"] > 6]

    assert len(losses("three")) == 6
    assert max(abs(a - b) for a, b in zip(losses("three"), losses("four"))) < 1e-10, (losses("three"), losses("four"))


def a_second_run_in_the_same_directory_is_refused(place):
    job = place.job(steps=100000, every=1000)
    process = place.start(job, "busy")
    harness.wait_until(lambda: len(place.lines("busy", "metrics.jsonl")) > 2, 60, "two steps")
    second = place.run(job, "busy", expect=75)
    assert str(process.pid) in second.stderr, second.stderr
    for damaged in ('{"host": 3, "pid": "x"}', '{"host": "half', ""):
        (place.path / "busy" / "lock").write_text(damaged)
        assert "is in use by another process" in place.run(job, "busy", expect=75).stderr, damaged
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=30) == 75


def weights_of_another_run_start_a_new_one(place):
    place.run(place.job(steps=30, eval_every=30), "first")
    place.run(place.job(steps=2, eval_every=2), "second", "--init-from", place.path / final("first", 30))

    def score(run, step):
        return [e["validation_loss"] for e in place.lines(run, "events.jsonl")
                if e["event"] == "evaluation" and e["step"] == step][0]

    assert abs(score("second", 0) - score("first", 30)) < 1e-5
    assert score("first", 30) < score("first", 0) - 0.1


def weights_of_another_run_start_a_new_one_in_16_bits_too(place):
    """Of those an update takes its master weights: made anew, they are the loaded ones, not the first ones of the seed."""
    still = ["--set", "optimizer.learning_rate=0.0", "--set", "schedule.initial_rate=0.0"]
    digest = lambda run, steps: smlp_json("checkpoint", "digest", place.path / final(run, steps))["tensors"]["embed.weight"]
    for precision in ("bf16", "fp16"):
        first, second = f"first-{precision}", f"second-{precision}"
        place.run(place.job(steps=3, precision=precision), first)
        place.run(place.job(steps=1, precision=precision), second, "--init-from", place.path / final(first, 3), *still)
        assert digest(second, 1) == digest(first, 3), precision


def addresses_of(place, run, *more):
    """Where the ranks of a live run are; none is told any more when it has ended."""
    file = place.path / run / "targets.json"

    def targets():
        return [address for group in json.loads(file.read_text()) for address in group["targets"]] if file.exists() else []

    process = place.start(place.job(steps=10**6), run, *more)
    harness.wait_until(targets, 60, "the ranks' addresses")
    seen = targets()
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 75
    assert targets() == []
    return seen


def metrics_lines_hold_every_step(place):
    place.run(place.job(steps=12, eval_every=4), "run")
    lines = place.lines("run", "metrics.jsonl")
    assert [line["step"] for line in lines] == list(range(1, 13))
    assert all(line["loss"] > 0 and line["tokens_per_second"] > 0 and line["attempt"] == 1 for line in lines)
    assert [line["step"] for line in lines if line.get("validation_loss")] == [4, 8, 12]
    assert len(addresses_of(place, "live")) == 2


def a_checkpoint_is_as_old_as_its_publication_after_a_restart_too(place):
    place.run(place.job(steps=4, every=1000), "run")
    published = time.time() - 5000
    os.utime(place.path / final("run", 4) / "manifest.json", (published, published))
    shown = place.run(place.job(steps=8, every=1000), "run").stdout
    line = place.lines("run", "metrics.jsonl")[4]
    assert line["step"] == 5 and line["checkpoint_last_step"] == 4, line
    assert abs(line["checkpoint_last_timestamp_seconds"] - published) < 1, (line, published)
    assert "checkpoint 4 (1:23:2" in shown, shown


def a_job_that_turns_evaluation_off_is_never_evaluated(place):
    place.run(place.job(steps=3, eval_every=0), "run")
    place.run(place.job(steps=6, eval_every=0), "run")
    kinds = [event["event"] for event in place.lines("run", "events.jsonl")]
    assert kinds.count("complete") == 2 and "evaluation" not in kinds, kinds


def a_port_that_is_taken_ends_no_run_that_has_trained(place):
    with socket.create_server(("127.0.0.1", 0)) as chosen:
        port = chosen.getsockname()[1]
    fixed = ["--set", f"metrics.listen=127.0.0.1:{port}"]
    place.run(place.job(steps=4), "run", *fixed)
    with socket.create_server(("127.0.0.1", port + 1)):
        done = place.run(place.job(steps=4), "new", *fixed, expect=78)
        assert f"127.0.0.1:{port + 1}" in done.stderr, done.stderr
        targets = first, second = addresses_of(place, "run", *fixed)
    assert first == f"127.0.0.1:{port}" and second.startswith("127.0.0.1:") and second != f"127.0.0.1:{port + 1}", targets
    log = (place.path / "run" / "logs" / "attempt-0002" / "rank-0001.log").read_text()
    assert f"metrics can't be served on '127.0.0.1:{port + 1}'" in log and "any free port" in log, log


def other_data_under_the_same_name_is_told(place):
    """The order of sequences hangs on how many there are: the run went on with another, and said nothing."""
    place.run(place.job(steps=4, every=2), "run")
    place.run(place.job(steps=6, every=2), "run")
    changed = lambda: [line["detail"] for line in place.lines("run", "events.jsonl") if line["event"] == "data_changed"]
    assert not changed(), changed()
    text = (place.path / "train.txt").read_text()
    (place.path / "train.txt").write_text(text + text[:1000])
    smlp("data", "prepare", "--input", "train.txt", "--tokenizer", "bytes", "--output", "train", cwd=place.path)
    done = place.run(place.job(steps=8, every=2), "run")
    assert changed()[0] in done.stdout + done.stderr, "told where the run was started"
    assert len(changed()) == 1 and f"held {len(text) + 1} tokens at step 6 and holds {len(text) + 1001} now" in changed()[0], changed()
    place.run(place.job(steps=10, every=2), "run")
    assert len(changed()) == 1, "what the next checkpoint was saved with is the run's data"
    longer = text + text[:1000]
    (place.path / "train.txt").write_text(longer[len(longer) // 2:] + longer[:len(longer) // 2])
    smlp("data", "prepare", "--input", "train.txt", "--tokenizer", "bytes", "--output", "train", cwd=place.path)
    place.run(place.job(steps=12, every=2), "run")
    assert len(changed()) == 2 and "holds as many tokens as at step 10, but others" in changed()[1], changed()


def an_attempt_that_another_has_superseded_ends(place):
    """Where locks do not reach from host to host, the first of two launchers trained on, and saved nothing any more."""
    launcher = place.start(place.job(steps=100000, every=50), "run")
    harness.wait_until(lambda: (place.path / "run" / "checkpoints" / "LATEST").exists(), 60, "a checkpoint")
    (place.path / "run" / "checkpoints" / "ATTEMPT").write_text("2\n")
    assert launcher.wait(60) == 75, launcher.returncode
    words = (place.path / "run.out").read_text()
    assert "attempt 2 of this run has taken over" in words, words
    assert [line["cause"] for line in place.lines("run", "attempts.jsonl")] == ["stopped"], words


def text_comes_out_of_a_trained_model(place):
    place.run(place.job(steps=40), "run")
    once = smlp("generate", "run", "--prompt", "the ", "--tokens", 40, "--seed", 7, cwd=place.path).stdout
    again = smlp("generate", "run", "--prompt", "the ", "--tokens", 40, "--seed", 7, cwd=place.path).stdout
    assert once == again and once.startswith("the ") and len(once) > 20, once


if __name__ == "__main__":
    harness.main([ten_and_ten_steps_are_twenty, an_fp16_run_goes_on_with_the_scale_it_had, sigterm_saves_and_leaves_and_the_run_goes_on,
                  a_flipped_bit_is_found_and_the_run_falls_back, any_number_of_ranks_reads_what_four_wrote,
                  three_ranks_do_the_work_of_four,
                  a_second_run_in_the_same_directory_is_refused,
                  weights_of_another_run_start_a_new_one, weights_of_another_run_start_a_new_one_in_16_bits_too,
                  an_attempt_that_another_has_superseded_ends,
                  metrics_lines_hold_every_step, a_port_that_is_taken_ends_no_run_that_has_trained,
                  a_job_that_turns_evaluation_off_is_never_evaluated,
                  a_checkpoint_is_as_old_as_its_publication_after_a_restart_too,
                  other_data_under_the_same_name_is_told, text_comes_out_of_a_trained_model],
                 parent="/dev/shm")  # where saves keep up
