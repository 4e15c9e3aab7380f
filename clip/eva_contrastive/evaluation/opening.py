"""The data that the options of `clip/evaluate_zero_shot.py` name."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eva_contrastive.evaluation import benchmarks
from eva_contrastive.evaluation.benchmarks import Benchmark, Place
from eva_contrastive.evaluation.options import FOLDERS
from eva_contrastive.evaluation.prompts import find_templates
from eva_contrastive.evaluation.retrieval import CaptionedPictures
from eva_data.imagenet import ImageNetPaths
from eva_data.labelled_images import open_labelled
from eva_data.labelled_videos.middle_frames import MiddleFrames
from eva_data.labelled_videos.opening import open_videos
from eva_data.transforms import ImageTransform, evaluation_transform
from eva_engine.evaluation.counting import LabelledSamples

_TITLES = {"flickr30k": "Flickr30k", "coco": "COCO", "pairs": "pairs"}


@dataclass(frozen=True, kw_only=True)
class Opened:
    """The data of a command.

    Attributes:
        benchmarks: Sets of classes, in the order of Table 10b, then the user's own.
        pairs: Title -> pictures with captions.
        transform: What makes the model's input of a picture.
        missing: Set -> number of its videos that are listed and not there.
    """

    benchmarks: Sequence[Benchmark]
    pairs: dict[str, CaptionedPictures]
    transform: ImageTransform
    missing: dict[str, int]


def open_all(options: argparse.Namespace, *, image_size: int) -> Opened:
    """Open all data at once, so that a wrong path is an error before the first set.

    Args:
        options: Options with what `fill_from_training` sets.
        image_size: Side of the model's pictures.

    Returns:
        The data.

    Raises:
        ValueError: If one is not what its option says.
    """
    pixels: dict[str, Any] = {
        "crop_pct": options.crop_pct, "mean": options.mean, "std": options.std
    }  # fmt: skip
    transform = evaluation_transform(image_size, **pixels)
    found: list[Benchmark] = []
    imagenet = options.imagenet
    if imagenet is not None and imagenet.startswith(("torchvision:", "hf:")):
        found.append(benchmarks.open_named_imagenet(imagenet, transform))
        imagenet = None
    paths = ImageNetPaths(
        imagenet=None if imagenet is None else Path(imagenet),
        **{name: getattr(options, name) for name in FOLDERS},
    )
    found += benchmarks.open_imagenet(paths, image_size=image_size, **pixels)
    for number in (10, 100):
        if (location := getattr(options, f"cifar{number}")) is not None:
            found.append(benchmarks.open_cifar(location, number, transform))
    found += _videos(options, transform)
    missing = {
        one.name: len(one.samples.videos.missing)
        for one in found
        if isinstance(one.samples, MiddleFrames)
    }
    if options.data is not None or options.videos is not None:
        samples = _own_samples(options, transform)
        if isinstance(samples, MiddleFrames):
            missing[benchmarks.OWN] = len(samples.videos.missing)
        templates = find_templates(options.templates or ["simple"])
        found.append(benchmarks.open_own(samples, options.classes, templates))
    return Opened(benchmarks=found, pairs=_pairs(options), transform=transform, missing=missing)


def _place(values: Sequence[str]) -> Place:
    return values[0], values[1] if len(values) > 1 else None


def _videos(options: argparse.Namespace, transform: ImageTransform) -> list[Benchmark]:
    found = []
    if options.ucf101 is not None:
        found.append(
            benchmarks.open_ucf(
                _place(options.ucf101), transform, split=options.ucf101_split or 1,
                backend=options.backend,
            )
        )  # fmt: skip
    for source in ("k400", "k600", "k700"):
        if (values := getattr(options, source)) is not None:
            found.append(
                benchmarks.open_kinetics(source, _place(values), transform, backend=options.backend)
            )
    return found


def _own_samples(options: argparse.Namespace, transform: ImageTransform) -> LabelledSamples:
    if options.data is not None:
        return open_labelled(options.data, transform, upright=False)
    location, root = _place(options.videos)
    videos = open_videos(location, root=root, backend=options.backend)
    return MiddleFrames(videos, transform)


def _pairs(options: argparse.Namespace) -> dict[str, CaptionedPictures]:
    found: dict[str, CaptionedPictures] = {}
    for name, title in _TITLES.items():
        if (values := getattr(options, name)) is not None:
            from eva_data.captions.opening import open_captions

            location, root = _place(values)
            columns = {}
            if name == "pairs":
                columns = {key: getattr(options, key) for key in ("image_column", "caption_column")}
            found[title] = open_captions(location, root=root, **columns)
    return found
