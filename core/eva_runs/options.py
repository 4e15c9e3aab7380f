"""Options that several commands share, and types of numbers within limits for `argparse`.

parser.add_argument("--workers", type=integer(0, 512))  # a value outside ends the program
"""

import argparse
import contextlib
import difflib
import importlib.util
import math
import os
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

from eva_data.files import ARRAY_SUFFIXES, IMAGE_SUFFIXES, find_files
from eva_data.saving import require_free
from eva_runs.output_folder import claim_number, name_of_weights

N = TypeVar("N", int, float)
Precision = Literal["auto", "fp32", "bf16", "fp16", "int8"]
NO_DOWNLOAD = "EVA_NO_DOWNLOAD"  # read by eva_backbone.checkpoints, also in processes started later
SOURCES = (  # for the help of options
    "folder of a run, path of a file, name of an official one (`eva weights list`), or "
    "hf://ORG/REPOSITORY/FILE"
)
EXPORT_SUFFIXES = {
    "onnx": ".onnx",
    "openvino": ".xml",  # and .bin beside it
    "torch-export": ".pt2",
}  # of files that `eva_runs.exported` writes
_AUTO = ("--batch", "auto")
_CALIBRATION = 64  # images at most
DATA = ".data"  # end of the file beside an ONNX file of more than 1.5 GiB, which holds its weights


def integer(least: int | None = None, most: int | None = None) -> Callable[[str], int]:
    """Make the `type` of an option that is an integer within limits."""
    return lambda value: _parse(int, value, least, most)


def number(least: float | None = None, most: float | None = None) -> Callable[[str], float]:
    """Make the `type` of an option that is a finite number within limits."""
    return lambda value: _parse(float, value, least, most)


def _parse(kind: type[N], string: str, least: float | None, most: float | None) -> N:
    low, high = (-math.inf if least is None else least), (math.inf if most is None else most)
    with contextlib.suppress(ValueError, OverflowError):
        value = kind(string)
        if math.isfinite(value) and low <= value <= high:
            return value
    kind_name = "an integer" if kind is int else "a finite number"
    limits = "" if least is None else f" from {least}"
    limits += "" if most is None else f" to {most}"
    raise argparse.ArgumentTypeError(f"must be {kind_name}{limits}, got {string}")


probability = number(0, 1)


class _Parser(argparse.ArgumentParser):
    """A parser that takes no abbreviated flags, and suggests what a misspelt word may mean."""

    def __init__(self, *names: Any, **settings: Any) -> None:
        super().__init__(*names, **{"allow_abbrev": False, **settings})

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        choices = [*map(str, action.choices or ())]
        close = difflib.get_close_matches(str(value), choices, n=3)
        if close and str(value) not in choices:
            message = f"invalid choice: {value!r}; close to it: {', '.join(close)}"
            raise argparse.ArgumentError(action, message)
        super()._check_value(action, value)


def command_parser(description: str | None, **texts: Any) -> argparse.ArgumentParser:
    """Make a parser whose texts keep their lines, and that takes no abbreviated flags."""
    texts.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
    return _Parser(description=description, **texts)


class _SetNoDownload(argparse.Action):
    def __call__(self, *_: Any) -> None:
        os.environ[NO_DOWNLOAD] = "1"


def add_download_option(parser: argparse.ArgumentParser) -> None:
    """Add `--no-download`: weights that are not on this machine are an error.

    It sets `EVA_NO_DOWNLOAD=1` for this process and those that it starts, and leaves no value among
    the parsed options.
    """
    help_text = "weights that are not on this machine are an error: fetch nothing from the hub"
    parser.add_argument(
        "--no-download",
        action=_SetNoDownload,
        nargs=0,
        dest=argparse.SUPPRESS,
        default=argparse.SUPPRESS,
        help=help_text,
    )


