"""A few hosts on this machine, made of namespaces: a control host and nodes, each with a network address, a host name,
process ids and a /dev/shm of its own; the file system is shared by all.

Everything hangs on one process, the control host's first, which ends when this program ends, however it ends: with it
the kernel takes every process, network and mount of all hosts. What can stay behind is files; `sweep` finds those."""
import contextlib
import fcntl
import os
import pathlib
import shutil
import signal
import subprocess
import tempfile
import time

PREFIX = "smlp-slurm-"
NETWORK = "10.77.0"
CONTROL = "ctl"
PROCESSOR_GROUPS = pathlib.Path("/sys/fs/cgroup/cpu")

# The control host. Its /proc is the machine's, so that commands that enter it keep their process ids.
CONTROL_SCRIPT = """
set -e
read -r pid _ < /proc/self/stat
mount --bind "$1/etc/hosts" /etc/hosts
if [ -e /etc/openmpi/openmpi-mca-params.conf ]; then
  mount --bind "$1/etc/openmpi.conf" /etc/openmpi/openmpi-mca-params.conf
fi
mount -t tmpfs -o size=2g tmpfs /dev/shm
mount -t tmpfs tmpfs /run
hostname ctl
ip -batch "$1/etc/network"
echo "$pid" > "$1/run/ctl.new"
mv "$1/run/ctl.new" "$1/run/ctl.init"
read -r _  # until the other end of this pipe is gone
"""

NODE_SCRIPT = """
set -e
read -r pid _ < /proc/self/stat
mount -t proc proc /proc
mount -t tmpfs -o size=2g tmpfs /dev/shm
hostname "$2"
echo "$pid" > "$1/run/$2.new"
mv "$1/run/$2.new" "$1/run/$2.init"
. "$1/etc/boot"
while :; do
  sleep infinity &
  wait  # and so reap whatever loses its parent
done
"""


def why_not():
    """Why hosts can't be made here; empty where they can."""
    if os.geteuid() != 0:
        return "not root"
    missing = [name for name in ("ip", "nsenter", "unshare") if not shutil.which(name, path=search_path())]
    if missing:
        return f"{', '.join(missing)} not installed"
    attempt = subprocess.run(
        ["unshare", "--net", "--uts", "--pid", "--mount", "--fork", "--kill-child", "--propagation", "private", "bash",
         "-c", "mount -t proc proc /proc && mount -t tmpfs tmpfs /run && ip netns add a && "
               "ip link add name bridge0 type bridge && ip link add name veth0 type veth peer name eth0 netns a"],
        capture_output=True, text=True, timeout=30, env={**os.environ, "PATH": search_path()})
    return "" if attempt.returncode == 0 else f"namespaces are not permitted: {attempt.stderr.strip()}"


def search_path():
    return os.environ.get("PATH", "") + ":/usr/sbin:/sbin:/usr/bin:/bin"


def running():
    """(pid, state, command line) of every process of the machine; zombies have no command line but their name."""
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                stat = pathlib.Path(f"/proc/{entry}/stat").read_text(errors="replace")
                line = pathlib.Path(f"/proc/{entry}/cmdline").read_bytes()
            except OSError:
                continue
            name, rest = stat.split("(", 1)[1].rsplit(")", 1)
            command = line.replace(b"\0", b" ").decode(errors="replace").strip()
            yield int(entry), rest.split()[0], command or f"[{name}]"


def kill(pid, number=signal.SIGKILL):
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass


def kill_those_of(folder):
    """Kills commands that entered a host of this folder; what started on the hosts themselves is gone with them."""
    mark = f"SLURM_CONF={folder}/".encode()
    for pid, _, _ in running():
        try:
            environment = pathlib.Path(f"/proc/{pid}/environ").read_bytes()
        except OSError:
            continue
        if pid != os.getpid() and any(entry.startswith(mark) for entry in environment.split(b"\0")):
            kill(pid)


def sweep():
    """Removes what clusters left whose program was killed. A live one holds the lock of its folder."""
    remove_empty_processor_groups()
    for folder in pathlib.Path(tempfile.gettempdir()).glob(PREFIX + "*"):
        try:
            lock = open(folder / "lock")
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:  # alive, or just being made
            continue
        with lock:
            kill_those_of(folder)
            shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def one_processor_group():
    """A cgroup for this program and all it starts, as a service of a real node has one. Without it Linux's autogroups make
    each daemon's session a group for the scheduler, and a rank that waits has nobody to yield to. No change where there
    are no cgroups of version 1: those of version 2 are there from the start."""
    group = PROCESSOR_GROUPS / f"{PREFIX}{os.getpid()}"
    try:
        group.mkdir()
        (group / "cgroup.procs").write_text("0")
    except OSError:
        yield
        return
    try:
        yield
    finally:
        (PROCESSOR_GROUPS / "cgroup.procs").write_text("0")
        remove_empty_processor_groups()


def remove_empty_processor_groups():
    for group in PROCESSOR_GROUPS.glob(PREFIX + "*"):
        with contextlib.suppress(OSError):  # of a living program
            group.rmdir()


