"""Features of images from any weights, for people.

extract = FeatureExtractor.from_weights("eva_psz14.pt")
pooled = extract(["cat.jpg", "dog.jpg"])  # (2, 1408)
patches = extract.patches("cat.jpg")  # (1, 1408, 16, 16)

Shapes: B images, h x w patches, C channels.
"""

import os
from collections.abc import Iterable, Sequence

from PIL import Image
from torch import Tensor

from eva_backbone.checkpoints.from_weights import PooledVit
from eva_data.images import read_image
from eva_data.transforms import ImageTransform, evaluation_transform
from eva_engine.features import Extractor

ImageLike = str | os.PathLike[str] | Image.Image


class FeatureExtractor(Extractor):
    """An `Extractor` for images: paths or PIL images, or tensors (B, 3, H, W).

    Files are turned upright by their EXIF data, resized and cut to a square. For clips see
    `eva_video.model.features`.
    """

    def __init__(self, pooled: PooledVit, *, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__(pooled, mean=mean, std=std)
        self.transform: ImageTransform = evaluation_transform(self.image_size, mean=mean, std=std)

    def patches(self, images: Tensor | ImageLike | Iterable[ImageLike]) -> Tensor:
        """Compute a map of features (B, C, h, w) float32 for each image, given as for a call.

        It is that after the ViT's final norm where it has one.
        """
        return self.pooled_and_patches(images)[1].permute(0, 3, 1, 2)

    def read(self, sample: ImageLike) -> Tensor:
        """Read an image (3, S, S).

        Raises:
            UnreadableImageError: An OSError, if it cannot be read.
        """
        return self.transform(read_image(sample, upright=True))
