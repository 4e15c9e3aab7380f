"""Initial weights by name, and run checkpoints that an interruption cannot break."""

import logging
import os
from pathlib import Path
from typing import Any

import torch
from detectron2.checkpoint import DetectionCheckpointer
from torch import nn

from eva_backbone import LoadReport, load_pretrained

logger = logging.getLogger(__name__)

# What a file of a backbone, or of a detector without masks, cannot have.
_HEADS = (r"backbone\.simfp_", r"proposal_generator\.", r"roi_heads\.")
# What depends on the classes: from Objects365 to COCO and LVIS these start anew.
_FEDERATED = r"roi_heads\.box_predictor\.(\d\.)?fed_loss_cls_weights$"
_MASK_HEAD = r"roi_heads\.mask_head\."  # left in the file where the detector has none
_CLASSIFIERS = (
    r"roi_heads\.box_predictor\.(\d\.)?(cls_score|bbox_pred)\.",
    r"roi_heads\.mask_head\.predictor\.",
    _FEDERATED,
)


def load_initial_weights(
    model: nn.Module, source: str, *, complete: bool = False
) -> LoadReport | None:
    """Load a backbone or a whole detector before training or evaluation.

    Args:
        model: The detector.
        source: Name of an official or bundled file, a path, or "" for none.
        complete: Refuse a file that lacks any part of the detector (for evaluation).

    Returns:
        The load report, or None without a source.

    Raises:
        ValueError: If the file does not fit; the model is then unchanged.
        FileNotFoundError: If there is no such file.
    """
    if not source:
        if complete:
            raise ValueError("evaluation needs weights: set train.init_checkpoint=NAME_OR_FILE")
        return None
    return load_pretrained(
        model,
        source,
        complete=complete,
        allow_missing=() if complete else _HEADS,
        allow_skipped=() if complete else (_FEDERATED, _MASK_HEAD),
        reinitialise=() if complete else _CLASSIFIERS,
    )


class RunCheckpointer(DetectionCheckpointer):
    """detectron2's checkpointer, writing each file beside its place and moving it there.

    A run that is killed while it saves keeps the checkpoint before.

    Attributes:
        saved_iteration: The iteration of the latest checkpoint written here.
    """

    saved_iteration: int | None = None

    def save(self, name: str, **kwargs: Any) -> None:
        """Write `name`.pth and let `last_checkpoint` point to it.

        Args:
            name: File name without ending.
            **kwargs: More data to store, such as the iteration.
        """
        if not self.save_dir or not self.save_to_disk:
            return
        data: dict[str, Any] = {"model": self.model.state_dict()}
        data |= {key: value.state_dict() for key, value in self.checkpointables.items()}
        folder = Path(self.save_dir)
        part = folder / f"{name}.pth.part"
        with open(part, "wb") as file:
            torch.save(data | kwargs, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, folder / f"{name}.pth")
        self.tag_last_checkpoint(f"{name}.pth")
        self.saved_iteration = kwargs.get("iteration")

    def tag_last_checkpoint(self, last_filename_basename: str) -> None:
        """Let `last_checkpoint` name a file, in one step."""
        tag = Path(self.save_dir) / "last_checkpoint"
        part = tag.with_suffix(".part")
        part.write_text(last_filename_basename, encoding="utf-8")
        os.replace(part, tag)
