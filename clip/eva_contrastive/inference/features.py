"""Features of pictures, texts and videos, for people.

clip = ClipFeatures.from_weights("eva_clip_psz14.pt")
images, texts = clip.images(["cat.jpg", "dog.jpg"]), clip.texts(["a cat", "a dog"])  # (2, 1024)
print(clip.probabilities(images, texts))  # (2, 2)

Shapes: B pictures, texts or videos, F frames of a video, S the side of a picture, L tokens of a
text, D values of a feature.
"""

import logging
import os
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from eva_backbone.variants import CLIP_MEAN, CLIP_STD
from eva_contrastive.config import VIDEO_FRAMES
from eva_contrastive.inference.media import Media, MediaReader
from eva_contrastive.model.eva_clip import EvaClip
from eva_contrastive.model.loading import load_eva_clip, load_vision_tower
from eva_contrastive.model.preparation import find_preparation
from eva_contrastive.model.tokens import count_tokens, tokenize
from eva_contrastive.model.towers import TextTower, VisionTower
from eva_data.files import DEMO_IMAGE_SUFFIXES, VIDEO_SUFFIXES
from eva_data.inputs import files_at, is_several
from eva_data.transforms import evaluation_transform
from eva_data.video.source import Backend, require_backend
from eva_engine.commands.options import Precision, choose_device, choose_dtype

logger = logging.getLogger(__name__)

Picture = Media | Image.Image | NDArray[np.uint8]
_NAMED = 10  # texts that are too long


class FrameFeatures(NamedTuple):
    """Features of frames that are spread over a video.

    Attributes:
        features: (F, D) of unit length.
        frames: Indexes of the frames.
        times: Their times in seconds from the first frame's.
    """

    features: Tensor
    frames: tuple[int, ...]
    times: tuple[float, ...]


