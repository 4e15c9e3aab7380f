"""Recorded graphs of the model: the sizes that they are bound to, and their counts of operators.

`torch.jit.trace` records what one input does. Sizes stay sizes of the input as long as they are
used as they are, and become constants where Python decides by them.

fvcore and mmengine count on such a trace, and skip `scaled_dot_product_attention`, in which all
attention of this ViT is:

    from fvcore.nn import FlopCountAnalysis
    counted = FlopCountAnalysis(model, inputs).set_op_handle(**OPERATORS)

They count a multiplication and its addition once; `torch.utils.flop_counter` counts both.

Shapes: B images or windows, h heads, N queries, M keys, D channels of a head.
"""

import logging
import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, ParamSpec

import torch
from torch import Tensor

P = ParamSpec("P")


@contextmanager
def quiet() -> Iterator[None]:
    """Silence warnings of libraries, in their logs too; a context."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        logging.disable(before)


def is_traced() -> bool:
    """Test whether `torch.jit.trace` is recording, for which sizes are tensors."""
    return bool(torch.jit.is_tracing())  # type: ignore[attr-defined]  # documented, not in __all__


def is_recorded() -> bool:
    """Test whether any graph is recorded: by `torch.compile`, `torch.export`, `torch.jit.trace`."""
    return bool(torch.compiler.is_compiling()) or is_traced()


def unrecorded(function: Callable[P, Tensor], *args: P.args, **kwargs: P.kwargs) -> Tensor:
    """Compute what depends on no input, so that a traced program holds the value alone."""
    if not is_traced():
        return function(*args, **kwargs)
    with ThreadPoolExecutor(1) as another:  # a trace records one thread
        return another.submit(function, *args, **kwargs).result()


def bind_to_grid(value: Tensor, made_for: tuple[int, int], grid: tuple[int, int]) -> Tensor:
    """Let a traced program fail for another patch grid than the one that a value was made for.

    Outside of a trace, the value is returned as it is.
    """
    if not is_traced():
        return value
    constant, resized = value.new_zeros(made_for), value.new_zeros(grid)
    # each expands to the other's size only if the sizes are equal
    return value + constant.expand(grid).sum() + resized.expand(made_for).sum()


_PADDED = ("aten::pad", "aten::constant_pad_nd")


def attention_flops(inputs: Sequence[Any], outputs: Sequence[Any]) -> int:
    """Count one call of `scaled_dot_product_attention`, in a graph of `torch.jit`.

    With relative positions, queries and keys are wider than a head on accelerators and in traces,
    see `eva_backbone.rel_pos`: the channels that are appended take the place of an addition of
    scores and do not count, so that the number is the model's.

    Args:
        inputs: Values of the graph: queries (B, h, N, D), keys (B, h, M, D), values (B, h, M, D)
            and further ones.
        outputs: Values of the graph, which are not read.

    Returns:
        Multiplications of the scores and of the weighted sums, 2 B h N M D.
    """
    del outputs
    queries, keys, values = (value.type().sizes() for value in inputs[:3])
    dim = values[-1]
    node = inputs[2].node()
    if node.kind() in _PADDED:
        dim = next(iter(node.inputs())).type().sizes()[-1]
    return 2 * math.prod(queries[:-1]) * keys[-2] * dim


OPERATORS: Mapping[str, Callable[[Sequence[Any], Sequence[Any]], int]] = {
    "aten::scaled_dot_product_attention": attention_flops
}
