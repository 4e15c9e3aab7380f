"""Which videos of Kinetics stay in a merged list (paper section A.2, official notebook).

Two clips are one video if YouTube's id is the same. Of several in a list the first stays, with its
label; from a training list goes what is in a validation list.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class Videos:
    """A list of videos, as far as merging needs it.

    Attributes:
        ids: YouTube's ids, (number of videos,), 11 bytes each.
        labels: Labels in Kinetics-722, (number of videos,).
    """

    ids: NDArray[np.bytes_]
    labels: NDArray[np.int64]

    @classmethod
    def joined(cls, parts: Iterable["Videos"]) -> "Videos":
        """Put lists one after another."""
        ids, labels = zip(*((part.ids, part.labels) for part in parts), strict=True)
        return cls(ids=np.concatenate(ids), labels=np.concatenate(labels))

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, kw_only=True)
class Kept:
    """What stays of a list, and why the rest does not.

    Attributes:
        indices: Positions of the videos that stay, increasing.
        read: Videos of the list.
        repeated: Videos that go because an earlier one has their id.
        leaked: Validation list -> further videos that go because they are in it.
        relabelled: Videos that stay, of which a later clip has another label.
    """

    indices: NDArray[np.int64]
    read: int
    repeated: int
    leaked: Mapping[str, int]
    relabelled: int


def keep(videos: Videos, *, validation: Mapping[str, Videos]) -> Kept:
    """Leave out repeated videos, and those that leak from validation lists.

    Args:
        videos: The list.
        validation: Validation lists by name, which are gone through one after another; none for a
            list of validation itself.

    Returns:
        What stays.
    """
    _, first, group = np.unique(videos.ids, return_index=True, return_inverse=True)
    contradicts = videos.labels != videos.labels[first[group]]
    contradicted = np.zeros(len(first), dtype=bool)
    contradicted[group[contradicts]] = True
    order = np.argsort(first)
    indices: NDArray[np.int64] = first[order].astype(np.int64)
    relabelled: NDArray[np.bool_] = contradicted[order]
    leaked = {}
    for name, held_out in validation.items():
        stays = ~np.isin(videos.ids[indices], held_out.ids)
        leaked[name] = int((~stays).sum())
        indices, relabelled = indices[stays], relabelled[stays]
    return Kept(
        indices=indices,
        read=len(videos),
        repeated=len(videos) - len(first),
        leaked=leaked,
        relabelled=int(relabelled.sum()),
    )


def merge(
    train: Mapping[str, Videos], val: Mapping[str, Videos], *, keep_k400_leaks: bool
) -> dict[str, Kept]:
    """Make the lists of each data set, and of Kinetics-722.

    Args:
        train: Training list of each data set, in the order in which the first of equal videos is
            sought.
        val: Validation list of each.
        keep_k400_leaks: Keep in the training list of Kinetics-400 the videos of its validation
            list, as the official lists do; Kinetics-722 never has them.

    Returns:
        What stays by the name of the list, such as `k600_val` or `k722_train`. Indices of
        Kinetics-722 count through the lists of the data sets, one after another.
    """
    lists = {}
    for name in train:
        held_out = {} if name == "k400" and keep_k400_leaks else {name: val[name]}
        lists[f"{name}_train"] = keep(train[name], validation=held_out)
        lists[f"{name}_val"] = keep(val[name], validation={})
    lists["k722_train"] = keep(Videos.joined(train.values()), validation=val)
    lists["k722_val"] = keep(Videos.joined(val[name] for name in train), validation={})
    return lists
