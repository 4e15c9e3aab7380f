"""Export of a detector: complete as TorchScript and ONNX, ViT and pyramid also with `torch.export`.

A complete detector is traced: `torch.export` (torch 2.13) stops wherever control flow or a tensor's
size depends on values. Masks are 28 x 28 px of their box.

Shapes: H x W pixels, n detections.
"""

import argparse
import json
import logging
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from detectron2.export import TracingAdapter
from torch import Tensor, nn

from eva_backbone.recording import quiet
from eva_data.files import open_atomic
from eva_detection.building import build, load_initial_weights
from eva_detection.config.settings import load_recipe
from eva_detection.inference.predictor import ImageLike, Predictor, named_predictor
from eva_detection.model.backbone import EVAViTDet
from eva_runs import exported
from eva_runs.precision import to_precision
from eva_runs.record import read_threshold

logger = logging.getLogger(__name__)

# Largest absolute difference; the levels end in a LayerNorm, so values are of order 1. Between
# two programs in half precision the order of summation alone makes up for much of it.
TOLERANCES = {torch.float32: 1e-3, torch.float16: 5e-2, torch.bfloat16: 4e-1}
# Largest differences of pixels, scores, mask probabilities and classes of a complete detector.
DETECTOR_TOLERANCES = {"pred_boxes": 0.5, "scores": 1e-3, "pred_masks": 2e-2, "pred_classes": 0.0}
_CLASS = 1e6  # pixels by which boxes of different classes lie apart, when detections are paired


def export_from_config(args: argparse.Namespace) -> dict[str, float]:
    """Export as the options of `export.py` say; returns the largest differences by name."""
    if args.image is not None:
        settings: dict[str, Any] = {"image": args.image, "form": args.form, "size": args.size}
        settings["threshold"] = read_threshold(args.weights)
        return export_detector(named_predictor(args), args.output, **settings)
    backbone, preparation = load_backbone(args.config_file, args.weights, overrides=args.opts)
    return export_backbone(
        to_precision(backbone, args.precision, torch.device(args.device)),
        args.output,
        size=args.size or (backbone.square_pad, backbone.square_pad),
        batch_size=args.batch_size,
        preparation=preparation,
    )


def load_backbone(
    config_file: str | os.PathLike[str], weights: str, *, overrides: Sequence[str] = ()
) -> tuple[EVAViTDet, dict[str, Any]]:
    """Build a recipe's backbone with weights, for inference."""
    detector = build(load_recipe(config_file, overrides, weights=weights).model, "model")
    report = load_initial_weights(detector, weights)
    if report and any(name.startswith("backbone.simfp_") for name in report.missing):
        logger.warning("%s has no pyramid: p2 and the other levels are of random weights", weights)
    preparation = {
        "input_format": detector.input_format,
        "pixel_mean": detector.pixel_mean.flatten().tolist(),
        "pixel_std": detector.pixel_std.flatten().tolist(),
        "strides": {name: int(n) for name, n in detector.backbone._out_feature_strides.items()},
    }
    return detector.backbone.eval().requires_grad_(False), preparation


def export_backbone(
    backbone: EVAViTDet,
    output: Path,
    *,
    size: tuple[int, int],
    batch_size: int | None = 1,
    preparation: Mapping[str, Any] | None = None,
) -> dict[str, float]:
    """Write a backbone in eval mode, read the file again and compare: level -> largest difference.

    The program gets its type and device, images of a `size` (H, W) and of `batch_size`, None for
    any, and stores the `preparation`. Large ONNX weights go to a second file, .onnx.data. A
    difference above `TOLERANCES` is a ValueError, and leaves no file.
    """
    with exported.replacing_program(output) as file:
        return exported.write_compared(
            backbone,
            file,
            name="images",
            inputs=exported.normal_batches(backbone, 3, *size),
            facts=preparation or {},
            tolerance=TOLERANCES[next(backbone.parameters()).dtype],
            batch_size=batch_size,
            relative=False,
        )


