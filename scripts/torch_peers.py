#!/usr/bin/env python3
"""The dense gMLP and Transformer of examples/paper as a PyTorch user would train them on one GPU: torch.compile, autocast,
flash attention, fused AdamW, f32 weights. Whole training steps on random tokens; prints one JSON object with the median.

    scripts/torch_peers.py gmlp|transformer [--blocks 41] [--sequences 16] [--rounds 1] [--dtype bf16] [--device cuda]

--compile-only ends after one step, and says how long it took: what torch.compile made lies in its cache then
(TORCHINDUCTOR_CACHE_DIR), and a later call of the same sizes begins soon. It may run beside other work.
"""
import argparse
import json
import math
import os
import statistics
import time

for cache in ("TORCHINDUCTOR_FX_GRAPH_CACHE", "TORCHINDUCTOR_AUTOGRAD_CACHE"):
    os.environ.setdefault(cache, "1")  # as newer versions do by themselves

import torch
import torch.nn.functional as F
from torch import nn


class SpatialGate(nn.Module):
    def __init__(self, channels, context):
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.mixing = nn.Parameter(torch.empty(context, context).uniform_(-1e-3 / context, 1e-3 / context))
        self.bias = nn.Parameter(torch.ones(context, 1))

    def forward(self, x):
        u, v = x.chunk(2, dim=-1)
        return u * (torch.tril(self.mixing) @ self.norm(v) + self.bias)


class GmlpBlock(nn.Module):
    def __init__(self, o):
        super().__init__()
        self.norm, self.into, self.out = nn.LayerNorm(o.width), nn.Linear(o.width, o.hidden), nn.Linear(o.hidden // 2, o.width)
        self.gate = SpatialGate(o.hidden // 2, o.context)

    def forward(self, x):
        return x + self.out(self.gate(F.gelu(self.into(self.norm(x)), approximate="tanh")))


class TransformerBlock(nn.Module):
    def __init__(self, o):
        super().__init__()
        self.heads = o.heads
        self.attention_norm, self.feedforward_norm = nn.LayerNorm(o.width), nn.LayerNorm(o.width)
        self.query_key_value, self.mix = nn.Linear(o.width, 3 * o.width), nn.Linear(o.width, o.width)
        self.into, self.out = nn.Linear(o.width, o.hidden), nn.Linear(o.hidden, o.width)

    def forward(self, x):
        parts = self.query_key_value(self.attention_norm(x)).chunk(3, dim=-1)
        query, key, value = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in parts)
        mixed = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + self.mix(mixed.transpose(1, 2).flatten(2))
        return x + self.out(F.gelu(self.into(self.feedforward_norm(x)), approximate="tanh"))


class LanguageModel(nn.Module):
    def __init__(self, o):
        super().__init__()
        block = {"gmlp": GmlpBlock, "transformer": TransformerBlock}[o.model]
        self.embedding = nn.Embedding(o.vocabulary, o.width)
        nn.init.normal_(self.embedding.weight, std=o.width**-0.5)
        self.blocks = nn.ModuleList(block(o) for _ in range(o.blocks))
        self.norm = nn.LayerNorm(o.width)

    def forward(self, tokens, targets):
        x = self.embedding(tokens) * math.sqrt(self.embedding.embedding_dim)
        for block in self.blocks:
            x = block(x)
        logits = F.linear(self.norm(x), self.embedding.weight)
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten())


def options():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=["gmlp", "transformer"])
    for name, value in dict(blocks=0, width=1024, hidden=4096, heads=16, context=1024, vocabulary=51200, sequences=16, rounds=1,
                            warm=3, steps=8).items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--dtype", choices=["bf16", "f16", "f32"], default="bf16")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--compile-only", action="store_true")
    o = parser.parse_args()
    o.blocks = o.blocks or {"gmlp": 41, "transformer": 24}[o.model]
    return o


def main():
    o = options()
    torch.manual_seed(1)
    torch.set_float32_matmul_precision("high")
    model = LanguageModel(o).to(o.device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, betas=(0.9, 0.98), weight_decay=0.1, fused=True)
    compiled = torch.compile(model)
    batch = torch.randint(0, o.vocabulary, (o.rounds, o.sequences, o.context + 1), device=o.device)
    narrow = {"bf16": torch.bfloat16, "f16": torch.float16, "f32": None}[o.dtype]
    wait = torch.cuda.synchronize if o.device.startswith("cuda") else lambda: None

    def step():
        for tokens in batch:
            with torch.autocast(o.device.split(":")[0], narrow, enabled=narrow is not None):
                loss = compiled(tokens[:, :-1], tokens[:, 1:]) / o.rounds
            loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    def timed_step():
        wait()
        began = time.perf_counter()
        step()
        wait()
        return time.perf_counter() - began

    what = dict(model=o.model, blocks=o.blocks, dtype=o.dtype, torch=torch.__version__, first_step_seconds=timed_step())
    if not o.compile_only:
        seconds = [timed_step() for _ in range(o.warm + o.steps)]
        median = statistics.median(seconds[o.warm:])
        tokens = o.rounds * o.sequences * o.context
        what |= dict(tokens=tokens, step_seconds=median, tokens_per_second=tokens / median)
    print(json.dumps(what))


if __name__ == "__main__":
    main()
