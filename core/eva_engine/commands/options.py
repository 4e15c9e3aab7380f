"""Commands that run a model: shared options, device, number format, beginning and end."""

import argparse
import os
import sys
from argparse import HelpFormatter, RawDescriptionHelpFormatter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from eva_engine.commands.ending import ending
from eva_engine.config import LARGEST_IMAGE, MOST_WORKERS
from eva_report.demos import log_to_terminal, refuse
from eva_runs.command_line.parsing import Parser
from eva_runs.command_line.slips import SlipError
from eva_runs.command_line.weights import MISSING, WEIGHTS, one_source
from eva_runs.commands import program_name
from eva_runs.options import add_download_option, integer, number

if TYPE_CHECKING:
    import torch

Precision = Literal["auto", "fp32", "fp16", "bf16"]
PRECISIONS = ("auto", "fp32", "fp16", "bf16")


def command(
    program: str,
    parse: Callable[[Sequence[str] | None], argparse.Namespace],
    work: Callable[[argparse.Namespace, "torch.device"], None],
    *,
    check: Callable[[argparse.Namespace], None] | None = None,
) -> Callable[..., None]:
    """Make the `main` of a command that runs a model on one or several processes.

    Args:
        program: Name in the messages.
        parse: Parser of the arguments; None for those of the command line. The options are those of
            `add_arguments`, and others.
        work: Work of the command, given options and device.
        check: Function that refuses what can be seen of the options before torch is imported, such
            as weights or data that are not there.

    Returns:
        Its function of the arguments, which ends as `eva_engine.commands.ending.ending` says.
    """

    def main(arguments: Sequence[str] | None = None) -> None:
        options = parse(arguments)
        if check is not None:
            try:
                check(options)
            except (ValueError, OSError) as error:
                sys.exit(f"{program_name(program)}: {error}")
        with ending(program_name(program)):
            log_to_terminal()
            work(options, choose_device(options.device, join=True))

    return main


def new_parser(program: str, description: str, *, epilog: str = "") -> Parser:
    """Make a parser without abbreviations, whose help keeps the lines of its epilog.

    Args:
        program: Name in the help.
        description: Purpose of the command.
        epilog: Examples.

    Returns:
        The parser.
    """
    return Parser(
        prog=program_name(program),
        description=description,
        epilog=epilog,
        formatter_class=RawDescriptionHelpFormatter if epilog else HelpFormatter,
    )


def add_weights(
    parser: argparse.ArgumentParser, *, kinds: str = "", alone: bool = False, first: bool = False
) -> None:
    """Add `--weights`, `--no-download`, and the options of the pictures or frames that they see.

    Args:
        parser: Parser that receives them.
        kinds: Weights that the command takes besides, or of what they must be, for the help.
        alone: Whether weights may be a word of its own, too; `parse_with_weights` then parses.
        first: Whether weights may be the first of the inputs, too; `take_weights` then takes them.
    """
    add = parser.add_argument
    text = f"{WEIGHTS}; {kinds}" if kinds else WEIGHTS
    text += " (default: the first INPUT)" if first else ""
    if alone:
        add("source", nargs="?", metavar="WEIGHTS", help="the same as --weights")
    add("--weights", required=not (alone or first), help=text)
    add_download_option(parser)
    side = integer(1, LARGEST_IMAGE)
    add("--image-size", type=side, help="side in pixels (default: that of the weights)")
    add("--mean", type=float, nargs=3, help="of the pixels (default: of the weights' training)")
    add("--std", type=float, nargs=3, help="of the pixels (default: of the weights' training)")


