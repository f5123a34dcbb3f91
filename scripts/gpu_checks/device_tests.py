"""The programs of tests/cuda_device, alone and under compute-sanitizer."""
import contextlib
import json
import math
import re
import shutil

from gpu_checks.checks import LOOK_SECONDS, PROGRAMS, ROOT
from gpu_checks.programs import NotHere, telling_line

SANITIZERS = ("memcheck", "synccheck", "racecheck")
SECONDS = dict(tests=240, alone=60, memcheck=240, synccheck=120, racecheck=150)
SILENT_SECONDS = dict(tests=60, memcheck=150, synccheck=90, racecheck=120)  # a test that says nothing for so long hangs
STARTS, MOST_ALONE, MOST_NAMES = 8, 20, 12
MPIRUN = ("mpirun", "--allow-run-as-root", "--oversubscribe", "--bind-to", "none")


def verdicts_in_file(path):
    """passed, failed or skipped, by name, of the tests that googletest's report names; none where it wrote no report."""
    found = {}
    with contextlib.suppress(OSError, ValueError):
        tests = [(suite["name"], test) for suite in json.loads(path.read_text())["testsuites"] for test in suite["testsuite"]]
        for suite, test in tests:
            if test["status"] == "RUN":
                state = "failed" if test.get("failures") else "skipped" if test["result"] == "SKIPPED" else "passed"
                found[f"{suite}.{test['name']}"] = state
    return found


def verdicts_in_text(text):
    """The same from what a program said until it was ended; the test that it was in has failed."""
    states = dict(RUN="failed", OK="passed", FAILED="failed", SKIPPED="skipped")
    lines = re.findall(r"^\[ +(RUN|OK|FAILED|SKIPPED) +\] ([\w/]+\.[\w/]+)", text, re.MULTILINE)
    return {name: states[word] for word, name in lines}


def named(names):
    more = f" and {len(names) - MOST_NAMES} more (results.jsonl)" if len(names) > MOST_NAMES else ""
    return ", ".join(names[:MOST_NAMES]) + more


