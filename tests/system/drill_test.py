#!/usr/bin/env python3
"""`smlp drill`: a fault of every kind strikes a run and it comes back right; what is wrong is said, and what can't be
is refused."""
import json
import os
import signal
import subprocess
import time

import harness
from harness import smlp, smlp_json

# Small steps, saves that take less than an interval, and limits that let a stopped rank cost two seconds and the watch's.
SETTINGS = dict(steps=400, every=20, micro_batch=2)
WATCHED = ["--set", "cluster.hang_floor_seconds=2", "--set", "cluster.replica_check_every=20"]
KINDS = ["kill", "kill-mpirun", "kill-launcher", "stop", "nan", "slow", "torn-write", "torn-checkpoint", "full-disk", "bit-flip"]


def drill(place, *arguments, expect=0, timeout=280):
    done = smlp("drill", *arguments, *WATCHED, "--json", cwd=place.path, check=False, timeout=timeout)
    assert done.returncode == expect, (done.returncode, done.stdout, done.stderr)
    return json.loads(done.stdout)


def refused(place, *arguments, code, words, environment=None):
    done = subprocess.run([str(harness.BIN / "smlp"), *map(str, arguments)], cwd=place.path, capture_output=True, text=True,
                          timeout=60, stdin=subprocess.DEVNULL, env={**os.environ, **(environment or {})})
    assert done.returncode == code and words in done.stderr, (arguments, done.returncode, done.stderr)


def a_run_comes_back_from_a_fault_of_every_kind(place):
    told = drill(place, place.job(**SETTINGS), "--seed", 3, "--run-dir", "drill")
    assert told["passed"] and told["problems"] == [] and sorted(f["kind"] for f in told["faults"]) == sorted(KINDS), told
    for fault in told["faults"]:
        print(f"      {fault['kind']:<16} {fault['phase']:<6} next step after {fault['seconds_to_step']:5.2f} s, "
              f"{fault['steps_lost']} steps lost")
        assert 0 < fault["seconds_to_step"] <= fault["seconds_to_new_step"], fault
        assert fault["step"] >= fault["planned_step"] and fault["noticed"], fault
    ends = [line["cause"] for line in place.lines("drill/drilled", "attempts.jsonl")]
    assert {"signal", "launcher", "hang", "diverged", "fault", "done"} == set(ends), ends
    # Once the reason was no more than the exit code, 76.
    (rank,) = [fault["rank"] for fault in told["faults"] if fault["kind"] == "nan"]
    (why,) = [line["reason"] for line in place.lines("drill/drilled", "attempts.jsonl") if line["cause"] == "diverged"]
    assert "are not finite, with the gradient" in why and f" of rank {rank} (" in why and "learning_rate" in why, why
    assert not harness.processes_of(place.path)


