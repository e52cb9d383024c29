"""Attention over short rows, fused and by plain products: `python benchmarks/attention.py`.

Nine heads of 64 numbers, as in SmolLM2-135M; forward, and forward with the way back, best of 15.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch
from harness import Table, machine
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

SHAPES = ((32, 24), (32, 40), (16, 48), (8, 88), (5, 128), (4, 176))
HEADS, SIZE = 9, 64


def main() -> None:
    """Print a table."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    rows = [_row(dtype, *shape) for dtype in (torch.float32, torch.bfloat16) for shape in SHAPES]
    head = [
        "type",
        "rows x tokens",
        "fused, ms",
        "plain, ms",
        "fused, both ways",
        "plain, both ways",
    ]
    print(Table("Attention with a mask", [*head, "ratio"], rows), machine(), sep="\n\n")


def _row(dtype: torch.dtype, num_rows: int, width: int) -> list[str]:
    shape = (num_rows, HEADS, width, SIZE)
    q, k, v = (torch.randn(shape, dtype=dtype, requires_grad=True) for _ in range(3))
    seen = torch.ones(width, width, dtype=torch.bool).tril().expand(num_rows, 1, width, width)
    mask = torch.zeros(seen.shape, dtype=dtype).masked_fill_(~seen, torch.finfo(dtype).min)
    back = torch.randn(shape, dtype=dtype)

    def fused() -> Tensor:
        return scaled_dot_product_attention(q, k, v, attn_mask=mask)

    def plain() -> Tensor:
        scores = q @ k.transpose(-1, -2) * SIZE**-0.5 + mask
        return scores.softmax(-1, dtype=torch.float32).to(dtype) @ v

    once = [_best(how) for how in (fused, plain)]
    both = [
        _best(lambda how=how: torch.autograd.grad(how(), (q, k, v), back)) for how in (fused, plain)
    ]
    times = [f"{1e3 * seconds:.2f}" for seconds in (*once, *both)]
    return [str(dtype)[6:], f"{num_rows} x {width}", *times, f"{both[0] / both[1]:.1f}"]


def _best(what: Callable[[], object]) -> float:
    what()
    seconds = []
    for _ in range(15):
        clock = time.perf_counter()
        what()
        seconds.append(time.perf_counter() - clock)
    return min(seconds)


if __name__ == "__main__":
    main()
