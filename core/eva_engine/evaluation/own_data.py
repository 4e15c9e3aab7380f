"""Evaluation of a classifier on data of the user's own, for the command of any project.

The options are those of `eva_engine.commands.options.add_weights` and `add_arguments`, and
`crop_pct` (a number or None), `classes` (a file or None), `data`, `output` (a folder or None).

Shapes: B samples, K classes.
"""

import argparse
import json
import logging
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from torch import nn

from eva_backbone.checkpoints.registry import resolve_source
from eva_backbone.checkpoints.run_folders import is_detectron2_run, is_mmengine_run
from eva_backbone.variants import CLIP_MEAN, CLIP_STD
from eva_data.bands import Bands
from eva_data.classes import names_of_head
from eva_data.saving import write_text
from eva_engine import distributed
from eva_engine.checkpoints.files import read_config
from eva_engine.commands.options import take_options
from eva_engine.config import PixelConfig
from eva_engine.evaluation.class_report import (
    describe_constant_prediction,
    draw_confusion,
    write_outcomes,
    write_per_class,
)
from eva_engine.evaluation.counting import (
    MAX_CONFUSION,
    BatchResults,
    Counted,
    LabelledSamples,
    OneLabel,
    count,
)
from eva_report.demos import DetectionSummary, Prediction
from eva_report.sheets import CLASSES_SHOWN
from eva_runs.commands import echo
from eva_runs.errors import print_error
from eva_runs.exported import CallableModule, normal_batches, replacing_program, write_compared
from eva_runs.options import calibration_images
from eva_runs.predictor import BasePredictor

logger = logging.getLogger(__name__)

BANDS = "bands"  # in the config that is noted, see `eva_data.bands.Bands`
PUBLISHED: Mapping[str, Any] = {"crop_pct": 1.0, "mean": CLIP_MEAN, "std": CLIP_STD}
_BANDS_OF_CONFIG = re.compile(r"\bbands(=dict\(|\.low\b|: *[{\n])")


def notes_of_training(weights: str | os.PathLike[str], **overrides: Any) -> dict[str, Any]:
    """Complete settings that are None by what a file of weights notes of its training.

    They are `crop_pct`, `mean`, `std`, `class_names`, or a video's `sampling`, `frame_interval`.

    Raises:
        ValueError: If `mean` or `std` is not of its kind, or the file is damaged.
    """
    config = read_config(resolve_source(weights)) or {}
    data = config.pop("data", {})
    noted = config | data if isinstance(data, dict) else config
    overrides |= {n: noted[n] for n, value in overrides.items() if value is None and n in noted}
    pixels = {name: overrides[name] for name in ("mean", "std") if overrides.get(name) is not None}
    three: dict[str, Any] = {name: tuple(map(float, values)) for name, values in pixels.items()}
    PixelConfig(**three)  # which refuses what they cannot be
    return overrides


def bands_of_training(weights: str | os.PathLike[str]) -> Bands | None:
    """Return the bands that a file of weights notes of its training; None for RGB."""
    return Bands.from_json((read_config(resolve_source(weights)) or {}).get(BANDS))


def require_rgb(weights: str | os.PathLike[str]) -> None:
    """Refuse weights that were trained on bands, for a program that would give them RGB."""
    folder, configs = resolve_source(weights).parent, list[Path]()
    if is_mmengine_run(folder) or is_detectron2_run(folder):  # whose weights note nothing
        configs = [*folder.glob("*.py"), *folder.glob("config.yaml")]
    of_bands = [f for f in configs if _BANDS_OF_CONFIG.search(f.read_text(errors="replace"))]
    bands = bands_of_training(weights)
    if bands or of_bands:
        file, count = [*of_bands, weights][0], f"{bands.count} bands" if bands else "bands"
        raise ValueError(f"{file} is of a training on {count}, and this is for RGB alone")


def fill_from_training(
    options: argparse.Namespace, *, usual: Mapping[str, Any] = PUBLISHED
) -> None:
    """Set options, and `class_names` by `classes`, by `notes_of_training`, or as published.

    `usual` has the options to set, and what official weights, which note nothing, were published
    with.
    """
    overrides = {name: getattr(options, name) for name in usual}
    notes = notes_of_training(options.weights, class_names=options.classes, **overrides)
    for name, value in notes.items():
        setattr(options, name, usual.get(name) if value is None else value)


def class_names(
    num_classes: int,
    *,
    names: Sequence[str] | str | os.PathLike[str] | None,
    source: str | os.PathLike[str],
    official: Callable[[int], tuple[str, ...] | None],
) -> tuple[str, ...]:
    """Name the classes of a head: as `names`, names or a file of them, or by their number.

    Without `names` they are the `official` ones of so many classes, and for other numbers
    `class 0`, `class 1` and so on, with a warning.

    Raises:
        ValueError: If there are more or fewer names than rows, or the file cannot be read.
    """
    if names is not None:
        return names_of_head(names, num_classes, source=os.fspath(source))
    official_names = official(num_classes)
    if official_names:
        return official_names
    message = (
        "%s does not name its %d classes: they are called by their numbers from 0; give their "
    )
    message += "names, one in a line of a text file, as --classes"
    logger.warning(message, source, num_classes)
    return tuple(f"class {label}" for label in range(num_classes))


