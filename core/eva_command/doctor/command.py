"""The command line of `eva doctor`, and its report."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from eva_command.doctor.findings import Finding
from eva_runs.command_line.parsing import Parser
from eva_runs.commands import program, say

_MARKS = {"ok": "ok     ", "note": "note   ", "missing": "missing", "broken": "BROKEN "}


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(
        prog="eva doctor",
        description="Say what is installed, missing and broken, with the commands that fix it; "
        "nothing is downloaded. Exit code: 1 if something that is installed is broken.",
    )
    add = parser.add_argument
    add("--quick", action="store_true", help="look at versions only, import nothing")
    add("--install", metavar="PART", help="install detectron2, mmcv-operators or an extra")
    add(
        "--source",
        metavar="SOURCE",
        help="of detectron2: repack (default; the copy on PyPI, its SHA-256 checked), upstream "
        "(its repository, needs git and a C++ compiler), or what pip takes as a requirement",
    )
    add("--dry-run", action="store_true", help="with --install: print the commands only")
    options = parser.parse_args(arguments)
    if options.source and options.install != "detectron2":
        parser.error("--source belongs to --install detectron2")
    if options.dry_run and not options.install:
        parser.error("--dry-run belongs to --install")
    return options


def _work(options: argparse.Namespace) -> int:
    # here, so that --help comes at once
    from eva_command.doctor.installing import install

    if options.install:
        source = options.source or "repack"
        return install(options.install, source, dry_run=options.dry_run)
    findings = examine(quick=options.quick)
    say(report(findings))
    return 1 if any(finding.state == "broken" for finding in findings) else 0


def examine(*, quick: bool = False) -> list[Finding]:
    """Look at this machine.

    Args:
        quick: Import nothing.

    Returns:
        What was found, in the order of the report.
    """
    from eva_command.doctor import packages
    from eva_command.doctor.imports import check_imports
    from eva_command.doctor.operators import check_mmcv_operators

    findings = packages.check_toolkit()
    findings += packages.check_extras()
    findings.append(packages.check_detectron2())
    findings += check_mmcv_operators()
    findings += packages.check_pairs()
    if not quick:
        findings += check_imports()
        findings += check_weights()
    return findings


def check_weights() -> list[Finding]:
    """Look into the folders in which official weights are searched."""
    try:
        from eva_backbone.checkpoints.registry import OFFICIAL_FILES, weights_directories
    except ImportError:  # torch is missing or broken, which was said
        return []
    return [_folder(folder, [e.name for e in OFFICIAL_FILES]) for folder in weights_directories()]


def _folder(folder: Path, names: list[str]) -> Finding:
    if not folder.is_dir():
        return Finding("note", "weights", f"{folder} does not exist")
    here = [name for name in names if (folder / name).is_file()]
    return Finding("ok", "weights", f"{folder} holds {len(here)} of {len(names)} official files")


def report(findings: Sequence[Finding]) -> str:
    """Format findings as lines, those with a fix followed by it."""
    width = max(len(finding.about) for finding in findings)
    lines = []
    for finding in findings:
        lines.append(f"{_MARKS[finding.state]}  {finding.about:<{width}}  {finding.text}")
        if finding.fix:
            lines.append(f"{'':{width + 11}}-> {finding.fix}")
    return "\n".join(lines)


main = program(_parse, _work)


if __name__ == "__main__":
    sys.exit(main())
