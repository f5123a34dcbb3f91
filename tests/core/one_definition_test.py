#!/usr/bin/env python3
"""One name, one type and one function: two types of one name and namespace in two files are one destructor after linking, of
either, and two inline functions of one signature are one. No compiler and no sanitizer says so. (It was so of `Verdict`, the
launcher's on a node and the ranks' on their end, and of `wide_type`.)"""
import collections
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
OPENED = re.compile(r"(?:inline )?namespace(?: ([\w:]+))? \{$")
CLOSED = re.compile(r"\}  // namespace")
DEFINED = re.compile(r"(?:struct|class|enum class|enum)(?: alignas\(\w+\))? (\w+)(?: final)?(?: : [^;]*)? \{")
FUNCTION = re.compile(r"(?!template|using|static|friend|return)(?:[\w:]+(?:<.*?>)?[*&]* )+[*&]?(\w+)"
                      r"\((.*?)\)(?: noexcept)? \{")
PARAMETER_NAME = re.compile(r"(?<=[\w>&*]) ?\b\w+(?: = [^,]*)?$")


def signature(name, parameters):
    return f"{name}({', '.join(PARAMETER_NAME.sub('', p.strip()) for p in parameters.split(','))})"


def names_of(text):
    """Types and functions with their namespace; those of unnamed namespaces are their file's own."""
    names, spaces = [], []
    for line in text.splitlines():
        opened = OPENED.match(line)
        if opened:
            spaces.append(opened[1])
        elif CLOSED.match(line):
            spaces.pop()
        elif spaces and None not in spaces:
            if found := DEFINED.match(line):
                names.append("::".join([*spaces, found[1]]))
            elif found := FUNCTION.match(line):
                names.append("::".join([*spaces, signature(found[1], found[2])]))
    return names


def main():
    rooms = [path.parent for path in ROOT.glob("*/CMakeLists.txt") if path.parent.name != "tests"]
    files = [f for room in rooms for kind in ("*.h", "*.cuh", "*.cpp", "*.cu") for f in room.rglob(kind)
             if not f.name.startswith("no_")]  # those take the place of another file
    places = collections.defaultdict(list)
    for file in files:
        for name in names_of(file.read_text()):
            places[name].append(str(file.relative_to(ROOT)))
    functions = sum("(" in name for name in places)
    print(f"{len(places) - functions} types and {functions} functions in {len(files)} files")
    assert functions > 300 and len(places) - functions > 300, "they are not found any more: does the style differ?"
    twice = {name: where for name, where in places.items() if len(where) > 1}
    for name, where in sorted(twice.items()):
        print(f"{name} is defined in {' and in '.join(where)}: rename one of them")
    return 1 if twice else 0


if __name__ == "__main__":
    sys.exit(main())
