"""What a report shows of a CLIP: retrieval in numbers and examples, and pictures of its classes.

Shapes: N pictures, M captions, D values of a feature.
"""

from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from eva_contrastive.evaluation.retrieval import (
    RANKS,
    CaptionedPictures,
    EncodedPairs,
    RetrievalScore,
    ranks_of,
)
from eva_data.files import printable
from eva_data.labelled_videos.middle_frames import middle_frame
from eva_report.content import Example, Gallery, Picture, ScoreRow, ScoreTable, Section
from eva_report.drawing import score_text

MOST_PICTURES = 10_000  # whose captions are compared for examples
EXAMPLES = 8  # of a gallery
_FOUND_TEXTS, _FOUND_PICTURES = 3, 2  # that are shown of each
_TEXT = 120  # characters of a caption
MEANINGS = {
    "loss": "Mean contrastive loss of the validation pairs; it depends on the batch size.",
    "image_to_text_r1": "Percent of the pictures that find a caption of theirs in the first place "
    "among all captions.",
    "text_to_image_r1": "Percent of the captions that find their picture in the first place among "
    "all pictures.",
    "top1": "Percent of the pictures whose class is the first by sentences about the classes alone "
    "(zero-shot).",
    "top5": "Percent of the pictures whose class is among the first five (zero-shot).",
}


def retrieval_table(name: str, score: RetrievalScore) -> ScoreTable:
    """Make the table of a set's retrieval.

    Args:
        name: Name of the set.
        score: Its shares.
    """
    entries = score.entries()
    rows = [
        ScoreRow(
            name=f"R@{rank}",
            values=[entries[f"image_to_text_r{rank}"], entries[f"text_to_image_r{rank}"]],
            meaning="Percent that find what belongs to them "
            + ("in the first place." if rank == 1 else f"among the first {rank}."),
        )
        for rank in RANKS
    ]
    return ScoreTable(
        title=f"Retrieval: {name}",
        columns=["picture finds its captions", "caption finds its picture"],
        rows=rows,
        text=f"{score.images:,} pictures, {score.texts:,} captions. By chance, R@1 would be "
        f"{100 / score.images:.2g} %.",
    )


def retrieval_examples(
    encoded: EncodedPairs, pairs: CaptionedPictures, *, name: str = ""
) -> list[Section]:
    """Show the pictures and the captions that find what belongs to them last.

    Args:
        encoded: Features of all pairs.
        pairs: The pairs.
        name: Name of the set, where there are several.

    Returns:
        A gallery of pictures with the captions that they found, and one of captions with the
        pictures that they found.
    """
    shown = _Shown(encoded, pairs)
    pictures = _last(shown.images, shown.texts, shown.own)
    texts = _last(shown.texts, shown.images, shown.own.T)
    of_set = f" ({name})" if name else ""
    return [
        Gallery(
            title=f"Pictures that find their captions last{of_set}",
            examples=[shown.of_picture(*one) for one in pictures],
            text="The place of its own caption among all, and the captions that were found before, "
            "with their cosines.",
        ),
        Gallery(
            title=f"Captions that find their pictures last{of_set}",
            examples=[shown.of_text(*one) for one in texts],
            text="Its own picture, and beside it the pictures that were found, with their cosines.",
        ),
    ]


def _last(queries: Tensor, candidates: Tensor, belongs: Tensor) -> list[tuple[int, int, Tensor]]:
    """Find queries by the place, from 0, of what belongs to them, the last ones first."""
    cosines = queries @ candidates.T
    ranks = ranks_of(cosines, belongs)
    order = torch.argsort(ranks, descending=True, stable=True)[:EXAMPLES].tolist()
    return [(index, int(ranks[index]), cosines[index]) for index in order]


def _best(cosines: Tensor, number: int) -> list[int]:
    """Find the candidates of the largest cosines; of equal ones the first."""
    order: list[int] = cosines.argsort(descending=True, stable=True)[:number].tolist()
    return order


class _Shown:
    """Makes examples of pairs; of many, a part is compared that fits into memory."""

    def __init__(self, encoded: EncodedPairs, pairs: CaptionedPictures) -> None:
        most = min(len(encoded.images), MOST_PICTURES)
        self._pairs, self._kept = pairs, encoded.kept
        owned = encoded.owners < most
        self.images = encoded.images[:most].float().cpu()
        self.texts, self._owners = encoded.texts[owned].float().cpu(), encoded.owners[owned].cpu()
        self.own = self._owners[None] == torch.arange(most)[:, None]  # (N, M)

    def of_picture(self, index: int, rank: int, cosines: Tensor) -> Example:
        """Show a picture, its captions, and those that it found."""
        best = int(cosines.masked_fill(~self.own[index], -torch.inf).argmax())
        found = "\n".join(
            f"{self._caption(place)} {score_text(float(cosines[place]))}"
            for place in _best(cosines, _FOUND_TEXTS)
        )
        own = f"{self._caption(best)} {score_text(float(cosines[best]))}"
        text = f"own caption in place {rank + 1} of {len(cosines)}:\n{own}\nfound:\n{found}"
        return Example(caption=text, pictures=[self._picture(index, self._name(index))])

    def of_text(self, index: int, rank: int, cosines: Tensor) -> Example:
        """Show a caption, its picture, and those that it found."""
        owner = int(self._owners[index])
        pictures = [self._picture(owner, f"own, {score_text(float(cosines[owner]))}")]
        pictures += [
            self._picture(place, f"found, {score_text(float(cosines[place]))}")
            for place in _best(cosines, _FOUND_PICTURES)
        ]
        text = f"{self._caption(index)}: own picture in place {rank + 1} of {len(cosines)}"
        return Example(caption=text, pictures=pictures)

    def _place(self, picture: int) -> int:
        return picture if self._kept is None else self._kept[picture]

    def _name(self, picture: int) -> str:
        return printable(Path(self._pairs.sample_id(self._place(picture))).name)

    def _picture(self, picture: int, title: str) -> Picture:
        return Picture(title=title, image=self._pairs.image(self._place(picture)))

    def _caption(self, index: int) -> str:
        owner = self._owners[index]
        number = index - int(torch.searchsorted(self._owners, owner))
        text = self._pairs.captions(self._place(int(owner)))[number]
        return printable(f'"{text if len(text) <= _TEXT else text[: _TEXT - 4] + " ..."}"')


def picture_of(samples: Any, index: int) -> Image.Image:
    """Read what a sample of a set of classes shows: its picture, or the middle frame of its video.

    Args:
        samples: The set.
        index: Index of the sample.

    Raises:
        OSError: If it cannot be read.
    """
    while hasattr(samples, "samples"):  # classes under other names
        samples = samples.samples
    if hasattr(samples, "videos"):
        with samples.videos.open(index) as video:
            return middle_frame(video)
    picture: Image.Image = samples.load(index)[0]
    return picture
