#!/usr/bin/env python3
"""Saves on the nodes themselves: two "nodes" of two ranks each, host names of their own on one machine. Lost nodes, lost
shared checkpoints, damage, stale saves, a full disk: every run ends bit for bit like the undisturbed one."""
import json
import os
import pathlib
import shutil
import subprocess
import tempfile
import time
import urllib.request

import harness
from harness import smlp

OWN_HOST_NAME = ["unshare", "--uts"] + ([] if os.geteuid() == 0 else ["--user", "--map-root-user"])

SCRIPTS = tempfile.TemporaryDirectory(prefix="smlp-test-")  # a file system in memory may refuse to run what lies on it

# Rank r is on node ((r / 2) + SHIFT) mod 2.
WORKER = """#!/bin/sh
rank=${OMPI_COMM_WORLD_RANK:-0}
exec $OWN_HOST_NAME sh -c 'hostname "$1"; shift; exec "$@"' sh \
  "node$(((rank / 2 + ${SHIFT:-0}) % 2))" "$REAL_WORKER" "$@"
"""


def on_two_nodes(shift=0):
    wrapper = pathlib.Path(SCRIPTS.name) / "worker"
    wrapper.write_text(WORKER)
    wrapper.chmod(0o755)
    os.environ.update(OWN_HOST_NAME=" ".join(OWN_HOST_NAME), OMPI_MCA_btl_vader_single_copy_mechanism="none")  # no ptrace
    os.environ.update(SMLP_WORKER=str(wrapper), REAL_WORKER=str(harness.BIN / "smlp-worker"), SHIFT=str(shift))


def local_keys(place, *more, every=2):
    return ["--set", f"checkpoint.local_dir={place.path / 'local'}", "--set", f"checkpoint.local_every_steps={every}",
            *more]


def job(place, steps, every=10, **changes):
    return place.job(**{**dict(steps=steps, every=every, ranks=4), **changes})


def published(place, run, step):
    return place.path / run / "checkpoints" / f"step-{step:08d}"


def node(place, number):
    """The folder of a node; there is one run."""
    (run,) = (place.path / "local").glob("smlp-*")
    return run / f"node{number}"


def save_on(place, number, step, attempt=1):
    return node(place, number) / f"step-{step:08d}.attempt-{attempt:04d}"


def flip(file):
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 4
    file.write_bytes(content)


def events(place, run, kind):
    return [event for event in place.lines(run, "events.jsonl") if event["event"] == kind]


def started_from(place, run):
    last = events(place, run, "start")[-1]
    return last["tier"], last["step"]


def reasons(place, run):
    return " | ".join(event["detail"] for event in events(place, run, "checkpoint_rejected"))


def straight(place, steps=20):
    if not published(place, "straight", steps).exists():
        place.run(job(place, steps), "straight")


def expect_same_end(place, run, steps=20):
    straight(place, steps)
    smlp("checkpoint", "diff", published(place, "straight", steps), published(place, run, steps))


def saved_up_to_14(place):
    """The steps of the two local saves that stay. Which they are depends on the machine: a step that comes due while the
    last save is under way is made up for at a later one."""
    on_two_nodes()
    for _ in range(5):  # on a busy machine the first save may last until the end
        place.run(job(place, 14, every=1000), "run", *local_keys(place, every=1))
        steps = [[int(path.name[5:13]) for path in sorted(node(place, number).iterdir())] for number in (0, 1)]
        if len(steps[0]) == 2:
            break
        shutil.rmtree(place.path / "run")
        shutil.rmtree(place.path / "local")
    assert steps[0] == steps[1] and len(steps[0]) == 2, steps
    return steps[0]


def both_nodes_hold_every_shard(place):
    for step in saved_up_to_14(place):
        for number, own in ((0, (0, 1)), (1, (2, 3))):
            held = {path.name for path in save_on(place, number, step).iterdir()}
            others = [rank for rank in range(4) if rank not in own]
            assert held == {f"rank-{rank:04d}{kind}.{end}" for ranks, kind in ((own, ""), (others, ".copy"))
                            for rank in ranks for end in ("h5", "json")}, held
            for rank in own:
                shard = save_on(place, number, step) / f"rank-{rank:04d}.h5"
                copy = save_on(place, 1 - number, step) / f"rank-{rank:04d}.copy.h5"
                assert shard.read_bytes() == copy.read_bytes()
    place.run(job(place, 20), "run", *local_keys(place))
    assert started_from(place, "run") == ("shared", 14), "both tiers have it, or the shared one alone"
    expect_same_end(place, "run")


