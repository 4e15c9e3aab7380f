"""Features of clips from any weights, for people.

extract = ClipFeatureExtractor.from_weights("eva_video_k722.pth")
pooled = extract(["dive.mp4", "swim.mp4"])  # (2, 1408)
frames, patches = extract.frames("dive.mp4"), extract.tokens("dive.mp4")

Shapes: B clips, T frames, h x w patches of a frame, C channels.
"""

import os
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from eva_backbone.checkpoints.from_weights import PooledVit
from eva_backbone.vit import VideoTransformer
from eva_data.video.source import open_video
from eva_engine.features import Extractor
from eva_video.data.clips import Sampling, sampling_of
from eva_video.data.transforms import CropsTransform, Normalise

Video = str | os.PathLike[str]
Videos = Tensor | Video | Iterable[Video]


class ClipFeatureExtractor(Extractor):
    """An `Extractor` for clips: paths of videos, or tensors (B, T, 3, H, W) of any length.

    Of a video it sees one clip, of the central square of each frame.

    Attributes:
        sampling: Rule that chooses the frames; by default the centres of T equal segments.
    """

    clips = True
    vit: VideoTransformer

    def __init__(self, pooled: PooledVit, *, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__(pooled, mean=mean, std=std)
        self.sampling = Sampling(frames=self.vit.frames)
        normalise = Normalise(mean=self.mean, std=self.std)
        self.transform = CropsTransform(self.image_size, crops=1, normalise=normalise)

    @classmethod
    def from_weights(cls, source: Video, **settings: Any) -> "ClipFeatureExtractor":
        """Build the ViT of a file with the preprocessing that belongs to it.

        Weights of images see each frame with the positions of an image. Runs of this toolkit note
        the rule that chose their frames.

        Args:
            source: Name of an official or bundled file, or a path; weights of any task but
                detection.
            **settings: `frames`, T: by default that of a video model, 8 for others; and those of
                `Extractor.from_weights`.
        """
        extractor = super().from_weights(source, **settings)
        extractor.sampling = sampling_of(source, frames=extractor.vit.frames)
        return extractor

    def frames(self, videos: Videos) -> Tensor:
        """Compute (B, T, C) float32, a vector for each frame, as a call does for each clip.

        It is the mean of the frame's patches, which see all frames.
        """
        with torch.no_grad():
            tokens, grid = self._encode(videos)
            means = self.patch_tokens(tokens).unflatten(1, grid).mean(dim=(2, 3))
            return (means if self.fc_norm is None else self.fc_norm(means)).float()

    def tokens(self, videos: Videos) -> Tensor:
        """Compute (B, T, h, w, C) float32, a vector for each patch, as a call does for each clip.

        It is that after the ViT's final norm where it has one.
        """
        return self.pooled_and_patches(videos)[1]

    def read(self, sample: Video) -> Tensor:
        """Read the clip (T, 3, S, S) that the extractor sees of a video.

        Raises:
            UnreadableVideoError: An OSError, if it cannot be read.
        """
        with open_video(sample) as opened:
            frames = opened.frames(self.sampling.fixed(len(opened))[0].tolist())
        clip: Tensor = self.transform(frames)[0]
        return clip
