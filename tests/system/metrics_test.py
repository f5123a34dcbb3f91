#!/usr/bin/env python3
"""What a run says of itself, in numbers and in events: that they are right, and that docs/metrics.md lists them all."""
import harness


def the_stall_of_saves_holds_all_that_training_waited_for_them(place):
    """The wait for the save before was left out, nearly all of it where saves come at every step: only the copy counted."""
    place.run(place.job(steps=20, every=1), "run")
    lines = place.lines("run", "metrics.jsonl")
    waited = sum(line["phase_seconds"]["checkpoint"] for line in lines)
    assert abs(lines[-1]["checkpoint_stall_seconds_total"] - waited) < 1e-9 * len(lines), (lines[-1], waited)


if __name__ == "__main__":
    harness.main([the_stall_of_saves_holds_all_that_training_waited_for_them],
                 parent="/dev/shm")  # where saves keep up, however busy the disk
