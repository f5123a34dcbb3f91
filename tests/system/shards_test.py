#!/usr/bin/env python3
"""Runs whose optimiser states are shared out among the ranks: what they save is what any run saves, on any number of ranks."""
import shutil

import harness
from harness import smlp, smlp_json
from resume_test import final, same

SHARDED = ("--set", "optimizer.shard_states=true")
UNCLIPPED = ("--set", "optimizer.clip_norm=0.0")  # the norm's sum is then the only one whose order differs


def two_ranks_save_what_they_save_without(place):
    job = place.job(steps=12)
    place.run(job, "whole", *UNCLIPPED)
    place.run(job, "sharded", *UNCLIPPED, *SHARDED)
    digests = [smlp_json("checkpoint", "digest", place.path / final(run, 12)) for run in ("whole", "sharded")]
    assert digests[0] == digests[1], digests
    sizes = [smlp_json("plan", job, *more, cwd=place.path)["memory_bytes_per_rank"] for more in ((), SHARDED)]
    assert sizes[1]["optimizer_saved"] > 0 == sizes[0]["optimizer_saved"], sizes
    assert sizes[1]["optimizer"] + sizes[1]["optimizer_saved"] == sizes[0]["optimizer"], sizes


def any_number_of_ranks_goes_on_with_and_without(place):
    settings = dict(steps=6, every=6, precision="f64")
    place.run(place.job(**settings, ranks=2), "two", *SHARDED)
    place.run(place.job(**{**settings, "steps": 12}, ranks=2), "straight")

    def losses(run):
        return [line["loss"] for line in place.lines(run, "metrics.jsonl")]

    for ranks in (1, 2, 4):
        run = f"on{ranks}"
        shutil.copytree(place.path / "two", place.path / run)
        place.run(place.job(**{**settings, "steps": 9}, ranks=ranks), run)
        place.run(place.job(**{**settings, "steps": 12}, ranks=2 if ranks == 4 else 4), run, *SHARDED)
        assert len(losses(run)) == 12
        worst = max(abs(a - b) for a, b in zip(losses(run), losses("straight")))
        assert worst < 1e-10, (ranks, worst)


def a_killed_run_goes_on_bit_for_bit(place):
    job = place.job(steps=120, every=10)
    place.run(job, "straight", *SHARDED)
    process = place.start(job, "killed", *SHARDED)
    for lines in (25, 60):
        harness.wait_until(lambda: len(place.lines("killed", "metrics.jsonl")) > lines, 60, f"{lines} steps")
        workers = [pid for pid, command in harness.processes_of(place.path).items() if "smlp-worker train" in command
                   and "mpirun" not in command]
        harness.kill(workers[-1])
    assert process.wait(timeout=120) == 0, (place.path / "killed.out").read_text()
    same(place, final("straight", 120), final("killed", 120))
    assert len(place.lines("killed", "attempts.jsonl")) == 3
    smlp("checkpoint", "verify", place.path / final("killed", 120))


if __name__ == "__main__":
    harness.main([two_ranks_save_what_they_save_without, any_number_of_ranks_goes_on_with_and_without,
                  a_killed_run_goes_on_bit_for_bit])
