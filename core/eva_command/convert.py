r"""Convert a checkpoint to the form that another project loads, or back.

    eva convert eva_coco_seg.pth --to detectron2-vitdet --output stock.pth
    eva convert stock.pth --to official --output ours.pth
    eva convert eva_psz14.pt --to detectron2-vitdet --patch-size 16 \
        --output backbone.pth
    eva convert output/eva_g_pretrain --to official --dtype fp16 \
        --patch-size 16 --output eva_psz14to16.pt
    eva convert output/eva_g_pretrain --to timm --output eva_g_timm
    eva convert eva_clip_psz14.pt --to open-clip --output eva_clip_g
    eva convert eva_clip_g --to official --output eva_clip.pt

The source is a file, the name of an official one, the output folder of a run of any trainer (its
best weights if it kept them, else those of its newest checkpoint), or a folder that timm or
open_clip reads. `detectron2-vitdet` is what an unmodified ViTDet of detectron2 loads;
`official` is EVA-g's form, which this toolkit and the official code load (this toolkit loads both).
Outputs of the model stay the same. The output (`.pth`, `.pt`: weights under "model";
`.safetensors`) appears when it is complete. `timm` and `open-clip` are folders for these programs,
which read them as the model `local-dir:FOLDER`; the program must be installed to write one, for its
outputs are compared with ours.
"""

import argparse
import importlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eva_data.files import (
    make_folder,
    replacing_folder,
    require_free,
    require_replaceable,
    write_tensors,
    writing,
)
from eva_runs.commands import program, program_name, say
from eva_runs.options import add_download_option, integer

if TYPE_CHECKING:
    import torch
    from torch import Tensor

SUFFIXES = (".pth", ".pt", ".safetensors")
FOLDERS = {  # form that is a folder -> its files
    "open-clip": ("open_clip_config.json", "open_clip_model.safetensors", "README.md"),
    "timm": ("config.json", "model.safetensors", "README.md"),
}
FORMS = ("detectron2-vitdet", "official", "mmdet", *FOLDERS)
_WRITERS = {
    "open-clip": "eva_contrastive.model.open_clip_form",
    "timm": "eva_engine.commands.timm_folder",
}


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        prog=program_name("eva convert"),
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("source", help="file, name of an official one, or folder of a run, of timm or of open_clip")
    add("--ema", action="store_true", help="take the moving average of a run")
    add("--to", required=True, choices=FORMS, help="form of the output")
    add("--output", required=True, type=Path, help=".pth, .pt or .safetensors; or a folder")
    add("--dtype", choices=("fp16", "fp32"), help="by default as in the source")
    add("--patch-size", type=integer(1), metavar="P", help="resample patches and positions to it")
    add("--overwrite", action="store_true", help="replace an earlier output")
    add_download_option(parser)
    args = parser.parse_args(arguments)
    try:
        if args.to in FOLDERS:
            require_replaceable(args.output, FOLDERS[args.to], overwrite=args.overwrite)
        elif args.output.suffix not in SUFFIXES:
            raise ValueError(f"{args.output}: must end in .pth, .pt or .safetensors")
        else:
            require_free([args.output], overwrite=args.overwrite)
    except ValueError as error:
        parser.error(f"--output: {error}")
    return args


def find_source(source: str, *, ema: bool) -> Path:
    """Find the weights of a file, name, run or folder of another program.

    Args:
        source: File, name of an official one, or folder, also as `local-dir:FOLDER`.
        ema: Take the moving average of a run.

    Returns:
        The file of the weights.

    Raises:
        ValueError: If `ema` is asked of what is not a run.
        FileNotFoundError: If there is no such file or name, or a run lacks what is asked for.
    """
    from eva_backbone.checkpoints.registry import resolve_source
    from eva_backbone.checkpoints.run_folders import weights_of_run

    source = source.removeprefix("local-dir:")
    folder = Path(source)
    found = _of_other_program(folder) if folder.is_dir() else None
    if folder.is_dir() and found is None:
        return weights_of_run(folder, ema=ema or None)
    if ema:
        raise ValueError(f"--ema is for the folder of a run, which {source} is not")
    return found or resolve_source(source)


def _of_other_program(folder: Path) -> Path | None:
    from eva_contrastive.model.open_clip_files import open_clip_weights
    from eva_engine.commands.timm_folder import timm_weights

    return open_clip_weights(folder) or timm_weights(folder)


def convert(args: argparse.Namespace) -> str:
    """Convert a checkpoint: read, rename, resample, cast, write.

    Args:
        args: Options of `parse`.

    Returns:
        The report.

    Raises:
        ValueError: If the weights cannot take that form; nothing is written.
        FileNotFoundError: If there is no such source.
    """
    import torch

    from eva_backbone.checkpoints.convert import resampled
    from eva_backbone.checkpoints.from_weights import describe
    from eva_backbone.checkpoints.reading import read_weights

    source = find_source(args.source, ema=args.ema)
    stored = read_weights(source)
    weights = official_names(stored)
    if _of_other_program(source.parent) == source:
        describe(weights, name=f"{source.parent.name}/{source.name}")  # refuses other models
    renamed = len(weights.keys() - stored.keys())
    lines = [f"gave official names to {renamed} tensors of another program"] if renamed else []
    # timm takes EVA-L's one bias of queries, keys and values as it is
    form = resampled if args.to == "timm" else _form(args.to)
    weights, changes = form(weights, patch_size=args.patch_size)
    if args.dtype:
        weights = cast(weights, {"fp16": torch.float16, "fp32": torch.float32}[args.dtype])
    lines += changes
    if args.to in FOLDERS:
        with replacing_folder(args.output) as folder:
            writer = importlib.import_module(_WRITERS[args.to])
            lines += writer.write_folder(weights, folder, source)
    else:
        make_folder(args.output.parent)
        write(weights, args.output)
    if args.to.startswith("detectron2") and args.output.suffix == ".safetensors":
        lines.append("detectron2's own checkpointer reads .pth, not .safetensors")
    files = args.output.iterdir() if args.output.is_dir() else [args.output]
    size = sum(file.stat().st_size for file in files) / 1e6
    head = f"{source.name} -> {args.output}: {len(weights)} tensors, {size:.1f} MB"
    return "\n  ".join([head, *(lines or ["nothing to change"])])


def official_names(weights: Mapping[str, "Tensor"]) -> Mapping[str, "Tensor"]:
    """Give the official names to weights of open_clip, mmdetection or timm; others stay."""
    from eva_contrastive.model import open_clip_form
    from eva_engine.commands import timm_folder
    from eva_mmdetection.model import detectron2_names

    weights = detectron2_names.official_names(open_clip_form.to_official(weights))
    return timm_folder.official_names(weights)


def _form(name: str) -> Callable[..., Any]:
    from eva_backbone.checkpoints.convert import FORMATS
    from eva_mmdetection.model.detectron2_names import to_mmdet

    return {**FORMATS, "mmdet": to_mmdet}["official" if name in FOLDERS else name]


def cast(weights: Mapping[str, "Tensor"], dtype: "torch.dtype") -> dict[str, "Tensor"]:
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


def write(weights: Mapping[str, "Tensor"], file: Path) -> None:
    """Write a checkpoint, completely or not at all, in the format of the file's suffix."""
    import torch

    if file.suffix == ".safetensors":
        write_tensors(weights, file)
        return
    with writing(file) as stream:
        torch.save({"model": dict(weights)}, stream)


def _work(args: argparse.Namespace) -> int:
    say(convert(args))
    return 0


main = program(parse, _work, refused=1, name="eva convert")
