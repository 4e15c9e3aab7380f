"""Retrieval: does an image find its captions among all captions, and a caption its image?

An image with several captions counts as found with any of them, as in CLIP and its followers.

Shapes: N images, M captions, D values of a feature.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from eva_contrastive.evaluation.zero_shot import Mapped, encode_all, image_features, text_features
from eva_contrastive.model.eva_clip import EvaClip, tokenize
from eva_data.captions.sources import CaptionedImages
from eva_data.transforms import ImageTransform
from eva_engine import distributed

RANKS = (1, 5, 10)
WAYS = ("image_to_text", "text_to_image")
_QUERIES = 512  # that are compared at once with all of the other side
_BLANK = (8, 8)  # pixels of what stands for an image that is left out

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
    found = torch.zeros(len(WAYS), len(RANKS), dtype=torch.float64, device=device)
    for rows in _own_queries(images):
        ranks = ranks_of(image_features[rows] @ text_features.T, owners == rows[:, None])
        found[0] += (ranks[:, None] < within).sum(0)
    for rows in _own_queries(torch.arange(len(owners), device=device)):
        ranks = ranks_of(text_features[rows] @ image_features.T, owners[rows, None] == images)
        found[1] += (ranks[:, None] < within).sum(0)
    sums = distributed.sum_over_ranks(found.flatten().tolist(), device)
    scores: Retrieval = {"images": len(images), "texts": len(owners)}
    totals = [total for total in scores.values() for _ in RANKS]
    names = [f"{way}_r{rank}" for way in WAYS for rank in RANKS]
    shares = [100 * right / total for right, total in zip(sums, totals, strict=True)]
    return scores | dict(zip(names, shares, strict=True))


def _own_queries(indexes: Tensor) -> list[Tensor]:
    parts = indexes.split(_QUERIES)
    return [parts[place] for place in distributed.own_share(len(parts))]


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


def _tokens(context_length: int, text: str) -> Tensor:
    return tokenize(text, context_length)[0]


def _read(
    pairs: CaptionedImages, transform: ImageTransform, skip: bool, index: int
) -> tuple[Any, int, str]:
    """Read the model's input of an image, with its index, and why it cannot be read, or nothing."""
    try:
        return transform(pairs.image(index)), index, ""
    except _passed_over(skip) as error:
        return transform(Image.new("RGB", _BLANK)), index, str(error) or repr(error)


def _passed_over(skip: bool) -> tuple[type[OSError], ...]:
    return (OSError,) if skip else ()


@dataclass(frozen=True, kw_only=True)
class EncodedPairs:
    """Features of unit length of images and all of their captions, in the order of the images."""

    images: Tensor  # (N, D)
    texts: Tensor  # (M, D)
    owners: Tensor  # (M,), the image of each caption
    left_out: Sequence[str] = ()  # the reason for each image that was left out
    kept: Sequence[int] | None = None  # index of each image in the dataset; None if all were kept


def encode_pairs(
    model: EvaClip,
    pairs: CaptionedImages,
    transform: ImageTransform,
    *,
    batch_size: int,
    workers: int,
    progress: str | None = None,
    skip_unreadable: bool = False,
) -> EncodedPairs:
    """Compute the features of images and captions; called on all processes, which get them all.

    With `skip_unreadable` images are left out that, or whose captions, cannot be read; a ValueError
    if none is left.
    """
    captions, owners, reasons = _captions(pairs, skip=skip_unreadable)

    def of_images(batch: tuple[Tensor, Tensor, list[str]]) -> Tensor:
        inputs, places, problems = batch
        reasons.update((place, why) for place, why in zip(places.tolist(), problems, strict=True)
                       if why)  # fmt: skip
        return image_features(model, inputs)

    texts = encode_all(
        model, partial(text_features, model),
        Mapped(partial(_tokens, model.context_length), captions),
        batch_size=batch_size, progress=progress and f"{progress}, captions",
    )  # fmt: skip
    images = encode_all(
        model, of_images,
        Mapped(partial(_read, pairs, transform, skip_unreadable), range(len(pairs))),
        batch_size=batch_size, workers=workers, progress=progress and f"{progress}, images",
    )  # fmt: skip
    reasons = {place: why for part in distributed.gather(reasons) for place, why in part.items()}
    owner = torch.tensor(owners, device=images.device)
    if not reasons:
        return EncodedPairs(images=images, texts=texts, owners=owner)
    if len(reasons) == len(images):
        raise ValueError(f"none of {len(reasons)} images can be read: {reasons[min(reasons)]}")
    kept = torch.ones(len(images), dtype=torch.bool, device=images.device)
    kept[list(reasons)] = False
    of_kept, places = kept[owner], kept.cumsum(0) - 1  # of the kept images among each other
    return EncodedPairs(
        images=images[kept],
        texts=texts[of_kept],
        owners=places[owner[of_kept]],
        left_out=[reasons[place] for place in sorted(reasons)],
        kept=kept.nonzero()[:, 0].tolist(),
    )


def _captions(pairs: CaptionedImages, *, skip: bool) -> tuple[list[str], list[int], dict[int, str]]:
    """Read all captions: the captions, the image of each, and what could not be read."""
    captions, owners, reasons = list[str](), list[int](), dict[int, str]()
    for index in range(len(pairs)):
        try:
            own = pairs.captions(index)
            captions += own
            owners += [index] * len(own)
        except _passed_over(skip) as error:
            reasons[index] = str(error) or repr(error)
    return captions, owners, reasons
