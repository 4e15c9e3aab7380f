"""Export of a detector: complete as TorchScript, ViT and pyramid as `torch.export` and ONNX.

A file is compared with the model that it came from before it gets its name. A complete detector is
traced: `torch.export` (torch 2.13) stops wherever control flow or a tensor's size depends on
values. Such a program takes one image and needs torch and `import torchvision` alone; masks are
28 x 28 px of their box.

Shapes: H x W pixels, n detections.
"""

import argparse
import contextlib
import json
import logging
import math
import os
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from detectron2.export import TracingAdapter
from torch import Tensor, nn
from torch.jit import TracerWarning  # type: ignore[attr-defined]  # not in __all__

from eva_data.files import make_folder
from eva_detection.building import build
from eva_detection.config.settings import load_recipe
from eva_detection.inference.predictor import ImageLike, Predictor, named_predictor
from eva_detection.model.backbone import EVAViTDet
from eva_detection.model.weights import load_initial_weights
from eva_runs.exported import demand_close, differences, open_program, quiet, write_program
from eva_runs.options import DATA
from eva_runs.precision import to_precision

logger = logging.getLogger(__name__)

# Largest absolute difference; the levels end in a LayerNorm, so values are of order 1. Between
# two programs in half precision the order of summation alone makes up for much of it.
TOLERANCES = {torch.float32: 1e-3, torch.float16: 5e-2, torch.bfloat16: 4e-1}
# Largest differences of pixels, scores, mask probabilities and classes of a complete detector.
DETECTOR_TOLERANCES = {"pred_boxes": 0.5, "scores": 1e-3, "pred_masks": 2e-2, "pred_classes": 0.0}
_CLASS = 1e6  # pixels by which boxes of different classes lie apart, when detections are paired


def export_from_config(args: argparse.Namespace) -> dict[str, float]:
    """Export as the options of `export.py` say; returns the largest differences by name."""
    if args.form == "torchscript":
        return export_detector(named_predictor(args), args.output, image=args.image)
    backbone, preparation = load_backbone(args.config_file, args.weights, overrides=args.opts)
    sides = args.size or [backbone.square_pad]
    return export_backbone(
        to_precision(backbone, args.precision, torch.device(args.device)),
        args.output,
        size=(sides[0], sides[-1]),
        batch_size=args.batch_size,
        preparation=preparation,
    )


def load_backbone(
    config_file: str | os.PathLike[str], weights: str, *, overrides: Sequence[str] = ()
) -> tuple[EVAViTDet, dict[str, Any]]:
    """Build a recipe's backbone with weights, for inference."""
    detector = build(load_recipe(config_file, overrides).model, "model")
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
    """Write a backbone, read the file again and compare.

    Args:
        backbone: Backbone in eval mode; the program gets its type and device.
        output: File, ending in .pt2 or .onnx. Large ONNX weights go to a second file, .onnx.data.
        size: Height and width of the images in pixels, fixed in the file.
        batch_size: Images of a batch, fixed in the file; None for any number.
        preparation: Facts to store in the file, as JSON.

    Returns:
        Level -> largest absolute difference; one above `TOLERANCES` is a ValueError, and leaves no
        file.
    """
    # torch.export takes a dimension of one example for a fixed one
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(batch_size or 2, 3, *size, generator=generator)
    images = images.to(next(backbone.parameters()))
    shapes = {"images": {0: torch.export.Dim("batch")}} if batch_size is None else None
    with torch.no_grad(), quiet(), _part_of(output) as file:
        # first: interpolation matrices, once there, become constants instead of a linear system
        expected = backbone(images)
        program = torch.export.export(backbone, (images,), dynamic_shapes=shapes)
        names = list(expected)
        write_program(program, file, inputs=["images"], outputs=names, facts=preparation or {})
        run = open_program(file)
        found: dict[str, float] = {}
        for count in {len(images), batch_size or 1}:
            first = {name: level[:count] for name, level in expected.items()}
            one = differences(first, run({"images": images[:count]}))
            demand_close(one, TOLERANCES[images.dtype])
            found = {name: max(value, found.get(name, 0.0)) for name, value in one.items()}
        data = output.with_name(output.name + DATA)
        if (part := file.with_name(data.name)).exists():
            os.replace(part, data)
        elif output.suffix == ".onnx":
            data.unlink(missing_ok=True)  # of an earlier export
        os.replace(file, output)
    return found


