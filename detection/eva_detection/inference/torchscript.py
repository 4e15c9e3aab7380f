"""Export of a complete detector with `torch.jit.trace`, by detectron2's `TracingAdapter`.

The program takes one picture and needs torch and `import torchvision`, nothing of detectron2 or
this toolkit. Masks are 28 x 28 px of their box, as before detectron2's `detector_postprocess`.

Shapes: H x W pixels, n detections.
"""

import json
import os
import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from detectron2.export import TracingAdapter
from torch import Tensor, nn
from torch.jit import TracerWarning  # type: ignore[attr-defined]  # not in __all__

from eva_data.files import make_folder
from eva_detection.inference.predictor import ImageLike, Predictor
from eva_runs.exported import quiet

# Largest differences of pixels, scores, mask probabilities and classes between file and detector.
TOLERANCES = {"pred_boxes": 0.5, "scores": 1e-3, "pred_masks": 2e-2, "pred_classes": 0.0}
_CLASS = 1e6  # pixels by which boxes of different classes lie apart, when detections are paired


def export_detector(predictor: Predictor, output: Path, *, image: ImageLike) -> dict[str, float]:
    """Write a detector as TorchScript, read the file again and compare, upright and on its side.

    Args:
        predictor: The detector and its preparation of pictures.
        output: File, ending in .ts.
        image: Picture to trace with, on which something must be detected.

    Returns:
        Field of detectron2's `Instances` -> largest absolute difference.

    Raises:
        ValueError: If nothing is detected, or the file differs by more than `TOLERANCES`; no file
            is left then.
    """
    detector = predictor.model
    picture = predictor._prepare(image)[0][0]["image"]
    expected = _detect(detector, picture)
    if not len(expected["scores"]):
        raise ValueError(
            "nothing is detected in the picture, and masks would be missing in the program: give "
            "another one, or a lower --score-threshold"
        )
    names = [*sorted(expected), "image_size"]
    adapter = TracingAdapter(detector, [{"image": picture}], _infer)
    facts = {
        "input": "(3, H, W), values 0 to 255",
        "input_format": detector.input_format,
        "outputs": names,
        "class_names": list(predictor.class_names),
        "largest_side": detector.backbone.padding_constraints.get("square_size", 0) or None,
    }
    make_folder(output.parent)
    with tempfile.TemporaryDirectory(prefix=".export-", dir=output.parent) as folder:
        file = Path(folder) / output.name
        with quiet():
            # of decisions by sizes and values: the program is compared with the detector
            warnings.filterwarnings("ignore", category=TracerWarning)
            program = torch.jit.trace(adapter, (picture,), check_trace=False)
            torch.jit.save(program, file, _extra_files={"preparation.json": json.dumps(facts)})
            program = torch.jit.load(file, map_location=picture.device)
            found = _compare(expected, program(picture), names)
            turned = picture.transpose(1, 2).contiguous()
            again = _compare(_detect(detector, turned), program(turned), names)
        found = {name: max(value, again.get(name, 0.0)) for name, value in found.items()}
        for name, limit in TOLERANCES.items():
            if not found.get(name, 0.0) <= limit:  # also for NaN
                raise ValueError(
                    f"{name} of the written file differ by {found[name]:.2g} from the detector's, "
                    f"more than {limit:g}; the file was deleted"
                )
        os.replace(file, output)
    return found


def _infer(detector: Any, inputs: list[dict[str, Tensor]]) -> list[dict[str, Any]]:
    """Run a detector as detectron2's tool for deployment does."""
    return [{"instances": detector.inference(inputs, do_postprocess=False)[0]}]


@torch.no_grad()
def _detect(detector: nn.Module, picture: Tensor) -> dict[str, Tensor]:
    fields = _infer(detector, [{"image": picture}])[0]["instances"].get_fields()
    return {name: getattr(value, "tensor", value) for name, value in fields.items()}


def _compare(
    expected: Mapping[str, Tensor], outputs: tuple[Tensor, ...], names: list[str]
) -> dict[str, float]:
    """Pair the detections, for equal scores have no order; return the largest differences."""
    found = dict(zip(names, outputs, strict=True))
    if len(found["scores"]) != len(expected["scores"]):
        raise ValueError(
            f"the written file detects {len(found['scores'])} objects, the detector "
            f"{len(expected['scores'])}; the file was deleted"
        )
    if not len(found["scores"]):
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
