#!/usr/bin/env python3
"""Requests to leave at awkward moments: while the learning rate warms up, in a long evaluation, while a checkpoint is
being written, at the start, and while data are prepared. Nothing is lost, and the end is the undisturbed run's."""
import hashlib
import shutil
import signal
import time

import harness
from harness import smlp, smlp_json

STEPS = 60


def final(steps=STEPS):
    return f"checkpoints/step-{steps:08d}"


def lines_of(place, run):
    return len(place.lines(run, "metrics.jsonl"))


def events(place, run, name):
    return [line for line in place.lines(run, "events.jsonl") if line["event"] == name]


def ask(process, number, seconds=20):
    """Sends the signal; how long the run took to leave with 75."""
    began = time.monotonic()
    process.send_signal(number)
    code = process.wait(timeout=seconds)
    assert code == 75, f"a run that was asked to leave by {signal.Signals(number).name} ended with {code}"
    return time.monotonic() - began


def saved_what_it_did(place, run, last=None):
    saved = smlp_json("checkpoint", "ls", place.path / run)
    last = last or place.lines(run, "metrics.jsonl")[-1]["step"]
    assert saved and all(one["valid"] for one in saved) and saved[-1]["step"] == last, (last, saved)
    assert not [entry.name for entry in (place.path / run / "checkpoints").iterdir() if ".tmp" in entry.name]


def goes_on_as_undisturbed(place, job, run, steps=STEPS):
    place.run(job, run)
    if not (place.path / "straight").exists():
        place.run(job, "straight")
    smlp("checkpoint", "diff", place.path / "straight" / final(steps), place.path / run / final(steps))
    assert not harness.processes_of(place.path)


def by_any_signal_while_the_learning_rate_warms_up(place):
    job = place.job(steps=STEPS, every=1000)
    for number in (signal.SIGUSR1, signal.SIGTERM, signal.SIGINT):
        run = signal.Signals(number).name
        process = place.start(job, run)
        harness.wait_until(lambda: lines_of(place, run) >= 2, 60, "two steps")
        ask(process, number)
        saved_what_it_did(place, run)
        goes_on_as_undisturbed(place, job, run)


def in_the_middle_of_a_long_evaluation(place):
    (place.path / "long.txt").write_text((place.path / "train.txt").read_text() * 40)
    smlp("data", "prepare", "--input", "long.txt", "--tokenizer", "bytes", "--output", "long", cwd=place.path)
    job = place.job(steps=STEPS, every=1000, eval_every=20)
    text = job.read_text().replace('valid = ["valid"]', 'valid = ["long"]')
    job.write_text(text)
    process = place.start(job, "evaluating")
    # The first one, of untrained weights: no step has been done, and nothing is there to be saved but those.
    harness.wait_until(lambda: section_of(place, "evaluating", 0) == "evaluation", 60, "the first evaluation")
    time.sleep(0.5)
    took = ask(process, signal.SIGUSR1)
    assert took < 10, f"{took:.1f} s"
    assert events(place, "evaluating", "evaluation_cut_short") and not events(place, "evaluating", "evaluation")

    # A later one: what is there is saved, and the evaluation is made up for at the next start.
    job = place.job(steps=STEPS, every=1000, eval_every=20)
    place.run(job, "later", "--set", f"train.steps={STEPS - 20}")
    long = (place.path / "long.bin", place.path / "long.idx")
    valid = (place.path / "valid.bin", place.path / "valid.idx")
    kept = [file.rename(file.with_suffix(file.suffix + ".short")) for file in valid]
    for source, target in zip(long, valid):
        shutil.copy(source, target)
    process = place.start(job, "later")
    harness.wait_until(lambda: lines_of(place, "later") >= STEPS - 1 and section_of(place, "later", 0) == "evaluation", 120,
                       "the last evaluation")
    time.sleep(0.5)
    ask(process, signal.SIGTERM)
    assert [event["step"] for event in events(place, "later", "evaluation_cut_short")] == [STEPS]
    saved_what_it_did(place, "later", STEPS)
    for source, target in zip(kept, valid):
        source.rename(target)
    place.run(job, "later")
    assert [event["step"] for event in events(place, "later", "evaluation")] == [0, 20, 40, STEPS]
    place.run(job, "straight")
    difference = smlp("checkpoint", "diff", place.path / "straight" / final(), place.path / "later" / final(), check=False)
    only = [line for line in (difference.stdout + difference.stderr).splitlines() if line and "validation_loss" not in line]
    assert not only, "weights and all that training goes on with are those of the undisturbed run"


