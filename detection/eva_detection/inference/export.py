"""Export of a detector: complete as TorchScript, backbone and pyramid as `torch.export` and ONNX.

A file is checked against the model that it came from before it gets its name.

`torch.export` (torch 2.13) stops wherever the program's way or a tensor's size depends on values,
which `DETECTOR_OBSTACLES` names, and ONNX at the pooler too. detectron2 is made for
`torch.jit.trace`, see `eva_detection.inference.torchscript`.

Everything heavy is imported where it is used, so that `--help` and mistakes answer at once.
"""

import argparse
import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from eva_detection.model.backbone import EVAViTDet

from eva_data.files import make_folder, require_free
from eva_detection.config.saved import require_config
from eva_report.demos import refuse
from eva_runs.command_line.parsing import Parser
from eva_runs.command_line.weights import WEIGHTS
from eva_runs.commands import program_name
from eva_runs.exported import (
    DATA,
    ENDINGS,
    demand_close,
    differences,
    open_program,
    quiet,
    require_form,
    write_program,
)
from eva_runs.options import add_download_option, integer, number

logger = logging.getLogger(__name__)

# Largest absolute difference; the levels end in a LayerNorm, so values are of order 1. Between
# two programs in half precision the order of summation alone makes up for much of it.
TOLERANCES = {"float32": 1e-3, "float16": 5e-2}
TORCHSCRIPT = "torchscript"
_ENDINGS = ENDINGS | {TORCHSCRIPT: ".ts"}
DETECTOR_OBSTACLES = (
    "detectron2 ImageList.from_tensors (padding by tensor sizes)",
    "detectron2 find_top_rpn_proposals (if valid_mask.all(), if keep.sum(), boxes left by NMS)",
    "detectron2 Boxes (if tensor.numel() == 0, assert isfinite: between the cascade's stages too)",
    "detectron2 fast_rcnn_inference (if valid_mask.all(), boxes left by score threshold and NMS)",
    "soft_nms (a loop until no box is left)",
    "detectron2 ROIPooler for ONNX alone (torchvision::roi_align, aten.sym_numel)",
)


def demand_exportable(*, part: str, form: str, output: Path, overwrite: bool) -> None:
    """Check what needs no model.

    Args:
        part: "backbone", or "detector" for TorchScript.
        form: "torch-export", "onnx" or "torchscript".
        output: File to write.
        overwrite: Whether an existing file may be replaced.

    Raises:
        ValueError: If it cannot be exported, or not to that file, with the reason.
    """
    if part == "detector" and form != TORCHSCRIPT:
        raise ValueError(
            f"a complete detector cannot be exported as {form}, because of\n  "
            + "\n  ".join(DETECTOR_OBSTACLES)
            + f"\nchoose --format {TORCHSCRIPT}; or --part backbone, and detectron2 for the heads"
        )
    if part == "backbone" and form == TORCHSCRIPT:
        raise ValueError("--format torchscript is the complete detector: leave --part out")
    if output.suffix != _ENDINGS[form]:
        raise ValueError(f"a file of format {form} ends in {_ENDINGS[form]}, got {output}")
    require_free([output], overwrite=overwrite)
    require_form(form)


def load_backbone(
    config_file: Path, weights: str, *, overrides: Sequence[str] = (), device: str = "cpu"
) -> tuple["EVAViTDet", dict[str, Any]]:
    """Build a recipe's backbone with weights, for inference.

    Args:
        config_file: The recipe.
        weights: Name of an official file, or path, of a backbone or a complete detector.
        overrides: Config values as on the command line.
        device: Place that the backbone will be moved to.

    Returns:
        The backbone in eval mode, and what a caller must know to prepare its input.

    Raises:
        ValueError: If there are no weights or they do not fit, there is no such recipe, or nothing
            reads an override.
        FileNotFoundError: If there is no such file.
    """
    from detectron2.config import instantiate

    from eva_detection.config.recipes import load_recipe
    from eva_detection.model.weights import load_initial_weights

    if not weights:
        raise ValueError("weights must name an official file or be a path, got ''")
    cfg = load_recipe(config_file, overrides, device=device)
    detector = instantiate(cfg.model)
    report = load_initial_weights(detector, weights)
    assert report is not None
    if any(name.startswith("backbone.simfp_") for name in report.missing):
        logger.warning("%s has no pyramid: p2 and the other levels are of random weights", weights)
    preparation = {
        "input_format": detector.input_format,
        "pixel_mean": detector.pixel_mean.flatten().tolist(),
        "pixel_std": detector.pixel_std.flatten().tolist(),
        "strides": {name: int(n) for name, n in detector.backbone._out_feature_strides.items()},
    }
    return detector.backbone.eval().requires_grad_(False), preparation


