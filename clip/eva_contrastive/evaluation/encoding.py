"""Features of all samples of a dataset, split over processes.

Shapes: N samples, B of them in a batch, D values of a feature.
"""

from collections.abc import Callable
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import Dataset

from eva_engine import distributed
from eva_engine.data.loading import evaluation_loader

_EXCHANGED = 4096  # samples whose features are sent at once


class ClipModel(Protocol):
    """Model that can be evaluated, such as `eva_contrastive.model.eva_clip.EvaClip`."""

    @property
    def context_length(self) -> int: ...  # noqa: D102

    @property
    def embed_dim(self) -> int: ...  # noqa: D102

    def encode_image(self, images: Tensor) -> Tensor: ...  # noqa: D102

    def encode_text(self, tokens: Tensor) -> Tensor: ...  # noqa: D102


def place_of(model: Any) -> tuple[torch.device, torch.dtype]:
    """Return device and number format of a model's parameters."""
    assert isinstance(model, nn.Module)
    parameter = next(model.parameters())
    return parameter.device, parameter.dtype


def image_features(model: ClipModel, images: Tensor) -> Tensor:
    """Encode images (B, 3, H, W) on the model's device to unit features (B, D), float32."""
    device, dtype = place_of(model)
    return F.normalize(model.encode_image(images.to(device, dtype)).float(), dim=-1)


def text_features(model: ClipModel, tokens: Tensor) -> Tensor:
    """Encode tokens (B, L) to unit features (B, D), float32."""
    return F.normalize(model.encode_text(tokens.to(place_of(model)[0])).float(), dim=-1)


def encode_all(
    compute: Callable[[Any], Tensor],
    samples: Dataset[Any],
    *,
    dim: int,
    device: torch.device,
    batch_size: int,
    workers: int = 0,
    progress: str | None = None,
) -> Tensor:
    """Compute the features of all samples; called on all processes, which all get all of them.

    The batches are the same whatever the number of processes, and so are the features.

    Args:
        compute: Function from a batch of samples to features (B, D) on `device`.
        samples: Map-style dataset with a length.
        dim: D.
        device: Device of this process.
        batch_size: B.
        workers: Processes that load.
        progress: Title of a progress bar; None shows none.

    Returns:
        (N, D), float32 on `device`.

    Raises:
        FloatingPointError: If a feature is not finite.
        OSError: If a sample cannot be read.
    """
    count: int = len(samples)  # type: ignore[arg-type]
    starts = range(0, count, batch_size)
    batches = [list(range(start, min(start + batch_size, count))) for start in starts]
    own = [batches[place] for place in distributed.own_share(len(batches))]
    features = torch.zeros(count, dim, device=device)
    with evaluation_loader(
        samples, workers=workers, batches=own, pin_memory=device.type == "cuda", progress=progress
    ) as loaded:
        for inputs, places in zip(loaded, own, strict=False):  # a stop ends `loaded` early
            with torch.inference_mode():
                features[places[0] : places[-1] + 1] = compute(inputs)
    if distributed.world_size() > 1:
        for part in features.split(_EXCHANGED):
            torch.distributed.all_reduce(part)  # the others have zeros there
    if not all(part.isfinite().all() for part in features.split(_EXCHANGED)):
        raise FloatingPointError("features are not finite: use fp32 or bf16")
    return features
