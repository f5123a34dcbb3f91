#!/usr/bin/env python3
"""What can happen to a run under SLURM, and that it ends as if nothing had. All of it, or the tests named:
`scenario_test.py preempted`."""
import json
import os
import pathlib
import signal

import each_test
import namespaces
from scenarios import DEFAULTS, HANG_BOUND, Stage, harness, now, seconds_to_next_step

# From the moment a requeue is allowed to the run's next step: SLURM waits 6 s, schedules, and the ranks start.
REQUEUE_SECONDS = 45
DEAD_NODE_SECONDS = 60
# mpirun may wait for ever: the hang limit, SLURM's notice that the node is down, and a probe of it.
DEAD_NODE_SECONDS_OF_MPIRUN = 100


def with_stage(test):
    def on_cluster(cluster):
        with Stage(cluster) as stage:
            try:
                test(stage, cluster)
            except Exception:
                print(stage.story(), flush=True)
                raise
    on_cluster.__name__ = test.__name__
    on_cluster.nodes = getattr(test, "nodes", 4)
    return on_cluster


def one_more_node(test):
    test.nodes = 5
    return test


def start(stage, step=130, **settings):
    """A submitted job that has done some steps, and whose saves keep up with them: a busy disk is not what is tested."""
    job = stage.submit(stage.job(**settings))
    stage.wait_for_step(step, timeout=120)
    every = settings.get("every", DEFAULTS["every"])
    stage.cluster.wait(lambda: steps_not_saved(stage) <= 1.2 * every, 60, f"a save of the last {every} steps")
    return job


def steps_not_saved(stage):
    saved = [event["step"] for event in stage.events("checkpoint_published")]
    return stage.newest_step()["step"] - max(saved, default=0)


def requeued_without_loss(stage, job, steps=None):
    """The job was requeued once, had saved before, and is done now, the same as undisturbed."""
    ended = stage.wait_for_end(job)
    assert ended["Restarts"] == "1", ended
    last, first = stage.restart_of(attempt=2)
    assert first == last + 1, f"step {last} was done, and the next attempt began with {first}"
    stage.is_as_undisturbed(**({"steps": steps} if steps else {}))
    stage.nothing_is_left()


@with_stage
def submitted(stage, cluster):
    job = start(stage)
    assert stage.nodes_of_workers() == cluster.nodes and len(stage.workers()) == 4, stage.workers()
    assert stage.wait_for_end(job)["Restarts"] == "0"
    stage.is_as_undisturbed()
    assert {line["attempt"] for line in stage.steps()} == {1}
    stage.nothing_is_left()


@with_stage
def started_from_a_login_node(stage, cluster):
    """No rank is on the launcher's host: once every attempt was ended after 10 s."""
    job = stage.job(nodes=2, launcher="srun", extra=[], steps=1500, every=200)
    launcher = cluster.popen("salloc", "--exclusive", "--nodes=2", "--time=10", harness.BIN / "smlp", "run", job,
                             "--run-dir", stage.path / "run", cwd=stage.path)
    stage.wait_for_step(1)
    assert stage.nodes_of_workers() == ["n1", "n2"] and stage.supervisor_node() == "ctl", stage.workers()
    cluster.wait(lambda: launcher.poll() is not None, 180, "the run done")
    assert launcher.returncode == 0, launcher.returncode
    assert {line["attempt"] for line in stage.steps()} == {1} and not stage.events("hang"), stage.events("hang")
    seconds = stage.steps()[-1]["time"] - stage.steps()[0]["time"]
    assert seconds > 12, f"the run was over after {seconds:.1f} s: too soon to tell"
    stage.nothing_is_left()


@with_stage
def preempted(stage, cluster):
    job = start(stage)
    (stage.path / "urgent.sh").write_text("#!/bin/sh\nsleep 2\n")
    began = now()
    urgent = cluster.sbatch("urgent.sh", "--partition=urgent", "--nodes=4", "--exclusive", "--time=1")
    cluster.wait_for_state(urgent, ["RUNNING", "COMPLETED"], 20)  # the run makes room at once: SLURM alone takes 30 s
    cluster.wait_for_state(urgent, "COMPLETED", 20)
    stage.wait_for_step(1, timeout=REQUEUE_SECONDS, attempt=2)
    print(f"      next step {seconds_to_next_step(stage, began):.1f} s after the urgent job came, which took 2 s")
    requeued_without_loss(stage, job)


