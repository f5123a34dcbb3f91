#!/usr/bin/env python3
"""checkpoint.keep_best on real runs: the checkpoint of the least validation loss stays, across restarts too."""
import harness
from harness import smlp, smlp_json


def steps_kept(place, run):
    return [one["step"] for one in smlp_json("checkpoint", "ls", place.path / run)]


def validation_losses(place, run):
    return {line["step"]: line["validation_loss"] for line in place.lines(run, "events.jsonl") if line["event"] == "evaluation"}


def the_best_stays_when_the_run_goes_on_and_gets_worse(place):
    best = ("--set", "checkpoint.keep_best=true")
    worse = ("--set", "optimizer.learning_rate=3.0", "--accept-change", "optimizer.learning_rate",
             "--set", "divergence.spike_zscore=0.0")
    # Saves fall on no evaluation but for keep_best's own.
    settings = dict(eval_every=10, every=7, keep_last=1, ranks=1)
    place.run(place.job(steps=30, **settings), "run", *best)
    before = validation_losses(place, "run")
    assert min(before, key=before.get) == 30 and sorted(before) == [0, 10, 20, 30], before
    place.run(place.job(steps=35, **settings), "run", *best, *worse)
    place.run(place.job(steps=60, **settings), "run", *best, *worse)
    after = validation_losses(place, "run")
    assert min(after, key=after.get) == 30 and max(after) == 60, after
    assert steps_kept(place, "run") == [30, 60]
    kept = place.path / "run" / "checkpoints" / "step-00000030"
    smlp("checkpoint", "verify", kept)
    assert smlp_json("checkpoint", "show", kept)["run_state"]["numbers"]["validation_loss"] == [after[30]]
    evaluated = smlp_json("eval", kept, "--data", "valid", "--ranks", 1, cwd=place.path)["loss"]
    assert abs(evaluated - after[30]) < 1e-5, (evaluated, after)


def without_the_key_only_the_last_stays(place):
    place.run(place.job(steps=20, eval_every=10, every=7, keep_last=1, ranks=1), "run")
    assert steps_kept(place, "run") == [20]


def every_keep_every_th_step_is_saved_and_stays(place):
    """Saves fell on other steps, or came later where one was under way, and then nothing was kept."""
    for every in (1, 7, 0):
        settings = dict(eval_every=0, every=every, keep_last=1, ranks=1)
        place.run(place.job(steps=45, **settings), f"every-{every}", "--set", "checkpoint.keep_every=10")
        assert steps_kept(place, f"every-{every}") == [10, 20, 30, 40, 45], (every, steps_kept(place, f"every-{every}"))


def a_step_that_overflowed_its_loss_scale_is_kept_too(place):
    """Its update is left out, and with it its checkpoint was."""
    place.run(place.job(steps=12, every=0, keep_last=1, ranks=1, precision="fp16"), "run", "--set", "train.loss_scale=16777216",
              "--set", "checkpoint.keep_every=1")
    overflowed = [line["step"] for line in place.lines("run", "events.jsonl") if line["event"] == "update_skipped"]
    assert overflowed and max(overflowed) < 12, overflowed
    assert steps_kept(place, "run") == list(range(1, 13)), (overflowed, steps_kept(place, "run"))


def the_loss_of_a_step_is_in_its_checkpoint_after_a_restart_too(place):
    settings = dict(eval_every=5, every=5, keep_last=20, ranks=1)
    place.run(place.job(steps=20, **settings), "straight", "--set", "checkpoint.keep_best=true")
    place.run(place.job(steps=10, **settings), "parts", "--set", "checkpoint.keep_best=true")
    place.run(place.job(steps=20, **settings), "parts", "--set", "checkpoint.keep_best=true")
    for step in (5, 10, 15, 20):
        name = f"checkpoints/step-{step:08d}"
        smlp("checkpoint", "diff", place.path / "straight" / name, place.path / "parts" / name)


def checkpoints_come_every_so_many_steps_however_fast_these_are(place):
    """A save that took longer than the interval was not waited for: of twenty there were three, and a kill cost all but those."""
    place.run(place.job(steps=60, every=3, keep_last=100), "run")
    assert [step for step in steps_kept(place, "run") if step > 0] == list(range(3, 61, 3)), steps_kept(place, "run")


if __name__ == "__main__":
    harness.main([the_best_stays_when_the_run_goes_on_and_gets_worse, without_the_key_only_the_last_stays,
                  every_keep_every_th_step_is_saved_and_stays, a_step_that_overflowed_its_loss_scale_is_kept_too,
                  the_loss_of_a_step_is_in_its_checkpoint_after_a_restart_too,
                  checkpoints_come_every_so_many_steps_however_fast_these_are])
