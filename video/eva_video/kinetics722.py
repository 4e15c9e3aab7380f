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
import logging
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from eva_data.index import FolderFiles
from eva_data.kinetics import SOURCES, TABLE, TITLES, find_classes, kinetics_classes, mapping
from eva_data.labelled_videos.lists import ID_LENGTH, youtube_id
from eva_data.labelled_videos.opening import open_videos
from eva_data.saving import replace_folder, require_replaceable
from eva_runs.commands import Command, echo
from eva_runs.options import command_parser

SPLITS = ("train", "val")
# Videos that the authors of EVA could still find on YouTube, without damaged files: the training
# lists of paper Table 14, and the validation lists of their logs.
PUBLISHED: Mapping[str, int] = {
    "k400_train": 234_584,
    "k600_train": 412_688,
    "k700_train": 534_063,
    "k722_train": 629_395,
    "k400_val": 19_760,
    "k600_val": 29_779,
    "k700_val": 33_914,
    "k722_val": 69_692,
}


class Videos(NamedTuple):
    """A list of N videos, as far as merging needs it."""

    ids: NDArray[np.bytes_]  # YouTube's, (N,), 11 bytes each
    labels: NDArray[np.int64]  # in Kinetics-722, (N,)
    paths: Sequence[str] = ()  # complete; none where only ids are merged


class Merged(NamedTuple):
    """A list that will be written."""

    videos: Videos  # what was read
    kept: NDArray[np.int64]  # positions of those that stay, increasing
    repeated: int  # those that go because an earlier one has their id
    leaked: int  # further ones that go because they are in a validation list


def concatenated(parts: Iterable[Videos]) -> Videos:
    """Put lists one after another."""
    ids, labels, paths = zip(*parts, strict=True)
    return Videos(np.concatenate(ids), np.concatenate(labels), list(chain.from_iterable(paths)))


def merge(
    train: Mapping[str, Videos], val: Mapping[str, Videos], *, keep_k400_leaks: bool
) -> dict[str, Merged]:
    """Make the lists of each dataset, and of Kinetics-722, by names such as `k600_val`.

    Of equal videos the first one stays. `keep_k400_leaks` keeps in the training list of
    Kinetics-400 the videos of its validation list, as the official lists do; Kinetics-722 never has
    them.
    """

    def keep(videos: Videos, *held_out: Videos) -> Merged:
        first = np.unique(videos.ids, return_index=True)[1]
        indices = np.sort(first).astype(np.int64)
        for other in held_out:
            indices = indices[~np.isin(videos.ids[indices], other.ids)]
        return Merged(videos, indices, len(videos.ids) - len(first), len(first) - len(indices))

    lists = {}
    for name in train:
        held_out = [] if name == "k400" and keep_k400_leaks else [val[name]]
        lists[f"{name}_train"] = keep(train[name], *held_out)
        lists[f"{name}_val"] = keep(val[name])
    lists["k722_train"] = keep(concatenated(train.values()), *val.values())
    lists["k722_val"] = keep(concatenated(val[name] for name in train))
    return lists


def _read_list(location: str, name: str, *, root: str | None) -> Videos:
    """Read the videos of a dataset: class folders, or a list with classes or official labels."""
    files = open_videos(location, root=root)
    if not isinstance(files.source, FolderFiles):
        raise ValueError(f"{location} holds its videos in shards, and a list names files")
    try:
        if all(name.isdecimal() for name in files.classes):  # numbers from 0
            labels = mapping(name)[[*map(int, files.classes)]]
        else:
            labels = find_classes(files.classes, name)
    except (ValueError, IndexError) as error:
        raise ValueError(f"{location} is no list of {TITLES[name]}: {error}") from error
    paths = [os.path.abspath(files.sample_id(index)) for index in range(len(files))]  # noqa: PTH100
    ids = [youtube_id(file, sure=True) for file in files.source.names]
    for path, identifier in zip(paths, ids, strict=True):
        if not identifier:
            raise ValueError(f"{path} does not begin with YouTube's id: name it ID.mp4")
    return Videos(np.array(ids, dtype=f"S{ID_LENGTH}"), labels[files.labels], paths)


def _write_list(file: Path, merged: Merged, dataset: str) -> None:
    """Write lines `path label`, with the labels of a dataset."""
    labels = np.arange(len(kinetics_classes("k722")))
    if dataset != "k722":
        labels_of_dataset = mapping(dataset)
        labels[labels_of_dataset] = np.arange(len(labels_of_dataset))
    with file.open("wb") as stream:
        for index in merged.kept.tolist():
            path = merged.videos.paths[index]
            if path != path.strip() or len(path.splitlines()) != 1:
                raise ValueError(f"{path!r} cannot stand in a list: rename it")
            stream.write(os.fsencode(f"{path} {labels[merged.videos.labels[index]]}\n"))


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
    logging.basicConfig(format="%(levelname)s: %(message)s")
    files = [f"{name}_{kind}.txt" for name in (*SOURCES, "k722") for kind in (*SPLITS, "classes")]
    files += [f"k722_to_{name}_mapping.npy" for name in SOURCES]
    files += ["classes.csv", "statistics.json"]
    require_replaceable(options.output, files, overwrite=options.overwrite)
    videos: dict[str, dict[str, Videos]] = {split: {} for split in SPLITS}
    for name in (name for name in SOURCES if getattr(options, name)):
        folders = getattr(options, f"{name}_videos")
        for split, location, folder in zip(SPLITS, getattr(options, name), folders, strict=True):
            if Path(location).resolve().is_relative_to(options.output.resolve()):
                raise ValueError(f"{location} is in --output {options.output}, which is replaced")
            root = None if folder == "-" else folder
            videos[split][name] = _read_list(location, name, root=root)
    lists = merge(videos["train"], videos["val"], keep_k400_leaks=options.keep_k400_leaks)
    counts = {}
    with replace_folder(options.output) as folder:
        shutil.copyfile(TABLE, folder / "classes.csv")
        for name in SOURCES:
            np.save(folder / f"k722_to_{name}_mapping.npy", mapping(name))
        for name, merged in lists.items():
            dataset = name.partition("_")[0]
            classes = "".join(f"{label}\n" for label in kinetics_classes(dataset))
            (folder / f"{dataset}_classes.txt").write_text(classes)
            _write_list(folder / f"{name}.txt", merged, dataset)
            counts[name] = {
                "read": len(merged.videos.ids),
                "repeated": merged.repeated,
                "leaked": merged.leaked,
                "kept": len(merged.kept),
                "published": PUBLISHED[name],
            }
        (folder / "statistics.json").write_text(f"{json.dumps(counts, indent=1)}\n")
    for name, row in counts.items():
        echo(f"{name:<12}" + "".join(f"  {key} {count:>9,}" for key, count in row.items()))
    lacking = [TITLES[name] for name in SOURCES if name not in videos["train"]]
    if lacking:
        echo(f"note: this is not Kinetics-722: it lacks the videos of {' and '.join(lacking)}")
    echo(f"wrote the lists to {options.output}")


main = Command("eva data make-kinetics722", _parse, _run)
