"""Commands that run a model: shared options, beginning and end."""

import argparse
import contextlib
import inspect
import os
import sys
from argparse import HelpFormatter, RawDescriptionHelpFormatter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eva_backbone.checkpoints.registry import is_weights
from eva_backbone.checkpoints.run_folders import (
    describe_missing,
    has_trained_weights,
    is_engine_run,
)
from eva_data.files import expand_home
from eva_engine.config import LARGEST_SEED, MOST_WORKERS
from eva_runs.commands import Command, Result, program_name
from eva_runs.options import (
    add_download_option,
    add_precision,
    command_parser,
    integer,
    number,
)
from eva_runs.output_folder import evaluation_folder, reserve_folder

if TYPE_CHECKING:  # the parsers alone need no torch
    import torch

WEIGHTS = "official name, file, or folder of a training"
NEIGHBOURS = [10, 20]
L2 = (1e-4, 1e-3, 1e-2, 1e-1)  # penalties of the linear classifier
PROBE_RATES = (3e-4, 1e-3, 3e-3)  # learning rates that the attentive probe tries
PROBE_EPOCHS = 20  # at least, by default


def command(
    program: str,
    parse: Callable[[Sequence[str]], argparse.Namespace],
    work: Callable[[argparse.Namespace, "torch.device"], None],
) -> Command[argparse.Namespace]:
    """Make a command that runs a model on one or several processes.

    `parse` gives the options of `add_arguments`, and others; other runs are kept out of the folder
    `--output`.
    """
    return Command(program, parse, partial(_run, work))


def _run(
    work: Callable[[argparse.Namespace, "torch.device"], None], options: argparse.Namespace
) -> int:
    from eva_engine.distributed import process_group
    from eva_report.demos import log_to_terminal  # loads PyAV

    log_to_terminal()
    output: Path | None = getattr(options, "output", None)
    is_saved = getattr(options, "save", False)
    if output and is_saved and (is_engine_run(output) or has_trained_weights(output)):
        raise ValueError(f"{output} has a run, which --save would replace: choose another --output")
    with contextlib.ExitStack() as stack:
        device = stack.enter_context(process_group(options.device, alone=False))
        if output:
            stack.enter_context(
                reserve_folder(output, "evaluation", traces=(), begun="results.json")
            )
        work(options, device)
    return Result(output / "results.json") if output else 0


def new_parser(program: str, description: str, *, epilog: str = "") -> argparse.ArgumentParser:
    """Make a parser without abbreviations, whose help keeps the lines of its epilog."""
    formatter = RawDescriptionHelpFormatter if epilog else HelpFormatter
    return command_parser(
        description, prog=program_name(program), epilog=epilog, formatter_class=formatter
    )


def add_weights(
    parser: argparse.ArgumentParser, *, kinds: str = "", alone: bool = False, first: bool = False
) -> None:
    """Add `--weights`, `--no-download`, and the options of the images or frames that they see.

    With `alone`, weights may be a word of its own, too, and `parse_with_weights` parses; with
    `first`, the first of the inputs, which `take_weights` takes. `kinds` is for the help.
    """
    add = parser.add_argument
    help_text = f"{WEIGHTS}; {kinds}" if kinds else WEIGHTS
    help_text += " (default: the first INPUT)" if first else ""
    if alone:
        add("source", nargs="?", metavar="WEIGHTS", help="the same as --weights")
    add("--weights", required=not (alone or first), help=help_text)
    add_download_option(parser)
    add("--image-size", type=integer(1), help="side in pixels (default: that of the weights)")
    add("--mean", type=float, nargs=3, help="of the pixels (default: of the weights' training)")
    add("--std", type=float, nargs=3, help="of the pixels (default: of the weights' training)")


def parse_with_weights(
    parser: argparse.ArgumentParser, arguments: Sequence[str]
) -> argparse.Namespace:
    """Parse a command line with the options of `add_weights(..., alone=True)`."""
    options: argparse.Namespace = parser.parse_intermixed_args(arguments)
    sources = [source for source in (options.source, options.weights) if source is not None]
    if len(sources) != 1:
        both = f", not {' and '.join(sources)}" if sources else ""
        parser.error(f"name the weights once, as a word of its own or with --weights{both}")
    options.weights = sources[0]
    del options.source
    return options


def take_options(function: Callable[..., Any], options: argparse.Namespace) -> dict[str, Any]:
    """Pick the options of a command that a function takes, by the names of its parameters."""
    names = inspect.signature(function).parameters.keys() & vars(options).keys()
    return {name: getattr(options, name) for name in names}