class ClipFeatures:
    """EVA-CLIP with its preprocessing; `from_weights` builds one.

    Args:
        model: The model, on its device; or its vision tower, for pictures and videos alone.
        mean: Mean of the pixels, which is subtracted.
        std: Standard deviation of the pixels, by which they are divided.
        frames: Frames of a video.
        batch_size: Pictures, frames or texts that go through a tower at once.
        backend: Decoder of the videos.

    Raises:
        ValueError: If the tower has no projection, or a number is out of range.
    """

    def __init__(
        self,
        model: EvaClip | VisionTower,
        *,
        mean: Sequence[float] = CLIP_MEAN,
        std: Sequence[float] = CLIP_STD,
        frames: int = VIDEO_FRAMES,
        batch_size: int = 32,
        backend: Backend = "pyav",
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        model = model.eval().requires_grad_(False)
        self.visual = model.visual if isinstance(model, EvaClip) else model
        self.text: TextTower | None = model.text if isinstance(model, EvaClip) else None
        if not self.visual.output_dim:
            raise ValueError("these weights have no projection to CLIP's features")
        self.mean, self.std, self.batch_size = tuple(mean), tuple(std), batch_size
        self.transform = evaluation_transform(self.image_size, mean=self.mean, std=self.std)
        self._cut = 0  # texts that were too long
        self.read = MediaReader(self.transform, frames=frames, backend=backend)

    @classmethod
    def from_weights(
        cls,
        source: str | os.PathLike[str],
        *,
        texts: bool = True,
        image_size: int | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        frames: int = VIDEO_FRAMES,
        batch_size: int = 32,
        device: str = "auto",
        precision: Precision = "auto",
        backend: Backend = "pyav",
        **vision_arguments: Any,
    ) -> "ClipFeatures":
        """Build the model of a file with the preprocessing that belongs to it.

        Args:
            source: Official name or file, such as `eva_clip_psz14.pt`; a file of open_clip's
                EVA01-g-14, or a folder that open_clip reads; or the folder of a run.
            texts: Load the text tower; without it, `eva_clip_psz14_vision_enc.pt` is enough.
            image_size: Side of the pictures in pixels; by default that of the weights.
            mean: Mean of the pixels; by default that of a folder of open_clip, or of the training.
            std: Standard deviation of the pixels; by default the same.
            frames: Frames of a video.
            batch_size: Pictures, frames or texts that go through a tower at once.
            device: "cuda", "cpu" or "auto".
            precision: Number format; "auto" is fp16 on a GPU and fp32 elsewhere.
            backend: Decoder of the videos.
            **vision_arguments: Settings that the weights do not hold, such as `num_heads` of an
                unusual size.

        Returns:
            The model, on its device.

        Raises:
            ValueError: If the file or an argument does not fit.
            FileNotFoundError: If the source is neither a file nor a known name at hand.
        """
        require_backend(backend)
        place = choose_device(device)
        load: Callable[..., EvaClip | VisionTower] = load_eva_clip if texts else load_vision_tower
        found = find_preparation(source, image_size=image_size, mean=mean, std=std)
        dtype = choose_dtype(precision, place)
        model = load(source, image_size=found.image_size, dtype=dtype, **vision_arguments)
        return cls(
            model.to(place),
            mean=found.mean or CLIP_MEAN,
            std=found.std or CLIP_STD,
            frames=frames,
            batch_size=batch_size,
            backend=backend,
        )

    @property
    def image_size(self) -> int:
        """Side of the pictures in pixels, S."""
        return self.visual.img_size

    @property
    def embed_dim(self) -> int:
        """Values of a feature, D."""
        return self.visual.output_dim

    @property
    def dtype(self) -> torch.dtype:
        """Number format of the weights."""
        return self.visual.patch_embed.proj.weight.dtype

    @property
    def logit_scale(self) -> Tensor:
        """Factor of the cosines, (1,) float32, by which the model was trained to compare.

        Raises:
            ValueError: If the vision tower alone was loaded.
        """
        return self._text_tower().logit_scale.float().exp()

    def images(
        self, pictures: Tensor | Picture | Iterable[Picture], *, normalize: bool = True
    ) -> Tensor:
        """Compute one feature for each picture.

        Args:
            pictures: Paths, PIL images or arrays (H, W, 3) in RGB, one or several; a folder, or a
                pattern such as `photos/*.jpg`, whose pictures come in the order of their names, see
                `eva_data.inputs.files_at`. They are turned upright by their EXIF data, resized and
                cut to a square. Or normalised images (B, 3, S, S).
            normalize: Scale the features to unit length.

        Returns:
            (B, D) float32, on the model's device.

        Raises:
            ValueError: If there is no picture.
            UnreadableImageError: An OSError, if a picture cannot be read.
            FloatingPointError: If the number format is too small for the model.
        """
        if isinstance(pictures, Tensor):
            return self._encode(self._seen, pictures, normalize=normalize)
        if isinstance(pictures, str | os.PathLike):
            pictures = _files(pictures, DEMO_IMAGE_SUFFIXES)
        elif isinstance(pictures, Image.Image | np.ndarray):
            pictures = [pictures]
        parts = [
            self._encode(self._seen, torch.stack(batch), normalize=normalize)
            for batch in _batches(map(self.read.picture, pictures), self.batch_size)
        ]
        if not parts:
            raise ValueError("there is no picture")
        return torch.cat(parts)

    def texts(self, texts: str | Sequence[str], *, normalize: bool = True) -> Tensor:
        """Compute one feature for each text.

        Args:
            texts: Texts, one or several; of a long one the beginning is read, with a warning.
            normalize: Scale the features to unit length.

        Returns:
            (B, D) float32, on the model's device.

        Raises:
            ValueError: If there is no text, or the vision tower alone was loaded.
            FloatingPointError: If the number format is too small for the model.
        """
        given = [texts] if isinstance(texts, str) else list(texts)
        if not given:
            raise ValueError("there is no text")
        return self.token_features(torch.stack([self.tokens(one) for one in given]),
                                   normalize=normalize)  # fmt: skip

    def tokens(self, text: str) -> Tensor:
        """Turn a text into tokens (L,) int64; of a long one the beginning, with a warning."""
        length: int = self._text_tower().context_length
        count = count_tokens(text)
        if count > length and self._cut < _NAMED:
            self._cut += 1
            shown = text if len(text) < 60 else f"{text[:56]} ..."
            more = "; further ones are not named" if self._cut == _NAMED else ""
            logger.warning("%r has %d tokens: the first %d are read%s", shown, count, length, more)
        return tokenize(text, length)[0]

    def token_features(self, tokens: Tensor, *, normalize: bool = True) -> Tensor:
        """Compute one feature (B, D) float32 for each row of tokens (B, L)."""
        return self._encode(self._text_tower(), tokens, normalize=normalize)

    def videos(self, videos: Media | Iterable[Media], *, normalize: bool = True) -> Tensor:
        """Compute one feature for each video: the mean of those of its frames, of unit length.

        Args:
            videos: Paths, one or several; a folder, or a pattern such as `videos/*.mp4`.
            normalize: Scale the means to unit length too.

        Returns:
            (B, D) float32, on the model's device.

        Raises:
            ValueError: If there is no video.
            UnreadableVideoError: An OSError, if a video cannot be read.
            FloatingPointError: If the number format is too small for the model.
        """
        if isinstance(videos, str | os.PathLike):
            videos = _files(videos, VIDEO_SUFFIXES)
        means = [self.frames(video).features.mean(dim=0) for video in videos]
        if not means:
            raise ValueError("there is no video")
        features = torch.stack(means)
        return F.normalize(features, dim=-1) if normalize else features

    def frames(self, video: Media) -> FrameFeatures:
        """Compute the features of frames that are spread over a video.

        Args:
            video: Path of a video, or of a picture, which is one frame.

        Returns:
            Features of unit length, indexes and times.

        Raises:
            OSError: If the file cannot be read.
            FloatingPointError: If the number format is too small for the model.
        """
        seen = self.read(video)
        return FrameFeatures(self.images(seen.pixels), seen.frames, seen.times)

    def probabilities(self, images: Tensor, texts: Tensor) -> Tensor:
        """Turn features into what the model believes of each text.

        Args:
            images: (B, D) of unit length, of pictures or videos.
            texts: (K, D) of unit length.

        Returns:
            (B, K): shares of the texts, which add up to 1; or, of a model that was trained with the
            sigmoid loss, the probability of each.

        Raises:
            ValueError: If the vision tower alone was loaded.
        """
        logits = self.logit_scale * images @ texts.T
        bias = self._text_tower().logit_bias
        return logits.softmax(dim=-1) if bias is None else (logits + bias.float()).sigmoid()

    def _text_tower(self) -> TextTower:
        if self.text is None:
            raise ValueError("the text tower was not loaded: load the weights with texts=True")
        return self.text

    def _seen(self, images: Tensor) -> Tensor:
        features: Tensor = self.visual(images.to(self.dtype))
        return features

    def _encode(
        self, tower: Callable[[Tensor], Tensor], given: Tensor, *, normalize: bool
    ) -> Tensor:
        """Encode (B, ...) in batches: (B, D) float32."""
        device = self.visual.patch_embed.proj.weight.device
        with torch.no_grad():
            parts = [tower(part.to(device)).float() for part in given.split(self.batch_size)]
        features = torch.cat(parts)
        if not features.isfinite().all():
            raise FloatingPointError(
                f"features are not finite in {self.dtype}: use --precision fp32 or bf16"
            )
        return F.normalize(features, dim=-1) if normalize else features


def _files(path: Media, suffixes: Collection[str]) -> Sequence[Media]:
    return files_at(Path(path), suffixes) if is_several(Path(path)) else [path]


def _batches(items: Iterable[Tensor], size: int) -> Iterable[list[Tensor]]:
    batch: list[Tensor] = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