def a_checkpoint_is_published_in_a_long_evaluation(place):
    """It waited for the next step: what was written before a long evaluation was lost with a node that died in it."""
    place.run(place.job(steps=3, eval_every=0), "saving")
    (place.path / "long.txt").write_text((place.path / "train.txt").read_text() * 40)
    smlp("data", "prepare", "--input", "long.txt", "--tokenizer", "bytes", "--output", "long", cwd=place.path)
    job = place.job(steps=5, every=4, eval_every=5)
    job.write_text(job.read_text().replace('valid = ["valid"]', 'valid = ["long"]'))
    process = place.start(job, "saving", "--accept-change", "data.valid", "--accept-change", "train.eval_every")
    harness.wait_until(lambda: section_of(place, "saving", 0) == "evaluation", 60, "the evaluation of step 5")
    harness.wait_until((place.path / "saving/checkpoints/step-00000004").exists, 5, "the checkpoint of step 4")
    assert section_of(place, "saving", 0) == "evaluation" and process.poll() is None
    ask(process, signal.SIGTERM)
    assert events(place, "saving", "evaluation_cut_short") and not events(place, "saving", "evaluation")


def section_of(place, run, rank):
    try:
        return (place.path / run / "heartbeats" / f"rank-{rank:04d}").read_text().split()[1]
    except (OSError, IndexError):
        return ""


def while_a_checkpoint_is_being_written(place):
    hits = 0
    # Wide enough that writing takes a while; every step begins another checkpoint, until the signal.
    steps = 20
    job, calm = place.job(steps=steps, every=1), place.path / "calm.toml"
    job.write_text(job.read_text().replace("width = 32\nhidden = 64", "width = 256\nhidden = 1024"))
    calm.write_text(job.read_text().replace("every_steps = 1", "every_steps = 1000"))
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT):
        run = f"writing-{number}"
        process = place.start(job, run)
        harness.wait_until(lambda: lines_of(place, run) >= 5, 60, "five steps")
        folder = place.path / run / "checkpoints"
        harness.wait_until(lambda: any(folder.glob("*.tmp")), 30, "a checkpoint being written")
        hits += any(folder.glob("*.tmp"))
        ask(process, number)
        saved_what_it_did(place, run)
        goes_on_as_undisturbed(place, calm, run, steps)
    assert hits, "no signal fell into a write"


def a_second_signal_leaves_at_once(place):
    job = place.job(steps=STEPS, every=5)
    process = place.start(job, "twice")
    harness.wait_until(lambda: lines_of(place, "twice") >= 12, 60, "twelve steps")
    ranks = [pid for pid, command in harness.processes_of(place.path).items()
             if "smlp-worker train" in command and "mpirun" not in command]
    for pid in ranks:
        harness.kill(pid, signal.SIGSTOP)  # deaf to the first
    process.send_signal(signal.SIGTERM)
    time.sleep(0.5)
    assert process.poll() is None
    took = ask(process, signal.SIGTERM)
    assert took < 5, f"{took:.1f} s after the second signal"
    assert not harness.processes_of(place.path)
    goes_on_as_undisturbed(place, job, "twice")


def at_the_start_nothing_is_there_to_lose(place):
    steps = 1000  # not done when the last signal comes, however quick the machine
    job = place.job(steps=steps, every=100000, micro_batch=4)
    for starts, wait in enumerate((0.0, 0.1, 0.3, 0.6), 1):
        process = place.start(job, "early")
        harness.wait_until(lambda: len(events(place, "early", "run_started")) == starts, 30, "the launcher")
        time.sleep(wait)
        ask(process, signal.SIGTERM)
        assert not harness.processes_of(place.path)
    for run in ("early", "never-asked"):
        place.run(job, run)
    smlp("checkpoint", "diff", *(place.path / run / final(steps) for run in ("never-asked", "early")))


def while_data_are_prepared_no_half_file_takes_the_name_of_a_whole_one(place):
    (place.path / "big.txt").write_text((place.path / "train.txt").read_text() * 300)
    command = ["data", "prepare", "--input", "big.txt", "--tokenizer", "bytes", "--output", "big"]
    smlp(*command[:-1], "whole", cwd=place.path)
    whole = {ending: digest(place.path / f"whole{ending}") for ending in (".bin", ".idx")}
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
        process = harness.subprocess.Popen([harness.BIN / "smlp", *command], cwd=place.path, stdin=harness.subprocess.DEVNULL,
                                           stdout=harness.subprocess.DEVNULL, stderr=harness.subprocess.DEVNULL)
        harness.wait_until(lambda: [entry for entry in place.path.iterdir() if entry.name.startswith("big.")
                                    and entry.name != "big.txt"] or process.poll() is not None, 30, "the first bytes")
        process.send_signal(number)
        assert process.wait(timeout=30) != 0, "it was done before the signal came"
        assert not (place.path / "big.bin").exists() and not (place.path / "big.idx").exists()
    smlp(*command, cwd=place.path)
    assert {ending: digest(place.path / f"big{ending}") for ending in whole} == whole


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


if __name__ == "__main__":
    harness.main([by_any_signal_while_the_learning_rate_warms_up, in_the_middle_of_a_long_evaluation,
                  a_checkpoint_is_published_in_a_long_evaluation, while_a_checkpoint_is_being_written,
                  a_second_signal_leaves_at_once, at_the_start_nothing_is_there_to_lose,
                  while_data_are_prepared_no_half_file_takes_the_name_of_a_whole_one])
