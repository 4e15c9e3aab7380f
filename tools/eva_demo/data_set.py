"""A dataset of digit scenes, written into a temporary folder and renamed.

Its manifest has generator and settings: whether a folder is the one asked for, or may be replaced.
"""

import argparse
import contextlib
import functools
import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from eva_data.files import load_object
from eva_data.pools import ordered_map
from eva_data.saving import (
    remove_leftovers,
    replace_folder,
    require_replaceable,
    write_text,
)
from eva_demo.captions import CAPTION_VERSION
from eva_demo.clips import CLIP_VERSION
from eva_demo.formats import FORMATS
from eva_demo.scenes import SCENE_VERSION
from eva_demo.sources import SPLITS, Split
from eva_runs.commands import echo

_MANIFEST = "manifest.json"


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
        """Make the manifest: the settings and the versions of the generators."""
        settings = {
            "generator": "tools/make_demo_data.py",
            **asdict(self),
            "formats": list(self.formats),
            "scene_version": SCENE_VERSION,
        }
        if "video" in self.formats:
            settings["clip_version"] = CLIP_VERSION
        if "captions" in self.formats:
            settings["caption_version"] = CAPTION_VERSION
        return settings


def run(args: argparse.Namespace) -> None:
    """Make what the options of `eva data make-demo` describe."""
    sizes = {name: getattr(args, name) for name in ("train", "val", "size", "seed")}
    settings = Settings(formats=tuple(sorted(set(args.formats))), **sizes)
    if make_demo_data(args.output, settings, workers=args.workers, overwrite=args.overwrite):
        echo(f"{args.output}: wrote {args.train} + {args.val} scenes")
    else:
        echo(f"{args.output}: already there, complete, with these settings; left as it is")


def make_demo_data(
    output: Path, settings: Settings, *, workers: int = 1, overwrite: bool = False
) -> bool:
    """Write a dataset, or the formats that one of the same scenes lacks.

    Args:
        output: Folder to make; it appears when it is complete.
        settings: Formats, sizes and seed.
        workers: Number of processes; the bytes do not depend on it.
        overwrite: Replace a dataset of other settings.

    Returns:
        True if something was written, False if all was already there.

    Raises:
        ValueError: If another dataset, or something that is not one of this program, is in the way,
            or the settings leave no room for the digits.
    """
    output = output.resolve()
    file = output / _MANIFEST
    earlier = load_object(file) if file.is_file() else {}
    formats = tuple(sorted({*earlier.get("formats", ()), *settings.formats}))
    manifest = replace(settings, formats=formats).as_json()
    is_ours = earlier.get("generator") == manifest["generator"]
    for name in FORMATS if is_ours else ():
        remove_leftovers(output / name)
    require_replaceable(output, (_MANIFEST, *FORMATS) if is_ours else (), overwrite=True)
    known = [name for name in manifest if name in earlier and name != "formats"]
    other = next((name for name in known if earlier[name] != manifest[name]), None)
    if is_ours and other and not overwrite:
        raise ValueError(
            f"{output} was made with {other}={earlier[other]}, not {manifest[other]}; give "
            "--overwrite to replace it"
        )
    present = () if other else earlier.get("formats", ())
    missing = [name for name in settings.formats if name not in present]
    if not missing:
        return False
    with contextlib.nullcontext(output) if present else replace_folder(output) as folder:
        for name in missing:
            with replace_folder(folder / name) as partial:
                _write(partial, name, settings, workers)
        manifest = replace(settings, formats=tuple(sorted({*present, *missing}))).as_json()
        write_text(folder / _MANIFEST, json.dumps(manifest, indent=2) + "\n")
    return True


def _write(folder: Path, name: str, settings: Settings, workers: int) -> None:
    exported: dict[Split, list[Any]] = {}
    for split, count in zip(SPLITS, (settings.train, settings.val), strict=True):
        work = functools.partial(_export, name, folder, split, settings)
        results = ordered_map(work, range(count), workers=workers, title=split, chunk=16)
        exported[split] = list(results)
    FORMATS[name].finish(folder, exported)


@functools.lru_cache(maxsize=2)
def _generator(name: str, split: Split, size: int, seed: int) -> Any:
    return FORMATS[name].make_generator(split, size, seed)


def _export(name: str, folder: Path, split: Split, settings: Settings, index: int) -> Any:
    scene = _generator(name, split, settings.size, settings.seed).make(index)
    return FORMATS[name].export(folder, split, index, scene)
