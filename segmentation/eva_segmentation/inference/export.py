"""Export of a complete segmentor as ONNX: from the pixels of images to the class of each.

Shapes: B images, K classes, H x W an image, i x j windows of c x d.
"""

import math
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir
import torch
import torch.nn.functional as F
from onnx_ir.passes.common import LiftSubgraphInitializersToMainGraphPass
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from eva_backbone.recording import quiet, unrecorded
from eva_data.bands import Bands
from eva_runs import exported
from eva_runs.options import calibration_images
from eva_segmentation.inference.predictor import Predictor

TOLERANCE = 2e-2  # of scores: OpenCV rounds while it resizes


def export_segmentor(
    predictor: Predictor,
    output: Path,
    *,
    size: tuple[int, int] | None = None,
    precision: str = "fp32",
    calibrate: Path | None = None,
) -> float:
    """Write a segmentor, read the file again and compare, on an upright and a turned image.

    It slides a window over images resized by their short side, whose `size` (H, W) is fixed in the
    file; None for any. Large weights go to a second file, .onnx.data. It may be "fp16" or "int8",
    then with a folder of images to `calibrate`.

    Returns:
        The largest difference of a score, as a share of the image's largest score where that is
        above 1, as logits are; in fp32, one above `TOLERANCE` is a ValueError, and leaves no file.
    """
    around = _Around(predictor)
    height, width = size or (around.short * 3 // 4, around.short)
    bands, channels = predictor.bands, predictor.bands.count if predictor.bands else 3
    shape = (height // 16 + 1, width // 16 + 1, channels)
    coarse = np.random.default_rng(0).integers(0, 256, shape)
    image: Any = coarse.astype(np.uint8).repeat(16, 0).repeat(16, 1)[:height, :width]
    if bands is not None:  # as stored
        image = image / 255 * (np.array(bands.high) - bands.low) + bands.low
    values = "RGB, values 0 to 255" if bands is None else "bands, low to high scaled to 0 to 255"
    facts = {
        "task": "segmentation",
        "input": f"(B, {channels}, H, W), {values}",
        "bands": bands and bands.as_json(),
        "class_names": list(predictor.names),
        "colors": [list(map(int, color)) for color in predictor.colors],
    }
    worst = 0.0
    with exported.replacing_program(output) as file, quiet(), torch.no_grad():
        varying, images = [0] if size else [0, 2, 3], _pixels(image, bands=bands)
        stored = map(predictor.read_image, calibration_images(calibrate))
        batches = (around(_pixels(view, bands=bands), None) for view in stored)
        samples = ({"crop": crop} for batch in batches for crop in batch)
        lower: Any = {"precision": precision, "samples": samples}
        program = _program(around, images, varying, file.parent, lower)
        exported.save_program(program, file, facts)
        run = exported.open_program(file)
        flipped = image[::-1, ::-1]
        turned = () if size else ((np.rot90(image),), (image[:, :height],))
        for views in ((image, flipped), *turned):  # the square has fewer windows
            scores = run({"images": _pixels(*views, bands=bands)})["scores"]
            for view, actual in zip(views, scores, strict=True):
                expected = predictor.sample(view).seg_logits.data
                unit = max(1.0, expected.abs().max().item())
                difference = (expected - actual).abs().max().item() / unit
                exported.require_close(difference, TOLERANCE if precision == "fp32" else math.inf)
                worst = max(worst, difference)
    return worst


def _program(
    around: "_Around", images: Tensor, varying: list[int], folder: Path, lower: Any
) -> Any:
    """Trace what surrounds the model, and the model on one window, which is scanned over all."""
    model, shape = around.model, (*around.model.test_cfg.crop_size,)
    windows = torch.zeros(len(around(images, None)), model.num_classes, *shape)
    axes = {"images": varying, "windows": [0], "labels": [0, 1, 2], "scores": [0, 2, 3]}
    axes["crops"] = [0]
    inputs, outputs = {"images": images, "windows": windows}, ["labels", "scores", "crops"]
    program = exported.trace_to_onnx(around, inputs, outputs, axes, folder / "around")
    window = exported.CallableModule(model, lambda crop: model.encode_decode(crop[None], [{}])[0])
    with _Pools():
        inputs = {"crop": torch.zeros(images.shape[1], *shape)}
        traced = exported.trace_to_onnx(window, inputs, ["found"], {}, folder / "window", **lower)
    body = traced.model.graph
    made = (value for node in body for value in node.outputs)
    for value in (*body.inputs, *body.initializers.values(), *made):
        value.name = f"window/{value.name}"
    graph = program.model.graph
    attributes = [onnx_ir.AttrGraph("body", body), onnx_ir.AttrInt64("num_scan_inputs", 1)]
    scan = onnx_ir.Node("", "Scan", [graph.outputs.pop()], attributes)
    graph.append(scan)
    graph.inputs.pop().replace_all_uses_with(scan.outputs[0])
    graph.sort()
    LiftSubgraphInitializersToMainGraphPass()(program.model)
    return program


def _pixels(*images: Any, bands: Bands | None) -> Tensor:
    scaled = np.stack([image if bands is None else bands.scale(image) for image in images])
    return torch.from_numpy(scaled.transpose(0, 3, 1, 2).astype(np.float32))


class _Around(nn.Module):
    """What surrounds the model of a segmentor: resizing and the sliding window."""

    def __init__(self, predictor: Predictor) -> None:
        super().__init__()
        self.model: Any = predictor.model
        self._round = torch.round if predictor.bands is None else torch.clone
        steps = {step["type"]: step for step in predictor.pipeline}
        if self.model.test_cfg.mode != "slide" or not steps.get("Resize", {}).get("keep_ratio"):
            wrong = f"{self.model.test_cfg}, {steps.get('Resize')}"
            raise ValueError(f"only mode='slide' and keep_ratio=True are exported, not {wrong}")
        scale = steps["Resize"]["scale"]
        self.long, self.short = max(scale), min(scale)
        self.multiple = steps.get("ResizeToMultiple", {}).get("size_divisor", 1)

    def forward(self, images: Tensor, windows: Tensor | None) -> Any:
        """Cut windows (B * i * j, 3, c, d) out of images (B, 3, H, W), RGB, to be scored.

        With their scores (B * i * j, K, c, d) it returns labels (B, H, W), scores (B, K, H, W), and
        windows.
        """
        pixels, test = self.model.data_preprocessor, self.model.test_cfg
        sides = torch.stack([torch.as_tensor(side) for side in images.shape[2:]])
        scale = torch.minimum(self.long / sides.max().double(), self.short / sides.min().double())
        resized = (sides * scale + 0.5).long()
        multiple = (resized + self.multiple - 1) // self.multiple * self.multiple
        images = self._round(_resize(images, resized))  # as OpenCV does bytes
        images = self._round(_resize(images, multiple))
        (ys, at_y), (xs, at_x) = map(
            _places, (multiple[0], multiple[1]), test.crop_size, test.stride
        )
        crops = (images - pixels.mean) / pixels.std
        crops = crops[:, :, ys[:, None, :, None], xs[None, :, None, :]]  # (B, 3, i, j, c, d)
        crops = crops.permute(0, 2, 3, 1, 4, 5).flatten(0, 2)
        if windows is None:
            return crops
        counts = images.shape[0], ys.shape[0], xs.shape[0]
        windows = windows.reshape(*counts, *windows.shape[1:])
        total = torch.einsum("bijkcd,icy->bjkdy", windows, at_y)
        total = torch.einsum("bjkdy,jdx->bkyx", total, at_x)
        scores = _resize(total / (at_y.sum((0, 1))[:, None] * at_x.sum((0, 1))), sides)
        return scores.argmax(dim=1), scores, crops


class _Pools(TorchFunctionMode):
    """Adaptive mean pooling by matrix products: ONNX has none to any size."""

    def __torch_function__(self, function: Any, _: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function is not F.adaptive_avg_pool2d:
            return function(*args, **(kwargs or {}))
        maps, size = args
        rows, columns = (  # (side, size)
            unrecorded(F.adaptive_avg_pool1d, torch.eye(int(side)), size) for side in maps.shape[2:]
        )
        return rows.mT @ maps @ columns


def _resize(maps: Tensor, sides: Any) -> Tensor:
    """Resize maps (B, C, ., .) to sides (2,), numbers of a trace."""
    size = [sides[0], sides[1]]
    return F.interpolate(maps, size=size, mode="bilinear", align_corners=False)


def _places(side: Any, window: int, step: int) -> tuple[Tensor, Tensor]:
    """Place n windows of c pixels along a side as `eva_data.detection.tiles.windows` does.

    Returns positions (n, c), the last repeated for a side shorter than c, and which pixels of the
    side they are, as 0 or 1 (n, c, side).
    """
    last = (side - window).clamp(min=0)
    starts = torch.minimum(torch.arange((last + step - 1) // step + 1) * step, last)
    places = starts[:, None] + torch.arange(window)
    inside = places[..., None] == torch.arange(side)
    return torch.minimum(places, side - 1), inside.float()
