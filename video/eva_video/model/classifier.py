"""The classifier of clips, under the official parameter names, and its weights.

Shapes: B clips, T frames, H x W pixels, p patch size, N = T * H/p * W/p patches, C channels, K
classes.
"""

import logging
import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from eva_backbone.checkpoints.from_weights import describe
from eva_backbone.checkpoints.loading import LoadReport, load_pretrained
from eva_backbone.checkpoints.reading import Weights
from eva_backbone.layers import init_head
from eva_backbone.variants import variant_arguments
from eva_backbone.vit import VideoTransformer
from eva_data.kinetics import TITLES, kinetics_classes, mapping
from eva_report.terminal import SHOWN


class VideoClassifier(VideoTransformer):
    """A ViT over clips with a linear classifier (paper sections 2.3.2 and A.2).

    The mean of all patches of all frames goes through `fc_norm` and `head`; the class token takes
    part in the attention only.

    Args:
        num_classes: K.
        frames: T.
        **vit: Arguments of `VisionTransformer`.

    Raises:
        ValueError: If frames is below 1, or `vit` does not suit clips.
    """

    def __init__(self, *, num_classes: int, frames: int, **vit: Any) -> None:
        super().__init__(frames=frames, **vit | {"final_norm": False})
        self.num_classes = num_classes
        self.fc_norm = self.norm_layer(self.embed_dim)
        self.head = nn.Linear(self.embed_dim, num_classes)
        init_head(self.head)

    def forward(self, clips: Tensor) -> Tensor:
        """Compute logits (B, K) of normalised clips (B, T, 3, H, W)."""
        logits: Tensor = self.head(self.pool(clips))
        return logits

    def pool(self, clips: Tensor) -> Tensor:
        """Compute the features that the head classifies, (B, C), of clips (B, T, 3, H, W)."""
        tokens = self.forward_features(clips)  # (B, 1 + N, C)
        pooled: Tensor = self.fc_norm(tokens[:, self.num_prefix_tokens :].mean(dim=1))
        return pooled


def build_video_classifier(
    variant: str, *, num_classes: int, frames: int, **overrides: Any
) -> VideoClassifier:
    """Build a freshly initialised classifier of a size, a key of `eva_backbone.VARIANTS`."""
    arguments = variant_arguments(variant) | overrides
    return VideoClassifier(num_classes=num_classes, frames=frames, **arguments)


logger = logging.getLogger(__name__)

_HEADS = ("head", "fc_norm", "norm")  # a pre-trained file lacks them, or has another head
_HEAD = ("head.weight", "head.bias")


def initialise(
    model: VideoClassifier,
    source: str | os.PathLike[str],
    *,
    head_rows: Sequence[int] | None = None,
) -> LoadReport:
    """Load the weights that a training begins with.

    From a model of images, each frame gets the patch kernel and the positions of an image; the
    final norm of masked-image models is left out, `fc_norm` begins as 1 and 0 (official). From a
    model of clips, positions are resampled trilinearly to other frames and sizes. A head for
    another number of classes is left out.

    Args:
        model: The classifier.
        source: Name of an official or bundled file, or a path.
        head_rows: Rows of the file's head that are the model's classes, in their order, such as
            those of Kinetics-400 in Kinetics-722; None takes the head as it is.

    Returns:
        The report, which is also logged.

    Raises:
        ValueError: If the file does not fit, or has no such rows.
        FileNotFoundError: If the source is neither a file nor a known name at hand.
    """
    weights = Weights.read(source)
    if head_rows is not None:
        rows = torch.as_tensor(head_rows, dtype=torch.int64)
        tensors = weights.tensors
        num_classes = len(tensors["head.weight"]) if tensors.keys() >= {*_HEAD} else 0
        if len(rows) != model.num_classes or rows.min() < 0 or rows.max() >= num_classes:
            raise ValueError(
                f"{len(rows)} rows, {int(rows.min())} to {int(rows.max())}, are to be picked for "
                f"{model.num_classes} classes from the head of {weights.name}, which has "
                f"{num_classes}"
            )
        picked = {name: tensors[name][rows] for name in _HEAD}
        weights = replace(weights, tensors={**tensors, **picked})
    report = load_pretrained(
        model, weights, allow_missing=_HEADS, allow_skipped=_HEADS, reinitialise=("head",)
    )
    if report.from_scratch:
        logger.info("%s", report.from_scratch, extra=SHOWN)
    return report


def load_video_classifier(
    source: str | os.PathLike[str],
    *,
    variant: str | None = None,
    frames: int | None = None,
    image_size: int | None = None,
) -> VideoClassifier:
    """Build the classifier that a file holds, and load it.

    Size, frames, resolution and classes are read off the weights.

    Args:
        source: Official name or file, or the folder of a run.
        variant: A key of `eva_backbone.VARIANTS`, for weights whose sizes do not name one.
        frames: Frames of a clip; by default the weights' own. Positions are resampled trilinearly.
        image_size: Side in pixels; by default the weights' own.

    Returns:
        The classifier, in evaluation mode.

    Raises:
        ValueError: If the file holds no classifier of clips, or its sizes are not a variant's.
        FileNotFoundError: If the source is neither a file nor a known name at hand.
    """
    weights = Weights.read(source)
    trunk = describe(weights)
    if not trunk.clips or "head.weight" not in trunk.names:
        kind = "classifier" if "head.weight" in trunk.names else "backbone"
        of = "videos" if trunk.clips else "images"
        raise ValueError(
            f"{weights.name} holds a {kind} of {of}, not a classifier of videos: train one from it "
            f"with video/train.py RECIPE --model.init-checkpoint {os.fspath(source)}"
        )
    arguments = trunk.of_classifier(weights.name, variant=variant, image_size=image_size)
    with torch.device("meta"):
        model = VideoClassifier(
            num_classes=len(weights.tensors[f"{trunk.prefix}head.weight"]),
            frames=trunk.frames if frames is None else frames,
            **arguments,
        )
    load_pretrained(model, weights, complete=True)
    return model.eval()


def subset_of(num_classes: int, subset: str) -> tuple[tuple[str, ...], list[int]]:
    """Find names and rows of `k400`, `k600` or `k700` in a head for a dataset that merges it.

    Raises:
        ValueError: If the head is not for Kinetics-722.
    """
    if num_classes != len(kinetics_classes("k722")):
        raise ValueError(
            f"--subset {subset} picks classes out of {TITLES['k722']}, and the weights have "
            f"{num_classes} classes: leave it out"
        )
    return kinetics_classes(subset), mapping(subset).tolist()
