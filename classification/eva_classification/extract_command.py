"""Command line of `tools/extract_features.py`."""

import argparse
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from eva_backbone.checkpoints.registry import resolve_source
from eva_backbone.checkpoints.verification import sha256_of
from eva_classification.extraction import SETTINGS, Pictures, Plan, extract
from eva_classification.features import FeatureExtractor
from eva_classification.model_options import add_extractor, build_extractor
from eva_data.files import write_text
from eva_engine import distributed
from eva_engine.checkpoints.output_folder import reserved
from eva_engine.commands.options import add_arguments, command, new_parser

PROGRAM = "tools/extract_features.py"
_LARGEST_FILE = 4096  # pictures
STORED = {"fp16": torch.float16, "fp32": torch.float32}
_EXAMPLES = """
One vector for each picture below a folder:
    python tools/extract_features.py --weights eva_psz14.pt --images photos --output output/photos

Maps of patch features of a detector at 640 px, on 8 GPUs:
    torchrun --nproc-per-node 8 tools/extract_features.py --weights eva_coco_det.pth \\
        --image-size 640 --kind patches --images photos --output output/maps

The same command continues an interrupted run. In Python:
    from eva_classification.extraction import read_features
    names, features = read_features("output/photos")
"""


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = new_parser(
        PROGRAM,
        "Write features of pictures to files, from any weights of this toolkit.",
        epilog=_EXAMPLES,
    )
    add_extractor(parser)
    add = parser.add_argument
    add(
        "--images",
        required=True,
        nargs="+",
        help="folders, searched through, and pictures; or one torchvision:NAME:ROOT:SPLIT or "
        "hf:NAME:SPLIT",
    )
    add("--output", required=True, type=Path, help="folder of the files")
    add("--kind", choices=("pooled", "patches"), default="pooled", help="default: pooled")
    add("--format", choices=("safetensors", "npz"), default="safetensors")
    add("--store", choices=STORED, default="fp16", help="number format of the files")
    add("--file-mb", type=float, default=256, help="size of a file at most (default: 256)")
    add("--skip-unreadable", action="store_true", help="leave pictures out that cannot be read")
    add_arguments(parser, batch_size=32)
    options = parser.parse_args(arguments)
    if not 0 < options.file_mb < math.inf:
        parser.error("--file-mb must be above 0 and finite")
    if options.kind == "patches" and options.pooling:
        parser.error("--pooling has no use with --kind patches")
    return options


def _extract(options: argparse.Namespace, device: torch.device) -> None:
    with reserved(options.output):
        _extract_to(options, build_extractor(options, device))


main = command(PROGRAM, _parse, _extract)


def _extract_to(options: argparse.Namespace, extractor: FeatureExtractor) -> None:
    pictures = Pictures(options.images, extractor.transform)
    side = extractor.image_size // extractor.vit.patch_size
    shape = [extractor.vit.embed_dim, *([side, side] if options.kind == "patches" else [])]
    stored = STORED[options.store]
    bytes_each = stored.itemsize * torch.Size(shape).numel()
    # distinguishes weights of equal names
    digest = sha256_of(resolve_source(options.weights)) if distributed.rank() == 0 else ""
    settings = {
        "weights": Path(options.weights).name,
        "sha256": distributed.gather(digest)[0],
        "mean": extractor.mean,
        "std": extractor.std,
        "upright": True,  # by EXIF; earlier versions left pictures as they are stored
        "vit": [options.num_heads, options.window_size, options.global_blocks],
        "kind": options.kind,
        "pooling": extractor.pooling if options.kind == "pooled" else None,
        "image_size": extractor.image_size,
        "precision": str(next(extractor.parameters()).dtype).removeprefix("torch."),
        "store": options.store,
        "format": options.format,
        "shape": shape,
        "pictures": len(pictures),
        # so few that several processes have their share, and that little is lost with a file
        "shard_size": max(1, min(_LARGEST_FILE, int(options.file_mb * 2**20 / bytes_each))),
        "names": pictures.digest,
    }
    if distributed.rank() == 0:
        _agree(options.output, settings)
    distributed.barrier()
    plan = Plan(
        folder=options.output,
        pictures=len(pictures),
        shard_size=settings["shard_size"],
        suffix=options.format,
    )
    left_out = extract(
        extractor,
        pictures,
        plan,
        kind=options.kind,
        shape=shape,
        stored=stored,
        batch_size=options.batch_size,
        workers=options.workers,
        skip_unreadable=options.skip_unreadable,
    )
    left_out = [why for part in distributed.gather(left_out) for why in part]
    if distributed.rank() == 0:
        for why in left_out:
            sys.stderr.write(f"left out: {why}\n")
        sys.stdout.write(
            f"{options.output} holds {options.kind} features {tuple(shape)} of "
            f"{plan.count_written()} pictures in {plan.shards} files\n"
        )


def _agree(folder: Path, settings: dict[str, Any]) -> None:
    """Note the settings, or check that they are the same as before, to continue."""
    file = folder / SETTINGS
    if file.is_file():
        try:
            before = dict(json.loads(file.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise ValueError(
                f"{file} cannot be read ({error}): remove it, or choose another --output"
            ) from error
        settings = json.loads(json.dumps(settings))  # tuples are lists there
        changed = [key for key in settings if before.get(key) != settings[key]]
        if changed:
            raise ValueError(
                f"{folder} holds features with other settings ("
                + ", ".join(f"{key} {before.get(key, '?')} -> {settings[key]}" for key in changed)
                + "; ? was not noted by an earlier version" * (not set(changed) <= before.keys())
                + "); choose another --output"
            )
        return
    write_text(file, json.dumps(settings, indent=2) + "\n")
