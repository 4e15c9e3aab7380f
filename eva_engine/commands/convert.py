r"""Convert a checkpoint to the form that another project loads, or back.

    python tools/convert_checkpoint.py eva_coco_seg.pth --to detectron2-vitdet --output stock.pth
    python tools/convert_checkpoint.py stock.pth --to official --output ours.pth
    python tools/convert_checkpoint.py eva_psz14.pt --to detectron2-vitdet --patch-size 16 \
        --output backbone.pth
    python tools/convert_checkpoint.py output/eva_g_pretrain --to official --dtype fp16 \
        --patch-size 16 --output eva_psz14to16.pt
    python tools/convert_checkpoint.py eva_clip_psz14.pt --to open-clip --output eva_clip_g
    python tools/convert_checkpoint.py eva_clip_g --to official --output eva_clip.pt

The source is a file, the name of an official one, the output folder of a run (pre-training,
classification, video, CLIP), of which the newest complete checkpoint is taken, or a folder that
open_clip reads. `detectron2-vitdet` is what an unmodified ViTDet of detectron2 loads; `official` is
EVA-g's form, which this toolkit and the official code load (this toolkit loads both). Outputs of
the model stay the same. The output (`.pth`, `.pt`: weights under "model"; `.safetensors`) appears
when it is complete. `open-clip` is a folder for open_clip, its tokenizer and CLIP_benchmark, which
read it as the model `local-dir:FOLDER`; open_clip must be installed to write it.
"""

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from eva_backbone.checkpoints.convert import FORMATS
from eva_backbone.checkpoints.loading import read_weights
from eva_backbone.checkpoints.registry import resolve_source
from eva_data.commands import program, say
from eva_data.files import make_folder, require_free, writing
from eva_data.options import integer
from eva_data.outputs.folders import replacing_folder, require_replaceable
from eva_data.tensors import write_tensors

DTYPES = {"fp16": torch.float16, "fp32": torch.float32}
_TORCH_SUFFIXES, _SAFETENSORS = (".pth", ".pt"), ".safetensors"
OFFICIAL = "official"


@dataclass(frozen=True, kw_only=True)
class FolderForm:
    """A form of weights that is a folder.

    Attributes:
        files: Names of its files.
        write: Takes the weights in the official form, an empty folder and the file of the weights;
            returns lines of the report.
    """

    files: tuple[str, ...]
    write: Callable[[Mapping[str, Tensor], Path, Path], list[str]]


@dataclass(frozen=True, kw_only=True)
class OtherPrograms:
    """Forms of weights that this package does not know: a program adds those of a project.

    Attributes:
        folders: Name for `--to` -> form.
        find: Finds the weights in a folder of such a form; None for other folders.
        official_names: Gives the official names to weights of such a form; others stay.
    """

    folders: Mapping[str, FolderForm] = field(default_factory=dict)
    find: Callable[[Path], Path | None] = lambda folder: None
    official_names: Callable[[Mapping[str, Tensor]], dict[str, Tensor]] = dict


_NONE = OtherPrograms()


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


def find_source(source: str, *, ema: bool, others: OtherPrograms = _NONE) -> Path:
    """Find the weights of a file, name, run or folder of another program.

    Args:
        source: File, name of an official one, or folder.
        ema: Take the moving average of a run.
        others: Forms of other programs.

    Returns:
        The file of the weights.

    Raises:
        ValueError: If a run lacks what is asked for, or `ema` is asked of what is not a run.
        FileNotFoundError: If there is no such file or name.
    """
    folder = Path(source)
    found = others.find(folder) if folder.is_dir() else None
    if not folder.is_dir() or found is not None:
        if ema:
            raise ValueError(f"--ema is for the folder of a run, which {source} is not")
        return found or resolve_source(source)
    # Here, so that a file is converted where what training runs need is not installed.
    from eva_engine.checkpoints.files import EMA_WEIGHTS, WEIGHTS
    from eva_engine.checkpoints.run_checkpoint import RunCheckpoints

    complete = RunCheckpoints(folder, keep=1).complete()
    if not complete:
        raise ValueError(f"{source} holds no complete checkpoint of a run")
    weights = complete[-1] / (EMA_WEIGHTS if ema else WEIGHTS)
    if not weights.exists():
        raise ValueError(f"{complete[-1]} has no moving average: the run had ema_decay=0")
    return weights


def convert(args: argparse.Namespace, others: OtherPrograms = _NONE) -> str:
    """Convert a checkpoint as the options say; return the report."""
    source = find_source(args.source, ema=args.ema, others=others)
    stored = read_weights(source)
    weights: Mapping[str, Tensor] = others.official_names(stored)
    renamed = len(weights.keys() - stored.keys())
    lines = [f"gave official names to {renamed} tensors of another program"] if renamed else []
    form = FORMATS[OFFICIAL if args.to in others.folders else args.to]
    weights, changes = form(weights, patch_size=args.patch_size)
    if args.dtype:
        weights = cast(weights, DTYPES[args.dtype])
    lines += changes
    if args.to in others.folders:
        with replacing_folder(args.output) as folder:
            lines += others.folders[args.to].write(weights, folder, source)
    else:
        make_folder(args.output.parent)
        write(weights, args.output)
    if args.to.startswith("detectron2") and args.output.suffix == _SAFETENSORS:
        lines.append(f"detectron2's own checkpointer reads .pth, not {_SAFETENSORS}")
    files = args.output.iterdir() if args.output.is_dir() else [args.output]
    size = sum(file.stat().st_size for file in files) / 1e6
    head = f"{source.name} -> {args.output}: {len(weights)} tensors, {size:.1f} MB"
    return "\n  ".join([head, *(lines or ["nothing to change"])])


def parse(
    arguments: Sequence[str] | None, folders: Mapping[str, FolderForm] = _NONE.folders
) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("source", help="file, name of an official one, or folder of a run or of open_clip")
    add("--ema", action="store_true", help="take the moving average of a run")
    add("--to", required=True, choices=(*FORMATS, *folders), help="form of the output")
    add("--output", required=True, type=Path, help=".pth, .pt or .safetensors; or a folder")
    add("--dtype", choices=DTYPES, help="by default as in the source")
    add("--patch-size", type=integer(1), metavar="P", help="resample patches and positions to it")
    add("--overwrite", action="store_true", help="replace an earlier output")
    args = parser.parse_args(arguments)
    try:
        if args.to in folders:
            names = folders[args.to].files
            require_replaceable(args.output, names, overwrite=args.overwrite)
        elif args.output.suffix not in (*_TORCH_SUFFIXES, _SAFETENSORS):
            raise ValueError(f"{args.output}: must end in .pth, .pt or {_SAFETENSORS}")
        else:
            require_free([args.output], overwrite=args.overwrite)
    except ValueError as error:
        parser.error(f"--output: {error}")
    return args


def converter(others: OtherPrograms = _NONE) -> Callable[..., int]:
    """Make the `main` of the program.

    Args:
        others: Forms of other programs, beside those of `eva_backbone`.

    Returns:
        The `main`, see `eva_data.commands.program`.
    """

    def work(args: argparse.Namespace) -> int:
        say(convert(args, others))
        return 0

    return program(
        lambda arguments: parse(arguments, others.folders),
        work,
        refused=1,
        name="convert_checkpoint.py",
    )


main = converter()
