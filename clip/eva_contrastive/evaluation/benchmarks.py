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
from eva_contrastive.evaluation.retrieval import CaptionedPictures
from eva_data.captions.opening import open_captions
from eva_data.classes import Spellings, listed
from eva_data.imagenet import CLASSES, ImageNetPaths, open_objectnet, open_sets
from eva_data.kinetics import TITLES
from eva_data.labelled_images import open_labelled
from eva_data.labelled_videos.middle_frames import MiddleFrames
from eva_data.labelled_videos.opening import open_ucf101, open_videos
from eva_data.transforms import ImageTransform, evaluation_transform
from eva_engine.evaluation.counting import LabelledSamples

OWN = "data"
_CIFAR = {"CIFAR10": "cifar-10-batches-py", "CIFAR100": "cifar-100-python"}
_TITLES = {"flickr30k": "Flickr30k", "coco": "COCO", "pairs": "pairs"}


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """A set with what its classes are called.

    Attributes:
        name: Name in tables.
        samples: Inputs and labels.
        names: Names of the classes that the text features are made of.
        templates: Sentences about them, with `{}` in place of the name.
        columns: Names that compete, in the order of the labels; None for all.
    """

    name: str
    samples: LabelledSamples
    names: Sequence[str]
    templates: Sequence[str]
    columns: Sequence[int] | None = None


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


@dataclass(frozen=True, kw_only=True)
class Opened:
    """The data of a command.

    Attributes:
        benchmarks: Sets of classes, in the order of Table 10b, then the user's own.
        pairs: Title -> images with captions.
        transform: Transform of an image to the model's input.
        missing: Set -> number of its videos that are listed and not there.
    """

    benchmarks: Sequence[Benchmark]
    pairs: dict[str, CaptionedPictures]
    transform: ImageTransform
    missing: dict[str, int]


def open_all(options: argparse.Namespace, *, image_size: int) -> Opened:
    """Open all data at once, so that a wrong path is an error before the first set.

    Args:
        options: Options of `clip/evaluate_zero_shot.py` with those that `fill_from_training` sets.
        image_size: Side of the model's images.

    Raises:
        ValueError: If one is not what its option says.
    """
    pixels: dict[str, Any] = {
        "crop_pct": options.crop_pct, "mean": options.mean, "std": options.std
    }  # fmt: skip
    transform = evaluation_transform(image_size, **pixels)
    found = _imagenet(options, transform, image_size, pixels)
    for number in (10, 100):
        if (location := getattr(options, f"cifar{number}")) is not None:
            found.append(open_cifar(location, number, transform))
    if options.ucf101 is not None:
        found.append(_ucf101(options, transform))
    for source in ("k400", "k600", "k700"):
        if (place := getattr(options, source)) is not None:
            names = named_classes(source)
            frames = _frames(options, transform, place, names)
            templates = named_templates("kinetics")
            found.append(
                Benchmark(name=TITLES[source], samples=frames, names=names, templates=templates)
            )
    if options.data is not None or options.videos is not None:
        found.append(_own(options, transform))
    opened = {one.name: getattr(one.samples, "samples", one.samples) for one in found}
    missing = {
        name: len(samples.videos.missing)
        for name, samples in opened.items()
        if isinstance(samples, MiddleFrames)
    }
    return Opened(benchmarks=found, pairs=_pairs(options), transform=transform, missing=missing)


def _own(options: argparse.Namespace, transform: ImageTransform) -> Benchmark:
    """Open the user's own data, with the names of its classes."""
    samples: LabelledSamples
    if options.data is not None:
        samples = open_labelled(options.data, transform, upright=False)
    else:
        samples = _frames(options, transform, options.videos, None)
    templates = find_templates(options.templates or ["simple"])
    names, places = own_classes(samples.classes, options.classes)
    renamed = Renamed(samples, names, places)
    return Benchmark(name=OWN, samples=renamed, names=names, templates=templates)


