"""The manifest of a data set: its generator, settings and contents.

It decides whether a folder is complete, and whether it may be replaced.
"""

import hashlib
import importlib.metadata
import json
import platform
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

MANIFEST = "manifest.json"
_GENERATOR = "tools/make_demo_data.py"
_PACKAGES = ("numpy", "pillow", "pycocotools", "scikit-image", "scikit-learn")


def read_manifest(output: Path) -> dict[str, Any] | None:
    """Read the manifest of a folder; None if it has none that this program wrote."""
    try:
        manifest = json.loads((output / MANIFEST).read_text())
    except (OSError, ValueError):
        return None
    ours = isinstance(manifest, dict) and manifest.get("generator") == _GENERATOR
    return manifest if ours else None


def is_ours(output: Path, formats: Collection[str]) -> bool:
    """Return whether replacing a folder deletes nothing but what this program wrote.

    Args:
        output: The folder.
        formats: Names of all formats, which are the names of their folders.
    """
    if read_manifest(output) is None:
        return False
    return {path.name for path in output.iterdir()} <= {MANIFEST, *formats}


def difference(output: Path, settings: Mapping[str, Any] | None = None) -> str:
    """Find out what keeps a folder from being the complete data set of some settings.

    Args:
        output: The folder.
        settings: Settings as the manifest holds them; None for any.

    Returns:
        The end of a sentence that starts with the folder's name; empty if nothing is wrong.
    """
    manifest = read_manifest(output)
    if manifest is None:
        return f"is not demo data ({MANIFEST} is missing or not by this program)"
    there = manifest["settings"]
    for name, wanted in (settings or {}).items():
        if there.get(name) != wanted:
            return f"was made with {name}={there.get(name)}, not {wanted}"
    for name, digest in manifest["sha256"].items():
        file = output / name
        if not file.is_file() or _sha256(file) != digest:
            return f"is damaged ({name} is missing or was changed)"
    files = sum(path.is_file() for path in output.rglob("*"))
    if files != manifest["files"]:
        return f"is damaged (it has {files} files, not {manifest['files']})"
    return ""


def write_manifest(root: Path, settings: Mapping[str, Any], files: Collection[Path]) -> None:
    """Write the manifest of a data set of which everything else is written.

    Args:
        root: Folder of the data set.
        settings: Settings that decide its bytes.
        files: Files whose sha256 it records.
    """
    import cv2

    packages = (*_PACKAGES, "av") if "video" in settings["formats"] else _PACKAGES
    manifest = {
        "generator": _GENERATOR,
        "settings": settings,
        "sha256": {path.relative_to(root).as_posix(): _sha256(path) for path in files},
        "files": 1 + sum(path.is_file() for path in root.rglob("*")),  # with this one
        "versions": {
            "python": platform.python_version(),
            "opencv": cv2.__version__,
            **{name: importlib.metadata.version(name) for name in packages},
        },
    }
    (root / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()
