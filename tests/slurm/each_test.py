"""Runs test functions, each on a cluster of its own: `main([…])`, all or those named on the command line."""
import sys
import time
import traceback

from cluster import Cluster, why_not

SKIPPED = 77  # what ctest takes for "not run"


def main(tests, nodes=4):
    reason = why_not()
    if reason:
        print(f"skipped: no SLURM for tests here: {reason}")
        sys.exit(SKIPPED)
    names = [test.__name__ for test in tests]
    unknown = [name for name in sys.argv[1:] if name not in names]
    if unknown:
        sys.exit(f"no test is named {unknown[0]}; there are: {' '.join(names)}")
    chosen = [test for test in tests if not sys.argv[1:] or test.__name__ in sys.argv[1:]]
    failed = sum(not passes(test, getattr(test, "nodes", nodes)) for test in chosen)
    print(f"{len(chosen) - failed} passed, {failed} failed")
    sys.exit(1 if failed else 0)


def passes(test, nodes):
    started = time.monotonic()
    try:
        with Cluster(nodes) as cluster:
            try:
                test(cluster)
            except Exception:
                print(cluster.logs(), flush=True)
                raise
    except Exception as error:  # a test that breaks is a failed test; the others still run
        traceback.print_exc(file=sys.stdout)
        print(f"FAILED {test.__name__}: {(str(error) or repr(error)).splitlines()[0]}", flush=True)
        return False
    print(f"ok    {test.__name__} ({time.monotonic() - started:.1f} s)", flush=True)
    return True
