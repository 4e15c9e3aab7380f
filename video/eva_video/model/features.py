"""Features of clips from any weights, for people.

extract = ClipFeatureExtractor.from_weights("eva_video_k722.pth")
pooled = extract(["dive.mp4", "swim.mp4"])  # (2, 1408)
frames, patches = extract.frames("dive.mp4"), extract.tokens("dive.mp4")

Shapes: B clips, T frames, N = T * h * w patches, C channels.
"""

import os
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from eva_backbone.checkpoints.pooled import PooledVit, load_pooled
from eva_backbone.variants import CLIP_MEAN, CLIP_STD, IMAGENET_MEAN, IMAGENET_STD, Pooling
from eva_backbone.vit import VideoTransformer
from eva_data.video.source import Backend, open_video, require_usual_shape
from eva_engine.commands.options import Precision
from eva_engine.distributed import choose_device, choose_dtype
from eva_video.data.clips import Sampling, preprocessing_of
from eva_video.data.transforms import CropsTransform, Normalise

Video = str | os.PathLike[str]


class ClipFeatureExtractor(PooledVit):
    """A frozen ViT over clips with the preprocessing of its training; `from_weights` builds one.

    Of a video it sees one clip, of the central square of each frame.

    Args:
        vit: The ViT.
        pooling: "mean" of the patches, or the class token ("cls").
        image_size: Side of the square in pixels.
        mean: Mean of the pixels, which is subtracted.
        std: Standard deviation of the pixels, by which they are divided.
        fc_norm: Norm of the pooled features, which fine-tuned classifiers have.
        sampling: Rule that chooses the frames; None takes the centres of T equal segments.
        backend: Decoder of the videos.

    Raises:
        ValueError: If `pooling` is neither of the two, or "cls" and the ViT has no class token.
    """

    vit: VideoTransformer

    def __init__(
        self,
        vit: VideoTransformer,
        *,
        pooling: Pooling,
        image_size: int,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        fc_norm: nn.Module | None = None,
        sampling: Sampling | None = None,
        backend: Backend = "pyav",
    ) -> None:
        super().__init__(vit, pooling=pooling, image_size=image_size, fc_norm=fc_norm)
        self.mean, self.std = tuple(mean), tuple(std)
        self.backend: Backend = backend
        self.sampling = sampling or Sampling(frames=vit.frames)
        normalise = Normalise(mean=self.mean, std=self.std)
        self.transform = CropsTransform(image_size, crops=1, normalise=normalise)

    @classmethod
    def from_weights(
        cls,
        source: str | os.PathLike[str],
        *,
        frames: int | None = None,
        image_size: int | None = None,
        pooling: Pooling | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        device: str = "auto",
        precision: Precision = "auto",
        backend: Backend = "pyav",
        **vit_arguments: Any,
    ) -> "ClipFeatureExtractor":
        """Build the ViT of a file with the preprocessing that belongs to it.

        Weights of images see each frame with the positions of an image. Video models, detectors
        and segmentors saw ImageNet's mean and deviation, the other official models CLIP's; runs of
        this toolkit note theirs in the file, and the rule that chose their frames.

        Args:
            source: Name of an official or bundled file, or a path; weights of any task but
                detection.
            frames: T; by default that of a video model, 8 for others.
            image_size: Side of the frames in pixels; by default that of the weights.
            pooling: "cls" or "mean"; by default what the weights were trained for.
            mean: Mean of the pixels, in place of the one that belongs to the weights.
            std: Standard deviation of the pixels, in place of the one that belongs to the weights.
            device: "cuda", "cpu" or "auto".
            precision: Number format; "auto" is fp16 on a GPU and fp32 elsewhere.
            backend: Decoder of the videos.
            **vit_arguments: Settings that the weights do not hold, see `eva_backbone.load_vit`.

        Returns:
            The extractor, on its device.

        Raises:
            ValueError: If the file or an argument does not fit.
            FileNotFoundError: If the source is neither a file nor a known name at hand.
        """
        place = choose_device(device)
        pooled, trunk = load_pooled(
            source, clips=True, frames=frames, image_size=image_size, pooling=pooling,
            dtype=choose_dtype(precision, place), **vit_arguments,
        )  # fmt: skip
        assert isinstance(pooled.vit, VideoTransformer)
        imagenet = trunk.clips or trunk.dense
        usual = (IMAGENET_MEAN, IMAGENET_STD) if imagenet else (CLIP_MEAN, CLIP_STD)
        sampling, normalise = preprocessing_of(
            source, frames=pooled.vit.frames, mean=mean, std=std, usual=usual
        )
        extractor = cls(
            pooled.vit, pooling=pooled.pooling, image_size=pooled.image_size, mean=normalise.mean,
            std=normalise.std, fc_norm=pooled.fc_norm, sampling=sampling, backend=backend,
        )  # fmt: skip
        return extractor.to(place)

    def forward(self, videos: Tensor | Video | Iterable[Video]) -> Tensor:
        """Compute one vector for each clip.

        Args:
            videos: Paths of videos, one or several; or normalised clips (B, T, 3, H, W) of any
                length and size that the patch size divides.

        Returns:
            (B, C) float32, on the extractor's device.

        Raises:
            ValueError: If there is no video, or an unfit size.
            UnreadableVideoError: An OSError, if a video cannot be read.
        """
        with torch.no_grad():
            return self.pool(self._encode(videos)[0])

    def pooled_and_tokens(self, videos: Tensor | Video | Iterable[Video]) -> tuple[Tensor, Tensor]:
        """Compute the results of a call and of `tokens` with one pass through the model."""
        with torch.no_grad():
            tokens, grid = self._encode(videos)
            return self.pool(tokens), self.patch_tokens(tokens).unflatten(1, grid).float()

    def frames(self, videos: Tensor | Video | Iterable[Video]) -> Tensor:
        """Compute (B, T, C) float32, a vector for each frame, as a call does for each clip.

        It is the mean of the frame's patches, which see all frames.
        """
        with torch.no_grad():
            tokens, grid = self._encode(videos)
            means = self.patch_tokens(tokens).unflatten(1, grid).mean(dim=(2, 3))
            return (means if self.fc_norm is None else self.fc_norm(means)).float()

    def tokens(self, videos: Tensor | Video | Iterable[Video]) -> Tensor:
        """Compute (B, T, h, w, C) float32, a vector for each patch, as a call does for each clip.

        It is that after the ViT's final norm where it has one.
        """
        return self.pooled_and_tokens(videos)[1]

    def read(self, video: Video) -> Tensor:
        """Read the clip (T, 3, S, S) that the extractor sees of a video.

        Raises:
            UnreadableVideoError: If it cannot be read.
        """
        with open_video(video, backend=self.backend) as opened:
            require_usual_shape(opened, opened.name)
            frames = opened.frames(self.sampling.fixed(len(opened))[0].tolist())
        clip: Tensor = self.transform(frames)[0]
        return clip

    def _encode(self, videos: Tensor | Video | Iterable[Video]) -> tuple[Tensor, tuple[int, ...]]:
        clips = videos if isinstance(videos, Tensor) else self._read_all(videos)
        if not clips.is_floating_point():
            raise ValueError(
                f"clips must be normalised floating-point numbers, got {clips.dtype}; `transform` "
                "makes them of frames"
            )
        return self.encode(clips)

    def _read_all(self, videos: Video | Iterable[Video]) -> Tensor:
        if isinstance(videos, str | os.PathLike):
            videos = [videos]
        clips = [self.read(video) for video in videos]
        if not clips:
            raise ValueError("there is no video")
        return torch.stack(clips)
