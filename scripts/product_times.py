#!/usr/bin/env python3
"""What the products of a training step should take on a GPU that is not here, by NVIDIA's model of it.

The paper's small sMLP with all 32 experts on one H200, bf16, by the calls that tensor/cuda makes: decision 17. The model,
nvMatmulHeuristics, predicts CUTLASS kernels at full clocks, so it is an upper bound and no measurement; it is good for
comparing shapes. Needs: pip install nvidia-matmul-heuristics==0.1.0.27 (no GPU, no CUDA).

  scripts/product_times.py [--gpu A100_SXM_80GB] [--json FILE]
"""
import argparse
import json

import nvMatmulHeuristics as nv

LENGTH, WIDTH, HIDDEN, VOCABULARY, EXPERTS = 1024, 1024, 4096, 51200, 32
DENSE_BLOCKS, SPARSE_BLOCKS = 28, 12
ROWS_OF_LOGITS = 4096
HALVES, TO_F32 = "TST", "TSS"  # of bf16 factors: results in bf16, and in f32


class Model:
    def __init__(self, gpu):
        self.library = nv.NvMatmulHeuristicsInterfaceEx(
            backend=nv.NvMatmulHeuristicsTarget.CUTLASS3, gpu=nv.NvMatmulHeuristicsNvidiaGpu[gpu],
            flags=nv.NvMatmulHeuristicsFlags.PERF_MODEL_BASED_AUTO_TUNING)

    def seconds(self, m, n, k, batch=1, transposed="NN", types=HALVES):
        layout = nv.NvMatmulHeuristicsMatmulLayout[f"{transposed}_ROW_MAJOR"]
        problem = self.library.makeNvMatmulHeuristicsProblem(m, n, k, layout, batch)
        return min(kernel["runtime"] for kernel in self.library.get(problem, 8, precision=types))

    def layer(self, rows, inner, outer, batch=1):
        """A weight [outer, inner] and all its gradients."""
        return (self.seconds(rows, outer, inner, batch, "NT") + self.seconds(rows, inner, outer, batch, "NN")
                + self.seconds(outer, inner, rows, batch, "TN", TO_F32))

    def mixing(self, block_rows, width, count):
        """The lower triangle of a weight [LENGTH, LENGTH] over `count` matrices of that width, in row blocks, forward and
        backward."""
        total = 0
        for first in range(0, LENGTH, block_rows):
            end = first + block_rows
            total += self.seconds(block_rows, width, end, count)
            total += self.seconds(block_rows, width, LENGTH - first, count, "TN")
            total += self.seconds(block_rows, end, width, count, "NT", TO_F32)
        return total


def step(model, sequences, block_rows):
    """Nanoseconds of products a token."""
    rows = sequences * LENGTH
    dense = {"channels": model.layer(rows, WIDTH, HIDDEN) + model.layer(rows, HIDDEN // 2, WIDTH),
             "tokens": model.mixing(block_rows, HIDDEN // 2, sequences)}
    sparse = {"channels": model.layer(rows // EXPERTS, WIDTH, HIDDEN, EXPERTS)
              + model.layer(rows // EXPERTS, HIDDEN, WIDTH, EXPERTS),
              "tokens": model.mixing(block_rows, sequences * WIDTH // EXPERTS, EXPERTS)}
    head = rows / ROWS_OF_LOGITS * model.layer(ROWS_OF_LOGITS, WIDTH, VOCABULARY)
    nanoseconds = {f"dense block, {name}": time for name, time in dense.items()}
    nanoseconds |= {f"sparse block, {name}": time for name, time in sparse.items()}
    nanoseconds |= {"head": head,
                    "all": DENSE_BLOCKS * sum(dense.values()) + SPARSE_BLOCKS * sum(sparse.values()) + head}
    return {name: round(time / rows * 1e9, 1) for name, time in nanoseconds.items()}


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--gpu", default="H200_SXM")
    arguments.add_argument("--json", metavar="FILE")
    asked = arguments.parse_args()
    model = Model(asked.gpu)
    square = 8192
    large = 2 * square**3 / model.seconds(square, square, square) / 1e12
    results = [{"gpu": asked.gpu, "tflops_of_a_large_product": round(large), "sequences": sequences,
                "rows_of_a_block": block_rows, "ns_a_token": step(model, sequences, block_rows)}
               for sequences in (16, 32, 64) for block_rows in (128, 256, 512, 1024)]
    for result in results:
        times = ", ".join(f"{name} {time}" for name, time in result["ns_a_token"].items())
        print(f"{result['sequences']} sequences, blocks of {result['rows_of_a_block']} rows: {times}")
    if asked.json:
        with open(asked.json, "w", encoding="utf-8") as out:
            out.write("\n".join(json.dumps(result) for result in results) + "\n")


if __name__ == "__main__":
    main()
