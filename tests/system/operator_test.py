#!/usr/bin/env python3
"""Looking at a run and talking to it: status, save, stop and dump on runs that live, hang, die, are done, or are none.
Real processes, real files."""
import concurrent.futures
import json
import os
import re
import shutil
import signal
import time
import urllib.request

import harness
from harness import smlp, smlp_json

PHASES = {"productive", "restart", "checkpoint_stall", "data_stall", "exchange_wait", "lost_work", "waiting"}
STATUS_KEYS = {"state", "step", "steps", "loss", "tokens_per_second", "checkpoint", "attempts", "restarts", "goodput",
               "ranks"}


def started(place, run, steps=3, **settings):
    # One round of messages a step: on a busy machine every message waits for the other rank's turn.
    process = place.start(place.job(**{**dict(steps=1000000, every=1000000, keep_last=100, micro_batch=4), **settings}), run)
    harness.wait_until(lambda: place.lines(run, "metrics.jsonl")[steps:], 120, f"{steps} steps of {run}")
    return process


def status(place, run):
    return smlp_json("status", run, cwd=place.path)


def newest_step(place, run):
    return place.lines(run, "metrics.jsonl")[-1]["step"]


def steps_within(place, run, seconds):
    lines = place.lines(run, "metrics.jsonl")[-200:]
    return 20 + int(seconds * (len(lines) - 1) / (lines[-1]["time"] - lines[0]["time"]))


def refused(place, *arguments, code=75):
    done = smlp(*arguments, cwd=place.path, check=False)
    assert done.returncode == code and done.stderr.count("\n") == 1, (done.returncode, done.stderr)
    return done.stderr


def requests_left(place, run):
    return [entry.name for entry in (place.path / run / "control").iterdir() if entry.name.startswith("request-")]


def events(place, run, kind):
    return [line for line in place.lines(run, "events.jsonl") if line["event"] == kind]


def put_hostile_files_into(control):
    (control / "request-1-huge.json").write_bytes(b"[" * 9_000_000)
    (control / "request-2-garbage.json").write_bytes(os.urandom(300))
    (control / "request-3-deep.json").write_bytes(b"[" * 4000)
    (control / "request-4-folder.json").mkdir()
    (control / "request-5-link.json").symlink_to("/dev/zero")
    os.mkfifo(control / "request-6-pipe.json")
    (control / "request-$(touch evil).json").write_text("{}")
    (control / "request-7-kind.json").write_text('{"id": "7-kind", "kind": "format", "step": []}')
    (control / "request-8-other.json").write_text('{"id": "9", "kind": "stop_now"}')
    if os.geteuid() == 0:
        elsewhere = control.parent / "not-ours"
        elsewhere.write_text('{"id": "9-owner", "kind": "stop_now"}')
        os.chown(elsewhere, 12345, 12345)
        elsewhere.rename(control / "request-9-owner.json")
    return {entry.name for entry in control.iterdir() if entry.name.startswith("request-")}


