"""Attention in the counters of operators that fvcore and mmengine run on a trace.

Both skip `scaled_dot_product_attention`, in which all attention of this ViT is:

    from fvcore.nn import FlopCountAnalysis
    counted = FlopCountAnalysis(model, inputs).set_op_handle(**OPERATORS)

They count a multiplication and its addition once; `torch.utils.flop_counter` counts both.

Shapes: B images or windows, h heads, N queries, M keys, D channels of a head.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

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
