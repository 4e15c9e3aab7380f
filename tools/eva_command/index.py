"""Search among the features of `eva batch features`: exact, or fast by an index of faiss.

    eva index build output/features --output output/index
    eva clip demo search output/index --weights eva_clip_psz14.pt --text "a dog" --output found

INDEX receives names and features, which a search reads through a memory map, in half precision;
and above --exact-up-to features an IVF-PQ index of faiss, whose results are compared again with the
exact features.
"""

import argparse
from collections.abc import Sequence

from eva_data.files import expand_home, require_replaceable
from eva_runs.commands import Command, Result, echo
from eva_runs.options import command_parser, integer

_FILES = ("index.json", "names.arrow", "features.npy", "index.faiss")


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = command_parser(__doc__)
    add = parser.add_argument
    add("action", choices=("build",), help="the only one")
    add("features", type=expand_home, metavar="FEATURES", help="output of eva batch features")
    add("--output", required=True, type=expand_home, metavar="INDEX", help="folder of the index")
    add(
        "--exact-up-to",
        type=integer(0),
        default=1_000_000,
        metavar="N",
        help="search so many features exactly (default: %(default)s)",
    )
    add("--overwrite", action="store_true", help="replace an index")
    return parser.parse_args(arguments)


def _run(options: argparse.Namespace) -> int:
    require_replaceable(options.output, _FILES, overwrite=options.overwrite)
    from eva_runs.batch import index_features, summarise

    count = summarise(options.features, rows=True).rows
    approximate = count > options.exact_up_to
    about = index_features(options.features, options.output, approximate=approximate)
    kind = "an index of faiss" if (options.output / _FILES[-1]).exists() else "exact search"
    echo(f"{options.output} has {about['count']:,} features of {about['width']} values, {kind}")
    return Result(about)


main = Command("eva index", _parse, _run, error_code=1)