def a_live_run_saves_shows_itself_and_stops_exactly_after_a_step(place):
    began = time.time()
    process = started(place, "run")
    control = place.path / "run" / "control"
    assert control.stat().st_mode & 0o077 == 0, oct(control.stat().st_mode)
    facts = status(place, "run")
    assert STATUS_KEYS <= set(facts) and facts["state"] == "running", facts
    assert facts["steps"] == 1000000 and facts["step"] > 0 and facts["loss"] > 0, facts
    assert facts["checkpoint"] == {"step": None, "age_seconds": None} and len(facts["ranks"]) == 2, facts

    hostile = put_hostile_files_into(control)
    with concurrent.futures.ThreadPoolExecutor() as both:
        saves = [job.result() for job in [both.submit(smlp_json, "save", "run", cwd=place.path) for _ in range(2)]]
    for save in saves:
        assert save["outcome"] == "done", saves
        smlp("checkpoint", "verify", place.path / "run" / "checkpoints" / f"step-{save['step']:08d}")
    harness.wait_until(lambda: hostile == {event["detail"].split(": ")[0] for event in events(place, "run", "request_refused")},
                       10, "each refused, with an event")
    told = len(events(place, "run", "request_refused"))
    # The two may have been asked for on either side of a step, in any order.
    newest = max(save["step"] for save in saves)
    assert status(place, "run")["checkpoint"]["step"] == newest, (status(place, "run")["checkpoint"], saves)

    dump = smlp_json("dump", "run", cwd=place.path)["ranks"]
    assert [rank["rank"] for rank in dump] == [0, 1] and all(rank["answered"] for rank in dump), dump
    assert all(rank["section"] in ("data", "step", "exchange", "checkpoint") and rank["step"] > 0 for rank in dump), dump
    assert all(rank["collectives"]["world"]["number"] > 0 for rank in dump), dump
    # Generated code can't be unwound: now and then a rank is in it.
    more = [smlp("dump", "run", cwd=place.path).stdout for _ in range(3)]
    assert any("smlp::Engine::train_step" in text for text in more), more

    targets = json.loads((place.path / "run" / "targets.json").read_text())
    text = urllib.request.urlopen(f"http://{targets[0]['targets'][0]}/metrics", timeout=10).read().decode()
    assert set(re.findall(r'smlp_goodput_seconds_total\{phase="(\w+)"', text)) == PHASES, text

    screen = smlp("status", "run", cwd=place.path).stdout.splitlines()
    assert len(screen) <= 24 and max(map(len, screen)) <= 100, screen
    last = newest_step(place, "run") + steps_within(place, "run", 3)  # time enough to hear of it before
    assert smlp_json("stop", "run", "--after", last + 1000, cwd=place.path)["outcome"] == "accepted"
    answer = smlp_json("stop", "run", "--after", last, cwd=place.path)  # the newest one counts
    assert answer["outcome"] == "accepted" and answer["step"] >= last, answer
    assert process.wait(timeout=120) == 75, process.returncode
    assert len(events(place, "run", "request_refused")) == told, "once each"
    assert newest_step(place, "run") == answer["step"], (newest_step(place, "run"), answer)
    wall = time.time() - began
    facts = status(place, "run")
    assert facts["state"] == "stopped" and facts["checkpoint"]["step"] == answer["step"], facts
    assert abs(sum(facts["goodput"].values()) - wall) < 0.05 * wall + 0.7, (facts["goodput"], wall)
    assert facts["goodput"]["productive"] > 0 and set(facts["goodput"]) == PHASES, facts["goodput"]
    assert (place.path / "run" / "control" / "request-4-folder.json").is_dir()
    for command in ("save", "stop", "dump"):
        assert "stopped" in refused(place, command, "run")
    saved = saves[0]["step"]
    straight = started(place, "straight", every=saved)
    harness.wait_until(lambda: status(place, "straight")["checkpoint"]["step"], 120, f"step {saved} without being asked")
    smlp("stop", "straight", "--now", cwd=place.path)
    assert straight.wait(timeout=30) == 75
    smlp("checkpoint", "diff", *(place.path / run / "checkpoints" / f"step-{saved:08d}" for run in ("run", "straight")))
    place.run(place.job(steps=5), "short")
    facts = status(place, "short")
    assert facts["state"] == "done" and facts["step"] == facts["steps"] == 5 and facts["seconds_left"] is None, facts
    assert "done" in refused(place, "stop", "short")


def a_stop_after_a_step_holds_over_a_preemption(place):
    """A job that was preempted and requeued forgot it, and ran on to its last step."""
    process = started(place, "run")
    answer = smlp_json("stop", "run", "--after", newest_step(place, "run") + steps_within(place, "run", 4), cwd=place.path)
    process.terminate()
    assert process.wait(timeout=60) == 75 and newest_step(place, "run") < answer["step"], (newest_step(place, "run"), answer)
    again = started(place, "run")
    assert again.wait(timeout=120) == 75 and newest_step(place, "run") == answer["step"], (newest_step(place, "run"), answer)
    assert not requests_left(place, "run")


def a_dump_tells_the_whole_way_from_a_message_to_the_step(place):
    process = started(place, "run")
    inside = 0
    for _ in range(12):
        ranks = re.split(r"^(?=rank \d)", smlp("dump", "run", cwd=place.path).stdout, flags=re.MULTILINE)[1:]
        assert len(ranks) == 2, ranks
        for text in ranks:
            inside += "smlp::LanguageModel::" in text
            assert "smlp::LanguageModel::" not in text or "smlp::Engine::train_step" in text, text
    assert inside > 0, "a rank was never seen inside the model"
    smlp("stop", "run", "--now", cwd=place.path)
    assert process.wait(timeout=30) == 75


