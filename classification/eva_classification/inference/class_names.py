"""Names of the classes that a classifier of pictures knows."""

import logging
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from eva_data.classes import names_of_head

logger = logging.getLogger(__name__)

# Number of classes -> name in timm; the labels follow the sorted WordNet ids, as officially.
IMAGENET: Mapping[int, str] = MappingProxyType({1000: "imagenet-1k", 21841: "imagenet-22k"})


def class_names(
    num_classes: int,
    *,
    given: Sequence[str] | str | os.PathLike[str] | None = None,
    source: str = "the weights",
) -> tuple[str, ...]:
    """Name the classes of a head.

    Args:
        num_classes: Rows of the head.
        given: Names, or a file of them; such as those that the weights note of their training.
        source: Name of the weights, for messages.

    Returns:
        The names; without `given` those of ImageNet-1K or ImageNet-21K for 1,000 and 21,841 rows,
        and for other numbers `class 0`, `class 1` and so on, with a warning.

    Raises:
        ValueError: If there are more or fewer names than rows, or the file cannot be read.
    """
    if given is not None:
        return names_of_head(given, num_classes, source=source)
    if num_classes in IMAGENET:
        return imagenet_names(num_classes)
    logger.warning(
        "%s does not name its %d classes: they are called by their numbers from 0; give their "
        "names, one in a line of a text file, as --classes",
        source,
        num_classes,
    )
    return tuple(f"class {label}" for label in range(num_classes))


def imagenet_names(num_classes: int) -> tuple[str, ...]:
    """Name the classes of ImageNet, each in its own way.

    Args:
        num_classes: A key of `IMAGENET`.

    Returns:
        The first of WordNet's words for each class; all of its words where others have the same
        first one, and its id behind them where others have the same words (both cranes).
    """
    from timm.data import ImageNetInfo

    known = ImageNetInfo(IMAGENET[num_classes])
    ids, words = known.label_names(), known.label_descriptions()
    first = [text.partition(",")[0] for text in words]
    firsts, complete = Counter(first), Counter(words)
    return tuple(
        word if firsts[word] == 1 else text if complete[text] == 1 else f"{text} ({wordnet})"
        for word, text, wordnet in zip(first, words, ids, strict=True)
    )
