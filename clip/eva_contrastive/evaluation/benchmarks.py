"""The sets of a zero-shot evaluation as they lie on disk, with the names that compete.

Paper section 2.3.5: eight sets of images, and four of videos of which the middle frame is seen.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from eva_contrastive.evaluation.prompts import (
    find_templates,
    named_classes,
    named_templates,
    own_classes,
    with_others,
)
from eva_data.captions.sources import CaptionedImages, open_captions
from eva_data.classes import Spellings, list_names
from eva_data.imagenet import ImageNetPaths, open_objectnet, open_sets
from eva_data.kinetics import TITLES
from eva_data.labelled_images import MiddleFrames, open_labelled
from eva_data.labelled_videos.sources import open_ucf101, open_videos
from eva_data.transforms import ImageTransform
from eva_engine.evaluation.counting import ShownSamples

OWN = "data"
_CIFAR = {"CIFAR10": "cifar-10-batches-py", "CIFAR100": "cifar-100-python"}
_PAIRS = {"flickr30k": "Flickr30k", "coco": "COCO", "pairs": "pairs"}


@dataclass(frozen=True)
class Benchmark:
    """A set with what its classes are called."""

    name: str
    samples: ShownSamples
    names: Sequence[str]  # of the classes
    templates: Sequence[str]  # sentences about them, with `{}` in place of the name
    columns: Sequence[int] | None = None  # names that compete, in the order of the labels


def open_benchmarks(
    options: argparse.Namespace, transform: ImageTransform, *, image_size: int
) -> list[Benchmark]:
    """Open the sets of classes that `clip/evaluate_zero_shot.py` is given, own ones as the last.

    They have the order of Table 10b.

    Raises:
        ValueError: If one is not what its option says.
    """
    benchmarks = _imagenet(options, transform, image_size)
    for number in (10, 100):
        location = getattr(options, f"cifar{number}")
        if location is not None:
            benchmarks.append(open_cifar(location, number, transform))
    if options.ucf101 is not None:
        names = named_classes("ucf101")
        listing, root = _split(options.ucf101)
        videos = open_ucf101(
            Path(listing),
            names,
            split=options.ucf101_split,
            root=None if root is None else Path(root),
        )
        frames = MiddleFrames(videos, transform)
        benchmarks.append(Benchmark("UCF-101", frames, names, named_templates("ucf101")))
    for source in ("k400", "k600", "k700"):
        if getattr(options, source) is not None:
            names = named_classes(source)
            frames = _frames(options, source, transform, names)
            benchmarks.append(Benchmark(TITLES[source], frames, names, named_templates("kinetics")))
    if options.data is not None or options.videos is not None:
        benchmarks.append(_own(options, transform))
    return benchmarks


def _imagenet(
    options: argparse.Namespace, transform: ImageTransform, image_size: int
) -> list[Benchmark]:
    """Open ImageNet and its variants, all with the same transform, as in CLIP_benchmark."""
    benchmarks: list[Benchmark] = []
    names, templates = named_classes("imagenet"), named_templates("imagenet")
    folders = {name: getattr(options, name) for name in ("imagenet", "v2", "a", "r", "sketch")}
    if any(folders.values()):
        opened = open_sets(
            ImageNetPaths(**folders),
            image_size=image_size,
            bilinear=False,
            crop_pct=options.crop_pct,
            mean=options.mean,
            std=options.std,
        )
        benchmarks += [Benchmark(o.name, o.samples, names, templates, o.columns) for o in opened]
    if options.objectnet is not None:
        objects = open_objectnet(options.objectnet, transform)
        benchmarks.append(Benchmark("ObjectNet", objects, objects.classes, templates))
    return benchmarks


def open_cifar(location: str, number: int, transform: ImageTransform) -> Benchmark:
    """Open CIFAR-10 or CIFAR-100 as torchvision unpacked it, by name, or as class folders."""
    kind = f"CIFAR{number}"
    if (Path(location) / _CIFAR[kind]).is_dir():
        location = f"torchvision:{kind}:{location}:test"
    samples = open_labelled(location, transform, upright=False)
    names = named_classes(kind.lower())
    spellings = Spellings(names)
    labels = {name: spellings.label(name) for name in samples.classes}
    other = [name for name, location in labels.items() if location is None]
    if other:
        raise ValueError(
            f"{location} is not CIFAR-{number}: {list_names(other, 4)} is no class of it"
        )
    locations = [location for location in labels.values() if location is not None]
    samples.classes = with_others(names, locations)
    return Benchmark(f"CIFAR-{number}", samples, samples.classes, named_templates("cifar"))


def _own(options: argparse.Namespace, transform: ImageTransform) -> Benchmark:
    """Open the user's own data, with the names of its classes."""
    samples = (
        open_labelled(options.data, transform, upright=False)
        if options.data is not None
        else _frames(options, "videos", transform, None)
    )
    templates = find_templates(options.templates or ["simple"])
    samples.classes = own_classes(samples.classes, options.classes)
    return Benchmark(OWN, samples, samples.classes, templates)


def _frames(
    options: argparse.Namespace, name: str, transform: ImageTransform, names: Sequence[str] | None
) -> MiddleFrames:
    """Open the middle frames of a list or folder of videos."""
    location, root = _split(getattr(options, name))
    videos = open_videos(location, classes=names, root=root)
    return MiddleFrames(videos, transform)


def open_retrieval(options: argparse.Namespace) -> dict[str, CaptionedImages]:
    """Open the images with captions that are given, by title; errors as for `open_benchmarks`."""
    datasets: dict[str, CaptionedImages] = {}
    for name, title in _PAIRS.items():
        words = getattr(options, name)
        if words is not None:
            location, root = _split(words)
            columns = ("image_column", "caption_column") if name == "pairs" else ()
            column_options = {column: getattr(options, column) for column in columns}
            datasets[title] = open_captions(location, root=root, **column_options)
    return datasets


def _split(words: Sequence[str]) -> tuple[str, str | None]:
    """Split the words of an option into the data and the folder that its paths begin in."""
    return words[0], words[1] if len(words) > 1 else None
