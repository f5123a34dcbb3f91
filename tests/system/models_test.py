#!/usr/bin/env python3
"""Every kind of model through the real binaries: trained on two ranks, stopped and gone on with to the same bits, scored
on one rank and on two, and asked for text."""
import math

import harness
from harness import smlp, smlp_json

KINDS = {
    "gmlp": {},
    "smlp": {},
    "smlp-partial": {"routing.channels": "partial"},
    "smlp-leaky": {"routing.channels": "leaky", "routing.allow_leak": "true"},
    "transformer": {"model.heads": 4},
    "gshard": {"model.heads": 2},
    # Groups of more sequences than `smlp eval` takes at once by itself: it once dropped other tokens than the run.
    "switch": {"model.heads": 2, "routing.capacity_factor": 0.75, "routing.evaluation_capacity_factor": 1.0,
               "train.micro_batch": 8, "train.global_batch": 16},
    "base": {"model.heads": 2},
    "hash": {"model.heads": 2},
    "gmlp-token-moe": {},
}


def options_of(name):
    kind = name if name in ("gmlp-token-moe",) else name.split("-")[0]
    changes = {"model.kind": kind, "train.steps": 6, **KINDS[name]}
    if kind in ("gmlp", "transformer"):
        changes["model.sparse_blocks"] = 0
    elif kind in ("gshard", "switch"):
        changes["model.sparse_blocks"] = 2
    return [word for key, value in changes.items() for word in ("--set", f"{key}={value}")]


def one_kind(name):
    def test(place):
        options = options_of(name)
        job = place.job(steps=6, every=3, eval_every=3)
        place.run(job, "straight", *options)
        place.run(job, "parts", *options, "--set", "train.steps=3")
        place.run(job, "parts", *options)
        last = "checkpoints/step-00000006"
        smlp("checkpoint", "diff", place.path / "straight" / last, place.path / "parts" / last)
        losses = [line["loss"] for line in place.lines("straight", "metrics.jsonl")]
        assert len(losses) == 6 and losses[-1] < losses[0], losses

        scores = smlp_json("eval", "straight", "--data", "valid", cwd=place.path)
        validation = [line["validation_loss"] for line in place.lines("straight", "metrics.jsonl") if line.get("validation_loss")]
        assert abs(scores["loss"] - validation[-1]) < 1e-5, (scores, validation)
        tokens = place.path.joinpath("valid.txt").stat().st_size
        predicted = 26 / 32 if name == "smlp-partial" else 1  # the first fifth of 32 is 6
        assert abs(scores["tokens"] / tokens - predicted) < 0.02, scores
        assert abs(scores["bits_per_byte"] - scores["loss"] / math.log(2)) < 0.01, scores  # a token is a byte

        asked = ("generate", "straight", "--prompt", "the ", "--tokens", 40, "--seed", 7)
        text = smlp(*asked, cwd=place.path).stdout
        assert text.startswith("the ") and len(text) > 20 and text == smlp(*asked, cwd=place.path).stdout, text

        if name == "smlp-partial":
            (place.path / "short.txt").write_text("token")
            smlp("data", "prepare", "--input", "short.txt", "--tokenizer", "bytes", "--output", "short", cwd=place.path)
            refused = smlp("eval", "straight", "--data", "short", cwd=place.path, check=False)
            assert refused.returncode == 78 and "prefix" in refused.stderr, refused

    test.__name__ = name.replace("-", "_")
    return test


def exchanges_are_measured_among_ranks_that_share_experts(place):
    """They were measured among all ranks, and for a model that exchanges nothing."""
    job = place.job(name="bench", ranks=4)
    found = smlp_json("bench", "comm", "--job", job, "--ranks", 4, "--set", "cluster.expert_ranks=2", cwd=place.path)
    assert found["ranks"] == 4 and found["expert_ranks"] == 2, found
    assert found["exchange_bytes_of_this_job"] == 32 * 32 * 4, found
    assert all(2 * one["sent_bytes"] == one["bytes"] for one in found["all_to_all"]), found
    dense = smlp_json("bench", "comm", "--job", job, "--ranks", 2, "--set", "model.kind=gmlp", "--set",
                       "model.sparse_blocks=0", cwd=place.path)
    assert dense["exchange_bytes_of_this_job"] == 0 and len(dense["all_to_all"]) == 3, dense


if __name__ == "__main__":
    harness.main([*map(one_kind, KINDS), exchanges_are_measured_among_ranks_that_share_experts],
                 parent="/dev/shm")  # where saves keep up