@with_stage
def warned_of_the_time_limit(stage, cluster):
    job = start(stage)
    began = now()
    cluster.run("scancel", "--signal=USR1", "--batch", job)
    stage.wait_for_step(1, timeout=REQUEUE_SECONDS, attempt=2)
    print(f"      next step {seconds_to_next_step(stage, began):.1f} s after the warning")
    requeued_without_loss(stage, job)


@with_stage
def real_time_limit(stage, cluster):
    """One minute, with the warning asked for 40 s before: it comes at 20 to 33 s."""
    steps = 2400
    job = start(stage, steps=steps, time_limit="00:01:00", signal_seconds=40)
    ended = stage.wait_for_end(job, timeout=1200)  # a busy machine needs many of them
    assert int(ended["Restarts"]) >= 1, ended
    for attempt in range(2, int(ended["Restarts"]) + 2):
        last, first = stage.restart_of(attempt)
        assert first == last + 1, f"step {last} was done, and attempt {attempt} began with {first}"
    stage.is_as_undisturbed(steps=steps)
    stage.nothing_is_left()


@with_stage
@one_more_node
def node_killed_with_a_spare(stage, cluster):
    job = start(stage, spare_nodes=1)
    assert len(stage.nodes_of_workers()) == 4, stage.nodes_of_workers()
    victim, began = stage.node_of_workers_alone(), now()
    cluster.power_off(victim)
    stage.wait_for_step(1, timeout=DEAD_NODE_SECONDS, attempt=2)
    print(f"      next step {seconds_to_next_step(stage, began):.1f} s after {victim} lost its power")
    assert victim not in stage.nodes_of_workers() and len(stage.nodes_of_workers()) == 4
    last, first = stage.restart_of(attempt=2)
    assert last - first < 2 * 50, f"back from step {last} to {first}: more than the interval and the save under way"
    assert stage.wait_for_end(job)["Restarts"] == "0"
    stage.is_as_undisturbed()
    stage.nothing_is_left()


@with_stage
def node_killed_without_a_spare(stage, cluster):
    """On three ranks, or requeued until the node is back: done either way."""
    job = start(stage, precision="f64")
    victim, began = stage.node_of_workers_alone(), now()
    cluster.power_off(victim)
    cluster.wait(lambda: stage.newest_step()["attempt"] > 1 or cluster.job(job)["JobState"] == "PENDING",
                 DEAD_NODE_SECONDS, "a new attempt, or the job requeued")
    if cluster.job(job)["JobState"] == "PENDING":
        cluster.power_on(victim)
    stage.wait_for_step(1, timeout=REQUEUE_SECONDS, attempt=2)
    print(f"      next step {seconds_to_next_step(stage, began):.1f} s after {victim} lost its power")
    stage.wait_for_end(job)
    stage.loss_is_as_undisturbed(attempt=2)
    stage.nothing_is_left()


@with_stage
def supervisor_node_killed(stage, cluster):
    """Its node takes the batch script along: SLURM requeues, and a supervisor that knows nothing goes on."""
    job = start(stage)
    victim, began = stage.supervisor_node(), now()
    cluster.power_off(victim)
    cluster.wait(lambda: cluster.job(job)["Restarts"] == "1", DEAD_NODE_SECONDS, "the job requeued by SLURM")
    cluster.power_on(victim)
    stage.wait_for_step(1, timeout=REQUEUE_SECONDS, attempt=2)
    print(f"      next step {seconds_to_next_step(stage, began):.1f} s after {victim} lost its power")
    assert stage.wait_for_end(job)["Restarts"] == "1"
    stage.is_as_undisturbed()
    stage.nothing_is_left()


@with_stage
def launcher_killed(stage, cluster):
    """As the kernel does it for want of memory: the job once ended with it, FAILED."""
    job = start(stage)
    (launcher,) = cluster.processes(r"^\S*smlp run ")
    began = now()
    namespaces.kill(launcher["pid"])
    stage.wait_for_step(1, timeout=REQUEUE_SECONDS, attempt=2)
    print(f"      next step {seconds_to_next_step(stage, began):.1f} s after the launcher was killed")
    last, first = stage.restart_of(attempt=2)
    assert last - first < 2 * 50, f"back from step {last} to {first}: more than the interval and the save under way"
    assert stage.wait_for_end(job)["Restarts"] == "1"
    assert stage.events("launcher_lost"), stage.story()
    stage.is_as_undisturbed()
    stage.nothing_is_left()


