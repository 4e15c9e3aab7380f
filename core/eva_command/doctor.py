"""`eva doctor`: what is installed, missing and broken, and how a part is installed."""

import argparse
import importlib.util
import json
import platform
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from importlib import metadata
from importlib.machinery import EXTENSION_SUFFIXES, PathFinder
from pathlib import Path
from typing import Any, Literal, NamedTuple

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from eva_runs.commands import program, say
from eva_runs.extras import DETECTRON2, TOOLKIT

UPSTREAM, REPACKED = "detectron2", "sal-detectron2"
FORKS = {  # maintained fork -> distributions that own the same files
    "onedl-mmengine": ("mmengine", "mmengine-lite"),
    "onedl-mmcv": ("mmcv", "mmcv-lite", "mmcv-full"),
    "onedl-mmdetection": ("mmdet",),
    "onedl-mmsegmentation": ("mmsegmentation",),
}
OPENCVS = tuple(
    f"opencv-{kind}{headless}"
    for kind in ("python", "contrib-python")
    for headless in ("", "-headless")
)
IMPORTED = (
    *("torch", "torchvision", "cv2", "detectron2", "mmengine", "mmcv", "mmseg", "mmdet"),
    *("deepspeed", "timm", "open_clip", "av", "onnxruntime", "torchcodec"),
)
_OPTIONAL = {"torchcodec": "videos are decoded by PyAV; it needs FFmpeg's shared libraries"}
_LIBRARIES = {"cv2": "apt-get install libgl1 libglib2.0-0"}  # what slim images lack
_MMCV_OPERATORS = "mmcv-operators"
_UPSTREAM_SOURCE = "git+https://github.com/facebookresearch/detectron2.git"
_PACKAGES = Path(__file__).resolve().parents[1]  # site-packages, or core/ of a checkout
_IMPORT_SECONDS = 300
_IMPORT_PROGRAM = """
import importlib, json, os, sys
out = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)
for name in sys.argv[1:]:
    print(json.dumps({"begun": name}), file=out, flush=True)
    try:
        importlib.import_module(name)
        error = ""
    except BaseException as caught:
        error = f"{type(caught).__name__}: {caught}"
    print(json.dumps({"name": name, "error": error}), file=out, flush=True)
if "torch" in sys.modules and hasattr(sys.modules["torch"], "cuda"):
    torch = sys.modules["torch"]
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    gpus = [torch.cuda.get_device_name(i) for i in range(count)]
    print(json.dumps({"cuda": torch.version.cuda, "gpus": gpus}), file=out, flush=True)
"""

State = Literal["ok", "note", "missing", "broken"]
Version = Callable[[str], str | None]


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


def examine(*, quick: bool = False, version: Version = installed_version) -> list[Finding]:
    """Examine this Python.

    Args:
        quick: Look at versions only, import nothing.
        version: Function that returns versions of distributions.

    Returns:
        Findings, in the order of the report.
    """
    findings = check_toolkit(version)
    findings += [_check_extra(extra, version) for extra in extras()]
    findings += [_check_detectron2(version), *check_mmcv_operators(), *check_pairs(version)]
    if not quick:
        findings += [*check_imports(), *_check_weights()]
    return findings


def check_toolkit(version: Version = installed_version) -> list[Finding]:
    """Check Python, and what every part of the toolkit needs."""
    python, wanted = platform.python_version(), ">=3.11"
    own = version(TOOLKIT)
    right = SpecifierSet(wanted).contains(python, prereleases=True)
    findings = [Finding("ok" if right else "broken", "Python", f"{python} (needs {wanted})")]
    if own is None:
        text = "runs from its source and is not installed: what its extras need is not known"
        return [*findings, Finding("note", TOOLKIT, text, "pip install -e CHECKOUT")]
    findings.append(Finding("ok", TOOLKIT, own))
    for needed in requirements_of(""):
        found = version(needed.name)
        fix = f"pip install '{needed.name}{needed.specifier}'"
        if found is None:
            findings.append(Finding("broken", needed.name, "not installed", fix))
        elif not _fits(needed, found):
            text = f"{found}; needs {needed.specifier}"
            findings.append(Finding("broken", needed.name, text, fix))
    return findings


def _check_extra(extra: str, version: Version) -> Finding:
    """Check whether an extra is complete; one that is complete but for a version is broken."""
    needed = requirements_of(extra)
    fix = f"pip install '{TOOLKIT}[{extra}]'"
    missing = [one.name for one in needed if version(one.name) is None]
    wrong = [
        f"{one.name} {found}, needs {one.specifier}"
        for one in needed
        if (found := version(one.name)) is not None and not _fits(one, found)
    ]
    if missing:
        return Finding("missing", extra, ", ".join(["lacks " + ", ".join(missing), *wrong]), fix)
    if wrong:
        return Finding("broken", extra, "; ".join(wrong), fix)
    return Finding("ok", extra, "complete")