def export_detector(
    predictor: Predictor,
    output: Path,
    *,
    image: ImageLike,
    form: str = "torchscript",
    size: tuple[int, int] | None = None,
    threshold: float = 0.5,
) -> dict[str, float]:
    """Write a complete detector, read the file again and compare, upright and turned.

    The image is traced with; something must be detected in it. The form is "torchscript" or "onnx",
    which has no soft-NMS; neither has test-time augmentation or slices. The size (H, W) is fixed in
    an ONNX file, which notes the `threshold` of what to show.

    Returns:
        The largest difference of each field of detectron2's `Instances`; one above
        `DETECTOR_TOLERANCES` is a ValueError, and leaves no file.
    """
    detector, pixels = predictor.model, predictor.prepare(image)["image"]
    if not hasattr(detector, "roi_heads"):
        message = "a detector is exported without augmented views and slices"
        raise ValueError(f"{message}: add --opts test.aug=null test.slice=null")
    if form == "onnx":
        _require_plain(detector, size)
    if size is not None:
        pixels = F.interpolate(pixels[None], size=size, mode="bilinear", antialias=True)[0]
    expected = _detect(detector, pixels)
    if not len(expected["scores"]):
        raise ValueError("nothing is detected in the image: give another or lower the threshold")
    names = [*sorted(expected), "image_size"]
    facts = {
        "task": "detection",
        "input": "(3, H, W), values 0 to 255",
        "input_format": detector.input_format,
        "pixel_mean": detector.pixel_mean.flatten().tolist(),
        "outputs": names,
        "class_names": list(predictor.class_names),
        "score_threshold": threshold,
        "largest_side": detector.backbone.padding_constraints.get("square_size", 0) or None,
        "size": size,
    }
    adapter = TracingAdapter(detector, [{"image": pixels}], _infer)
    turned = (pixels.transpose(1, 2) if size is None else pixels.flip(1, 2)).contiguous()
    with exported.replacing_program(output) as file, quiet():
        if form == "onnx":
            axes = {name: [0] for name in expected} | {"image": [1, 2] if size is None else []}
            temporary = file.parent / "traced"
            program = exported.trace_to_onnx(adapter, {"image": pixels}, names, axes, temporary)
            exported.save_onnx(program, file, facts)
            run = exported.open_program(file)
            outputs = [run({"image": image}) for image in (pixels, turned)]
        else:
            program = torch.jit.trace(adapter, (pixels,), check_trace=False)
            more = {"preparation.json": json.dumps(facts)}
            with open_atomic(file) as stream:  # as `exported` does
                torch.jit.save(program, stream, _extra_files=more)
            program = torch.jit.load(file, map_location=pixels.device)
            outputs = [dict(zip(names, program(image), strict=True)) for image in (pixels, turned)]
        differences = _compare(expected, outputs[0])
        again = _compare(_detect(detector, turned), outputs[1])
        for name, value in [*differences.items(), *again.items()]:
            exported.require_close(value, DETECTOR_TOLERANCES.get(name, 0.0))
    return {name: max(value, again.get(name, 0.0)) for name, value in differences.items()}


def _require_plain(detector: Any, size: tuple[int, int] | None) -> None:
    """Refuse a detector whose way to its detections ONNX cannot hold."""
    if getattr(detector.roi_heads, "use_soft_nms", False):
        raise ValueError("not as ONNX: add --opts model.roi_heads.use_soft_nms=False (plain NMS)")
    if size is None and not detector.backbone.square_pad:
        raise ValueError("without a canvas (square_pad=0) images are of one size: give --size")


def _infer(detector: Any, inputs: list[dict[str, Tensor]]) -> list[dict[str, Any]]:
    """Run a detector as detectron2's tool for deployment does."""
    return [{"instances": detector.inference(inputs, do_postprocess=False)[0]}]


@torch.no_grad()
def _detect(detector: nn.Module, image: Tensor) -> dict[str, Tensor]:
    fields = _infer(detector, [{"image": image}])[0]["instances"].get_fields()
    return {name: getattr(value, "tensor", value) for name, value in fields.items()}


def _compare(expected: Mapping[str, Tensor], actual: Mapping[str, Tensor]) -> dict[str, float]:
    """Pair the detections, for equal scores have no order; return the largest differences."""
    if len(expected["scores"]) != len(actual["scores"]):
        return {"number of detections": math.inf}
    if not len(expected["scores"]):
        return {}
    apart = [
        torch.cat(
            [outputs["pred_boxes"], outputs["pred_classes"][:, None] * _CLASS], dim=1
        ).double()
        for outputs in (expected, actual)
    ]
    pairs = torch.cdist(apart[0], apart[1]).argmin(dim=1)  # (n,)
    return {
        name: (value.double() - actual[name][pairs].double()).abs().max().item()
        for name, value in expected.items()
    }
