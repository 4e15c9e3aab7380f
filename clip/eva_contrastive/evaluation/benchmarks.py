"""The sets of a zero-shot evaluation as they lie on disk, with the names that compete.

Paper section 2.3.5: eight sets of images, and four of videos of which the middle frame is seen.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch.utils.data import Dataset

from eva_contrastive.evaluation.prompts import (
    find_templates,
    named_classes,
    named_templates,
    own_classes,
)
from eva_data.captions.opening import open_captions
from eva_data.captions.sources import CaptionedImages
from eva_data.classes import Spellings, listed
from eva_data.imagenet import ImageNetPaths, open_objectnet, open_sets
from eva_data.kinetics import TITLES
from eva_data.labelled_images import open_labelled
from eva_data.labelled_videos.opening import open_ucf101, open_videos
from eva_data.labelled_videos.sources import MiddleFrames
from eva_data.transforms import ImageTransform, evaluation_transform
from eva_engine.evaluation.counting import LabelledSamples

OWN = "data"
_CIFAR = {"CIFAR10": "cifar-10-batches-py", "CIFAR100": "cifar-100-python"}
_PAIRS = {"flickr30k": "Flickr30k", "coco": "COCO", "pairs": "pairs"}


@dataclass(frozen=True)
class Benchmark:
    """A set with what its classes are called."""

    name: str
    samples: LabelledSamples
    names: Sequence[str]  # of the classes
    templates: Sequence[str]  # sentences about them, with `{}` in place of the name
    columns: Sequence[int] | None = None  # names that compete, in the order of the labels


class Renamed(Dataset[tuple[Any, int]]):
    """Samples with other names of their classes: `places` has that of each class of `samples`."""

    def __init__(
        self, samples: LabelledSamples, classes: Sequence[str], places: Sequence[int]
    ) -> None:
        self.classes = tuple(classes)
        self.samples, self._places = samples, places

    def __len__(self) -> int:
        return len(self.samples)

    def sample_id(self, index: int) -> str:
        """Name a sample, for messages."""
        return self.samples.sample_id(index)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        value, label = self.samples[index]
        return value, self._places[label]


@dataclass(frozen=True)
class Opened:
    """The data of a command: sets of classes in the order of Table 10b, then the user's own."""

    benchmarks: Sequence[Benchmark]
    pairs: dict[str, CaptionedImages]  # by title
    transform: ImageTransform


def open_all(options: argparse.Namespace, *, image_size: int) -> Opened:
    """Open all data of `clip/evaluate_zero_shot.py`, so that a wrong path is an error at once.

    Raises:
        ValueError: If one is not what its option says.
    """
    pixels: dict[str, Any] = {name: getattr(options, name) for name in ("crop_pct", "mean", "std")}
    transform = evaluation_transform(image_size, **pixels)
    found = _imagenet(options, transform, image_size, pixels)
    for number in (10, 100):
        if (location := getattr(options, f"cifar{number}")) is not None:
            found.append(open_cifar(location, number, transform))
    found += _videos(options, transform)
    if options.data is not None or options.videos is not None:
        found.append(_own(options, transform))
    return Opened(found, _pairs(options), transform)


def _imagenet(
    options: argparse.Namespace, transform: ImageTransform, image_size: int, pixels: Any
) -> list[Benchmark]:
    """Open ImageNet-1K, V2, A, R, Sketch and ObjectNet, those that are given.

    All images have the same transform, as in CLIP_benchmark.
    """
    found: list[Benchmark] = []
    names, templates = named_classes("imagenet"), named_templates("imagenet")
    given = {name: getattr(options, name) for name in ("imagenet", "v2", "a", "r", "sketch")}
    paths = ImageNetPaths(**given)
    if any(vars(paths).values()):
        opened = open_sets(paths, image_size=image_size, bilinear=False, **pixels)
        found += [Benchmark(o.name, o.samples, names, templates, o.columns) for o in opened]
    if options.objectnet is not None:
        objects = open_objectnet(options.objectnet, transform)
        found.append(Benchmark("ObjectNet", objects, objects.classes, templates))
    return found


def open_cifar(location: str, number: int, transform: ImageTransform) -> Benchmark:
    """Open CIFAR-10 or CIFAR-100 as torchvision unpacked it, by name, or as class folders."""
    kind = f"CIFAR{number}"
    if (Path(location) / _CIFAR[kind]).is_dir():
        location = f"torchvision:{kind}:{location}:test"
    samples = open_labelled(location, transform, upright=False)
    names = named_classes(kind.lower())
    spellings = Spellings(names)
    places = {name: spellings.label(name) for name in samples.classes}
    if other := [name for name, place in places.items() if place is None]:
        raise ValueError(f"{location} is not CIFAR-{number}: {listed(other, 4)} is no class of it")
    renamed = Renamed(samples, names, [place for place in places.values() if place is not None])
    return Benchmark(f"CIFAR-{number}", renamed, names, named_templates("cifar"))


def _videos(options: argparse.Namespace, transform: ImageTransform) -> list[Benchmark]:
    """Open UCF-101 and Kinetics, those that are given."""
    found: list[Benchmark] = []
    if options.ucf101 is not None:
        names, root = named_classes("ucf101"), _root(options.ucf101)
        videos = open_ucf101(
            Path(options.ucf101[0]), names, split=options.ucf101_split,
            root=None if root is None else Path(root), backend=options.backend,
        )  # fmt: skip
        frames = MiddleFrames(videos, transform)
        found.append(Benchmark("UCF-101", frames, names, named_templates("ucf101")))
    for source in ("k400", "k600", "k700"):
        if (place := getattr(options, source)) is not None:
            names = named_classes(source)
            frames = _frames(options, transform, place, names)
            found.append(Benchmark(TITLES[source], frames, names, named_templates("kinetics")))
    return found


def _own(options: argparse.Namespace, transform: ImageTransform) -> Benchmark:
    """Open the user's own data, with the names of its classes."""
    samples: LabelledSamples
    if options.data is not None:
        samples = open_labelled(options.data, transform, upright=False)
    else:
        samples = _frames(options, transform, options.videos, None)
    templates = find_templates(options.templates or ["simple"])
    names, places = own_classes(samples.classes, options.classes)
    return Benchmark(OWN, Renamed(samples, names, places), names, templates)


def _frames(
    options: argparse.Namespace,
    transform: ImageTransform,
    place: Sequence[str],
    names: Sequence[str] | None,
) -> MiddleFrames:
    """Open the middle frames of a list or folder of videos."""
    videos = open_videos(place[0], classes=names, root=_root(place), backend=options.backend)
    return MiddleFrames(videos, transform)


def _pairs(options: argparse.Namespace) -> dict[str, CaptionedImages]:
    found: dict[str, CaptionedImages] = {}
    for name, title in _PAIRS.items():
        if (place := getattr(options, name)) is not None:
            columns = {}
            if name == "pairs":
                columns = {key: getattr(options, key) for key in ("image_column", "caption_column")}
            found[title] = open_captions(place[0], root=_root(place), **columns)
    return found


def _root(place: Sequence[str]) -> str | None:
    return place[1] if len(place) > 1 else None
