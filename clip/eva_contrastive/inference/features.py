"""Features of images, texts and videos.

clip = ClipFeatures.from_weights("eva_clip_psz14.pt")
images, texts = clip.images(["cat.jpg", "dog.jpg"]), clip.texts(["a cat", "a dog"])  # (2, 1024)
print(clip.probabilities(images, texts))  # (2, 2)

Shapes: B images, texts or videos, F frames of a video, S the side of an image, L tokens of a text,
D values of a feature.
"""

import itertools
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
from eva_contrastive.evaluation.prompts import sentences
from eva_contrastive.model.eva_clip import (
    EvaClip,
    TextTower,
    VisionTower,
    count_tokens,
    tokenize,
)
from eva_contrastive.model.loading import load_eva_clip, load_vision_tower
from eva_contrastive.model.open_clip_files import find_preparation
from eva_data.files import DEMO_IMAGE_SUFFIXES, VIDEO_SUFFIXES
from eva_data.images import UnreadableImageError, read_image, read_rgb
from eva_data.inputs import files_at, is_several, is_video
from eva_data.transforms import ImageTransform, evaluation_transform
from eva_data.video.source import UnreadableVideoError, open_video
from eva_engine.distributed import choose_device
from eva_runs.options import Precision
from eva_runs.precision import choose_dtype, require_finite, to_precision
from eva_runs.predictor import BasePredictor

logger = logging.getLogger(__name__)

Media = str | os.PathLike[str]
ImageSource = Media | Image.Image | NDArray[np.uint8]
_NAMED = 10  # texts that are too long


class Frames(NamedTuple):
    """What belongs to the frames of a video that are spread over it; an image is one frame."""

    values: Tensor  # normalised pixels (F, 3, S, S), or features (F, D) of unit length
    indexes: tuple[int, ...]
    times: tuple[float, ...]  # in seconds from the first frame's


