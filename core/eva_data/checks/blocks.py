"""Checks of a list of samples by several processes, a block at a time."""

import functools
import multiprocessing
import sys
from collections.abc import Callable, Iterator, Sized
from typing import Any, TypeVar

from eva_data.pools import ordered_map

Result = TypeVar("Result")
_BLOCK = 512  # samples that a process checks at once


def check_blocks(
    samples: Sized, look: Callable[[Any, range], Result], *, workers: int, what: str
) -> Iterator[Result]:
    """Yield what a function finds out about each block of the samples, in order.

    Args:
        samples: The samples; each process is given them once.
        look: A function of a module, or a `partial` of one, called with the samples and a block's
            indexes.
        workers: Number of processes; with 1 the work is done in this one.
        what: Name beside the progress bar.

    Raises:
        ValueError: If a process dies.
    """
    block = max(1, min(_BLOCK, len(samples) // (4 * workers)))
    blocks = [range(i, min(i + block, len(samples))) for i in range(0, len(samples), block)]
    yield from ordered_map(
        functools.partial(_look, look),
        blocks,
        workers=workers,
        what=what,
        chunk=1,
        initializer=_begin,
        initial=(samples,),
    )


_samples: Any  # what this process checks


def _begin(samples: Any) -> None:
    global _samples
    _samples = samples
    if multiprocessing.parent_process() is not None and "torch" in sys.modules:  # one of several
        sys.modules["torch"].set_num_threads(1)


def _look(look: Callable[[Any, range], Result], indices: range) -> Result:
    return look(_samples, indices)
