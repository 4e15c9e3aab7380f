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
import contextlib
import json
import logging
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from eva_data.files import replace_file, require_free
from eva_data.index import FolderFiles
from eva_data.kinetics import SOURCES, TABLE, TITLES, find_classes, kinetics_classes, mapping
from eva_data.labelled_videos.lists import ID_LENGTH, youtube_id
from eva_data.labelled_videos.opening import open_videos
from eva_runs.commands import Command, check_outputs, echo
from eva_runs.options import command_parser
from eva_runs.output_folder import lock_folder

SPLITS = ("train", "val")
STATISTICS, TABLE_COPY = "statistics.json", "classes.csv"
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


def concatenated(parts: Iterable[Videos]) -> Videos:
    """Put lists one after another."""
    ids, labels, paths = zip(*parts, strict=True)
    return Videos(np.concatenate(ids), np.concatenate(labels), list(chain.from_iterable(paths)))


class Merged(NamedTuple):
    """A list that will be written, and what is known of it."""

    videos: Videos  # what was read
    kept: NDArray[np.int64]  # positions of those that stay, increasing
    repeated: int  # those that go because an earlier one has their id
    leaked: Mapping[str, int]  # validation list -> further ones that go because they are in it
    relabelled: int  # those that stay, of which a later clip has another label


def keep(videos: Videos, *, validation: Mapping[str, Videos]) -> Merged:
    """Leave out repeated videos, then those that leak from one validation list after another."""
    _, first, group = np.unique(videos.ids, return_index=True, return_inverse=True)
    contradicted = np.zeros(len(videos.ids), dtype=bool)  # by a later clip of the same id
    contradicted[first[group[videos.labels != videos.labels[first[group]]]]] = True
    indices: NDArray[np.int64] = np.sort(first).astype(np.int64)
    leaked = {}
    for name, held_out in validation.items():
        stays = ~np.isin(videos.ids[indices], held_out.ids)
        leaked[name] = int((~stays).sum())
        indices = indices[stays]
    repeated = len(videos.ids) - len(first)
    return Merged(videos, indices, repeated, leaked, int(contradicted[indices].sum()))


def merge(
    train: Mapping[str, Videos], val: Mapping[str, Videos], *, keep_k400_leaks: bool
) -> dict[str, Merged]:
    """Make the lists of each dataset, and of Kinetics-722, by names such as `k600_val`.

    Args:
        train: Training list of each dataset; of equal videos the first one stays.
        val: Validation list of each.
        keep_k400_leaks: Keep in the training list of Kinetics-400 the videos of its validation
            list, as the official lists do; Kinetics-722 never has them.
    """
    lists = {}
    for name in train:
        held_out = {} if name == "k400" and keep_k400_leaks else {name: val[name]}
        lists[f"{name}_train"] = keep(train[name], validation=held_out)
        lists[f"{name}_val"] = keep(val[name], validation={})
    lists["k722_train"] = keep(concatenated(train.values()), validation=val)
    lists["k722_val"] = keep(concatenated(val[name] for name in train), validation={})
    return lists


def read_list(location: str, name: str, *, root: str | None) -> Videos:
    """Read the videos of a dataset: class folders, or a list with classes or official labels.

    Raises:
        ValueError: If a class is not one of the dataset, the videos are not in files, or a file
            has a name without YouTube's id.
    """
    files = open_videos(location, root=root)
    if not isinstance(files.files, FolderFiles):
        raise ValueError(f"{location} holds its videos in shards, and a list names files")
    try:
        if all(name.isdecimal() for name in files.classes):  # numbers from 0
            labels = mapping("k722", name)[[*map(int, files.classes)]]
        else:
            labels = find_classes(files.classes, name)
    except (ValueError, IndexError) as error:
        raise ValueError(f"{location} is no list of {TITLES[name]}: {error}") from error
    ids = [youtube_id(file, sure=True) for file in files.files.names]
    nameless = [files.sample_id(at) for at, identifier in enumerate(ids) if not identifier]
    if nameless:
        raise ValueError(
            f"{location}: names of {len(nameless):,} of {len(ids):,} videos do not begin with "
            f"YouTube's id, such as {nameless[0]}: name them ID.mp4, or take them out of the list"
        )
    return Videos(
        ids=np.array(ids, dtype=f"S{ID_LENGTH}"),
        labels=labels[files.labels],
        # links stay
        paths=[os.path.abspath(files.sample_id(at)) for at in range(len(ids))],  # noqa: PTH100
    )


def file_names(lists: Sequence[str]) -> list[str]:
    """Name the files that are written, in the folder of the output."""
    return [
        *(f"{name}_{split}.txt" for name in (*lists, "k722") for split in SPLITS),
        *(f"{name}_classes.txt" for name in (*lists, "k722")),
        *(f"k722_to_{name}_mapping.npy" for name in SOURCES),
        TABLE_COPY,
        STATISTICS,
    ]