def _check_detectron2(version: Version) -> Finding:
    """Check detectron2, which is in no extra: its source is chosen."""
    both = {name: found for name in (UPSTREAM, REPACKED) if (found := version(name)) is not None}
    if len(both) == 2:
        fix = f"pip uninstall --yes {UPSTREAM} {REPACKED}; {DETECTRON2}"
        return Finding("broken", "detectron2", f"{_named(both)} own the same files", fix)
    if not both:
        return Finding("missing", "detectron2", "not installed; detection needs it", DETECTRON2)
    return Finding("ok", "detectron2", _named(both))


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
    about, places = "mmcv operators", [Path(folder) for folder in folders]

    def has(name: str) -> bool:
        return any((folder / name).is_file() for folder in places)

    if not has("__init__.py"):
        return []
    if any(has(f"_ext{suffix}") for suffix in EXTENSION_SUFFIXES):
        return [Finding("ok", about, "compiled")]
    if has("_ext.py"):
        return [Finding("ok", about, "by torchvision and PyTorch (eva-mmcv-operators)")]
    text = "not compiled; mmdetection's own programs need them, `eva mmdetection` does not"
    return [Finding("missing", about, text, f"eva doctor --install {_MMCV_OPERATORS}")]


def check_pairs(version: Version = installed_version) -> list[Finding]:
    """Look for distributions that own the same files as another one that is installed."""
    findings = []
    for fork, originals in FORKS.items():
        for original in originals:
            if (found := version(original)) is None:
                continue
            fix = f"pip uninstall --yes {original} {fork}; pip install '{TOOLKIT}[segmentation]'"
            if version(fork) is None:
                text = f"{original} {found} is there in place of {fork}, which is tested"
                findings.append(Finding("note", original, text, fix))
            else:
                text = f"{original} {found} and {fork} {version(fork)} own the same files"
                findings.append(Finding("broken", original, text, fix))
    opencvs = {name: found for name in OPENCVS if (found := version(name)) is not None}
    if len(set(opencvs.values())) > 1:
        fix = f"pip uninstall --yes {' '.join(opencvs)}; pip install '{TOOLKIT}[segmentation]'"
        text = f"{_named(opencvs)} own the same files, and differ"
        findings.append(Finding("broken", "OpenCV", text, fix))
    return findings


def check_imports(packages: Sequence[str] = IMPORTED) -> list[Finding]:
    """Import the packages that are installed, in another process: one may crash.

    Args:
        packages: Names under which they are imported.

    Returns:
        A finding for each that fails, and one for the GPU if torch can be imported.
    """
    there = [name for name in packages if importlib.util.find_spec(name) is not None]
    begun, findings = "", []
    for line in _import_lines(there):
        begun = str(line.get("begun", begun))
        if "error" in line:
            begun = ""
            if line["error"]:
                findings.append(_import_failed(line["name"], line["error"]))
        if "gpus" in line:
            findings.append(_gpu(line["gpus"], line["cuda"]))
    if begun:
        findings.append(_import_failed(begun, "its import crashed, or took too long"))
    return findings


def _import_lines(packages: list[str]) -> list[dict[str, Any]]:
    command = [sys.executable, "-c", _IMPORT_PROGRAM, *packages]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_IMPORT_SECONDS, check=False
        )
        text = done.stdout
    except subprocess.TimeoutExpired as expired:
        text = (expired.stdout or b"").decode(errors="replace")
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


def _import_failed(name: str, error: str) -> Finding:
    if name in _OPTIONAL:
        return Finding("note", name, f"cannot be imported; {_OPTIONAL[name]}")
    first = " ".join(error.split())[:200]
    return Finding("broken", name, f"cannot be imported: {first}", _LIBRARIES.get(name, ""))


def _gpu(gpus: list[str], cuda: str | None) -> Finding:
    if gpus:
        return Finding("ok", "GPU", f"{', '.join(gpus)} (CUDA {cuda})")
    if cuda is None:
        return Finding("note", "GPU", "torch is a build without CUDA; everything runs on the CPU")
    return Finding("note", "GPU", f"none that torch (CUDA {cuda}) can use")


def _check_weights() -> list[Finding]:
    """Count the official files in the folders in which they are searched."""
    try:
        from eva_backbone.checkpoints.registry import OFFICIAL_FILES, weights_directories
    except ImportError:  # torch is missing or broken, which was said
        return []
    findings = []
    for folder in weights_directories():
        here = sum((folder / entry.name).is_file() for entry in OFFICIAL_FILES)
        text = f"{folder} holds {here} of {len(OFFICIAL_FILES)} official files"
        findings.append(Finding("ok" if folder.is_dir() else "note", "weights", text))
    return findings


def extras() -> list[str]:
    """List the extras that a user chooses from; none where the toolkit is not installed."""
    if installed_version(TOOLKIT) is None:
        return []
    names = metadata.metadata(TOOLKIT).get_all("Provides-Extra") or []
    return [name for name in names if name not in ("dev", "all")]


