"""Own data in COCO format of a run of detectron2, read from its settings."""

import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_READER = "eva_detection.data.custom_data.load_records"
_SHOWN = 20  # names of classes


@dataclass(frozen=True)
class OwnData:
    """Data of `--train-annotations` and the like.

    Attributes:
        files: Use (`train`, `val`) -> file of annotations.
        classes: Names of the classes.
    """

    files: Mapping[str, str]
    classes: tuple[str, ...]

    def facts(self) -> list[str]:
        """Say what is known of the data, without its place: classes, and images if it is there."""
        lines = []
        if self.classes:
            more = ", ..." if len(self.classes) > _SHOWN else ""
            names = ", ".join(f"`{name}`" for name in self.classes[:_SHOWN])
            lines.append(f"classes: {len(self.classes)} ({names}{more})")
        for use, file in self.files.items():
            if (count := _images(Path(file))) is not None:
                lines.append(f"images ({use}): {count:,}")
        return lines


def own_coco_data(settings: str) -> OwnData | None:
    """Read which files of annotations a run had.

    Args:
        settings: Text of its `config.yaml`.

    Returns:
        The data; None if the run had data sets by name.
    """
    import yaml  # here, because huggingface_hub brings it

    # Nothing is put in place of Python's objects, such as functions of the optimizer.
    reader: Any = type("Reader", (yaml.SafeLoader,), {})
    reader.add_multi_constructor("tag:yaml.org,2002:python/", lambda loader, tag, node: None)
    try:
        loaders = yaml.load(settings, reader)["dataloader"]
        parts = {"train": loaders["train"]["dataset"], "val": loaders["test"]["dataset"]}
    except (yaml.YAMLError, ValueError, KeyError, TypeError):
        return None
    own = {use: part for use, part in parts.items() if _is_own(part)}
    if not own:
        return None
    categories = parts["val"].get("categories") if _is_own(parts["val"]) else None
    names = map(str, categories.values()) if isinstance(categories, dict) else ()
    return OwnData({use: str(part.get("annotations")) for use, part in own.items()}, tuple(names))


def _is_own(part: Any) -> bool:
    return isinstance(part, dict) and part.get("_target_") == _READER


def _images(file: Path) -> int | None:
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        return len(json.loads(file.read_text(encoding="utf-8"))["images"])
    return None
