"""Programs that are started within limits of time, and what is kept of what they say."""
import contextlib
import dataclasses
import json
import math
import os
import pathlib
import re
import shlex
import signal
import subprocess
import tempfile
import time


class Failure(Exception):
    """Ends a check with a sentence; `output` is what a program said."""

    def __init__(self, sentence, output=""):
        super().__init__(sentence)
        self.output = output


class NotHere(Exception):
    """Ends a check that this build or machine can't show, with a sentence."""


MOST_LOG_BYTES = 15_000_000


class Record:
    """The files of the folder: few, and none that grows without bound, for a place that takes no more."""

    def __init__(self, folder):
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.log = folder, folder / "log.txt"

    def say(self, text):
        print(text, flush=True)
        self.add("report.txt", text)

    def note(self, text):
        self.add_to_log((text + "\n").encode())

    def add_to_log(self, said):
        """Of a log that grows too long the beginning stays, and the end."""
        with open(self.log, "ab") as file:
            file.write(said)
            size = file.tell()
        if size > MOST_LOG_BYTES:
            third, whole = MOST_LOG_BYTES // 3, self.log.read_bytes()
            part = self.log.with_name("log.part")
            part.write_bytes(whole[:third] + b"\n[... left out ...]\n" + whole[-third:])
            part.replace(self.log)

    def keep(self, **values):
        self.add("results.jsonl", json.dumps(dict(values, time=round(time.time()))))

    def add(self, name, text):
        with open(self.folder / name, "a") as file:
            file.write(text + "\n")


@dataclasses.dataclass
class Outcome:
    """What became of a program; `code` is None where it was ended here."""
    name: str
    code: int | None
    ended: str
    text: str
    seconds: float
    out_of_time: bool  # of the whole call

    def sentence(self):
        said = telling_line(self.text)
        return f"{self.name} {self.ended}{': ' + said if said else ''}"

    def demand(self):
        if self.out_of_time:
            raise NotHere(self.sentence())
        if self.code != 0:
            raise Failure(self.sentence(), self.text)
        return self.text


class Programs:
    """Starts programs. What they say goes into the log as it comes; one that passes its time is ended with all that it started."""

    def __init__(self, record, minutes):
        self.record = record
        self.end = time.monotonic() + 60 * minutes if minutes else math.inf
        self.passed = 0  # bytes of what a program said that are in the log

    def run(self, *command, seconds, silent=math.inf, cwd=None, ours=True):
        if time.monotonic() + 2 > self.end:
            raise NotHere("the minutes were over before it began")
        words = list(map(str, command))
        self.record.note(f"\n$ {shlex.join(words)}")
        with tempfile.TemporaryFile() as said:
            began = time.monotonic()
            try:
                process = subprocess.Popen(words, cwd=cwd, env=self.environment(ours), stdin=subprocess.DEVNULL, stdout=said,
                                           stderr=subprocess.STDOUT, start_new_session=True)
            except OSError as error:
                raise Failure(f"{words[0]} could not be started: {error.strerror}") from error
            try:
                why = self.wait(process, said.fileno(), began + seconds, silent)
            finally:
                end_session(process)
                self.pass_on(said.fileno(), self.passed)
            text = os.pread(said.fileno(), os.fstat(said.fileno()).st_size, 0).decode(errors="replace")
        return self.outcome(words, process, why, text, time.monotonic() - began)

    def pass_on(self, said, begin):
        """To the log, what a program has said since."""
        while more := os.pread(said, 1 << 20, begin):
            self.record.add_to_log(more)
            begin += len(more)
        self.passed = begin

    def wait(self, process, said, end, silent):
        """Why the program must be ended, or "" once it has ended by itself."""
        self.passed, heard = 0, time.monotonic()
        while process.poll() is None:
            now, before = time.monotonic(), self.passed
            self.pass_on(said, before)
            if self.passed != before:
                heard = now
            if now > self.end:
                return "the minutes were over"
            if now > end:
                return "its time was up"
            if now - heard > silent:
                return f"it had said nothing for {silent} s"
            time.sleep(0.05)
        return ""

    def outcome(self, words, process, why, text, seconds):
        name = pathlib.Path(words[0]).name
        name = " ".join([name, *words[1:2]]) if name == "smlp" else name
        code, ended = process.returncode, f"ended with {process.returncode}"
        if why:
            code, ended = None, f"was ended after {seconds:.0f} s: {why}"
        elif code < 0:
            ended = f"was ended by {signal.Signals(-code).name}"
        self.record.note(f"[{ended}, {seconds:.1f} s]")
        return Outcome(name, code, ended, text, seconds, why == "the minutes were over")

    @staticmethod
    def environment(ours):
        """Libraries that came with an archive (scripts/gpu_pack.sh) are for our programs alone."""
        variables = dict(os.environ)
        if ours:
            folders = [variables[name] for name in ("SMLP_LIBRARY_PATH", "LD_LIBRARY_PATH") if variables.get(name)]
            variables |= {"LD_LIBRARY_PATH": ":".join(folders)} if folders else {}
            variables |= {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1", "OMPI_MCA_mpi_yield_when_idle": "1"}
        return variables


def end_session(process):
    """Ends a program and all processes of its session; some make groups of their own."""
    for entry in pathlib.Path("/proc").iterdir():
        with contextlib.suppress(OSError, IndexError, ValueError):
            session = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[3]) if entry.name.isdigit() else None
            if session == process.pid:
                os.kill(int(entry.name), signal.SIGKILL)
    process.wait()


def telling_line(text):
    """The last line of what a program said, but better one in which smlp or a test program says why it ends."""
    lines = [line.strip() for line in text.splitlines() if re.search(r"\w", line)]
    reasons = [line for line in lines if line.startswith(("smlp: ", "skipped: ")) or "error while loading" in line]
    return (reasons or lines or [""])[-1][:300]


def json_in(text):
    """The last JSON object that begins a line of what a program said."""
    found = None
    for start in re.finditer(r"^\{", text, re.MULTILINE):
        with contextlib.suppress(ValueError):
            found, _ = json.JSONDecoder().raw_decode(text, start.start())
    if found is None:
        raise Failure("there is no JSON in what it said")
    return found