def requirements_of(extra: str) -> list[Requirement]:
    """List what an extra needs, with what its own extras need.

    Args:
        extra: Name; empty for what is always needed.

    Returns:
        Requirements; a package may be there twice, with two ranges.
    """
    found = []
    for text in metadata.requires(TOOLKIT) or []:
        requirement = Requirement(text)
        if requirement.marker is None:
            belongs = not extra
        else:
            always = requirement.marker.evaluate({"extra": ""})
            belongs = requirement.marker.evaluate({"extra": extra}) and (not extra or not always)
        if belongs and requirement.name == TOOLKIT:
            found += [one for other in sorted(requirement.extras) for one in requirements_of(other)]
        elif belongs:
            found.append(requirement)
    return found


def _fits(requirement: Requirement, version: str) -> bool:
    return requirement.specifier.contains(version, prereleases=True)


def _named(versions: dict[str, str]) -> str:
    return " and ".join(f"{name} {version}" for name, version in versions.items())


def install_commands(what: str, source: str = "repack") -> list[list[str]]:
    """List the commands of pip that install a part of the toolkit.

    Args:
        what: `detectron2`, `mmcv-operators`, or an extra.
        source: Source of detectron2: `repack`, the copy on PyPI whose SHA-256 is checked;
            `upstream`, its repository, compiled here; or what pip takes as a requirement.

    Returns:
        Commands, to be run one after the other.

    Raises:
        ValueError: If there is no such part.
    """
    pip = [sys.executable, "-m", "pip"]
    if what == _MMCV_OPERATORS:
        return [[*pip, "install", str(_build_folder(what))]]
    if what != UPSTREAM:
        if what not in extras():
            known = ", ".join([UPSTREAM, _MMCV_OPERATORS, *extras()])
            raise ValueError(f"--install {what}: there is no such part; known are {known}")
        return [[*pip, "install", f"{TOOLKIT}[{what}]"]]
    wanted = REPACKED if source == "repack" else UPSTREAM
    others = [name for name in (UPSTREAM, REPACKED) if installed_version(name) and name != wanted]
    commands = [[*pip, "uninstall", "--yes", *others]] if others else []  # own the same files
    if source == "repack":
        return [*commands, [*pip, "install", str(_build_folder(what))]]
    # upstream imports torch when it is built
    requirement = _UPSTREAM_SOURCE if source == "upstream" else source
    return [*commands, [*pip, "install", "--no-build-isolation", requirement]]


def _build_folder(what: str) -> Path:
    """Return the folder from which pip builds a part, in a checkout or an installed package."""
    name = what.replace("-", "_")
    for folder in (_PACKAGES / "eva_recipes" / "third_party", _PACKAGES.parent / "third_party"):
        if (folder / name / "pyproject.toml").is_file():
            return folder / name
    raise FileNotFoundError(f"the build of {what} is not below {_PACKAGES}; reinstall {TOOLKIT}")


def install(what: str, source: str, *, dry_run: bool) -> int:
    """Install a part of the toolkit into the Python that runs this.

    Args:
        what: As for `install_commands`.
        source: As there.
        dry_run: Print the commands only.

    Returns:
        The exit code of the first command that fails, or 0.

    Raises:
        ValueError: If there is no such part, or this Python has no pip.
    """
    commands = install_commands(what, source)
    # not importlib.util.find_spec: setuptools' hook answers it for pip, with a warning
    if not dry_run and PathFinder.find_spec("pip") is None:
        raise ValueError(f"{sys.executable} has no pip; `python -m ensurepip` adds it")
    for command in commands:
        say(shlex.join(command))
        if not dry_run:
            sys.stdout.flush()
            code = subprocess.run(command, check=False).returncode
            if code:
                return code
    return 0


def report(findings: Sequence[Finding]) -> str:
    """Format findings as lines, those with a fix followed by it."""
    width = max(len(finding.about) for finding in findings)
    lines = []
    for finding in findings:
        state = finding.state.upper() if finding.state == "broken" else finding.state
        lines.append(f"{state:<7}  {finding.about:<{width}}  {finding.text}")
        if finding.fix:
            lines.append(f"{'':{width + 11}}-> {finding.fix}")
    return "\n".join(lines)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="eva doctor",
        allow_abbrev=False,
        description="Say what is installed, missing and broken, with the commands that fix it; "
        "nothing is downloaded. Exit code: 1 if something that is installed is broken.",
    )
    add = parser.add_argument
    add("--quick", action="store_true", help="look at versions only, import nothing")
    add("--install", metavar="PART", help="install detectron2, mmcv-operators or an extra")
    add(
        "--source",
        metavar="SOURCE",
        default="repack",
        help="of detectron2: repack (default; the copy on PyPI, its SHA-256 checked), upstream "
        "(its repository, needs git and a C++ compiler), or what pip takes as a requirement",
    )
    add("--dry-run", action="store_true", help="with --install: print the commands only")
    return parser.parse_args(arguments)


def _work(options: argparse.Namespace) -> int:
    if options.install:
        return install(options.install, options.source, dry_run=options.dry_run)
    findings = examine(quick=options.quick)
    say(report(findings))
    return 1 if any(finding.state == "broken" for finding in findings) else 0


main = program(_parse, _work)
