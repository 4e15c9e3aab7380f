"""Labelled images by name: torchvision's datasets, and Hugging Face's with `datasets`."""

import inspect
import re
from collections.abc import Sequence
from typing import Any

from PIL import Image

from eva_data.images import UnreadableImageError, read_image
from eva_data.labelled_images import LabelledImages
from eva_data.transforms import ImageTransform

_TEST = ("test", "val", "validation")
# NAME[:CONFIG]:SPLIT, where the split may be a slice: train[:10%]+test[5:]
_HUGGING_FACE = re.compile(r"([^:]+)(?::([^:\[]+))?:([^:\[]+(?:\[[^\]]*\][^:\[]*)*)")


class NamedImages(LabelledImages):
    """The images of another library's dataset.

    Args:
        name: Name of the dataset, for messages.
        samples: Sequence of samples, each with an image and a label.
        classes: Names of the labels.
        transform: See `LabelledImages`.
        upright: See `LabelledImages`.
        keys: Names of image and label in a sample.
    """

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


def open_torchvision(
    description: str, transform: ImageTransform | None, *, upright: bool
) -> NamedImages:
    """Open a dataset of `torchvision.datasets` that is on this machine.

    Args:
        description: `NAME:ROOT[:SPLIT]`; a dataset that has splits needs one.
        transform: See `LabelledImages`.
        upright: See `LabelledImages`.

    Raises:
        ValueError: If there is no such dataset, split or data; nothing is downloaded.
    """
    from torchvision import datasets

    name, root, split = (*description.split(":", 2), "", "")[:3]
    kind: Any = getattr(datasets, name, None) if name in datasets.__all__ and root else None
    parameters = inspect.signature(kind).parameters if inspect.isclass(kind) else {}
    arguments: dict[str, Any] = {}
    if "split" in parameters:
        arguments = {"split": split}
    elif "train" in parameters:
        arguments = {"train": split == "train"}
    known = split in ("train", *_TEST) if "train" in arguments else bool(split) == bool(arguments)
    if not parameters or not known:
        raise ValueError(
            f"torchvision:{description} must be torchvision:NAME:ROOT[:SPLIT], with a NAME of "
            "torchvision.datasets, and a SPLIT such as train or test where it has several"
        )
    try:
        samples = kind(root, **arguments)
    except (RuntimeError, OSError, ValueError, TypeError, ImportError) as error:
        given = "".join(f", {key}={value!r}" for key, value in arguments.items())
        raise ValueError(
            f"torchvision:{description} cannot be opened ({error}); nothing is downloaded here. "
            "Where torchvision can download it, do so once in Python: "
            f"torchvision.datasets.{name}({root!r}{given}, download=True)"
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
    """Open an image dataset of the Hugging Face hub, or a folder that `datasets` reads.

    The library `datasets` keeps its own cache and downloads what is not in it.

    Args:
        description: `NAME[:CONFIG]:SPLIT`; the split may be a slice such as `train[:10%]`.
        transform: See `LabelledImages`.
        upright: See `LabelledImages`.

    Raises:
        ValueError: If `datasets` is not installed, or there is no such dataset of images with
            class labels.
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
