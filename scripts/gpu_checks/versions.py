#!/usr/bin/env python3
"""Versions of CUDA's libraries, as they tell them themselves: one JSON object, by library its version and file.

    versions.py ours PROGRAM     of those that PROGRAM links (ldd), and that it opens by itself: run with its LD_LIBRARY_PATH
    versions.py torch            of those that this Python's PyTorch has loaded
    versions.py number FILE      of one, as a number; 0 where it tells none
"""
import ctypes
import importlib
import json
import pathlib
import re
import subprocess
import sys

# By the beginning of a file's name: what it is called, who asks it, whether the answer is returned, and how it is read.
LIBRARIES = {
    "libcudart.so": ("CUDA runtime", "cudaRuntimeGetVersion", False, (1000, 10)),
    "libcublasLt.so": ("cublasLt", "cublasLtGetVersion", True, (10000, 100, 1)),
    "libcudnn.so": ("cuDNN", "cudnnGetVersion", True, (10000, 100, 1)),
    "libnccl.so": ("NCCL", "ncclGetVersion", False, (10000, 100, 1)),
    "libcuda.so": ("CUDA of the driver", "cuDriverGetVersion", False, (1000, 10)),
}
OPENED = ("libcudnn.so.9", "libcudart.so.13", "libcudart.so.12", "libcuda.so.1")  # by programs themselves; the runtime by cuDNN
# The runtime that is linked statically has left its compiler's name in the kernels.
BUILT_BY = re.compile(rb"Cuda compilation tools, release ([\d.]+)")


def known(file):
    return next((entry for begin, entry in LIBRARIES.items() if pathlib.Path(file).name.startswith(begin)), None)


def number_of(library, function, returned):
    """0 where it does not say."""
    ask = getattr(library, function, None)
    if ask is None:
        return 0
    if returned:
        ask.restype = ctypes.c_size_t
        return ask()
    answer = ctypes.c_int(0)
    return answer.value if ask(ctypes.byref(answer)) == 0 else 0


def text_of(number, places):
    parts = []
    for place in places:
        parts.append(number // place)
        number %= place
    return ".".join(map(str, parts))


def tell(file):
    """Its number and how that reads."""
    _, function, returned, places = known(file)
    try:
        number = number_of(ctypes.CDLL(str(file)), function, returned)
    except OSError:
        number = 0
    return number, text_of(number, places)


def mapped():
    """Files of libraries that this process has loaded."""
    paths = {line.split(maxsplit=5)[-1].strip() for line in open("/proc/self/maps") if "/" in line}
    return sorted(path for path in paths if known(path))


def of_files(files):
    found = {}
    for file in files:
        number, text = tell(file)
        if number:
            found.setdefault(known(file)[0], {"version": text, "number": number, "file": str(file)})
    return found


def ours(program):
    lines = subprocess.run(["ldd", program], capture_output=True, text=True, check=False).stdout.splitlines()
    linked = [line.split("=>")[1].split()[0] for line in lines if "=> /" in line]
    files = [file for file in linked if known(file)]
    for name in OPENED:
        try:
            ctypes.CDLL(name)
        except OSError:
            continue
        files += [path for path in mapped() if pathlib.Path(path).name.startswith(name)]
    found = of_files(files)
    if built := BUILT_BY.search(pathlib.Path(program).read_bytes()):
        found["CUDA compiler"] = {"version": built[1].decode().rstrip("."), "file": str(program)}
    return found


def of_torch():
    torch = importlib.import_module("torch")
    found = of_files(mapped())
    return {"PyTorch": {"version": torch.__version__, "file": torch.__file__}, **found}


def main():
    what, *rest = sys.argv[1:] or ["help"]
    if what == "ours" and len(rest) == 1:
        print(json.dumps(ours(rest[0])))
    elif what == "torch":
        print(json.dumps(of_torch()))
    elif what == "number" and len(rest) == 1:
        print(tell(rest[0])[0] if known(rest[0]) else 0)
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main()
