"""Retrieval: does an image find its captions among all captions, and a caption its image?

An image with several captions counts as found with any of them, as in CLIP and its followers.

Shapes: N images, M captions, D values of a feature.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from eva_contrastive.evaluation.zero_shot import encode_all, image_features, text_features
from eva_contrastive.model.eva_clip import EvaClip, tokenize
from eva_data.captions.sources import CaptionedImages
from eva_data.transforms import ImageTransform
from eva_engine import distributed
from eva_engine.evaluation.counting import Mapped, require_few
from eva_runs.interruption import StopSignal

RANKS = (1, 5, 10)
WAYS = ("image_to_text", "text_to_image")
SHARES = tuple(f"{way}_r{rank}" for way in WAYS for rank in RANKS)
_QUERIES = 512  # that are compared at once with all of the other side

Retrieval = dict[str, float]  # see `retrieval_scores`


def retrieval_scores(image_features: Tensor, text_features: Tensor, owners: Tensor) -> Retrieval:
    """Count the queries that find what belongs to them; called on all processes.

    Of equal cosines the one with the lower index comes first. The processes share the queries.

    Args:
        image_features: (N, D) of unit length, all of them on each process.
        text_features: (M, D) of unit length, the same.
        owners: (M,) int64, the image of each caption; each image has one.

    Returns:
        `images` and `texts`, their numbers, and the percent that find a counterpart in the first
        place, among the first five and ten: `image_to_text_r1`, `text_to_image_r10` and so on.
    """
    device = image_features.device
    owners, images = owners.to(device), torch.arange(len(image_features), device=device)
    within = torch.tensor(RANKS, device=device)
    recalls = torch.zeros(len(WAYS), len(RANKS), dtype=torch.float64, device=device)
    for rows in _own_queries(len(images), device):
        ranks = ranks_of(image_features[rows] @ text_features.T, owners == rows[:, None])
        recalls[0] += (ranks[:, None] < within).sum(0)
    for rows in _own_queries(len(owners), device):
        ranks = ranks_of(text_features[rows] @ image_features.T, owners[rows, None] == images)
        recalls[1] += (ranks[:, None] < within).sum(0)
    sums = distributed.sum_over_ranks(recalls.flatten().tolist(), device)
    totals = [len(images)] * len(RANKS) + [len(owners)] * len(RANKS)
    shares = [100 * right / total for right, total in zip(sums, totals, strict=True)]
    return {"images": len(images), "texts": len(owners), **dict(zip(SHARES, shares, strict=True))}


def _own_queries(count: int, device: torch.device) -> list[Tensor]:
    parts = torch.arange(count, device=device).split(_QUERIES)
    return [parts[position] for position in distributed.rank_indices(len(parts))]


def ranks_of(cosines: Tensor, belongs: Tensor) -> Tensor:
    """Find the place, from 0, of the first candidate that belongs to each query, (queries,).

    `cosines` and `belongs` are (queries, candidates); to each query one belongs at least.
    """
    candidates = torch.arange(cosines.shape[1], device=cosines.device)
    best = cosines.masked_fill(~belongs, -torch.inf).max(dim=1, keepdim=True).values
    equal = cosines == best
    first = torch.where(equal & belongs, candidates, len(candidates)).min(dim=1, keepdim=True)
    before = equal & (candidates < first.values)
    return (cosines > best).sum(dim=1) + before.sum(dim=1)


@dataclass(frozen=True, kw_only=True)
class EncodedPairs:
    """Features of unit length of images and all of their captions, in the order of the images."""

    images: Tensor  # (N, D)
    texts: Tensor  # (M, D)
    owners: Tensor  # (M,), the image of each caption
    left_out: Sequence[str]  # the reason for each image that was left out
    kept: Sequence[int]  # index of each image in the dataset


def encode_pairs(
    model: EvaClip,
    pairs: CaptionedImages,
    transform: ImageTransform,
    *,
    batch_size: int,
    workers: int,
    progress: str | None = None,
    max_bad_samples: int = 0,
    stop: StopSignal | None = None,
) -> EncodedPairs:
    """Compute the features of images and captions; called on all processes, which get them all.

    Images are left out that, or whose captions, cannot be read; a ValueError for more than allowed.
    """
    captions, owners, reasons = list[str](), list[int](), dict[int, str]()
    for index in range(len(pairs)):
        try:
            captions_of_image = pairs.captions(index)
        except OSError as error:
            reasons[index] = str(error)
        else:
            captions += captions_of_image
            owners += [index] * len(captions_of_image)
    texts, _ = encode_all(
        model,
        partial(text_features, model),
        Mapped(partial(_tokens, model.context_length), captions),
        batch_size=batch_size,
        progress=progress and f"{progress}, captions",
        stop=stop,
    )
    images, unreadable = encode_all(
        model,
        partial(image_features, model),
        Mapped(partial(_input, pairs, transform), range(len(pairs))),
        batch_size=batch_size,
        workers=workers,
        progress=progress and f"{progress}, images",
        max_bad_samples=max_bad_samples,
        stop=stop,
    )
    reasons |= unreadable
    require_few([reasons[k] for k in sorted(reasons)], total=len(images), most=max_bad_samples)
    owner = torch.tensor(owners, device=images.device)
    is_readable = torch.ones(len(images), dtype=torch.bool, device=images.device)
    is_readable[list(reasons)] = False
    of_kept = is_readable[owner]
    new_indexes = is_readable.cumsum(0) - 1  # of the kept images among each other
    return EncodedPairs(
        images=images[is_readable],
        texts=texts[of_kept],
        owners=new_indexes[owner[of_kept]],
        left_out=[reasons[position] for position in sorted(reasons)],
        kept=is_readable.nonzero()[:, 0].tolist(),
    )


def _tokens(context_length: int, caption: str) -> Tensor:
    return tokenize(caption, context_length)[0]


def _input(pairs: CaptionedImages, transform: ImageTransform, index: int) -> Tensor:
    return transform(pairs.image(index))
