"""A classifier of images, usable from Python in three lines.

predictor = Predictor.from_weights("eva_21k_1k_336px_psz14_ema_89p6.pt")
for name, probability in predictor("photo.jpg"):
    print(f"{name} {probability:.2f}")

Shapes: B images, S the side of a model's image, K classes.
"""

import os
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from timm.data import ImageNetInfo
from torch import Tensor

from eva_backbone.variants import CLIP_MEAN, CLIP_STD
from eva_classification.models import ImageClassifier, load_classifier
from eva_data.bands import Bands
from eva_data.transforms import band_transform, evaluation_transform
from eva_engine.distributed import choose_device
from eva_engine.evaluation.own_data import (
    PUBLISHED,
    NamedClasses,
    bands_of_training,
    class_names,
    notes_of_training,
)
from eva_report.demos import Prediction
from eva_runs.options import Precision
from eva_runs.precision import require_finite, to_precision

IMAGENET = {1000: "imagenet-1k", 21841: "imagenet-22k"}  # number of classes -> name in timm

ImageLike = NDArray[Any] | Image.Image | str | os.PathLike[str]


class Predictor(NamedClasses):
    """A classifier of images, on its device, with its preprocessing; see `from_weights`."""

    def __init__(
        self,
        model: ImageClassifier,
        *,
        class_names: Sequence[str],
        crop_pct: float = 1.0,
        mean: Sequence[float] = CLIP_MEAN,
        std: Sequence[float] = CLIP_STD,
        batch_size: int = 8,
        bands: Bands | None = None,
    ) -> None:
        super().__init__(class_names, num_classes=model.num_classes)
        self.model = model.eval()
        self.batch_size, self.crop_pct = batch_size, crop_pct
        side, self.bands = model.img_size, bands
        values = "RGB in [0, 1]" if bands is None else "bands, low to high scaled to [0, 1]"
        self.facts = {
            "task": "classification",
            "name": "images",
            "shape": [model.in_channels, side, side],
            "input": f"{values}, shorter side resized (bicubic), centre cut, normalised",
            "resize": int(side / crop_pct),
            "mean": [*mean],
            "std": [*std],
            "bands": bands and bands.as_json(),
        }
        self._transform: Any = (
            evaluation_transform(side, crop_pct=crop_pct, mean=mean, std=std)
            if bands is None
            else band_transform(side, bands, crop_pct=crop_pct)
        )

    @classmethod
    def from_weights(
        cls,
        source: str | os.PathLike[str],
        *,
        classes: Sequence[str] | str | os.PathLike[str] | None = None,
        variant: str | None = None,
        image_size: int | None = None,
        crop_pct: float | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        batch_size: int = 8,
        device: str = "auto",
        precision: Precision = "auto",
    ) -> "Predictor":
        """Build the classifier that a file holds, with the preprocessing of its training.

        Args:
            source: Official name or file; the folder of a run, whose weights note its classes.
            classes: Names of the classes in the order of the labels, or a text file of them; by
                default those that the file notes, or those of ImageNet by their number.
            variant: Size of the ViT, for weights that do not say.
            image_size: Side in pixels; by default the weights' own.
            crop_pct: Share of the resized image's side that is seen; by default that of the
                training.
            mean: Mean of the pixels; by default that of the training.
            std: Standard deviation of the pixels; by default that of the training.
            batch_size: Images that go through the model at once.
            device: "cuda", "cpu" or "auto".
            precision: Number format, see `eva_runs.precision.resolve`; "int8" is of the ViT.

        Raises:
            ValueError: If the file or an argument does not fit.
            FileNotFoundError: If the source is neither a file nor a known name at hand.
        """
        resolved_device = choose_device(device)
        model = load_classifier(source, variant=variant, image_size=image_size)
        notes = notes_of_training(
            source, class_names=classes, crop_pct=crop_pct, mean=mean, std=std
        )
        saved_names = notes.pop("class_names")
        names = class_names(
            model.num_classes, names=saved_names, source=source, official=imagenet_names
        )
        return cls(
            to_precision(model, precision, resolved_device),
            class_names=names,
            batch_size=batch_size,
            bands=bands_of_training(source),
            **{name: PUBLISHED[name] if value is None else value for name, value in notes.items()},
        )

    def predict(self, source: ImageLike, *, top: int = 5) -> list[Prediction]:
        """Name what an image shows.

        Returns:
            The `top` classes with the largest probabilities, in falling order.

        Raises:
            FloatingPointError: If the number format is too small for the model.
        """
        return self.top(self.probabilities([source])[0], top)

    def _predict_list(self, sources: Sequence[Any], **options: Any) -> list[list[Prediction]]:
        return [self.top(row, options.get("top", 5)) for row in self.probabilities(sources)]

    def probabilities(self, images: Sequence[ImageLike]) -> NDArray[np.float32]:
        """Compute the probability of each class, (B, K); images and errors are those of a call."""
        rows: list[NDArray[np.float32]] = [np.zeros((0, len(self.class_names)), np.float32)]
        for start in range(0, len(images), self.batch_size):
            batch = images[start : start + self.batch_size]
            rows.append(self.judge([self.prepare(image) for image in batch]))
            for image, row in zip(batch, rows[-1], strict=True):
                name = str(image) if isinstance(image, str | os.PathLike) else "image"
                require_finite(row, f"predictions for {name}")
        return np.concatenate(rows)

    def prepare(self, image: ImageLike) -> Tensor:
        """Turn an image upright by its EXIF data, cut it as an evaluation does: (3, S, S)."""
        pixels = self.read_image(image)
        prepared: Tensor = self._transform(pixels if self.bands else Image.fromarray(pixels))
        return prepared

    def judge(self, prepared: Sequence[Tensor]) -> NDArray[np.float32]:
        """Compute probabilities (B, K), finite or not, of what `prepare` returns for images."""
        weight = next(self.model.parameters())
        with torch.inference_mode():
            logits = self.model(torch.stack([*prepared]).to(weight.device, weight.dtype))
        probabilities: NDArray[np.float32] = logits.float().softmax(1).cpu().numpy()
        return probabilities


def imagenet_names(num_classes: int) -> tuple[str, ...] | None:
    """Name the 1,000 or 21,841 classes of ImageNet, each in its own way; None for other numbers.

    The labels follow the sorted WordNet ids, as officially.

    Returns:
        The first of WordNet's words for each class; all of its words where others have the same
        first one, and its id behind them where others have the same words (both cranes).
    """
    if num_classes not in IMAGENET:
        return None
    info = ImageNetInfo(IMAGENET[num_classes])
    ids, words = info.label_names(), info.label_descriptions()
    first = [label.partition(",")[0] for label in words]
    firsts, complete = Counter(first), Counter(words)
    return tuple(
        word if firsts[word] == 1 else label if complete[label] == 1 else f"{label} ({wordnet})"
        for word, label, wordnet in zip(first, words, ids, strict=True)
    )