def _root(place: Sequence[str]) -> str | None:
    return place[1] if len(place) > 1 else None


def _frames(
    options: argparse.Namespace,
    transform: ImageTransform,
    place: Sequence[str],
    names: Sequence[str] | None,
) -> MiddleFrames:
    """Open the middle frames of a list or folder of videos."""
    videos = open_videos(place[0], classes=names, root=_root(place), backend=options.backend)
    return MiddleFrames(videos, transform)


def _imagenet(
    options: argparse.Namespace, transform: ImageTransform, image_size: int, pixels: Any
) -> list[Benchmark]:
    """Open ImageNet-1K, V2, A, R, Sketch and ObjectNet, those that are given.

    Names and sentences are OpenAI's. The 113 objects of ObjectNet have its own names. All images
    have the same transform, as in CLIP_benchmark.
    """
    found: list[Benchmark] = []
    place = options.imagenet
    names, templates = named_classes("imagenet"), named_templates("imagenet")
    if place is not None and place.startswith(("torchvision:", "hf:")):
        samples = open_labelled(place, transform, upright=False)
        if len(samples.classes) != CLASSES:
            raise ValueError(f"{place} has {len(samples.classes)} classes, not {CLASSES}")
        found.append(
            Benchmark(name="ImageNet-1K", samples=samples, names=names, templates=templates)
        )
        place = None
    paths = ImageNetPaths(
        imagenet=None if place is None else Path(place),
        v2=options.v2, a=options.a, r=options.r, sketch=options.sketch,
    )  # fmt: skip
    if any(vars(paths).values()):
        found += [
            Benchmark(
                name=one.name,
                samples=one.samples,
                names=names,
                templates=templates,
                columns=one.columns,
            )
            for one in open_sets(paths, image_size=image_size, bilinear=False, **pixels)
        ]
    if options.objectnet is not None:
        objects = open_objectnet(options.objectnet, transform)
        found.append(
            Benchmark(name="ObjectNet", samples=objects, names=objects.classes, templates=templates)
        )
    return found


def open_cifar(location: str, number: int, transform: ImageTransform) -> Benchmark:
    """Open CIFAR-10 or CIFAR-100 as torchvision unpacked it, by name, or as class folders.

    Raises:
        ValueError: If it is not that.
    """
    kind = f"CIFAR{number}"
    if (Path(location) / _CIFAR[kind]).is_dir():
        location = f"torchvision:{kind}:{location}:test"
    samples = open_labelled(location, transform, upright=False)
    names = named_classes(kind.lower())
    spellings = Spellings(names)
    places = {name: spellings.label(name) for name in samples.classes}
    if other := [name for name, place in places.items() if place is None]:
        raise ValueError(f"{location} is not CIFAR-{number}: {listed(other, 4)} is no class of it")
    known = [place for place in places.values() if place is not None]
    return Benchmark(
        name=f"CIFAR-{number}",
        samples=Renamed(samples, names, known),
        names=names,
        templates=named_templates("cifar"),
    )


def _ucf101(options: argparse.Namespace, transform: ImageTransform) -> Benchmark:
    names, root = named_classes("ucf101"), _root(options.ucf101)
    videos = open_ucf101(
        Path(options.ucf101[0]), names, split=options.ucf101_split,
        root=None if root is None else Path(root), backend=options.backend,
    )  # fmt: skip
    return Benchmark(
        name="UCF-101",
        samples=MiddleFrames(videos, transform),
        names=names,
        templates=named_templates("ucf101"),
    )


def _pairs(options: argparse.Namespace) -> dict[str, CaptionedPictures]:
    found: dict[str, CaptionedPictures] = {}
    for name, title in _TITLES.items():
        if (place := getattr(options, name)) is not None:
            columns = {}
            if name == "pairs":
                columns = {key: getattr(options, key) for key in ("image_column", "caption_column")}
            found[title] = open_captions(place[0], root=_root(place), **columns)
    return found
