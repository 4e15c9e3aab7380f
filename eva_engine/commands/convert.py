r"""Convert a checkpoint to the form that another project loads, or back.

    python tools/convert_checkpoint.py eva_coco_seg.pth --to detectron2-vitdet --output stock.pth
    python tools/convert_checkpoint.py stock.pth --to official --output ours.pth
    python tools/convert_checkpoint.py eva_psz14.pt --to detectron2-vitdet --patch-size 16 \
        --output backbone.pth
    python tools/convert_checkpoint.py output/eva_g_pretrain --to official --dtype fp16 \
        --patch-size 16 --output eva_psz14to16.pt

The source is a file, the name of an official one, or the output folder of a run (pre-training,
classification, video, CLIP), of which the newest complete checkpoint is taken. `detectron2-vitdet`
is what an unmodified ViTDet of detectron2 loads; `official` is EVA-g's form, which this toolkit
and the official code load (this toolkit loads both). Outputs of the model stay the same. The
output (`.pth`, `.pt`: weights under "model"; `.safetensors`) appears when it is complete.
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from eva_backbone.checkpoints.convert import FORMATS
from eva_backbone.checkpoints.loading import read_weights
from eva_backbone.checkpoints.registry import resolve_source
from eva_data.commands import program, say
from eva_data.files import make_folder, require_free, writing
from eva_data.options import integer
from eva_data.tensors import write_tensors

DTYPES = {"fp16": torch.float16, "fp32": torch.float32}
_TORCH_SUFFIXES, _SAFETENSORS = (".pth", ".pt"), ".safetensors"


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


def find_source(source: str, *, ema: bool) -> Path:
    """Find the weights of a file, name or run.

    Args:
        source: File, name of an official one, or folder of a run.
        ema: Take the moving average of a run.

    Returns:
        The file of the weights.

    Raises:
        ValueError: If a run lacks what is asked for, or `ema` is asked of a file.
        FileNotFoundError: If there is no such file or name.
    """
    if not Path(source).is_dir():
        if ema:
            raise ValueError(f"--ema is for the folder of a run, which {source} is not")
        return resolve_source(source)
    # Here, so that a file is converted where what training runs need is not installed.
    from eva_engine.checkpoints.files import EMA_WEIGHTS, WEIGHTS
    from eva_engine.checkpoints.run_checkpoint import RunCheckpoints

    complete = RunCheckpoints(Path(source), keep=1).complete()
    if not complete:
        raise ValueError(f"{source} holds no complete checkpoint of a run")
    weights = complete[-1] / (EMA_WEIGHTS if ema else WEIGHTS)
    if not weights.exists():
        raise ValueError(f"{complete[-1]} has no moving average: the run had ema_decay=0")
    return weights


def convert(args: argparse.Namespace) -> str:
    """Convert a checkpoint as the options say; return the report."""
    source = find_source(args.source, ema=args.ema)
    weights, lines = FORMATS[args.to](read_weights(source), patch_size=args.patch_size)
    if args.dtype:
        weights = cast(weights, DTYPES[args.dtype])
    make_folder(args.output.parent)
    write(weights, args.output)
    if args.to.startswith("detectron2") and args.output.suffix == _SAFETENSORS:
        lines.append(f"detectron2's own checkpointer reads .pth, not {_SAFETENSORS}")
    size = args.output.stat().st_size / 1e6
    head = f"{source.name} -> {args.output}: {len(weights)} tensors, {size:.1f} MB"
    return "\n  ".join([head, *(lines or ["nothing to change"])])


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", help="file, name of an official one, or folder of a run")
    parser.add_argument("--ema", action="store_true", help="take the moving average of a run")
    parser.add_argument("--to", required=True, choices=FORMATS, help="form of the output")
    parser.add_argument("--output", required=True, type=Path, help=".pth, .pt or .safetensors")
    parser.add_argument("--dtype", choices=DTYPES, help="by default as in the source")
    parser.add_argument(
        "--patch-size", type=integer(1), metavar="P", help="resample patches and positions to it"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier output")
    args = parser.parse_args(arguments)
    if args.output.suffix not in (*_TORCH_SUFFIXES, _SAFETENSORS):
        parser.error(f"--output {args.output}: must end in .pth, .pt or {_SAFETENSORS}")
    try:
        require_free([args.output], overwrite=args.overwrite)
    except ValueError as error:
        parser.error(f"--output: {error}")
    return args


def _run(args: argparse.Namespace) -> int:
    say(convert(args))
    return 0


main = program(parse, _run, refused=1, name="convert_checkpoint.py")
