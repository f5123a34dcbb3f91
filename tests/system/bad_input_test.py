#!/usr/bin/env python3
"""Hostile names and folders that can't be written: one sentence and an exit code, nothing executed, nothing lost. Root may
write where permissions forbid it, so folders are mounted read-only, in a mount namespace of the test's own."""
import os
import shlex
import subprocess
import sys

import harness
from harness import smlp, smlp_json

HOSTILE = ["$(touch canary)", "`touch canary`", "a 'b' \"c\"; touch canary #", "-x --help", "&& touch canary", "größe *?[a-z]",
           "100%j %n", "#SBATCH --wrap=x", "> canary | touch canary", "~", "\\$(touch canary)"]


def canaries(place):
    return [path for path in place.path.rglob("canary")] + ([] if not os.path.exists("/canary") else ["/canary"])


def named(place, name):
    """The job of this name; what TOML can't write is escaped."""
    path = place.path / "hostile.toml"
    path.write_text(place.job(steps=3, every=2).read_text().replace('name = "job"', f"name = {toml(name)}"))
    return path


def toml(text):
    return '"' + "".join(c if c not in '"\\\x7f' and ord(c) >= 32 else f"\\u{ord(c):04x}" for c in text) + '"'


def one_sentence(done, code):
    assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
    assert done.stderr.count("\n") == 1 and done.stderr.startswith("smlp: "), done.stderr
    return done.stderr


def hostile_names_name_a_folder_and_nothing_else(place):
    for name in HOSTILE:
        job = named(place, name)
        smlp("run", job, cwd=place.path)
        run = place.path / "runs" / name
        assert smlp_json("status", run, cwd=place.path)["state"] == "done", name
        smlp("checkpoint", "verify", run, cwd=place.path)
        smlp("logs", run, cwd=place.path)
        script = smlp("submit", job, "--dry-run", cwd=place.path, check=False)
        if "\\" in name:  # sbatch has no way to write it
            assert "backslash" in one_sentence(script, 78)
        else:
            assert script.returncode == 0 and script.stderr == "", (name, script.stderr)
            assert subprocess.run(["bash", "-n"], input=script.stdout, text=True).returncode == 0, name
        assert not canaries(place), name


def names_that_can_name_no_folder_are_refused(place):
    for name in ("a\nb", "a\n[cluster]\nranks = 64", "\r", "\t", "\x7f", "../../etc", "/tmp/x", ".", "..", "", "x" * 300):
        for command in (["run"], ["submit", "--dry-run"], ["plan"], ["plan", "--placement"]):
            refused = one_sentence(smlp(command[0], named(place, name), *command[1:], cwd=place.path, check=False), 78)
            assert "name" in refused, (name, refused)
    assert not (place.path / "runs").exists() and not canaries(place)


def hostile_paths_are_paths(place):
    for name in ("a b", "$(touch canary)", "'", '"', ";touch canary", "-o", "line\nbreak"):
        folder = place.path / "in" / name
        folder.mkdir(parents=True)
        (folder / "text").write_text("to be or not to be " * 400)
        prefix = os.path.join("in", name, "tokens")
        smlp("data", "prepare", "--input", os.path.join("in", name, "text"), "--tokenizer", "bytes", "--output", prefix,
             cwd=place.path)
        job = place.path / "in" / name / "job.toml"
        job.write_text(place.job(steps=2).read_text().replace('train = ["train"]', f"train = [{toml(prefix)}]"))
        smlp("run", job, "--run-dir", folder / "run", cwd=place.path)
        assert not canaries(place), name
        done = smlp("submit", job, "--dry-run", "--run-dir", folder / "new", cwd=place.path, check=False)
        if "\n" in name:
            assert "line break" in one_sentence(done, 78)
        else:
            assert done.returncode == 0, (name, done.stderr)


def with_read_only(place, folder, *commands):
    """Runs shell commands while this folder is mounted read-only; exit code and stderr of each."""
    lines = [f"mount --bind {shlex.quote(str(folder))} {shlex.quote(str(folder))}",
             f"mount -o remount,ro,bind {shlex.quote(str(folder))}"]
    lines += [f"{command} > out{i} 2> err{i} && echo 0 > code{i} || echo $? > code{i}" for i, command in enumerate(commands)]
    subprocess.run(["unshare", "--mount", "--propagation", "private", "bash", "-ec", "\n".join(lines)], check=True,
                   cwd=place.path, timeout=120, stdin=subprocess.DEVNULL)
    return [subprocess.CompletedProcess(command, int((place.path / f"code{i}").read_text()),
                                        (place.path / f"out{i}").read_text(), (place.path / f"err{i}").read_text())
            for i, command in enumerate(commands)]