def export_backbone(
    backbone: "EVAViTDet",
    output: Path,
    *,
    form: str,
    size: tuple[int, int],
    batch_size: int | None = 1,
    preparation: Mapping[str, Any] | None = None,
    tolerance: float | None = None,
) -> dict[str, float]:
    """Write a backbone, read the file again and compare.

    Args:
        backbone: Backbone in eval mode; the program gets its type and device.
        output: File, ending in .pt2 or .onnx. Large ONNX weights go to a second file, .onnx.data.
        form: "torch-export" or "onnx".
        size: Height and width of the images in pixels, fixed in the file.
        batch_size: Images of a batch, fixed in the file; None for any number.
        preparation: Facts to store in the file, as JSON.
        tolerance: Largest absolute difference; None takes it from `TOLERANCES`.

    Returns:
        Level -> largest absolute difference between the file and the backbone.

    Raises:
        ValueError: If the size does not fit, or the file differs by more; no file is left then.
    """
    import torch

    # torch.export takes a dimension of one example for a fixed one
    images = _random_images(backbone, 2 if batch_size is None else batch_size, size)
    shapes = {"images": {0: torch.export.Dim("batch")}} if batch_size is None else None
    if tolerance is None:
        tolerance = TOLERANCES[str(images.dtype).removeprefix("torch.")]
    make_folder(output.parent)
    with (
        torch.no_grad(),
        quiet(),
        tempfile.TemporaryDirectory(prefix=".export-", dir=output.parent) as folder,
    ):
        # first: interpolation matrices, once there, become constants instead of a linear system
        expected = backbone(images)
        program = torch.export.export(backbone, (images,), dynamic_shapes=shapes)
        file = Path(folder) / output.name
        write_program(
            program, file, inputs=["images"], outputs=list(expected), facts=preparation or {}
        )
        run = open_program(file)
        found = differences(expected, run({"images": images}))
        if batch_size is None:
            first = {name: level[:1] for name, level in expected.items()}
            one = differences(first, run({"images": images[:1]}))
            found = {name: max(found[name], one[name]) for name in one}
        demand_close(found, tolerance)
        _move(Path(folder), output)
    return found


def _random_images(backbone: "EVAViTDet", batch_size: int, size: tuple[int, int]) -> "Tensor":
    import torch

    divisor = backbone.size_divisibility
    if min(size) <= 0 or any(side % divisor for side in size) or batch_size < 1:
        raise ValueError(
            f"size {size[0]} {size[1]} and batch size {batch_size} do not fit: sides must be "
            f"multiples of {divisor}, the batch at least 1"
        )
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(batch_size, 3, *size, generator=generator)
    return images.to(next(backbone.parameters()))


