"""Writes the demo data: digit scenes (see digit_scenes.py) in the formats that the toolkit reads.

    python tools/make_demo_data.py --output data/demo --formats coco

The same seed and sizes give the same bytes, with any number of workers. The data set is written
into a temporary folder, checked, and renamed. A new format is one more entry of ``FORMATS``.
"""

import argparse
import contextlib
import functools
import hashlib
import importlib.metadata
import json
import multiprocessing
import os
import platform
import shutil
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from demo_coco import MapScenes, check_coco, demand, write_coco
from demo_folder import check_folder, write_folder
from demo_semantic import check_semantic, write_semantic

# Libraries for pictures are imported where they are used: --help comes at once.
if TYPE_CHECKING:
    from digit_scenes import Scene, SceneGenerator, Split

MANIFEST = "manifest.json"
GENERATOR = "tools/make_demo_data.py"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """All that decides the bytes of a data set.

    Attributes:
        formats: names in ``FORMATS``, sorted.
        train: number of training scenes.
        val: number of validation scenes.
        size: height and width of a scene in pixels.
        seed: seed of all scenes.
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
        """The settings and the version of the scenes, as the manifest holds them."""
        from digit_scenes import SCENE_VERSION

        return {**asdict(self), "formats": list(self.formats), "scene_version": SCENE_VERSION}


class Format(NamedTuple):
    """How one format is written and checked.

    Attributes:
        write: called with (root, counts, map_scenes); writes ``root/FORMAT`` and returns the files
            whose sha256 the manifest records. ``counts`` holds the scenes of each split, and
            ``map_scenes(split, export)`` yields ``export(index, scene)`` of all of them in order,
            from several processes: ``export`` is a function of a module or a ``partial`` of one.
        check: called with (root); raises a ValueError that names the first wrong entry.
    """

    write: Callable[[Path, Mapping["Split", int], MapScenes], list[Path]]
    check: Callable[[Path], None]


FORMATS: Mapping[str, Format] = {
    "coco": Format(write_coco, check_coco),
    "folder": Format(write_folder, check_folder),
    "semantic": Format(write_semantic, check_semantic),
}


@functools.lru_cache(maxsize=2)
def _generator(split: "Split", size: int, seed: int) -> "SceneGenerator":
    """The generator of a split, once per process; digits grow with the picture."""
    from digit_scenes import SceneGenerator

    digit_px = (round(size * 22 / 128), round(size * 56 / 128))
    return SceneGenerator(split, size=size, digit_px=digit_px, seed=seed)


def _export(settings: Settings, split: "Split", export: Callable[..., Any], index: int) -> Any:
    return export(index, _generator(split, settings.size, settings.seed).scene(index))


def _map_scenes(
    settings: Settings, workers: int, split: "Split", export: Callable[..., Any]
) -> Iterator[Any]:
    """Yields ``export(index, scene)`` of all scenes of a split, in order, with a progress bar."""
    from tqdm import tqdm

    count = settings.counts[split]
    work = functools.partial(_export, settings, split, export)
    with contextlib.ExitStack() as stack:
        results: Iterator[Any] = map(work, range(count))
        if workers > 1:
            # Not fork: the caller may hold threads of torch or OpenCV.
            pool = multiprocessing.get_context("spawn").Pool(workers, initializer=_ignore_interrupt)
            results = stack.enter_context(pool).imap(work, range(count), chunksize=16)
        yield from tqdm(results, total=count, desc=split, unit="scene", file=sys.stderr)


def _ignore_interrupt() -> None:
    """Leaves Ctrl-C to the parent process, which ends the workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def make_demo_data(
    output: Path, settings: Settings, *, workers: int = 1, overwrite: bool = False
) -> bool:
    """Writes and checks a data set, or leaves an equal one as it is.

    Args:
        output: folder to make; it appears when it is complete.
        settings: what to write.
        workers: number of processes; the bytes do not depend on it.
        overwrite: replace another or a damaged data set.

    Returns:
        True if it was written, False if it was already there.

    Raises:
        ValueError: if another, a damaged or no data set of this program is in the way, or the
            settings leave no room for the digits.
    """
    output = output.resolve()
    remove_leftovers(output)
    if output.exists() and not (output.is_dir() and not any(output.iterdir())):
        problem = difference(output, settings)
        if not problem:
            return False
        foreign = "it holds files that this program did not write, so name another --output"
        demand(_is_ours(output), f"{output} {problem}; {foreign}")
        demand(overwrite, f"{output} {problem}; give --overwrite to replace it")
    partial = output.with_name(f".{output.name}.partial-{os.getpid()}")
    replaced = output.with_name(f".{output.name}.replaced-{os.getpid()}")
    try:
        partial.mkdir(parents=True)
        map_scenes = functools.partial(_map_scenes, settings, workers)
        files: list[Path] = []
        for name in settings.formats:
            files += FORMATS[name].write(partial, settings.counts, map_scenes)
            FORMATS[name].check(partial)
        _write_manifest(partial, settings, files)
        if output.exists():
            output.rename(replaced)
        partial.rename(output)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    shutil.rmtree(replaced, ignore_errors=True)
    return True


