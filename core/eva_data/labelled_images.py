"""Labelled images: folders of classes, datasets of torchvision and Hugging Face, middle frames."""

import inspect
import os
import re
from abc import abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from torch.utils.data import Dataset

from eva_data.band_files import BAND_SUFFIXES
from eva_data.bands import Bands
from eva_data.classes import find_class_files, list_names, read_class_list
from eva_data.files import IMAGE_SUFFIXES
from eva_data.images import UnreadableImageError, read_image
from eva_data.index import FolderFiles, Table
from eva_data.labelled_videos.videos import LabelledVideos
from eva_data.samples import LabelledSamples
from eva_data.transforms import BandTransform, ImageTransform

_TRAIN = {"train": True, "test": False, "val": False, "validation": False}
_OF_TORCHVISION = (
    *(AttributeError, ImportError, LookupError, OSError, RuntimeError, TypeError, ValueError),
)
# NAME[:CONFIG]:SPLIT, where the split may be a slice: train[:10%]+test[5:]
_HUGGING_FACE = re.compile(r"([^:]+)(?::([^:\[]+))?:([^:\[]+(?:\[[^\]]*\][^:\[]*)*)")


class LabelledImages(Dataset[tuple[Any, int]]):
    """A map-style dataset: `samples[index]` is (transformed image, label).

    Args:
        transform: Takes the PIL image in RGB, or an array of bands; None returns it as it is.
        classes: Names of the labels 0, 1, ...
        upright: Turn images as their EXIF data say; see `eva_data.images`.
    """

    def __init__(
        self, transform: ImageTransform | None, classes: Sequence[str], *, upright: bool
    ) -> None:
        self.transform: Callable[[Any], Any] | None = transform
        self.classes = tuple(classes)
        self.upright = upright

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def sample_id(self, index: int) -> str:
        """Name the place of an image, for messages."""

    @abstractmethod
    def load(self, index: int) -> tuple[Image.Image, int]:
        """Read an image in RGB, and its label; an UnreadableImageError if it cannot be read."""

    def image(self, index: int) -> Image.Image:
        """Read an image in RGB, whatever its label."""
        return self.load(index)[0]

    def __getitem__(self, index: int) -> tuple[Any, int]:
        image, label = self.load(index)
        return (image if self.transform is None else self.transform(image)), label


class ClassFolders(LabelledSamples[FolderFiles], LabelledImages):
    """Images in a folder for each class, searched with its subfolders.

    Paths and labels are two arrays and a block of bytes: 14 million images take about 1 GB, and
    the loader's processes share them.

    `classes` and `labels` are those of `eva_data.classes.find_class_files`, `upright` and
    `on_white` those of `eva_data.images.read_image`. With `bands` the transform takes an array
    (H, W, N) as stored, in place of the PIL image.
    """

    bands: Bands | None = None

    def __init__(
        self,
        folder: str | os.PathLike[str],
        transform: ImageTransform | None = None,
        *,
        classes: Sequence[str] | None = None,
        labels: Mapping[str, int] | None = None,
        upright: bool,
        on_white: bool = True,
        suffixes: Collection[str] = IMAGE_SUFFIXES,
    ) -> None:
        listed = find_class_files(Path(folder), suffixes, classes=classes, labels=labels)
        super().__init__(FolderFiles(Path(folder), Table(listed.names.arrays())))
        LabelledImages.__init__(self, transform, listed.classes, upright=upright)
        self.folder, self.labels, self._on_white = Path(folder), listed.labels, on_white

    def load(self, index: int) -> tuple[Any, int]:
        """See `LabelledImages`."""
        file, label = self.sample_id(index), int(self.labels[index])
        if self.bands is not None:
            return self.bands.read(file), label
        return read_image(file, upright=self.upright, on_white=self._on_white), label

    def image(self, index: int) -> Image.Image:
        """See `LabelledImages`; of bands, those that are shown."""
        loaded = self.load(index)[0]
        return Image.fromarray(self.bands.draw(loaded)) if self.bands else loaded


def use_bands(samples: LabelledImages, bands: Bands, transform: BandTransform) -> None:
    """Let class folders, opened with `has_bands`, give their images in bands."""
    assert isinstance(samples, ClassFolders)
    samples.bands, samples.transform = bands, transform


