"""Runs of detectron2 and of mmengine.

A file that their `last_checkpoint` does not name may be cut: a run that was killed left it.
"""

import re
from pathlib import Path

_LAST, _FINAL = "last_checkpoint", "model_final.pth"
_DETECTRON2 = re.compile(r"model_(\d+)\.pth")
_MMENGINE = re.compile(r"(?:iter|epoch)_(\d+)\.pth")


def is_mmengine_run(folder: Path) -> bool:
    """Return whether a folder is the work folder of mmengine's runner."""
    return bool(_numbered(folder))


def best_of_mmengine(folder: Path) -> Path | None:
    """Find the weights of the best evaluation of a run of mmengine; None if it kept none."""
    found = filter(Path.is_file, folder.glob("best_*.pth"))  # a link may lead nowhere
    return max(found, key=lambda path: path.stat().st_mtime, default=None)


def last_of_mmengine(folder: Path) -> Path:
    """Find the checkpoint that `last_checkpoint` names, else that of the highest number.

    A file that is still being written, or was when its run was killed, is not named there yet.

    Args:
        folder: Work folder of a run of mmengine.

    Returns:
        The file.
    """
    return _noted(folder) or max(_numbered(folder))[1]


def is_detectron2_run(folder: Path) -> bool:
    """Return whether a folder is the output of detectron2's trainer."""
    return (folder / "config.yaml").is_file() and not is_mmengine_run(folder)


def last_of_detectron2(folder: Path) -> Path | None:
    """Find the checkpoint that `last_checkpoint` names, else `model_final.pth`; None without one.

    The folder may have been moved since.
    """
    final = folder / _FINAL
    return _noted(folder) or (final if final.is_file() else None)


def step_of_detectron2(file: Path) -> int | None:
    """Return the steps behind a numbered checkpoint of detectron2; None for another file."""
    named = _DETECTRON2.fullmatch(file.name)
    return int(named[1]) + 1 if named else None


def _noted(folder: Path) -> Path | None:
    """Return the file that `last_checkpoint` names, if it is there."""
    try:
        name = Path((folder / _LAST).read_text(encoding="utf-8").strip()).name
    except (OSError, ValueError):
        return None
    return folder / name if name and (folder / name).is_file() else None


def _numbered(folder: Path) -> list[tuple[int, Path]]:
    """Step or epoch and file of each checkpoint that is written by mmengine in its turn."""
    found = ((_MMENGINE.fullmatch(path.name), path) for path in folder.glob("*.pth"))
    return [(int(name[1]), path) for name, path in found if name and path.is_file()]
