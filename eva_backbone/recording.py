"""Whether a graph of the model is being recorded, and sizes that such a graph is bound to.

`torch.jit.trace` records what one input does. Sizes stay sizes of the input as long as they are
used as they are, and become constants where Python decides by them.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec

import torch
from torch import Tensor

P = ParamSpec("P")


def is_traced() -> bool:
    """Test whether `torch.jit.trace` is recording, for which sizes are tensors."""
    return bool(torch.jit.is_tracing())  # type: ignore[attr-defined]  # documented, not in __all__


def is_recorded() -> bool:
    """Test whether any graph is recorded: by `torch.compile`, `torch.export`, `torch.jit.trace`."""
    return bool(torch.compiler.is_compiling()) or is_traced()


def unrecorded(function: Callable[P, Tensor], *args: P.args, **kwargs: P.kwargs) -> Tensor:
    """Compute what depends on no input, so that a traced program holds the value alone.

    Args:
        function: Computes it.
        *args: Its arguments.
        **kwargs: Its arguments.

    Returns:
        What the function returns.
    """
    if not is_traced():
        return function(*args, **kwargs)
    with ThreadPoolExecutor(1) as another:  # a trace records one thread
        return another.submit(function, *args, **kwargs).result()


def bind_to_grid(value: Tensor, made_for: tuple[int, int], grid: tuple[int, int]) -> Tensor:
    """Let a traced program fail for another patch grid than the one that a value was made for.

    Args:
        value: A tensor that the program uses.
        made_for: Rows and columns, constants of the program.
        grid: Rows and columns of the input.

    Returns:
        The value; outside of a trace, the very same tensor.
    """
    if not is_traced():
        return value
    constant, found = value.new_zeros(made_for), value.new_zeros(grid)
    # each expands to the other's size only if the sizes are equal
    return value + constant.expand(grid).sum() + found.expand(made_for).sum()