def read_manifest(output: Path) -> dict[str, Any] | None:
    """The manifest of a folder, or None if it has none that this program wrote."""
    try:
        manifest = json.loads((output / MANIFEST).read_text())
    except (OSError, ValueError):
        return None
    ours = isinstance(manifest, dict) and manifest.get("generator") == GENERATOR
    return manifest if ours else None


def _is_ours(output: Path) -> bool:
    """Whether replacing the folder deletes nothing but what this program wrote."""
    if read_manifest(output) is None:
        return False
    return {path.name for path in output.iterdir()} <= {MANIFEST, *FORMATS}


def difference(output: Path, settings: Settings | None = None) -> str:
    """What keeps ``output`` from being the complete data set of these settings (any if None).

    Returns:
        The end of a sentence that starts with the folder's name; empty if nothing is wrong.
    """
    manifest = read_manifest(output)
    if manifest is None:
        return f"is no demo data ({MANIFEST} is missing or not by this program)"
    there = manifest["settings"]
    for name, wanted in (settings.as_json() if settings else {}).items():
        if there.get(name) != wanted:
            return f"was made with {name}={there.get(name)}, not {wanted}"
    for name, digest in manifest["sha256"].items():
        file = output / name
        if not file.is_file() or hashlib.sha256(file.read_bytes()).hexdigest() != digest:
            return f"is damaged ({name} is missing or was changed)"
    files = sum(path.is_file() for path in output.rglob("*"))
    if files != manifest["files"]:
        return f"is damaged (it has {files} files, not {manifest['files']})"
    return ""


def remove_leftovers(output: Path) -> None:
    """Deletes the temporary folders that interrupted runs for ``output`` left behind."""
    for kind in ("partial", "replaced"):
        for path in output.parent.glob(f".{output.name}.{kind}-*"):
            if not _is_running(path.name.rpartition("-")[2]):
                shutil.rmtree(path)


def _is_running(process: str) -> bool:
    if process == str(os.getpid()):  # in a container, every run may have the same number
        return False
    try:
        os.kill(int(process), 0)
    except PermissionError:  # someone else's
        return True
    except (ValueError, ProcessLookupError):
        return False
    return True


