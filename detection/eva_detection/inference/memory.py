"""Memory that a detector needs for one picture, and attention in chunks to stay below a limit.

An estimate from shapes, on the safe side of what is measured; of tensors alone, without the
libraries (0.3 to 0.6 GiB of a process).

Letters: N patches of the canvas, C channels of the ViT, F of the pyramid, h heads.
"""

import math
import re
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor

_UNITS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}
_SLACK = 1.2  # what allocators hold beyond what is alive
_BUFFERS = 2  # a chunk's scores and its probabilities


class MemoryLimitError(ValueError):
    """A picture does not fit into the memory that was allowed."""


class Demand(NamedTuple):
    """Bytes of the detector's phases, one of which runs at a time, and of its weights.

    `vit` is without the scores of attention.
    """

    weights: int
    vit: int
    pyramid: int
    heads: int

    def peak(self, scores: int = 0) -> int:
        """Count the bytes of weights and the largest phase, attention's scores included."""
        return self.weights + max(self.vit + scores, self.pyramid, self.heads)


def parse_bytes(text: str) -> int:
    """Read an amount of memory: bytes, "800MiB", "8G" (as GiB) or "8GB" (powers of 1000).

    Raises:
        ValueError: If it is not an amount, or not positive.
    """
    match = re.fullmatch(r"([0-9]*\.?[0-9]+)\s*([kmgt]?)(ib|b)?", text.strip(), re.IGNORECASE)
    if match is None or ((match[3] or "").lower() == "ib" and not match[2]):
        raise ValueError(f"an amount of memory is like 8GiB, 800MiB or 1000000, got {text!r}")
    base = 1000 if (match[3] or "").lower() == "b" else 1024
    amount = int(float(match[1]) * base ** _UNITS[match[2].lower()])
    if amount <= 0:
        raise ValueError(f"an amount of memory must be positive, got {text!r}")
    return amount


def format_bytes(amount: int) -> str:
    """Format an amount in GiB, or in MiB when it is small."""
    return f"{amount / 2**30:.1f} GiB" if amount >= 2**30 else f"{amount / 2**20:.0f} MiB"


