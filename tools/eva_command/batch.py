r"""Features, objects, classes or scores of any number of images, by many processes or machines.

    eva batch features photos --weights eva_psz14.pt --output output/features
    eva batch detect "shards/{0000..0999}.tar" --weights output/mine --output output/objects
    eva batch caption-score "pairs/*.parquet" --weights eva_clip_psz14.pt --output output/scores
    eva batch classify "s3://bucket/{0000..9999}.tar" --weights RUN --output DIR --address auto
    eva batch status|retry DIR;  eva batch merge DIR --output FILE, or --to cvat --output DIR2

INPUT is folders, images, or lists of paths, one a line; or tar shards or Parquet
files, also by an address of fsspec. A manifest cuts it into shards once; DIR/parts receives a
Parquet file for each, completely or not at all, and lists of the records that could not be read.
The same command continues.
"""

import argparse
import contextlib
import shlex
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from eva_classification.commands import add_extractor
from eva_command.label import TASKS, find_model
from eva_command.recipes import digest_of
from eva_data.files import (
    expand_home,
    is_there,
    read_lines,
    remove_unfinished,
    require_free,
)
from eva_data.writing import FORMATS
from eva_engine.commands.options import add_device, add_output, add_weights
from eva_report.demos import require_format
from eva_runs.commands import Command, Result, echo
from eva_runs.errors import print_error
from eva_runs.interruption import EXIT_RUN_AGAIN, StopSignal
from eva_runs.options import add_download_option, command_parser, integer, probability
from eva_runs.output_folder import clean_if_refused, lock_folder

# what results do not depend on
_RUNNING = (
    "output",
    "workers",
    "device",
    "shards",
    "max_errors",
    "processes",
    "address",
    "actors",
    "local_rank",
    "verb",
)
_LOOKS = ("status", "retry", "merge")
_OF_VIT = ("pooling", "num_heads", "window_size", "global_blocks")


def _add_running(parser: argparse.ArgumentParser) -> None:
    """Add how a run is spread over processes and machines."""
    add, default, positive = parser.add_argument, "(default: %(default)s)", integer(1)
    add("--workers", type=positive, default=4, help=f"threads of a process that decode {default}")
    add("--shards", type=_numbers, metavar="K-L", help="these alone, from 0, such as 10-20")
    add("--max-errors", type=integer(0), default=1000, help=f"unreadable records at most {default}")
    add("--processes", type=integer(0), help="default: one for each GPU, or one; 0: this one")
    add("--address", help='Ray cluster to run on; "auto": the one of this machine')
    add(
        "--actors",
        type=lambda value: None if value == "auto" else positive(value),
        metavar="N|auto",
        help="on it (default: auto, one for each GPU, or else CPU)",
    )


def _numbers(words: str) -> range:
    first, _, last = words.partition("-")
    numbers = range(int(first), int(last or first) + 1)
    if not numbers:
        raise ValueError
    return numbers


