"""Whether mmcv has its operators, which pip's mmcv leaves out."""

import importlib.util
from collections.abc import Iterable
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

from eva_command.doctor.findings import Finding

ABOUT = "mmcv operators"
_INSTALL = "eva doctor --install mmcv-operators"


def check_mmcv_operators(folders: Iterable[str | Path] | None = None) -> list[Finding]:
    """Look for compiled operators, or the toolkit's in their place, beside mmcv's files.

    Args:
        folders: Folders of the package mmcv; None for where Python finds it.

    Returns:
        One finding; none where mmcv is not installed.
    """
    if folders is None:
        spec = importlib.util.find_spec("mmcv")
        folders = spec.submodule_search_locations or [] if spec else []
    places = [Path(folder) for folder in folders]
    if not any((folder / "__init__.py").is_file() for folder in places):
        return []
    if any(
        (folder / f"_ext{suffix}").is_file() for folder in places for suffix in EXTENSION_SUFFIXES
    ):
        return [Finding("ok", ABOUT, "compiled")]
    if any((folder / "_ext.py").is_file() for folder in places):
        return [Finding("ok", ABOUT, "by torchvision and PyTorch (eva-mmcv-operators)")]
    text = "not compiled; mmdetection's own programs need them, `eva mmdetection` does not"
    return [Finding("missing", ABOUT, text, _INSTALL)]