def the_run_goes_on_from_the_nodes_where_the_shared_directory_lost_its_saves(place):
    newest = saved_up_to_14(place)[-1]
    shutil.rmtree(published(place, "run", 14))
    place.run(job(place, 20), "run", *local_keys(place))
    assert started_from(place, "run") == ("local", newest)
    expect_same_end(place, "run")


def a_lost_node_is_made_up_for_by_its_partner_also_where_ranks_sit_elsewhere(place):
    newest = saved_up_to_14(place)[-1]
    shutil.rmtree(published(place, "run", 14))
    shutil.copytree(place.path, place.path.parent / (place.path.name + "-kept"))
    try:
        for shift in (0, 1):
            shutil.rmtree(node(place, 1))
            on_two_nodes(shift)
            place.run(job(place, 20), "run", *local_keys(place))
            assert started_from(place, "run") == ("local", newest), shift
            expect_same_end(place, "run")
            for name in ("run", "local"):
                shutil.rmtree(place.path / name)
                shutil.copytree(place.path.parent / (place.path.name + "-kept") / name, place.path / name)
        # Other numbers of ranks read it as well: two ranks, on one node; the other one's files are out of reach.
        place.run(job(place, 20, ranks=2), "run", *local_keys(place))
        assert started_from(place, "run") == ("local", newest)
    finally:
        shutil.rmtree(place.path.parent / (place.path.name + "-kept"))


def damage_means_the_partners_copy_then_the_save_before(place):
    before, newest = saved_up_to_14(place)
    shutil.rmtree(published(place, "run", 14))
    for name in ("run", "local"):
        shutil.copytree(place.path / name, place.path / "kept" / name)
    flip(save_on(place, 0, newest) / "rank-0001.h5")
    place.run(job(place, 20), "run", *local_keys(place))
    assert started_from(place, "run") == ("local", newest)
    assert "the shard of rank 1 on node0" in reasons(place, "run"), reasons(place, "run")
    expect_same_end(place, "run")
    for name in ("run", "local"):
        shutil.rmtree(place.path / name)
        shutil.move(place.path / "kept" / name, place.path / name)
    torn = save_on(place, 0, newest) / "rank-0000.h5"
    torn.write_bytes(torn.read_bytes()[:1000])
    flip(save_on(place, 1, newest) / "rank-0000.copy.h5")
    place.run(job(place, 20), "run", *local_keys(place))
    assert started_from(place, "run") == ("local", before), started_from(place, "run")
    assert "the partner's copy of rank 0 on node1" in reasons(place, "run"), reasons(place, "run")
    assert "rank-0000.h5 has 1000 bytes" in reasons(place, "run"), reasons(place, "run")
    expect_same_end(place, "run")


def a_save_that_a_stale_rank_finishes_later_does_not_count(place):
    before, newest = saved_up_to_14(place)
    shutil.rmtree(published(place, "run", 14))
    for number in (0, 1):
        save_on(place, number, newest).rename(place.path / f"stale{number}")
    place.run(job(place, before), "run", *local_keys(place, every=1000))
    assert started_from(place, "run") == ("local", before)
    for number in (0, 1):
        (place.path / f"stale{number}").rename(save_on(place, number, newest))
    place.run(job(place, 20), "run", *local_keys(place))
    assert started_from(place, "run") == ("shared", before), started_from(place, "run")
    assert f"step-{newest:08d}.attempt-0001: a later attempt went on from an earlier step" in reasons(place, "run")
    expect_same_end(place, "run")


