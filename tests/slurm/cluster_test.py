#!/usr/bin/env python3
"""The cluster that the other tests stand on does what a real one does, within stated times."""
import os
import pathlib
import re
import signal
import subprocess
import sys
import time

import each_test
import namespaces
from cluster import Cluster

HERE = pathlib.Path(__file__).resolve().parent
# Root may start mpirun; the batch script shows its signals and times.
HEAD = """#!/bin/bash
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
say() { echo "$* restart=${SLURM_RESTART_COUNT:-0} $EPOCHREALTIME" >> log; }
"""


def submit(cluster, body, *options):
    script = cluster.folder / "work" / "job.sh"
    script.write_text(HEAD + body)
    return cluster.sbatch(script, "--time=5", *options)


def log_of(cluster):
    path = cluster.folder / "work" / "log"
    return path.read_text() if path.exists() else ""


def wait_for_log(cluster, text, timeout):
    cluster.wait(lambda: text in log_of(cluster), timeout, f"'{text}' in the job's log, which is:\n{log_of(cluster)}")


def program(cluster):
    path = cluster.folder / "work" / "sum_ranks"
    subprocess.run(["mpicc", "-O1", "-o", path, HERE / "sum_ranks.c"], check=True, timeout=60)
    return path


def processes_in(folder):
    return [command for _, state, command in namespaces.running() if state != "Z" and str(folder) in command]


def four_nodes_run_a_script_and_mpi_programs(cluster):
    ranks = program(cluster)
    job = submit(cluster, f"""
srun hostname > hosts
srun --mpi=pmix {ranks} > by_srun 2>&1
mpirun {ranks} > by_mpirun 2>&1
mpirun --map-by ppr:2:node {ranks} > by_two 2>&1
""", "--nodes=4", "--ntasks-per-node=2", "--exclusive")
    ended = cluster.wait_for_state(job, ["COMPLETED", "FAILED"], 30)
    work = cluster.folder / "work"
    texts = {name: (work / name).read_text() for name in ("by_srun", "by_mpirun", "by_two")}
    assert ended["JobState"] == "COMPLETED" and ended["NodeList"] == "n[1-4]", (ended, texts)
    assert sorted((work / "hosts").read_text().split()) == sorted(cluster.nodes * 2)
    for name, text in texts.items():
        expected = [f"rank {rank} of 8 on n{rank // 2 + 1} with 2 there, sum 28" for rank in range(8)]
        assert sorted(re.findall("^rank.*", text, re.M)) == expected, f"{name}: {text}"


# The barrier of a step's ranks that MPI_Init ends with.
BARRIER = """
import ctypes, time
class Process(ctypes.Structure):
    _fields_ = [("job", ctypes.c_char * 256), ("rank", ctypes.c_uint32)]
pmix, me, none = ctypes.CDLL("libpmix.so.2"), Process(), ctypes.c_size_t(0)
assert pmix.PMIx_Init(ctypes.byref(me), None, none) == 0
time.sleep(2 if me.rank == 0 else 0)
begun = time.time()
assert pmix.PMIx_Fence(None, none, None, none) == 0
print(begun, time.time(), flush=True)
assert pmix.PMIx_Finalize(None, none) == 0
"""


# Without the variable, which the launcher sets, ranks of SLURM 22.05 waited for nobody, and one that was late died.
def a_barrier_waits_for_the_last_rank(cluster):
    script = cluster.folder / "work" / "barrier.py"
    script.write_text(BARRIER)
    done = cluster.run("env", "SLURM_PMIX_FENCE=ring", "srun", "--nodes=4", "--ntasks=4", "--mpi=pmix", sys.executable, script)
    times = [tuple(map(float, line.split())) for line in done.stdout.splitlines()]
    assert len(times) == 4, done
    assert min(over for _, over in times) >= max(begun for begun, _ in times), times


def a_job_requeues_itself(cluster):
    job = submit(cluster, """
say start
[ "${SLURM_RESTART_COUNT:-0}" = 1 ] || { scontrol requeue $SLURM_JOB_ID; sleep 60; }
""", "--nodes=4", "--requeue", "--open-mode=append")
    wait_for_log(cluster, "start restart=0", 10)
    wait_for_log(cluster, "start restart=1", 20)
    assert cluster.wait_for_state(job, "COMPLETED", 10)["Restarts"] == "1"
    times = [float(line.split()[-1]) for line in log_of(cluster).splitlines()]
    assert len(times) == 2 and times[1] - times[0] < 15, times


def preemption_signals_the_script_and_requeues(cluster):
    job = submit(cluster, """
trap 'say usr1' USR1
say start
[ "${SLURM_RESTART_COUNT:-0}" = 1 ] || while :; do sleep 300 & wait; done
""", "--nodes=4", "--exclusive", "--requeue", "--signal=B:USR1@60")
    wait_for_log(cluster, "start", 10)
    asked = time.time()
    (cluster.folder / "work" / "urgent.sh").write_text("#!/bin/sh\nsleep 2\n")
    urgent = cluster.sbatch("urgent.sh", "--partition=urgent", "--nodes=4", "--exclusive", "--time=1")
    wait_for_log(cluster, "usr1 restart=0", 8)
    told = float(re.search(r"usr1 restart=0 (\S+)", log_of(cluster)).group(1))
    assert told - asked < 5, f"USR1 came {told - asked:.1f} s after the urgent job"
    cluster.wait_for_state(urgent, "COMPLETED", 60)
    assert cluster.wait_for_state(job, "COMPLETED", 30)["Restarts"] == "1"


