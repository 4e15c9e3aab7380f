"""Commands that use dense models on images and videos, read before any framework is imported."""

import argparse
import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from eva_backbone.checkpoints.registry import is_weights, resolve_source
from eva_data.detection.tiles import add_slicing
from eva_data.files import expand_home
from eva_data.inputs import JobPlan
from eva_report.demos import run_demo
from eva_runs.commands import Command, lazy_import, program_name
from eva_runs.options import (
    SOURCES,
    add_download_option,
    add_precision,
    add_results_folder,
    command_parser,
)
from eva_runs.recipes import SUFFIXES as RECIPES, WEIGHTS as SUFFIXES, find_recipe

P = TypeVar("P")


def demo_parser(
    description: str, epilog: str, *, task: str, device: str = "the GPU if there is one"
) -> argparse.ArgumentParser:
    """Make the parser of a demo of a task; the `epilog` says what it writes, with examples."""
    names = dict(prog=program_name("demo.py"), epilog=epilog)
    parser = command_parser(
        description, usage="%(prog)s [CONFIG] WEIGHTS INPUT ... [flags]", **names
    )
    parser.set_defaults(task=task, config=None)
    add_download_option(parser)
    add = parser.add_argument
    add(
        "words",
        nargs="+",
        metavar="[CONFIG] WEIGHTS INPUT",
        help=f"the folder of a run; or a config, or the name of a recipe (`eva recipes {task}`), "
        "and weights: a path, or the name of an official file. Then images, videos, folders of "
        'them, patterns in quotes ("photos/*.jpg"), or the number of a camera, which Ctrl-C ends',
    )
    add("--weights", help=f"{SOURCES}; the other words are then [CONFIG] INPUT")
    add_results_folder(parser)
    add("--device", help=f'"cuda", "cuda:1" or "cpu" (default: {device})')
    add_precision(parser, default="fp32", usual="fp32, as published")
    add_slicing(parser)
    add("--overwrite", action="store_true", help="replace earlier results")
    return parser


def make_command(
    make_parser: Callable[[], argparse.ArgumentParser],
    *,
    plan: Callable[[argparse.Namespace, list[Path]], JobPlan],
    load: Callable[[argparse.Namespace], P],
    work: Callable[[argparse.Namespace, P, JobPlan], list[str]],
    result: Callable[[argparse.Namespace], Path | None],
    config_of_run: Callable[[str], Path],
) -> Command[argparse.Namespace]:
    """Make the command of a demo.

    `load` builds the predictor of `args.config` and `args.weights`, `work` returns an error for
    each job that could not be done, and `result` names a file besides those of the jobs.
    `config_of_run` finds the config that lies with weights.
    """

    def prepare(args: argparse.Namespace) -> JobPlan:
        args.config, args.weights, inputs = named_model(
            args.words, task=args.task, config=args.config, weights=args.weights
        )
        args.config = args.config or config_of_run(args.weights)
        planned = plan(args, inputs)
        if planned.jobs:
            resolve_source(args.weights)
        return planned

    def run(args: argparse.Namespace) -> int:
        file = result(args)
        results = [file] if file else []
        return run_demo(args, prepare=lambda: prepare(args), load=load, work=work, results=results)

    return Command("demo.py", lambda words: make_parser().parse_intermixed_args(words), run)


def load(args: argparse.Namespace, **options: Any) -> Any:
    """Build the predictor of a command line; `options` are further ones of `from_config`."""
    return lazy_import(f"eva_{args.task}.inference.predictor:Predictor.from_config")(
        args.config,
        weights=args.weights,
        device=args.device,
        precision=args.precision,
        slice=args.slice,
        overlap=args.overlap,
        **options,
    )


def named_model(
    words: Sequence[str], *, task: str, config: str | None = None, weights: str | None = None
) -> tuple[Path | None, str, list[Path]]:
    """Find config, weights (folder of a run, file or official name) and inputs in words.

    What options name is not among the words; a config that nothing names is None.
    """
    rest, file = list(words), find_recipe(task, config) if config else None
    first = expand_home(rest[0])
    if file is None and weights is None and not first.is_dir() and first.suffix not in SUFFIXES:
        file = find_recipe(task, rest.pop(0))
    elif file is None and weights is not None and (first.suffix in RECIPES or not first.exists()):
        with contextlib.suppress(ValueError):  # else it is an input
            file = find_recipe(task, rest[0])
            rest.pop(0)
    weights = weights or (rest.pop(0) if rest else None)
    if weights is None or not rest:
        missing = "images" if weights and is_weights(weights) else "weights and images"
        raise ValueError(f"name {missing} behind {words[-1]}: files, folders, patterns")
    return file, weights, [Path(word) for word in rest]
