"""What the predictors of all tasks have in common.

predictor = Predictor.from_run("output/mine")
prediction = predictor("photo.jpg")
for file, prediction in predictor.predict_many("photos"):
    print(file, prediction)
"""

import logging
import os
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, Generic, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from eva_data.bands import Bands, draw_pixels, read_pixels
from eva_data.files import DEMO_IMAGE_SUFFIXES
from eva_data.images import UnreadableImageError
from eva_data.inputs import files_at, is_several

logger = logging.getLogger(__name__)

Prediction = TypeVar("Prediction")


class BasePredictor(ABC, Generic[Prediction]):
    """A model with its preprocessing: build it of a run, and call it with an image or a video.

    Each task's class says what a prediction is, and which options there are besides.
    """

    _suffixes: ClassVar[Collection[str]] = DEMO_IMAGE_SUFFIXES
    bands: Bands | None = None  # of its images; None for RGB
    _unreadable: ClassVar[tuple[type[OSError], ...]] = (UnreadableImageError,)

    @classmethod
    @abstractmethod
    def from_run(cls, run: str | os.PathLike[str], **options: Any) -> Self:
        """Build the predictor that a training has left.

        Args:
            run: Output folder of the training, or a file of weights in it.
            **options: Those of the task's `from_config` or `from_weights`, such as `device` ("cpu",
                "cuda") and `precision` ("fp32", "bf16", "int8").

        Raises:
            FileNotFoundError: If the folder holds no weights.
            ValueError: If they or an option cannot be used.
        """

    def read_image(self, source: Any) -> NDArray[Any]:
        """Read an image for `predict`: upright in RGB, or its bands as they are stored."""
        return read_pixels(source, self.bands)

    def require_rgb(self, program: str) -> None:
        """Refuse a model of bands in a program that decodes images in RGB itself."""
        if self.bands is not None:
            raise ValueError(
                f"{program} reads images in RGB, and the model has {self.bands.count} bands: use "
                "demo, evaluate or label"
            )

    def draw_image(self, pixels: NDArray[Any]) -> NDArray[np.uint8]:
        """Make an image in RGB of what `read_image` returns."""
        return draw_pixels(pixels, self.bands)

    @abstractmethod
    def predict(self, source: Any, *_: Any, **options: Any) -> Prediction:
        """Predict for one image or video; `options` are the task's."""

    def __call__(self, source: Any, **options: Any) -> Any:
        """Predict for one image or video, or for several.

        Args:
            source: Path of an image, PIL image or array (H, W, 3) of uint8 in RGB; of a video
                classifier path of a video or array (T, H, W, 3). A list of these. A folder, or a
                pattern such as `photos/*.jpg`.
            **options: Those of `predict`.

        Returns:
            One prediction; for a list, a list of them; for a folder or a pattern, what
            `predict_many` returns.

        Raises:
            ValueError: If the source is none of these, or a folder has no such files.
            OSError: If a file cannot be read.
        """
        if isinstance(source, list | tuple):
            return self._predict_list([*map(_local, source)], **options)
        if isinstance(source, str | os.PathLike) and is_several(Path(source)):
            return self.predict_many(source, **options)
        return self.predict(_local(source), **options)

    def predict_many(
        self, sources: str | os.PathLike[str] | Iterable[Any], **options: Any
    ) -> Iterator[tuple[Any, Prediction]]:
        """Predict for any number of images or videos, one of them in memory at a time.

        Args:
            sources: A folder, a pattern such as `photos/*.jpg`, or anything to iterate over.
            **options: Those of `predict`.

        Returns:
            Pairs of source and prediction. A file that cannot be read is left out, with a warning.

        Raises:
            ValueError: If a folder or a pattern has no such files.
        """
        if isinstance(sources, str | os.PathLike):
            sources = files_at(Path(sources), self._suffixes)
        return self._predict_each(sources, options)

    def _predict_list(self, sources: Sequence[Any], **options: Any) -> list[Prediction]:
        return [self.predict(source, **options) for source in sources]

    def _predict_each(
        self, sources: Iterable[Any], options: dict[str, Any]
    ) -> Iterator[tuple[Any, Prediction]]:
        for source in sources:
            try:
                yield source, self.predict(_local(source), **options)
            except self._unreadable as error:
                logger.warning("%s", error)


def _local(source: Any) -> Any:
    is_address = isinstance(source, str) and "://" in source
    if source is None or is_address or isinstance(source, int | float | dict):
        raise ValueError(f"{source!r} is no path of a file here, no array and no PIL image")
    return source
