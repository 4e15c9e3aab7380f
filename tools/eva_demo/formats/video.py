"""Clips of moving digits, H.264 in MP4, in a folder for each motion: the writer and its check.

The clips are `{train,val}/MOTION/NUMBER.mp4`, half as wide as a scene, 25 frames a second. The same
clips are in the lists `{train,val}.txt`, a line `PATH LABEL` for each, whose labels count the lines
of `classes.txt` from 0. `clips.json` says of each clip its frames, the handwritten digit, the
photograph and the course of the motion, from which the check proves that training and validation
are disjoint.
"""

import functools
import json
from collections import Counter
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eva_demo.formats.format import Format, demand, demand_disjoint

if TYPE_CHECKING:
    from eva_demo.clips import Clip, ClipGenerator
    from eva_demo.splits import Split

FRAMES_PER_SECOND = Fraction(25)


@functools.lru_cache(maxsize=2)
def clip_generator(split: "Split", size: int, seed: int) -> "ClipGenerator":
    """Make the generator of a split, once per process.

    Args:
        split: Split of the clips.
        size: Height and width of a scene in pixels; a clip has half of it, made even.
        seed: Seed of all clips.
    """
    from eva_demo.clips import ClipGenerator

    return ClipGenerator(split, size=size // 4 * 2, seed=seed)


def _make(split: "Split", size: int, seed: int, index: int) -> "Clip":
    return clip_generator(split, size, seed).clip(index)


def _prepare(folder: Path, split: "Split") -> None:
    from eva_demo.clips import MOTIONS

    for motion in MOTIONS:
        (folder / split / motion).mkdir(parents=True)


def _export(folder: Path, split: "Split", index: int, clip: "Clip") -> dict[str, Any]:
    """Write the video of a clip; return its entry in `clips.json`."""
    from eva_data.video.streams import Frame, VideoWriter

    name = f"{split}/{clip.motion}/{index + 1:06d}.mp4"
    with VideoWriter(folder / name, reproducible=True) as writer:
        for number, rgb in enumerate(clip.frames):
            writer.add(rgb, Frame(rgb, number, 1 / FRAMES_PER_SECOND, FRAMES_PER_SECOND))
    return {
        "file": name,
        "motion": clip.motion,
        "frames": len(clip.frames),
        "size": clip.frames.shape[1],
        "digit": clip.category,
        "digit_index": clip.digit_index,
        "photo": clip.background,
        "path": {name: [round(end, 3) for end in ends] for name, ends in clip.path.items()},
    }


def _finish(folder: Path, scenes: Mapping["Split", list[Any]]) -> list[Path]:
    """Write `{train,val}.txt`, `classes.txt` and `clips.json`; return these and the clips."""
    from eva_demo.clips import MOTIONS

    labels = {motion: label for label, motion in enumerate(MOTIONS)}
    texts = {
        "classes.txt": "".join(f"{motion}\n" for motion in MOTIONS),
        "clips.json": json.dumps(scenes),
    }
    for split, clips in scenes.items():
        lines = (f"{clip['file']} {labels[clip['motion']]}\n" for clip in clips)
        texts[f"{split}.txt"] = "".join(lines)
    for name, text in texts.items():
        (folder / name).write_text(text)
    videos = (clip["file"] for clips in scenes.values() for clip in clips)
    return [folder / name for name in (*texts, *videos)]


def _check(folder: Path) -> None:
    """Check videos, folders and lists against `clips.json` and the rules of the data set."""
    for name in ("classes.txt", "clips.json", "train.txt", "val.txt"):
        demand((folder / name).is_file(), f"{folder / name} is missing")
    classes = (folder / "classes.txt").read_text().split()
    clips = json.loads((folder / "clips.json").read_text())
    for split, entries in clips.items():
        names = [entry["file"] for entry in entries]
        found = [path.relative_to(folder).as_posix() for path in folder.glob(f"{split}/*/*")]
        different = sorted(set(found) ^ set(names))
        demand(
            not different, f"{folder / split}: {different[:1]} not both on disk and in clips.json"
        )
        unknown = sorted({entry["motion"] for entry in entries} - set(classes))
        demand(
            not unknown,
            f"{folder / 'clips.json'} shows {', '.join(unknown)}, which is not in classes.txt",
        )
        listed = (folder / f"{split}.txt").read_text().splitlines()
        wanted = [f"{entry['file']} {classes.index(entry['motion'])}" for entry in entries]
        wrong = [pair for pair in zip(listed, wanted, strict=False) if pair[0] != pair[1]]
        demand(
            listed == wanted,
            f"{folder / split}.txt has {len(listed)} lines, clips.json {len(wanted)} clips; the "
            f"first difference: {wrong[:1]}",
        )
        per_motion = Counter(entry["motion"] for entry in entries)
        counts = [per_motion[motion] for motion in classes]
        demand(
            max(counts) - min(counts) <= 1,
            f"{folder / split}: the motions have {counts} clips, which differ by more than one",
        )
        for entry in entries:
            _check_clip(folder, entry)
    for key, what in (("photo", "photographs"), ("digit_index", "digits")):
        train, val = ([entry[key] for entry in clips[split]] for split in ("train", "val"))
        demand_disjoint(folder, what, train, val)


def _check_clip(folder: Path, entry: Mapping[str, Any]) -> None:
    """Check one video: its frames, their size and their number."""
    from eva_data.video.streams import VideoReader

    file = folder / entry["file"]
    folders = Path(entry["file"]).parts
    demand(
        folders[1] == entry["motion"],
        f"{file} lies in {folders[1]}, but shows {entry['motion']}",
    )
    reader = VideoReader(file)
    shapes = [frame.rgb.shape[:2] for frame in reader]
    demand(reader.error is None, f"{reader.error}")
    wanted = [(entry["size"], entry["size"])] * entry["frames"]
    demand(
        shapes == wanted,
        f"{file} has {len(shapes)} frames of {sorted(set(shapes))}, not {entry['frames']} of "
        f"{entry['size']} x {entry['size']}",
    )


MOTION_CLIPS = Format(_prepare, _export, _finish, _check, make=_make)
