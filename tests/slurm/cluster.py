"""A real SLURM on this machine for tests: controller and nodes in namespaces (namespaces.py), no root daemon of the
system touched. `with Cluster(nodes=4) as cluster:`; nothing is left when the block ends. Needs root."""
import os
import pathlib
import re
import shutil
import signal
import subprocess
import threading
import time

import namespaces
from namespaces import CONTROL, Hosts

CONFIGURATION = """
ClusterName=smlptest
SlurmctldHost={control}({address})
SlurmUser=root
SlurmdUser=root
AuthInfo=cred_expire=5,socket={folder}/run/munge.socket
StateSaveLocation={folder}/state
SlurmctldPidFile={folder}/run/slurmctld.pid
SlurmctldLogFile={folder}/log/slurmctld.log
SlurmdPidFile={folder}/run/slurmd-%n.pid
SlurmdLogFile={folder}/log/slurmd-%n.log
SlurmdSpoolDir={folder}/spool/%n
TmpFS={folder}/tmp/%n
SlurmdParameters=config_overrides
SlurmctldParameters=preempt_send_user_signal
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
GresTypes=gpu
ReturnToService=2
PropagateResourceLimits=NONE
SlurmdTimeout=10
KillWait=5
SchedulerParameters=sched_interval=1,batch_sched_delay=0,bf_interval=30
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
{nodes}
PartitionName=batch Nodes=ALL Default=YES MaxTime=INFINITE PriorityTier=1 PreemptMode=REQUEUE GraceTime=5
PartitionName=urgent Nodes=ALL MaxTime=INFINITE PriorityTier=10 PreemptMode=OFF
"""


def why_not():
    """Why there can be no cluster here, in words; empty where there can."""
    missing = [name for name in ("slurmctld", "slurmd", "munged", "sbatch", "srun")
               if not shutil.which(name, path=namespaces.search_path())]
    return f"{', '.join(missing)} not installed (scripts/setup.sh does it)" if missing else namespaces.why_not()


