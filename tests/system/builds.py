"""Builds of other presets, as tests make them: in folders beside that of the tests, kept from one run to the next, so that
what is compiled alike in both is compiled once (cmake/compile_once.cmake)."""
import os
import pathlib
import shutil
import subprocess
import time

import harness
from give_way import give_way


def build(preset, seconds, tests=()):
    """Configures and builds smlp, smlp-worker and these tests; harness runs the former from then on. Warnings are errors, the
    linker's too."""
    folder = pathlib.Path(f"{os.environ['SMLP_BUILD']}-test-{preset}")
    began = time.monotonic()
    words = run(["cmake", "--preset", preset, "-B", str(folder), f"-DSMLP_TESTS={'ON' if tests else 'OFF'}"], seconds)
    words += run(["cmake", "--build", str(folder), "--parallel", str(os.cpu_count()), "--target", "smlp", "smlp-worker", *tests],
                 seconds - (time.monotonic() - began))
    warnings = [line for line in words.splitlines() if "warning" in line.lower()]
    if warnings:
        shutil.rmtree(folder)  # it would not warn again of what it has compiled
        raise AssertionError("the build warns:\n" + "\n".join(warnings))
    print(f"{preset} built in {time.monotonic() - began:.0f} s", flush=True)
    harness.BIN = folder / "bin"


def run(command, seconds):
    done = subprocess.run(command, cwd=harness.ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
                          timeout=seconds, stdin=subprocess.DEVNULL, preexec_fn=give_way)
    assert done.returncode == 0, f"{' '.join(command)} ended with {done.returncode}\n{done.stdout[-6000:]}"
    return done.stdout


def libraries_of(program):
    """Names of the libraries that a program needs to start: libc.so.6, libhdf5_serial.so.103…"""
    lines = run(["ldd", str(program)], 30).splitlines()
    absent = [line for line in lines if "not found" in line]
    assert not absent, absent
    return [line.split()[0].rsplit("/", 1)[-1] for line in lines]