@contextlib.contextmanager
def _part_of(output: Path) -> Iterator[Path]:
    """Name a file to write first, in a folder beside the output that is removed at the end."""
    make_folder(output.parent)
    with tempfile.TemporaryDirectory(prefix=".export-", dir=output.parent) as folder:
        yield Path(folder) / output.name


def export_detector(predictor: Predictor, output: Path, *, image: ImageLike) -> dict[str, float]:
    """Write a detector as TorchScript, read the file again and compare, upright and on its side.

    The image is traced with. The result is the largest difference of each field of detectron2's
    `Instances`; one above `DETECTOR_TOLERANCES` is a ValueError, and leaves no file.
    """
    detector, pixels = predictor.model, predictor.prepare(image)["image"]
    expected = _detect(detector, pixels)
    if not len(expected["scores"]):
        raise ValueError("nothing is detected in the image: give another or lower the threshold")
    names = [*sorted(expected), "image_size"]
    facts = {
        "input": "(3, H, W), values 0 to 255",
        "input_format": detector.input_format,
        "outputs": names,
        "class_names": list(predictor.class_names),
        "largest_side": detector.backbone.padding_constraints.get("square_size", 0) or None,
    }
    with _part_of(output) as file, quiet():
        # of decisions by sizes and values: the program is compared with the detector
        warnings.filterwarnings("ignore", category=TracerWarning)
        adapter = TracingAdapter(detector, [{"image": pixels}], _infer)
        program = torch.jit.trace(adapter, (pixels,), check_trace=False)
        torch.jit.save(program, file, _extra_files={"preparation.json": json.dumps(facts)})
        program = torch.jit.load(file, map_location=pixels.device)
        turned = pixels.transpose(1, 2).contiguous()
        again = _compare(_detect(detector, turned), program(turned), names)
        found = _compare(expected, program(pixels), names)
        for name, value in [*found.items(), *again.items()]:
            demand_close({name: value}, DETECTOR_TOLERANCES.get(name, 0.0))
        os.replace(file, output)
    return {name: max(value, again.get(name, 0.0)) for name, value in found.items()}


def _infer(detector: Any, inputs: list[dict[str, Tensor]]) -> list[dict[str, Any]]:
    """Run a detector as detectron2's tool for deployment does."""
    return [{"instances": detector.inference(inputs, do_postprocess=False)[0]}]


@torch.no_grad()
def _detect(detector: nn.Module, image: Tensor) -> dict[str, Tensor]:
    fields = _infer(detector, [{"image": image}])[0]["instances"].get_fields()
    return {name: getattr(value, "tensor", value) for name, value in fields.items()}


def _compare(
    expected: Mapping[str, Tensor], outputs: tuple[Tensor, ...], names: list[str]
) -> dict[str, float]:
    """Pair the detections, for equal scores have no order; return the largest differences."""
    found = dict(zip(names, outputs, strict=True))
    if len(expected["scores"]) != len(found["scores"]):
        return {"number of detections": math.inf}
    if not len(expected["scores"]):
        return {}
    apart = [
        torch.cat([one["pred_boxes"], one["pred_classes"][:, None] * _CLASS], dim=1).double()
        for one in (expected, found)
    ]
    pairs = torch.cdist(apart[0], apart[1]).argmin(dim=1)  # (n,)
    return {
        name: (value.double() - found[name][pairs].double()).abs().max().item()
        for name, value in expected.items()
    }
