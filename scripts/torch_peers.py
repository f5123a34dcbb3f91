#!/usr/bin/env python3
"""The dense gMLP and Transformer of examples/paper as a PyTorch user would train them on one GPU: torch.compile, autocast,
flash attention, fused AdamW, f32 weights. Whole training steps on random tokens; prints one JSON object.

    scripts/torch_peers.py gmlp|transformer [--blocks 41] [--sequences 16] [--rounds 1] [--dtype bf16] [--device cuda]

They do the work that ours do: the same parameters, biases and tied table, sinusoids for the Transformer, a residual stream of
16-bit numbers, the gradient's norm once a step. `differs` of the answer says in what they still do not.

`step_seconds` is the median of --timings, each of --steps steps one after another between two waits for the device;
`synchronised_step_seconds` that of steps that are each waited for, and whose norm the host reads, as ours does.
--pure-bf16 keeps weights, gradients and moments in bf16 too, without autocast: less work than ours, as some do it.
--profile adds the kernels of one more step, and which attention PyTorch took.

--compile-only ends after one step, and says how long it took: what torch.compile made lies in its cache then
(TORCHINDUCTOR_CACHE_DIR), and a later call of the same sizes begins soon. It may run beside other work. With --cache FILE
it goes into that file too, which a call reads that finds it: for another machine of the same kind, which comes bare.
"""
import argparse
import json
import lzma
import math
import os
import pathlib
import statistics
import sys
import time

for cache in ("TORCHINDUCTOR_FX_GRAPH_CACHE", "TORCHINDUCTOR_AUTOGRAD_CACHE"):
    os.environ.setdefault(cache, "1")  # as newer versions do by themselves

import torch
import torch.nn.functional as F
from torch import nn

MOST_CACHE_BYTES = 15_000_000
MOST_KERNELS = 40
# Parts of kernels' names.
ATTENTION = {"cudnn": "cuDNN", "flash_fwd": "flash", "flash_attention": "flash", "fmha": "memory-efficient"}


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


def sinusoids(o):
    """As layers/positions.h."""
    half = o.width // 2
    angles = torch.arange(o.context)[:, None] * 10000.0 ** (-torch.arange(half) / max(1, half - 1))
    return torch.cat([angles.sin(), angles.cos()], dim=1)


class LanguageModel(nn.Module):
    def __init__(self, o):
        super().__init__()
        self.stream = DTYPES[o.dtype]
        self.register_buffer("positions", sinusoids(o) if o.model == "transformer" else None)
        block = {"gmlp": GmlpBlock, "transformer": TransformerBlock}[o.model]
        self.embedding = nn.Embedding(o.vocabulary, o.width)
        nn.init.normal_(self.embedding.weight, std=o.width**-0.5)
        self.blocks = nn.ModuleList(block(o) for _ in range(o.blocks))
        self.norm = nn.LayerNorm(o.width)

    def forward(self, tokens, targets):
        x = self.embedding(tokens) * math.sqrt(self.embedding.embedding_dim)
        if self.positions is not None:
            x = x + self.positions
        x = x.to(self.stream)  # else autocast adds up what blocks say in f32
        for block in self.blocks:
            x = block(x)
        logits = F.linear(self.norm(x), self.embedding.weight)
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten())


DTYPES = {"bf16": torch.bfloat16, "f16": torch.float16, "f32": torch.float32}


def differences(o):
    """What is not the work that ours do."""
    found = {"logits": "logits of all rows at once, in f32 for the loss; ours of 4,096 rows at a time, in the job's type"}
    if o.model == "gmlp":
        found["mixing"] = "the whole square of the token mixing; ours leaves out most of the upper triangle"
    if o.pure_bf16:
        found["state"] = "weights, gradients and AdamW's moments in bf16; ours keeps f32 weights, gradients and moments"
    elif o.dtype != "f32":
        found["weights"] = "weights are narrowed from f32 in each pass; ours by the update"
    return found


def gradient_norm(model):
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    if hasattr(nn.utils, "get_total_norm"):
        return nn.utils.get_total_norm(gradients)
    return torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))


def attention_of(kernels):
    """Which of PyTorch's attentions a step ran, by its kernels' names."""
    names = [name.lower() for name in kernels]
    found = {what for part, what in ATTENTION.items() for name in names
             if part in name and (part != "cudnn" or "sdpa" in name or "flash" in name)}
    return ", ".join(sorted(found)) or "products with a softmax, or none that its kernels' names tell"


