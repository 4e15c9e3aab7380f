r"""Convert a checkpoint to the form that another project loads, or back.

    python tools/convert_checkpoint.py eva_coco_seg.pth --to detectron2-vitdet --output stock.pth
    python tools/convert_checkpoint.py stock.pth --to official --output ours.pth
    python tools/convert_checkpoint.py eva_psz14.pt --to detectron2-vitdet --patch-size 16 \
        --output backbone.pth
    python tools/convert_checkpoint.py output/eva_g_pretrain --to official --dtype fp16 \
        --patch-size 16 --output eva_psz14to16.pt
    python tools/convert_checkpoint.py output/eva_g_pretrain --to timm --output eva_g_timm
    python tools/convert_checkpoint.py eva_clip_psz14.pt --to open-clip --output eva_clip_g
    python tools/convert_checkpoint.py eva_clip_g --to official --output eva_clip.pt

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
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

from eva_data.files import require_free, require_replaceable
from eva_engine.commands import timm_names
from eva_runs.command_line.parsing import Parser
from eva_runs.commands import program, program_name, say
from eva_runs.options import add_download_option, integer

DTYPES = ("fp16", "fp32")
SUFFIXES = (".pth", ".pt", ".safetensors")
OFFICIAL = "official"
BACKBONE_FORMS = ("detectron2-vitdet", OFFICIAL)  # those of `eva_backbone.checkpoints.convert`


def deferred(module: str, name: str) -> Callable[..., Any]:
    """Name a function that is imported when it is called, so that `--help` comes at once.

    Args:
        module: Module that has it.
        name: Name of the function.

    Returns:
        A function that imports and calls it.
    """

    def call(*args: Any, **kwargs: Any) -> Any:
        return getattr(importlib.import_module(module), name)(*args, **kwargs)

    return call


@dataclass(frozen=True, kw_only=True)
class FolderForm:
    """A form of weights that is a folder.

    Attributes:
        files: Names of its files.
        write: Takes the weights in the official form, an empty folder and the file of the weights;
            returns lines of the report.
        joint_bias: Whether `write` takes EVA-L's one bias of queries, keys and values as it is.
    """

    files: tuple[str, ...]
    write: Callable[[Mapping[str, "Tensor"], Path, Path], list[str]]
    joint_bias: bool = False


@dataclass(frozen=True, kw_only=True)
class OtherPrograms:
    """Forms of weights that this package does not know: a program adds those of a project.

    Attributes:
        folders: Name for `--to` -> form that is a folder.
        files: Name for `--to` -> form that is a file: takes the weights and `patch_size`; returns
            new ones and lines of the report, as those of `eva_backbone.checkpoints.convert`.
        find: Finds the weights in a folder of such a form; None for other folders.
        official_names: Gives the official names to weights of such a form; others stay.
    """

    folders: Mapping[str, FolderForm] = field(default_factory=dict)
    files: Mapping[str, Callable[..., Any]] = field(default_factory=dict)
    find: Callable[[Path], Path | None] = lambda folder: None
    official_names: Callable[[Mapping[str, "Tensor"]], Mapping[str, "Tensor"]] = dict


TIMM = OtherPrograms(
    folders={
        "timm": FolderForm(
            files=timm_names.FILES,
            write=deferred("eva_engine.commands.timm_folder", "write_folder"),
            joint_bias=True,
        )
    },
    find=timm_names.timm_weights,
    official_names=deferred("eva_engine.commands.timm_form", "official_names"),
)


def joined(*programs: OtherPrograms) -> OtherPrograms:
    """Make one of the forms of several programs.

    Args:
        *programs: The forms of each.

    Returns:
        All of them; the first program that knows a folder finds its weights.
    """

    def find(folder: Path) -> Path | None:
        found = (one.find(folder) for one in programs)
        return next((path for path in found if path is not None), None)

    def official_names(weights: Mapping[str, "Tensor"]) -> Mapping[str, "Tensor"]:
        for one in programs:
            weights = one.official_names(weights)
        return weights

    return OtherPrograms(
        folders={name: form for one in programs for name, form in one.folders.items()},
        files={name: form for one in programs for name, form in one.files.items()},
        find=find,
        official_names=official_names,
    )


def find_source(source: str, *, ema: bool, others: OtherPrograms = TIMM) -> Path:
    """Find the weights of a file, name, run or folder of another program.

    Args:
        source: File, name of an official one, or folder, also as `local-dir:FOLDER`.
        ema: Take the moving average of a run.
        others: Forms of other programs.

    Returns:
        The file of the weights.

    Raises:
        ValueError: If `ema` is asked of what is not a run.
        FileNotFoundError: If there is no such file or name, or a run lacks what is asked for.
    """
    # Here, so that the program's --help needs no torch.
    from eva_backbone.checkpoints.registry import resolve_source
    from eva_backbone.checkpoints.run_folders import weights_of_run

    source = source.removeprefix("local-dir:")
    folder = Path(source)
    found = others.find(folder) if folder.is_dir() else None
    if not folder.is_dir() or found is not None:
        if ema:
            raise ValueError(f"--ema is for the folder of a run, which {source} is not")
        return found or resolve_source(source)
    return weights_of_run(folder, ema=ema or None)


def parse(arguments: Sequence[str] | None, others: OtherPrograms = TIMM) -> argparse.Namespace:
    """Parse the command line."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    forms = (*BACKBONE_FORMS, *others.files, *others.folders)
    add("source", help="file, name of an official one, or folder of a run, of timm or of open_clip")
    add("--ema", action="store_true", help="take the moving average of a run")
    add("--to", required=True, choices=forms, help="form of the output")
    add("--output", required=True, type=Path, help=".pth, .pt or .safetensors; or a folder")
    add("--dtype", choices=DTYPES, help="by default as in the source")
    add("--patch-size", type=integer(1), metavar="P", help="resample patches and positions to it")
    add("--overwrite", action="store_true", help="replace an earlier output")
    add_download_option(parser)
    args = parser.parse_args(arguments)
    try:
        if args.to in others.folders:
            names = others.folders[args.to].files
            require_replaceable(args.output, names, overwrite=args.overwrite)
        elif args.output.suffix not in SUFFIXES:
            raise ValueError(f"{args.output}: must end in .pth, .pt or .safetensors")
        else:
            require_free([args.output], overwrite=args.overwrite)
    except ValueError as error:
        parser.error(f"--output: {error}")
    return args


def converter(*programs: OtherPrograms) -> Callable[..., int]:
    """Make the `main` of the program.

    Args:
        *programs: Forms of other programs, beside those of `eva_backbone` and timm.

    Returns:
        The `main`, see `eva_runs.commands.program`.
    """
    others = joined(*programs, TIMM)

    def work(args: argparse.Namespace) -> int:
        # Here, so that --help and mistakes answer at once.
        from eva_engine.commands.conversion import convert

        say(convert(args, others))
        return 0

    return program(
        lambda arguments: parse(arguments, others),
        work,
        refused=1,
        name=program_name("convert_checkpoint.py"),
    )


main = converter()
