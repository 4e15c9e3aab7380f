"""Export of instances by queries (EoMT) as ONNX: from the pixels of images to boxes and masks.

Shapes: B images, H x W pixels, Q queries, K classes, n instances of an image, R of all.
"""

import argparse
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from mmdet.structures import DetDataSample
from torch import Tensor, nn

from eva_backbone.recording import quiet
from eva_mmdetection.inference.predictor import Predictor
from eva_openmmlab.predictor import ImageLike
from eva_runs import exported

# Largest differences: pixels, scores, classes, and the share of a mask's pixels. Where a mask's
# logit is 0 but for rounding, a pixel may be in one mask alone, and move its box.
TOLERANCES = {"pred_boxes": 2.0, "scores": 1e-3, "pred_classes": 0.0, "pred_masks": 2e-3}


def export_run(options: argparse.Namespace) -> dict[str, float]:
    """Export the detector of a run as options say; return the largest differences by name."""
    predictor = Predictor.from_config(options.weights, device="cpu")
    if not hasattr(predictor.model, "panoptic_head") or predictor.things is not None:
        raise ValueError(
            f"{options.weights} is not exported: only instances by queries (EoMT) and the cascade "
            "are; panoptic segments are merged one after another"
        )
    return export_instances(
        predictor,
        options.output,
        image=options.image,
        size=options.size,
        threshold=options.score_threshold,
        precision=options.precision,
    )


def export_instances(
    predictor: Predictor,
    output: Path,
    *,
    image: ImageLike,
    size: tuple[int, int] | None = None,
    threshold: float = 0.05,
    precision: str = "fp32",
) -> dict[str, float]:
    """Write a detector of instances, read the file again and compare, on a turned image, too.

    The file has instances with a score of at least the `threshold`; the `image` must show some. It
    takes batches of one size, and any size that the trunk takes unless `size` (H, W) fixes it.

    Returns:
        The largest difference of each output, of which one above `TOLERANCES` is a ValueError and
        leaves no file; in fp16 that of the number of instances of an image.
    """
    module = InstancesOfQueries(predictor.model, threshold)
    pixels = predictor.prepare(image)["inputs"].flip(0).float()  # RGB
    if size is not None:
        pixels = F.interpolate(pixels[None], size=size, mode="bilinear", antialias=True)[0]
    names = ["image_index", "pred_boxes", "pred_classes", "pred_masks", "scores"]
    facts = {
        "task": "detection",
        "input": "(B, 3, H, W), RGB, values 0 to 255",
        "bands": None,
        "class_names": list(predictor.names),
        "pixel_mean": module.pixels.mean.flatten().tolist(),
        "score_threshold": predictor.score_threshold,
        "largest_side": max(pixels.shape[1:]),
        "size": size,
        "masks": "image",
        "outputs": names,
    }
    axes = {name: [0] for name in names} | {"images": [0, 2, 3] if size is None else [0]}
    axes["pred_masks"] = [0, 2, 3]
    flipped = pixels.flip(1, 2).contiguous()
    turned = pixels.transpose(1, 2).contiguous() if size is None else flipped
    worst: dict[str, float] = dict.fromkeys(TOLERANCES, 0.0)
    with exported.replacing_program(output) as file, quiet(), torch.no_grad():
        if not len(_expected(predictor.model, pixels, threshold)["scores"]):
            raise ValueError(f"nothing passes {threshold:g} in the image: lower --score-threshold")
        inputs, folder = {"images": pixels[None]}, file.parent / "traced"
        program = exported.trace_to_onnx(module, inputs, names, axes, folder, precision)
        exported.save_program(program, file, facts)
        run = exported.open_program(file)
        for views in ((pixels, flipped), (turned,)):
            outputs = run({"images": torch.stack(views)})
            for index, view in enumerate(views):
                inside = outputs["image_index"] == index
                expected = _expected(predictor.model, view, threshold)
                if precision != "fp32":  # near the threshold there are more or fewer
                    more = abs(len(expected["scores"]) - int(inside.sum()))
                    worst = {"number of instances": max(more, worst.get("number of instances", 0))}
                    continue
                for name, limit in TOLERANCES.items():
                    difference = _difference(name, expected[name], outputs[name][inside])
                    exported.require_close(difference, limit)
                    worst[name] = max(difference, worst[name])
    return worst


