"""The processes that train or evaluate one model together; one process where there is no group.

Which processes there are is decided by whoever starts them (Lightning's strategies, torchrun): here
is only what they say to each other. Tensors alone are exchanged, never pickled objects.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, distributed


def num_processes() -> int:
    """Return how many processes work together, at least 1."""
    return distributed.get_world_size() if _is_group() else 1


def process_index() -> int:
    """Return which of them this is, from 0."""
    return distributed.get_rank() if _is_group() else 0


def is_first() -> bool:
    """Return whether this process writes the files that all share."""
    return process_index() == 0


def summed(values: Tensor) -> Tensor:
    """Return the sum over all processes of a tensor of numbers, on the processor.

    Every process must call this, with tensors of one shape.
    """
    if num_processes() == 1:
        return values
    total = values.to(_exchange_device())
    distributed.all_reduce(total)
    return total.cpu()


def said_by_first(value: bool) -> bool:
    """Return what the first process says; every process must ask."""
    return bool(summed(torch.tensor(int(value and is_first()))))


def said_by_any(value: bool) -> bool:
    """Return whether any process says so; every process must ask."""
    return bool(summed(torch.tensor(int(value))))


def gathered(own: Mapping[int, Sequence[float]], count: int, width: int) -> np.ndarray:
    """Return a row for each of `count` things, each known to exactly one process.

    Args:
        own: The rows of this process.
        count: Number of rows in all.
        width: Numbers in a row.

    Returns:
        Shape (count, width), float64: adding zeros changes no number.

    Raises:
        RuntimeError: A row came from no process, or from two.
    """
    if num_processes() == 1 and own.keys() == set(range(count)):
        return np.array([own[i] for i in range(count)], dtype=np.float64).reshape(count, width)
    rows = torch.zeros((count, 1 + width), dtype=torch.float64)
    if own:
        rows[list(own)] = torch.tensor([[1.0, *row] for row in own.values()], dtype=torch.float64)
    all_rows = summed(rows).numpy()
    if not (all_rows[:, 0] == 1).all():
        where = int((all_rows[:, 0] != 1).argmax())
        raise RuntimeError(
            f"row {where} came from {int(all_rows[where, 0])} processes, not from one"
        )
    return all_rows[:, 1:]


def _is_group() -> bool:
    return distributed.is_available() and distributed.is_initialized()


def _exchange_device() -> torch.device:
    """Return where the group's tensors must be: NCCL knows GPUs alone."""
    if distributed.get_backend() == "nccl":
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu")
