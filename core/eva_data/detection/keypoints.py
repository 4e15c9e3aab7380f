"""Keypoints of objects: their names and skeleton, as the categories of COCO's files list them."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from eva_data.detection.rules import is_integer, is_number

_COCO = 17  # of a person, for which COCO gives sigmas
_SIDES = {"left": "right", "right": "left", "l": "r", "r": "l"}
_SIDE = re.compile(r"left|right|(?<![^\W_])[lr](?![^\W_])")  # also l_eye, eye.r
_SIGMA = 0.05  # of all others; those of COCO are 0.025 to 0.107


@dataclass(frozen=True, kw_only=True)
class KeypointNames:
    """The keypoints of a detector.

    Attributes:
        names: Name of each.
        skeleton: Numbers, from 1, of two that a line connects.
        categories: Ids of the categories that list them.
    """

    names: tuple[str, ...]
    skeleton: tuple[tuple[int, int], ...] = field(default=(), compare=False)
    categories: frozenset[int] = field(default=frozenset(), compare=False)

    @property
    def flip_indices(self) -> list[int]:
        """The index of each keypoint in a mirrored image, where left and right change places."""
        names = [name.casefold() for name in self.names]
        partners = [_SIDE.sub(lambda side: _SIDES[side[0]], name) for name in names]
        return [
            names.index(partner) if partner in names else index
            for index, partner in enumerate(partners)
        ]

    def describe(self, *, training: bool) -> list[str]:
        """Say which change places in mirrored images of a training, and what OKS is measured by."""
        pairs, lines = enumerate(self.flip_indices), list[str]()
        swapped = [f"{self.names[a]} and {self.names[b]}" for a, b in pairs if a < b]
        if training:
            listed = "; ".join(swapped) or "none"
            lines.append(f"keypoints that change places in mirrored images: {listed}")
        if self.sigmas:
            measured = f"OKS is measured with a sigma of {_SIGMA:g} for {len(self.names)} keypoints"
            lines.append(f"{measured}; dataloader.evaluator.kpt_oks_sigmas=[...] states others")
        return lines

    @property
    def sigmas(self) -> list[float] | None:
        """What similarity (OKS) is measured by; None for COCO's of a person."""
        return None if len(self.names) == _COCO else [_SIGMA] * len(self.names)

    def as_json(self) -> dict[str, list[Any]]:
        """Return what a category in COCO's format says of them."""
        return {"keypoints": [*self.names], "skeleton": [[*pair] for pair in self.skeleton]}

    def find_fault(self, values: Any) -> str:
        """Say what the values of an object must be; nothing if they are right, or not there."""
        wanted = 3 * len(self.names)
        numbers = isinstance(values, list) and all(map(is_number, values))
        if values is None or (numbers and len(values) == wanted and {*values[2::3]} <= {0, 1, 2}):
            return ""
        count = f", not {len(values)}" if isinstance(values, list) else ""
        return (
            f"x, y and visibility (0, 1 or 2) of the {len(self.names)} keypoints of its category: "
            f"{wanted} numbers{count}"
        )


def read_keypoints(categories: Iterable[Any]) -> KeypointNames | None:
    """Read the keypoints that categories in COCO's format list; None if none does.

    Raises:
        ValueError: If they are no names, or two categories list others.
    """
    first: KeypointNames | None = None
    for entry in categories:
        names = entry.get("keypoints") if isinstance(entry, dict) else None
        if not names:
            continue
        points, about = _read(entry, names), f"category {entry.get('name')!r}"
        if first is not None and points != first:
            listed = f"{', '.join(points.names)}; others list {', '.join(first.names)}"
            raise ValueError(f"{about} lists the keypoints {listed}: a detector has one list")
        ids = frozenset() if first is None else first.categories
        first = KeypointNames(
            names=points.names, skeleton=points.skeleton, categories=ids | {entry.get("id")}
        )
    return first


def _read(entry: Mapping[str, Any], names: Any) -> KeypointNames:
    about, pairs = f"category {entry.get('name')!r}", entry.get("skeleton") or []
    if not isinstance(names, list) or len({*map(str, names)}) < len(names):
        raise ValueError(f"{about}: keypoints must be different names, got {names!r:.80}")
    for pair in pairs if isinstance(pairs, list) else [pairs]:
        right = isinstance(pair, list) and len(pair) == 2 and all(map(is_integer, pair))
        if not right or not all(1 <= number <= len(names) for number in pair):
            raise ValueError(
                f"{about}: skeleton has {pair!r:.80}, not two numbers from 1 to {len(names)}"
            )
    return KeypointNames(names=(*map(str, names),), skeleton=(*((a, b) for a, b in pairs),))


def move_keypoints(values: Sequence[float], tile: Sequence[int]) -> list[float]:
    """Return keypoints in the coordinates of a tile, x, y, width, height; 0 for those outside."""
    x0, y0, width, height = tile
    moved: list[float] = []
    for x, y, visibility in zip(values[::3], values[1::3], values[2::3], strict=True):
        inside = 0 <= x - x0 < width and 0 <= y - y0 < height and visibility
        moved += [x - x0, y - y0, visibility] if inside else [0, 0, 0]
    return moved