def a_fast_run_is_not_over_before_a_busy_drill_has_looked(place):
    """On a busy machine a short job's faults struck at its last step, and the drill's own strikes were said to be the run's."""
    job = place.job(**SETTINGS | dict(steps=180, micro_batch=1))
    place.run(job, "undisturbed", *WATCHED)
    with open(place.path / "told.json", "w") as out:
        drilling = subprocess.Popen([str(harness.BIN / "smlp"), "drill", str(job), "--seed", "3", "--faults", "kill,torn-checkpoint",
                                     "--undisturbed", "undisturbed", "--run-dir", "drill", *WATCHED, "--json"],
                                    cwd=place.path, stdout=out, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
    while drilling.poll() is None:  # it has the processor for a tenth of the time
        for number, seconds in ((signal.SIGSTOP, 0.45), (signal.SIGCONT, 0.05)):
            harness.kill(drilling.pid, number)
            time.sleep(seconds)
    told = json.loads((place.path / "told.json").read_text())
    assert drilling.returncode == 0 and told["passed"], told
    for fault in told["faults"]:
        late = fault["step"] - fault["planned_step"]
        assert 0 <= late <= (10 if fault["phase"] == "step" else SETTINGS["every"] + 10), fault


def what_a_drill_would_not_forgive_is_said(place):
    """Compared with a run of another seed, no number is right."""
    job = place.job(**{**SETTINGS, "steps": 120})
    place.run(job, "other", "--set", "seed=6", *WATCHED)
    told = drill(place, job, "--faults", "kill", "--undisturbed", "other", "--run-dir", "drill", expect=1)
    assert not told["passed"] and any("has a loss of" in words for words in told["problems"]), told
    assert any("the last checkpoint is not that of the undisturbed run" in words for words in told["problems"]), told
    refused(place, "drill", job, "--faults", "kill", "--run-dir", "drill", code=78, words="is there already")


def what_an_earlier_drill_left_is_no_measure_for_another_job(place):
    """Once it was taken for one, and the drill was not passed though all was well."""
    job = place.job(**{**SETTINGS, "steps": 120})
    place.run(job, "drill/undisturbed", "--set", "seed=6", *WATCHED)
    refused(place, "drill", job, "--faults", "kill", "--run-dir", "drill", *WATCHED, code=78, words="it has seed = 6, this one")
    assert not (place.path / "drill" / "drilled").exists(), "refused before anything was made"
    assert drill(place, job, "--faults", "kill", "--run-dir", "drill", "--set", "seed=6")["passed"]


def a_flipped_bit_costs_no_more_than_an_interval_though_no_kept_checkpoint_is_as_old_as_the_last_comparison(place):
    """Two checkpoints stay, five steps apart, and replicas are compared every fifty: the run once began anew."""
    job = place.job(steps=160, every=5, keep_last=2, micro_batch=16)
    long_steps = ("--set", "train.global_batch=32")  # so that a save takes few of them
    done = smlp("drill", job, "--faults", "bit-flip", "--set", "cluster.replica_check_every=50", *long_steps, "--json",
                cwd=place.path, check=False, timeout=120)
    assert done.returncode == 0, done.stdout
    told, = json.loads(done.stdout)["faults"]
    assert told["first_step"] > 1 and told["steps_lost"] <= told["steps_that_may_be_lost"] < 20, told


def a_live_run_is_struck_on_request(place):
    process = place.start(place.job(steps=10**6, every=20), "run")
    harness.wait_until(lambda: len(place.lines("run", "metrics.jsonl")) > 30, 60, "thirty steps")
    refused(place, "drill", "run", code=64, words="--fault")
    refused(place, "drill", "run", "--fault", "nan", code=64, words="smlp drill JOB.toml")
    line = smlp("drill", "run", "--fault", "kill", "--rank", 1, cwd=place.path).stdout
    assert line.startswith("kill rank 1, step ") and "training again after" in line, line
    first, = place.lines("run", "attempts.jsonl")
    assert first["cause"] == "signal", first
    told = smlp_json("drill", "run", "--fault", "kill-launcher", cwd=place.path)
    assert told["kind"] == "kill-launcher", told
    assert process.wait(timeout=30) == -9
    harness.wait_until(lambda: not harness.processes_of(place.path), 10, "the ranks are gone")
    refused(place, "drill", "run", "--fault", "kill", code=75, words="not live")


def what_can_not_be_is_refused(place):
    job = place.job(**SETTINGS)
    refused(place, "drill", job, "--faults", "kil", code=64, words="did you mean kill?")
    refused(place, "drill", job, "--faults", "kill,all", code=64, words="'all' stands alone")
    refused(place, "drill", job, "--faults", "cut-off", code=69, words="allocation of several nodes")
    refused(place, "drill", job, "--count", 300, code=78, words="train.steps = 400 has no room")
    refused(place, "drill", job, "--set", "checkpoint.every_steps=0", code=78, words="checkpoint.every_steps")
    refused(place, "drill", job, "--ranks", 1, "--faults", "bit-flip", code=78, words="nobody to compare")
    refused(place, "drill", ".", "--fault", "kill", code=78, words="no run directory")
    refused(place, "drill", job, "--faults", "kill", "--undisturbed", "none", "--run-dir", "drills", code=78, words="no finished run")
    assert not (place.path / "drills" / "drilled").exists(), "the corrected call would be refused for it"
    assert not (place.path / "runs").exists(), "refused before anything was made"
    # What `smlp drill` leaves in the environment, or somebody puts there, does nothing to another run.
    (place.path / "plan").mkdir()
    (place.path / "plan" / "plan.json").write_text('{"faults": []}')
    refused(place, "run", job, "--run-dir", "run", code=78, words="SMLP_DRILL", environment={"SMLP_DRILL": str(place.path / "plan")})
    place.run(place.job(**{**SETTINGS, "steps": 5}), "run")


if __name__ == "__main__":
    # In memory: what may be lost grows with the steps that a save takes, and a slow disk made them fifteen.
    harness.main([a_run_comes_back_from_a_fault_of_every_kind, a_fast_run_is_not_over_before_a_busy_drill_has_looked,
                  what_a_drill_would_not_forgive_is_said, what_an_earlier_drill_left_is_no_measure_for_another_job,
                  a_flipped_bit_costs_no_more_than_an_interval_though_no_kept_checkpoint_is_as_old_as_the_last_comparison,
                  a_live_run_is_struck_on_request, what_can_not_be_is_refused], parent="/dev/shm")
