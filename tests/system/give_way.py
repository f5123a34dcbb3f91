#!/usr/bin/env python3
"""give_way.py PROGRAM ARGUMENT…: runs it at idle priority. For tests that look at no clock, so that those which do may run
beside them (cmake/room.cmake)."""
import contextlib
import os
import pathlib
import sys


def give_way():
    """A session is a scheduling group, with a niceness of its own where Linux has autogroups."""
    with contextlib.suppress(PermissionError):  # of a group's leader
        os.setsid()
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    with contextlib.suppress(OSError):
        pathlib.Path("/proc/self/autogroup").write_text("19")


if __name__ == "__main__":
    give_way()
    os.execvp(sys.argv[1], sys.argv[1:])
