"""Retrieval: does an image find its captions among all captions, and a caption its picture?

An image with several captions counts as found with any of them, as in CLIP and its followers.

Shapes: N pictures, M captions, D values of a feature.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from eva_contrastive.evaluation.encoding import (
    ClipModel,
    encode_all,
    image_features,
    place_of,
    text_features,
)
from eva_contrastive.model.eva_clip import tokenize
from eva_data.transforms import ImageTransform
from eva_engine import distributed

_QUERIES = 512  # that are compared at once with all of the other side
RANKS = (1, 5, 10)
_BLANK = (8, 8)  # pixels of what stands for an image that is left out


class CaptionedPictures(Protocol):
    """Pictures with captions, such as `eva_data.captions`."""

    def __len__(self) -> int: ...

    def image(self, index: int) -> Any:
        """Read an image in RGB."""
        ...

    def captions(self, index: int) -> Sequence[str]:
        """Return the captions of an image."""
        ...

    def sample_id(self, index: int) -> str:
        """Name the place of an image, for messages."""
        ...


@dataclass(frozen=True, kw_only=True)
class RetrievalScore:
    """Shares in percent of the queries that find their counterpart among the first ones.

    Attributes:
        images: N.
        texts: M.
        image_to_text_r1: Images with a caption of theirs in the first place; r5 and r10 among the
            first five and ten.
        text_to_image_r1: Captions with their image in the first place; r5 and r10 likewise.
    """

    images: int
    texts: int
    image_to_text_r1: float
    image_to_text_r5: float
    image_to_text_r10: float
    text_to_image_r1: float
    text_to_image_r5: float
    text_to_image_r10: float

    def entries(self) -> dict[str, float]:
        """Return all numbers by their names."""
        return asdict(self)


def retrieval_scores(
    image_features: Tensor, text_features: Tensor, owners: Tensor
) -> RetrievalScore:
    """Count the queries that find what belongs to them; called on all processes.

    Of equal cosines the one with the lower index comes first. The processes share the queries.

    Args:
        image_features: (N, D) of unit length, all of them on each process.
        text_features: (M, D) of unit length, the same.
        owners: (M,) int64, the picture of each caption.

    Returns:
        The shares.

    Raises:
        ValueError: If an image has no caption, or sizes do not fit.
    """
    count, texts = len(image_features), len(text_features)
    device = image_features.device
    owners = owners.to(device)
    of_each = torch.bincount(owners, minlength=count)
    if not count or owners.shape != (texts,) or len(of_each) != count or not of_each.all():
        raise ValueError(f"{texts} captions must be of {count} images, at least one of each")
    found = torch.zeros(2, len(RANKS), dtype=torch.float64, device=device)
    within = torch.tensor(RANKS, device=device)
    images = torch.arange(count, device=device)
    queries = (images.split(_QUERIES), torch.arange(texts, device=device).split(_QUERIES))
    for rows in (queries[0][place] for place in distributed.own_share(len(queries[0]))):
        ranks = ranks_of(image_features[rows] @ text_features.T, owners == rows[:, None])
        found[0] += (ranks[:, None] < within).sum(0)
    for rows in (queries[1][place] for place in distributed.own_share(len(queries[1]))):
        ranks = ranks_of(text_features[rows] @ image_features.T, owners[rows, None] == images)
        found[1] += (ranks[:, None] < within).sum(0)
    sums = distributed.sum_over_ranks(found.flatten().tolist(), device)
    shares = [100 * value / (count if place < len(RANKS) else texts)
              for place, value in enumerate(sums)]  # fmt: skip
    directions = ("image_to_text", "text_to_image")
    names = [f"{direction}_r{rank}" for direction in directions for rank in RANKS]
    return RetrievalScore(images=count, texts=texts, **dict(zip(names, shares, strict=True)))


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


class _Texts(Dataset[Tensor]):
    """Texts as tokens (L,)."""

    def __init__(self, texts: list[str], context_length: int) -> None:
        self._texts, self._length = texts, context_length

    def __len__(self) -> int:
        return len(self._texts)

    def __getitem__(self, index: int) -> Tensor:
        return tokenize(self._texts[index], self._length)[0]


class _Images(Dataset[tuple[Any, int, str]]):
    """The model's input of each picture, its index, and why it cannot be read, or nothing."""

    def __init__(self, pairs: CaptionedPictures, transform: ImageTransform, *, skip: bool) -> None:
        self._pairs, self._transform, self._skip = pairs, transform, skip

    def __len__(self) -> int:
        return len(self._pairs)

    def __getitem__(self, index: int) -> tuple[Any, int, str]:
        try:
            return self._transform(self._pairs.image(index)), index, ""
        except OSError as error:
            if not self._skip:
                raise
            return self._transform(Image.new("RGB", _BLANK)), index, str(error) or repr(error)