def a_rank_that_is_stopped_is_named_and_stop_now_works_all_the_same(place):
    process = started(place, "run")
    victim = next(rank for rank in status(place, "run")["ranks"] if rank["rank"] == 1)["pid"]
    os.kill(victim, signal.SIGSTOP)
    dump = smlp("dump", "run", "--timeout", 5, cwd=place.path).stdout
    assert f"process {victim} is stopped" in dump and "rank 1 is behind" in dump, dump
    assert re.search(r"rank 0: .*\n.*collective \d+", dump), dump
    late = refused(place, "save", "run", "--timeout", 0.5)
    assert "no answer" in late, late
    assert status(place, "run")["state"] == "saving"
    asked = time.monotonic()
    smlp("stop", "run", "--now", cwd=place.path)
    assert time.monotonic() - asked < 15
    assert process.wait(timeout=30) == 75
    facts = status(place, "run")
    assert facts["state"] == "stopped" and facts["checkpoint"]["step"] is None, facts
    assert not requests_left(place, "run")
    assert not harness.processes_of(place.path)


def a_signal_in_the_middle_of_a_product_hurts_nothing(place):
    process = started(place, "run")
    ranks = [rank["pid"] for rank in status(place, "run")["ranks"]]
    for _ in range(1500):
        for rank in ranks:
            assert harness.kill(rank, signal.SIGUSR2), "a rank has died of being asked where it is"
        time.sleep(0.001)
    facts = status(place, "run")
    assert facts["attempts"] == 1 and facts["state"] == "running", facts
    smlp("stop", "run", cwd=place.path)
    assert process.wait(timeout=30) == 75


def a_run_stops_during_its_start_and_during_an_evaluation(place):
    process = place.start(place.job(steps=1000000), "early")
    harness.wait_until((place.path / "early" / "control").is_dir, 20, "the launcher")
    smlp("stop", "early", cwd=place.path)
    assert process.wait(timeout=30) == 75
    assert status(place, "early")["state"] == "stopped" and not requests_left(place, "early")
    process = started(place, "run", steps=1, every=1000000, eval_every=1)
    saving, stopping = (harness.subprocess.Popen([harness.BIN / "smlp", command, "run"], cwd=place.path,
                                                 stdout=harness.subprocess.PIPE, text=True) for command in ("save", "stop"))
    assert saving.wait(timeout=120) == 0 and stopping.wait(timeout=120) == 0
    assert process.wait(timeout=30) == 75
    facts = status(place, "run")
    assert facts["state"] == "stopped" and facts["checkpoint"]["step"] == facts["step"], facts
    assert not requests_left(place, "run")


def whoever_may_not_ask_is_told_so_and_may_look(place):
    if os.geteuid() != 0:
        print("      (not root: nobody else to be)")
        return
    place.path.chmod(0o755)
    process = started(place, "run")
    as_nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", harness.BIN / "smlp"]
    for arguments in (["save", "run"], ["stop", "run", "--now"], ["dump", "run"]):
        done = harness.subprocess.run([*as_nobody, *arguments], cwd=place.path, capture_output=True, text=True, timeout=60)
        assert done.returncode == 74 and "run/control can't be written" in done.stderr, done
        assert "ask as that user" in done.stderr and done.stderr.count("\n") == 1, done.stderr
    done = harness.subprocess.run([*as_nobody, "status", "run", "--json"], cwd=place.path, capture_output=True, text=True,
                                  timeout=60)
    assert json.loads(done.stdout)["state"] == "running", done
    smlp("stop", "run", "--now", cwd=place.path)
    assert process.wait(timeout=30) == 75
    assert [line["reason"] for line in place.lines("run", "attempts.jsonl")] == ["ended at once, on request"]


