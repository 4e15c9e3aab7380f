"""Pairs of pictures and captions as tensors, for training.

A pair that cannot be read is an OSError, which the engine answers with the next one. The caption
and the crop are drawn from torch's global generator, which the loop seeds by seed, epoch and index:
a sample does not depend on the process, the worker or the step in which it is loaded.

Shapes: H x W pixels, L tokens.
"""

from torch import Tensor, randint
from torch.utils.data import Dataset

from eva_contrastive.model.tokens import tokenize
from eva_data.captions.captioned_images import CaptionedImages
from eva_data.captions.texts import UnreadableCaptionError
from eva_data.transforms import ImageTransform


class Pairs(Dataset[tuple[Tensor, Tensor]]):
    """A map-style data set of pictures, each with one of its captions, drawn at random.

    Args:
        captions: The pictures and their captions.
        transform: What makes a tensor of a picture.
        context_length: L; a longer caption is cut.
    """

    def __init__(
        self, captions: CaptionedImages, transform: ImageTransform, context_length: int = 77
    ) -> None:
        self.captions, self.transform = captions, transform
        self.context_length = context_length

    def __len__(self) -> int:
        return len(self.captions)

    def sample_id(self, index: int) -> str:
        """Name the picture of a pair, for messages."""
        return self.captions.sample_id(index)

    def checksum(self) -> int:
        """Compute a number that changes with the pairs and their order."""
        return self.captions.checksum()

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """Read a pair.

        Returns:
            The picture (3, H, W), and the tokens of a caption (L,) int64.

        Raises:
            OSError: If the picture or its captions cannot be read, or a caption has no word.
        """
        texts = self.captions.captions(index)
        number = int(randint(len(texts), ())) if len(texts) > 1 else 0
        tokens = tokenize(texts[number], self.context_length)[0]
        if int(tokens.argmax()) < 2:  # the end token, the largest, follows that of the start
            raise UnreadableCaptionError(
                f"{self.sample_id(index)}: the caption {texts[number]!r} has no word"
            )
        return self.transform(self.captions.image(index)), tokens
