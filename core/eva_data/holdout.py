"""Held-out fractions: which samples validate, where no data are named for it.

A sample's name decides: its SHA-256, with a fixed salt, as a fraction of the largest one. So a
sample stays on its side when others are added or removed, and the fraction is met on average.
"""

import hashlib
import math
from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from eva_data.files import display_path

_SALT = b"eva held-out share 1\0"  # another one would be another choice, and break earlier runs
Flags = NDArray[np.bool_]


def check_share(share: float, *, name: str = "--val-share") -> None:
    """Refuse a fraction, given as the option `name`, that is not between 0 and 1."""
    if not (math.isfinite(share) and 0 < share < 1):
        raise ValueError(f"{name} must be a number between 0 and 1, such as 0.1, got {share:g}")


def check_setting(share: float, val: str) -> None:
    """Refuse a setting `val_share` (0 for none) that is no fraction or stands beside `val`."""
    if share == 0:
        return
    check_share(share, name="val_share")
    if val:
        raise ValueError(
            f"val_share={share:g} holds out a part of train, and val={val} is set too: set one of "
            "them to nothing (--data.val '')"
        )


def validation_fact(
    counted: str, *, share: float, val: str, of: str = "each class"
) -> tuple[str, str]:
    """Return "val" and the counts, such as "361 images", with their place or fraction."""
    return "val", f"{counted} ({f'about {share:g} of {of}' if share else display_path(val)})"


def holdout_mask(
    names: Iterable[str],
    share: float,
    *,
    classes: Sequence[Hashable] | None = None,
    name: str = "--val-share",
) -> Flags:
    """Choose the samples that are held out: a flag for each, (number of samples,).

    Names must not depend on the place of the data. Of `classes`, each of two or more samples has
    some on both sides, and the only one of a class is trained on; without classes both sides have
    some names. Nothing to hold out is an error, in which `name` is the option's.
    """
    check_share(share, name=name)
    encoded = (_SALT + name.encode("utf-8", "surrogateescape") for name in names)
    digests = (hashlib.sha256(content).digest()[:7] for content in encoded)
    places = np.array([int.from_bytes(digest, "big") / 2**56 for digest in digests], np.float64)
    is_held_out: Flags = places < share
    members: dict[Hashable, list[int]] = defaultdict(list)
    for index, label in enumerate(classes or ()):
        members[label].append(index)
    for indices in map(np.array, members.values()):
        # the nearest to the other side of a class that would be on one side alone; the only one of
        # a class is trained on
        if not is_held_out[indices].any():
            is_held_out[indices[places[indices].argmin()]] = len(indices) > 1
        elif is_held_out[indices].all():
            is_held_out[indices[places[indices].argmax()]] = False
    if classes is None and not is_held_out.any():
        is_held_out = (places == places.min()) & (len({*places}) > 1)
    elif classes is None and is_held_out.all():
        is_held_out = places != places.max()
    if not is_held_out.any() or is_held_out.all():
        raise ValueError(
            f"{name} {share:g}: none of {len(is_held_out)} samples, alone in their classes, can be "
            "held out: name data for evaluation"
        )
    return is_held_out


def stem(name: str) -> str:
    """Return the name of an image without its suffix, which decides where it is held out."""
    head, dot, tail = name.rpartition(".")
    return head if dot and "/" not in tail else name
