"""Data that is not there, said before anything heavy is imported; demo data with its command."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from eva_data.files import home_expanded
from eva_runs.commands import command_to_run

# Folder below output/datasets -> arguments that make it, of `tools/make_demo_data.py`.
DEMO_DATA: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "digit_scenes": (),
        "digit_scenes_semantic": ("--formats", "semantic"),
        "digit_folder": ("--formats", "folder"),
        "digit_motion": ("--formats", "video", "--train", "4000", "--val", "400"),
        "digit_captions": ("--formats", "captions", "--train", "4000"),
    }
)
_ELSEWHERE = ("torchvision:", "hf:")  # what names a data set, and not a path


def require_data(location: str, *, name: str, forms: str = "") -> None:
    """Refuse a place of data where nothing is.

    Args:
        location: Path, pattern of paths such as `shards/{0000..0099}.tar`, list with a part such as
            `captions.json#train`, or the name of a public data set, which is not looked for.
        name: Option or setting that names it.
        forms: What it may be, for the message.

    Raises:
        ValueError: If nothing is there, with the command that makes it where it is demo data.
    """
    if location.startswith(_ELSEWHERE):
        return
    path = home_expanded(location)
    parts = path.parts
    fixed = next((i for i, part in enumerate(parts) if any(c in part for c in "{*?[")), len(parts))
    there = Path(*parts[:fixed])
    if there.exists() or Path(str(there).partition("#")[0]).exists():
        return
    raise ValueError(f"{name}: there is no {there}; {_made_by(parts) or f'name {forms}'}")


def demo_folder(location: str) -> Path | None:
    """Find the folder of demo data that a path lies in.

    Args:
        location: Path or pattern.

    Returns:
        The folder, with the name of a demo; None if there is none.
    """
    parts = home_expanded(location).parts
    place = next((place for place, part in enumerate(parts, 1) if part in DEMO_DATA), None)
    return None if place is None else Path(*parts[:place])


def _made_by(parts: tuple[str, ...]) -> str:
    for place, part in enumerate(parts):
        if part in DEMO_DATA:
            command = command_to_run(
                "data make-demo", "tools/make_demo_data.py",
                "--output", Path(*parts[: place + 1]), *DEMO_DATA[part],
            )  # fmt: skip
            return f"this makes it: {command}"
    return ""