class NamedImages(LabelledImages):
    """The images of another library's dataset; `keys` name image and label in its samples."""

    def __init__(
        self,
        name: str,
        samples: Any,
        classes: Sequence[str],
        transform: ImageTransform | None,
        *,
        upright: bool,
        keys: tuple[Any, Any] = (0, 1),
    ) -> None:
        super().__init__(transform, classes, upright=upright)
        self.name, self._samples, self._keys = name, samples, keys

    def __len__(self) -> int:
        return len(self._samples)

    def sample_id(self, index: int) -> str:
        """Name the dataset, and the index."""
        return f"{self.name}[{index}]"

    def load(self, index: int) -> tuple[Image.Image, int]:
        """See `LabelledImages`."""
        sample, image = self._read(index)
        label = sample[self._keys[1]]
        if label is None or not 0 <= int(label) < len(self.classes):
            raise ValueError(f"{self.sample_id(index)} has label {label} of {len(self.classes)}")
        return image, int(label)

    def image(self, index: int) -> Image.Image:
        """See `LabelledImages`; test images may have no label."""
        return self._read(index)[1]

    def _read(self, index: int) -> tuple[Any, Image.Image]:
        name = self.sample_id(index)
        try:
            sample = self._samples[index]
        except Exception as error:  # whatever the library raises, which decodes here
            raise UnreadableImageError(
                f"{name} cannot be read ({type(error).__name__}: {error})"
            ) from error
        return sample, read_image(sample[self._keys[0]], upright=self.upright, name=name)


