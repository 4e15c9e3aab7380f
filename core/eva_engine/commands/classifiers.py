"""What the commands of images and videos share: checks, training, and what to run next."""

import argparse
import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eva_backbone.checkpoints.registry import resolve_source
from eva_data.classes import read_class_list
from eva_data.inputs import Job, JobPlan, plan_jobs, written_name
from eva_engine.commands.options import (
    add_device,
    add_weights,
    new_parser,
    parse_with_weights,
    take_weights,
)
from eva_report.content import NextStep
from eva_report.terminal import counted
from eva_runs.commands import Command, command_to_run, echo, lazy_import, require_data
from eva_runs.options import (
    add_calibration,
    add_export,
    add_results_folder,
    integer,
    probability,
    require_export,
)
from eva_runs.recipes import require_start

# of exported files, as a share of the largest value
_TOLERANCES = {"fp32": 1e-4, "fp16": 2e-2, "int8": math.inf}


@dataclass(frozen=True, kw_only=True)
class ClassifierProject:
    """A project that trains classifiers."""

    name: str  # its folder, and the first word of its commands
    task: str  # title of its pages
    unit: str  # what the samples are, in the plural
    forms: str  # of its data, for messages
    demo: str  # purpose of its demo
    evaluation: str  # purpose of its evaluation, after a training
    # further check of a place of data, before torch is imported
    check_data: Callable[[str], None] = lambda location: None
    predictor: str  # `module:Class`

    def check_training(self, config: Any) -> None:
        """Refuse data, classes and weights of a recipe that are not there."""
        for name in ("train", "val"):
            location = getattr(config.data, name)
            if location:
                self.require(location, name=f"data.{name}")
        check_classes(config.data.classes, name="data.classes")
        if config.model.init_checkpoint:
            require_start(self.name, config.model.init_checkpoint)

    def require(self, location: str, *, name: str) -> None:
        """Refuse a place where no data are, named by an option or setting."""
        require_data(location, name=name, forms=self.forms)
        self.check_data(location)

    def exporting(self) -> Command[argparse.Namespace]:
        """Make the command that writes a classifier for programs without this toolkit."""
        name = f"eva {self.name} export"

        def parse(arguments: Sequence[str]) -> argparse.Namespace:
            about = "Write a classifier for programs without this toolkit: "
            parser = new_parser(name, f"{about}{self.unit} in, logits out.")
            add_weights(parser, alone=True)
            parser.add_argument("--precision", choices=_TOLERANCES, default="fp32")
            add_export(parser)
            if self.unit == "images":
                add_calibration(parser)
            return parse_with_weights(parser, arguments)

        return Command(name, parse, self._export)

    def _export(self, options: argparse.Namespace) -> int:
        def training_images() -> Path | None:
            noted = lazy_import("eva_engine.checkpoints.files:read_config")(weights) or {}
            train = noted.get("data", {}).get("train")
            return Path(train) if train and Path(train).is_dir() else None

        weights = resolve_source(options.weights)
        require_export(options, training=training_images)
        tolerance = _TOLERANCES[options.precision]
        options.device, calibrate = "cpu", getattr(options, "calibrate", None)
        if calibrate is not None:
            options.precision = "fp32"  # of the model that the file is made from
        predictor = lazy_import(f"{self.predictor}.from_options")(options)
        differences = predictor.export(options.output, tolerance=tolerance, calibrate=calibrate)
        echo(f"wrote {options.output}; differences as shares of the largest value: {differences}")
        return 0

    def check_frozen_paths(self, options: argparse.Namespace) -> argparse.Namespace:
        """Return the options of `evaluate-frozen`; no method and missing paths are refused."""
        probed = getattr(options, "attentive", False) or getattr(options, "probe", "none") != "none"
        if not (options.neighbours or options.l2 or probed):
            raise ValueError("nothing is scored: give --neighbours, --l2 or an attentive probe")
        if bool(options.val) == bool(getattr(options, "val_share", 0)):
            raise ValueError("name --val, what to score on, or a share of --train, but not both")
        for name in ("train", "val"):
            if getattr(options, name):
                self.require(getattr(options, name), name=f"--{name}")
        resolve_source(options.weights)
        return options

    def counted(self, samples: Any) -> str:
        """Count samples and classes; say how many are not there, if it is known."""
        missing = len(getattr(samples, "missing", ()))
        more = f", {missing:,} more are listed and not there" if missing else ""
        return f"{len(samples):,} {self.unit}, {counted(len(samples.classes), 'class')}{more}"

    def demo_step(
        self,
        weights: str | Path,
        output: Path,
        flags: Sequence[str] = (),
        *,
        data: Sequence[str | None],
    ) -> NextStep:
        """Write the command of the demo on the first folder of `data`, the best to be shown."""
        otherwise = f"{self.unit.removesuffix('s').upper()}_OR_FOLDER"
        shown = next(
            (location for location in data if location and Path(location).is_dir()), otherwise
        )
        command = command_to_run(
            f"{self.name} demo",
            f"{self.name}/demo.py",
            "--weights",
            weights,
            *flags,
            "--output",
            output,
            shown,
        )
        return NextStep(text=self.demo, command=command)

    def steps_after_evaluation(
        self, options: argparse.Namespace, flags: Sequence[str]
    ) -> list[NextStep]:
        """Write the demo's command for weights that were evaluated with these flags."""
        if options.output is None:
            return []
        output = options.output / "demo"
        return [self.demo_step(options.weights, output, flags, data=[options.data])]

    def steps_after_training(self, val: str, train: str, folder: Path) -> list[NextStep]:
        """Write the commands for the weights of a run; its training data are not scored on."""
        step_of_demo = self.demo_step(folder, folder / "demo", data=(val, train))
        command = command_to_run(
            f"{self.name} evaluate",
            f"{self.name}/evaluate.py",
            "--weights",
            folder,
            "--data",
            val,
            "--output",
            folder / "evaluation",
        )
        return (
            [step_of_demo, NextStep(text=self.evaluation, command=command)]
            if val
            else [step_of_demo]
        )


