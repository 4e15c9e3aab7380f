"""A dataset of digit scenes, written into a temporary folder and renamed.

Its manifest has generator, settings and digests: whether a folder is complete, or may be replaced.
"""

import functools
import importlib.metadata
import json
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2

from eva_backbone.checkpoints.verification import sha256_of
from eva_data.files import remove_leftovers, replace_folder
from eva_data.pools import ordered_map
from eva_demo.captions import CAPTION_VERSION
from eva_demo.clips import CLIP_VERSION
from eva_demo.formats import FORMATS
from eva_demo.scenes import SCENE_VERSION
from eva_demo.sources import SPLITS, Split

_MANIFEST = "manifest.json"
_GENERATOR = "tools/make_demo_data.py"
_PACKAGES = ("numpy", "pillow", "pycocotools", "scikit-image", "scikit-learn")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """All that decides the bytes of a dataset.

    Attributes:
        formats: Names in `FORMATS`, sorted.
        train: Number of training scenes.
        val: Number of validation scenes.
        size: Height and width of a scene in pixels.
        seed: Seed of all scenes.
    """

    formats: tuple[str, ...]
    train: int
    val: int
    size: int
    seed: int

    def as_json(self) -> dict[str, Any]:
        """Make the part of the manifest: the settings and the versions of the generators."""
        settings = {**asdict(self), "formats": list(self.formats), "scene_version": SCENE_VERSION}
        if "video" in self.formats:
            settings["clip_version"] = CLIP_VERSION
        if "captions" in self.formats:
            settings["caption_version"] = CAPTION_VERSION
        return settings


def make_demo_data(
    output: Path, settings: Settings, *, workers: int = 1, overwrite: bool = False
) -> bool:
    """Write a dataset, or leave an equal one as it is.

    Args:
        output: Folder to make; it appears when it is complete.
        settings: Formats, sizes and seed.
        workers: Number of processes; the bytes do not depend on it.
        overwrite: Replace another or a damaged dataset.

    Returns:
        True if it was written, False if it was already there.

    Raises:
        ValueError: If another or a damaged dataset, or something that is not one of this program,
            is in the way, or the settings leave no room for the digits.
    """
    output = output.resolve()
    remove_leftovers(output)
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        manifest = _read_manifest(output)
        if manifest is None or not {path.name for path in output.iterdir()} <= {
            _MANIFEST,
            *FORMATS,
        }:
            raise ValueError(
                f"{output} holds files that this program did not write: name another --output"
            )
        problem = _difference(output, manifest, settings.as_json())
        if not problem:
            return False
        if not overwrite:
            raise ValueError(f"{output} {problem}; give --overwrite to replace it")
    with replace_folder(output) as partial:
        files: list[Path] = []
        for name in settings.formats:
            made: dict[Split, list[Any]] = {}
            for split, count in zip(SPLITS, (settings.train, settings.val), strict=True):
                work = functools.partial(_export, name, partial / name, split, settings)
                results = ordered_map(work, range(count), workers=workers, title=split, chunk=16)
                made[split] = list(results)
            files += FORMATS[name].finish(partial / name, made)
        _write_manifest(partial, settings, files)
    return True


@functools.lru_cache(maxsize=2)
def _generator(name: str, split: Split, size: int, seed: int) -> Any:
    return FORMATS[name].make_generator(split, size, seed)


def _export(name: str, folder: Path, split: Split, settings: Settings, index: int) -> Any:
    made = _generator(name, split, settings.size, settings.seed).make(index)
    return FORMATS[name].export(folder, split, index, made)


def _read_manifest(output: Path) -> dict[str, Any] | None:
    """Read the manifest of a folder; None if it has none that this program wrote."""
    try:
        manifest = json.loads((output / _MANIFEST).read_text())
    except (OSError, ValueError):
        return None
    ours = isinstance(manifest, dict) and manifest.get("generator") == _GENERATOR
    return manifest if ours else None


def _difference(output: Path, manifest: Mapping[str, Any], settings: Mapping[str, Any]) -> str:
    """Say what keeps a folder from being the complete dataset of some settings; "" if nothing."""
    settings_before = manifest["settings"]
    for name, value in settings.items():
        if settings_before.get(name) != value:
            return f"was made with {name}={settings_before.get(name)}, not {value}"
    for name, digest in manifest["sha256"].items():
        file = output / name
        if not file.is_file() or sha256_of(file) != digest:
            return f"is damaged ({name} is missing or was changed)"
    files = sum(path.is_file() for path in output.rglob("*"))
    if files != manifest["files"]:
        return f"is damaged (it has {files} files, not {manifest['files']})"
    return ""


def _write_manifest(root: Path, settings: Settings, files: list[Path]) -> None:
    packages = (*_PACKAGES, "av") if "video" in settings.formats else _PACKAGES
    manifest = {
        "generator": _GENERATOR,
        "settings": settings.as_json(),
        "sha256": {path.relative_to(root).as_posix(): sha256_of(path) for path in files},
        "files": 1 + sum(path.is_file() for path in root.rglob("*")),  # with this one
        "versions": {
            "python": platform.python_version(),
            "opencv": cv2.__version__,
            **{name: importlib.metadata.version(name) for name in packages},
        },
    }
    (root / _MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")
