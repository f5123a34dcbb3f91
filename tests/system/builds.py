"""Builds of other presets, as tests make them: in folders of their own, kept from one run to the next."""
import os
import pathlib
import subprocess
import time

import harness


def build(preset, folder, *options, seconds, tests=()):
    """Configures and builds smlp, smlp-worker and these tests; harness runs the former from then on. Warnings are errors, the
    linker's too. With -O1, which compiles faster; own kernels keep their options."""
    folder = pathlib.Path(folder)
    began = time.monotonic()
    words = run(["cmake", "--preset", preset, "-B", str(folder), f"-DSMLP_TESTS={'ON' if tests else 'OFF'}",
                 "-DSMLP_WERROR=ON", "-DCMAKE_CXX_FLAGS_RELEASE=-O1 -DNDEBUG", *options], seconds)
    words += run(["cmake", "--build", str(folder), "--parallel", str(os.cpu_count()), "--target", "smlp", "smlp-worker", *tests],
                 seconds - (time.monotonic() - began))
    warnings = [line for line in words.splitlines() if "warning" in line.lower()]
    assert not warnings, "the build warns:\n" + "\n".join(warnings)
    print(f"{preset} built in {time.monotonic() - began:.0f} s", flush=True)
    harness.BIN = folder / "bin"


def run(command, seconds):
    done = subprocess.run(command, cwd=harness.ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
                          timeout=seconds, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, f"{' '.join(command)} ended with {done.returncode}\n{done.stdout[-6000:]}"
    return done.stdout


def libraries_of(program):
    """Names of the libraries that a program needs to start: libc.so.6, libhdf5_serial.so.103…"""
    lines = run(["ldd", str(program)], 30).splitlines()
    absent = [line for line in lines if "not found" in line]
    assert not absent, absent
    return [line.split()[0].rsplit("/", 1)[-1] for line in lines]
