#!/usr/bin/env python3
"""The driver of the paper's comparison at a tiny setting: stopped half-way it goes on, what is done it leaves alone, and
its tables come from the raw results."""
import json
import os
import shutil
import signal
import subprocess
import sys

import harness

SCRIPT = harness.ROOT / "scripts" / "paper_comparison.py"
MODELS = ["dense-gmlp", "small-smlp"]


def command(place, *more):
    return [sys.executable, str(SCRIPT), "--text", str(place.path), "--models", ",".join(MODELS), "--seeds", "1,2", "--jobs", "1",
            "--vocabulary", "280", "--eval-every", "2", "--work", str(place.path / "work"), "--results", str(place.path / "results"), "--bin",
            str(harness.BIN), *map(str, more)]


def driver(place, *more, expect=0):
    (place.path / "work").mkdir(exist_ok=True)
    (place.path / "results").mkdir(exist_ok=True)
    done = subprocess.run(command(place, *more), capture_output=True, text=True, timeout=300, stdin=subprocess.DEVNULL)
    assert done.returncode == expect, f"the driver ended with {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def results(place):
    return {file.name: json.loads(file.read_text()) for file in (place.path / "results").glob("*-seed-*.json")}


def runs_leave_raw_results_and_tables(place):
    driver(place, "--steps", 4)
    found = results(place)
    assert sorted(found) == [f"{name}-seed-{seed}.json" for name in MODELS for seed in (1, 2)], sorted(found)
    smlp = found["small-smlp-seed-1.json"]
    assert smlp["steps"] == 4 and smlp["tokens"] == 4 * 16 * 128 and smlp["seed"] == 1, smlp
    assert [e[0] for e in smlp["evaluations"]] == [0, 2, 4], smlp["evaluations"]
    assert smlp["evaluations"] != found["small-smlp-seed-2.json"]["evaluations"], "another seed, another run"
    assert abs(smlp["forward_macs_per_token"] / found["dense-gmlp-seed-1.json"]["forward_macs_per_token"] - 1) < 0.02
    tables = (place.path / "results" / "tables.md").read_text()
    assert "Table 4 in small" in tables and "sMLP, deterministic | 2 |" in tables and "gMLP, 1 head | 2 |" in tables, tables
    mean = sum(found[f"small-smlp-seed-{s}.json"]["validation"]["perplexity"] for s in (1, 2)) / 2
    assert f"{mean:.2f} (" in tables, tables
    if shutil.which("gnuplot"):
        assert "</svg>" in (place.path / "results" / "figure4.svg").read_text()
    before = {file: os.stat(file).st_mtime_ns for file in (place.path / "results").glob("*-seed-*.json")}
    assert "every run is done" in driver(place, "--steps", 4)
    assert before == {file: os.stat(file).st_mtime_ns for file in before}, "what is done stays as it is"


def an_interrupted_driver_goes_on(place):
    one_seed = ("--seeds", "1")
    (place.path / "work").mkdir()
    (place.path / "results").mkdir()
    with open(place.path / "driver.out", "w") as output:
        process = subprocess.Popen(command(place, "--steps", 300, *one_seed), stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)
    run = "work/dense-gmlp-seed-1"
    if "dense-gmlp" != MODELS[0]:
        raise AssertionError("the first model is the one that is looked at")
    harness.wait_until(lambda: len(place.lines(run, "metrics.jsonl")) > 3, 180, "four steps")
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=120) == 75, (place.path / "driver.out").read_text()
    steps = [line["step"] for line in place.lines(run, "metrics.jsonl")]
    assert 3 < len(steps) < 300 and not results(place), steps
    last = steps[-1]
    # Fewer steps now: the run's own count may change between starts.
    driver(place, "--steps", last + 3, *one_seed)
    again = [line["step"] for line in place.lines(run, "metrics.jsonl")]
    assert again == list(range(1, last + 4)), "it resumed from where it had saved, no step lost or done twice"
    assert len(results(place)) == len(MODELS)


def models_that_do_not_compare_are_refused(place):
    done = subprocess.run(command(place, "--steps", 2, "--models", "small-smlp,large-smlp"), capture_output=True, text=True, timeout=120,
                          stdin=subprocess.DEVNULL)
    assert done.returncode == 1 and "large-smlp takes +" in done.stderr, done


def all_models_take_equal_work(place):
    sys.path.insert(0, str(SCRIPT.parent))
    sys.dont_write_bytecode = True
    import paper_comparison
    import paper_report
    macs = {name: harness.smlp_json("plan", f"examples/paper/scaled/{name}.toml", cwd=harness.ROOT)["forward_macs"]["paper"]
            for name in paper_comparison.MODELS if name not in paper_comparison.EQUAL_BY_SHAPE}
    goal = macs[paper_comparison.REFERENCE]
    assert all(abs(count / goal - 1) < 0.01 for count in macs.values()), {n: c / goal for n, c in macs.items()}
    assert set(paper_report.LABELS) == set(paper_comparison.MODELS), "every model has its name in the tables"
    for name, like in paper_comparison.EQUAL_BY_SHAPE.items():
        routed, dense = (harness.smlp_json("config", "show", f"examples/paper/scaled/{n}.toml", cwd=harness.ROOT)["values"]["model"]
                         for n in (name, like))
        assert routed["hidden"] == dense["hidden"] and routed["dense_blocks"] + routed["sparse_blocks"] == dense["dense_blocks"], name


if __name__ == "__main__":
    harness.main([runs_leave_raw_results_and_tables, an_interrupted_driver_goes_on, models_that_do_not_compare_are_refused,
                  all_models_take_equal_work])