def parse_with_weights(parser: Parser, arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parse a command line whose weights are a word of its own or behind `--weights`.

    Args:
        parser: Parser with the options of `add_weights(..., alone=True)`.
        arguments: Arguments; None for those of the process.

    Returns:
        The options, with `weights`.

    Raises:
        SystemExit: With one sentence, if there are none, or two.
    """
    options: argparse.Namespace = parser.parse_intermixed_args(arguments)
    try:
        options.weights = one_source(options.source, options.weights)
    except SlipError as error:
        parser.error(str(error))
    if options.weights is None:
        parser.error(MISSING)
    del options.source
    return options


def take_weights(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Take the first of a demo's inputs for its weights, if `--weights` names none.

    Args:
        parser: Parser with the options of `add_weights(..., first=True)`.
        options: Its options, with `inputs`.

    Raises:
        SystemExit: With one sentence, if the first input is not weights or the only one.
    """
    if options.weights is not None:
        return
    if len(options.inputs) < 2 or not _are_weights(options.inputs[0]):
        refuse(parser, "give --weights, or the folder of a training as the first INPUT")
    options.weights = str(options.inputs.pop(0))


def _are_weights(word: Path) -> bool:
    """Test whether a word is a run's folder, or the name or path of a file of weights."""
    from eva_backbone.checkpoints.registry import CHECKPOINT_SUFFIXES, list_official_files
    from eva_backbone.checkpoints.runs.weights import weights_of_run

    if word.is_dir():
        try:
            return weights_of_run(word).is_file()
        except OSError:
            return False
    stems = {one.stem for one in list_official_files()}
    return word.suffix in CHECKPOINT_SUFFIXES or str(word) in stems


def add_arguments(parser: argparse.ArgumentParser, *, batch_size: int = 64) -> None:
    """Add the options of how a model is run.

    Args:
        parser: Parser that receives them.
        batch_size: Default of `--batch-size`.
    """
    add = parser.add_argument
    add("--batch-size", type=integer(1), default=batch_size, help="default: %(default)s")
    workers = min(4, os.cpu_count() or 1)
    add(
        "--workers",
        type=integer(0, MOST_WORKERS),
        default=workers,
        help="processes that load data (default: %(default)s)",
    )
    add_device(parser)
    add("--local_rank", help=argparse.SUPPRESS)


def add_device(parser: argparse.ArgumentParser) -> None:
    """Add `--device` and `--precision`.

    Args:
        parser: Parser that receives them.
    """
    add = parser.add_argument
    add("--device", choices=("auto", "cpu", "cuda"), default="auto")
    add("--precision", choices=PRECISIONS, default="auto", help="default: fp16 on a GPU, else fp32")


def choose_device(device: str = "auto", *, join: bool = False) -> "torch.device":
    """Choose a device.

    Args:
        device: `cuda`, `cpu`, or `auto` for a GPU where there is one.
        join: Join the other processes, where `torchrun` started several.

    Returns:
        The device of this process.

    Raises:
        ValueError: If there is no GPU, but one is asked for.
    """
    import torch

    from eva_engine import distributed

    if join and int(os.environ.get("WORLD_SIZE", 1)) > 1:
        return distributed.start(device)
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(f"device {device}: this machine has no GPU; use cpu")
    return torch.device(device)


def choose_dtype(precision: Precision, device: "torch.device") -> "torch.dtype":
    """Choose a number format: by default fp16 on a GPU, as officially, and fp32 elsewhere."""
    from eva_engine.distributed import DTYPES

    if precision == "auto":
        return DTYPES["fp16" if device.type == "cuda" else "fp32"]
    return DTYPES[precision]


NEIGHBOURS = [10, 20]
MAX_BAD_SAMPLES = 100  # as in a training
L2 = (1e-4, 1e-3, 1e-2, 1e-1)  # penalties of the linear classifier


def add_frozen(parser: argparse.ArgumentParser, *, data: str, unit: str = "images") -> None:
    """Add the options of what is learned from, scored on, and by which methods.

    Args:
        parser: Parser that receives them.
        data: Forms of data that the command takes, for the help.
        unit: Name of the samples.
    """
    add = parser.add_argument
    add("--train", required=True, help=data)
    add("--val", required=True, help="the same to score on")
    one = integer(1)
    add(f"--train-{unit}", dest="limit", type=one, metavar="N",
        help=f"{unit} to learn from, chosen at random (default: all)")  # fmt: skip
    add(
        "--neighbours",
        type=one,
        nargs="*",
        default=NEIGHBOURS,
        help="default: 10 20, or what there is; none: skip",
    )
    add("--l2", type=number(0), nargs="*", default=list(L2), help="penalties to try; none: skip")
    add_max_bad_samples(parser, unit=unit)
    add("--output", type=Path, help="folder of results.json")


def add_max_bad_samples(parser: argparse.ArgumentParser, *, unit: str = "images") -> None:
    """Add `--max-bad-samples`, `MAX_BAD_SAMPLES` by default.

    Args:
        parser: Parser that receives it.
        unit: Name of the samples.
    """
    parser.add_argument(
        "--max-bad-samples",
        type=integer(0),
        default=MAX_BAD_SAMPLES,
        metavar="N",
        help=f"{unit} that may be left out because they cannot be read (default: %(default)s)",
    )


def check_frozen(options: argparse.Namespace, known: int) -> int:
    """Check the methods against the data, before anything is computed.

    Args:
        options: Options of `add_frozen`.
        known: Number of samples in `--train`.

    Returns:
        Number of samples to learn from.

    Raises:
        ValueError: If there are fewer of them than neighbours.
    """
    known = min(known, options.limit or known)
    if options.neighbours is NEIGHBOURS:
        options.neighbours = [k for k in NEIGHBOURS if k <= known] or [known]
    if options.neighbours and max(options.neighbours) > known:
        raise ValueError(
            f"--neighbours {max(options.neighbours)}, but there are {known} samples to learn from"
        )
    if options.train == options.val:
        sys.stderr.write(f"{options.train} is scored on itself: the scores say little\n")
    return known
