"""What tests of runs under SLURM share: a small job, submitted to a cluster of namespaces by the real `smlp submit`,
and what is asked of it afterwards. `with Stage(cluster) as stage:`."""
import json
import pathlib
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "system"))
import harness  # noqa: E402  the small model and its data are those of the system tests

# Steps of some 50 ms, most of which they sleep (slow_sums.c): long enough that things happen in the middle of a run and saves are
# done within an interval, also where the disk is busy. The nodes share this machine's cores, which each takes for its own: ranks are
# not bound to them, but where a test is about that.
JOB = harness.JOB.replace("global_batch = 8", "global_batch = 32").replace("width = 32", "width = 64").replace(
    "hidden = 64", "hidden = 128") + """spare_nodes = {spare_nodes}
launcher = "{launcher}"
exchange_check = {exchange_check}
bind_cores = {bind_cores}
[slurm]
nodes = {nodes}
tasks_per_node = {tasks_per_node}
gpus_per_task = {gpus_per_task}
time_limit = "{time_limit}"
signal_seconds = {signal_seconds}
partition = "batch"
setup = {setup}
extra = {extra}
array = "{array}"
"""
DEFAULTS = {**harness.DEFAULTS, "steps": 400, "every": 50, "micro_batch": 8, "nodes": 4, "tasks_per_node": 1, "gpus_per_task": 0, "spare_nodes": 0,
            "launcher": "auto", "exchange_check": False, "bind_cores": False, "time_limit": "00:30:00", "signal_seconds": 120,
            "setup": [], "extra": ["--exclusive"], "array": ""}
SLOW_SUM_MICROSECONDS = 6000
HANG_BOUND = 15 + 10  # the job's hang_floor_seconds, which its learned limits do not pass, and what may be added to it

references = {}  # settings that shape the result → run directory of an undisturbed run on this machine


