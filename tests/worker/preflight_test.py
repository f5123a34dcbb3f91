#!/usr/bin/env python3
"""`smlp-worker preflight` on this machine: one line of JSON, in time, with nothing left behind, whatever the disk does."""
import ctypes, json, os, shutil, subprocess, tempfile, time, unittest

WORKER = os.path.join(os.environ["SMLP_BIN"], "smlp-worker")
libc = ctypes.CDLL(None, use_errno=True)
READ_ONLY, REMOUNT, DETACH = 1, 32, 2


def mount(kind, place, flags=0, options=""):
    if libc.mount(kind.encode(), place.encode(), kind.encode(), flags, options.encode()) != 0:
        raise unittest.SkipTest(f"mounting {kind} is not allowed here: {os.strerror(ctypes.get_errno())}")


class Preflight(unittest.TestCase):
    def setUp(self):
        self.place = tempfile.mkdtemp(prefix="smlp-preflight-")
        self.addCleanup(shutil.rmtree, self.place)

    def folder(self, name):
        path = os.path.join(self.place, name)
        os.mkdir(path)
        return path

    def mounted(self, name, kind, flags=0, options=""):
        path = self.folder(name)
        mount(kind, path, flags, options)
        self.addCleanup(libc.umount2, path.encode(), DETACH)
        return path

    def job(self, text):
        path = os.path.join(self.place, "job.toml")
        with open(path, "w") as file:
            file.write(f'name = "demo"\n[data]\ntokenizer = "bytes"\ntrain = ["a"]\n{text}\n')
        return path

    def ask(self, *arguments, code=0):
        began = time.time()
        ended = subprocess.run([WORKER, "preflight", *arguments], capture_output=True, text=True, timeout=20)
        self.seconds = time.time() - began
        self.assertLess(self.seconds, 15)  # 9 of its own; a busy machine takes its time to start a process
        self.assertEqual(ended.returncode, code, ended.stderr)
        self.stderr = ended.stderr
        if not ended.stdout:
            return None
        self.assertEqual(ended.stdout.count("\n"), 1)
        return json.loads(ended.stdout)

    def test_says_what_the_node_can_do_and_leaves_nothing(self):
        run = self.folder("run")
        report = self.ask("--run-dir", run)
        self.assertEqual(os.listdir(run), [])
        self.assertEqual(report["host"], os.uname().nodename)
        self.assertEqual(report["threads"], len(os.sched_getaffinity(0)))
        self.assertTrue(1 <= report["cores"] <= report["threads"])
        self.assertTrue(1e8 < report["product_flops"] <= report["best_product_flops"] < 1e14, report)
        self.assertLess(abs(report["clock_seconds"] - time.time()), 5)
        folder = report["run_dir"]
        self.assertEqual((folder["path"], folder["writable"], folder["failure"]), (run, True, ""))
        self.assertTrue(0 < folder["sync_seconds"] < 5)
        self.assertAlmostEqual(folder["free_bytes"] / (os.statvfs(run).f_bavail * os.statvfs(run).f_frsize), 1, places=1)
        self.assertIsNone(report["local_dir"])

    def test_sees_the_cores_it_may_use(self):
        one = {min(os.sched_getaffinity(0))}
        self.addCleanup(os.sched_setaffinity, 0, os.sched_getaffinity(0))
        os.sched_setaffinity(0, one)
        report = self.ask("--run-dir", self.place)
        self.assertEqual((report["cores"], report["threads"]), (1, 1))

    def test_a_local_folder_that_will_be_made_is_tried_where_it_will_stand(self):
        local = os.path.join(self.place, "not", "yet")
        report = self.ask("--run-dir", self.place, "--job", self.job(f'[checkpoint]\nlocal_dir = "{local}"'))
        self.assertEqual((report["local_dir"]["path"], report["local_dir"]["writable"]), (local, True))
        self.assertEqual(sorted(os.listdir(self.place)), ["job.toml"])

    def test_a_missing_run_directory(self):
        folder = self.ask("--run-dir", os.path.join(self.place, "nowhere"))["run_dir"]
        self.assertFalse(folder["writable"])
        self.assertIn("No such file", folder["failure"])

    def test_a_read_only_run_directory(self):
        run = self.mounted("run", "tmpfs")
        mount("tmpfs", run, READ_ONLY | REMOUNT)
        folder = self.ask("--run-dir", run)["run_dir"]
        self.assertFalse(folder["writable"])
        self.assertIn("Read-only", folder["failure"])

    def test_a_full_disk(self):
        run = self.mounted("run", "tmpfs", options="size=64k")
        with open(os.path.join(run, "filler"), "wb") as file:
            file.write(bytes(64 << 10))
        folder = self.ask("--run-dir", run)["run_dir"]
        self.assertEqual((folder["free_bytes"], folder["writable"]), (0, False))
        self.assertIn("No space", folder["failure"])
        self.assertEqual(os.listdir(run), ["filler"])
        os.truncate(os.path.join(run, "filler"), 32 << 10)
        self.assertEqual(self.ask("--run-dir", run)["run_dir"]["failure"], "is full")

    def test_a_file_system_that_does_not_answer(self):
        try:
            server = os.open("/dev/fuse", os.O_RDWR)  # which nobody ever reads
        except OSError as error:
            self.skipTest(f"/dev/fuse can't be opened: {error}")
        run = self.folder("run")
        mount("fuse", run, options=f"fd={server},rootmode=40000,user_id=0,group_id=0")
        self.addCleanup(libc.umount2, run.encode(), DETACH)
        self.addCleanup(os.close, server)  # first of the two: ends what waits
        folder = self.ask("--run-dir", run)["run_dir"]
        self.assertEqual((folder["writable"], folder["failure"]), (False, "did not answer within 5 s"))
        self.assertEqual(self.ask("--run-dir", run, "--job", f"{run}/job.toml")["run_dir"]["failure"],
                         "did not answer within 5 s")

    def test_a_job_file_that_does_not_answer_or_is_none(self):
        os.mkfifo(os.path.join(self.place, "fifo"))
        report = self.ask("--run-dir", self.place, "--job", os.path.join(self.place, "fifo"))
        self.assertTrue(report["run_dir"]["writable"])
        self.assertIsNone(self.ask("--run-dir", self.place, "--job", self.job("[cluster]\nrankz = 1"), code=78))
        self.assertIn("rankz", self.stderr)

    def test_nothing_to_look_at_is_refused(self):
        self.assertIsNone(self.ask(code=64))
        self.assertIsNone(self.ask("--run-dir", self.place, "--exchange", code=64))