def program(*words):
    return " ".join(shlex.quote(str(word)) for word in (harness.BIN / "smlp", *words))


def read_only_folders_are_told_in_a_sentence_and_can_be_read(place):
    shut = place.path / "shut"
    shut.mkdir()
    job = place.job(steps=4, every=2)
    place.run(job, shut / "run")
    before = sorted(str(path) for path in shut.rglob("*"))
    writing = [program("run", job, "--run-dir", shut / "new"), program("run", job, "--run-dir", shut / "run"),
               program("submit", job, "--dry-run", "--run-dir", shut / "new"),
               program("submit", job, "--run-dir", shut / "run"),
               program("data", "prepare", "--input", "train.txt", "--tokenizer", "bytes", "--output", shut / "tokens"),
               program("data", "train-tokenizer", "--input", "train.txt", "--vocabulary", 300, "--output", shut / "bpe")]
    reading = [program("status", shut / "run"), program("logs", shut / "run"), program("checkpoint", "ls", shut / "run"),
               program("checkpoint", "verify", shut / "run"), program("plan", job), program("plan", job, "--placement"),
               program("eval", shut / "run", "--data", "valid")]
    answers = with_read_only(place, shut, *writing, *reading)
    for answer in answers[:len(writing)]:
        sentence = one_sentence(answer, 74)
        assert "Read-only" in sentence and "shut" in sentence, (answer.args, sentence)
    for answer in answers[len(writing):]:
        assert answer.returncode == 0 and answer.stderr == "", (answer.args, answer.returncode, answer.stderr)
    assert sorted(str(path) for path in shut.rglob("*")) == before


def a_run_whose_folder_becomes_read_only_loses_nothing_that_was_saved(place):
    """The disk turns read-only while it trains, as after an error of its own; when it is mended the run goes on."""
    steps = 400
    job = place.job(steps=steps, every=10)
    script = f"""
mkdir shut
mount -t tmpfs tmpfs shut  # where saves take no longer than the run, however busy the disk
{program("run", job, "--run-dir", "shut/run", "--max-restarts", 1)} > first 2>&1 &
# Not of given steps: one that comes due while the last save is under way is made up for at a later one.
until [ "$(ls -d shut/run/checkpoints/step-???????? 2> /dev/null | wc -l)" -ge 2 ]; do sleep 0.02; done
ls shut/run/checkpoints > saved_before
mkdir aside  # read-only before anybody can open a file in it to write: then it could no longer become so
mount --bind shut aside
mount -o remount,ro,bind aside
mount --move aside shut  # over itself: what is open stays so, what is opened from now on is read-only
wait $! && echo 0 > code || echo $? > code
ls shut/run/checkpoints > saved
umount shut
{program("run", job, "--run-dir", "shut/run")} > second 2>&1
cp -r shut/run mended
"""
    subprocess.run(["unshare", "--mount", "--propagation", "private", "bash", "-ec", script], check=True, cwd=place.path,
                   timeout=300, stdin=subprocess.DEVNULL)
    code, words = int((place.path / "code").read_text()), (place.path / "first").read_text()
    assert code in (70, 74), (code, words)
    assert "Read-only" in words, words
    before, after = ({name for name in (place.path / file).read_text().split() if ".tmp" not in name}
                     for file in ("saved_before", "saved"))
    assert len(before) >= 2 and before <= after, (before, after)
    place.run(job, "straight")
    final = f"checkpoints/step-{steps:08d}"
    smlp("checkpoint", "diff", place.path / "straight" / final, place.path / "mended" / final)
    assert not harness.processes_of(place.path)


if __name__ == "__main__":
    tests = [hostile_names_name_a_folder_and_nothing_else, names_that_can_name_no_folder_are_refused, hostile_paths_are_paths]
    mounts = subprocess.run(["unshare", "--mount", "--propagation", "private", "mount", "-t", "tmpfs", "tmpfs", "/mnt"],
                            capture_output=True, text=True)
    if mounts.returncode == 0:
        tests += [read_only_folders_are_told_in_a_sentence_and_can_be_read,
                  a_run_whose_folder_becomes_read_only_loses_nothing_that_was_saved]
    else:
        print(f"skipped: folders can't be mounted read-only here: {mounts.stderr.strip()}", file=sys.stderr)
    harness.main(tests)
