"""Report what is installed, missing and broken, with the commands that fix it, or install a part.

Compared are the versions that the toolkit and its extras need; every package is imported. Nothing
is downloaded for the report. Exit code: 1 if something that is installed is broken.
"""

import argparse
import importlib.util
import shlex
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path
from typing import Literal, NamedTuple

from packaging.requirements import Requirement

from eva_runs.commands import Command, Result, echo
from eva_runs.extras import DETECTRON2, TOOLKIT
from eva_runs.options import command_parser

UPSTREAM, REPACKED = "detectron2", "sal-detectron2"
IMPORTED = (
    *("torch", "torchvision", "cv2", "detectron2", "mmengine", "mmcv", "mmseg", "mmdet"),
    *("deepspeed", "timm", "open_clip", "av", "onnxruntime"),
)
_FIXES = {"cv2": "apt-get install libgl1 libglib2.0-0"}  # what slim images lack
_PARTS = (UPSTREAM, "mmcv-operators")  # built from folders of the toolkit
_PACKAGES = Path(__file__).resolve().parents[1]  # site-packages, or tools/ of a checkout
_AT_ONCE = 4  # imports
_GPUS = """
import torch
names = map(torch.cuda.get_device_name, range(torch.cuda.device_count()))
print(f"CUDA {torch.version.cuda}:", ", ".join(names))
"""


class Finding(NamedTuple):
    """A line of the report.

    Attributes:
        state: `missing` is what could be installed, `broken` what is installed and does not work.
        about: Subject.
        text: What was found.
        fix: Command that fixes it, or empty.
    """

    state: Literal["ok", "note", "missing", "broken"]
    about: str
    text: str
    fix: str = ""


def installed_version(distribution: str) -> str | None:
    """Return the version of an installed distribution, or None."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def check_versions() -> list[Finding]:
    """Check what the toolkit and its extras need, and detectron2, which is in no extra."""
    if installed_version(TOOLKIT) is None:
        message = "runs from its source and is not installed: what its extras need is not known"
        findings = [Finding("note", TOOLKIT, message, "pip install -e CHECKOUT")]
    else:
        findings = [_check_part(name) for name in ("", *extras())]
    for name in (UPSTREAM, REPACKED):
        if version := installed_version(name):
            return [*findings, Finding("ok", UPSTREAM, f"{name} {version}")]
    message = "not installed; detection needs it"
    return [*findings, Finding("missing", UPSTREAM, message, DETECTRON2)]


def _check_part(extra: str) -> Finding:
    """Check whether an extra, or "" for the toolkit itself, has all it needs."""
    missing, wrong = [], []
    for needed in requirements_of(extra):
        version = installed_version(needed.name)
        if version is None:
            missing.append(needed.name)
        elif not needed.specifier.contains(version, prereleases=True):
            wrong.append(f"{needed.name} {version}, needs {needed.specifier}")
    subject = extra or TOOLKIT
    if not missing and not wrong:
        return Finding("ok", subject, "complete")
    lacks = [f"lacks {', '.join(missing)}"] if missing else []
    fix = f"pip install '{TOOLKIT}[{extra}]'" if extra else f"pip install {TOOLKIT}"
    return Finding(
        "missing" if missing and extra else "broken", subject, "; ".join(lacks + wrong), fix
    )


def check_imports(packages: Sequence[str] = IMPORTED) -> list[Finding]:
    """Import the packages that are installed, each in another process: one may crash.

    Args:
        packages: Names under which they are imported.

    Returns:
        A finding for each that fails, and one for the GPU if torch can be imported.
    """
    installed = [name for name in packages if importlib.util.find_spec(name)]
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return [finding for finding in pool.map(_try_import, installed) if finding]


def _try_import(name: str) -> Finding | None:
    program = _GPUS if name == "torch" else f"import {name}"
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode == 0:
        gpus = done.stdout.strip().rpartition("\n")[2]  # below what an import prints
        none = gpus.endswith(":")
        finding = Finding("note" if none else "ok", "GPU", f"{gpus} none" if none else gpus)
        return finding if name == "torch" else None
    error = done.stderr.strip().rpartition("\n")[2][:200]
    crash = f"it ended with {done.returncode}" if done.returncode < 0 else error
    return Finding("broken", name, f"cannot be imported: {crash}", _FIXES.get(name, ""))


def extras() -> list[str]:
    """List the extras that a user of the installed toolkit chooses from."""
    names = metadata.metadata(TOOLKIT).get_all("Provides-Extra") or []
    return [name for name in names if name not in ("dev", "docs", "all")]


def requirements_of(extra: str) -> list[Requirement]:
    """List what an extra, or "" for the toolkit itself, needs, with what its own extras need."""
    requirements = []
    for requirement in map(Requirement, metadata.requires(TOOLKIT) or []):
        marker = requirement.marker
        is_basic = marker is None or marker.evaluate({"extra": ""})
        if is_basic if extra else not is_basic:
            continue
        if marker is not None and not marker.evaluate({"extra": extra}):
            continue
        if requirement.name == TOOLKIT:
            for other in sorted(requirement.extras):
                requirements += requirements_of(other)
        else:
            requirements.append(requirement)
    return requirements


def _install(part: str, *, dry_run: bool) -> int:
    """Install a part into the Python that runs this; return the first exit code that is not 0."""
    installed = _PACKAGES / "eva_recipes" / "third_party"
    folders = installed if installed.is_dir() else _PACKAGES.parent / "third_party"
    commands = [["install", str(folders / part.replace("-", "_"))]]
    if part == UPSTREAM and installed_version(UPSTREAM):  # it owns the same files
        commands.insert(0, ["uninstall", "--yes", UPSTREAM])
    for arguments in commands:
        command = [sys.executable, "-m", "pip", *arguments]
        echo(shlex.join(command))
        if not dry_run and (code := subprocess.run(command, check=False).returncode):
            return code
    return 0


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = command_parser(__doc__)
    add = parser.add_argument
    add("--quick", action="store_true", help="look at versions only, import nothing")
    add("--install", choices=_PARTS, metavar="PART", help=f"install {' or '.join(_PARTS)}")
    add("--dry-run", action="store_true", help="with --install: print the commands only")
    return parser.parse_args(arguments)


def _work(options: argparse.Namespace) -> int:
    if options.install:
        return _install(options.install, dry_run=options.dry_run)
    findings = check_versions()
    if not options.quick:
        findings += check_imports()
    width = max(len(finding.about) for finding in findings)
    for state, subject, message, fix in findings:
        state_name = state.upper() if state == "broken" else state
        echo(f"{state_name:<7}  {subject:<{width}}  {message}")
        if fix:
            echo(f"{'':{width + 11}}-> {fix}")
    broken = any(finding.state == "broken" for finding in findings)
    return Result([finding._asdict() for finding in findings], int(broken))


main = Command("eva doctor", _parse, _work)
