#!/usr/bin/env python3
"""The preset cpu-bare, with everything left out that can be: it needs nothing at run time, trains on one rank without
mpirun, reads the checkpoints of a full build, and says in a sentence what it can't do."""
import os

import builds
import harness
from harness import smlp, smlp_json

BUILD_SECONDS = 1500
FULL = harness.BIN
OF_THE_COMPILER = ("linux-vdso", "ld-linux", "libc.", "libm.", "libstdc++", "libgcc_s", "libgomp", "libdl", "libpthread", "librt")


def with_full_build(function, *arguments, **options):
    bare, harness.BIN = harness.BIN, FULL
    try:
        return function(*arguments, **options)
    finally:
        harness.BIN = bare


def losses(place, run):
    return [line["loss"] for line in place.lines(run, "metrics.jsonl")]


def refused(place, *arguments):
    done = smlp(*arguments, cwd=place.path, check=False)
    assert done.returncode == 69 and done.stderr.count("\n") == 1, done
    return done.stderr


def needs_no_library_but_the_compilers(place):
    for name in ("smlp", "smlp-worker"):
        others = [library for library in builds.libraries_of(harness.BIN / name) if not library.startswith(OF_THE_COMPILER)]
        assert not others, (name, others)


def trains_alone_as_a_full_build_does_and_saves_nothing(place):
    job = place.job(steps=6, every=3, ranks=1, eval_every=3)
    with_full_build(place.run, job, "full")
    os.environ["PATH"], path = "/no/mpirun/here", os.environ["PATH"]
    try:
        done = place.run(job, "bare", "--set", "checkpoint.keep_best=true", "--set", f"checkpoint.local_dir={place.path}/node",
                         "--set", "checkpoint.local_every_steps=1")
    finally:
        os.environ["PATH"] = path
    assert "the run saves nothing" in done.stderr, done.stderr
    expected, found = losses(place, "full"), losses(place, "bare")
    assert len(found) == 6 and all(abs(a - b) < 1e-4 for a, b in zip(expected, found)), (expected, found)
    saved = [*(place.path / "bare" / "checkpoints").glob("step-*"), *place.path.glob("node/*")]
    assert not saved, saved
    assert [event["event"] for event in place.lines("bare", "events.jsonl")].count("saves_nothing") == 1
    assert smlp_json("status", "bare", cwd=place.path)["state"] == "done"


def goes_on_from_a_full_builds_checkpoint(place):
    job = place.job(steps=6, every=3, ranks=1)
    with_full_build(place.run, job, "straight")
    with_full_build(place.run, job, "parts", "--set", "train.steps=3")
    place.run(job, "parts")
    expected, found = losses(place, "straight"), losses(place, "parts")
    assert len(found) == 6 and all(abs(a - b) < 1e-4 for a, b in zip(expected, found)), (expected, found)
    for command in (["ls"], ["verify"], ["show"], ["digest"]):
        words = smlp("checkpoint", *command, "straight", cwd=place.path).stdout
        assert words == with_full_build(smlp, "checkpoint", *command, "straight", cwd=place.path).stdout, words
    ours = smlp_json("eval", "straight", "--data", "valid", cwd=place.path)["loss"]
    assert abs(ours - with_full_build(smlp_json, "eval", "straight", "--data", "valid", cwd=place.path)["loss"]) < 1e-4, ours
    assert smlp("generate", "straight", "--prompt", "the ", "--tokens", 8, cwd=place.path).stdout.startswith("the ")


def a_run_that_is_stopped_begins_again(place):
    job = place.job(steps=100000, ranks=1)
    run = place.start(job, "run")
    harness.wait_until(lambda: len(place.lines("run", "metrics.jsonl")) > 3, 60, "steps were done")
    assert "`smlp save`" in refused(place, "save", "run")
    stopped = smlp("stop", "run", cwd=place.path)
    assert run.wait(30) == 75 and "without HDF5" not in stopped.stdout, stopped
    assert not harness.processes_of(place.path)
    run = place.start(job, "run")
    harness.wait_until(lambda: place.lines("run", "metrics.jsonl")[-1]["attempt"] == 2, 60, "a second attempt")
    for pid, command in harness.processes_of(place.path).items():
        if "smlp-worker" in command:
            harness.kill(pid)
    harness.wait_until(lambda: place.lines("run", "metrics.jsonl")[-1]["attempt"] == 3, 60, "a third attempt")
    smlp("stop", "run", "--now", cwd=place.path)
    assert run.wait(30) == 75
    ends = [attempt["reason"] for attempt in place.lines("run", "attempts.jsonl")]
    assert "SIGKILL" in ends[1], ends
    second = [line["step"] for line in place.lines("run", "metrics.jsonl") if line["attempt"] == 2]
    assert second[0] == 1, second


def says_what_was_left_out(place):
    job = place.job(steps=3)
    assert "built without it; build it with SMLP_MPI=ON, or ask for one rank" in refused(place, "run", job)
    assert "2 ranks need MPI" in refused(place, "submit", job, "--dry-run")
    assert "2 ranks need MPI" in refused(place, "bench", "comm")
    assert "HDF5" in refused(place, "bench", "checkpoint")
    assert "HDF5" in refused(place, "drill", job, "--ranks", 1)
    doctor = smlp_json("doctor", cwd=place.path)
    words = {finding["name"]: finding["value"] for finding in doctor["findings"]}
    assert doctor["sound"] and words["built without"] == "MPI, HDF5, oneDNN and OpenBLAS, prometheus-cpp", doctor
    smlp("plan", job, cwd=place.path)
    smlp("plan", "--paper", cwd=place.path)
    smlp("bench", "step", "--set", "model.width=64", "--set", "model.hidden=128", "--set", "model.context=32", cwd=place.path)


if __name__ == "__main__":
    builds.build("cpu-bare", seconds=BUILD_SECONDS)
    harness.main([needs_no_library_but_the_compilers, trains_alone_as_a_full_build_does_and_saves_nothing,
                  goes_on_from_a_full_builds_checkpoint, a_run_that_is_stopped_begins_again, says_what_was_left_out])
