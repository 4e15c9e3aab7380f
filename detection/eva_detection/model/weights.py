"""Initial weights of a detector: a backbone or a complete detector, by name or path."""

from torch import nn

from eva_backbone import LoadReport, load_pretrained

# What a file of a backbone, or of a detector without masks, cannot have.
_HEADS = (r"backbone\.simfp_", r"proposal_generator\.", r"roi_heads\.")
# What depends on the classes: from Objects365 to COCO and LVIS these start from scratch.
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
    """Load a backbone or a complete detector before training or evaluation.

    Args:
        model: The detector.
        source: Name of an official or bundled file, a path, or "" for none.
        complete: Refuse a file that lacks any part of the detector (for evaluation).

    Returns:
        The load report, or None without a source.

    Raises:
        ValueError: If the file does not fit; the model is then unchanged.
        FileNotFoundError: If the file is missing.
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
