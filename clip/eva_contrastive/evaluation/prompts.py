"""What a class is called and the sentences about it, by data set or as the user gives them.

`prompts.toml` has them with their sources; those of ImageNet are open_clip's, and the names of
Kinetics' classes are those of `eva_data.kinetics`.
"""

import functools
import re
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from open_clip import IMAGENET_CLASSNAMES, OPENAI_IMAGENET_TEMPLATES
from timm.data import ImageNetInfo

from eva_data.classes import Spellings, list_names, read_class_list
from eva_data.files import expand_home, read_lines
from eva_data.kinetics import SOURCES, kinetics_classes

PLACE = "{}"  # of the name in a sentence
_IMAGENET = "imagenet"
_WORDNET = re.compile(r"n\d{8}")


@functools.cache
def _table() -> dict[str, Any]:
    content = Path(__file__).with_name("prompts.toml").read_text(encoding="utf-8")
    return tomllib.loads(content)


def named_templates(name: str) -> tuple[str, ...]:
    """Give a set of sentences with `{}` in place of the class.

    There are `imagenet` (80), `cifar` (18), `ucf101` (48), `kinetics` (28) and `simple` (1).
    """
    if name == _IMAGENET:
        return tuple(template(PLACE) for template in OPENAI_IMAGENET_TEMPLATES)
    return tuple(_table()["templates"][name]["sentences"])


def named_classes(name: str) -> tuple[str, ...]:
    """Give the names of a dataset's classes, in the order of its labels.

    There are `imagenet`, `cifar10`, `cifar100`, `ucf101`, `k400`, `k600` and `k700`.
    """
    if name == _IMAGENET:
        return tuple(IMAGENET_CLASSNAMES)
    if name in SOURCES:
        return kinetics_classes(name)
    return tuple(_table()["classes"][name]["names"])


def find_templates(names: Sequence[str]) -> tuple[str, ...]:
    """Find the sentences that an option or a recipe means.

    Args:
        names: Sentences with `{}` in place of the class, or `{c}`, as CLIP_benchmark writes it; or
            one entry, which is a name for `named_templates` or a text file with one in each line.

    Raises:
        OSError: If a file cannot be read.
        ValueError: If there is none, or one has no place for the class.
    """
    available = (_IMAGENET, *_table()["templates"])
    templates = tuple(names)
    if len(templates) == 1 and templates[0] in available:
        return named_templates(templates[0])
    if len(templates) == 1 and expand_home(templates[0]).is_file():
        templates = tuple(read_lines(expand_home(templates[0]), skip_blank=True))
    templates = tuple(template.replace("{c}", PLACE) for template in templates)
    wrong = [template for template in templates or ("",) if PLACE not in template]
    if wrong:
        raise ValueError(
            f"templates {wrong[0]!r} is not a sentence with {PLACE} in place of the class, not a "
            f"text file of them and not one of {', '.join(available)}"
        )
    return templates


def sentences(name: str, templates: Sequence[str]) -> list[str]:
    """Put the name of a class into sentences."""
    return [template.replace(PLACE, name) for template in templates]


def readable(folder: str) -> str:
    """Read the name of a class off that of its folder: `traffic_light` is `traffic light`."""
    return " ".join(folder.replace("_", " ").split()) or folder


def names_of(folders: Sequence[str]) -> list[str]:
    """Name classes by their folders: those of ImageNet-1K, which are WordNet ids, as OpenAI does.

    Raises:
        ValueError: If all are WordNet ids, and one is not of ImageNet-1K.
    """
    if not all(_WORDNET.fullmatch(folder) for folder in folders):
        return [readable(folder) for folder in folders]
    ids = ImageNetInfo("imagenet-1k").label_names()
    name_of_id = dict(zip(ids, named_classes(_IMAGENET), strict=True))
    other = [folder for folder in folders if folder not in name_of_id]
    if other:
        raise ValueError(
            f"{list_names(other, 4)} is not a WordNet id of ImageNet-1K: rename the folders to "
            f"what their images show"
        )
    return [name_of_id[folder] for folder in folders]


def own_classes(folders: Sequence[str], file: str | Path | None) -> tuple[str, ...]:
    """Name the classes of the user's own data: those of the folders, then others that compete.

    Args:
        folders: Names of the class folders, or of another dataset's labels, in their order.
        file: Text file with a name in each line, or None for the folders' names. If it has these,
            in any spelling and order, further lines are classes without images, which compete too;
            if it has none of them, its lines name the folders in their order, numbers by value.

    Raises:
        ValueError: If the file has some of the folders' names and lacks others, has other names
            than there are folders, or cannot be read.
    """
    if file is None:
        return tuple(names_of(folders))
    names = read_class_list(file)
    spellings = Spellings([name.casefold() for name in names])
    labels = [spellings.label(folder.casefold()) for folder in folders]
    labels_present = [position for position in labels if position is not None]
    if not labels_present and len(names) == len(folders):
        labels_present = list(range(len(names)))
        if all(folder.isdecimal() for folder in folders):  # `10` sorts before `2`
            by_value = sorted(labels_present, key=lambda label: int(folders[label]))
            labels_present = [by_value.index(label) for label in labels_present]
    if len(labels_present) < len(folders):
        lacking = [name for name, position in zip(folders, labels, strict=True) if position is None]
        raise ValueError(
            f"the class list {file} has {len(names)} names, and lacks {len(lacking)} of the "
            f"{len(folders)} classes: {list_names(lacking)}; write the names of all folders, or "
            f"a name for each in their order"
        )
    return tuple(map(readable, with_others(names, labels_present)))


def with_others(names: Sequence[str], first: Sequence[int]) -> tuple[str, ...]:
    """Order names: those at some places, and then all others."""
    others = sorted({*range(len(names))} - {*first})
    return tuple(names[position] for position in (*first, *others))