@with_stage
def tasks_of_an_array_leave_each_other_alone(stage, cluster):
    """SLURM gives one task the array's own id. What that task did to the job of this id once met all tasks: its ranks'
    end ended the other's, and the warning before its time limit requeued the other too."""
    job = stage.submit(stage.job(nodes=2, array="0-1", steps=1500, every=100))
    namesake = next(task for task in (0, 1) if cluster.job(f"{job}_{task}")["JobId"] == job)
    ours, other = f"run/task-{namesake}", f"run/task-{1 - namesake}"
    for run in (ours, other):
        stage.wait_for_step(60, timeout=120, run=run)
    rank = next(worker for worker in stage.workers() if f"/{ours} " in worker["command"])
    namespaces.kill(rank["pid"])
    stage.wait_for_step(1, timeout=60, run=ours, attempt=2)
    cluster.run("scancel", "--signal=USR1", "--batch", f"{job}_{namesake}")
    cluster.wait(lambda: cluster.job(f"{job}_{namesake}")["Restarts"] == "1", 30, "the warned task requeued")
    assert [worker for worker in stage.workers() if f"/{other} " in worker["command"]], "the other task has no ranks"
    stage.wait_for_step(1, timeout=REQUEUE_SECONDS, run=ours, attempt=3)
    ended = stage.wait_for_end(f"{job}_{1 - namesake}", run=other)
    assert ended["Restarts"] == "0" and {line["attempt"] for line in stage.steps(other)} == {1}, ended
    assert stage.wait_for_end(f"{job}_{namesake}", run=ours)["Restarts"] == "1"
    stage.nothing_is_left()


def steps_of_others_are_left_alone(stage, cluster, **settings):
    """A monitor and a second run in the same allocation: an attempt's end once ended every step of the job."""
    job = stage.job(nodes=2, extra=[], **settings)
    run = f"'{harness.BIN}/smlp' run '{job}' --run-dir"
    (stage.path / "both.sh").write_text("#!/bin/sh\nsrun --overlap --mpi=none --ntasks=1 sleep 7654 &\n"
                                        f"{run} other &\n{run} run\n")
    both = cluster.sbatch("both.sh", "--nodes=2", "--ntasks-per-node=1", "--exclusive", "--time=10")
    for one in ("run", "other"):
        stage.wait_for_step(60, timeout=120, run=one)
    names = cluster.run("squeue", "--steps", "--noheader", "--jobs", both, "--format=%j").stdout.split()
    ranks = [name for name in names if name.startswith("smlp-ranks-")]
    assert len(set(ranks)) == 2, names
    rank = next(worker for worker in stage.workers() if f"--run-dir {stage.path}/run " in worker["command"])
    namespaces.kill(rank["pid"])
    stage.wait_for_step(1, timeout=60, attempt=2)
    assert cluster.processes(r"^\S*sleep 7654"), "the monitor was ended with the attempt"
    cluster.wait(lambda: stage.events("done", run="other"), 180, "the other run done")
    assert {line["attempt"] for line in stage.steps("other")} == {1}, "ended with the first run's attempt"
    cluster.wait(lambda: stage.events("done"), 180, "the run done")
    cluster.run("scancel", both)


@with_stage
def steps_of_others_in_the_job(stage, cluster):
    steps_of_others_are_left_alone(stage, cluster)


@with_stage
def steps_of_others_in_the_job_of_an_mpirun(stage, cluster):
    steps_of_others_are_left_alone(stage, cluster, launcher="mpirun")


@with_stage
@one_more_node
def started_by_mpirun_and_a_node_killed(stage, cluster):
    """mpirun finds the allocation by itself."""
    job = start(stage, spare_nodes=1, launcher="mpirun", exchange_check=True)
    assert len(stage.nodes_of_workers()) == 4, stage.nodes_of_workers()
    victim, began = stage.node_of_workers_alone(), now()
    cluster.power_off(victim)
    stage.wait_for_step(1, timeout=DEAD_NODE_SECONDS_OF_MPIRUN, attempt=2)
    print(f"      next step {seconds_to_next_step(stage, began):.1f} s after {victim} lost its power")
    assert victim not in stage.nodes_of_workers() and len(stage.nodes_of_workers()) == 4
    assert stage.wait_for_end(job)["Restarts"] == "0"
    exchanges_were_judged(stage)
    stage.is_as_undisturbed()
    stage.nothing_is_left()