class InstancesOfQueries(nn.Module):
    """mmdetection's `MaskFormer` on a batch, without a loop over images.

    Args:
        model: The detector, which is left as it is.
        threshold: Least score of an instance.
    """

    def __init__(self, model: Any, threshold: float) -> None:
        super().__init__()
        self.model, self.threshold = model, threshold
        self.pixels = model.data_preprocessor

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Detect in images (B, 3, H, W), RGB, 0 to 255.

        Returns:
            Index of the image (R,), boxes (R, 4), classes (R,), masks (R, 1, H, W) bool, and scores
            (R,), the best of each image first.
        """
        model, divisor = self.model, self.pixels.pad_size_divisor
        height, width = images.shape[2:]
        below, right = -height % divisor, -width % divisor
        padded = F.pad((images - self.pixels.mean) / self.pixels.std, (0, right, 0, below))
        classes, masks = model.panoptic_head(model.extract_feat(padded))
        scores = classes[-1].softmax(-1)[..., :-1]  # (B, Q, K)
        count = scores.shape[-1]
        scores = scores.flatten(1)
        most = min(model.test_cfg.get("max_per_image", 100), scores.shape[1])
        scores, order = scores.topk(most)  # (B, n)
        small = masks[-1].gather(
            1, (order // count)[..., None, None].expand(-1, -1, *masks[-1].shape[2:])
        )
        logits = F.interpolate(
            small, size=(height + below, width + right), mode="bilinear", align_corners=False
        )[..., :height, :width]  # (B, n, H, W)
        inside = logits > 0
        shares = (logits.sigmoid() * inside).sum((2, 3)) / (inside.sum((2, 3)) + 1e-6)
        scores, ranks = (scores * shares).topk(order.shape[1])
        batch, rank = (scores >= self.threshold).nonzero(as_tuple=True)
        index = ranks[batch, rank]
        inside = inside[batch, index]  # (R, H, W)
        rows, columns = inside.any(2), inside.any(1)
        first, last = zip(_ends(columns), _ends(rows), strict=True)
        boxes = torch.stack([*first, *last], dim=1).float()
        return batch, boxes, (order % count)[batch, index], inside[:, None], scores[batch, rank]


def _ends(inside: Tensor) -> tuple[Tensor, Tensor]:
    """Return the first position that is True and the one behind the last, of rows (R, side)."""
    places = torch.arange(inside.shape[1])
    return (
        torch.where(inside, places, inside.shape[1]).amin(1),
        torch.where(inside, places + 1, 0).amax(1),
    )


def _expected(model: Any, pixels: Tensor, threshold: float) -> dict[str, Tensor]:
    """Detect by mmdetection in an image (3, H, W), RGB, the best score first."""
    sample = DetDataSample(metainfo={"img_shape": tuple(pixels.shape[1:])})
    data = model.data_preprocessor({"inputs": [pixels.flip(0)], "data_samples": [sample]})
    (sample,) = model.predict(data["inputs"], data["data_samples"], rescale=False)
    instances = sample.pred_instances
    instances = instances[instances.scores >= threshold]
    instances = instances[instances.scores.argsort(descending=True, stable=True)]
    return {
        "pred_boxes": instances.bboxes,
        "scores": instances.scores,
        "pred_classes": instances.labels,
        "pred_masks": instances.masks[:, None],
    }


def _difference(name: str, expected: Tensor, actual: Tensor) -> float:
    if len(expected) != len(actual):
        return float("inf")
    if not len(expected):
        return 0.0
    if name == "pred_masks":
        return (expected != actual).float().mean((1, 2, 3)).max().item()
    return (expected.double() - actual.double()).abs().max().item()
