"""`eva batch`: begin or continue the work in a folder, show it, and merge its results."""

import argparse
import contextlib
import json
import shlex
from functools import partial
from pathlib import Path
from typing import Any

from eva_backbone.checkpoints.verification import sha256_of
from eva_command.batch import INDEX_FILES, LOOKS, RUNNING
from eva_command.label import find_model, read_extractor
from eva_command.recipes import digest_of
from eva_contrastive.model.open_clip_files import weights_file
from eva_data.files import is_there
from eva_data.records import NAMES, identify, plan_records
from eva_data.saving import remove_unfinished, require_free, require_replaceable
from eva_report.demos import require_format
from eva_report.terminal import counted
from eva_runs.batch import index_features, run_shards
from eva_runs.commands import Result, echo, lazy_import
from eva_runs.errors import print_error
from eva_runs.interruption import EXIT_RUN_AGAIN, StopSignal
from eva_runs.output_folder import clean_if_refused, lock_folder, number_folder
from eva_runs.shard_workers import Actors, Processes, Worker
from eva_runs.shards import MANIFEST, PARTS, merge_parts, read_manifest, summarise, write_manifest


def run(options: argparse.Namespace) -> int:
    """Do what the options of `eva batch` ask for."""
    return (_look if options.verb in LOOKS else _start)(options)


def _start(options: argparse.Namespace) -> int:
    """Begin or continue the work of a command line."""
    task = options.verb
    if options.output is None:
        options.output = number_folder(Path("output") / task, _is_finished)
    if task in ("detect", "segment"):
        options.framework, config = find_model(options.weights, options.recipe, options.framework)
        if (options.framework == "segmentation") != (task == "segment"):
            raise ValueError(f"{options.weights} is for {options.framework}: it cannot {task}")
        options.config = str(config.absolute())
    elif task == "features" and options.kind != "embedding":
        for name, value in read_extractor(options.weights).items():
            if getattr(options, name) is None:
                setattr(options, name, value)
    file = weights_file(options.weights)
    if is_there(options.weights):  # on all machines
        options.weights = str(Path(options.weights).absolute())
    plan_settings = {name: value for name, value in vars(options).items() if name not in RUNNING}
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
    from eva_command.batch_tasks import build  # loads torch

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
    return Result(result, int(failed > 0 or not result["results"]))


def _is_finished(folder: Path) -> bool:
    if not (folder / MANIFEST).exists():
        return False
    summary = summarise(folder)
    return len(summary.done) == summary.shards and not summary.failed


def _show(folder: Path) -> dict[str, Any]:
    """Say what an output holds; return it for `--json`."""
    summary = summarise(folder, rows=True)
    done, errors = len(summary.done), sum(summary.errors.values())
    echo(f"{folder} has {summary.rows:,} results in {done:,} of {summary.shards:,} shards")
    if errors:
        listed = next(iter(sorted((folder / PARTS).glob("*.errors.jsonl"))))
        with listed.open() as stream:
            first = json.loads(next(stream))
        unreadable = counted(errors, "unreadable record")
        echo(f"{unreadable}, such as {first['name']}: {first['reason']}")
        echo(f"all of them: {folder / PARTS}/*.errors.jsonl")
    for number, reason in [*summary.failed.items()][:10]:
        echo(f"shard {number} failed: {reason}")
    quoted_folder = shlex.quote(str(folder))
    if summary.failed:
        echo(f"next     eva batch retry {quoted_folder}")
    elif done == summary.shards and summary.rows:
        echo(f"next     eva batch merge {quoted_folder} --output {quoted_folder}.parquet")
    result = {"results": summary.rows, "shards": summary.shards, "done": done, "unreadable": errors}
    return result | {"failed": summary.failed}


def _look(options: argparse.Namespace) -> int:
    """Show, repeat or merge the results in a folder."""
    manifest = read_manifest(options.folder)
    if options.verb == "status":
        return Result(_show(options.folder))
    if options.verb == "retry":
        options.output, summary = options.folder, summarise(options.folder, rows=True)
        options.batch_size = manifest["options"]["batch_size"]
        again = {*range(summary.shards)} - summary.done | {*summary.errors} | {*summary.failed}
        with lock_folder(options.output):
            return _compute(options, again, manifest["options"]["task"])
    if not summarise(options.folder, rows=True).rows:
        raise ValueError(f"{options.folder} has no result to merge: eva batch status says why")
    if options.output is None:
        ending = f"_{options.form}" if options.form else ".parquet"
        options.output = options.folder.with_name(f"{options.folder.resolve().name}{ending}")
    if options.form:
        require_format(options)
    else:
        require_free([options.output], overwrite=options.overwrite)
        remove_unfinished(options.output.parent, options.output.stem)  # of a merge that was killed
    if options.form or options.output.suffix == ".json":
        merge_objects = lazy_import("eva_command.batch_tasks:merge_objects")  # loads torch
        count, unit = merge_objects(options.folder, options.output, options.form), "images"
    elif options.output.suffix == ".parquet":
        count, unit = merge_parts(options.folder, options.output), "rows"
    else:
        raise ValueError(f"{options.output} must end in .parquet, or of detect in .json")
    echo(f"{options.output} has {count:,} {unit}")
    return Result({"output": options.output, unit: count})


def index(options: argparse.Namespace) -> int:
    """Build the index that the options of `eva index` ask for."""
    require_replaceable(options.output, INDEX_FILES, overwrite=options.overwrite)
    count = summarise(options.features, rows=True).rows
    approximate = count > options.exact_up_to
    facts = index_features(options.features, options.output, approximate=approximate)
    kind = "an index of faiss" if (options.output / INDEX_FILES[-1]).exists() else "exact search"
    echo(f"{options.output} has {facts['count']:,} features of {facts['width']} values, {kind}")
    return Result(facts)