def _write_manifest(root: Path, settings: Settings, files: list[Path]) -> None:
    import cv2

    packages = ("numpy", "pillow", "pycocotools", "scikit-image", "scikit-learn")
    manifest = {
        "generator": GENERATOR,
        "settings": settings.as_json(),
        "sha256": {
            path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in files
        },
        "files": 1 + sum(path.is_file() for path in root.rglob("*")),  # with this one
        "versions": {
            "python": platform.python_version(),
            "opencv": cv2.__version__,
            **{name: importlib.metadata.version(name) for name in packages},
        },
    }
    (root / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")


def write_preview(path: Path, settings: Settings, *, columns: int = 8) -> None:
    """Writes a contact sheet: two rows of training scenes, then two of validation scenes.

    Args:
        path: PNG file to write.
        settings: size and seed of the scenes.
        columns: scenes in a row; each is shown plain and, below, with masks, boxes and labels.
    """
    import numpy as np
    from PIL import Image

    rows = []
    for split in ("train", "val"):
        generator = _generator(split, settings.size, settings.seed)
        tiles = [_draw(generator.scene(index)) for index in range(2 * columns)]
        rows += [np.hstack(tiles[:columns]), np.hstack(tiles[columns:])]
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.vstack(rows)).save(path)


def _draw(scene: "Scene") -> Any:
    """The scene, and below it the scene with its annotations, twice as large: (4 H, 2 W, 3)."""
    import cv2
    import numpy as np

    plain = scene.image.repeat(2, axis=0).repeat(2, axis=1)
    drawn = plain.copy()
    for instance in scene.instances:
        mask = instance.mask.astype(np.uint8).repeat(2, axis=0).repeat(2, axis=1)
        outlines, _ = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(drawn, outlines, -1, (255, 0, 255), 1)
        x0, y0, x1, y1 = (2 * instance.box).astype(int).tolist()
        cv2.rectangle(drawn, (x0, y0), (x1 - 1, y1 - 1), (0, 255, 0), 1)
        for colour, width in (((0, 0, 0), 3), ((255, 255, 0), 1)):
            cv2.putText(drawn, str(instance.category), (x0 + 2, y0 + 12), 0, 0.45, colour, width)
    return np.vstack([plain, drawn])


def _at_least(least: int) -> Callable[[str], int]:
    def whole_number(text: str) -> int:
        value = int(text)
        if value < least:
            raise argparse.ArgumentTypeError(f"{value} is less than {least}")
        return value

    return whole_number


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        description="Make the demo data: handwritten digits on photographs. No download.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--output", type=Path, required=True, metavar="DIR", help="folder to make")
    add("--formats", nargs="+", choices=sorted(FORMATS), default=["coco"], help="what to write")
    add("--train", type=_at_least(1), default=2000, metavar="N", help="training scenes")
    add("--val", type=_at_least(1), default=300, metavar="N", help="validation scenes")
    add("--size", type=_at_least(48), default=128, metavar="PX", help="side; digits grow with it")
    add("--seed", type=_at_least(0), default=0, metavar="N", help="seed of all scenes")
    add("--workers", type=_at_least(1), default=2, metavar="N", help="processes; same bytes")
    add("--overwrite", action="store_true", help="replace another or damaged data set")
    add("--check", action="store_true", help="only check the data set that is in DIR")
    add("--preview", type=Path, metavar="PNG", help="also draw the first scenes, with annotations")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    args = parse_args(argv)
    sizes = {name: getattr(args, name) for name in ("train", "val", "size", "seed")}
    settings = Settings(formats=tuple(sorted(set(args.formats))), **sizes)
    try:
        if args.check:
            manifest = read_manifest(args.output)
            for name in manifest["settings"]["formats"] if manifest else ():
                FORMATS[name].check(args.output)
            problem = difference(args.output)
            demand(not problem, f"{args.output} {problem}")
            print(f"{args.output}: every check passed")
        elif make_demo_data(args.output, settings, workers=args.workers, overwrite=args.overwrite):
            print(f"{args.output}: wrote and checked {args.train} + {args.val} scenes")
        else:
            print(f"{args.output}: already there, complete, with these settings; left as it is")
        if args.preview:
            write_preview(args.preview, settings)
            print(f"{args.preview}: the first scenes with their annotations")
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; nothing was written", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
