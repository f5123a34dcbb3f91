#!/usr/bin/env python3
"""What scripts/gpu_check.py keeps and how it reads profilers and libraries, without a GPU and without training: programs that
stand in for ncu and smlp say what those would."""
import json
import os
import pathlib
import subprocess
import sys
import time
import unittest.mock

import harness

sys.path.insert(0, str(harness.ROOT / "scripts"))
from gpu_checks import kernels, programs, versions

UPDATE = "void smlp::cuda::elements<(int)4, smlp::cuda::<unnamed>::AdamW<__nv_bfloat16, (bool)1>>(long, long, T2)"
NCU = f"""#!{sys.executable}
import sys
words = sys.argv[1:]
kernels = ["fill", "gemm", "{UPDATE}", "gemm", "gate", "gemm", "{UPDATE}", "{UPDATE}", "probe"]
with open(words[words.index("--log-file") + 1], "w") as file:
    print("==PROF== Connected", file=file)
    print('"ID","Kernel Name","Metric Name","Metric Unit","Metric Value"', file=file)
    for number, name in enumerate(kernels):
        print(f'"{{number}}","{{name}}","gpu__time_duration.sum","ns","1,500"', file=file)
"""
SMLP = f"""#!{sys.executable}
import json, os, sys
if sys.argv[1] == "doctor":
    print(json.dumps(dict(findings=[dict(name="smlp", value="0"), dict(name="cores", value="2")])))
else:
    with open(os.environ["CUBLASLT_LOG_FILE"], "w") as log:
        for address in range(3):
            print(f"[2026-01-01 00:00:0{{address}}][cublasLt][77][Trace][cublasLtMatmul] A=0X7F0{{address}} "
                  "Adesc=[type=R_16BF rows=64]", file=log)
        print("[2026-01-01 00:00:04][cublasLt][77][Api][cublasLtCreate]", file=log)
    print(json.dumps(dict(steps=5)))
"""


def program(folder, name, text):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)
    (folder / name).chmod(0o755)


def lines(folder):
    return [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]


def profile(place, variables):
    command = [sys.executable, harness.ROOT / "scripts" / "gpu_check.py", "profile", "--build", place.path / "build", "--out",
               place.path / "out"]
    return subprocess.run(command, env=variables, capture_output=True, text=True, timeout=120, check=False)


def the_log_keeps_its_beginning_and_its_end(place):
    runs = programs.Programs(programs.Record(place.path / "out"), None)
    with unittest.mock.patch.object(programs, "MOST_LOG_BYTES", 30_000):
        said = runs.run(sys.executable, "-c", "print('first'); print(*range(20000)); print('last')", seconds=60).demand()
    log = (place.path / "out" / "log.txt").read_text()
    assert said.startswith("first\n") and said.endswith("last\n"), "what a program said is whole for who asked"
    assert "first\n" in log and "last\n[ended with 0" in log and "[... left out ...]" in log and len(log) < 40_000, len(log)


def what_a_program_said_is_in_the_log_before_it_ends(place):
    runs = programs.Programs(programs.Record(place.path / "out"), None)
    said = "import time; print('early', flush=True); time.sleep(60)"
    began = time.monotonic()
    outcome = runs.run(sys.executable, "-c", said, seconds=60, silent=1)
    assert outcome.code is None and "said nothing for 1 s" in outcome.ended and time.monotonic() - began < 30, outcome
    assert outcome.text == "early\n" and "early\n[was ended" in (place.path / "out" / "log.txt").read_text()


def a_profile_tells_one_step_and_the_products_asked_for(place):
    program(place.path / "tools", "ncu", NCU)
    program(place.path / "build" / "bin", "smlp", SMLP)
    program(place.path / "build" / "bin", "smlp-worker", "")
    variables = dict(os.environ, PATH=f"{place.path / 'tools'}:{os.environ['PATH']}")
    done = profile(place, variables)
    assert done.returncode == 0, done
    assert "sMLP, one step: 0.01 ms in 5 kernels" in done.stdout, done.stdout
    assert "2 x elements<(int)4, AdamW<__nv_bfloat16" in done.stdout, done.stdout
    tables = [line for line in lines(place.path / "out") if "kernels" in line]
    assert [line["model"] for line in tables] == ["sMLP", "Transformer"], tables
    expected = sorted([("gemm", 2, 3e-6), ("gate", 1, 1.5e-6), (UPDATE, 2, 3e-6)])
    assert sorted(map(tuple, tables[0]["kernels"])) == expected, tables[0]
    products = next(line["cublaslt"] for line in lines(place.path / "out") if "cublaslt" in line)
    assert products == [["A=* Adesc=[type=R_16BF rows=64]", 3]], products


def without_a_profiler_it_is_not_shown(place):
    program(place.path / "build" / "bin", "smlp", SMLP)
    program(place.path / "build" / "bin", "smlp-worker", "")
    done = profile(place, dict(os.environ, PATH="/usr/bin:/bin"))
    if "kernels of sMLP: neither ncu nor nsys is here" not in done.stdout:
        assert list(pathlib.Path("/opt/nvidia").glob("nsight-*")) or pathlib.Path("/usr/local/cuda/bin/ncu").exists(), done
    assert done.returncode == 0, done


def the_summary_of_nsys_is_read(place):
    text = """
 ** CUDA GPU Kernel Summary (cuda_gpu_kern_sum):

 Time (%)  Total Time (ns)  Instances  Avg (ns)  Med (ns)  Min (ns)  Max (ns)  StdDev (ns)  Name
 --------  ---------------  ---------  --------  --------  --------  --------  -----------  ----
     60.0        3,000,000         10  300000.0  300000.0    290000    310000       1000.0  void gemm<int>(float *, int)
     40.0        2,000,000          4  500000.0  500000.0    490000    510000       1000.0  gate

 ** CUDA GPU MemOps Summary (by Time) (cuda_gpu_mem_time_sum):

    100.0        9,000,000          1  9000000.0  9000000.0  9000000  9000000  0.0  [CUDA memcpy]
"""
    assert kernels.table_of_nsys(text) == [("void gemm<int>(float *, int)", 10, 0.003), ("gate", 4, 0.002)]


def versions_are_read_as_their_libraries_count_them(place):
    for file, number, text in (("libcublasLt.so.13", 130100, "13.1.0"), ("libcudnn.so.9", 91900, "9.19.0"),
                               ("libnccl.so.2", 22809, "2.28.9"), ("libcudart.so.12", 12040, "12.4")):
        assert versions.text_of(number, versions.known(file)[3]) == text, file
    assert versions.known("libc.so.6") is None
    assert versions.tell(place.path / "libcudnn.so.9")[0] == 0, "one that is not there tells nothing"


if __name__ == "__main__":
    harness.main([the_log_keeps_its_beginning_and_its_end, what_a_program_said_is_in_the_log_before_it_ends,
                  a_profile_tells_one_step_and_the_products_asked_for, without_a_profiler_it_is_not_shown,
                  the_summary_of_nsys_is_read, versions_are_read_as_their_libraries_count_them])