def canvas_of(backbone: Any, height: int, width: int) -> tuple[int, int]:
    """Size that a resized picture is padded to, as `EVARCNN` does it."""
    if backbone.square_pad:
        height = width = max(backbone.square_pad, height, width)
    divisor = backbone.size_divisibility
    return -(-height // divisor) * divisor, -(-width // divisor) * divisor


def estimate(
    detector: Any, *, canvas: tuple[int, int], picture: tuple[int, int], fused: bool
) -> Demand:
    """Memory for one picture.

    Args:
        detector: Detector with an `EVAViTDet` and detectron2's heads.
        canvas: Height and width after padding.
        picture: Height and width of the picture itself, the size of its masks.
        fused: Whether attention appends channels instead of taking chunks (accelerators).

    Returns:
        The demand, attention's scores not included.
    """
    backbone = detector.backbone
    tensors = [*detector.parameters(), *detector.buffers()]
    weights = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    size = next(backbone.parameters()).element_size()
    grid = [side // backbone.net.patch_size for side in canvas]
    image = 3 * 3 * math.prod(canvas)  # as it came, normalised, padded
    features = sum(
        backbone._out_feature_channels[name] * math.prod(canvas) // stride**2
        for name, stride in backbone._out_feature_strides.items()
    )
    vit = _vit(backbone, grid, size=size, fused=fused)
    pyramid = _pyramid(backbone, grid)
    heads = features + _heads(detector, canvas)
    masks = _detections(detector) * math.prod(picture) * 2 if detector.roi_heads.mask_on else 0
    return Demand(
        weights=weights,
        vit=int(_SLACK * (image * size + vit)),
        pyramid=int(_SLACK * (image + pyramid) * size),
        heads=int(_SLACK * (image + heads) * size) + masks,
    )


def _score_size(weight: "Tensor") -> int:
    """Count the bytes of a score of attention and its inputs: float32 at least on a CPU."""
    size = weight.element_size()
    return max(size, 4) if weight.device.type == "cpu" else size


def _vit(backbone: Any, grid: list[int], *, size: int, fused: bool) -> int:
    """Count the bytes of the largest block: residual, norm, q, k, v, bias, output, or the MLP."""
    net = backbone.net
    wide = _score_size(next(net.parameters()))
    channels, hidden = net.embed_dim, net.blocks[0].mlp.fc1.out_features

    def attention(rows: int, columns: int, side: tuple[int, int]) -> int:
        bias = net.num_heads * sum(side) if net.rel_pos in ("vitdet", "beit") else 0
        added = 5 * (channels + bias) if fused else 0  # query, key, value and output with channels
        return rows * columns * (9 * channels + 2 * bias + added) * wide

    window = net.window_size
    largest = [math.prod(grid) * (4 * channels + 2 * hidden) * size]
    if window:
        padded = [-(-side // window) * window for side in grid]
        largest.append(attention(padded[0], padded[1], (window, window)))
    if not window or net.global_attn_indexes:
        largest.append(attention(grid[0], grid[1], (grid[0], grid[1])))
    return max(largest)


def _pyramid(backbone: Any, grid: list[int]) -> int:
    """Count the elements of the ViT's map and of the finest level while it is made."""
    tokens, channels = math.prod(grid), backbone.net.embed_dim
    scale = backbone.net.patch_size // min(backbone.strides)
    out = next(iter(backbone._out_feature_channels.values())) * scale**2
    transposed = channels * scale if scale > 1 else 0  # a quarter of the channels at scale 4
    return tokens * (channels + max(2 * transposed, transposed + 3 * out, 4 * out))


def _heads(detector: Any, canvas: tuple[int, int]) -> int:
    """Count the elements beside the features: of the RPN, or all boxes or masks at once."""
    rpn, roi = detector.proposal_generator, detector.roi_heads
    strides = detector.backbone._out_feature_strides
    channels = max(detector.backbone._out_feature_channels.values())
    finest = math.prod(canvas) // min(strides[name] for name in rpn.in_features) ** 2
    locations = sum(math.prod(canvas) // strides[name] ** 2 for name in rpn.in_features)
    per_location = max(rpn.anchor_generator.num_anchors) * 16  # anchors, deltas, boxes, scores
    dense = 3 * finest * channels + locations * per_location
    boxes = rpn.post_nms_topk[False] * math.prod(roi.box_pooler.output_size) * channels * 4
    if not roi.mask_on:
        return max(dense, boxes)
    # a transposed convolution doubles the side
    mask = 4 * math.prod(roi.mask_pooler.output_size) * (2 * channels + 2 * roi.num_classes)
    return max(dense, boxes, _detections(detector) * mask)


def _detections(detector: Any) -> int:
    """Most detections of a picture; without a cap as many as proposals."""
    roi, proposals = detector.roi_heads, int(detector.proposal_generator.post_nms_topk[False])
    if getattr(roi, "use_soft_nms", False):
        return roi.max_detections or proposals
    many = getattr(roi.box_predictor, "__getitem__", None)
    topk = int((many(-1) if many else roi.box_predictor).test_topk_per_image)
    return topk if topk >= 0 else proposals  # as detectron2 reads it


def choose_chunk(
    detector: Any, *, canvas: tuple[int, int], picture: tuple[int, int], limit: int
) -> int | None:
    """Choose how many scores attention may hold at once.

    Args:
        detector: Detector with an `EVAViTDet`.
        canvas: Height and width after padding.
        picture: Height and width of the picture itself.
        limit: Bytes that weights and the forward pass may take.

    Returns:
        The number for `eva_backbone.rel_pos.attention_chunk`; None where nothing need change.

    Raises:
        MemoryLimitError: If the smallest chunk does not fit, with the estimate and what to do.
    """
    import torch

    from eva_backbone import rel_pos

    weight = next(detector.backbone.parameters())
    net = detector.backbone.net
    tokens = math.prod(canvas) // net.patch_size**2
    on_cpu = weight.device.type == "cpu"
    smallest = min(rel_pos.SMALLEST_CHUNK, tokens) * tokens
    if on_cpu:  # one head at a time, of every type
        cached = rel_pos.CACHE_ELEMENTS * torch.get_num_threads()
        usual = min(max(cached, smallest), tokens**2)
    else:
        smallest *= net.num_heads
        usual = 0  # the fused kernel holds none
    cost = _BUFFERS * _score_size(weight)
    demand = estimate(detector, canvas=canvas, picture=picture, fused=not on_cpu)
    if demand.peak(usual * cost) <= limit:
        return None
    demand = estimate(detector, canvas=canvas, picture=picture, fused=False)
    needed = demand.peak(smallest * cost)
    if needed > limit:
        parts = (f"{name} {format_bytes(part)}" for name, part in demand._asdict().items())
        raise MemoryLimitError(
            f"a canvas of {canvas[1]}x{canvas[0]} px needs about {format_bytes(needed)} "
            f"({', '.join(parts)}; one phase at a time) and max_memory is "
            f"{format_bytes(limit)}: allow more, or a smaller canvas and resize "
            "(--opts model.backbone.square_pad=... and the test set's mapper.augmentations)"
        )
    return min(rel_pos.CHUNK_ELEMENTS, (limit - demand.weights - demand.vit) // cost)
