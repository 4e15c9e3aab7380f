"""The work of `convert_checkpoint.py`: read, rename, resample, cast, write."""

import argparse
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from eva_backbone.checkpoints.convert import FORMATS, resampled
from eva_backbone.checkpoints.from_weights import describe
from eva_backbone.checkpoints.loading import read_weights
from eva_data.files import make_folder, replacing_folder, write_tensors, writing
from eva_engine.commands.convert import OFFICIAL, TIMM, OtherPrograms, find_source

_DTYPES = {"fp16": torch.float16, "fp32": torch.float32}
_SAFETENSORS = ".safetensors"


def convert(args: argparse.Namespace, others: OtherPrograms = TIMM) -> str:
    """Convert a checkpoint.

    Args:
        args: Options of `eva_engine.commands.convert.parse`.
        others: Forms of other programs.

    Raises:
        ValueError: If the weights cannot take that form; nothing is written.
        FileNotFoundError: If there is no such source.
    """
    source = find_source(args.source, ema=args.ema, others=others)
    stored = read_weights(source)
    weights: Mapping[str, Tensor] = others.official_names(stored)
    if others.find(source.parent) == source:
        describe(weights, name=f"{source.parent.name}/{source.name}")  # refuses other models
    renamed = len(weights.keys() - stored.keys())
    lines = [f"gave official names to {renamed} tensors of another program"] if renamed else []
    folder_form = others.folders.get(args.to)
    if folder_form is not None:
        form = resampled if folder_form.joint_bias else FORMATS[OFFICIAL]
    else:
        form = {**FORMATS, **others.files}[args.to]
    weights, changes = form(weights, patch_size=args.patch_size)
    if args.dtype:
        weights = cast(weights, _DTYPES[args.dtype])
    lines += changes
    if folder_form is not None:
        with replacing_folder(args.output) as folder:
            lines += folder_form.write(weights, folder, source)
    else:
        make_folder(args.output.parent)
        write(weights, args.output)
    if args.to.startswith("detectron2") and args.output.suffix == _SAFETENSORS:
        lines.append(f"detectron2's own checkpointer reads .pth, not {_SAFETENSORS}")
    files = args.output.iterdir() if args.output.is_dir() else [args.output]
    size = sum(file.stat().st_size for file in files) / 1e6
    head = f"{source.name} -> {args.output}: {len(weights)} tensors, {size:.1f} MB"
    return "\n  ".join([head, *(lines or ["nothing to change"])])


def cast(weights: Mapping[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    """Cast all floating-point tensors.

    Args:
        weights: Name -> tensor.
        dtype: Their number format afterwards.

    Raises:
        ValueError: If a finite value becomes infinite.
    """
    result = {}
    for name, value in weights.items():
        result[name] = value.to(dtype) if value.is_floating_point() else value
        if result[name].isinf().sum() > value.isinf().sum():
            raise ValueError(f"{name} has values beyond {dtype}'s range; choose --dtype fp32")
    return result


def write(weights: Mapping[str, Tensor], file: Path) -> None:
    """Write a checkpoint, completely or not at all.

    Args:
        weights: Name -> tensor.
        file: File with the suffix of its format; its folder exists.
    """
    if file.suffix == _SAFETENSORS:
        write_tensors(weights, file)
        return
    with writing(file) as stream:
        torch.save({"model": dict(weights)}, stream)
