"""Sections of reports: accuracies, retrieval in numbers and examples.

Shapes: N images, M captions, D values of a feature.
"""

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from eva_contrastive.evaluation.retrieval import EncodedPairs, ranks_of
from eva_contrastive.evaluation.table import (
    HEADS,
    RETRIEVAL_HEADS,
    Results,
    Row,
    accuracy_rows,
    retrieval_rows,
)
from eva_data.captions.sources import CaptionedImages
from eva_data.files import printable
from eva_data.labelled_videos.sources import MiddleFrames, middle_frame
from eva_engine.evaluation.classification_report import classification_sections
from eva_engine.evaluation.counting import Counted, LabelledSamples
from eva_engine.report import evaluation_page
from eva_report.content import (
    Example,
    Gallery,
    Report,
    ScoreRow,
    ScoreTable,
    Section,
    Step,
    TitledImage,
)
from eva_report.drawing import score_text
from eva_runs.commands import command_to_run

MOST_CLASSES = 200  # of a set with a section of its own
MOST_IMAGES = 10_000  # whose captions are compared for examples
EXAMPLES = 8  # of a gallery
_FOUND_TEXTS, _FOUND_IMAGES = 3, 2  # that are shown of each
_TEXT = 120  # characters of a caption


def search_step(weights: str | Path, folder: Path) -> Step:
    """Give the command that searches images by a sentence, with results in a folder."""
    command = command_to_run(
        "clip demo", "clip/demo.py", "search", "IMAGES",
        "--weights", weights, "--output", folder / "search", "--text", "what you look for",
    )  # fmt: skip
    return Step(text="Search a folder of images by a sentence.", command=command)


def class_sections(
    samples: LabelledSamples,
    counted: Counted,
    names: Sequence[str],
    *,
    of: str = "",
    **more: str,
) -> list[Section]:
    """Make the sections of a set of classes."""
    image = partial(_image_of, samples)
    found = classification_sections(counted, names, name=samples.sample_id, image=image, **more)
    return [replace(section, title=f"{section.title}{of}") for section in found]


def _image_of(samples: Any, index: int) -> Image.Image:
    """Read the image of a sample of a set of classes, or the middle frame of its video."""
    if isinstance(samples, MiddleFrames):
        with samples.videos.open(index) as video:
            return middle_frame(video)
    image: Image.Image = samples.image(index)
    return image


def evaluation_report(
    options: argparse.Namespace,
    results: Results,
    *,
    data: Sequence[tuple[str, str]],
    sections: Sequence[Callable[[], list[Section]]],
    device: str,
    next_steps: Sequence[Step],
) -> Report:
    """Make the page of an evaluation of sets, of which `data` has names and descriptions."""
    meanings = dict(data)
    accuracies = _score_table(
        "Zero-shot accuracy", HEADS, accuracy_rows(results), first=2, meanings=meanings,
        text="Percent of the samples whose class is the first, or among the first five, by "
        "sentences about the classes alone. The mean over classes counts each class as much as "
        "any other.",
    )  # fmt: skip
    retrieval = _score_table(
        "Retrieval", RETRIEVAL_HEADS, retrieval_rows(results), first=3, meanings=meanings,
        text="Percent of the images that find a caption of theirs (I->T), and of the captions that "
        "find their image (T->I), in the first place, among the first five and ten.",
    )  # fmt: skip
    settings = {
        "sentences of data": " | ".join(options.templates or ()),
        "class names": options.classes,
        "precision": options.precision,
        "batch size": options.batch_size,
    }
    said = [f"{name}: top1 {score.top1:.2f} %" for name, score in results.scores.items()]
    said += [
        f"{name}: {found['image_to_text_r1']:.2f} % of the images find their caption first"
        for name, found in results.retrieval.items()
    ]
    return evaluation_page(
        options.output, task="CLIP", weights=str(options.weights), data=data,
        settings={name: value for name, value in settings.items() if value}, device=device,
        summary=f"{'; '.join(said)}.", next_steps=next_steps,
        sections=[
            *(table for table in (accuracies, retrieval) if table.rows),
            *(section for make in sections for section in make()),
        ],
        links=("table.md", "per_class.csv", "confusion.png"),
    )  # fmt: skip


def _score_table(
    title: str,
    heads: Sequence[str],
    rows: Sequence[Row],
    *,
    first: int,
    meanings: Mapping[str, str],
    text: str,
) -> ScoreTable:
    """Show the columns of numbers that have values, from the `first` one."""
    filled = [at for at in range(first, len(heads)) if any(row[at] is not None for row in rows)]
    return ScoreTable(
        title=title,
        columns=[heads[at] for at in filled],
        rows=[
            ScoreRow(
                name=row[0], values=[row[at] for at in filled], meaning=meanings.get(row[0], "")
            )
            for row in rows
        ],
        text=text,
        digits=2,
    )


def retrieval_examples(
    encoded: EncodedPairs, pairs: CaptionedImages, *, name: str = ""
) -> list[Section]:
    """Show the images and the captions of a set that find their counterparts last, and finds."""
    shown = _Shown(encoded, pairs)
    of_set = f" ({name})" if name else ""
    return [
        Gallery(
            title=f"Images that find their captions last{of_set}",
            examples=[shown.of_image(*one) for one in _last(shown.cosines, shown.own)],
            text="The place of its own caption among all, and the captions that were found before, "
            "with their cosines.",
        ),
        Gallery(
            title=f"Captions that find their images last{of_set}",
            examples=[shown.of_text(*one) for one in _last(shown.cosines.T, shown.own.T)],
            text="Its own image, and beside it the images that were found, with their cosines.",
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
        most = len(self._kept)
        owned = encoded.owners < most
        self._owners = encoded.owners[owned].cpu()
        images, texts = (one.float().cpu() for one in (encoded.images[:most], encoded.texts[owned]))
        self.cosines = images @ texts.T  # (N, M)
        self.own = self._owners[None] == torch.arange(most)[:, None]  # (N, M)

    def of_image(self, index: int, rank: int) -> Example:
        """Show an image, its captions, and those that it found."""
        cosines = self.cosines[index]
        best = int(cosines.masked_fill(~self.own[index], -torch.inf).argmax())
        own, *found = (
            f"{self._caption(at)} {score_text(float(cosines[at]))}"
            for at in (best, *_order(cosines)[:_FOUND_TEXTS])
        )
        text = f"own caption in place {rank + 1} of {len(cosines)}:\n{own}\nfound:\n"
        title = printable(Path(self._pairs.sample_id(self._kept[index])).name)
        return Example(caption=text + "\n".join(found), images=[self._image(index, title)])

    def of_text(self, index: int, rank: int) -> Example:
        """Show a caption, its image, and those that it found."""
        cosines, own = self.cosines[:, index], int(self._owners[index])
        shown = [
            self._image(at, f"{name}, {score_text(float(cosines[at]))}")
            for name, at in [
                ("own", own),
                *(("found", at) for at in _order(cosines)[:_FOUND_IMAGES]),
            ]
        ]
        text = f"{self._caption(index)}: own image in place {rank + 1} of {len(cosines)}"
        return Example(caption=text, images=shown)

    def _image(self, image: int, title: str) -> TitledImage:
        return TitledImage(title=title, image=self._pairs.image(self._kept[image]))

    def _caption(self, index: int) -> str:
        owner = self._owners[index]
        number = index - int(torch.searchsorted(self._owners, owner))
        text = self._pairs.captions(self._kept[int(owner)])[number]
        return printable(f'"{text if len(text) <= _TEXT else text[: _TEXT - 4] + " ..."}"')
