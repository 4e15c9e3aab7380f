"""Names and colours of a model's classes for mmsegmentation's inferencers.

They set `model.dataset_meta` from the checkpoint, or, for the official ones, which hold no names,
to those of Cityscapes or of any data set with as many classes.
"""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from mmseg.utils import dataset_aliases, get_classes, get_palette

from eva_segmentation.data.classes import distinct_color

logger = logging.getLogger(__name__)


class NamedClasses:
    """Part of a model that refuses the names of another number of classes."""

    def class_count(self) -> int:
        """Return the number of classes K."""
        raise NotImplementedError

    @property
    def dataset_meta(self) -> Mapping[str, Any]:
        """`classes` and `palette`, each of K entries."""
        try:
            meta: Mapping[str, Any] = self.__dict__["_dataset_meta"]
        except KeyError:
            raise AttributeError("there is no dataset_meta before weights are loaded") from None
        return meta

    @dataset_meta.setter
    def dataset_meta(self, meta: Mapping[str, Any] | None) -> None:
        count = self.class_count()
        given: Sequence[Any] = (meta or {}).get("classes") or ()
        if meta is None or len(given) != count:
            meta = names_of(count)
            logger.info("%d class names do not fit %d classes: %s", len(given), count, meta["name"])
        palette: Sequence[Any] = meta.get("palette") or ()
        if len(palette) != count:
            palette = [list(distinct_color(index)) for index in range(count)]
        self.__dict__["_dataset_meta"] = {
            "classes": list(meta["classes"]),
            "palette": list(palette),
        }


def names_of(count: int) -> dict[str, Any]:
    """Name classes by their number alone.

    Args:
        count: Number of classes.

    Returns:
        `name` of the data set of mmsegmentation that has as many, `classes` and `palette`; without
        one, numbers and distinct colours.
    """
    for name in dataset_aliases:
        classes = get_classes(name)
        if len(classes) == count:
            return {"name": name, "classes": classes, "palette": get_palette(name)}
    return {
        "name": "numbers",
        "classes": [f"class {index}" for index in range(count)],
        "palette": [list(distinct_color(index)) for index in range(count)],
    }
