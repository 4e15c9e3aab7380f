"""Command line of the demos on mmengine, read before any framework is imported."""

import argparse
import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from eva_backbone.checkpoints.registry import resolve_source
from eva_data.detection.tiles import add_slicing
from eva_data.files import expand_home
from eva_data.inputs import JobPlan
from eva_openmmlab.command_line import make_parser
from eva_openmmlab.run_folder import require_config_of_run
from eva_report.demos import run_demo
from eva_runs.commands import Command, lazy_import
from eva_runs.options import SOURCES, add_precision, add_results_folder
from eva_runs.recipes import SUFFIXES as RECIPES
from eva_runs.recipes import WEIGHTS as SUFFIXES
from eva_runs.recipes import find_recipe

P = TypeVar("P")


def demo_parser(description: str, epilog: str, *, task: str) -> argparse.ArgumentParser:
    """Make the parser of a demo of a task; the `epilog` says what it writes, with examples."""
    usage = "[CONFIG] WEIGHTS INPUT ... [flags]"
    parser = make_parser("demo.py", usage, task, description, epilog)
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
    add("--device", help='"cuda", "cuda:1" or "cpu" (default: the GPU if there is one)')
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
) -> Command[argparse.Namespace]:
    """Make the command of a demo.

    `load` builds the predictor of `args.config` and `args.weights`, `work` returns an error for
    each job that could not be done, and `result` names a file besides those of the jobs.
    """

    def prepare(args: argparse.Namespace) -> JobPlan:
        args.config, args.weights, inputs = named_model(
            args.words, task=args.task, weights_option=args.weights
        )
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
    words: Sequence[str], *, task: str, weights_option: str | None = None
) -> tuple[Path, str, list[Path]]:
    """Find config, weights (folder of a run, file or official name) and inputs in words.

    With weights `weights_option` by `--weights` the words are `[CONFIG] INPUT ...`.
    """
    rest, config = list(words), None
    first = expand_home(rest[0])
    if weights_option is None and not first.is_dir() and first.suffix not in SUFFIXES:
        config = find_recipe(task, rest.pop(0))
    elif weights_option is not None and (first.suffix in RECIPES or not first.exists()):
        with contextlib.suppress(ValueError):  # else it is an input
            config = find_recipe(task, rest[0])
            rest.pop(0)
    weights = weights_option or (rest.pop(0) if rest else None)
    if weights is None or not rest:
        raise ValueError(f"name weights and images behind {words[0]}: files, folders, patterns")
    return config or require_config_of_run(weights), weights, [Path(word) for word in rest]