def check_classes(file: str | None, *, name: str = "--classes") -> None:
    """Refuse a list of classes, named by an option or setting, that cannot be read."""
    if file:
        require_data(file, name=name, forms="a text file of classes")
        read_class_list(file)


def add_demo(parser: argparse.ArgumentParser, *, inputs: str, batch_size: int, of: str) -> None:
    """Add the options of a demo; `inputs` lists their kinds, and a batch consists `of` them."""
    add, positive = parser.add_argument, integer(1)
    add("inputs", nargs="+", type=Path, metavar="INPUT", help=f"{inputs}, pattern or camera")
    add_weights(parser, first=True)
    add_results_folder(parser)
    add("--classes", help="text file with the classes in label order (default: the weights')")
    add("--variant", help="size of the ViT, if the weights do not say")
    add("--top", type=positive, default=5, help="classes that are written (default: %(default)s)")
    add(
        "--score-threshold",
        type=probability,
        default=0.0,
        help="least probability of what is shown and counts (default: %(default)s)",
    )
    add(
        "--batch-size",
        type=positive,
        default=batch_size,
        help=f"{of} at once (default: %(default)s)",
    )
    add_device(parser)
    add("--overwrite", action="store_true", help="replace earlier results")


def parse_demo(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> argparse.Namespace:
    """Parse the options of `add_demo` and others."""
    options = parser.parse_intermixed_args(arguments)
    take_weights(options)
    return options


def run_classifier_demo(
    options: argparse.Namespace,
    *,
    suffixes: Collection[str],
    kinds: str,
    omit: str,
    files: Sequence[str],
    load: Callable[[argparse.Namespace], Any],
    work: Callable[[Any, Sequence[Job], argparse.Namespace], list[str]],
    check: Callable[[argparse.Namespace], None] = lambda options: None,
) -> int:
    """Plan the jobs of the options of `parse_demo`, and do them by `run_demo`.

    Files of these suffixes, called `kinds`, are taken from folders; the option `omit` omits
    annotated ones, and `files` are lists of predictions. `check` refuses options by a ValueError
    before torch is imported, `load` makes a predictor of them.
    """
    from eva_report.demos import run_demo  # loads PyAV

    output = options.output

    def prepare() -> JobPlan:
        check(options)
        check_classes(options.classes)
        planned = plan_jobs(
            options.inputs,
            suffixes=suffixes,
            results=[output],
            kinds=kinds,
            cameras=True,
            targets=lambda name: [] if getattr(options, omit) else [output / written_name(name)],
        )
        if planned.jobs:
            resolve_source(options.weights)
        return planned

    return run_demo(
        options,
        prepare=prepare,
        load=load,
        results=[output / name for name in files],
        work=lambda options, predictor, planned: work(predictor, planned.jobs, options),
    )
