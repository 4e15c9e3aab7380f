"""Attention in fvcore's counts, and so in detectron2's tool `analyze_model.py`."""

from fvcore.nn.flop_count import _DEFAULT_SUPPORTED_OPS

from eva_backbone.recording import OPERATORS


def count_attention() -> None:
    """Let fvcore count attention wherever it counts; an entry of its own stays.

    detectron2's tool builds its counter itself: fvcore's table is the one place that it reads.
    """
    for name, handle in OPERATORS.items():
        _DEFAULT_SUPPORTED_OPS.setdefault(name, handle)
