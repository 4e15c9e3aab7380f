"""Names of the official detectors, which are detectron2's, in mmdetection and back.

The tensors are the same under both names; none is changed.
"""

import re
from collections.abc import Iterable, Mapping

from torch import Tensor

from eva_backbone.checkpoints.reading import list_names

# detectron2 -> mmdetection, {s} a stage and {n} a layer; where mmdetection counts layers from 0
# and detectron2 from 1, mmdetection's is {m}
_NAMES = {
    "proposal_generator.rpn_head.conv.conv{n}": "rpn_head.rpn_conv.{n}.conv",
    "proposal_generator.rpn_head.conv": "rpn_head.rpn_conv",  # of one convolution
    "proposal_generator.rpn_head.objectness_logits": "rpn_head.rpn_cls",
    "proposal_generator.rpn_head.anchor_deltas": "rpn_head.rpn_reg",
    "roi_heads.box_head.{s}.conv{n}": "roi_head.bbox_head.{s}.shared_convs.{m}.conv",
    "roi_heads.box_head.{s}.conv{n}.norm": "roi_head.bbox_head.{s}.shared_convs.{m}.ln",
    "roi_heads.box_head.{s}.fc{n}": "roi_head.bbox_head.{s}.shared_fcs.{m}",
    "roi_heads.box_predictor.{s}.cls_score": "roi_head.bbox_head.{s}.fc_cls",
    "roi_heads.box_predictor.{s}.bbox_pred": "roi_head.bbox_head.{s}.fc_reg",
    "roi_heads.box_predictor.{s}": "roi_head.bbox_head.{s}.loss_cls",  # federated weights
    "roi_heads.mask_head.mask_fcn{n}": "roi_head.mask_head.convs.{m}.conv",
    "roi_heads.mask_head.mask_fcn{n}.norm": "roi_head.mask_head.convs.{m}.ln",
    "roi_heads.mask_head.deconv": "roi_head.mask_head.upsample",
    "roi_heads.mask_head.predictor": "roi_head.mask_head.conv_logits",
}
_LEAVES = ("weight", "bias", "fed_loss_cls_weights")
# What either framework makes from its settings, and some versions save.
IGNORED = (
    r"pixel_(mean|std)|proposal_generator\.anchor_generator\.cell_anchors\.\d+|"
    r"data_preprocessor\.(mean|std)"
)
_HEADS = {
    "detectron2": ("proposal_generator.", "roi_heads."),
    "mmdetection": ("rpn_head.", "roi_head."),
}
_PLACE = re.compile(r"\\\{([snm])\\\}")  # a number in an escaped pattern


def _renamed(name: str, names: Iterable[tuple[str, str]]) -> str:
    module, _, leaf = name.rpartition(".")
    for old, new in names if leaf in _LEAVES else ():
        match = re.fullmatch(_PLACE.sub(r"(?P<\1>\\d+)", re.escape(old)), module)
        if match:
            numbers = {key: int(value) for key, value in match.groupdict().items()}
            first = numbers.get("n", numbers.get("m", 0) + 1)
            return f"{new.format(**numbers | {'n': first, 'm': first - 1})}.{leaf}"
    return name


def is_detectron2(names: Mapping[str, object]) -> bool:
    """Return whether names are those of a complete detector in detectron2."""
    return any(name.startswith(_HEADS["detectron2"]) for name in names)


def mmdet_name(name: str) -> str:
    """Translate a name of a detector in detectron2 into mmdetection's; others stay."""
    return _renamed(name, _NAMES.items())


def to_mmdet(
    weights: Mapping[str, Tensor], *, patch_size: int | None = None
) -> tuple[dict[str, Tensor], list[str]]:
    """Give the weights of a detector, official or of `detection/`, the names of mmdetection.

    Returns:
        The weights, and a line for each kind of change.

    Raises:
        ValueError: If they are not a detector's, hold a name that mmdetection's detector has no
            place for, or a `patch_size` is given.
    """
    return _converted(weights, patch_size, to="mmdetection", other="detectron2")


def to_detectron2(
    weights: Mapping[str, Tensor], *, patch_size: int | None = None
) -> tuple[dict[str, Tensor], list[str]]:
    """Give the weights of mmdetection's detector the official names; see `to_mmdet`."""
    return _converted(weights, patch_size, to="detectron2", other="mmdetection")


def official_names(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Give mmdetection's weights the official names; names of other programs stay."""
    if not any(name.startswith(_HEADS["mmdetection"]) for name in weights):
        return dict(weights)
    return to_detectron2(weights)[0]


def _converted(
    weights: Mapping[str, Tensor], patch_size: int | None, *, to: str, other: str
) -> tuple[dict[str, Tensor], list[str]]:
    if patch_size is not None:
        raise ValueError(
            f"patches of a detector keep their size, got --patch-size {patch_size}; leave it out"
        )
    pairs = [pair if to == "mmdetection" else pair[::-1] for pair in _NAMES.items()]
    result, ignored, unknown = {}, [], []
    for name, value in weights.items():
        new = _renamed(name, pairs)
        if re.fullmatch(IGNORED, name):
            ignored.append(name)
        elif new.startswith(("backbone.", *_HEADS[to])):
            result[new] = value
        else:
            unknown.append(name)
    if unknown:
        raise ValueError(
            f"{to}'s detector has no place for {list_names(unknown)}; convert a detector under the "
            f"names of {other}"
        )
    if not any(name.startswith(_HEADS[to]) for name in result):
        raise ValueError(
            "these are weights of a backbone and not of a detector; name the file in "
            "model.backbone.pretrained, which takes it as it is"
        )
    count = len(result.keys() - weights.keys())
    lines = [f"renamed {count} tensors from {other}'s names to {to}'s"] if count else []
    if ignored:
        lines.append(f"left out (made from the settings): {list_names(ignored, 3)}")
    return result, lines