class Hosts:
    """The control host and nodes n1 … nN. `start`, then `enter`; `end` leaves nothing. `boot`: the shell command by
    which a node starts its daemons, with the node's name in $2."""

    def __init__(self, nodes, boot):
        self.nodes = [f"n{number}" for number in range(1, nodes + 1)]
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix=PREFIX))
        self.folder.chmod(0o755)
        self.lock = open(self.folder / "lock.new", "w")
        fcntl.flock(self.lock, fcntl.LOCK_EX)
        os.rename(self.folder / "lock.new", self.folder / "lock")  # `sweep` never sees it free
        for name in ("etc", "run", "log", "tmp"):
            (self.folder / name).mkdir()
        self.write("boot", boot)
        self.write("node", NODE_SCRIPT)
        self.first = None
        self.group = contextlib.ExitStack()
        self.environment = {**os.environ, "PATH": search_path()}

    def address(self, host):
        return f"{NETWORK}.{254 if host == CONTROL else self.nodes.index(host) + 1}"

    def start(self):
        self.group.enter_context(one_processor_group())
        names = "".join(f"{self.address(host)} {host}\n" for host in [CONTROL, *self.nodes])
        self.write("hosts", "127.0.0.1 localhost\n" + names)
        # More ranks than cores must not spin; session folders go where they are removed with the rest.
        self.write("openmpi.conf", f"mpi_yield_when_idle = 1\norte_tmpdir_base = {self.folder}/tmp\n")
        lines = ["link set lo up", "link add name br0 type bridge", f"address add {self.address(CONTROL)}/24 dev br0",
                 "link set br0 up"]
        for node in self.nodes:
            lines += [f"netns add {node}", f"link add name {node} type veth peer name eth0 netns {node}",
                      f"link set {node} master br0 up"]
        self.write("network", "\n".join(lines) + "\n")
        self.first = subprocess.Popen(
            ["unshare", "--net", "--uts", "--pid", "--mount", "--fork", "--kill-child", "--propagation", "private",
             "bash", self.write("control", CONTROL_SCRIPT), self.folder],
            stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=open(self.folder / "log" / f"{CONTROL}.log", "w"),
            start_new_session=True, env=self.environment)
        self.wait_for_first(CONTROL)
        for node in self.nodes:
            self.control("ip", "-n", node, "-batch", self.write(f"network-{node}", (
                f"link set lo up\naddress add {self.address(node)}/24 dev eth0\nlink set eth0 up\n")))

    def write(self, name, text):
        """A file of etc; its path as text."""
        path = self.folder / "etc" / name
        path.write_text(text)
        return str(path)

    def wait_for_first(self, host):
        file = self.folder / "run" / f"{host}.init"
        deadline = time.monotonic() + 20
        while not file.exists():
            if time.monotonic() > deadline or (host == CONTROL and self.first.poll() is not None):
                raise RuntimeError(f"host {host} does not start: {(self.folder / 'log' / f'{host}.log').read_text()}")
            time.sleep(0.005)

    def first_of(self, host):
        """The process, as this machine numbers it, whose end is the host's end; None where it is off."""
        file = self.folder / "run" / f"{host}.init"
        return int(file.read_text()) if file.exists() else None

    def enter(self, *argv, folder="/", stays=False):
        """The command line that runs this one in a folder of the control host, with this program's process ids; with
        `stays`, as a process of the host that ends with it."""
        spaces = ["--net", "--uts", "--mount"] + (["--pid"] if stays else [])
        keep = [] if stays else ["setpriv", "--pdeathsig", "KILL"]
        return [*keep, "nsenter", "--target", str(self.first_of(CONTROL)), *spaces, "env", f"--chdir={folder}",
                *map(str, argv)]

    def enter_node(self, node, *argv):
        """The command line that runs this one on a node; a signal to it does not reach the command."""
        return ["nsenter", "--target", str(self.first_of(node)), "--net", "--uts", "--mount", "--pid", *map(str, argv)]

    def control(self, *argv, folder="/", stays=False, check=True, timeout=30, **options):
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "env": self.environment, **options}
        done = subprocess.run(self.enter(*argv, folder=folder, stays=stays), text=True, errors="replace",
                              timeout=timeout, stdin=subprocess.DEVNULL, **options)
        if check and done.returncode != 0:
            raise RuntimeError(f"`{' '.join(map(str, argv))}` ended with {done.returncode}: {done.stdout}{done.stderr}")
        return done

    def switch_on(self, node):
        """Starts a node whose first process runs `boot`, then waits and reaps."""
        with open(self.folder / "log" / f"{node}.log", "a") as log:
            self.control("setsid", "--fork", "nsenter", f"--net=/run/netns/{node}", "unshare", "--uts", "--pid",
                         "--mount", "--fork", "--kill-child", "--propagation", "private", "bash",
                         self.folder / "etc" / "node", self.folder, node, stays=True, stdout=log, stderr=log)
        self.wait_for_first(node)

    def switch_off(self, node):
        """Ends every process of the node at once."""
        file = self.folder / "run" / f"{node}.init"
        pid = self.first_of(node)
        file.unlink()
        kill(pid)

    def link(self, node, state):
        self.control("ip", "link", "set", node, state)

    def host_of(self, pid):
        """The name of the host that a process runs on; None for another one of the machine."""
        for host in [CONTROL, *self.nodes]:
            first = self.first_of(host)
            try:
                if first and os.readlink(f"/proc/{pid}/ns/uts") == os.readlink(f"/proc/{first}/ns/uts"):
                    return host
            except OSError:
                pass
        return None

    def end(self):
        if self.first:
            self.first.stdin.close()
            self.first.kill()
            self.first.wait()
        kill_those_of(self.folder)
        for _ in range(100):  # a process that is being killed may still make a file
            shutil.rmtree(self.folder, ignore_errors=True)
            if not self.folder.exists():
                break
            time.sleep(0.05)
        self.group.close()
        self.lock.close()
