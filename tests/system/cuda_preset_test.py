#!/usr/bin/env python3
"""The preset cuda-release, built with nvcc and run where there is no GPU, or where none is shown. Skipped without nvcc."""
import os
import shutil
import subprocess
import sys

import builds
import harness
from harness import smlp

SKIPPED = 77
BUILD_SECONDS = 1500


def nvcc():
    return os.environ.get("CUDACXX") or shutil.which("nvcc", path=os.environ.get("PATH", "") + ":/usr/local/cuda/bin")


def both_programs_start_where_there_is_no_driver(place):
    for name in ("smlp", "smlp-worker"):
        needed = builds.libraries_of(harness.BIN / name)
        assert not [library for library in needed if library.startswith(("libcuda.so", "libnvidia-ml"))], needed
        assert not [library for library in needed if library.startswith("libcudnn")], "it is opened when attention comes"
    assert any(library.startswith("libcublasLt") for library in builds.libraries_of(harness.BIN / "smlp-worker"))
    assert harness.smlp_json("doctor", cwd=place.path)["sound"]


def cudnn_is_built_in_where_its_headers_are(place):
    """Found by CMake: scripts/cudnn_frontend.sh has fetched the front end, if there was a network."""
    cache = (harness.BIN.parent / "CMakeCache.txt").read_text()
    there = all(f"{name}:PATH={name}-NOTFOUND" not in cache for name in ("CUDNN_INCLUDE_DIR", "CUDNN_FRONTEND_INCLUDE_DIR"))
    words = b"LD_LIBRARY_PATH may name its folder" if there else b"this smlp was built without it"
    assert words in (harness.BIN / "smlp-worker").read_bytes()


def cudnn_plans_attention_for_gpus_that_are_not_here(place):
    """Where cuDNN is built in; the test says why where the library is not."""
    builds.run(["ctest", "--test-dir", str(harness.BIN.parent), "-R", "^cudnn_plans_test$", "--output-on-failure"], 700)


def a_gpu_that_is_not_there_is_told_in_a_sentence(place):
    asked = ("--set", "cluster.device=cuda")
    job = place.job(steps=3, every=3, ranks=1)
    for done in (smlp("run", job, "--run-dir", "run", *asked, cwd=place.path, check=False),
                 smlp("bench", "step", *asked, cwd=place.path, check=False)):
        assert done.returncode == 69, done
        assert "there is no GPU here" in done.stderr and 'cluster.device = "cpu"' in done.stderr, done.stderr
    attempts = place.lines("run", "attempts.jsonl")
    assert len(attempts) == 1, "trying again can't help"
    smlp("plan", job, *asked, cwd=place.path)


def the_cpu_trains_when_told_to_and_when_nobody_says(place):
    job = place.job(steps=3, every=3, ranks=1)
    for device in ("cpu", "auto"):
        place.run(job, device, "--set", f"cluster.device={device}")
    last = "checkpoints/step-00000003"
    smlp("checkpoint", "diff", place.path / "cpu" / last, place.path / "auto" / last)


if __name__ == "__main__":
    if not nvcc():
        print("skipped: no nvcc in the path, in /usr/local/cuda/bin or in CUDACXX")
        sys.exit(SKIPPED)
    subprocess.run([harness.ROOT / "scripts/cudnn_frontend.sh"], check=False)
    builds.build("cuda-release", seconds=BUILD_SECONDS,
                 tests=["cudnn_plans", "cuda_device_own"])
    os.environ["CUDA_VISIBLE_DEVICES"] = ""  # where there is a GPU it is not shown: this test is about its absence
    harness.main([both_programs_start_where_there_is_no_driver, cudnn_is_built_in_where_its_headers_are,
                  cudnn_plans_attention_for_gpus_that_are_not_here, a_gpu_that_is_not_there_is_told_in_a_sentence,
                  the_cpu_trains_when_told_to_and_when_nobody_says])
