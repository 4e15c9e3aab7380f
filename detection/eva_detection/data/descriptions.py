"""What a data set of a config is called, where it lies, and how much is in it."""

from collections.abc import Mapping, Sequence
from typing import Any

from detectron2.data import MetadataCatalog
from omegaconf import DictConfig, OmegaConf

_KNOWN: dict[str, str] = {}


def describe_data(part: str, node: Any, records: Sequence[Mapping[str, Any]]) -> str:
    """Describe a data set in one line.

    Args:
        part: "train" or "val".
        node: Node of the config that builds it.
        records: What it built, in detectron2's format.

    Returns:
        Numbers of images, objects and classes, and the annotation file.
    """
    text = _counted(node, records)
    _KNOWN[_key(node)] = text
    return f"{part}: {text}"


def known_description(node: Any) -> str | None:
    """Return what `describe_data` has said of a node's data set in this process, without its part.

    Args:
        node: Node of the config.
    """
    return _KNOWN.get(_key(node))


def _key(node: Any) -> str:
    return OmegaConf.to_yaml(node) if isinstance(node, DictConfig) else ""


def _counted(node: Any, records: Sequence[Mapping[str, Any]]) -> str:
    objects = [len(one.get("annotations", ())) for one in records]
    counts = [f"{len(records):,} images"]
    if any(objects):
        counts.append(f"{sum(objects):,} objects")
    if classes := len(class_names(node)):
        counts.append(f"{classes:,} classes")
    place = ", ".join(annotation_files(node))
    return ", ".join(counts) + (f" ({place})" if place else "")


def registered_names(node: Any) -> list[str]:
    """List the names of registered data sets in a node of a config; none for own data."""
    names = node.get("names") if isinstance(node, DictConfig) else None
    return [names] if isinstance(names, str) else [str(name) for name in names or ()]


def class_names(node: Any) -> list[str]:
    """List the classes of the data set of a node; none if they are not known."""
    if isinstance(node, DictConfig) and node.get("categories"):
        return list(node.categories.values())
    names = registered_names(node)
    return list(MetadataCatalog.get(names[0]).get("thing_classes", ())) if names else []


def annotation_files(node: Any) -> list[str]:
    """List the annotation files of the data set of a node."""
    if isinstance(node, DictConfig) and node.get("annotations"):
        return [str(node.annotations)]
    found = [MetadataCatalog.get(name).get("json_file") for name in registered_names(node)]
    return [str(file) for file in found if file]


def picture_folder(node: Any) -> str | None:
    """Return the folder of the pictures of a node's data set; None if it is not known."""
    if isinstance(node, DictConfig) and node.get("images"):
        return str(node.images)
    roots = [MetadataCatalog.get(name).get("image_root") for name in registered_names(node)]
    return str(roots[0]) if roots and roots[0] else None
