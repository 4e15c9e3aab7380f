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
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from detectron2.export import TracingAdapter
from torch import Tensor, nn
from torchvision.ops import box_iou

from eva_backbone.recording import quiet
from eva_data.saving import open_atomic
from eva_detection.building import build, load_initial_weights
from eva_detection.config.settings import load_recipe
from eva_detection.inference.batched import BatchedDetector
from eva_detection.inference.predictor import ImageLike, Predictor
from eva_detection.model.backbone import EVAViTDet
from eva_runs import exported
from eva_runs.options import calibration_images
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
        settings |= {"precision": args.precision, "calibrate": args.calibrate}
        predictor = Predictor.from_config(  # in fp32, which the file is made from
            args.config_file,
            weights=args.weights,
            score_threshold=args.score_threshold,
            device=args.device,
            overrides=args.opts,
        )
        return export_detector(predictor, args.output, **settings)
    backbone, preparation = load_backbone(args.config_file, args.weights, overrides=args.opts)
    return export_backbone(
        to_precision(backbone, args.precision, torch.device(args.device)),
        args.output,
        size=args.size or (backbone.square_pad or backbone.net.canvas,) * 2,
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
            inputs=exported.normal_batches(backbone, backbone.net.in_channels, *size),
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
    precision: str = "fp32",
    calibrate: Path | None = None,
) -> dict[str, float]:
    """Write a complete detector, read the file again and compare, upright and turned.

    The image is traced with; something must be detected in it. The form is "torchscript", of one
    image, or "onnx", of any number, without soft-NMS; neither has test-time augmentation or slices.
    The size (H, W) is fixed in an ONNX file, which notes the `threshold` of what to show.

    An ONNX or OpenVINO file may be "fp16" or "int8", then with a folder of images to `calibrate`.

    Returns:
        The largest difference of each field of detectron2's `Instances`; one above
        `DETECTOR_TOLERANCES` is a ValueError, and leaves no file. Of other precisions, the least
        share of the detections of an image that the file makes, too.
    """
    detector, is_onnx = predictor.model, form != "torchscript"
    _require_exportable(detector, onnx=is_onnx)
    pixels = _resized(predictor.prepare(image)["image"], size)
    found = _detect(detector, pixels)
    if not len(found["scores"]):
        raise ValueError("nothing is detected in the image: lower --score-threshold")
    facts = _describe(predictor, pixels) | {"score_threshold": threshold, "size": size}
    flipped = pixels.flip(1, 2).contiguous()
    turned = pixels.transpose(1, 2).contiguous() if size is None else flipped
    with exported.replacing_program(output) as file, quiet():
        if is_onnx:
            facts["input"] = f"(B, {facts['input'][1:]}"
            prepared = (predictor.prepare(path)["image"] for path in calibration_images(calibrate))
            samples = ({"images": _resized(sample, size)[None]} for sample in prepared)
            run = _write_onnx(detector, file, pixels, facts, size, precision, samples)
            batches = [[pixels, flipped], [turned]]
        else:
            run = _write_torchscript(detector, file, pixels, facts, sorted(found))
            batches = [[pixels], [turned]]
        return _compare_programs(detector, run, batches, shares=precision != "fp32")


def _require_exportable(detector: Any, *, onnx: bool) -> None:
    """Refuse what no program can do."""
    if not hasattr(detector, "roi_heads"):
        message = "a detector is exported without augmented views and slices"
        raise ValueError(f"{message}: add --opts test.aug=null test.slice=null")
    problem = ""
    if getattr(detector.roi_heads, "use_soft_nms", False):
        problem = "add --opts model.roi_heads.use_soft_nms=False (plain NMS)"
    if detector.roi_heads.keypoint_on:
        problem = "keypoints, whose maps are resized to each box in a loop"
    if problem and onnx:
        raise ValueError(f"not as ONNX: {problem}")


