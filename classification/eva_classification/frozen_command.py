"""Command line of `classification/evaluate_frozen.py`."""

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from eva_classification.model_options import add_extractor, build_extractor
from eva_data.files import make_folder
from eva_data.labelled.folders import open_labelled
from eva_data.labelled.labelled_images import LabelledImages
from eva_engine import distributed
from eva_engine.commands.options import add_arguments, add_weights, command, new_parser
from eva_engine.evaluation.frozen import Kept, labelled_features
from eva_engine.evaluation.frozen_scores import (
    add_frozen,
    check_frozen,
    report_frozen,
    score_frozen,
)

PROGRAM = "classification/evaluate_frozen.py"


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = new_parser(
        PROGRAM,
        "A quick check of pre-trained weights: the backbone is frozen, its features of "
        "labelled images are computed once, and nearest neighbours and a linear classifier are "
        "scored. The penalty of the linear classifier is chosen on a fifth of --train.",
    )
    add_weights(parser, kinds="official or bundled name, or file, of any task")
    add_extractor(parser)
    add_frozen(parser, data="folder of class folders, torchvision:... or hf:...")
    add_arguments(parser)
    options = parser.parse_args(arguments)
    if not options.neighbours and not options.l2:
        parser.error("nothing to score: both --neighbours and --l2 are empty")
    return options


def _evaluate(options: argparse.Namespace, device: torch.device) -> None:
    if options.output is not None:
        make_folder(options.output)  # fails now, not after hours
    extractor = build_extractor(options, device)
    learn = open_labelled(options.train, extractor.transform, upright=False)
    score = open_labelled(options.val, extractor.transform, classes=learn.classes, upright=False)
    check_frozen(options, len(learn))

    def compute(samples: LabelledImages, limit: int | None, title: str) -> tuple[Tensor, Tensor]:
        (found,), labels = labelled_features(
            lambda images: [extractor(images)], samples, kept=[Kept([extractor.vit.embed_dim])],
            device=device, batch_size=options.batch_size, workers=options.workers, limit=limit,
            title=title,
        )  # fmt: skip
        return found, labels

    features, labels = compute(learn, options.limit, "train")
    queries, truth = compute(score, None, "val")
    if distributed.rank() > 0:
        return
    classes = len(learn.classes)
    scores, chosen = score_frozen(options, features, labels, queries, truth, classes=classes)
    settings = {
        "train_images": len(features),
        "pooling": extractor.pooling,
        "image_size": extractor.image_size,
    }
    title = (
        f"{Path(options.weights).name}, pooling {extractor.pooling}, {extractor.image_size} px: "
        f"{len(features)} images of {classes} classes to learn from"
    )
    report_frozen(options, title, settings | chosen, scores)


main = command(PROGRAM, _parse, _evaluate)
