"""Report what is installed, missing and broken, with the commands that fix it, or install a part.

Nothing is downloaded for the report. Exit code: 1 if something that is installed is broken.
"""

import argparse
import importlib.util
import shlex
import subprocess
import sys
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Literal, NamedTuple

from packaging.requirements import Requirement

from eva_backbone.checkpoints.registry import OFFICIAL_FILES, weights_directories
from eva_data.files import record_result
from eva_runs.commands import Command, echo
from eva_runs.extras import DETECTRON2, TOOLKIT, install_command
from eva_runs.options import command_parser

UPSTREAM, REPACKED = "detectron2", "sal-detectron2"
IMPORTED = (
    *("torch", "torchvision", "cv2", "detectron2", "mmengine", "mmcv", "mmseg", "mmdet"),
    *("deepspeed", "timm", "open_clip", "av", "onnxruntime"),
)
_FIXES = {"cv2": "apt-get install libgl1 libglib2.0-0"}  # what slim images lack
_MMCV_OPERATORS = "mmcv-operators"
_UPSTREAM_SOURCE = "git+https://github.com/facebookresearch/detectron2.git"
_PACKAGES = Path(__file__).resolve().parents[1]  # site-packages, or tools/ of a checkout
_SECONDS, _AT_ONCE = 300, 4  # imports
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
    """Check the toolkit, its extras, detectron2, mmcv's operators and packages in conflict."""
    if installed_version(TOOLKIT) is None:
        message = "runs from its source and is not installed: what its extras need is not known"
        findings = [Finding("note", TOOLKIT, message, "pip install -e CHECKOUT")]
    else:
        findings = [_check_part(name) for name in ("", *extras())]
    return [*findings, _check_detectron2(), *check_mmcv_operators(), *_check_owners()]


def _check_part(extra: str) -> Finding:
    """Check whether an extra, or "" for the toolkit itself, has all it needs."""
    missing, wrong = [], []
    for needed in requirements_of(extra):
        version = installed_version(needed.name)
        if version is None:
            missing.append(needed.name)
        elif not needed.specifier.contains(version, prereleases=True):
            wrong.append(f"{needed.name} {version}, needs {needed.specifier}")
    about = extra or TOOLKIT
    if not missing and not wrong:
        return Finding("ok", about, "complete")
    lacks = [f"lacks {', '.join(missing)}"] if missing else []
    fix = f"pip install '{TOOLKIT}[{extra}]'" if extra else f"pip install {TOOLKIT}"
    return Finding(
        "missing" if missing and extra else "broken", about, "; ".join(lacks + wrong), fix
    )


def _check_detectron2() -> Finding:
    """Check detectron2, which is in no extra: its source is chosen."""
    installed = _installed((UPSTREAM, REPACKED))
    if not installed:
        return Finding("missing", "detectron2", "not installed; detection needs it", DETECTRON2)
    return Finding("ok", "detectron2", _list_named(installed))


def check_mmcv_operators(folders: Iterable[str | Path] | None = None) -> list[Finding]:
    """Look for compiled operators, or the toolkit's in their place, beside mmcv's files.

    Args:
        folders: Folders of the package mmcv; None for where Python finds it.

    Returns:
        One finding; none where mmcv is not installed.
    """
    if folders is None:
        spec = importlib.util.find_spec("mmcv")
        folders = spec.submodule_search_locations or [] if spec else []
    names = {file.name for folder in folders for file in Path(folder).glob("*.*")}
    about = "mmcv operators"
    if "__init__.py" not in names:
        return []
    if names & {f"_ext{suffix}" for suffix in EXTENSION_SUFFIXES}:
        return [Finding("ok", about, "compiled")]
    if "_ext.py" in names:
        return [Finding("ok", about, "by torchvision and PyTorch (eva-mmcv-operators)")]
    message = "not compiled; mmdetection's own programs need them, `eva mmdetection` does not"
    return [Finding("missing", about, message, f"eva doctor --install {_MMCV_OPERATORS}")]


