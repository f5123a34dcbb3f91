"""What the parts share: how a check is said, settled and kept apart from the next, and what this build and machine have."""
import contextlib
import os
import pathlib
import shutil
import sys
import tempfile
import traceback

from gpu_checks.programs import Failure, NotHere, Programs, Record, json_in

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROGRAMS = ("cuda_device_test", "cuda_device_golden_test", "cuda_device_training_test")
LOOK_SECONDS = 40


class Checks:
    def __init__(self, options):
        self.rehearsal, self.python, self.filter = options.rehearse, options.python, options.filter
        self.device = "cpu" if self.rehearsal else "cuda"
        self.binaries, self.caches = options.build.resolve() / "bin", (options.caches or options.out).resolve()
        self.record = Record(options.out)
        self.programs = Programs(self.record, options.minutes)
        self.place = tempfile.TemporaryDirectory(prefix="smlp-gpu-")
        self.folder = pathlib.Path(self.place.name)
        self.part, self.states = "", {}  # of each part, the states of its checks

    # What is printed, and when a check is over.

    def say(self, state, words):
        self.record.say(f"{self.part:17} {state:9} {words}")

    def settle(self, state, words):
        self.states[self.part].append(state)
        self.record.keep(part=self.part, verdict=state, words=words)
        self.say(state, words)

    def judge(self, sound, words):
        self.settle("ok" if sound else "FAILED", words)

    @contextlib.contextmanager
    def check(self, name):
        """One failure ends one check."""
        try:
            yield
        except NotHere as why:
            self.settle("not shown", f"{name}: {why}")
        except Failure as why:
            self.settle("FAILED", f"{name}: {why}")
        except Exception as error:
            self.record.note(traceback.format_exc())
            self.settle("FAILED", f"{name}: {type(error).__name__}: {error}")

    def run_parts(self, parts):
        self.states = {"start": [], **{part: [] for part in parts}}
        lacks = self.look_around(parts)
        absent = {part: why for part in parts if (why := self.absence(part, lacks))}
        for self.part, why in absent.items():
            self.settle("not shown", why)
        for self.part in (part for part in parts if part not in absent):
            with self.check("the part"):
                getattr(self, self.part.replace("-", "_"))()

    def summary(self):
        """Whether nothing failed."""
        self.record.say("\nsummary")
        for part, states in self.states.items():
            bad = next((state for state in ("FAILED", "not shown") if state in states), "")
            state = bad or ("ok" if states else "not shown")
            self.record.say(f"  {part:17} {state:9} {states.count('ok')} of {len(states)} checks ok")
        self.record.say(f"{self.record.folder} holds report.txt, log.txt and results.jsonl")
        return not any("FAILED" in states for states in self.states.values())

    # What there is.

    def look_around(self, parts):
        """What this smlp was built without."""
        self.part = "start"
        if (self.binaries.parent / "env.sh").exists() and "OPAL_PREFIX" not in os.environ:
            self.say("note", f"{self.binaries.parent}/env.sh was not sourced; programs may miss their libraries")
        if shutil.which("nvidia-smi"):
            with self.check("nvidia-smi"):
                command = ("nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader")
                gpu = self.programs.run(*command, seconds=LOOK_SECONDS).demand().strip()
                self.record.keep(part="start", gpu=gpu)
                self.say("measured", f"GPU: {gpu}")
        lacks = ""
        with self.check("libraries"):
            self.tell_libraries("ours", self.binaries / "smlp-worker")
        with self.check("smlp"):
            outcome = self.programs.run(self.binaries / "smlp", "doctor", "--json", seconds=LOOK_SECONDS, cwd=self.folder)
            if outcome.code not in (0, 69):  # 69: mpirun is missing
                outcome.demand()
            found = {finding["name"]: finding["value"] for finding in json_in(outcome.text)["findings"]}
            lacks = found.get("built without", "")
            self.record.keep(part="start", doctor=found)
            self.judge(True, f"smlp {found['smlp']}{', built without ' + lacks if lacks else ''}; cores: {found['cores']}")
        with self.check("PyTorch"):
            if {"speed-gmlp", "speed-transformer"} & set(parts):
                if self.has_torch():
                    self.tell_libraries("torch")
                else:
                    self.say("note", f"{self.python} has no torch (--python names one that has): speeds come without PyTorch's "
                                     "beside them")
        return lacks

    def tell_libraries(self, whose, *program):
        """Versions of CUDA's libraries, ours or PyTorch's (gpu_checks/versions.py)."""
        python, ours = (sys.executable, True) if whose == "ours" else (self.python, False)
        words = (ROOT / "scripts" / "gpu_checks" / "versions.py", whose, *program)
        found = json_in(self.programs.run(python, *words, seconds=2 * LOOK_SECONDS, ours=ours).demand())
        self.record.keep(part=self.part, libraries=whose, found=found)
        words = ", ".join(f"{name} {entry['version']} ({entry['file']})" for name, entry in found.items()) or "none of CUDA's"
        self.say("measured", f"libraries, {'ours' if whose == 'ours' else 'PyTorch'}: {words}")

    def absence(self, part, lacks):
        """Why a part can't be shown here, or ""."""
        if part == "tests" and not any((self.binaries / program).exists() for program in PROGRAMS):
            return f"{self.binaries} holds none of {', '.join(PROGRAMS)}"
        if part == "sanitizer" and not (self.binaries / PROGRAMS[0]).exists():
            return f"{self.binaries} holds no {PROGRAMS[0]}"
        if part == "sanitizer" and not self.sanitizer_path():
            return "compute-sanitizer is neither in the path nor in /usr/local/cuda/bin"
        if part == "staged" and "MPI" in lacks:
            return "this smlp was built without MPI, so it has one rank"
        if part == "staged" and not shutil.which("mpirun"):
            return "there is no mpirun in the path"
        if part == "moves" and "HDF5" in lacks:
            return "this smlp was built without HDF5, so it writes no checkpoints"
        return ""

    @staticmethod
    def profiler_path(name):
        """In the path, in the toolkit, or where it is put by itself: the newest."""
        folders = sorted(pathlib.Path("/opt/nvidia").glob(f"nsight-*/*/{name}"), reverse=True)
        places = [name, f"/usr/local/cuda/bin/{name}", *map(str, folders)]
        return next(filter(None, map(shutil.which, places)), None)

    @staticmethod
    def sanitizer_path():
        return shutil.which("compute-sanitizer") or shutil.which("/usr/local/cuda/bin/compute-sanitizer")
