"""Sections of reports on classes and on retrieval, and the command to run next.

Shapes: N images, M captions, D values of a feature.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from open_clip import decode
from torch import Tensor

from eva_contrastive.evaluation.retrieval import EncodedPairs, ranks_of
from eva_data.captions.sources import CaptionedImages
from eva_data.files import printable
from eva_report.content import Example, Gallery, NextStep, Section, TitledImage, warn_of_few
from eva_report.drawing import score_text
from eva_report.first_batch import image_tiles
from eva_report.sheets import Tile
from eva_runs.commands import command_to_run

MOST_IMAGES = 10_000  # whose captions are compared for examples
EXAMPLES = 8  # of a gallery
_FOUND_TEXTS, _FOUND_IMAGES = 3, 2  # that are shown of each
_TEXT = 120  # characters of a caption


def search_step(weights: str | Path, folder: Path) -> NextStep:
    """Give the command that searches images by a sentence, with results in a folder."""
    command = command_to_run(
        "clip demo",
        "clip/demo.py",
        "search",
        "IMAGES",
        "--weights",
        weights,
        "--output",
        folder / "search",
        "--text",
        "what you look for",
    )
    return NextStep(text="Search a folder of images by a sentence.", command=command)


def first_samples(
    batch: tuple[Tensor, Tensor], *, mean: Sequence[float], std: Sequence[float]
) -> Iterator[Tile]:
    """Show the first images (N, 3, H, W) of a batch, with the captions of its tokens (N, L)."""
    images, tokens = batch
    captions = (
        decode(token_ids[1 : int(token_ids.argmax())]).replace(" ,", ",") for token_ids in tokens
    )
    return image_tiles(images, captions, mean, std)


def retrieval_examples(
    encoded: EncodedPairs, pairs: CaptionedImages, *, name: str = ""
) -> list[Section]:
    """Show the images and the captions of a set that find their counterparts last, and finds."""
    examples = _Shown(encoded, pairs)
    of_set = f" ({name})" if name else ""
    return [
        *warn_of_few(len(pairs), {}),
        Gallery(
            title=f"Images that find their captions last{of_set}",
            examples=[
                examples.of_image(*position) for position in _last(examples.cosines, examples.own)
            ],
            text="Each image with the rank of its own caption, and the captions ranked first, with "
            "their cosines.",
        ),
        Gallery(
            title=f"Captions that find their images last{of_set}",
            examples=[
                examples.of_text(*position)
                for position in _last(examples.cosines.T, examples.own.T)
            ],
            text="Each caption with its own image and the images ranked first, with their cosines.",
        ),
    ]


def _last(cosines: Tensor, belongs: Tensor) -> list[tuple[int, int]]:
    """Find queries and the places, from 0, of their counterparts, the last ones first."""
    ranks = ranks_of(cosines, belongs)
    return [(index, int(ranks[index])) for index in _order(ranks)[:EXAMPLES]]


def _order(values: Tensor) -> list[int]:
    """Sort indexes by falling values, those of equal ones by their own."""
    order: list[int] = values.argsort(descending=True, stable=True).tolist()
    return order


class _Shown:
    """Makes examples of pairs; of many, a part is compared that fits into memory."""

    def __init__(self, encoded: EncodedPairs, pairs: CaptionedImages) -> None:
        self._pairs, self._kept = pairs, encoded.kept[:MOST_IMAGES]
        count = len(self._kept)
        owned = encoded.owners < count
        self._owners = encoded.owners[owned].cpu()
        images, texts = (
            features.float().cpu() for features in (encoded.images[:count], encoded.texts[owned])
        )
        self.cosines = images @ texts.T  # (N, M)
        self.own = self._owners[None] == torch.arange(count)[:, None]  # (N, M)

    def of_image(self, index: int, rank: int) -> Example:
        """Show an image, its captions, and those that it found."""
        cosines = self.cosines[index]
        best = int(cosines.masked_fill(~self.own[index], -torch.inf).argmax())
        own_caption, *ranked_first = (
            f"{self._caption(at)} {score_text(float(cosines[at]))}"
            for at in (best, *_order(cosines)[:_FOUND_TEXTS])
        )
        caption = (
            f"own caption at rank {rank + 1} of {len(cosines)}:\n{own_caption}\nranked first:\n"
        )
        title = printable(Path(self._pairs.sample_id(self._kept[index])).name)
        return Example(
            caption=caption + "\n".join(ranked_first), images=[self._image(index, title)]
        )

    def of_text(self, index: int, rank: int) -> Example:
        """Show a caption, its image, and those that it found."""
        cosines, owner = self.cosines[:, index], int(self._owners[index])
        images = [
            self._image(at, f"{name}, {score_text(float(cosines[at]))}")
            for name, at in [
                ("own", owner),
                *(("found", at) for at in _order(cosines)[:_FOUND_IMAGES]),
            ]
        ]
        caption = f"{self._caption(index)}: own image at rank {rank + 1} of {len(cosines)}"
        return Example(caption=caption, images=images)

    def _image(self, image: int, title: str) -> TitledImage:
        return TitledImage(title=title, image=self._pairs.image(self._kept[image]))

    def _caption(self, index: int) -> str:
        owner = self._owners[index]
        number = index - int(torch.searchsorted(self._owners, owner))
        caption = self._pairs.captions(self._kept[int(owner)])[number]
        return printable(f'"{caption if len(caption) <= _TEXT else caption[: _TEXT - 4] + " ..."}"')