@dataclass(frozen=True, kw_only=True)
class EncodedPairs:
    """Features of pictures and all of their captions.

    Attributes:
        images: (N, D) of unit length.
        texts: (M, D) of unit length, in the order of the pictures.
        owners: (M,), the picture of each caption.
        left_out: A sentence for each picture that was left out, in the order of the pictures.
        kept: Index of each picture in the data set; None if none was left out.
    """

    images: Tensor
    texts: Tensor
    owners: Tensor
    left_out: Sequence[str] = ()
    kept: Sequence[int] | None = None


def encode_pairs(
    model: ClipModel,
    pairs: CaptionedPictures,
    transform: ImageTransform,
    *,
    batch_size: int,
    workers: int,
    progress: str | None = None,
    skip_unreadable: bool = False,
) -> EncodedPairs:
    """Compute the features of pictures and captions; called on all processes.

    Args:
        model: Model in evaluation mode, on its device.
        pairs: Pictures with captions.
        transform: What makes the model's input of an image.
        batch_size: Pictures, or captions, of a forward pass.
        workers: Processes that load pictures.
        progress: Title of the progress bars; None shows none.
        skip_unreadable: Leave pictures out that, or whose captions, cannot be read.

    Returns:
        The features, the same on each process.

    Raises:
        OSError: If an image or a caption cannot be read, unless such pictures are left out.
        ValueError: If an image has no caption, or no picture can be read.
    """
    captions, owners, reasons = _captions(pairs, skip=skip_unreadable)
    device, _ = place_of(model)

    def of_images(batch: tuple[Tensor, Tensor, list[str]]) -> Tensor:
        inputs, places, problems = batch
        reasons.update(
            {place: why for place, why in zip(places.tolist(), problems, strict=True) if why}
        )
        return image_features(model, inputs)

    texts = encode_all(
        lambda tokens: text_features(model, tokens), _Texts(captions, model.context_length),
        dim=model.embed_dim, device=device, batch_size=batch_size,
        progress=progress and f"{progress}, captions",
    )  # fmt: skip
    images = encode_all(
        of_images, _Images(pairs, transform, skip=skip_unreadable),
        dim=model.embed_dim, device=device, batch_size=batch_size, workers=workers,
        progress=progress and f"{progress}, images",
    )  # fmt: skip
    found = {place: why for part in distributed.gather(reasons) for place, why in part.items()}
    encoded = EncodedPairs(images=images, texts=texts, owners=torch.tensor(owners, device=device))
    return _without(encoded, found) if found else encoded


def _captions(
    pairs: CaptionedPictures, *, skip: bool
) -> tuple[list[str], list[int], dict[int, str]]:
    """Read all captions: the captions, the picture of each, and what could not be read."""
    captions, owners, reasons = list[str](), list[int](), dict[int, str]()
    for index in range(len(pairs)):
        try:
            own = pairs.captions(index)
        except OSError as error:
            if not skip:
                raise
            reasons[index] = str(error) or repr(error)
            continue
        if not own:
            raise ValueError(f"{pairs.sample_id(index)} has no caption")
        captions += own
        owners += [index] * len(own)
    return captions, owners, reasons


def _without(encoded: EncodedPairs, reasons: dict[int, str]) -> EncodedPairs:
    """Leave pictures out, with their captions."""
    if len(reasons) == len(encoded.images):
        raise ValueError(f"none of {len(reasons)} images can be read: {reasons[min(reasons)]}")
    kept = torch.ones(len(encoded.images), dtype=torch.bool, device=encoded.images.device)
    kept[list(reasons)] = False
    places = kept.cumsum(0) - 1  # of the kept pictures among each other
    texts = kept[encoded.owners]
    return EncodedPairs(
        images=encoded.images[kept],
        texts=encoded.texts[texts],
        owners=places[encoded.owners[texts]],
        left_out=[reasons[place] for place in sorted(reasons)],
        kept=kept.nonzero()[:, 0].tolist(),
    )
