"""The sets of a zero-shot evaluation as they lie on disk, with the names that compete.

Paper section 2.3.5: eight sets of pictures, and four of videos of which the middle frame is seen.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch.utils.data import Dataset

from eva_contrastive.evaluation.prompts import named_classes, named_templates, own_classes
from eva_data.classes import Spellings, listed
from eva_data.imagenet import CLASSES, ImageNetPaths, open_objectnet, open_sets
from eva_data.kinetics import TITLES
from eva_data.labelled_images import open_labelled
from eva_data.labelled_videos.middle_frames import MiddleFrames
from eva_data.labelled_videos.opening import open_videos
from eva_data.labelled_videos.ucf101 import open_ucf101
from eva_data.transforms import ImageTransform, evaluation_transform
from eva_data.video.source import Backend
from eva_engine.evaluation.counting import LabelledSamples

OWN = "data"
_CIFAR = {"CIFAR10": "cifar-10-batches-py", "CIFAR100": "cifar-100-python"}
Place = tuple[str, str | None]  # data, and the folder that its paths begin in


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
    """Samples with other names, and places, of their classes.

    Args:
        samples: The samples.
        classes: The names.
        places: Place among them of each class of `samples`.
    """

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


def open_imagenet(
    paths: ImageNetPaths,
    *,
    image_size: int,
    crop_pct: float,
    mean: Sequence[float],
    std: Sequence[float],
) -> list[Benchmark]:
    """Open ImageNet-1K, V2, A, R, Sketch and ObjectNet, those that are given.

    Names and sentences are OpenAI's. The 113 objects of ObjectNet have its own names. All pictures
    have the same transform, as in CLIP_benchmark.

    Args:
        paths: Where they are; without `real`.
        image_size: Side of the model's pictures.
        crop_pct: Share of the crop.
        mean: Subtracted from the pixels.
        std: Divides them.

    Returns:
        The sets, in the order of Table 10b.

    Raises:
        ValueError: If one is not what its name says.
    """
    names, templates = named_classes("imagenet"), named_templates("imagenet")
    pixels: dict[str, Any] = {"crop_pct": crop_pct, "mean": mean, "std": std}
    found: list[Benchmark] = []
    of_wordnet = replace(paths, objectnet=None)
    if any(vars(of_wordnet).values()):
        found += [
            Benchmark(
                name=one.name,
                samples=one.samples,
                names=names,
                templates=templates,
                columns=one.columns,
            )
            for one in open_sets(of_wordnet, image_size=image_size, bilinear=False, **pixels)
        ]
    if paths.objectnet is not None:
        objects = open_objectnet(paths.objectnet, evaluation_transform(image_size, **pixels))
        found.append(
            Benchmark(name="ObjectNet", samples=objects, names=objects.classes, templates=templates)
        )
    return found


def open_named_imagenet(location: str, transform: ImageTransform) -> Benchmark:
    """Open ImageNet-1K as `torchvision:ImageNet:ROOT:val` or `hf:NAME:SPLIT`.

    Raises:
        ValueError: If it is not that.
    """
    samples = open_labelled(location, transform, upright=False)
    if len(samples.classes) != CLASSES:
        raise ValueError(
            f"{location} has {len(samples.classes)} classes, ImageNet-1K has {CLASSES}"
        )
    return Benchmark(
        name="ImageNet-1K",
        samples=samples,
        names=named_classes("imagenet"),
        templates=named_templates("imagenet"),
    )


def open_cifar(location: str, number: int, transform: ImageTransform) -> Benchmark:
    """Open CIFAR-10 or CIFAR-100.

    Args:
        location: Folder that torchvision has unpacked it in, `torchvision:CIFAR10:ROOT:test`,
            `hf:NAME:SPLIT`, or a folder of class folders.
        number: 10 or 100.
        transform: What makes the model's input.

    Raises:
        ValueError: If it is not that.
    """
    kind = f"CIFAR{number}"
    if (Path(location) / _CIFAR[kind]).is_dir():
        location = f"torchvision:{kind}:{location}:test"
    samples = open_labelled(location, transform, upright=False)
    names = named_classes(kind.lower())
    spellings = Spellings(names)
    places = [spellings.label(name) for name in samples.classes]
    if other := [n for n, place in zip(samples.classes, places, strict=True) if place is None]:
        raise ValueError(
            f"{location} is not CIFAR-{number}: {listed(other, 4)} is not among its classes "
            f"{listed(list(names), 4)}"
        )
    known = [place for place in places if place is not None]
    return Benchmark(
        name=f"CIFAR-{number}",
        samples=Renamed(samples, names, known),
        names=names,
        templates=named_templates("cifar"),
    )


def open_ucf(place: Place, transform: ImageTransform, *, split: int, backend: Backend) -> Benchmark:
    """Open the middle frames of a test list of UCF-101.

    Args:
        place: See `eva_data.labelled_videos.ucf101`.
        transform: What makes the model's input of a frame.
        split: Number of the test list.
        backend: See `open_video`.

    Raises:
        ValueError: As `open_ucf101`.
    """
    names, root = named_classes("ucf101"), place[1]
    videos = open_ucf101(
        Path(place[0]), names, split=split, root=None if root is None else Path(root),
        backend=backend,
    )  # fmt: skip
    return Benchmark(
        name="UCF-101",
        samples=MiddleFrames(videos, transform),
        names=names,
        templates=named_templates("ucf101"),
    )


def open_kinetics(
    source: str, place: Place, transform: ImageTransform, *, backend: Backend
) -> Benchmark:
    """Open the middle frames of Kinetics.

    Args:
        source: `k400`, `k600` or `k700`.
        place: A list of cvdf or of lines `path label`, or a folder of class folders; and the folder
            that the paths of a list begin in.
        transform: What makes the model's input of a frame.
        backend: See `open_video`.

    Raises:
        ValueError: As `open_videos`.
    """
    names = named_classes(source)
    videos = open_videos(place[0], classes=names, root=place[1], backend=backend)
    return Benchmark(
        name=TITLES[source],
        samples=MiddleFrames(videos, transform),
        names=names,
        templates=named_templates("kinetics"),
    )


def open_own(samples: LabelledSamples, classes: str | None, templates: Sequence[str]) -> Benchmark:
    """Name the classes of the user's own data.

    Args:
        samples: Pictures, or middle frames of videos, with labels.
        classes: File of names, see `prompts.own_classes`; None takes those of the data.
        templates: Sentences.

    Raises:
        ValueError: If the names do not fit.
    """
    names, places = own_classes(samples.classes, classes)
    return Benchmark(
        name=OWN, samples=Renamed(samples, names, places), names=names, templates=templates
    )
