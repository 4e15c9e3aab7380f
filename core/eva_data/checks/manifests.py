"""Check the images of pre-training and write the index of a manifest.

    python tools/verify_data.py images pretrain/configs/merged30m.toml --write merged30m.safetensors
    python tools/verify_data.py images photos/

Every image is read and decoded as in training. Those that fail are left out of the index.
"""

import argparse
from pathlib import Path

from eva_data.checks.command import add_shared
from eva_runs.options import integer


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    parser.set_defaults(run=_run)
    add = parser.add_argument
    add(
        "manifest",
        type=Path,
        metavar="MANIFEST",
        help="TOML file that lists folders and shards; or a folder, which is only checked",
    )
    add("--root", metavar="DIR", help="folder of relative paths, instead of the manifest's")
    add(
        "--least-side",
        type=integer(1),
        default=32,
        metavar="PX",
        help="below which an image is noted as small (default %(default)s)",
    )
    add_shared(
        parser,
        "images",
        skip="list the images without reading them",
        write=("INDEX", "an index of the readable images"),
    )


def _run(args: argparse.Namespace) -> int:
    if args.manifest.is_dir():
        from eva_data.checks.picture_folders import report_only

        return report_only(args)
    from eva_data.checks.manifest_images import check_manifest  # here, so that --help comes at once

    return check_manifest(args)
