"""Installed packages against what the toolkit and its extras need, by their metadata alone."""

import platform
from collections.abc import Callable
from importlib import metadata

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from eva_command.doctor.findings import Finding
from eva_runs.extras import DETECTRON2, TOOLKIT

UPSTREAM, REPACKED = "detectron2", "sal-detectron2"
FORKS = {  # maintained fork -> distributions that own the same files
    "onedl-mmengine": ("mmengine", "mmengine-lite"),
    "onedl-mmcv": ("mmcv", "mmcv-lite", "mmcv-full"),
    "onedl-mmdetection": ("mmdet",),
    "onedl-mmsegmentation": ("mmsegmentation",),
}
OPENCVS = (
    "opencv-python",
    "opencv-python-headless",
    "opencv-contrib-python",
    "opencv-contrib-python-headless",
)
_UNTESTED_PYTHON = (3, 14)
_FOR_DEVELOPMENT = ("dev", "all")

Version = Callable[[str], str | None]


def installed_version(distribution: str) -> str | None:
    """Return the version of an installed distribution, or None."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def check_toolkit(version: Version = installed_version) -> list[Finding]:
    """Check Python, and what every part of the toolkit needs.

    Args:
        version: Versions of distributions.

    Returns:
        A finding for Python, the toolkit and each package.
    """
    python = platform.python_version()
    known = tuple(map(int, python.split(".")[:2]))
    wanted = _own("Requires-Python") or ">=3.11"
    if not SpecifierSet(wanted).contains(python, prereleases=True):
        findings = [Finding("broken", "Python", f"{python}; the toolkit needs {wanted}")]
    elif known >= _UNTESTED_PYTHON:
        findings = [Finding("note", "Python", f"{python}; 3.11 to 3.13 are tested")]
    else:
        findings = [Finding("ok", "Python", python)]
    own = version(TOOLKIT)
    if own is None:
        text = "runs from its source and is not installed: what its extras need is not known"
        return [*findings, Finding("note", TOOLKIT, text, "pip install -e CHECKOUT")]
    findings.append(Finding("ok", TOOLKIT, own))
    for requirement in requirements_of(""):
        found = version(requirement.name)
        wanted = str(requirement.specifier)
        fix = f"pip install '{requirement.name}{wanted}'"
        if found is None:
            findings.append(Finding("broken", requirement.name, f"not installed; {wanted}", fix))
        elif not _fits(requirement, found):
            findings.append(Finding("broken", requirement.name, f"{found}; needs {wanted}", fix))
        else:
            findings.append(Finding("ok", requirement.name, found))
    return findings


def check_extras(version: Version = installed_version) -> list[Finding]:
    """Check which extras are complete.

    Args:
        version: Versions of distributions.

    Returns:
        A finding for each extra. One that is complete but for a version is broken.
    """
    return [_check_extra(extra, version) for extra in extras()]


def _check_extra(extra: str, version: Version) -> Finding:
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


def check_detectron2(version: Version = installed_version) -> Finding:
    """Check detectron2, which is in no extra: its source is chosen.

    Args:
        version: Versions of distributions.
    """
    both = {name: found for name in (UPSTREAM, REPACKED) if (found := version(name)) is not None}
    if len(both) == 2:
        fix = f"pip uninstall --yes {UPSTREAM} {REPACKED}; {DETECTRON2}"
        return Finding("broken", "detectron2", f"{_named(both)} own the same files", fix)
    if not both:
        return Finding("missing", "detectron2", "not installed; detection needs it", DETECTRON2)
    return Finding("ok", "detectron2", _named(both))


def check_pairs(version: Version = installed_version) -> list[Finding]:
    """Look for distributions that must not stand beside each other.

    Args:
        version: Versions of distributions.

    Returns:
        A finding for each pair that is there.
    """
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


def extras() -> list[str]:
    """List the extras that a user chooses from; none where the toolkit is not installed."""
    if installed_version(TOOLKIT) is None:
        return []
    names = metadata.metadata(TOOLKIT).get_all("Provides-Extra") or []
    return [name for name in names if name not in _FOR_DEVELOPMENT]


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


def _own(field: str) -> str | None:
    if installed_version(TOOLKIT) is None:
        return None
    values = metadata.metadata(TOOLKIT).get_all(field) or [None]
    return values[0]


def _fits(requirement: Requirement, version: str) -> bool:
    return requirement.specifier.contains(version, prereleases=True)


def _named(versions: dict[str, str]) -> str:
    return " and ".join(f"{name} {version}" for name, version in versions.items())
