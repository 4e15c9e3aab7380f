"""The check that belongs to a path, where no check is named: `eva data verify PATH`."""

from collections.abc import Sequence
from pathlib import Path

from eva_data.detection.rules import shown
from eva_data.files import IMAGE_SUFFIXES, VIDEO_SUFFIXES, find_files

_START = 2**16  # bytes of a JSON file that are looked at
_LISTS = (".csv", ".tsv", ".txt", ".tar", ".parquet", ".safetensors", ".jsonl")


def guess(arguments: Sequence[str]) -> list[str]:
    """Put the name of a check in front of a path.

    Args:
        arguments: The command line, whose first word is not the name of a check.

    Returns:
        The command line with a check.

    Raises:
        ValueError: If several checks may be meant, or none is known.
    """
    path, rest = Path(arguments[0]), list(arguments[1:])
    if not path.exists():
        raise ValueError(f"{arguments[0]} is neither a check (see --help) nor a file or folder")
    suffix = path.suffix.lower()
    if path.is_dir():
        return [*_of_folder(path), *rest]
    if suffix in (".yaml", ".yml"):
        return ["coco", "--data", str(path), *rest]
    if suffix == ".toml":
        return ["images", str(path), *rest]
    if suffix == ".json":
        with path.open("rb") as stream:
            start = stream.read(_START)
        kind = ["captions"] if b'"caption"' in start else ["coco", "--annotations"]
        return [*kind, str(path), *rest]
    if suffix in _LISTS:
        raise ValueError(
            f"{path} may be a list of videos or of captions: write `video {path}` or "
            f"`captions {path}`"
        )
    raise ValueError(f"nothing is known to check in {shown(str(path))}; see --help")


def _of_folder(folder: Path) -> list[str]:
    from eva_data.detection.spec import find_exports
    from eva_data.detection.voc import find_voc
    from eva_data.detection.yolo import find_yaml

    if find_exports(folder) or find_voc(folder) or find_yaml(folder):
        return ["coco", "--data", str(folder)]
    if next(iter(find_files(folder, IMAGE_SUFFIXES)), None):
        return ["folders", str(folder)]
    if next(iter(find_files(folder, VIDEO_SUFFIXES)), None):
        return ["video", str(folder)]
    raise ValueError(f"{folder} holds neither pictures nor videos, nor a description of them")