def add_size_and_length(parser: argparse.ArgumentParser) -> None:
    """Add `--backbone`, `--bands`, `--image-size`, `--epochs`, whatever a framework calls them."""
    add = parser.add_argument
    help_text = "a plain ViT in place of the recipe's, with its weights, pixel values, layer decay "
    help_text += "and drop path: dinov3_l16, eva02_b14, ... (`eva weights list`, docs/backbones.md)"
    add("--backbone", metavar="NAME", help=help_text)
    help_text = "bands of own images, 1 to 32, in place of RGB: TIFF, .npy, .npz (docs/bands.md)"
    add("--bands", type=integer(1, 32), metavar="N", help=help_text)
    help_text = "values that become 0 and 1, LOW:HIGH, or percentiles of the training images; of "
    help_text += "all bands, or of each with commas (default p1:p99)"
    add("--band-range", metavar="RANGE", help=help_text)
    add("--show-bands", metavar="R,G,B", help="three bands, from 1, that drawings show: 3,2,1")
    help_text = "side of the images in training and evaluation, in place of the recipe's"
    add("--image-size", type=integer(1), metavar="PIXELS", help=help_text)
    help_text = (
        "passes over the training data, in place of the recipe's length; the schedule follows"
    )
    add("--epochs", type=integer(1), metavar="N", help=help_text)
    help_text = "samples of a forward pass of a process, while a step accumulates as many as the "
    help_text += "recipe's; auto: the largest number that fits into the free memory"
    add("--batch", type=integer(1), metavar="N|auto", help=help_text)


def resolve_auto_batch(
    words: Sequence[str], module: str, device_of: Callable[..., str] = lambda _: "auto"
) -> tuple[Sequence[str], str]:
    """Replace `--batch auto` of a command line, if it is there; see `eva_runs.memory`."""
    arguments = [part for word in words for part in (_AUTO if word == "=".join(_AUTO) else [word])]
    if _AUTO not in pairwise(arguments):
        return words, ""
    if not module:
        raise ValueError("--batch auto is not for this training: give a number")
    from eva_runs.memory import replace_auto_batch

    return replace_auto_batch(arguments, module, device_of)


def add_precision(
    parser: argparse.ArgumentParser, *, default: Precision | None, usual: str
) -> None:
    """Add `--precision` of inference; the text says the default."""
    help_text = "number format; auto asks the hardware; int8, of the ViT's weights, is for memory"
    usual = f"{help_text} (default: {usual})"
    parser.add_argument("--precision", choices=get_args(Precision), default=default, help=usual)


def add_results_folder(parser: argparse.ArgumentParser) -> None:
    """Add `--output`, a folder of results that no other command has by default."""

    def folder(word: str) -> Path:
        return Path(word) if word else claim_number(Path("output/demo"))

    help_text = "folder of the results (default: output/demo, or output/demo-2 where there is one)"
    parser.add_argument("--output", type=folder, default="", metavar="DIR", help=help_text)


def add_lora(parser: argparse.ArgumentParser) -> None:
    """Add `--lora`, whatever a framework calls the setting."""
    help_text = (
        "train adapters of this rank in the ViT, whose weights are frozen (lora.* has the rest)"
    )
    parser.add_argument("--lora", type=integer(1), metavar="RANK", help=help_text)


def add_check_options(
    parser: argparse.ArgumentParser,
    title: str,
    *,
    skip: str,
    write: tuple[str, str] | None = None,
    report: str = "the findings, with more ids",
) -> None:
    """Add the options that checks of data share: outputs, and how files are read.

    `title` is decoded, `skip` the help of `--skip-decode`, `report` the content of `--report`, and
    `write` placeholder and content of `--write`; None leaves that out.
    """
    add = parser.add_argument
    if write is not None:
        add("--write", type=Path, metavar=write[0], help=f"also write {write[1]}")
    add("--report", type=Path, metavar="JSON", help=f"also write {report}")
    add("--overwrite", action="store_true", help="replace earlier outputs")
    add("--skip-decode", action="store_true", help=skip)
    add(
        "--workers",
        type=integer(1),
        default=os.cpu_count() or 1,
        metavar="N",
        help=f"processes that decode {title} (default %(default)s)",
    )


def add_export(
    parser: argparse.ArgumentParser, endings: Mapping[str, str] = EXPORT_SUFFIXES, *, size: str = ""
) -> None:
    """Add the options of an export, by formats and suffixes; with `--size`, if it has a default."""
    add = parser.add_argument
    help_text = "default: by the suffix of --output"
    add("--format", "--to", choices=endings, dest="form", help=help_text)
    help_text = f"file ending in {' or '.join(endings.values())} (default: output/NAME with the "
    add("--output", type=Path, help=f"{help_text}suffix of the format, .onnx without any)")
    add("--overwrite", action="store_true", help="replace an earlier file")
    if size:
        help_text = f"side, or height and width, fixed in the file (default: {size})"
        add("--size", nargs="+", type=integer(1), metavar="PIXELS", help=help_text)