def _move(folder: Path, output: Path) -> None:
    """Move the files to the place of `output`, the one that the others belong to last."""
    data = output.with_name(output.name + DATA)
    if (folder / data.name).exists():
        os.replace(folder / data.name, data)
        os.replace(folder / output.name, output)
    else:
        os.replace(folder / output.name, output)
        if output.suffix == ".onnx":
            data.unlink(missing_ok=True)  # of an earlier export


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog=program_name("export.py"),
        description="Write a detector for programs without this toolkit: complete as TorchScript "
        "(one picture in; boxes, classes, masks, scores out), or its ViT and pyramid (normalised "
        "images in, p2 ... out). The file is compared with the model before it is kept.",
    )
    add = parser.add_argument
    add(
        "--config-file",
        type=Path,
        help="the detector's recipe (default: the config.yaml that lies with the weights)",
    )
    add("--weights", required=True, help=WEIGHTS)
    add_download_option(parser)
    add("--format", required=True, choices=_ENDINGS, dest="form")
    add("--output", required=True, type=Path, help="file, ending in .ts, .pt2 or .onnx")
    add("--part", choices=("backbone", "detector"), help="detector for torchscript, else backbone")
    add("--image", type=Path, help="torchscript: picture on which something is detected")
    add("--score-threshold", type=number(0), default=0.05, help="torchscript: default %(default)s")
    add(
        "--size",
        nargs="+",
        type=integer(1),
        metavar="PIXELS",
        help="side, or height and width, fixed in the file (default: the recipe's canvas)",
    )
    add("--batch-size", type=_batch_size, default=1, help='fixed, or "any" (default: %(default)s)')
    add("--dtype", default="float32", choices=TOLERANCES)
    add("--device", default="cpu", help="where a torch.export program will run (default: cpu)")
    add("--tolerance", type=number(0), help="largest difference (default: 0.001, float16: 0.05)")
    add("--overwrite", action="store_true", help="replace an earlier file")
    add("--opts", nargs="+", default=[], metavar="KEY=VALUE", help="values of the recipe to change")
    return parser


def _export_detector(args: argparse.Namespace) -> dict[str, float]:
    from eva_detection.inference.predictor import Predictor
    from eva_detection.inference.torchscript import export_detector

    predictor = Predictor.from_config(
        args.config_file,
        weights=args.weights,
        score_threshold=args.score_threshold,
        device=args.device,
        overrides=args.opts,
    )
    return export_detector(predictor, args.output, image=args.image)


def _export_backbone(args: argparse.Namespace) -> dict[str, float]:
    import torch

    backbone, preparation = load_backbone(
        args.config_file, args.weights, overrides=args.opts, device=args.device
    )
    sides = args.size or [backbone.square_pad]
    return export_backbone(
        backbone.to(device=args.device, dtype=getattr(torch, args.dtype)),
        args.output,
        form=args.form,
        size=(sides[0], sides[-1]),
        batch_size=args.batch_size,
        preparation=preparation,
        tolerance=args.tolerance,
    )


def _batch_size(text: str) -> int | None:
    return None if text == "any" else integer(1)(text)


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line of `export.py`.

    Args:
        arguments: Arguments; by default the process's.
    """
    parser = _parser()
    args = parser.parse_args(arguments)
    complete = args.form == TORCHSCRIPT
    args.part = args.part or ("detector" if complete else "backbone")
    if complete and args.image is None:
        parser.error("--format torchscript needs --image, a picture on which something is detected")
    if complete and (args.size or args.batch_size != 1 or args.dtype != "float32"):
        parser.error("--format torchscript takes pictures of any size, one at a time, in float32")
    if complete and args.tolerance is not None:
        parser.error("--tolerance is for the levels of a backbone; leave it out with torchscript")
    if args.size and len(args.size) > 2:
        parser.error(f"--size takes a side, or height and width, got {len(args.size)} numbers")
    try:
        args.config_file = Path(
            require_config(args.config_file, args.weights, option="--config-file")
        )
        demand_exportable(
            part=args.part, form=args.form, output=args.output, overwrite=args.overwrite
        )
    except (OSError, ValueError) as error:
        refuse(parser, error)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    warnings.filterwarnings("ignore", message="torch.meshgrid")  # inside detectron2
    for name in ("onnx_ir", "onnxscript"):  # hundreds of lines on their optimisations
        logging.getLogger(name).setLevel(logging.WARNING)
    try:
        found = _export_detector(args) if complete else _export_backbone(args)
    except (OSError, ValueError) as error:
        sys.exit(f"{parser.prog}: error: {error}")
    for name, difference in found.items():
        logger.info("%s differs from the model by at most %.2g", name, difference)
    size = args.output.stat().st_size / 2**20
    logger.info("wrote %s, %.1f MiB", args.output, size)


if __name__ == "__main__":
    main()