def _check_owners() -> list[Finding]:
    """Look for packages whose files belong to several distributions, such as to forks."""
    findings = []
    for package, names in metadata.packages_distributions().items():
        owners = _installed(sorted({*names} - {f"eva-{_MMCV_OPERATORS}"}))
        same = package == "cv2" and len({*owners.values()}) == 1  # the same files, twice
        if package in IMPORTED and len(owners) > 1 and not same:
            fix = f"pip uninstall --yes {' '.join(owners)}; {install_command(package)}"
            message = f"{_list_named(owners)} own the same files"
            findings.append(Finding("broken", package, message, fix))
    return findings


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
    try:
        done = subprocess.run(
            [sys.executable, "-c", program],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Finding("broken", name, f"its import takes more than {_SECONDS} s")
    if done.returncode == 0:
        gpus = done.stdout.strip().rpartition("\n")[2]  # below what an import prints
        none = gpus.endswith(":")
        finding = Finding("note" if none else "ok", "GPU", f"{gpus} none" if none else gpus)
        return finding if name == "torch" else None
    error = done.stderr.strip().rpartition("\n")[2][:200]
    crash = f"it ended with {done.returncode}" if done.returncode < 0 else error
    return Finding("broken", name, f"cannot be imported: {crash}", _FIXES.get(name, ""))


def _check_weights() -> list[Finding]:
    """Count the official files in the folders in which they are searched."""
    findings = []
    for folder in weights_directories():
        here = sum((folder / entry.name).is_file() for entry in OFFICIAL_FILES)
        message = f"{folder} holds {here} of {len(OFFICIAL_FILES)} official files"
        findings.append(Finding("ok" if folder.is_dir() else "note", "weights", message))
    return findings


def extras() -> list[str]:
    """List the extras that a user chooses from; none where the toolkit is not installed."""
    if installed_version(TOOLKIT) is None:
        return []
    names = metadata.metadata(TOOLKIT).get_all("Provides-Extra") or []
    return [name for name in names if name not in ("dev", "docs", "all")]


def requirements_of(extra: str) -> list[Requirement]:
    """List what an extra needs, with what its own extras need.

    Args:
        extra: Name; empty for what is always needed.

    Returns:
        Requirements; a package may be there twice, with two ranges.
    """
    requirements = []
    for requirement in map(Requirement, metadata.requires(TOOLKIT) or []):
        always, conditional = (
            requirement.marker is None or requirement.marker.evaluate({"extra": name})
            for name in ("", extra)
        )
        if not conditional or (extra and always):
            continue
        if requirement.name == TOOLKIT:
            requirements += [
                part for other in sorted(requirement.extras) for part in requirements_of(other)
            ]
        else:
            requirements.append(requirement)
    return requirements


def _installed(names: Iterable[str]) -> dict[str, str]:
    return {name: version for name in names if (version := installed_version(name))}


def _list_named(versions: dict[str, str]) -> str:
    return " and ".join(f"{name} {version}" for name, version in versions.items())


def _install_commands(package: str, source: str) -> list[list[str]]:
    """List the commands of pip that install a part, to be run one after the other."""
    pip = [sys.executable, "-m", "pip"]
    if package == _MMCV_OPERATORS:
        return [[*pip, "install", _build_folder(package)]]
    if package != UPSTREAM:
        return [[*pip, "install", f"{TOOLKIT}[{package}]"]]
    if source == "repack":
        distribution, built = REPACKED, [_build_folder(package)]
    else:  # upstream imports torch when it is built
        requirement = _UPSTREAM_SOURCE if source == "upstream" else source
        distribution, built = UPSTREAM, ["--no-build-isolation", requirement]
    others = _installed({UPSTREAM, REPACKED} - {distribution})  # which own the same files
    commands = [[*pip, "uninstall", "--yes", *others]] if others else []
    return [*commands, [*pip, "install", *built]]


def _build_folder(package: str) -> str:
    """Return the folder from which pip builds a part, in an installed package or a checkout."""
    installed = _PACKAGES / "eva_recipes" / "third_party"
    places = installed if installed.is_dir() else _PACKAGES.parent / "third_party"
    return str(places / package.replace("-", "_"))


def _install(package: str, source: str, *, dry_run: bool) -> int:
    """Install a part into the Python that runs this; return the first exit code that is not 0."""
    commands = _install_commands(package, source)
    for command in commands:
        echo(shlex.join(command))
        if not dry_run and (code := subprocess.run(command, check=False).returncode):
            return code
    return 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = command_parser(__doc__)
    add = parser.add_argument
    add("--quick", action="store_true", help="look at versions only, import nothing")
    parts = [UPSTREAM, _MMCV_OPERATORS, *extras()]
    add("--install", choices=parts, metavar="PART", help=f"install one of {', '.join(parts)}")
    add(
        "--source",
        default="repack",
        help="of detectron2: repack (default; the copy on PyPI, its SHA-256 checked), upstream "
        "(its repository, needs git and a C++ compiler), or what pip takes as a requirement",
    )
    add("--dry-run", action="store_true", help="with --install: print the commands only")
    return parser.parse_args(arguments)


def _work(options: argparse.Namespace) -> int:
    if options.install:
        return _install(options.install, options.source, dry_run=options.dry_run)
    findings = check_versions()
    if not options.quick:
        findings += [*check_imports(), *_check_weights()]
    width = max(len(finding.about) for finding in findings)
    for state, about, message, fix in findings:
        shown = state.upper() if state == "broken" else state
        echo(f"{shown:<7}  {about:<{width}}  {message}")
        if fix:
            echo(f"{'':{width + 11}}-> {fix}")
    record_result([finding._asdict() for finding in findings])
    return int(any(finding.state == "broken" for finding in findings))


main = Command("eva doctor", _parse, _work)