def take_weights(options: argparse.Namespace) -> None:
    """Take the first of a demo's `inputs` for its weights, if `--weights` names none."""
    if options.weights is not None:
        return
    first, *others = options.inputs
    if not others and is_weights(first):
        raise ValueError(f"name files, folders or patterns behind {first}")
    if not others or not is_weights(first):
        wrong = (others and describe_missing(first)) or f"{first} has no weights of a run"
        message = "give --weights, or the folder of a training as the first INPUT"
        raise ValueError(f"{wrong}: {message}")
    options.weights = str(options.inputs.pop(0))


def parse_evaluation(
    parser: argparse.ArgumentParser, arguments: Sequence[str]
) -> argparse.Namespace:
    """Parse an evaluation, whose results lie beside a run or below output/ where none says."""
    where = "RUN/evaluation, or output/NAME_evaluation of other weights; numbered"
    add_output(parser, help=f"folder of the results (default: {where})")
    options = parse_with_weights(parser, arguments)
    if options.output is None:
        weights = expand_home(options.weights)
        options.output = evaluation_folder(weights if is_engine_run(weights) else None, weights)
    return options


def add_output(parser: argparse.ArgumentParser, *, help: str) -> None:
    """Add `--output`, a folder."""
    parser.add_argument("--output", type=expand_home, help=help)


def add_arguments(
    parser: argparse.ArgumentParser, *, batch_size: int = 64, published: bool = True
) -> None:
    """Add the options of how a model is run, by default in the `published` precision."""
    add = parser.add_argument
    add("--batch-size", type=integer(1), default=batch_size, help="default: %(default)s")
    add(
        "--workers",
        type=integer(0, MOST_WORKERS),
        default=min(4, os.cpu_count() or 1),
        help="processes that load data (default: %(default)s)",
    )
    add_device(parser, published=published)
    add("--local_rank", help=argparse.SUPPRESS)


def add_device(parser: argparse.ArgumentParser, *, published: bool = False) -> None:
    """Add `--device` and `--precision`; that of scores is by default the `published` one."""
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    help_text = "fp16 on a GPU, else fp32, as published" if published else "auto"
    add_precision(parser, default=None if published else "auto", usual=help_text)


def add_max_bad_samples(parser: argparse.ArgumentParser, *, unit: str = "images") -> None:
    """Add `--max-bad-samples`; `unit` names the samples."""
    help_text = (
        f"{unit} that may be left out because they cannot be read; the scores are then those of "
        "the others, and say so (default: 0, the first is an error)"
    )
    parser.add_argument(
        "--max-bad-samples", type=integer(0), default=0, metavar="N", help=help_text
    )


def add_frozen(parser: argparse.ArgumentParser, *, data: str, unit: str = "images") -> None:
    """Add the options of a check with frozen features; `data` names its forms in the help."""
    add, positive = parser.add_argument, integer(1)
    add("--train", required=True, help=data)
    add("--val", help="the same to score on")
    add(
        f"--train-{unit}",
        dest="limit",
        type=positive,
        metavar="N",
        help=f"{unit} to learn from, chosen at random (default: all)",
    )
    add(
        "--neighbours",
        type=positive,
        nargs="*",
        default=NEIGHBOURS,
        help="default: 10 20, or what there is; none: skip",
    )
    add("--l2", type=number(0), nargs="*", default=list(L2), help="penalties to try; none: skip")
    add_max_bad_samples(parser, unit=unit)
    add_output(parser, help="folder of results.json")


def add_probe(parser: argparse.ArgumentParser) -> None:
    """Add the options of the attentive probe, which the commands switch on by their own."""
    add = parser.add_argument
    help_text = "memory for its tokens in each process (default: %(default)s)"
    add("--probe-gb", type=number(0), default=8.0, help=help_text)
    help_text = "learning rates that the attentive probe tries (default: %(default)s)"
    add("--probe-lr", type=number(0), nargs="+", default=list(PROBE_RATES), help=help_text)
    add("--probe-epochs", type=integer(1), help=f"default: {PROBE_EPOCHS}, more for few samples")
    help_text = "of the attentive probe (default: 0)"
    add("--seed", type=integer(0, LARGEST_SEED), default=0, help=help_text)


def check_frozen(options: argparse.Namespace, num_samples: int) -> int:
    """Check the methods of `add_frozen` against the samples in `--train`; return their number."""
    num_samples = min(num_samples, options.limit or num_samples)
    if options.neighbours is NEIGHBOURS:
        options.neighbours = [k for k in NEIGHBOURS if k <= num_samples] or [num_samples]
    if max(options.neighbours, default=0) > num_samples:
        raise ValueError(
            f"--neighbours {' '.join(map(str, options.neighbours))}, but there are {num_samples} "
            f"samples to learn from"
        )
    if options.train == options.val:
        sys.stderr.write(f"{options.train} is scored on itself: the scores say little\n")
    return num_samples