class Stage(harness.Place):
    """The cluster's work folder with prepared data in it, and the runs there."""

    def __init__(self, cluster):
        self.cluster = cluster
        self.path = cluster.folder / "work"
        self.slow_sums = self.path / "slow_sums.so"
        subprocess.run(["mpicc", "-O1", "-shared", "-fPIC", f"-DSLOW_SUM_MICROSECONDS={SLOW_SUM_MICROSECONDS}",
                        "-o", self.slow_sums, HERE / "slow_sums.c", "-ldl"], check=True, timeout=60)

    def __exit__(self, *_):
        pass  # the folder goes with the cluster

    def job(self, folder=None, **changes):
        settings = {**DEFAULTS, **changes}
        settings["ranks"] = settings["nodes"] * settings["tasks_per_node"]
        settings["setup"] = [*settings["setup"], f"export LD_PRELOAD={self.slow_sums}"]
        path = (folder or self.path) / "job.toml"
        for name in ("setup", "extra", "exchange_check", "bind_cores"):  # as TOML has them too
            settings[name] = json.dumps(settings[name])
        path.write_text(JOB.format(**settings))
        return path

    def submit(self, job, run="run"):
        """`smlp submit`; the job id."""
        done = self.cluster.run(harness.BIN / "smlp", "submit", job, "--run-dir", self.path / run, "--json",
                                cwd=self.path, timeout=60)
        answer = json.loads(done.stdout)
        assert pathlib.Path(answer["run_dir"]) == self.path / run and pathlib.Path(answer["script"]).exists(), answer
        return str(answer["job_id"])

    def steps(self, run="run"):
        return self.lines(run, "metrics.jsonl")

    def newest_step(self, run="run"):
        lines = self.whole_lines(run, "metrics.jsonl")
        return json.loads(lines[-1]) if lines else None

    def wait_for_step(self, step, timeout=60, run="run", attempt=1):
        """Waits until the run has done this step, in this attempt or a later one."""
        def done():
            newest = self.newest_step(run)
            return newest and newest["step"] >= step and newest["attempt"] >= attempt
        self.cluster.wait(done, timeout, f"step {step} of attempt {attempt}")

    def wait_for_end(self, job, state="COMPLETED", timeout=180, run="run"):
        """Waits until the job is over, and asks that it ended in this state; what SLURM says about it."""
        over = ["COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "PREEMPTED", "OUT_OF_MEMORY", "BOOT_FAIL"]
        ended = self.cluster.wait_for_state(job, over, timeout)
        assert ended["JobState"] == state, f"job {job} is {ended['JobState']} ({ended['Reason']}), not {state}"
        return ended

    def story(self, run="run"):
        """What a person would read: events, attempts, what starters of ranks printed, the job's output."""
        files = [self.path / run / name for name in ("events.jsonl", "attempts.jsonl")]
        files += sorted((self.path / run).rglob("launch.log"))
        files += sorted(self.path.rglob("slurm-*.*"))
        return "\n".join(f"--- {file.relative_to(self.path)}\n" + "\n".join(file.read_text(errors="replace").splitlines()[-40:])
                         for file in files if file.exists())

    def events(self, kind, run="run"):
        return [line for line in self.lines(run, "events.jsonl") if line["event"] == kind]

    def restart_of(self, attempt, run="run"):
        """The steps around a restart: the last of the attempt before, the first of this one."""
        lines = self.steps(run)
        return (max(line["step"] for line in lines if line["attempt"] < attempt),
                min(line["step"] for line in lines if line["attempt"] == attempt))

    def workers(self):
        return self.cluster.processes(r"^\S*smlp-worker train")

    def nodes_of_workers(self):
        return sorted({process["node"] for process in self.workers()})

    def supervisor_node(self):
        return self.cluster.processes(r"^\S*smlp run ")[0]["node"]

    def node_of_workers_alone(self):
        """A node that can be lost without the supervisor."""
        return [node for node in self.nodes_of_workers() if node != self.supervisor_node()][-1]

    def nothing_is_left(self):
        def left():
            return self.cluster.processes(r"smlp-worker|smlp run |smlp guard |mpirun|orted", zombies=True)

        try:  # a step daemon whose node was cut off reaps its rank once it has told the controller
            self.cluster.wait(lambda: not left(), 30, "no process of the run left on any node")
        except AssertionError as error:
            raise AssertionError(f"{error}: {left()}") from None

    def is_as_undisturbed(self, run="run", steps=DEFAULTS["steps"]):
        """The last checkpoint is bit for bit that of a run of the same layout which nothing happened to."""
        harness.smlp("checkpoint", "diff", self.undisturbed(steps) / checkpoint(steps),
                     self.path / run / checkpoint(steps))

    def loss_is_as_undisturbed(self, attempt, run="run", steps=DEFAULTS["steps"]):
        """For another layout: the losses are the undisturbed run's but for rounding, which in the long run turns a
        token's choice of expert now and then."""
        ours = {line["step"]: line["loss"] for line in self.steps(run) if line["attempt"] == attempt}
        theirs = {line["step"]: line["loss"] for line in self.steps(self.undisturbed(steps, "f64"))}
        for step in sorted(ours)[:5]:
            assert abs(ours[step] - theirs[step]) < 1e-9, (step, ours[step], theirs[step])
        assert abs(ours[steps] - theirs[steps]) < 0.02, (ours[steps], theirs[steps])

    def undisturbed(self, steps, precision="f32"):
        key = (steps, precision)
        if key not in references:
            folder = tempfile.TemporaryDirectory(prefix="smlp-undisturbed-")  # removed when this program ends
            job = self.job(pathlib.Path(folder.name), steps=steps, precision=precision, every=steps)
            self.run(job, f"{folder.name}/run", timeout=max(300, steps))  # half a second a step on a busy machine
            references[key] = folder
        return pathlib.Path(references[key].name) / "run"

    def checkpoints(self, run="run"):
        return harness.smlp_json("checkpoint", "ls", self.path / run)


def checkpoint(step):
    return f"checkpoints/step-{step:08d}"


def seconds_to_next_step(stage, since, run="run"):
    """From a moment (time.time()) to the first step of the newest attempt."""
    lines = stage.steps(run)
    newest = max(line["attempt"] for line in lines)
    return next(line["time"] for line in lines if line["attempt"] == newest) - since


def now():
    return time.time()