class NamedClasses(BasePredictor[list[Prediction]]):
    """A predictor of classes, each of which has a name, and its export."""

    model: Any
    facts: Mapping[str, Any]  # on the model's input: `name`, `shape` in a batch, and others

    from_weights: ClassVar[Callable[..., Any]]

    @classmethod
    def from_run(cls, run: str | os.PathLike[str], **options: Any) -> Self:
        """Build the predictor of a run; `options` are those of `from_weights`."""
        predictor: Self = cls.from_weights(run, **options)
        return predictor

    @classmethod
    def from_options(cls, options: argparse.Namespace) -> Self:
        """Build the predictor of a command line, see `from_weights`."""
        return cls.from_run(options.weights, **take_options(cls.from_weights, options))

    def __init__(self, class_names: Sequence[str], *, num_classes: int) -> None:
        assert len(class_names) == num_classes, (class_names, num_classes)
        self.class_names = tuple(class_names)

    def top(self, probabilities: NDArray[np.float32], number: int) -> list[Prediction]:
        """Name the classes with the largest of probabilities (K,), in falling order."""
        order = (-probabilities).argsort(kind="stable")[:number].tolist()
        return [Prediction(self.class_names[k], float(probabilities[k])) for k in order]

    def export(
        self, output: Path, *, tolerance: float, calibrate: Path | None = None
    ) -> dict[str, float]:
        """Write the model, normalised batches in and `logits` out; see `write_compared`.

        With a folder of images to `calibrate`, it is int8.
        """
        name = self.facts["name"]
        prepare: Any = getattr(self, "prepare", None)  # of images
        batches = ({name: prepare(path)[None]} for path in calibration_images(calibrate))
        with replacing_program(output) as file:
            return write_compared(
                CallableModule(self.model, self.model.forward, "logits"),
                file,
                name=name,
                samples=batches if calibrate else None,
                tolerance=tolerance,
                inputs=normal_batches(self.model, *self.facts["shape"]),
                facts={**self.facts, "class_names": self.class_names},
            )


class DemoResults:
    """What the demos of classifiers show, write and say.

    Attributes:
        entries: Of each file in the table of predictions.
        summary: What was found in the files that could be read.
    """

    def __init__(self, predictor: NamedClasses, options: argparse.Namespace) -> None:
        self._predictor, self._options = predictor, options
        self.rows = min(options.top, CLASSES_SHOWN, len(predictor.class_names))
        self.entries: list[dict[str, Any]] = []
        self.summary = DetectionSummary(options.score_threshold, objects=False)

    def first(self, probabilities: NDArray[np.float32]) -> list[Prediction]:
        """Name the classes that are written."""
        return self._predictor.top(probabilities, self._options.top)

    def shown(self, probabilities: NDArray[np.float32]) -> list[Prediction]:
        """Name the classes that are drawn: a few, with the least probability that is shown."""
        first = self._predictor.top(probabilities, self.rows)
        return [p for p in first if p.probability >= self._options.score_threshold]

    def write(self, file: Path, key: str, *, drawn: str, settings: Mapping[str, Any]) -> None:
        """Write the entries, and say what was found and where it lies."""
        content = {"settings": {"weights": self._options.weights, **settings}, key: self.entries}
        write_text(file, json.dumps(content, indent=1) + "\n")
        for line in self.summary.lines():
            echo(line)
        echo(f"output   {file.parent} ({drawn}{file.name})")


def entry_of(prediction: Prediction) -> dict[str, Any]:
    """Write a class and its probability for a table of predictions."""
    return {"class": prediction.name, "probability": round(prediction.probability, 6)}


def given_flags(options: argparse.Namespace, *names: str) -> list[str]:
    """Write those of the named options that were given, for a command on the same weights."""
    words = []
    for name in names:
        value = getattr(options, name)
        if value is not None:
            values = value if isinstance(value, list) else [value]
            words += [f"--{name.replace('_', '-')}", *map(str, values)]
    return words


def evaluate_own_data(
    model: nn.Module,
    samples: LabelledSamples,
    options: argparse.Namespace,
    *,
    num_classes: int,
    unit: str = "images",
    receive: Callable[[BatchResults], None] | None = None,
) -> Counted:
    """Count correct predictions of K classes, and write results per class to the output.

    Returns:
        The score by the name `data`, and the confusion of at most `MAX_CONFUSION` classes.
    """
    classes = samples.classes
    if len(classes) != num_classes:
        raise ValueError(
            f"{options.data} has {len(classes)} classes, {options.weights} has {num_classes}: give "
            "the classes of its training, one in a line of a text file, as --classes"
        )
    counted = count(
        model,
        samples,
        {"data": OneLabel()},
        device=next(model.parameters()).device,
        batch_size=options.batch_size,
        workers=options.workers,
        progress="data",
        details=True,
        max_bad_samples=options.max_bad_samples,
        receive=receive,
    )
    if distributed.rank():
        return counted
    if counted.confusion is not None and (
        alike := describe_constant_prediction(counted, classes, unit)
    ):
        print_error(alike.strip())
    if options.output is None:
        return counted
    write_outcomes(options.output, counted, samples)
    if counted.confusion is None:
        echo(f"no per-class results for more than {MAX_CONFUSION} classes")
        return counted
    echo(f"wrote {write_per_class(options.output, counted, classes, unit=unit)}")
    echo(f"wrote {draw_confusion(options.output, counted.confusion, classes, unit=unit)}")
    return counted


def settings_of(options: argparse.Namespace, **more: Any) -> dict[str, Any]:
    """Collect the settings of an evaluation for `results.json`: options, processes and others."""
    overrides = {
        name: value if isinstance(value, int | float | list | tuple) else str(value)
        for name, value in vars(options).items()
        if value is not None and name != "class_names"
    }
    return overrides | more | {"processes": distributed.world_size()}