def a_run_that_dies_says_so_and_discards_what_it_was_asked(place):
    assert "no run directory" in refused(place, "status", ".", code=78)
    assert "no run directory" in refused(place, "stop", "nowhere", code=78)
    process = started(place, "run", every=10)
    pids = {rank["rank"]: rank["pid"] for rank in status(place, "run")["ranks"]}
    harness.wait_until(lambda: status(place, "run")["checkpoint"]["step"], 60, "a checkpoint")
    harness.kill(pids[1])
    harness.wait_until(lambda: events(place, "run", "recovered"), 120, "the restart")
    facts = status(place, "run")
    assert facts["attempts"] == 2 and facts["restarts"] == 1 and "signal 9" in facts["ends"][0]["reason"], facts

    watching = harness.subprocess.Popen([harness.BIN / "smlp", "status", "run", "--watch"], cwd=place.path,
                                        stdout=harness.subprocess.PIPE, text=True)
    for rank in status(place, "run")["ranks"]:
        os.kill(rank["pid"], signal.SIGSTOP)  # nobody answers
    asking = harness.subprocess.Popen([harness.BIN / "smlp", "stop", "run"], cwd=place.path,
                                      stderr=harness.subprocess.PIPE, text=True)
    harness.wait_until(lambda: requests_left(place, "run"), 10, "the request")
    process.kill()
    process.wait()
    seen = {status(place, "run")["state"] for _ in range(5)}
    assert seen <= {"stopping", "dead"} and status(place, "run")["state"] == "dead", seen
    assert asking.wait(timeout=30) == 75 and "dead" in asking.stderr.read()
    assert not requests_left(place, "run")
    assert "dead" in watching.communicate(timeout=30)[0] and watching.returncode == 0

    stale = place.path / "run" / "control" / "request-1-1-1.json"
    stale.write_text(json.dumps({"id": "1-1-1", "kind": "stop", "who": "nobody", "time": "long ago", "step": 0}))
    for name in ("metrics.jsonl", "events.jsonl", "attempts.jsonl", "ledger.jsonl"):
        with open(place.path / "run" / name, "ab") as out:
            out.write(b'\x00\xff{"step": [}\n[1]\n{"step": "x", "event": 3, "time": {}, "attempt": null}\n'
                      b'{"exit_code": "x", "cause": 1, "reason": [], "loss": "y", "goodput_seconds_total": 1}\n{"half": "a li')
    assert status(place, "run")["state"] == "dead"
    before, paused = status(place, "run")["goodput"], time.time()
    shutil.rmtree(place.path / "run" / "heartbeats")
    assert not status(place, "run")["ranks"]
    time.sleep(1.5)
    process = started_again(place, "run")
    assert events_in_text(place, "request_discarded") == 1
    after = status(place, "run")["goodput"]
    assert all(after[phase] >= before[phase] for phase in PHASES), (before, after)
    assert after["lost_work"] > 0 and after["waiting"] > 1.4, after
    smlp("stop", "run", "--now", cwd=place.path)
    assert process.wait(timeout=30) == 75
    began = (place.path / "run" / "ledger.jsonl").read_text(errors="replace").splitlines()[0]
    wall = time.time() - json.loads(began)["time"]
    assert abs(sum(status(place, "run")["goodput"].values()) - wall) < 0.05 * wall + 0.7


def started_again(place, run):
    process = place.start(place.job(steps=1000000, every=10, micro_batch=4), run)
    steps = set()

    def goes_on():  # told by its heartbeats: metrics.jsonl holds bytes that are no line
        facts = status(place, run)
        steps.update(rank["step"] for rank in facts["ranks"][:1])
        return facts["state"] == "running" and len(steps) >= 3

    harness.wait_until(goes_on, 120, "steps after the start")
    return process


def events_in_text(place, kind):
    return (place.path / "run" / "events.jsonl").read_bytes().count(b'"event":"%s"' % kind.encode())


if __name__ == "__main__":
    harness.main([a_live_run_saves_shows_itself_and_stops_exactly_after_a_step,
                  a_stop_after_a_step_holds_over_a_preemption,
                  a_dump_tells_the_whole_way_from_a_message_to_the_step,
                  a_rank_that_is_stopped_is_named_and_stop_now_works_all_the_same,
                  a_signal_in_the_middle_of_a_product_hurts_nothing,
                  a_run_stops_during_its_start_and_during_an_evaluation,
                  whoever_may_not_ask_is_told_so_and_may_look,
                  a_run_that_dies_says_so_and_discards_what_it_was_asked],
                 parent="/dev/shm")  # where saves keep up