def write_lists(
    output: Path, lists: Mapping[str, Merged], statistics: Any, *, root: Path | None
) -> None:
    """Write all files, of which none takes its place before all are complete.

    The statistics come last, and earlier ones go first: where they are, the rest belongs to them.
    Paths begin in `root`; they are complete without one.

    Raises:
        FolderInUseError: A ValueError, if another process writes there.
        ValueError: If a path is not below the root, or cannot stand in a line.
    """
    names = file_names([name for name in SOURCES if f"{name}_val" in lists])
    with lock_folder(output), contextlib.ExitStack() as stack:
        # the first to be opened is the last to take its place
        files = {name: stack.enter_context(replace_file(output / name)) for name in names[::-1]}
        files[STATISTICS].write_text(f"{json.dumps(statistics, indent=1)}\n")
        shutil.copyfile(TABLE, files[TABLE_COPY])
        for name in SOURCES:
            np.save(files[f"k722_to_{name}_mapping.npy"], mapping("k722", name))
        for name, merged in lists.items():
            dataset = name.partition("_")[0]
            classes = "".join(f"{name}\n" for name in kinetics_classes(dataset))
            files[f"{dataset}_classes.txt"].write_text(classes)
            _write_list(files[f"{name}.txt"], merged, dataset, root)
        (output / STATISTICS).unlink(missing_ok=True)


def _write_list(file: Path, merged: Merged, dataset: str, root: Path | None) -> None:
    """Write lines `path label`, with the labels of a dataset."""
    labels = np.arange(len(kinetics_classes("k722")))
    if dataset != "k722":
        own = mapping("k722", dataset)
        labels[own] = np.arange(len(own))
    above = "" if root is None else os.path.join(os.path.abspath(root), "")  # noqa: PTH100, PTH118
    with file.open("wb") as stream:
        for index in merged.kept.tolist():
            path = merged.videos.paths[index]
            written = path.removeprefix(above)
            beside = above and written == path
            if beside or written != written.strip() or len(written.splitlines()) != 1:
                raise ValueError(
                    f"{written!r} cannot stand in a list: "
                    + (f"it is not in the folder {root} of --root" if beside else "rename it")
                )
            stream.write(os.fsencode(f"{written} {labels[merged.videos.labels[index]]}\n"))


def describe(name: str, merged: Merged) -> dict[str, Any]:
    """Describe a list for the file of statistics, beside the published count."""
    source = name.partition("_")[0]
    own = mapping("k722", source).tolist() if source in SOURCES else [*range(722)]
    labels = set(merged.videos.labels[merged.kept].tolist())
    return {
        "read": len(merged.videos.ids),
        "repeated": merged.repeated,
        "leaked": dict(merged.leaked),
        "kept": len(merged.kept),
        "relabelled": merged.relabelled,
        "published": PUBLISHED[name],
        "classes": len(labels),
        "classes_without_videos": [
            kinetics_classes("k722")[label] for label in own if label not in labels
        ],
    }


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = command_parser(__doc__)
    add, pair = parser.add_argument, ("TRAIN", "VAL")
    for name in SOURCES:
        help_text = f"lists or class folders of {TITLES[name]}"
        add(f"--{name}", nargs=2, metavar=pair, help=help_text)
        help_text = "folders of the videos of these lists; - where videos lie beside their list"
        add(f"--{name}-videos", nargs=2, metavar=pair, default=("-", "-"), help=help_text)
    add("--output", type=Path, required=True, metavar="DIR", help="folder of the lists")
    help_text = (
        "write paths relative to this folder, data.root in training (default: complete paths)"
    )
    add("--root", type=Path, metavar="DIR", help=help_text)
    help_text = "keep videos of K-400's validation list in its own training list, as officially"
    add("--keep-k400-leaks", action="store_true", help=help_text)
    add("--overwrite", action="store_true", help="replace earlier lists")
    options = parser.parse_args(arguments)
    if not any(getattr(options, name) for name in SOURCES):
        parser.error("give the lists of at least one dataset, such as --k400 TRAIN VAL")
    return options


def _run(options: argparse.Namespace) -> int:
    logging.basicConfig(format="%(levelname)s: %(message)s")
    sources = [name for name in SOURCES if getattr(options, name)]
    files = [options.output / name for name in file_names(sources)]
    require_free(files, overwrite=options.overwrite)
    if options.output.is_dir():
        for name in file_names(SOURCES):
            stale = options.output / name
            if stale not in files and stale.exists():
                raise ValueError(f"{stale} belongs to other lists than those asked for: remove it")
        inputs = {f"list {at}": Path(at) for name in sources for at in getattr(options, name)}
        check_outputs(files, overwrite=options.overwrite, inputs=inputs)
    read: dict[str, dict[str, Videos]] = {split: {} for split in SPLITS}
    for name in sources:
        folders = getattr(options, f"{name}_videos")
        for split, location, folder in zip(SPLITS, getattr(options, name), folders, strict=True):
            root = None if folder == "-" else folder
            read[split][name] = read_list(location, name, root=root)
    lists = merge(read["train"], read["val"], keep_k400_leaks=options.keep_k400_leaks)
    statistics: dict[str, Any] = {
        "data_sets": sources,
        "keep_k400_leaks": options.keep_k400_leaks,
        "lists": {name: describe(name, merged) for name, merged in lists.items()},
    }
    write_lists(options.output, lists, statistics, root=options.root)
    columns = ("read", "repeated", "kept", "published", "relabelled", "classes")
    echo("".join(f"{column:>12}" for column in ("list", *columns)))
    for name, entry in statistics["lists"].items():
        echo(
            "".join(f"{cell:>12}" for cell in (name, *(f"{entry[column]:,}" for column in columns)))
        )
    lacking = [TITLES[name] for name in SOURCES if name not in sources]
    if lacking:
        echo(f"note: this is not Kinetics-722: it lacks the videos of {' and '.join(lacking)}")
    echo(f"wrote {len(files)} files to {options.output}")
    return 0


main = Command("eva data make-kinetics722", parse, _run)
