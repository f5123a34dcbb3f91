#!/usr/bin/env python3
"""Whether a start is of the run that lies there: its job, its model and its tokenizer are those of its checkpoints."""
import re
import shutil

import harness
from harness import smlp


def a_changed_job_is_refused_with_the_keys(place):
    place.run(place.job(steps=6), "run")
    changed = place.run(place.job(steps=8), "run", "--set", "model.width=64", expect=78)
    assert "model.width" in changed.stderr, changed.stderr
    place.run(place.job(steps=8), "run", "--set", "optimizer.weight_decay=0.05", "--accept-change",
              "optimizer.weight_decay")


def what_counts_is_the_job_of_the_checkpoints(place):
    """Not job.toml beside them: it may be edited, lost, or never have been copied."""
    place.run(place.job(steps=6), "run")
    own = place.path / "run" / "job.toml"
    own.write_text(re.sub(r"(?m)^seed = .*", "seed = 77", own.read_text()))
    refused = smlp("run", own, "--ranks", 2, "--run-dir", place.path / "run", cwd=place.path, check=False)
    assert refused.returncode == 78 and "seed = 77, but the run has " in refused.stderr, refused
    own.unlink()
    place.run(place.job(steps=8), "run", "--set", "seed=77", expect=78)
    shutil.copytree(place.path / "run" / "checkpoints", place.path / "copied" / "checkpoints")
    place.run(place.job(steps=8), "copied", "--set", "seed=77", expect=78)
    place.run(place.job(steps=8), "copied")


def a_model_that_does_not_fit_its_weights_is_a_wrong_job_and_no_damage(place):
    place.run(place.job(steps=4), "run")
    for start in (["copy", "--init-from", place.path / "run"], ["run", "--accept-change", "model.width"]):
        refused = place.run(place.job(steps=8), *start, "--set", "model.width=48", expect=78)
        assert "in this run" in refused.stderr, refused.stderr
    place.run(place.job(steps=8), "run", "--set", "model.width=48", expect=78)
    place.run(place.job(steps=8), "run")


def a_tokenizer_that_was_replaced_under_its_name_is_noticed(place):
    """Its ids mean other text: what was trained, generated and measured with them went on in silence."""
    train = (place.path / "train.txt").read_text()
    (place.path / "other.txt").write_text(train[::-1])
    for folder, text in (("words", "train.txt"), ("others", "other.txt")):
        smlp("data", "train-tokenizer", "--input", text, "--vocabulary", 300, "--output", folder, cwd=place.path)
    prepare = ["data", "prepare", "--input", "train.txt", "--tokenizer", "words", "--output", "worded"]
    smlp(*prepare, cwd=place.path)
    own = ["--set", "data.tokenizer=words", "--set", 'data.train=["worded"]', "--set", "data.valid=[]"]
    place.run(place.job(steps=4), "run", *own)
    ways = [("generate", "run", "--prompt", "the", "--tokens", 2), ("eval", "run", "--data", "worded")]
    for way in ways:
        smlp(*way, cwd=place.path)
    shutil.copytree(place.path / "others", place.path / "words", dirs_exist_ok=True)
    for prepared_again in (False, True):
        if prepared_again:
            smlp(*prepare, cwd=place.path)
        for way in ways:
            refused = smlp(*way, cwd=place.path, check=False)
            assert refused.returncode == 78 and "another tokenizer" in refused.stderr, (way, refused)
    refused = place.run(place.job(steps=8), "run", *own, expect=78)
    assert "words is another tokenizer than the one that run was trained with" in refused.stderr, refused.stderr
    place.run(place.job(steps=8), "run", *own, "--accept-change", "data.tokenizer")
    smlp(*ways[0], cwd=place.path)


def a_change_that_was_accepted_once_holds(place):
    """Also where the start that accepted it ended before it saved anything."""
    place.run(place.job(steps=6), "run")
    faster = ["--set", "optimizer.learning_rate=0.02"]
    place.run(place.job(steps=6), "run", *faster, "--accept-change", "optimizer.learning_rate")
    place.run(place.job(steps=8), "run", *faster)
    assert len([e for e in place.lines("run", "events.jsonl") if e["event"] == "change_accepted"]) == 1
    place.run(place.job(steps=10), "run", expect=78)


if __name__ == "__main__":
    harness.main([a_changed_job_is_refused_with_the_keys,
                  what_counts_is_the_job_of_the_checkpoints,
                  a_model_that_does_not_fit_its_weights_is_a_wrong_job_and_no_damage,
                  a_tokenizer_that_was_replaced_under_its_name_is_noticed,
                  a_change_that_was_accepted_once_holds])