def a_killed_rank_costs_the_steps_since_the_last_local_save(place):
    on_two_nodes()
    settings = dict(steps=300, every=250)
    process = place.start(job(place, **settings), "run", *local_keys(place, every=5))
    lines = lambda: place.lines("run", "metrics.jsonl")
    harness.wait_until(lambda: any(line.get("local_checkpoint_last_step", 0) >= 20 for line in lines()), 60, "step 20")
    workers = [pid for pid, command in harness.processes_of(place.path / "run").items()
               if "smlp-worker train" in command and "mpirun" not in command and "unshare" not in command]
    harness.kill(max(workers))
    assert process.wait(timeout=120) == 0
    tier, step = started_from(place, "run")
    assert tier == "local" and step >= 20, (tier, step)
    expect_same_end(place, "run", 300)


def a_full_local_disk_does_not_stop_training(place):
    """On a tmpfs of its own; without root, a limit on the size of files would meet the shared directory as well."""
    disk = place.path / "local"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", disk], capture_output=True).returncode != 0:
        print("      (no tmpfs can be mounted here: skipped)")
        return
    try:
        on_two_nodes()
        process = place.start(job(place, 100000, every=10), "run", *local_keys(place))
        harness.wait_until(lambda: events(place, "run", "checkpoint_published"), 60, "a shared save")
        targets = json.loads((place.path / "run" / "targets.json").read_text())
        page = urllib.request.urlopen(f"http://{targets[0]['targets'][0]}/metrics", timeout=10).read().decode()
        failures = [line for line in page.splitlines() if line.startswith("smlp_checkpoint_failures_total")]
        process.terminate()
        assert process.wait(timeout=60) == 75
        assert any('tier="local"' in line and not line.endswith(" 0") for line in failures), failures
        assert any('tier="shared"' in line and line.endswith(" 0") for line in failures), failures
        failed = events(place, "run", "checkpoint_failed")
        assert len(failed) == 1 and failed[0]["tier"] == "local", failed  # told once, not every two steps
        assert not list(disk.glob("smlp-*/*/step-*")), "what failed is removed"
    finally:
        subprocess.run(["umount", disk], check=True)


def intervals_are_chosen_and_kept(place):
    on_two_nodes()
    automatic = ["--set", "checkpoint.auto=true", "--set", "checkpoint.auto_least_seconds=0.2", "--set",
                 "checkpoint.auto_most_seconds=0.6", "--set", f"checkpoint.local_dir={place.path / 'local'}"]
    process = place.start(job(place, 100000, every=1), "run", *automatic)
    harness.wait_until(lambda: {event["tier"] for event in events(place, "run", "checkpoint_interval")} ==
                       {"local", "shared"}, 60, "an interval for each tier")
    harness.wait_until(lambda: len(events(place, "run", "checkpoint_published")) > 2, 60, "three saves")
    process.terminate()
    assert process.wait(timeout=60) == 75
    for event in events(place, "run", "checkpoint_interval"):
        assert 0.2 <= event["seconds"] <= 0.6 and "fails once in" in event["detail"], event
    kept = json.loads((place.path / "run" / "save_intervals.json").read_text())
    # Where both tiers save the same step the copy is the local one's cost, and of the shared save nothing may be felt.
    assert kept["local"]["cost_seconds"] > 0 and kept["shared"]["cost_seconds"] >= 0, kept
    steps = [event["step"] for event in events(place, "run", "checkpoint_published")]
    seconds = {line["step"]: line["time"] for line in place.lines("run", "metrics.jsonl")}
    gaps = [seconds[b] - seconds[a] for a, b in zip(steps, steps[1:-1]) if a in seconds and b in seconds]
    assert gaps and min(gaps) > 0.19, gaps


if __name__ == "__main__":
    if subprocess.run([*OWN_HOST_NAME, "hostname", "n"], capture_output=True).returncode:
        print("skipped: host names of their own are not permitted here")
        raise SystemExit(77)
    # In memory: on a slow disk the first of the saves that are due at every step lasts until the end.
    harness.main([both_nodes_hold_every_shard,
                  the_run_goes_on_from_the_nodes_where_the_shared_directory_lost_its_saves,
                  a_lost_node_is_made_up_for_by_its_partner_also_where_ranks_sit_elsewhere,
                  damage_means_the_partners_copy_then_the_save_before,
                  a_save_that_a_stale_rank_finishes_later_does_not_count,
                  a_killed_rank_costs_the_steps_since_the_last_local_save, a_full_local_disk_does_not_stop_training,
                  intervals_are_chosen_and_kept], parent="/dev/shm")
