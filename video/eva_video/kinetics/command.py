"""Command line of `tools/make_kinetics722.py`: the lists of Kinetics-722."""

import argparse
import logging
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from eva_data.files import require_free
from eva_data.kinetics import SOURCES, TITLES
from eva_runs.command_line.parsing import Parser
from eva_runs.commands import check_outputs, program, program_name, say
from eva_video.kinetics.merging import merge
from eva_video.kinetics.outputs import SPLITS, MergedList, file_names, prepare, write_together
from eva_video.kinetics.sources import Source, read_source
from eva_video.kinetics.statistics import describe, remarks, table

_ABOUT = """\
Merge Kinetics-400, 600 and 700 into Kinetics-722: lists, label mappings, statistics.

Classes are merged by name. Clips with the same YouTube id are one video: the first stays, in the
order K-400, K-600, K-700, with its label; what is in a validation list is not trained on.
"""
_EXAMPLES = """\
Folders of classes:
    python tools/make_kinetics722.py --k400 k400/train k400/val --k600 k600/train k600/val \\
        --k700 k700/train k700/val --output datasets/kinetics722
DeepMind's lists, with the videos in one folder each:
    ... --k400 annotations/train.csv annotations/val.csv --k400-videos k400/train k400/val ...

Then remove damaged files from each list:
    python tools/verify_data.py video --help
"""


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = Parser(
        prog=program_name("make_kinetics722.py"),
        description=_ABOUT,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    for name in SOURCES:
        add(
            f"--{name}", nargs=2, metavar=("TRAIN", "VAL"),
            help=f"lists or class folders of {TITLES[name]}",
        )  # fmt: skip
        add(
            f"--{name}-videos", nargs=2, metavar=("TRAIN", "VAL"),
            help="folders of the videos of these lists; - for class folders, and where videos lie "
            "beside their list",
        )  # fmt: skip
    add("--output", type=Path, required=True, metavar="DIR", help="folder of the lists")
    add(
        "--root", type=Path, metavar="DIR",
        help="write paths relative to this folder, to be named as data.root in training "
        "(default: complete paths)",
    )  # fmt: skip
    add("--k710", action="store_true", help="also write lists with the labels of Kinetics-710")
    add(
        "--keep-k400-leaks", action="store_true",
        help="keep videos of K-400's validation list in its own training list, as officially; "
        "that of K-722 never has them",
    )  # fmt: skip
    add(
        "--leave-out-nameless", action="store_true",
        help="leave out files whose name does not begin with YouTube's id",
    )  # fmt: skip
    add("--overwrite", action="store_true", help="replace earlier lists")
    options = parser.parse_args(arguments)
    given = [name for name in SOURCES if getattr(options, name)]
    if not given:
        parser.error("give the lists of at least one data set, such as --k400 TRAIN VAL")
    for name in SOURCES:
        if getattr(options, f"{name}_videos") and name not in given:
            parser.error(f"--{name}-videos has no use without --{name}")
    if options.keep_k400_leaks and "k400" not in given:
        parser.error("--keep-k400-leaks has no use without --k400")
    return options


def _run(options: argparse.Namespace) -> int:
    logging.basicConfig(format="%(levelname)s: %(message)s")
    given = [name for name in SOURCES if getattr(options, name)]
    _check_output(options, given)
    sources = _read(options, given)
    train, val = ({n: sources[f"{n}_{split}"].videos for n in given} for split in SPLITS)
    lists = {
        name: MergedList(sources=_sources_of(name, sources), kept=kept)
        for name, kept in merge(train, val, keep_k400_leaks=options.keep_k400_leaks).items()
    }
    if empty := [name for name, one in lists.items() if not len(one.kept.indices)]:
        raise ValueError(
            f"nothing stays of {', '.join(empty)}: every video is in a validation list too; is one "
            "list named twice?"
        )
    statistics = {
        "data_sets": given,
        "keep_k400_leaks": options.keep_k400_leaks,
        "sources": {name: source.summary() for name, source in sources.items()},
        "lists": {name: describe(name, one.kept, one.labels) for name, one in lists.items()},
    }
    contents = prepare(lists, statistics, root=options.root, k710=options.k710)
    write_together(options.output, contents)
    say(table(statistics["lists"]))
    for sentence in remarks(statistics):
        say(f"note: {sentence}")
    say(f"wrote {len(contents)} files to {options.output}")
    return 0


def _check_output(options: argparse.Namespace, given: Sequence[str]) -> None:
    """Refuse an output folder with files that are to be kept, before any work is done."""
    files = [options.output / name for name in file_names(given, k710=options.k710)]
    require_free(files, overwrite=options.overwrite)
    if not options.output.is_dir():
        return
    for name in file_names(SOURCES, k710=True):
        if (stale := options.output / name) not in files and stale.exists():
            raise ValueError(
                f"{stale} belongs to other lists than those asked for: remove it, or name another "
                "--output"
            )
    inputs = {
        f"list {split} of {TITLES[name]}": Path(location)
        for name in given
        for split, location in zip(SPLITS, getattr(options, name), strict=True)
    }
    check_outputs(files, overwrite=options.overwrite, inputs=inputs)


def _sources_of(name: str, sources: Mapping[str, Source]) -> list[Source]:
    """Return the lists that a list is made of, in their order."""
    if name in sources:
        return [sources[name]]
    split = name.partition("_")[2]
    return [source for own, source in sources.items() if own.endswith(f"_{split}")]


def _read(options: argparse.Namespace, given: Sequence[str]) -> dict[str, Source]:
    """Read every list that was given."""
    sources = {}
    for name in given:
        folders = getattr(options, f"{name}_videos") or ("-", "-")
        for split, location, folder in zip(SPLITS, getattr(options, name), folders, strict=True):
            if folder != "-" and Path(location).is_dir():
                raise ValueError(
                    f"--{name}-videos: {location} is not a list, but a folder; give - in place of "
                    f"{folder}"
                )
            sources[f"{name}_{split}"] = read_source(
                location,
                name,
                root=None if folder == "-" else folder,
                leave_out_nameless=options.leave_out_nameless,
            )
    return sources


main = program(parse, _run)


if __name__ == "__main__":
    sys.exit(main())