class MiddleFrames(LabelledImages):
    """The frames in the middle of videos; of an even number the later one of two."""

    def __init__(self, videos: LabelledVideos, transform: ImageTransform) -> None:
        super().__init__(transform, videos.classes, upright=False)
        self.videos = videos

    def __len__(self) -> int:
        return len(self.videos)

    def sample_id(self, index: int) -> str:
        """Name a video, for messages."""
        return self.videos.sample_id(index)

    def load(self, index: int) -> tuple[Image.Image, int]:
        """See `LabelledImages`; an UnreadableVideoError if the video cannot be read."""
        with self.videos.open(index) as video:
            frame = Image.fromarray(video.frames([len(video) // 2])[0])
        return frame, int(self.videos.labels[index])


def hold_out_images(
    samples: LabelledImages, fraction: float, transform: ImageTransform, *, name: str
) -> tuple[ClassFolders, ClassFolders]:
    """Split a folder of classes into images to train on and held-out ones, of another transform."""
    if not isinstance(samples, ClassFolders):
        raise ValueError(
            f"{name}={fraction:g} is for folders of classes; name a split of this dataset as val, "
            "such as hf:NAME:train[90%:] beside hf:NAME:train[:90%]"
        )
    rest, held_out = samples.hold_out(fraction, name=name)
    held_out.transform = transform
    return rest, held_out


def open_labelled(
    location: str | os.PathLike[str],
    transform: ImageTransform | None,
    *,
    classes: Sequence[str] | str | os.PathLike[str] | None = None,
    upright: bool,
    has_bands: bool = False,
) -> LabelledImages:
    """Open labelled images.

    Args:
        location: A folder of class folders, `torchvision:NAME:ROOT[:SPLIT]` or
            `hf:NAME[:CONFIG]:SPLIT` (see `open_torchvision`, `open_hugging_face`).
        transform: See `LabelledImages`.
        classes: Names in the order of the labels, or a text file with them; those of a training
            set for its validation set. None takes them from the data.
        upright: See `LabelledImages`.
        has_bands: Whether files of bands are looked for, too; whose settings the caller sets.
    """
    if isinstance(classes, str | os.PathLike):
        classes = read_class_list(classes)
    kind, colon, rest = os.fspath(location).partition(":")
    if not colon or kind not in ("torchvision", "hf"):
        suffixes = BAND_SUFFIXES if has_bands else IMAGE_SUFFIXES
        return ClassFolders(
            location, transform, classes=classes, upright=upright, suffixes=suffixes
        )
    if has_bands:
        raise ValueError(f"{location}: images of bands are read from folders of classes alone")
    opener = open_torchvision if kind == "torchvision" else open_hugging_face
    samples = opener(rest, transform, upright=upright)
    if classes is not None and samples.classes != tuple(classes):
        raise ValueError(
            f"{location} has the classes {list_names(list(samples.classes))}, but {len(classes)} "
            f"others are expected: {list_names(list(classes))}"
        )
    return samples


def open_torchvision(
    description: str, transform: ImageTransform | None, *, upright: bool
) -> NamedImages:
    """Open `NAME:ROOT[:SPLIT]` of `torchvision.datasets`; nothing is downloaded."""
    from torchvision import datasets

    name, root, split = (*description.split(":", 2), "", "")[:3]
    arguments: dict[str, Any] = {}
    try:
        kind = getattr(datasets, name)
        parameters = inspect.signature(kind).parameters
        if name == "EMNIST":  # letters/test
            kinds, _, part = split.partition("/")
            arguments = {"split": kinds, "train": _TRAIN[part]}
        elif "train" in parameters and "split" not in parameters:
            arguments = {"train": _TRAIN[split]}
        elif "split" in parameters or split:
            arguments = {"split": split}
        samples = kind(root, **arguments)
    except _OF_TORCHVISION as error:
        settings = "".join(f", {key}={value!r}" for key, value in arguments.items())
        raise ValueError(
            f"torchvision:{description} cannot be opened ({type(error).__name__}: {error}). It is "
            "torchvision:NAME:ROOT[:SPLIT]; nothing is downloaded here. Where torchvision can: "
            f"torchvision.datasets.{name}({root!r}{settings}, download=True)"
        ) from error
    classes = _classes(description, samples)
    return NamedImages(f"torchvision:{description}", samples, classes, transform, upright=upright)


def _classes(description: str, samples: Any) -> list[str]:
    classes = getattr(samples, "classes", None)
    if classes is None:
        labels = _labels(samples)
        if not labels:
            raise ValueError(f"torchvision:{description} is not a dataset of labelled images")
        classes = range(max(labels) + 1)
    # a class of Imagenette is a tuple of synonyms
    return [" / ".join(c) if isinstance(c, tuple) else str(c) for c in classes]


def _labels(samples: Any) -> list[int]:
    for key in ("targets", "labels", "_labels", "y", "_samples"):
        values = getattr(samples, key, None)
        if values is not None and len(values) == len(samples):
            try:  # GTSRB and FER2013 keep pairs of an image and a label
                return [int(value[1] if key == "_samples" else value) for value in values]
            except (TypeError, ValueError):  # no numbers; None for test images without a label
                return []
    return []


def open_hugging_face(
    description: str, transform: ImageTransform | None, *, upright: bool
) -> NamedImages:
    """Open `NAME[:CONFIG]:SPLIT` of the Hugging Face hub, or a folder that `datasets` reads.

    The library `datasets` downloads what its cache lacks. A split may be `train[:10%]`.
    """
    parts = _HUGGING_FACE.fullmatch(description)
    if parts is None:
        raise ValueError(f"hf:{description} must be hf:NAME:SPLIT or hf:NAME:CONFIG:SPLIT")
    name, config, split = parts.groups()
    try:
        import datasets  # type: ignore[import-not-found, unused-ignore]

        samples = datasets.load_dataset(name, config, split=split)
    except Exception as error:  # the library's, huggingface_hub's and the network's
        raise ValueError(
            f"hf:{description} cannot be opened by the package `datasets` "
            f"({type(error).__name__}: {error})"
        ) from error
    kinds = {key: type(feature).__name__ for key, feature in samples.features.items()}
    images = [key for key, kind in kinds.items() if kind == "Image"]
    labels = [key for key, kind in kinds.items() if kind == "ClassLabel"]
    if len(labels) > 1:
        labels = [key for key in labels if key == "label"]
    if len(images) != 1 or not labels:
        raise ValueError(f"hf:{description} has not one image and one class label: {kinds}")
    names, keys = samples.features[labels[0]].names, (images[0], labels[0])
    return NamedImages(f"hf:{description}", samples, names, transform, keys=keys, upright=upright)
