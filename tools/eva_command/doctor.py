"""Report what is installed, missing and broken, with the commands that fix it, or install a part.

pip compares the versions; the packages that most depends on are imported. Nothing is downloaded for
the report. Exit code: 1 if something that is installed is broken.
"""

import argparse
import importlib.util
import shlex
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path
from typing import Literal, NamedTuple

from packaging.requirements import Requirement

from eva_runs.commands import Command, Result, echo
from eva_runs.extras import PACKAGES, TOOLKIT, install_command
from eva_runs.options import command_parser

UPSTREAM = "detectron2"
IMPORTED = (
    *("torch", "torchvision", "cv2", UPSTREAM, "mmengine", "mmcv", "mmseg", "mmdet"),
    *("deepspeed", "timm", "open_clip", "av", "onnxruntime"),
)
_FIXES = {"cv2": "apt-get install libgl1 libglib2.0-0"}  # what slim images lack
_PARTS = (UPSTREAM, "mmcv-operators")  # built from folders of the toolkit
_FOLDER = Path(__file__).resolve().parents[1]  # site-packages, or tools/ of a checkout
_AT_ONCE = 4  # imports
_MOST = 0.75  # of the packages of an extra, which is installed then
_GPUS = """
import torch
names = map(torch.cuda.get_device_name, range(torch.cuda.device_count()))
print(f"CUDA {torch.version.cuda}:", ", ".join(names))
"""


State = Literal["ok", "note", "missing", "broken"]


class Finding(NamedTuple):
    """A line of the report.

    Attributes:
        state: `missing` is what could be installed, `broken` what is installed and does not work.
        about: Subject.
        text: What was found.
        fix: Command that fixes it, or empty.
    """

    state: State
    about: str
    text: str
    fix: str = ""


def installed_version(distribution: str) -> str | None:
    """Return the version of an installed distribution, or None."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def check_packages() -> list[Finding]:
    """Look for the packages of the toolkit, its extras and detectron2, which is in no extra."""
    distributions = metadata.packages_distributions()
    findings = []
    for extra, packages in (*PACKAGES.items(), (UPSTREAM, (UPSTREAM,))):
        missing = [package for package in packages if package not in distributions]
        names = dict.fromkeys(
            name for package in packages for name in distributions.get(package, ())
        )
        versions = ", ".join(f"{name} {installed_version(name)}" for name in names)
        message = f"lacks {', '.join(missing)}" if missing else versions
        state: State = ("missing" if extra else "broken") if missing else "ok"
        fix = (missing and install_command(missing[0])) or ""
        findings.append(Finding(state, extra or TOOLKIT, message, fix))
    return findings


def _requirements() -> Iterator[list[Requirement]]:
    """Yield what the toolkit itself needs, then what each extra does, most of which is there."""
    every = [*map(Requirement, metadata.requires(TOOLKIT) or ())]
    yield [requirement for requirement in every if requirement.marker is None]
    for extra in metadata.metadata(TOOLKIT).get_all("Provides-Extra") or ():
        needed = [
            requirement
            for requirement in every
            if requirement.marker and requirement.marker.evaluate({"extra": extra})
        ]
        installed = [bool(installed_version(requirement.name)) for requirement in needed]
        if sum(installed) >= _MOST * len(needed):
            yield needed


def check_versions() -> list[Finding]:
    """Compare what is installed with what its extras need of it, and let pip compare the rest."""
    conflicts = list[str]()
    for requirements in _requirements() if installed_version(TOOLKIT) else ():
        versions = [installed_version(requirement.name) for requirement in requirements]
        conflicts += [
            f"{requirement.name} is {version}, and {TOOLKIT} needs {requirement.specifier}"
            for requirement, version in zip(requirements, versions, strict=True)
            if version and not requirement.specifier.contains(version, prereleases=True)
        ]
    pip = [sys.executable, "-m", "pip", "check"]
    done = subprocess.run(pip, capture_output=True, text=True, check=False)
    conflicts += done.stdout.splitlines() if done.returncode else []
    return [Finding("broken", "versions", line) for line in dict.fromkeys(conflicts)]


def check_imports(packages: Iterable[str] = IMPORTED) -> list[Finding]:
    """Import those packages that are installed, each in another process: one may crash.

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


def _install(part: str, *, dry_run: bool) -> int:
    """Install a part into the Python that runs this; return the first exit code that is not 0."""
    installed = _FOLDER / "eva_recipes" / "third_party"
    folders = installed if installed.is_dir() else _FOLDER.parent / "third_party"
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
    add("--quick", action="store_true", help="compare versions only, import nothing")
    add("--install", choices=_PARTS, metavar="PART", help=f"install {' or '.join(_PARTS)}")
    add("--dry-run", action="store_true", help="with --install: print the commands only")
    return parser.parse_args(arguments)


def _work(options: argparse.Namespace) -> int:
    if options.install:
        return _install(options.install, dry_run=options.dry_run)
    findings = [*check_packages(), *check_versions()]
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
