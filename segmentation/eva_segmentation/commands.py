"""Command lines of `segmentation/train.py` and `test.py`: mmengine's runner, checked before."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from eva_backbone.checkpoints.registry import resolve_source
from eva_data.detection.tiles import add_slicing, read_slicing
from eva_openmmlab import command_line
from eva_openmmlab.own_data import dicts, image_folder, image_side
from eva_openmmlab.run_folder import config_of_run
from eva_runs.commands import Command, echo, lazy_import
from eva_runs.options import EXPORT_SUFFIXES, SOURCES, add_calibration, add_export, require_export
from eva_segmentation.data import custom_data

if TYPE_CHECKING:
    from mmengine.config import Config

load_config = lazy_import("eva_openmmlab.config:load_config")
_FORMS = {name: EXPORT_SUFFIXES[name] for name in ("onnx", "openvino")}
_EXAMPLES = """
Examples:

ADE20K from the official COCO-Stuff weights, 64 GPUs:
    torchrun --nnodes 8 --nproc-per-node 8 ... segmentation/train.py \\
        segmentation/configs/ade20k/mask2former_eva_g_896_20k.py

Your own images and label maps:
    python segmentation/train.py --train-images photos/train --train-maps maps/train \\
        --val-images photos/val --val-maps maps/val --classes classes.toml \\
        segmentation/configs/ade20k/mask2former_eva_g_512_24gb.py

Continue a run:
    the same command with --resume; SIGTERM, SIGUSR1 and Ctrl-C save a checkpoint, code 75

The demo, on two CPU cores:
    python segmentation/train.py segmentation/configs/demo/mask2former_eva_debug.py
"""


def _training_parser() -> argparse.ArgumentParser:
    return command_line.train_parser("segmentation", title="a segmentor", examples=_EXAMPLES)


train = command_line.make_command("train.py", _training_parser, own_data=custom_data)


def _evaluation_parser() -> argparse.ArgumentParser:
    parser = command_line.test_parser(
        "segmentation", title="a segmentor", predictions="the predicted label maps"
    )
    parser.add_argument("--tta", action="store_true", help="several scales, by tta_pipeline")
    add_slicing(parser)
    return parser


def _parse_export(arguments: Sequence[str]) -> argparse.Namespace:
    about = """Write a segmentor for programs without this toolkit: the pixels of an image in, the
labels and scores of its classes out. It is compared with the model before it is kept."""
    usage = "--weights WEIGHTS [--config CONFIG] --output FILE [flags]"
    parser = command_line.make_parser("eva segmentation export", usage, "segmentation", about, "")
    parser.add_argument("--weights", required=True, help=SOURCES)
    help_text = "config or recipe of the weights (default: that of their run)"
    parser.add_argument("--config", help=help_text)
    add_export(parser, _FORMS, size="any size")
    add_calibration(parser)
    parser.add_argument("--precision", choices=("fp32", "fp16", "int8"), default="fp32")
    return parser.parse_args(arguments)


def _export(options: argparse.Namespace) -> int:
    def training_images() -> Path | None:
        file = config_of_run(options.config or options.weights)
        return image_folder(load_config(file).train_dataloader.dataset) if file else None

    require_export(options, _FORMS, training=training_images)
    resolve_source(options.weights)
    from eva_segmentation.inference.export import export_segmentor
    from eva_segmentation.inference.predictor import Predictor

    config, weights = options.config or options.weights, options.weights
    predictor = Predictor.from_config(config, weights=weights, device="cpu")
    settings = {"precision": options.precision, "calibrate": options.calibrate}
    worst = export_segmentor(predictor, options.output, size=options.size, **settings)
    difference = f"{worst:.2g} of the largest, or of 1"
    echo(f"wrote {options.output}; scores differ from the model by at most {difference}")
    return 0


export = Command("eva segmentation export", _parse_export, _export)


def _change(cfg: "Config", args: argparse.Namespace) -> None:
    if args.out is not None:
        evaluator = cfg.test_evaluator
        if evaluator.get("type") not in ("IoUMetric", "IoUAndConfusion", "IoUAndLabelMaps"):
            raise ValueError(f"--out goes with IoUMetric, not with test_evaluator {evaluator}")
        command_line.require_empty(args.out)
        images = image_folder(cfg.test_dataloader.dataset)
        evaluator.update(type="IoUAndLabelMaps", maps=str(args.out), images=str(images))
    if args.show_dir is not None:
        cfg.default_hooks.visualization.update(draw=True)
        cfg.visualizer.save_dir = str(args.show_dir)
    change_views(cfg, multi_scale=args.tta, slice=args.slice, overlap=args.overlap)


evaluate = command_line.make_command(
    "test.py", _evaluation_parser, own_data=custom_data, change=_change
)


def change_views(
    cfg: "Config", *, multi_scale: bool, slice: int | str | None, overlap: float
) -> None:
    """Let a config test at several scales and flips, or slide over large images as they are."""
    if (multi_scale or "module" in cfg.model) and slice is not None:
        raise ValueError(f"--slice {slice} does not go with views that resize every image (--tta)")
    if multi_scale and not cfg.get("tta_pipeline"):
        raise ValueError(f"{cfg.filename} has no tta_pipeline, which --tta needs")
    if multi_scale and "module" not in cfg.model:  # else it does so already
        cfg.test_dataloader.dataset.pipeline = cfg.tta_pipeline
        cfg.model = {**cfg.tta_model, "module": cfg.model}
    if slice is None:
        return
    patch = cfg.model.backbone.get("patch_size", 1)
    slicing = read_slicing(slice, overlap, training=image_side(cfg), patch=patch)
    side, above = slicing.size, max(slicing.above, slicing.size)
    window = dict(above=above, crop_size=[side] * 2, stride=[max(1, int(side * (1 - overlap)))] * 2)
    cfg.model.test_cfg.update(mode="slide", slice=window)
    for step in dicts(cfg.test_dataloader.dataset.pipeline):
        if step.get("type") == "Resize":
            step["above"] = above