class TestParts:
    def run_once(self, program, pattern, launcher, kind):
        """Verdicts by test, whether the program came to its end, and what became of it."""
        report = self.folder / "tests.json"
        report.unlink(missing_ok=True)
        words = [self.binaries / program, f"--gtest_filter={pattern}", f"--gtest_output=json:{report}"]
        words += [":", "-n", 1, *words[:2]] if launcher == "ranks" else []  # one of two ranks writes the report
        before = [*MPIRUN, "-n", 1] if launcher == "ranks" else launcher
        outcome = self.programs.run("env", "OMP_NUM_THREADS=1", *before, *words, seconds=SECONDS[kind], cwd=ROOT,
                                    silent=SILENT_SECONDS.get(kind, math.inf))
        outcome.name = program
        return verdicts_in_file(report) or verdicts_in_text(outcome.text), report.exists(), outcome

    def run_tests(self, program, launcher):
        """Verdicts by test, where the program broke off, how long it took, and what became of it; one that breaks off is started
        again for the tests that it has not come to."""
        verdicts, breaks, seconds = {}, [], 0.0
        for _ in range(STARTS):
            pattern = self.filter
            if verdicts:
                pattern += (":" if "-" in pattern else "-") + ":".join(verdicts)
            new, whole, outcome = self.run_once(program, pattern, launcher, "tests")
            if outcome.out_of_time and new:
                new.popitem()  # the one that it was in
            verdicts |= new
            seconds += outcome.seconds
            if not whole and new and not outcome.out_of_time:
                breaks.append(f"{list(new)[-1]} {outcome.ended}")
            if whole or not new or outcome.out_of_time or seconds > SECONDS["tests"]:
                break
        return verdicts, breaks, seconds, outcome

    def fail_alone(self, program, failed, launcher):
        """Those that fail in a process of their own too: after an illegal access every later call of a process fails."""
        def fails(name):
            return self.run_once(program, name, launcher, "alone")[0].get(name) != "passed"
        return [name for name in failed[:MOST_ALONE] if fails(name)]

    def judge_tests(self, name, program, launcher=()):
        verdicts, breaks, seconds, outcome = self.run_tests(program, launcher)
        by_state = {state: [test for test, verdict in verdicts.items() if verdict == state] for state in ("passed", "failed", "skipped")}
        passed, failed, skipped = by_state.values()
        self.record.keep(part=self.part, check=name, seconds=seconds, ended=outcome.ended, breaks=breaks, **by_state)
        words = f"{name}: {len(passed)} passed, {len(failed)} failed, {len(skipped)} skipped in {seconds:.0f} s"
        must_all_run = program == "cuda_device_golden_test"
        if not passed and not failed:
            words += f"; no test ran: {outcome.sentence()}"
        elif not failed and outcome.code != 0:
            words += f"; it {outcome.ended}"
        if skipped and must_all_run:
            words += f"; none may be skipped: SMLP_GOLDEN_DIR names the folder of golden files; {named(skipped)}"
        if outcome.out_of_time and not failed:
            return self.settle("not shown", words)
        self.judge(bool(passed) and not failed and outcome.code == 0 and not (skipped and must_all_run), words)
        if failed:
            self.say("", f"failed: {named(failed)}")
            self.say_breaks(breaks)
            alone = self.fail_alone(program, failed, launcher)
            self.record.keep(part=self.part, check=name, fail_alone=alone)
            self.say("", f"of the first {min(len(failed), MOST_ALONE)}, these fail in a process of their own too: {named(alone) or 'none'}")

    def say_breaks(self, breaks):
        for words in breaks:
            self.say("", f"broke off: {words}")

    def tests(self):
        for program in PROGRAMS:
            with self.check(program):
                self.need_program(program)
                self.judge_tests(program, program)
        with self.check("two ranks"):
            self.need_program(PROGRAMS[-1])
            if not shutil.which("mpirun"):
                raise NotHere("there is no mpirun in the path")
            self.judge_tests(f"{PROGRAMS[-1]}, two ranks", PROGRAMS[-1], "ranks")

    def need_program(self, program):
        if not (self.binaries / program).exists():
            raise NotHere(f"{self.binaries} holds no {program}")

    def sanitizer(self):
        tool = self.sanitizer_path()
        options = self.programs.run(tool, "--help", seconds=LOOK_SECONDS).text
        knows_names = "--kernel-name" in options
        start = ["--launch-timeout", 120] if "--launch-timeout" in options else []  # its own 10 s are few where libraries are cold
        for kind in SANITIZERS:
            with self.check(kind):
                own = ["--kernel-name", "kns=smlp"] if kind in ("racecheck", "synccheck") and knows_names else []  # NVIDIA's are not ours to mend
                api = ["--report-api-errors", "no"] if kind == "memcheck" else []  # tests ask for more memory than there is
                self.sanitize(kind, [tool, "--tool", kind, "--error-exitcode", 1, "--print-limit", 50, *start, *own, *api])

    def sanitize(self, kind, launcher):
        verdicts, _, outcome = self.run_once(PROGRAMS[0], self.filter, launcher, kind)
        said = [line for line in outcome.text.splitlines() if line.startswith("=====") and "COMPUTE-SANITIZER" not in line]
        summary = next((line.strip("= ") for line in reversed(said) if "SUMMARY" in line), "no summary")
        self.record.keep(part=self.part, check=kind, seconds=outcome.seconds, ended=outcome.ended, said=said[:50],
                         failed=[name for name, verdict in verdicts.items() if verdict == "failed"])
        words = f"{kind}: {summary}; {len(verdicts)} tests in {outcome.seconds:.0f} s"
        if outcome.code is None:  # by a limit: memcheck looks into each of NVIDIA's kernels, too
            words += f"; it {outcome.ended}, until when it had {'said: ' + said[0] if said else 'found nothing'}"
            if not said:
                return self.settle("not shown", words)
        elif outcome.code != 0:
            words += f"; it {outcome.ended}, and said first: {said[0] if said else telling_line(outcome.text)}"
        self.judge(outcome.code == 0 and len(verdicts) > 0, words)