def kernels_of(step, device):
    """Calls and seconds by name, of one step: of the device's kernels, or of the CPU's operators."""
    from torch.profiler import ProfilerActivity, profile
    on_gpu = device.startswith("cuda")
    with profile(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]) as profiled:
        step()
        if on_gpu:
            torch.cuda.synchronize()
    found = {}
    for event in profiled.key_averages():
        if event.key.startswith("## ") or on_gpu and "CUDA" not in str(getattr(event, "device_type", "")):
            continue  # what encloses others; what is the host's
        microseconds = (getattr(event, "self_device_time_total", None) or getattr(event, "self_cuda_time_total", 0)
                        if on_gpu else event.self_cpu_time_total)
        if microseconds:
            found[event.key] = {"calls": event.count, "seconds": microseconds / 1e6}
    return dict(sorted(found.items(), key=lambda entry: -entry[1]["seconds"]))


def load_cache(file):
    """Whether there was one; a cache that can't be read is none."""
    if not file or not file.exists() or not hasattr(torch.compiler, "load_cache_artifacts"):
        return False
    try:
        torch.compiler.load_cache_artifacts(lzma.decompress(file.read_bytes()))
    except Exception as error:
        print(f"{file} can't be used: {error}", file=sys.stderr)
        return False
    return True


def save_cache(file):
    """A sentence about it."""
    if not hasattr(torch.compiler, "save_cache_artifacts"):
        return "this PyTorch keeps none (2.7 or later does)"
    artifacts = torch.compiler.save_cache_artifacts()
    if artifacts is None:
        return "there is nothing to keep"
    packed = lzma.compress(artifacts[0], preset=3)
    if len(packed) > MOST_CACHE_BYTES:
        return f"{len(packed) / 1e6:.1f} MB are too many to keep"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(packed)
    return f"{file} has {len(packed) / 1e6:.1f} MB"


def options():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=["gmlp", "transformer"])
    for name, value in dict(blocks=0, width=1024, hidden=4096, heads=16, context=1024, vocabulary=51200, sequences=16, rounds=1,
                            warm=3, steps=8, timings=5).items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--dtype", choices=["bf16", "f16", "f32"], default="bf16")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--pure-bf16", action="store_true")
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--compile-only", action="store_true")
    parser.add_argument("--cache", type=pathlib.Path, metavar="FILE")
    o = parser.parse_args()
    o.blocks = o.blocks or {"gmlp": 41, "transformer": 24}[o.model]
    if o.pure_bf16:
        o.dtype = "bf16"
    return o


def main():
    o = options()
    torch.manual_seed(1)
    torch.set_float32_matmul_precision("high")
    cached = load_cache(o.cache)
    model = LanguageModel(o).to(o.device)
    if o.pure_bf16:
        model.to(torch.bfloat16)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, betas=(0.9, 0.98), weight_decay=0.1, fused=True)
    compiled = torch.compile(model)
    batch = torch.randint(0, o.vocabulary, (o.rounds, o.sequences, o.context + 1), device=o.device)
    narrow = o.dtype != "f32" and not o.pure_bf16
    wait = torch.cuda.synchronize if o.device.startswith("cuda") else lambda: None

    def step():
        for tokens in batch:
            with torch.autocast(o.device.split(":")[0], DTYPES[o.dtype] if narrow else None, enabled=narrow):
                loss = compiled(tokens[:, :-1], tokens[:, 1:]) / o.rounds
            loss.backward()
        norm = gradient_norm(model)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return norm

    def timed(steps, read=False):
        """Seconds a step, of so many one after another."""
        wait()
        began = time.perf_counter()
        for _ in range(steps):
            norm = step()
            if read:
                norm.item()
        wait()
        return (time.perf_counter() - began) / steps

    what = dict(model=o.model, blocks=o.blocks, dtype=o.dtype, pure_bf16=o.pure_bf16, torch=torch.__version__,
                from_cache=cached, differs=differences(o), first_step_seconds=timed(1))
    if o.compile_only:
        if o.cache and not cached:
            what["cache"] = save_cache(o.cache)
    else:
        timed(o.warm)
        together = [timed(o.steps) for _ in range(o.timings)]
        apart = [timed(1, read=True) for _ in range(o.steps)]
        median, tokens = statistics.median(together), o.rounds * o.sequences * o.context
        what |= dict(tokens=tokens, step_seconds=median, tokens_per_second=tokens / median, timings=together,
                     synchronised_step_seconds=statistics.median(apart))
        if o.device.startswith("cuda"):
            what["peak_memory_bytes"] = torch.cuda.max_memory_allocated()
    if o.profile:
        kernels = kernels_of(step, o.device)
        what["kernels"] = dict(list(kernels.items())[:MOST_KERNELS])
        if o.model == "transformer":
            what["attention"] = attention_of(kernels)
    print(json.dumps(what))


if __name__ == "__main__":
    main()
