"""Options of `clip/evaluate_zero_shot.py`, and the data that they name."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eva_contrastive.evaluation import benchmarks
from eva_contrastive.evaluation.benchmarks import Benchmark, Place
from eva_contrastive.evaluation.prompts import find_templates, template_sets
from eva_contrastive.evaluation.retrieval import CaptionedPictures
from eva_data.labelled.folders import open_labelled
from eva_data.labelled.imagenet import ImageNetPaths
from eva_data.labelled_videos.middle_frames import MiddleFrames
from eva_data.labelled_videos.opening import open_videos
from eva_data.labelled_videos.ucf101 import SPLITS
from eva_data.options import integer
from eva_data.transforms import PictureTransform, evaluation_transform
from eva_data.video.video_source import BACKENDS
from eva_engine.commands.options import add_arguments, add_weights, new_parser
from eva_engine.evaluation.counting import LabelledSamples

FOLDERS = {
    "v2": "ImageNet-V2 matched frequency, folders 0 to 999",
    "a": "ImageNet-A",
    "r": "ImageNet-R",
    "sketch": "ImageNet-Sketch",
    "objectnet": "ObjectNet, with images and mappings",
}
VIDEOS = {
    "ucf101": "UCF-101, with testlist01.txt in it or beside it; or such a list",
    "k400": "Kinetics-400: list, or folder of class folders; and the folder of a list's paths",
    "k600": "Kinetics-600",
    "k700": "Kinetics-700",
}
PAIRS = {
    "flickr30k": "dataset_flickr30k.json#test of Karpathy, or another list; and its pictures",
    "coco": "dataset_coco.json#test of Karpathy, or another list; and its pictures",
    "pairs": "your own pictures with captions, as for training; and the pictures of a list",
}
_TITLES = {"flickr30k": "Flickr30k", "coco": "COCO", "pairs": "pairs"}
_CACHE = "text_features"
_EXAMPLES = """
The paper's Table 10b, any part of it; the column EVA-CLIP-g is what eva_clip_psz14.pt should give:
    torchrun --nproc-per-node 8 clip/evaluate_zero_shot.py --weights eva_clip_psz14.pt \\
        --imagenet imagenet/val --v2 imagenetv2 --a imagenet-a --r imagenet-r --sketch sketch \\
        --objectnet objectnet-1.0 --cifar10 cifar --cifar100 cifar --ucf101 UCF-101 \\
        --k400 k400_val.csv kinetics400/val --k600 k600_val.csv kinetics600/val \\
        --k700 k700_val.csv kinetics700/val --output output/zero_shot

Retrieval, and your own folders with your own names:
    python clip/evaluate_zero_shot.py --weights eva_clip_psz14.pt --coco dataset_coco.json#test coco
    python clip/evaluate_zero_shot.py --weights output/run/model.safetensors --data photos/val \\
        --classes names.txt --templates "a photo of a {}." "a drawing of a {}."

OUTPUT receives results.json (after each set), table.md, table.csv, retrieval.csv, and of --data and
--videos per_class.csv and confusion.png.
"""


def parse(program: str, arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parse the arguments.

    Args:
        program: Name in the help.
        arguments: Arguments; None for those of the command line.

    Returns:
        The options.
    """
    parser = new_parser(
        program,
        "Evaluate a CLIP by the names of classes, without training, and by retrieval.",
        epilog=_EXAMPLES,
    )
    add_weights(parser, kinds="official name; or file of a run, file or folder of open_clip")
    add = parser.add_argument
    one = integer(1)
    add("--text-heads", type=one, help="attention heads, if the size of the text tower is unusual")
    add("--crop-pct", type=float, help="share of the resized picture (default: 1)")
    add("--imagenet", metavar="DIR", help="ImageNet-1K val: a folder for each WordNet id, or "
        "torchvision:ImageNet:ROOT:val")  # fmt: skip
    for name, text in FOLDERS.items():
        add(f"--{name}", type=Path, metavar="DIR", help=text)
    for number in (10, 100):
        add(f"--cifar{number}", metavar="DIR", help=f"CIFAR-{number}: where torchvision has put "
            f"it, torchvision:CIFAR{number}:ROOT:test, or class folders")  # fmt: skip
    for name, text in (VIDEOS | PAIRS).items():
        add(f"--{name}", nargs="+", metavar=("DATA", "ROOT"), help=text)
    add("--ucf101-split", type=int, choices=SPLITS, help="default: 1")
    add("--backend", choices=BACKENDS, default=BACKENDS[0], help="decoder (default: %(default)s)")
    add("--image-column", help="of --pairs, a table's with the pictures (default: found)")
    add("--caption-column", help="of --pairs, with the captions (default: found)")
    own = parser.add_mutually_exclusive_group()
    own.add_argument("--data", help="your own pictures: a folder of class folders, "
                     "torchvision:NAME:ROOT:SPLIT or hf:NAME:SPLIT")  # fmt: skip
    own.add_argument("--videos", nargs="+", metavar=("DATA", "ROOT"),
                     help="your own videos: a folder of class folders or a list")  # fmt: skip
    add("--classes", help="text file of names: those of the folders of --data, or what to call "
        "each in their order, numbers by value (default: the folders', _ as space)")  # fmt: skip
    add("--templates", nargs="+", metavar="TEXT", help="sentences with {} for --data, a file of "
        f"them, or one of {', '.join(template_sets())} (default: simple)")  # fmt: skip
    add("--skip-unreadable", action="store_true", help="leave out and name what cannot be read")
    add_arguments(parser)
    add("--cache", type=Path, help=f"folder of text features (default: {_CACHE} beside OUTPUT)")
    add("--output", type=Path, help="folder of the results")
    options = parser.parse_args(arguments)
    _check(parser, options)
    return options


def _check(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Refuse options that have no effect, and fill in those that depend on others."""
    given = vars(options)
    for name in (*VIDEOS, *PAIRS, "videos"):
        if given[name] is not None and len(given[name]) > 2:
            parser.error(f"--{name} takes the data and the folder of a list's paths, no more")
    for name, owner in (("classes", "data"), ("templates", "data"), ("ucf101_split", "ucf101"),
                        ("image_column", "pairs"), ("caption_column", "pairs")):  # fmt: skip
        others = ("data", "videos") if owner == "data" else (owner,)
        if given[name] is not None and not any(given[other] for other in others):
            option = name.replace("_", "-")
            parser.error(f"--{option} belongs to {' or '.join(f'--{other}' for other in others)}")
    sets = ("imagenet", *FOLDERS, "cifar10", "cifar100", *VIDEOS, "data", "videos", *PAIRS)
    if not any(given[name] for name in sets):
        parser.error(f"nothing to evaluate: give any of --{', --'.join(sets)}")
    if options.cache is None and options.output is not None:
        options.cache = options.output.absolute().parent / _CACHE


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
    transform: PictureTransform
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


def _videos(options: argparse.Namespace, transform: PictureTransform) -> list[Benchmark]:
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


def _own_samples(options: argparse.Namespace, transform: PictureTransform) -> LabelledSamples:
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