def _parser(task: str) -> argparse.ArgumentParser:
    parser = command_parser(__doc__)
    add = parser.add_argument
    add("inputs", nargs="+", metavar="INPUT", help="see above")
    add_output(parser, required=True, help="folder of the results")
    if task in ("detect", "segment"):
        from eva_data.detection.tiles import add_slicing

        add("--weights", required=True, help="of a detector or segmentor; folder of its run")
        add("--recipe", help="the model's recipe (default: that of the run of the weights)")
        add("--task", choices=TASKS, dest="framework", help="default: that of the weights")
        add_slicing(parser)
        add_download_option(parser)
    else:
        add_weights(parser)
    if task == "features":
        add("--texts", action="store_true", help="INPUT is a file of texts, one in each line")
        kinds = ("pooled", "patches", "embedding")
        add("--kind", choices=kinds, help="default: pooled; of texts embedding, EVA-CLIP's")
        add("--store", choices=("fp16", "fp32"), default="fp16", help="number format of the files")
        add_extractor(parser)
        add("--unit-length", action="store_true", help="scale embeddings to unit length")
    if task == "detect":
        add("--score-threshold", type=probability, default=0.5, help="default: %(default)s")
    if task in ("classify", "zero-shot"):
        help_text = "names, or a text file of them" + " (default: the weights')" * (
            task == "classify"
        )
        add("--classes", nargs="+", required=task == "zero-shot", help=help_text)
        add("--top", type=integer(1), default=5, help="classes of an image (default: %(default)s)")
    if task == "zero-shot":
        add("--templates", nargs="+", default=["simple"], help="as of `eva clip evaluate`")
    add("--image-column", help="of Parquet files, with images or paths (default: found)")
    if task == "caption-score":
        add("--caption-column", help="the same for captions")
    add("--limit", type=integer(1), metavar="N", help="take the first N records alone")
    add("--shard-size", type=integer(1), help="records of a shard (default: up to 4096)")
    help_text = "records at once (default: %(default)s)"
    add("--batch-size", type=integer(1), default=32, help=help_text)
    add_device(parser)
    _add_running(parser)
    return parser


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Parse the arguments behind a task, or what to do with a folder."""
    verb, *words = arguments
    options = (_parse_look if verb in _LOOKS else _parse_task)(verb, words)
    options.verb = verb
    return options


def _parse_task(task: str, arguments: Sequence[str]) -> argparse.Namespace:
    parser = _parser(task)
    options = parser.parse_args(arguments)
    if task == "features":
        kind = options.kind = options.kind or ("embedding" if options.texts else "pooled")
        useless = [*_OF_VIT] if kind == "embedding" else ["texts", "unit_length"]
        useless += ["pooling"] * (kind == "patches")
        useless += ["image_size", "mean", "std"] * options.texts
        for name in (name for name in useless if getattr(options, name)):
            parser.error(f"--{name.replace('_', '-')} has no use with --kind {kind}")
    classes: list[str] = getattr(options, "classes", None) or []
    if len(classes) == 1 and is_there(classes[0]) and not Path(classes[0]).is_dir():
        options.classes = read_lines(options.classes[0], skip_blank=True)
    return options


def _start(options: argparse.Namespace) -> int:
    """Begin or continue the work of a command line."""
    from eva_backbone.checkpoints.verification import sha256_of
    from eva_contrastive.model.open_clip_files import weights_file
    from eva_data.records import NAMES, identify, plan_records
    from eva_runs.batch import PARTS, summarise, write_manifest

    task = options.verb
    if task in ("detect", "segment"):
        options.framework, config = find_model(options.weights, options.recipe, options.framework)
        if (options.framework == "segmentation") != (task == "segment"):
            raise ValueError(f"{options.weights} is for {options.framework}: it cannot {task}")
        options.config = str(config.absolute())
    file = weights_file(options.weights)
    if is_there(options.weights):  # on all machines
        options.weights = str(Path(options.weights).absolute())
    plan_settings = {name: value for name, value in vars(options).items() if name not in _RUNNING}
    columns = [plan_settings.get(f"{role}_column") for role in ("image", "caption")]
    plan_settings["task"] = task
    settings = plan_settings | {"weights": sha256_of(file), "input": identify(options.inputs)}
    if "config" in plan_settings:
        settings["config"] = digest_of(Path(options.config))
    plan = partial(
        plan_records,
        options.inputs,
        options.output,
        size=options.shard_size,
        limit=options.limit,
        texts=plan_settings.get("texts", False),
        captions=task == "caption-score",
        columns=columns,
    )

    # several commands with parts of the shards may run together
    lock = lock_folder(options.output, shared=bool(options.shards))
    made, parts = ["*.json", NAMES.format("*"), PARTS], options.output / PARTS
    with clean_if_refused(options.output, made, begun=lambda: any(parts.glob("*.parquet"))), lock:
        write_manifest(options.output, settings, plan_settings, plan)
        summary = summarise(options.output, rows=True)
        return _compute(options, {*range(summary.shards)} - summary.done, task)


def _compute(options: argparse.Namespace, numbers: set[int], action: str) -> int:
    """Compute shards of an output, and say what it holds."""
    from eva_command.batch_tasks import build
    from eva_runs.batch import PARTS, Actors, Processes, Worker, run_shards, summarise

    stop, failed, folder, on_ray = StopSignal(), 0, options.output.absolute(), options.address
    if options.shards and options.shards.start >= (count := summarise(folder).shards):
        raise ValueError(f"there is no shard {options.shards.start}: they are 0 to {count - 1}")
    numbers_to_run = sorted(number for number in numbers if number in (options.shards or numbers))
    if numbers_to_run:
        worker = Worker(folder, build, options.batch_size, options.workers, options.device)
        actors = Actors(worker, on_ray, options.actors) if on_ray else None
        pool = actors or Processes(worker, options.processes)
        with contextlib.closing(pool), stop.listen(to_children=True):
            failed = run_shards(folder, numbers_to_run, pool, stop, options.max_errors, action)
        if not options.shards:  # of processes that were killed
            remove_unfinished(folder / PARTS)
    result = _show(options.output)
    if stop.requested:
        print_error(f"stopped by {stop.received}: the same command continues")
        return Result(result, EXIT_RUN_AGAIN)
    return Result(result, int(failed > 0))


def _show(folder: Path) -> dict[str, Any]:
    """Say what an output holds; return it for `--json`."""
    from eva_runs.batch import PARTS, summarise

    summary = summarise(folder, rows=True)
    done, errors = len(summary.done), sum(summary.errors.values())
    echo(f"{folder} has {summary.rows:,} results in {done:,} of {summary.shards:,} shards")
    if errors:
        echo(f"{errors:,} records could not be read: {folder / PARTS}/*.errors.jsonl")
    for number, reason in [*summary.failed.items()][:10]:
        echo(f"shard {number} failed: {reason}")
    quoted_folder = shlex.quote(str(folder))
    if summary.failed:
        echo(f"next     eva batch retry {quoted_folder}")
    elif done == summary.shards:
        echo(f"next     eva batch merge {quoted_folder} --output {quoted_folder}.parquet")
    about = {"results": summary.rows, "shards": summary.shards, "done": done, "unreadable": errors}
    return about | {"failed": summary.failed}


def _parse_look(verb: str, arguments: Sequence[str]) -> argparse.Namespace:
    parser = command_parser(__doc__)
    parser.add_argument("folder", type=expand_home, metavar="DIR", help="output of eva batch")
    if verb == "merge":
        help_text = "file ending in .parquet, or of detect .json, in COCO's format"
        parser.add_argument("--output", required=True, type=expand_home, help=help_text)
        help_text = "of detect: write a dataset with the images to OUTPUT/FORMAT"
        parser.add_argument("--to", choices=FORMATS, dest="form", help=help_text)
        parser.add_argument("--overwrite", action="store_true", help="replace earlier results")
    if verb == "retry":
        parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
        _add_running(parser)
    return parser.parse_args(arguments)


def _look(options: argparse.Namespace) -> int:
    """Show, repeat or merge the results in a folder."""
    from eva_runs.batch import merge_parts, read_manifest, summarise

    manifest = read_manifest(options.folder)
    if options.verb == "status":
        return Result(_show(options.folder))
    if options.verb == "retry":
        options.output, summary = options.folder, summarise(options.folder, rows=True)
        options.batch_size = manifest["options"]["batch_size"]
        again = {*range(summary.shards)} - summary.done | {*summary.errors} | {*summary.failed}
        with lock_folder(options.output):
            return _compute(options, again, manifest["options"]["task"])
    if options.form:
        require_format(options)
    else:
        require_free([options.output], overwrite=options.overwrite)
        remove_unfinished(options.output.parent, options.output.stem)  # of a merge that was killed
    if options.form or options.output.suffix == ".json":
        from eva_command.batch_tasks import merge_objects

        count, unit = merge_objects(options.folder, options.output, options.form), "images"
    elif options.output.suffix == ".parquet":
        count, unit = merge_parts(options.folder, options.output), "rows"
    else:
        raise ValueError(f"{options.output} must end in .parquet, or of detect in .json")
    echo(f"{options.output} has {count:,} {unit}")
    return Result({"output": options.output, unit: count})


def _run(options: argparse.Namespace) -> int:
    return (_look if options.verb in _LOOKS else _start)(options)


main = Command("eva batch", _parse, _run, error_code=1)