class Exchange(unittest.TestCase):
    def exchange(self, ranks, **variables):
        command = ["mpirun", "--allow-run-as-root", "--oversubscribe", "--bind-to", "none", "-n", str(ranks)] if ranks > 1 else []
        ended = subprocess.run([*command, WORKER, "preflight", "--exchange"], capture_output=True, text=True, timeout=60,
                               env={**os.environ, "OMPI_MCA_mpi_yield_when_idle": "1", **variables})
        self.assertEqual(ended.returncode, 0, ended.stderr)
        self.assertEqual(ended.stdout.count("\n"), 1)
        return json.loads(ended.stdout)

    def test_every_pair_of_a_few_ranks_is_measured_once(self):
        for ranks in (2, 3, 4):
            report = self.exchange(ranks)
            pairs = [(pair["a"], pair["b"]) for pair in report["pairs"]]
            self.assertEqual(sorted(pairs), [(a, b) for a in range(ranks) for b in range(a + 1, ranks)])
            self.assertTrue(all(1e5 < pair["bytes_per_second"] < 1e12 for pair in report["pairs"]), report)
            self.assertIn(report["median"], [pair["bytes_per_second"] for pair in report["pairs"]])
            self.assertEqual(report["hosts"], [os.uname().nodename] * ranks)

    def test_ranks_call_their_nodes_as_slurm_does(self):
        self.assertEqual(self.exchange(1, SLURMD_NODENAME="n1")["hosts"], ["n1"])

    def test_ranks_that_find_themselves_alone_do_not_begin(self):
        alone = subprocess.run([WORKER, "preflight", "--exchange"], capture_output=True, text=True, timeout=60,
                               env={**os.environ, "OMPI_COMM_WORLD_SIZE": "2"})
        self.assertEqual(alone.returncode, 69, alone.stderr)
        self.assertIn("OMPI_COMM_WORLD_SIZE says that 2 ranks were started, and MPI knows of 1", alone.stderr)

    def test_one_rank_has_nobody(self):
        report = self.exchange(1)
        self.assertEqual((report["pairs"], report["median"]), ([], None))


if __name__ == "__main__":
    unittest.main(verbosity=2)
