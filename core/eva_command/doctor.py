"""`eva doctor`: what is installed, missing and broken, and how a part is installed."""

import argparse
import importlib.util
import json
import shlex
import subprocess
import sys
from collections.abc import Iterable, Sequence
from importlib import metadata
from importlib.machinery import EXTENSION_SUFFIXES, PathFinder
from pathlib import Path
from typing import Any, Literal, NamedTuple

from packaging.requirements import Requirement

from eva_backbone.checkpoints.registry import OFFICIAL_FILES, weights_directories
from eva_runs.commands import program, say
from eva_runs.extras import DETECTRON2, TOOLKIT

UPSTREAM, REPACKED = "detectron2", "sal-detectron2"
FORKS = {  # maintained fork -> distributions that own the same files
    "onedl-mmengine": ("mmengine", "mmengine-lite"),
    "onedl-mmcv": ("mmcv", "mmcv-lite", "mmcv-full"),
    "onedl-mmdetection": ("mmdet",),
    "onedl-mmsegmentation": ("mmsegmentation",),
}
OPENCVS = ("opencv-python", "opencv-python-headless",
           "opencv-contrib-python", "opencv-contrib-python-headless")  # fmt: skip
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
    own = installed_version(TOOLKIT)
    if own is None:
        text = "runs from its source and is not installed: what its extras need is not known"
        findings = [Finding("note", TOOLKIT, text, "pip install -e CHECKOUT")]
    else:
        findings = [_check_part(name) for name in ("", *extras())]
    return [*findings, _check_detectron2(), *check_mmcv_operators(), *check_pairs()]


def _check_part(extra: str) -> Finding:
    """Check whether an extra, or "" for the toolkit itself, has all it needs."""
    missing, wrong = [], []
    for needed in requirements_of(extra):
        found = installed_version(needed.name)
        if found is None:
            missing.append(needed.name)
        elif not needed.specifier.contains(found, prereleases=True):
            wrong.append(f"{needed.name} {found}, needs {needed.specifier}")
    if not missing and not wrong:
        return Finding("ok", extra or TOOLKIT, "complete")
    lacks = [f"lacks {', '.join(missing)}"] if missing else []
    fix = f"pip install '{TOOLKIT}[{extra}]'" if extra else f"pip install {TOOLKIT}"
    state: Literal["missing", "broken"] = "missing" if missing and extra else "broken"
    return Finding(state, extra or TOOLKIT, "; ".join(lacks + wrong), fix)


def _check_detectron2() -> Finding:
    """Check detectron2, which is in no extra: its source is chosen."""
    found = _installed((UPSTREAM, REPACKED))
    if len(found) == 2:
        fix = f"pip uninstall --yes {UPSTREAM} {REPACKED}; {DETECTRON2}"
        return Finding("broken", "detectron2", f"{_named(found)} own the same files", fix)
    if not found:
        return Finding("missing", "detectron2", "not installed; detection needs it", DETECTRON2)
    return Finding("ok", "detectron2", _named(found))


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
    text = "not compiled; mmdetection's own programs need them, `eva mmdetection` does not"
    return [Finding("missing", about, text, f"eva doctor --install {_MMCV_OPERATORS}")]


def check_pairs() -> list[Finding]:
    """Look for distributions that own the same files as another one that is installed."""
    findings = []
    pairs = [(fork, original) for fork, originals in FORKS.items() for original in originals]
    for fork, original in pairs:
        found = _installed((original, fork))
        if original in found:
            fix = f"pip uninstall --yes {original} {fork}; pip install '{TOOLKIT}[segmentation]'"
            both = fork in found
            text = "own the same files" if both else f"is there in place of {fork}, which is tested"
            state: Literal["broken", "note"] = "broken" if both else "note"
            findings.append(Finding(state, original, f"{_named(found)} {text}", fix))
    opencvs = _installed(OPENCVS)
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
    begun, findings = "", []
    for line in _import_lines([one for one in packages if importlib.util.find_spec(one)]):
        begun = line.get("begun", "")
        if line.get("error"):
            findings.append(_import_failed(line["name"], line["error"]))
        if "gpus" in line:
            findings.append(_gpu(line["gpus"], line["cuda"]))
    if begun:
        findings.append(_import_failed(begun, "its import crashed, or took too long"))
    return findings


