"""A folder of classes divided into images to train on and held-out ones.

Which are held out is the rule of `eva_data.holdout`, each class by its own share.
"""

import copy
from collections.abc import Sequence

import numpy as np
from PIL import Image

from eva_data.holdout import held_out
from eva_data.labelled.folders import ClassFolders
from eva_data.labelled.labelled_images import LabelledImages
from eva_data.transforms import ImageTransform


class ChosenImages(LabelledImages):
    """Some of the images of a data set.

    Args:
        samples: The data set, whose transform is used.
        indices: Indexes of the images.
    """

    def __init__(self, samples: LabelledImages, indices: Sequence[int]) -> None:
        super().__init__(samples.transform, samples.classes, upright=samples.upright)
        self._samples, self._places = samples, np.asarray(indices, np.int64)

    def __len__(self) -> int:
        return len(self._places)

    def _place(self, index: int) -> int:
        if not 0 <= index < len(self):
            raise IndexError(f"index {index} of {len(self)} images")
        return int(self._places[index])

    def sample_id(self, index: int) -> str:
        """See `LabelledImages`."""
        return self._samples.sample_id(self._place(index))

    def load(self, index: int) -> tuple[Image.Image, int]:
        """See `LabelledImages`."""
        return self._samples.load(self._place(index))


def divided(
    samples: LabelledImages, share: float, transform: ImageTransform, *, name: str
) -> tuple[ChosenImages, ChosenImages]:
    """Divide a folder of classes.

    Args:
        samples: The images, with the transform of training.
        share: Share of each class that is held out, see `eva_data.holdout`.
        transform: Transform of those that are held out.
        name: Name of the setting, for messages.

    Returns:
        The images to train on and those that are held out.

    Raises:
        ValueError: If it is not a folder, or one side would be empty.
    """
    if not isinstance(samples, ClassFolders):
        raise ValueError(
            f"{name}={share:g} is for folders of classes; name a split of this data set as val, "
            "such as hf:NAME:train[90%:] beside hf:NAME:train[:90%]"
        )
    names = (samples.name(index) for index in range(len(samples)))
    chosen = held_out(names, share, classes=samples.labels.tolist(), name=name)
    others = copy.copy(samples)
    others.transform = transform
    return (
        ChosenImages(samples, np.flatnonzero(~chosen).tolist()),
        ChosenImages(others, np.flatnonzero(chosen).tolist()),
    )
