"""Attention in mmengine's counts, and so in `get_flops.py` of mmsegmentation and mmdetection."""

from collections.abc import Sequence
from typing import Any

from mmengine.analysis.complexity_analysis import _DEFAULT_SUPPORTED_FLOP_OPS

from eva_backbone.flops import OPERATORS


def masked_scores_flops(inputs: Sequence[Any], outputs: Sequence[Any]) -> Any:
    """Count `baddbmm`, by which PyTorch's own attention adds a mask to its scores.

    Args:
        inputs: Values of the graph: mask, queries (B, N, D), keys (B, D, M) and factors.
        outputs: Values of the graph.

    Returns:
        What mmengine counts for the product alone.
    """
    return _DEFAULT_SUPPORTED_FLOP_OPS["aten::bmm"](inputs[1:3], outputs)


def count_attention() -> None:
    """Let mmengine count attention wherever it counts; an entry of its own stays.

    The tools build their counter themselves: mmengine's table is the one place that they read.
    """
    for name, handle in {**OPERATORS, "aten::baddbmm": masked_scores_flops}.items():
        _DEFAULT_SUPPORTED_FLOP_OPS.setdefault(name, handle)


count_attention()