def _describe(predictor: Predictor, pixels: Tensor) -> dict[str, Any]:
    """Describe what a program takes and gives, for whoever reads its file."""
    detector = predictor.model
    return {
        "task": "detection",
        "input": f"({len(pixels)}, H, W), values 0 to 255",
        "bands": predictor.bands and predictor.bands.as_json(),
        "input_format": detector.input_format,
        "pixel_mean": detector.pixel_mean.flatten().tolist(),
        "pixel_std": detector.pixel_std.flatten().tolist(),
        "class_names": list(predictor.class_names),
        "largest_side": detector.backbone.square_pad or max(pixels.shape[1:]),
    }


def _compare_programs(
    detector: nn.Module, run: "Program", batches: Iterable[Sequence[Tensor]], *, shares: bool
) -> dict[str, float]:
    """Compare the outputs of a file with those of the detector, as `export_detector` returns it."""
    worst: dict[str, float] = {}
    for batch in batches:
        outputs = run(torch.stack(list(batch)))
        for index, view in enumerate(batch):
            rows = outputs["image_index"] == index
            actual, expected = {k: v[rows] for k, v in outputs.items()}, _detect(detector, view)
            if shares:
                share = _share_found(expected, actual)
                worst = {"share found": min(share, worst.get("share found", 1.0))}
                continue
            for name, value in _compare(expected, actual).items():
                exported.require_close(value, DETECTOR_TOLERANCES.get(name, 0.0))
                worst[name] = max(value, worst.get(name, 0.0))
    return worst


Program = Callable[[Tensor], Mapping[str, Tensor]]  # of images (B, 3, H, W)


def _write_onnx(
    detector: Any,
    file: Path,
    pixels: Tensor,
    facts: dict[str, Any],
    size: tuple[int, int] | None,
    precision: str,
    samples: Iterable[exported.Inputs],
) -> Program:
    batched = BatchedDetector(detector).eval()
    with torch.no_grad():
        names = [*batched(pixels[None])]
    axes = {name: [0] for name in names} | {"images": [0, 2, 3] if size is None else [0]}
    inputs, folder = {"images": pixels[None]}, file.parent / "traced"
    program = exported.trace_to_onnx(batched, inputs, names, axes, folder, precision, samples)
    exported.save_program(program, file, {**facts, "outputs": names})
    run = exported.open_program(file)
    return lambda images: run({"images": images})


def _write_torchscript(
    detector: Any, file: Path, pixels: Tensor, facts: dict[str, Any], fields: Sequence[str]
) -> Program:
    names = [*fields, "image_size"]
    adapter = TracingAdapter(detector, [{"image": pixels}], _infer)
    program = torch.jit.trace(adapter, (pixels,), check_trace=False)
    more = {"preparation.json": json.dumps({**facts, "outputs": names})}
    with open_atomic(file) as stream:  # as `exported` does
        torch.jit.save(program, stream, _extra_files=more)
    program = torch.jit.load(file, map_location=pixels.device)

    def run(images: Tensor) -> dict[str, Tensor]:
        outputs = dict(zip(names, program(*images), strict=True))
        del outputs["image_size"]
        return {**outputs, "image_index": torch.zeros(len(outputs["scores"]))}

    return run


def _resized(image: Tensor, size: tuple[int, int] | None) -> Tensor:
    if size is None:
        return image
    return F.interpolate(image[None], size=size, mode="bilinear", antialias=True)[0]


def _infer(detector: Any, inputs: list[dict[str, Tensor]]) -> list[dict[str, Any]]:
    """Run a detector as detectron2's tool for deployment does."""
    return [{"instances": detector.inference(inputs, do_postprocess=False)[0]}]


@torch.no_grad()
def _detect(detector: nn.Module, image: Tensor) -> dict[str, Tensor]:
    fields = _infer(detector, [{"image": image}])[0]["instances"].get_fields()
    return {name: getattr(value, "tensor", value) for name, value in fields.items()}


def _share_found(expected: Mapping[str, Tensor], actual: Mapping[str, Tensor]) -> float:
    """Share of the detections that have another of their class at an IoU of 0.5."""
    same = expected["pred_classes"][:, None] == actual["pred_classes"]
    near = box_iou(expected["pred_boxes"], actual["pred_boxes"]) >= 0.5
    return (same & near).any(dim=1).float().mean().nan_to_num(1.0).item()


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
