r"""Merge Kinetics-400, 600 and 700 into Kinetics-722: lists, label mappings, statistics.

Classes are merged by name. Clips with the same YouTube id are one video: the first stays, in the
order K-400, K-600, K-700, with its label; what is in a validation list is not trained on (paper
section A.2, official notebook).

    eva data make-kinetics722 --k400 k400/train k400/val --k600 k600/train k600/val \
        --k700 k700/train k700/val --output datasets/kinetics722
    ... --k400 annotations/train.csv annotations/val.csv --k400-videos k400/train k400/val ...

Then remove damaged files from each list: `eva data verify video --help`.
"""

import argparse
import json
import os
import shutil
from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np

from eva_data.index import FolderFiles
from eva_data.kinetics import SOURCES, TABLE, TITLES, find_classes, kinetics_classes, mapping
from eva_data.labelled_videos.lists import list_line, youtube_id
from eva_data.labelled_videos.sources import open_videos
from eva_data.saving import replace_folder, require_replaceable
from eva_runs.commands import Command, echo
from eva_runs.options import command_parser

SPLITS = ("train", "val")
# Videos that the authors of EVA could still find on YouTube, without damaged files: the training
# list of paper Table 14, and the validation list of their logs.
PUBLISHED = {
    "train": {"k400": 234_584, "k600": 412_688, "k700": 534_063, "k722": 629_395},
    "val": {"k400": 19_760, "k600": 29_779, "k700": 33_914, "k722": 69_692},
}


class Video(NamedTuple):
    """A video of a list."""

    youtube_id: str
    label: int  # in Kinetics-722
    path: str  # complete


def merge(
    videos: Sequence[Video], held_out: Iterable[Video] = ()
) -> tuple[list[Video], dict[str, int]]:
    """Keep the first of equal videos, unless it is held out; and count what was and is there."""
    first: dict[str, Video] = {}
    for video in videos:
        first.setdefault(video.youtube_id, video)
    leaks = {video.youtube_id for video in held_out}
    kept = [video for video in first.values() if video.youtube_id not in leaks]
    repeated, leaked = len(videos) - len(first), len(first) - len(kept)
    return kept, {"read": len(videos), "repeated": repeated, "leaked": leaked, "kept": len(kept)}


def _read_list(location: str, name: str, folder: str) -> list[Video]:
    """Read the videos of a dataset: class folders, or a list with classes or official labels."""
    files = open_videos(location, root=None if folder == "-" else folder)
    if not isinstance(files.source, FolderFiles):
        raise ValueError(f"{location} holds its videos in shards, and a list names files")
    try:
        if all(name.isdecimal() for name in files.classes):  # numbers from 0
            labels = mapping(name)[[*map(int, files.classes)]]
        else:
            labels = find_classes(files.classes, name)
    except (ValueError, IndexError) as error:
        raise ValueError(f"{location} is no list of {TITLES[name]}: {error}") from error
    videos = []
    for index, label in enumerate(labels[files.labels].tolist()):
        path = os.path.abspath(files.sample_id(index))  # noqa: PTH100
        identifier = youtube_id(path, sure=True)
        if not identifier or not list_line(path, label):
            raise ValueError(f"{path!r} does not begin with YouTube's id, or breaks a line of text")
        videos.append(Video(identifier, label, path))
    return videos


def _write_list(file: Path, videos: Iterable[Video], dataset: str) -> None:
    """Write lines `path label`, with the labels of a dataset."""
    labels = range(len(kinetics_classes("k722"))) if dataset == "k722" else mapping(dataset)
    of_dataset = {int(label): number for number, label in enumerate(labels)}
    with file.open("wb") as stream:
        for video in videos:
            stream.write(os.fsencode(f"{list_line(video.path, of_dataset[video.label])}\n"))


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = command_parser(__doc__)
    add, pair = parser.add_argument, ("TRAIN", "VAL")
    for name in SOURCES:
        add(f"--{name}", nargs=2, metavar=pair, help=f"lists or class folders of {TITLES[name]}")
        help_text = "folders of the videos of these lists; - where videos lie beside their list"
        add(f"--{name}-videos", nargs=2, metavar=pair, default=("-", "-"), help=help_text)
    add("--output", type=Path, required=True, metavar="DIR", help="folder of the lists")
    help_text = "keep videos of K-400's validation list in its own training list, as officially"
    add("--keep-k400-leaks", action="store_true", help=help_text)
    add("--overwrite", action="store_true", help="replace earlier lists")
    options = parser.parse_args(arguments)
    if not any(getattr(options, name) for name in SOURCES):
        parser.error("give the lists of at least one dataset, such as --k400 TRAIN VAL")
    return options


def _run(options: argparse.Namespace) -> None:
    files = ["classes.csv", "statistics.json", *(f"k722_to_{n}_mapping.npy" for n in SOURCES)]
    files += [f"{name}_{kind}.txt" for name in (*SOURCES, "k722") for kind in (*SPLITS, "classes")]
    require_replaceable(options.output, files, overwrite=options.overwrite)
    videos: dict[str, dict[str, list[Video]]] = {split: {} for split in SPLITS}
    for name in (name for name in SOURCES if getattr(options, name)):
        folders = getattr(options, f"{name}_videos")
        for split, location, folder in zip(SPLITS, getattr(options, name), folders, strict=True):
            if Path(location).resolve().is_relative_to(options.output.resolve()):
                raise ValueError(f"{location} is in --output {options.output}, which is replaced")
            videos[split][name] = _read_list(location, name, folder)
    train, val, lists = videos["train"], videos["val"], {}
    for name in train:
        keeps_leaks = name == "k400" and options.keep_k400_leaks
        lists[f"{name}_train"] = merge(train[name], () if keeps_leaks else val[name])
        lists[f"{name}_val"] = merge(val[name])
    every_val = [*chain.from_iterable(val.values())]
    lists["k722_train"] = merge([*chain.from_iterable(train.values())], every_val)
    lists["k722_val"] = merge(every_val)
    counts = {}
    with replace_folder(options.output) as folder:
        shutil.copyfile(TABLE, folder / "classes.csv")
        for name in SOURCES:
            np.save(folder / f"k722_to_{name}_mapping.npy", mapping(name))
        for name, (kept, count) in lists.items():
            dataset, _, split = name.partition("_")
            counts[name] = count | {"published": PUBLISHED[split][dataset]}
            classes = "".join(f"{label}\n" for label in kinetics_classes(dataset))
            (folder / f"{dataset}_classes.txt").write_text(classes)
            _write_list(folder / f"{name}.txt", kept, dataset)
        (folder / "statistics.json").write_text(f"{json.dumps(counts, indent=1)}\n")
    for name, row in counts.items():
        echo(f"{name:<12}" + "".join(f"  {key} {count:>9,}" for key, count in row.items()))
    lacking = [TITLES[name] for name in SOURCES if name not in videos["train"]]
    if lacking:
        echo(f"note: this is not Kinetics-722: it lacks the videos of {' and '.join(lacking)}")
    echo(f"wrote the lists to {options.output}")


main = Command("eva data make-kinetics722", _parse, _run)
