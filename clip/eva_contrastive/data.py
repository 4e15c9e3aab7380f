"""Pairs of images and captions, as a training takes them.

A pair that cannot be read is an OSError, which the engine answers with the next one. The caption
and the crop are drawn from torch's global generator, which the loop seeds by seed, epoch and index:
a sample does not depend on the process, the worker or the step in which it is loaded.

Shapes: H x W pixels, L tokens.
"""

from open_clip import image_transform
from torch import Tensor, randint
from torch.utils.data import Dataset

from eva_contrastive.config import DataConfig
from eva_contrastive.model.eva_clip import tokenize
from eva_data.captions.lists import UnreadableCaptionError
from eva_data.captions.opening import open_captions
from eva_data.captions.sources import CaptionedImages, hold_out
from eva_data.transforms import ImageTransform

_OF_TABLES = ("root", "image_column", "caption_column")


class Pairs(Dataset[tuple[Tensor, Tensor]]):
    """A map-style dataset of images, each with one of its captions, cut to L tokens."""

    def __init__(
        self, captions: CaptionedImages, transform: ImageTransform, context_length: int
    ) -> None:
        self.captions, self.transform = captions, transform
        self.context_length = context_length

    def __len__(self) -> int:
        return len(self.captions)

    def sample_id(self, index: int) -> str:
        """Name the image of a pair, for messages."""
        return self.captions.sample_id(index)

    def checksum(self) -> int:
        """Compute a number that changes with the pairs and their order."""
        return self.captions.checksum()

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """Read an image (3, H, W), and the tokens of a caption (L,) int64.

        Raises:
            OSError: If the image or its captions cannot be read, or a caption has no word.
        """
        texts = self.captions.captions(index)
        number = int(randint(len(texts), ())) if len(texts) > 1 else 0
        tokens = tokenize(texts[number], self.context_length)[0]
        if int(tokens.argmax()) < 2:  # the end token, the largest, follows that of the start
            raise UnreadableCaptionError(
                f"{self.sample_id(index)}: the caption {texts[number]!r} has no word"
            )
        return self.transform(self.captions.image(index)), tokens


def training_transform(size: int, data: DataConfig) -> ImageTransform:
    """Make open_clip's random crop (paper Table 10a) of RGB images to (3, size, size) float32."""
    transform: ImageTransform = image_transform(
        size, is_train=True, mean=data.mean, std=data.std, aug_cfg={"scale": data.crop_scale}
    )
    return transform


def open_pairs(data: DataConfig) -> tuple[CaptionedImages, CaptionedImages | None]:
    """Open the pairs of a recipe for training, and those for validation, if there are any.

    Raises:
        ValueError: If they are not what the recipe says, or a held-out share leaves one side
            without images.
    """
    pairs = _open(data, data.train)
    if data.val_share:
        return hold_out(pairs, data.val_share, name="data.val_share")
    return pairs, _open(data, data.val) if data.val else None


def _open(data: DataConfig, location: str) -> CaptionedImages:
    options = {name: getattr(data, name) or None for name in _OF_TABLES}
    return open_captions(location, **options)
