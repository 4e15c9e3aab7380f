"""A dataset of digit scenes: written into a temporary folder, checked, and renamed.

Its manifest has generator, settings and digests: whether a folder is complete, or may be replaced.
"""

import functools
import hashlib
import importlib.metadata
import json
import platform
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eva_data.files import remove_leftovers, replacing_folder
from eva_data.pools import ordered_map
from eva_demo.formats.captions import CAPTIONED_DIGITS
from eva_demo.formats.coco import COCO_INSTANCES
from eva_demo.formats.folder import CLASS_FOLDERS
from eva_demo.formats.format import Format, demand
from eva_demo.formats.semantic import SEMANTIC_MAPS
from eva_demo.formats.video import MOTION_CLIPS
from eva_demo.formats.voc import VOC_BOXES
from eva_demo.formats.yolo import YOLO_OUTLINES

# Libraries for pictures are imported where they are used, so that --help comes at once.
if TYPE_CHECKING:
    from eva_demo.splits import Split

# Name -> format; the name is that of its folder in the data set. A new format is one more entry.
FORMATS: Mapping[str, Format] = {
    "captions": CAPTIONED_DIGITS,
    "coco": COCO_INSTANCES,
    "folder": CLASS_FOLDERS,
    "semantic": SEMANTIC_MAPS,
    "video": MOTION_CLIPS,
    "voc": VOC_BOXES,
    "yolo": YOLO_OUTLINES,
}

MANIFEST = "manifest.json"
_GENERATOR = "tools/make_demo_data.py"
_PACKAGES = ("numpy", "pillow", "pycocotools", "scikit-image", "scikit-learn")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """All that decides the bytes of a data set.

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

    @property
    def counts(self) -> Mapping["Split", int]:
        """Number of scenes of each split."""
        return {"train": self.train, "val": self.val}

    def as_json(self) -> dict[str, Any]:
        """Make the part of the manifest: the settings and the versions of the generators."""
        from eva_demo.captioned_digits import CAPTION_VERSION
        from eva_demo.clips import CLIP_VERSION
        from eva_demo.scenes import SCENE_VERSION

        settings = {**asdict(self), "formats": list(self.formats), "scene_version": SCENE_VERSION}
        if "video" in self.formats:
            settings["clip_version"] = CLIP_VERSION
        if "captions" in self.formats:
            settings["caption_version"] = CAPTION_VERSION
        return settings


def make_demo_data(
    output: Path, settings: Settings, *, workers: int = 1, overwrite: bool = False
) -> bool:
    """Write and check a data set, or leave an equal one as it is.

    Args:
        output: Folder to make; it appears when it is complete.
        settings: Formats, sizes and seed.
        workers: Number of processes; the bytes do not depend on it.
        overwrite: Replace another or a damaged data set.

    Returns:
        True if it was written, False if it was already there.

    Raises:
        ValueError: If another or a damaged data set, or something that is not one of this program,
            is in the way, or the settings leave no room for the digits.
    """
    output = output.resolve()
    remove_leftovers(output)
    if output.exists() and not (output.is_dir() and not any(output.iterdir())):
        problem = difference(output, settings.as_json())
        if not problem:
            return False
        foreign = "it holds files that this program did not write, so name another --output"
        demand(is_ours(output, FORMATS), f"{output} {problem}; {foreign}")
        demand(overwrite, f"{output} {problem}; give --overwrite to replace it")
    with replacing_folder(output) as partial:
        files = [
            file
            for name in settings.formats
            for file in _write(FORMATS[name], partial / name, settings, workers=workers)
        ]
        write_manifest(partial, settings.as_json(), files)
    return True


def _write(form: Format, folder: Path, settings: Settings, *, workers: int) -> list[Path]:
    """Write and check one format; return the files for the manifest."""
    scenes: dict[Split, list[Any]] = {}
    for split in settings.counts:
        form.prepare(folder, split)
        work = functools.partial(_export, form, folder, split, settings)
        indexes = range(settings.counts[split])
        scenes[split] = list(ordered_map(work, indexes, workers=workers, what=split, chunk=16))
    files = form.finish(folder, scenes)
    form.check(folder)
    return files


def _export(form: Format, folder: Path, split: "Split", settings: Settings, index: int) -> Any:
    made = form.make(split, settings.size, settings.seed, index)
    return form.export(folder, split, index, made)


def check_demo_data(output: Path, formats: list[str]) -> None:
    """Check the files of some formats.

    Args:
        output: Folder of a data set.
        formats: Names in `FORMATS`.

    Raises:
        ValueError: If something is wrong; the first wrong entry is named.
    """
    for name in formats:
        FORMATS[name].check(output / name)


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
