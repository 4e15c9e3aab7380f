r"""Features, objects, classes or scores of any number of images, by many processes or machines.

    eva batch features photos --weights eva_psz14.pt --output output/features
    eva batch detect "shards/{0000..0999}.tar" --weights output/mine --output output/objects
    eva batch caption-score "pairs/*.parquet" --weights eva_clip_psz14.pt --output output/scores
    eva batch classify "s3://bucket/{0000..9999}.tar" --weights RUN --output DIR --address auto
    eva batch status|retry DIR;  eva batch merge DIR --output FILE, or --to cvat --output DIR2

INPUT is folders, images, or lists of paths, one a line; tables (CSV, TSV) or JSON lists of images,
as training on captions takes them; or tar shards or Parquet files, also by an address of fsspec.
A manifest cuts it into shards once; DIR/parts receives a Parquet file for each, completely or not
at all, and lists of the records that could not be read. The same command continues.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from eva_classification.commands import add_extractor
from eva_command.label import TASKS
from eva_data.detection.tiles import add_slicing
from eva_data.files import (
    expand_home,
    is_there,
    read_lines,
)
from eva_data.writing import FORMATS
from eva_engine.commands.options import add_device, add_output, add_weights
from eva_runs.commands import Command, lazy_import
from eva_runs.options import add_download_option, command_parser, integer, probability

# what results do not depend on
RUNNING = (
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
LOOKS = ("status", "retry", "merge")
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
    help_text = f"folder of the results (default: output/{task}, or {task}-2 after a finished one)"
    add_output(parser, help=help_text)
    if task in ("detect", "segment"):
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
        help_text = "names, or a text file of them"
        help_text += " (default: the weights')" if task == "classify" else ""
        add("--classes", nargs="+", required=task == "zero-shot", help=help_text)
        add("--top", type=integer(1), default=5, help="classes of an image (default: %(default)s)")
    if task == "zero-shot":
        add("--templates", nargs="+", default=["simple"], help="as of `eva clip evaluate`")
    add("--image-column", help="of tables, with images or paths (default: found)")
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
    options = (_parse_look if verb in LOOKS else _parse_task)(verb, words)
    options.verb = verb
    return options


def _parse_task(task: str, arguments: Sequence[str]) -> argparse.Namespace:
    parser = _parser(task)
    options = parser.parse_args(arguments)
    if task == "features":
        kind = options.kind = options.kind or ("embedding" if options.texts else "pooled")
        useless = [*_OF_VIT] if kind == "embedding" else ["texts", "unit_length"]
        useless += ["pooling"] if kind == "patches" else []
        useless += ["image_size", "mean", "std"] if options.texts else []
        for name in (name for name in useless if getattr(options, name)):
            parser.error(f"--{name.replace('_', '-')} has no use with --kind {kind}")
    classes: list[str] = getattr(options, "classes", None) or []
    if len(classes) == 1 and is_there(classes[0]) and not Path(classes[0]).is_dir():
        options.classes = read_lines(options.classes[0], skip_blank=True)
    return options


def _parse_look(verb: str, arguments: Sequence[str]) -> argparse.Namespace:
    parser = command_parser(__doc__)
    parser.add_argument("folder", type=expand_home, metavar="DIR", help="output of eva batch")
    if verb == "merge":
        help_text = "file ending in .parquet, or of detect .json, in COCO's format"
        help_text += " (default: DIR.parquet; with --to DIR_FORMAT)"
        parser.add_argument("--output", type=expand_home, help=help_text)
        help_text = "of detect: write a dataset with the images to OUTPUT/FORMAT"
        parser.add_argument("--to", choices=FORMATS, dest="form", help=help_text)
        parser.add_argument("--overwrite", action="store_true", help="replace earlier results")
    if verb == "retry":
        parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
        _add_running(parser)
    return parser.parse_args(arguments)


main = Command("eva batch", _parse, lazy_import("eva_command.batch_run:run"))


_INDEX = """Search among the features of `eva batch features`: exact, or fast by an index of faiss.

    eva index build output/features --output output/index
    eva clip demo search output/index --weights eva_clip_psz14.pt --text "a dog" --output found

INDEX receives names and features, which a search reads through a memory map, in half precision;
and above --exact-up-to features an IVF-PQ index of faiss, whose results are compared again with the
exact features.
"""
INDEX_FILES = ("index.json", "names.arrow", "features.npy", "index.faiss")


def _parse_index(arguments: Sequence[str]) -> argparse.Namespace:
    parser = command_parser(_INDEX)
    add = parser.add_argument
    add("action", choices=("build",), help="the only one")
    add("features", type=expand_home, metavar="FEATURES", help="output of eva batch features")
    help_text = "folder of the index (default: output/index)"
    output = Path("output/index")
    add("--output", default=output, type=expand_home, metavar="INDEX", help=help_text)
    add(
        "--exact-up-to",
        type=integer(0),
        default=1_000_000,
        metavar="N",
        help="search so many features exactly (default: %(default)s)",
    )
    add("--overwrite", action="store_true", help="replace an index")
    return parser.parse_args(arguments)


index = Command("eva index", _parse_index, lazy_import("eva_command.batch_run:index"))
