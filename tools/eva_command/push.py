"""Publish a run on the Hugging Face hub: weights, model card, settings and scores.

    eva push output/coco someone/eva-coco --dry-run output/card   # look at it first
    eva push output/coco someone/eva-coco --private

RUN is the output folder of any training of this toolkit. The last weights are published, unless
--best is given. Published are `model.safetensors`, without states of the optimizer; `README.md`,
the model card; the settings of the run; `results.json`. Of the settings only numbers, names of
classes, parts and known datasets are published; paths, addresses and free text are left out. Needs
`pip install eva-toolkit[hub]` and a token of the hub (`hf auth login`, or HF_TOKEN).
"""

import argparse
import re
from collections.abc import Sequence
from pathlib import Path

from eva_backbone.checkpoints.hub import DEFAULT_FILE
from eva_runs.commands import Command, lazy_import
from eva_runs.options import command_parser

FILES = (DEFAULT_FILE, "README.md", "results.json", "recipe.json", "config.yaml", "config.py")
_REPOSITORY = re.compile(r"\w[\w.-]*/\w[\w.-]*")


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Parse the command line."""
    parser = command_parser(__doc__)
    add = parser.add_argument
    add("run", type=Path, metavar="RUN", help="output folder of a training")
    add("repository", metavar="ORG/NAME", help="repository on the hub; made if it is not there")
    add("--private", action="store_true", help="make the repository private")
    add("--dry-run", type=Path, metavar="DIR", help="write everything there and upload nothing")
    add("--overwrite", action="store_true", help="replace an earlier DIR")
    add("--best", action="store_true", help="weights of the best evaluation, not the last ones")
    add("--ema", action="store_true", help="the moving average of the weights")
    add(
        "--include",
        type=Path,
        metavar="FILE",
        action="append",
        default=[],
        help="publish this file too, as it is",
    )
    add("--licence", default="mit", help="licence of the weights (default: %(default)s)")
    options = parser.parse_args(arguments)
    if not _REPOSITORY.fullmatch(options.repository):
        parser.error(f"{options.repository!r} is not of the form ORG/NAME")
    taken = [file for file in options.include if file.name in FILES or not file.is_file()]
    if taken:
        parser.error(f"--include {taken[0]}: there is no such file, or push writes one of its name")
    return options


main = Command(
    "eva push",
    parse,
    lazy_import("eva_command.publishing:push"),
    interrupted="nothing was published",
)
