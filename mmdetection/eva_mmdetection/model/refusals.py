"""Weights that are not of a detector: the sentence, and names that say so before torch is there."""

import os
from pathlib import Path

from eva_backbone.checkpoints.registry import names_backbone


def not_a_detector(name: str, source: str | os.PathLike[str]) -> str:
    """Write the sentence for a backbone where a detector is needed.

    Args:
        name: Name of the file.
        source: What the user has named.
    """
    return (
        f"{name} holds a backbone and not a detector; name weights of a detector, or train one "
        f"from it with mmdetection/train.py --load-from {os.fspath(source)}"
    )


def require_detector(weights: str | os.PathLike[str]) -> None:
    """Refuse weights whose name says that they are a backbone, before anything is read.

    Args:
        weights: Name of a file, a path, or the folder of a run.

    Raises:
        ValueError: If they are.
    """
    if names_backbone(weights) and not Path(weights).exists():
        raise ValueError(not_a_detector(os.fspath(weights), weights))