def a_node_without_power_is_down_and_the_job_goes_on(cluster):
    job = submit(cluster, "say start\nsleep 300", "--nodes=4", "--exclusive", "--no-kill")
    wait_for_log(cluster, "start", 10)
    first = cluster.job(job)["BatchHost"]
    victim = [node for node in cluster.nodes if node != first][-1]
    there = {process["pid"] for process in cluster.processes(".") if process["node"] == victim}
    cluster.power_off(victim)
    cluster.wait(lambda: not there & {pid for pid, state, _ in namespaces.running() if state != "Z"}, 2,
                 f"every process of {victim} gone at once")
    cluster.wait(lambda: cluster.states()[victim].startswith("down"), 45, f"{victim} down")
    now = cluster.job(job)
    assert now["JobState"] == "RUNNING" and now["NumNodes"] == "3", now
    cluster.power_on(victim)
    cluster.wait(lambda: cluster.states()[victim] == "idle", 15, f"{victim} idle again")


def a_cut_off_node_works_on_and_comes_back(cluster):
    job = submit(cluster, "srun bash -c 'exec -a on_all_nodes sleep 300'", "--nodes=4", "--exclusive")

    def where():
        return sorted(process["node"] for process in cluster.processes("^on_all_nodes"))

    def reachable():
        return cluster.run("timeout", 1, "bash", "-c", "< /dev/tcp/n3/6818", check=False).returncode == 0

    cluster.wait(lambda: where() == cluster.nodes, 10, "a process on each node")
    assert reachable()
    cluster.cut("n3")
    assert not reachable() and where() == cluster.nodes
    cluster.join("n3")
    cluster.wait(reachable, 5, "n3 reached again")
    assert cluster.job(job)["JobState"] == "RUNNING"


def a_job_outlives_its_controller(cluster):
    job = submit(cluster, "say start\nsrun bash -c 'exec -a outliving sleep 5'\nsay end", "--nodes=4")
    cluster.wait(lambda: len(cluster.processes("^outliving")) == 4, 10, "four tasks")  # srun waits long for a controller
    cluster.stop_controller()
    assert cluster.run("scontrol", "ping", check=False, timeout=60).returncode != 0
    cluster.restart_controller()
    assert cluster.job(job)["JobState"] == "RUNNING", cluster.job(job)
    wait_for_log(cluster, "end", 10)
    assert cluster.wait_for_state(job, "COMPLETED", 15)["Restarts"] == "0"


def scancel_ends_a_job(cluster):
    job = submit(cluster, "srun bash -c 'exec -a to_be_cancelled sleep 300'", "--nodes=4")
    cluster.wait(lambda: len(cluster.processes("^to_be_cancelled")) == 4, 10, "four tasks")
    cluster.run("scancel", job)
    cluster.wait_for_state(job, "CANCELLED", 10)
    cluster.wait(lambda: not cluster.processes("^to_be_cancelled", zombies=True), 10, "all tasks gone, zombies too")


def a_drained_node_gets_no_job(cluster):
    cluster.set_node("n2", "drain", "a reason")
    assert cluster.states()["n2"] == "drained"
    job = submit(cluster, "sleep 300", "--nodes=3", "--exclusive")
    assert cluster.wait_for_state(job, "RUNNING", 10)["NodeList"] == "n[1,3-4]"
    cluster.set_node("n2", "resume")
    cluster.wait(lambda: cluster.states()["n2"] == "idle", 5, "n2 idle")


def two_clusters_live_side_by_side(cluster):
    with Cluster(nodes=2) as other:
        assert other.folder != cluster.folder
        assert sorted(other.run("srun", "--nodes=2", "hostname").stdout.split()) == ["n1", "n2"]
        assert sorted(cluster.run("srun", "--nodes=4", "hostname").stdout.split()) == cluster.nodes
    assert not processes_in(other.folder) and not other.folder.exists()
    assert sorted(cluster.run("srun", "--nodes=4", "hostname").stdout.split()) == cluster.nodes


def a_killed_test_leaves_nothing(cluster):
    code = ("import cluster, time\nwith cluster.Cluster(nodes=2) as c:\n"
            " c.popen('bash', '-c', 'sleep 300 & wait', c.folder)\n print(c.folder, flush=True)\n time.sleep(300)")
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
        child = subprocess.Popen([sys.executable, "-c", code], cwd=HERE, stdout=subprocess.PIPE, text=True,
                                 stderr=subprocess.DEVNULL)
        folder = pathlib.Path(child.stdout.readline().strip())
        assert folder.is_dir() and len(processes_in(folder)) > 5, folder
        child.send_signal(number)
        child.wait(timeout=10)
        child.stdout.close()
        cluster.wait(lambda: not processes_in(folder), 5, f"no process of the cluster after {number.name}")
        assert not [line for line in pathlib.Path("/proc/mounts").read_text().splitlines() if str(folder) in line]
        if number == signal.SIGKILL:
            namespaces.sweep()
        assert not folder.exists(), f"{folder} is left after {number.name}"
    assert cluster.folder.exists(), "the sweep took a living cluster's folder"


if __name__ == "__main__":
    each_test.main([four_nodes_run_a_script_and_mpi_programs, a_barrier_waits_for_the_last_rank, a_job_requeues_itself,
                    preemption_signals_the_script_and_requeues, a_node_without_power_is_down_and_the_job_goes_on,
                    a_cut_off_node_works_on_and_comes_back, a_job_outlives_its_controller, scancel_ends_a_job,
                    a_drained_node_gets_no_job, two_clusters_live_side_by_side, a_killed_test_leaves_nothing])