@with_stage
def started_by_mpirun_and_warned(stage, cluster):
    job = start(stage, launcher="mpirun")
    cluster.run("scancel", "--signal=USR1", "--batch", job)
    stage.wait_for_step(1, timeout=REQUEUE_SECONDS, attempt=2)
    requeued_without_loss(stage, job)


@with_stage
def started_by_mpirun_and_cancelled(stage, cluster):
    """SLURM signals mpirun and its daemons too, which once ended the ranks before they had saved."""
    cancel(stage, cluster, start(stage, every=100000, launcher="mpirun"))


@with_stage
def hostile_input(stage, cluster):
    """Names that a shell or sbatch might read as something else name a job and a folder; what is asked in vain is told in
    a sentence, and nothing is submitted."""
    name = "a 'b' \"c\" $(touch canary); `touch canary` #%j"
    job = stage.job(steps=20, every=10, nodes=2, name=name.replace('"', '\\"'))
    done = cluster.run(harness.BIN / "smlp", "submit", job, "--json", cwd=stage.path, timeout=60)
    answer = json.loads(done.stdout)
    assert answer["run_dir"] == str(stage.path / "runs" / name), answer
    ended = stage.wait_for_end(answer["job_id"], run=f"runs/{name}")
    assert ended["JobName"] == name, ended
    harness.smlp("checkpoint", "verify", answer["run_dir"])
    assert not [path for path in (*cluster.folder.rglob("canary"), pathlib.Path("/canary")) if path.exists()]
    for setting, code, words in (("slurm.partition=night", 78, "SLURM has batch and urgent"),
                                 ("slurm.account='a\"; touch canary'", 78, "slurm.account"),
                                 ("slurm.nodes=400", 78, "can't be shared out"),
                                 ("slurm.constraint=none_such", 78, "the job was not submitted: sbatch")):
        refused = cluster.run(harness.BIN / "smlp", "submit", job, "--run-dir", stage.path / "new", "--set", setting,
                              check=False, cwd=stage.path, timeout=60)
        assert refused.returncode == code and refused.stderr.count("\n") == 1 and words in refused.stderr, (setting, refused)
    assert cluster.run("squeue", "--noheader").stdout == ""


def placement_is_taken_as_shown(stage, bound, **settings):
    """`smlp plan --placement`, asked in the batch script, says where the ranks will be. Each sees all GPUs of its node."""
    shown, gpus = stage.path / "placement.json", settings["tasks_per_node"] == 2
    ask = f"'{harness.BIN}/smlp' plan '{stage.path}/job.toml' --placement --json > '{shown}'"
    job = start(stage, step=5, setup=[ask], bind_cores=True, gpus_per_task=int(gpus), **settings)
    plan = json.loads(shown.read_text())
    ranks = {}
    for worker in stage.workers():
        environment = pathlib.Path(f"/proc/{worker['pid']}/environ").read_bytes().split(b"\0")
        rank = next(int(entry.split(b"=")[1]) for entry in environment
                    if entry.startswith((b"OMPI_COMM_WORLD_RANK=", b"PMIX_RANK=")))
        assert (b"CUDA_VISIBLE_DEVICES=0,1" in environment) == gpus, environment
        ranks[rank] = (worker["node"], sorted(os.sched_getaffinity(worker["pid"])))
    assert plan["bound"] == bound and len(ranks) == len(plan["ranks"]) == 4, (plan, ranks)
    for one in plan["ranks"]:
        node, processors = ranks[one["rank"]]
        assert node == one["node"], (one, ranks)
        assert processors == (one["processors"] or sorted(os.sched_getaffinity(0))), (one, ranks)
    groups = {tuple(one["experts"]): one["expert_group"] for one in plan["ranks"]}
    assert sorted(sum(map(list, groups), [])) == [0, 1, 2, 3], plan
    cluster_words = stage.events("attempt_started")[0]["detail"]
    assert plan["binding"] in cluster_words and f"by {plan['starter']} " in cluster_words, (plan, cluster_words)
    assert stage.wait_for_end(job)["Restarts"] == "0"
    return plan


def two_cores_are_here(stage):
    if len(os.sched_getaffinity(0)) < 2:
        print("      not run: binding needs two cores")
        return False
    return True


@with_stage
def placed_and_bound(stage, cluster):
    if two_cores_are_here(stage):
        plan = placement_is_taken_as_shown(stage, bound=True, nodes=2, tasks_per_node=2, steps=60)
        assert plan["starter"] == "srun" and plan["exchange"]["between_nodes"] == 0.5, plan