class Cluster:
    """Partitions: `batch` (the default; preempted by requeue) and `urgent`. Nodes n1 … nN, 4 CPUs and 2 "GPUs" each; the
    controller is on host ctl, where `run` and `popen` run their commands. All hosts see `folder`; `folder`/work is for the
    test's own files. A requeued job starts again 6 s later; a dead node is DOWN after about 30 s."""

    def __init__(self, nodes=4):
        self.count = nodes
        self.hosts = None
        self.started = []
        self.old_handler = None

    def __enter__(self):
        reason = why_not()
        if reason:
            raise RuntimeError(f"no SLURM here: {reason}")
        in_main = threading.current_thread() is threading.main_thread()
        if in_main and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
            self.old_handler = signal.signal(signal.SIGTERM, leave_on_signal)
        namespaces.sweep()
        self.hosts = Hosts(self.count, boot='slurmd -N "$2"')
        try:
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        for process in self.started:
            process.kill()
        self.hosts.end()
        for process in self.started:
            process.wait()
        if self.old_handler is not None:
            signal.signal(signal.SIGTERM, self.old_handler)

    @property
    def folder(self):
        return self.hosts.folder

    @property
    def nodes(self):
        return self.hosts.nodes

    def start(self):
        folder = self.folder
        for name in ("state", "munge", "work"):
            (folder / name).mkdir()
        (folder / "munge").chmod(0o700)
        for node in self.nodes:
            (folder / "spool" / node).mkdir(parents=True)
            (folder / "tmp" / node).mkdir()
        key = folder / "munge" / "key"
        key.touch(mode=0o600)
        key.write_bytes(os.urandom(1024))
        lines = [f"NodeName={node} NodeAddr={self.hosts.address(node)} CPUs=4 CoresPerSocket=4 RealMemory=4000 Gres=gpu:2"
                 for node in self.nodes]
        self.configuration = folder / "etc" / "slurm.conf"
        self.configuration.write_text(CONFIGURATION.format(
            control=CONTROL, address=self.hosts.address(CONTROL), folder=folder, nodes="\n".join(lines)))
        # For SLURM, which opens neither, GPUs.
        (folder / "etc" / "gres.conf").write_text("Name=gpu File=/dev/null\nName=gpu File=/dev/zero\n")
        (folder / "etc" / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\n")  # slurmd starts without cgroup mounts
        environment = {name: value for name, value in self.hosts.environment.items()
                       if not name.startswith(("SLURM_", "OMPI_", "PMIX_"))}
        self.hosts.environment = {**environment, "SLURM_CONF": str(self.configuration)}
        self.hosts.start()
        self.hosts.control("munged", f"--socket={folder}/run/munge.socket", f"--key-file={key}", stays=True,
                           *(f"--{name}-file={folder}/munge/{name}" for name in ("pid", "log", "seed")))
        self.start_controller()
        for node in self.nodes:
            self.hosts.switch_on(node)
        self.wait(lambda: self.states() == {node: "idle" for node in self.nodes}, 20, "all nodes idle")

    # What a user does

    def run(self, *argv, check=True, timeout=30, cwd=None):
        """A command on the control host to its end; the completed process with text output."""
        return self.hosts.control(*argv, check=check, timeout=timeout, folder=cwd or self.folder / "work")

    def popen(self, *argv, cwd=None, **options):
        """A command on the control host in the background. It is killed with the cluster."""
        options = {"stdin": subprocess.DEVNULL, "env": self.hosts.environment, **options}
        command = self.hosts.enter(*argv, folder=cwd or self.folder / "work")
        self.started.append(subprocess.Popen(command, start_new_session=True, **options))
        return self.started[-1]

    def sbatch(self, script, *options, cwd=None):
        """Submits a script; the job id, as text."""
        return self.run("sbatch", "--parsable", *options, script, cwd=cwd).stdout.strip().split(";")[0]

    def job(self, job):
        """What `scontrol show job` says, by its names (JobState, Restarts, NodeList, Reason, ExitCode …)."""
        return parsed(self.run("scontrol", "--oneliner", "show", "job", job).stdout)

    def states(self):
        """Node name → state as sinfo has it, `*` for one that does not answer included."""
        answer = self.run("sinfo", "--noheader", "--Node", "--partition=batch", "--format=%N %T", check=False).stdout
        return dict(line.split() for line in answer.splitlines())

    def wait(self, predicate, timeout, what):
        """Waits until the predicate holds and gives back what it gave; says `what` was missing where it does not."""
        deadline = time.monotonic() + timeout
        while not (found := predicate()):
            if time.monotonic() > deadline:
                raise AssertionError(f"after {timeout} s still not: {what}")
            time.sleep(0.1)
        return found

    def wait_for_state(self, job, states, timeout):
        """Waits until the job is in one of these states (a name or several); the job as `job` has it."""
        states = [states] if isinstance(states, str) else states
        seen = {}

        def arrived():
            seen.update(self.job(job))
            return seen["JobState"] in states

        try:
            self.wait(arrived, timeout, f"job {job} {' or '.join(states)}")
        except AssertionError as error:
            raise AssertionError(f"{error}; it is {seen['JobState']} ({seen.get('Reason')})") from None
        return seen

    # What happens to nodes and controller

    def power_off(self, node, silent=True):
        """Every process of the node is gone at once; silent: without a word to its peers, as when the power fails (else
        their connections are closed)."""
        if silent:
            self.hosts.link(node, "down")
        self.hosts.switch_off(node)
        self.hosts.link(node, "down")

    def power_on(self, node):
        self.hosts.link(node, "up")
        self.hosts.switch_on(node)

    def cut(self, node):
        """Takes the node off the network; its processes go on."""
        self.hosts.link(node, "down")

    def join(self, node):
        self.hosts.link(node, "up")

    def set_node(self, node, state, reason="test"):
        self.run("scontrol", "update", f"NodeName={node}", f"State={state}", f"Reason={reason}")

    def start_controller(self):
        self.hosts.control("slurmctld", stays=True)

    def stop_controller(self, number=signal.SIGTERM):
        for process in self.processes("^slurmctld"):
            namespaces.kill(process["pid"], number)
        self.wait(lambda: not self.processes("^slurmctld"), 20, "slurmctld gone")

    def restart_controller(self, number=signal.SIGTERM):
        """With SIGKILL it forgets what it has not written: what happened in the last 5 s, and that backfill has started
        a job, until that job's next change."""
        self.stop_controller(number)
        self.start_controller()
        self.wait(lambda: self.run("scontrol", "ping", check=False).returncode == 0, 20, "slurmctld answers")

    # What a test looks at

    def processes(self, pattern, zombies=False):
        """Processes on all hosts whose command line holds this regular expression: pid (of the machine: may be
        signalled), node, state, command."""
        found = []
        for pid, state, command in namespaces.running():
            if re.search(pattern, command) and (zombies or state not in "ZX"):
                host = self.hosts.host_of(pid)
                if host:
                    found.append({"pid": pid, "node": host, "state": state, "command": command})
        return found

    def on_node(self, node, *argv, timeout=30):
        """A command on a node, outside of any job, to its end."""
        return subprocess.run(self.hosts.enter_node(node, *argv), capture_output=True, text=True, timeout=timeout,
                              stdin=subprocess.DEVNULL, env=self.hosts.environment, check=True)

    def logs(self, lines=40):
        """The end of every log of the cluster, as one text."""
        parts = []
        for path in sorted((self.folder / "log").iterdir()):
            tail = path.read_text(errors="replace").splitlines()[-lines:]
            if tail:
                parts.append("\n".join([f"--- {path.name}", *tail]))
        return "\n".join(parts)


def parsed(line):
    """`Key=value Key=value` as scontrol prints it on one line; values may hold spaces."""
    starts = list(re.finditer(r"(?:^|(?<= ))([A-Za-z][A-Za-z/:_]*)=", line))
    ends = [start.start() for start in starts[1:]] + [len(line)]
    return {start.group(1): line[start.end():end].strip() for start, end in zip(starts, ends)}


def leave_on_signal(number, _):
    raise SystemExit(128 + number)


if __name__ == "__main__":
    # By hand: a cluster until this shell ends.
    with Cluster() as cluster:
        print(f"SLURM with nodes {' '.join(cluster.nodes)}; leave with `exit`", flush=True)
        subprocess.run(cluster.hosts.enter(os.environ.get("SHELL", "bash"), folder=cluster.folder / "work"),
                       env=cluster.hosts.environment)