def _import_lines(packages: list[str]) -> list[dict[str, Any]]:
    command = [sys.executable, "-c", _IMPORT_PROGRAM, *packages]
    try:
        text = subprocess.run(
            command, capture_output=True, timeout=_IMPORT_SECONDS, check=False
        ).stdout
    except subprocess.TimeoutExpired as expired:
        text = expired.stdout or b""
    return [json.loads(line) for line in text.splitlines() if line.startswith(b"{")]


def _import_failed(name: str, error: str) -> Finding:
    if name in _OPTIONAL:
        return Finding("note", name, f"cannot be imported; {_OPTIONAL[name]}")
    first = " ".join(error.split())[:200]
    return Finding("broken", name, f"cannot be imported: {first}", _LIBRARIES.get(name, ""))


def _gpu(gpus: list[str], cuda: str | None) -> Finding:
    if gpus:
        return Finding("ok", "GPU", f"{', '.join(gpus)} (CUDA {cuda})")
    return Finding("note", "GPU", f"none that torch (CUDA: {cuda}) can use")


def _check_weights() -> list[Finding]:
    """Count the official files in the folders in which they are searched."""
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
    for one in map(Requirement, metadata.requires(TOOLKIT) or []):
        always, wanted = (
            one.marker is None or one.marker.evaluate({"extra": name}) for name in ("", extra)
        )
        wanted = wanted and (not extra or not always)
        if wanted and one.name == TOOLKIT:
            found += [part for other in sorted(one.extras) for part in requirements_of(other)]
        elif wanted:
            found.append(one)
    return found


def _installed(names: Iterable[str]) -> dict[str, str]:
    versions = {name: installed_version(name) for name in names}
    return {name: version for name, version in versions.items() if version is not None}


def _named(versions: dict[str, str]) -> str:
    return " and ".join(f"{name} {version}" for name, version in versions.items())


def _install_commands(what: str, source: str) -> list[list[str]]:
    """List the commands of pip that install a part, to be run one after the other."""
    pip = [sys.executable, "-m", "pip"]
    if what == _MMCV_OPERATORS:
        return [[*pip, "install", str(_build_folder(what))]]
    if what != UPSTREAM:
        if what not in extras():
            known = ", ".join([UPSTREAM, _MMCV_OPERATORS, *extras()])
            raise ValueError(f"--install {what}: there is no such part; known are {known}")
        return [[*pip, "install", f"{TOOLKIT}[{what}]"]]
    wanted = REPACKED if source == "repack" else UPSTREAM
    others = _installed({UPSTREAM, REPACKED} - {wanted})  # which own the same files
    commands = [[*pip, "uninstall", "--yes", *others]] if others else []
    if source == "repack":
        return [*commands, [*pip, "install", str(_build_folder(what))]]
    # upstream imports torch when it is built
    requirement = _UPSTREAM_SOURCE if source == "upstream" else source
    return [*commands, [*pip, "install", "--no-build-isolation", requirement]]


def _build_folder(what: str) -> Path:
    """Return the folder from which pip builds a part, in an installed package or a checkout."""
    installed = _PACKAGES / "eva_recipes" / "third_party"
    places = installed if installed.is_dir() else _PACKAGES.parent / "third_party"
    return places / what.replace("-", "_")


def _install(what: str, source: str, *, dry_run: bool) -> int:
    """Install a part into the Python that runs this; return the first exit code that is not 0."""
    commands = _install_commands(what, source)
    # not importlib.util.find_spec: setuptools' hook answers it for pip, with a warning
    if not dry_run and PathFinder.find_spec("pip") is None:
        raise ValueError(f"{sys.executable} has no pip; `python -m ensurepip` adds it")
    for command in commands:
        say(shlex.join(command))
        if not dry_run and (code := subprocess.run(command, check=False).returncode):
            return code
    return 0


def _report(findings: Sequence[Finding]) -> str:
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
    add("--source", default="repack",
        help="of detectron2: repack (default; the copy on PyPI, its SHA-256 checked), upstream "
        "(its repository, needs git and a C++ compiler), or what pip takes as a requirement",
        )  # fmt: skip
    add("--dry-run", action="store_true", help="with --install: print the commands only")
    return parser.parse_args(arguments)


def _work(options: argparse.Namespace) -> int:
    if options.install:
        return _install(options.install, options.source, dry_run=options.dry_run)
    findings = check_versions()
    if not options.quick:
        findings += [*check_imports(), *_check_weights()]
    say(_report(findings))
    return 1 if any(finding.state == "broken" for finding in findings) else 0


main = program(_parse, _work)