@with_stage
def placed_and_bound_by_mpirun(stage, cluster):
    if two_cores_are_here(stage):
        plan = placement_is_taken_as_shown(stage, bound=True, nodes=2, tasks_per_node=2, steps=60, launcher="mpirun")
        assert plan["starter"] == "mpirun", plan


@with_stage
def placed_where_ranks_outnumber_cores(stage, cluster):
    if len(os.sched_getaffinity(0)) < 4:
        placement_is_taken_as_shown(stage, bound=False, nodes=1, tasks_per_node=4, steps=60)


@with_stage
def exchange_checked(stage, cluster):
    job = start(stage, exchange_check=True)
    assert stage.wait_for_end(job)["Restarts"] == "0"
    exchanges_were_judged(stage)
    stage.is_as_undisturbed()
    stage.nothing_is_left()


def exchanges_were_judged(stage):
    notes = [event["detail"] for event in stage.events("nodes")]
    assert not [note for note in notes if "could not be judged" in note], notes


@with_stage
def controller_restarted(stage, cluster):
    job = start(stage)
    cluster.restart_controller()
    assert stage.wait_for_end(job)["Restarts"] == "0"
    assert {line["attempt"] for line in stage.steps()} == {1}
    stage.is_as_undisturbed()
    stage.nothing_is_left()


@with_stage
def warned_while_the_controller_is_away(stage, cluster):
    """The save needs no controller; the requeue waits for it."""
    job = start(stage)
    cluster.stop_controller()
    (supervisor,) = cluster.processes(r"^\S*smlp run ")
    namespaces.kill(supervisor["pid"], signal.SIGUSR1)
    cluster.wait(lambda: not stage.workers(), 30, "the ranks saved and gone")
    cluster.start_controller()
    stage.wait_for_step(1, timeout=2 * REQUEUE_SECONDS, attempt=2)
    requeued_without_loss(stage, job)


@with_stage
def cancelled(stage, cluster):
    cancel(stage, cluster, start(stage, every=100000))


def cancel(stage, cluster, job):
    cluster.run("scancel", job)
    stage.wait_for_end(job, "CANCELLED", timeout=30)
    stage.nothing_is_left()
    last = stage.steps()[-1]["step"]
    saved = stage.checkpoints()
    assert saved and saved[-1]["valid"] and saved[-1]["step"] == last, (last, saved)
    assert cluster.job(job)["Restarts"] == "0" and cluster.job(job)["JobState"] == "CANCELLED"


@with_stage
@one_more_node
def node_cut_off(stage, cluster):
    """The cut node's rank works on, and its node comes back while the run goes on elsewhere."""
    job = start(stage, spare_nodes=1)
    victim, began = stage.node_of_workers_alone(), now()
    cluster.cut(victim)
    cluster.wait(lambda: attempts_ended(stage, 1), HANG_BOUND, "the attempt ended within its hang limit")
    print(f"      the attempt ended {now() - began:.1f} s after {victim} was cut off")
    stage.wait_for_step(1, timeout=DEAD_NODE_SECONDS, attempt=2)
    print(f"      next step {seconds_to_next_step(stage, began):.1f} s after it")
    cluster.join(victim)
    ended = stage.wait_for_end(job)
    assert ended["Restarts"] == "0", ended
    assert {line["attempt"] for line in stage.steps()} == {1, 2}, "a node that came back ended an attempt"
    stage.is_as_undisturbed()
    stage.nothing_is_left()


def attempts_ended(stage, count):
    return len(stage.whole_lines("run", "attempts.jsonl")) >= count


if __name__ == "__main__":
    each_test.main([submitted, started_from_a_login_node, preempted, warned_of_the_time_limit, real_time_limit,
                    node_killed_with_a_spare, node_killed_without_a_spare, supervisor_node_killed, launcher_killed,
                    controller_restarted, warned_while_the_controller_is_away, cancelled, node_cut_off, exchange_checked,
                    tasks_of_an_array_leave_each_other_alone, steps_of_others_in_the_job,
                    steps_of_others_in_the_job_of_an_mpirun, started_by_mpirun_and_a_node_killed,
                    started_by_mpirun_and_warned, started_by_mpirun_and_cancelled, hostile_input, placed_and_bound,
                    placed_and_bound_by_mpirun, placed_where_ranks_outnumber_cores])
