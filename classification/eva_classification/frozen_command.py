"""Command line of `classification/evaluate_frozen.py`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from eva_classification.frozen import L2, fit_best_linear, labelled_features, nearest_neighbours
from eva_classification.model_options import add_extractor, build_extractor
from eva_data.files import make_folder
from eva_data.labelled.folders import open_labelled
from eva_data.options import integer, number
from eva_engine import distributed
from eva_engine.commands.options import add_arguments, command, new_parser
from eva_engine.evaluation.counting import OneLabel, Score
from eva_engine.evaluation.reports import table, write_results

PROGRAM = "classification/evaluate_frozen.py"


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = new_parser(
        PROGRAM,
        "A quick check of pre-trained weights: the backbone is frozen, its features of "
        "labelled images are computed once, and nearest neighbours and a linear classifier are "
        "scored. The penalty of the linear classifier is chosen on a fifth of --train.",
    )
    add_extractor(parser)
    add = parser.add_argument
    add("--train", required=True, help="folder of class folders, torchvision:... or hf:...")
    add("--val", required=True, help="the same to score on")
    one = integer(1)
    add("--train-images", type=one, help="images to learn from, chosen at random (default: all)")
    add("--neighbours", type=one, nargs="*", default=[10, 20], help="default: 10 20; none: skip")
    add("--l2", type=number(0), nargs="*", default=list(L2), help="penalties to try; none: skip")
    add("--output", type=Path, help="folder of results.json")
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
    known = min(len(learn), options.train_images or len(learn))
    if options.neighbours and max(options.neighbours) > known:
        raise ValueError(f"{max(options.neighbours)} neighbours, but {known} images to learn from")
    if options.train == options.val:
        sys.stderr.write(f"{options.train} is scored on itself: the scores say little\n")
    loading = {"batch_size": options.batch_size, "workers": options.workers}
    features, labels = labelled_features(
        extractor, learn, limit=options.train_images, title="train", **loading
    )
    queries, truth = labelled_features(extractor, score, title="val", **loading)
    if distributed.rank() > 0:
        return
    classes, scores = len(learn.classes), {}
    for k in options.neighbours:
        votes = nearest_neighbours(features, labels, queries, k=k, classes=classes)
        scores[f"{k} neighbours"] = _score((votes + 1e-12).log(), truth)
    settings = {
        "weights": str(options.weights),
        "train": str(options.train),
        "val": str(options.val),
        "train_images": len(features),
        "pooling": extractor.pooling,
        "image_size": extractor.image_size,
    }
    if options.l2:
        linear = fit_best_linear(features, labels, classes=classes, candidates=options.l2)
        scores["linear"] = _score(linear(queries), truth)
        settings["l2"] = linear.l2
    sys.stdout.write(
        f"{Path(options.weights).name}, pooling {extractor.pooling}, {extractor.image_size} px: "
        f"{len(features)} images of {classes} classes to learn from\n{table(scores)}\n"
    )
    if options.output is not None:
        file = write_results(options.output, settings, scores)
        sys.stdout.write(f"wrote {file}\n")


main = command(PROGRAM, _parse, _evaluate)


def _score(logits: Tensor, labels: Tensor) -> Score:
    judged = OneLabel()(logits, labels, labels)
    return Score(
        samples=len(labels),
        right1=int(judged.top1.sum()),
        right5=int(judged.top5.sum()),
        loss=float(judged.loss.mean()),
    )