def spread(length: int, count: int) -> list[int]:
    """Choose the middle frames of `count` equal parts of a video, each once, in order."""
    return sorted({(2 * part + 1) * length // (2 * count) for part in range(count)})


class MediaReader:
    """Reads images and videos as input; it can be sent to the processes of a loader."""

    def __init__(self, transform: ImageTransform, *, frames: int = VIDEO_FRAMES) -> None:
        self.transform, self.frames = transform, frames

    def image(self, source: ImageSource) -> Tensor:
        """Read an image (3, S, S), upright by its EXIF data.

        Raises:
            UnreadableImageError: An OSError, if it cannot be read.
        """
        if isinstance(source, np.ndarray):
            source = Image.fromarray(read_rgb(source, upright=True))
        return self.transform(read_image(source, upright=True))

    def __call__(self, source: Media) -> Frames:
        """Read the pixels of an image, or by its suffix of a video.

        Raises:
            OSError: An `UnreadableImageError` or `UnreadableVideoError`.
        """
        if not is_video(source):
            return Frames(self.image(source)[None], (0,), (0.0,))
        with open_video(source) as video:
            indexes = spread(len(video), self.frames)
            pixels = [
                self.transform(Image.fromarray(rgb)) for _, rgb in video.iterate_frames(indexes)
            ]
            return Frames(torch.stack(pixels), tuple(indexes), tuple(video.times(indexes)))


class ClipFeatures(BasePredictor[Tensor]):
    """EVA-CLIP with its preprocessing; `from_weights` builds one, and describes the arguments.

    Args:
        model: The model, on its device; or its vision tower, for images and videos alone.
        mean: Mean of the pixels.
        std: Standard deviation of the pixels.
        frames: Frames of a video.
        batch_size: Images, frames or texts of a forward pass.

    Attributes:
        image_size: S.
        embed_dim: D.
        dtype: Number format of the weights.

    Raises:
        ValueError: If the tower has no projection.
    """

    _suffixes = DEMO_IMAGE_SUFFIXES | VIDEO_SUFFIXES
    _unreadable = (UnreadableImageError, UnreadableVideoError)

    def __init__(
        self,
        model: EvaClip | VisionTower,
        *,
        mean: Sequence[float] = CLIP_MEAN,
        std: Sequence[float] = CLIP_STD,
        frames: int = VIDEO_FRAMES,
        batch_size: int = 32,
    ) -> None:
        model = model.eval().requires_grad_(False)
        self.visual = model.visual if isinstance(model, EvaClip) else model
        self.text: TextTower | None = model.text if isinstance(model, EvaClip) else None
        if not self.visual.output_dim:
            raise ValueError("these weights have no projection to CLIP's features")
        self.image_size, self.embed_dim = self.visual.img_size, self.visual.output_dim
        self.dtype = self.visual.patch_embed.proj.weight.dtype
        self.mean, self.std, self.batch_size = tuple(mean), tuple(std), batch_size
        self.transform = evaluation_transform(self.image_size, mean=self.mean, std=self.std)
        self.read = MediaReader(self.transform, frames=frames)
        self._cut = 0  # texts that were too long

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
        **vision_arguments: Any,
    ) -> "ClipFeatures":
        """Build the model of a file with the preprocessing that belongs to it.

        Args:
            source: Official name or file, such as `eva_clip_psz14.pt`; a file of open_clip's
                EVA01-g-14, or a folder that open_clip reads; or the folder of a run.
            texts: Load the text tower; without it, `eva_clip_psz14_vision_enc.pt` is enough.
            image_size: Side of the images in pixels; by default that of the weights.
            mean: Mean of the pixels; by default that of a folder of open_clip, or of the training.
            std: Standard deviation of the pixels; by default the same.
            frames: Frames of a video.
            batch_size: Images, frames or texts that go through a tower at once.
            device: "cuda", "cpu" or "auto".
            precision: Number format, see `eva_runs.precision.resolve`; "int8" is of the ViT.
            **vision_arguments: Settings that the weights do not hold, such as `num_heads` of an
                unusual size.

        Raises:
            ValueError: If the file or an argument does not fit.
            FileNotFoundError: If the source is neither a file nor a known name at hand.
        """
        resolved_device = choose_device(device)
        load: Callable[..., EvaClip | VisionTower] = load_eva_clip if texts else load_vision_tower
        side, mean, std = find_preparation(source, image_size=image_size, mean=mean, std=std)
        dtype = choose_dtype(precision, resolved_device)
        model = load(source, image_size=side, dtype=dtype, **vision_arguments)
        model = to_precision(model, precision, resolved_device)
        return cls(model, mean=mean, std=std, frames=frames, batch_size=batch_size)

    @classmethod
    def from_run(cls, run: str | os.PathLike[str], **options: Any) -> "ClipFeatures":
        """Build the model of a run; `options` are those of `from_weights`."""
        return cls.from_weights(run, **options)

    def predict(self, source: ImageSource) -> Tensor:
        """Compute the feature (D,) float32 of an image, or of a file of a video."""
        if isinstance(source, str | os.PathLike) and is_video(source):
            return self.videos([source])[0]
        return self.images([source])[0]

    def images(
        self, images: Tensor | ImageSource | Iterable[ImageSource], *, normalize: bool = True
    ) -> Tensor:
        """Compute one feature for each image.

        Args:
            images: Paths, PIL images or arrays (H, W, 3) in RGB, one or several; a folder, or a
                pattern such as `photos/*.jpg`, whose images come in the order of their names, see
                `eva_data.inputs.files_at`. They are turned upright by their EXIF data, resized and
                cut to a square. Or normalised images (B, 3, S, S).
            normalize: Scale the features to unit length.

        Returns:
            (B, D) float32, on the model's device.

        Raises:
            UnreadableImageError: An OSError, if an image cannot be read.
            FloatingPointError: If the number format is too small for the model.
        """
        if isinstance(images, Tensor):
            return self._encode(self.visual, images.to(self.dtype), normalize=normalize)
        if isinstance(images, str | os.PathLike):
            images = files_of(images, DEMO_IMAGE_SUFFIXES)
        elif isinstance(images, Image.Image | np.ndarray):
            images = [images]
        read = map(self.read.image, images)
        parts = []
        while batch := list(itertools.islice(read, self.batch_size)):
            parts.append(self.images(torch.stack(batch), normalize=normalize))
        return torch.cat(parts)

    def texts(self, texts: str | Sequence[str], *, normalize: bool = True) -> Tensor:
        """Compute a feature (B, D) float32 of each text; of a long one the beginning is read.

        Raises:
            ValueError: If the vision tower alone was loaded.
        """
        sentences = [texts] if isinstance(texts, str) else texts
        tokens = torch.stack([self.tokens(sentence) for sentence in sentences])
        return self.token_features(tokens, normalize=normalize)

    def tokens(self, sentence: str) -> Tensor:
        """Turn a text into tokens (L,) int64; of a long one the beginning, with a warning."""
        length: int = self._text_tower().context_length
        count = count_tokens(sentence)
        if count > length:
            self._cut += 1
            if self._cut <= _NAMED:
                logger.warning(
                    "%.60r has %d tokens: the first %d are read", sentence, count, length
                )
        return tokenize(sentence, length)[0]

    def token_features(self, tokens: Tensor, *, normalize: bool = True) -> Tensor:
        """Compute one feature (B, D) float32 for each row of tokens (B, L)."""
        return self._encode(self._text_tower(), tokens, normalize=normalize)

    def classes(self, names: Sequence[str], templates: Sequence[str]) -> Tensor:
        """Compute a feature (K, D) of each class: the mean of its sentences', of unit length."""
        means = [self.texts(sentences(name, templates)).mean(dim=0) for name in names]
        return F.normalize(torch.stack(means), dim=-1)

    def videos(self, videos: Media | Iterable[Media], *, normalize: bool = True) -> Tensor:
        """Compute a feature (B, D) float32 of each video: the mean of its frames' unit features.

        Args:
            videos: Paths, one or several; a folder, or a pattern such as `videos/*.mp4`.
            normalize: Scale the means to unit length too.

        Raises:
            UnreadableVideoError: An OSError, if a video cannot be read.
            FloatingPointError: If the number format is too small for the model.
        """
        if isinstance(videos, str | os.PathLike):
            videos = files_of(videos, VIDEO_SUFFIXES)
        features = torch.stack([self.frames(video).values.mean(dim=0) for video in videos])
        return F.normalize(features, dim=-1) if normalize else features

    def frames(self, video: Media) -> Frames:
        """Compute the features of frames that are spread over a video; an image is one frame."""
        read = self.read(video)
        return read._replace(values=self.images(read.values))

    def probabilities(self, images: Tensor, texts: Tensor) -> Tensor:
        """Compute probabilities (B, K) of texts (K, D) for images or videos (B, D), of unit length.

        They add up to 1; or, of a model that was trained with the sigmoid loss, are each text's.
        """
        tower = self._text_tower()
        logits, bias = tower.logit_scale.float().exp() * images @ texts.T, tower.logit_bias
        return logits.softmax(dim=-1) if bias is None else (logits + bias.float()).sigmoid()

    def _text_tower(self) -> TextTower:
        if self.text is None:
            raise ValueError("the text tower was not loaded: load the weights with texts=True")
        return self.text

    def _encode(
        self, tower: Callable[[Tensor], Tensor], inputs: Tensor, *, normalize: bool
    ) -> Tensor:
        """Encode (B, ...) in batches: (B, D) float32."""
        device = self.visual.patch_embed.proj.weight.device
        with torch.no_grad():
            parts = [tower(part.to(device)).float() for part in inputs.split(self.batch_size)]
        features = torch.cat(parts)
        require_finite(features, "features")
        return F.normalize(features, dim=-1) if normalize else features


def files_of(path: Media, suffixes: Collection[str]) -> list[Path]:
    """List the files of a folder or a pattern; a file is alone."""
    return files_at(Path(path), suffixes) if is_several(Path(path)) else [Path(path)]