def add_calibration(parser: argparse.ArgumentParser) -> None:
    """Add `--calibrate`, without which there is no int8 of ONNX and OpenVINO."""
    help_text = "with --precision int8 of onnx and openvino: folder of training images, whose "
    help_text += "values give the ranges of the activations (default: those of the run)"
    parser.add_argument("--calibrate", type=Path, metavar="IMAGES", help=help_text)


def calibration_images(folder: Path | None) -> list[Path]:
    """Choose images of a folder, spread over it, on which an int8 model is calibrated.

    Raises:
        ValueError: If it holds none.
    """
    if folder is None:
        return []
    kinds = (IMAGE_SUFFIXES, ARRAY_SUFFIXES) if folder.is_dir() else ()
    names = next(filter(None, ([*find_files(folder, kind)] for kind in kinds)), [])
    if not names:
        raise ValueError(f"--calibrate {folder} holds no image")
    return [folder / name for name in names[:: -(-len(names) // _CALIBRATION)]]


def require_export(
    options: argparse.Namespace,
    endings: Mapping[str, str] = EXPORT_SUFFIXES,
    *,
    training: Callable[[], Path | None] = lambda: None,
) -> None:
    """Choose format and size (H, W) of an export, and refuse a file that cannot be written.

    `training` finds the training images of the run, on which it calibrates unless told otherwise.
    """
    forms = {suffix: form for form, suffix in endings.items()}
    if options.output is None:
        suffix, file = (
            endings[options.form or "onnx"],
            Path("output") / name_of_weights(options.weights),
        )
        options.output = claim_number(file, suffix=suffix)
    options.form = options.form or forms.get(options.output.suffix)
    if options.form is None:
        raise ValueError(f"--output {options.output} does not end in {' or '.join(forms)}")
    read_by = EXPORT_SUFFIXES.get(options.form)
    if read_by not in (None, options.output.suffix):
        raise ValueError(f"--output {options.output}: files of {options.form} end in {read_by}")
    sides = getattr(options, "size", None)
    if sides:
        options.size = (sides[0], sides[-1])
    precision: Precision = getattr(options, "precision", "fp32")
    calibrated = hasattr(options, "calibrate")
    require_form(options.form, precision, calibrated=calibrated)
    quantizes = calibrated and precision == "int8" and options.form in _HELD
    if quantizes and options.calibrate is None:
        options.calibrate = training()
        if options.calibrate is None:
            raise ValueError(
                "--precision int8 calibrates, and the training images of these weights are not "
                "here: add --calibrate FOLDER"
            )
    if calibrated and options.calibrate is not None and not quantizes:
        raise ValueError(
            f"--calibrate {options.calibrate}: a folder of training images goes with --precision "
            f"int8 of onnx and openvino, not with {precision} of {options.form}"
        )
    calibration_images(getattr(options, "calibrate", None))
    require_free([options.output], overwrite=options.overwrite)


_HELD: Mapping[str, tuple[Precision, ...]] = {
    "onnx": ("fp32", "fp16"),
    "openvino": ("fp32", "fp16"),
    "torchscript": ("fp32",),
}


def require_form(form: str, precision: Precision = "fp32", *, calibrated: bool = False) -> None:
    """Refuse a format of a file whose packages are not installed, or that has no such precision.

    Raises:
        ModuleNotFoundError: If a package is missing.
        ValueError: If it cannot hold the precision; int8 of ONNX is that of complete models, which
            are `calibrated`, and int8 by torchao is for torch-export alone.
    """
    held = _HELD.get(form, ())
    if calibrated and form in ("onnx", "openvino"):
        held = (*held, "int8")
    if held and precision not in held:
        raise ValueError(f"--precision {precision}: --format {form} has {', '.join(held)}")
    packages = ("onnx", "onnxscript", "onnxruntime")
    for name in {"onnx": packages, "openvino": (*packages, "openvino")}.get(form, ()):
        if importlib.util.find_spec(name) is None:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
