"""What the commands of images and videos share: checks, training, and what to run next."""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eva_backbone.checkpoints.registry import resolve_source
from eva_data.classes import read_class_list
from eva_engine.commands import training
from eva_engine.commands.options import deferred
from eva_report.content import Step
from eva_runs.commands import command_to_run, folder_to_show, require_data


@dataclass(frozen=True, kw_only=True)
class ClassifierProject:
    """A project that trains classifiers.

    Attributes:
        name: Its folder, and the first word of its commands.
        task: Title of its pages.
        unit: What the samples are, in the plural.
        forms: Forms of its data, for messages.
        demo: Purpose of its demo.
        evaluation: Purpose of its evaluation, after a training.
        config: Class of its recipes.
        check_data: Further check of a place of data, before torch is imported.
    """

    name: str
    task: str
    unit: str
    forms: str
    demo: str
    evaluation: str
    config: type[Any]
    check_data: Callable[[str], None] = lambda location: None

    def train(self, arguments: Sequence[str] | None = None) -> None:
        """Train a classifier; `arguments` in place of those of the process."""
        training.main(
            self.config,
            deferred(f"eva_{self.name}.training:train"),
            program=f"{self.name}/train.py",
            arguments=arguments,
            check=self._check_training,
        )

    def _check_training(self, config: Any) -> None:
        for name in ("train", "val"):
            if location := getattr(config.data, name):
                self.require(location, name=f"data.{name}")
        check_classes(config.data.classes, name="data.classes")
        if config.model.init_checkpoint:
            resolve_source(config.model.init_checkpoint)

    def require(self, location: str, *, name: str) -> None:
        """Refuse a place where no data are, named by an option or setting."""
        require_data(location, name=name, forms=self.forms)
        self.check_data(location)

    def check_frozen(self, options: argparse.Namespace) -> None:
        """Refuse paths of `evaluate-frozen` that are not there."""
        for name in ("train", "val"):
            self.require(getattr(options, name), name=f"--{name}")
        resolve_source(options.weights)

    def described(self, samples: Any, place: str) -> str:
        """Count samples and classes, and those that are listed and missing; name their place."""
        text = f"{len(samples):,} {self.unit}, {len(samples.classes):,} classes"
        if missing := len(getattr(samples, "missing", ())):
            text += f", {missing:,} more are listed and not there"
        return f"{text} ({place})"

    def demo_step(
        self,
        weights: str | Path,
        output: Path,
        flags: Sequence[str] = (),
        *,
        data: Sequence[str | None],
    ) -> Step:
        """Write the command of the demo on the first folder of `data`, the best to be shown."""
        otherwise = f"{self.unit.removesuffix('s').upper()}_OR_FOLDER"
        command = command_to_run(
            f"{self.name} demo", f"{self.name}/demo.py", "--weights", str(weights), *flags,
            "--output", output, folder_to_show(*data, otherwise=otherwise),
        )  # fmt: skip
        return Step(text=self.demo, command=command)

    def steps_after_evaluation(
        self, options: argparse.Namespace, flags: Sequence[str]
    ) -> list[Step]:
        """Write the demo's command for weights that were evaluated with these flags."""
        if options.output is None:
            return []
        output = options.output / "demo"
        return [self.demo_step(options.weights, output, flags, data=[options.data])]

    def steps_after_training(self, val: str, train: str, folder: Path) -> list[Step]:
        """Write the commands for the weights of a run; its training data are not scored on."""
        named = self.demo_step(folder, folder / "demo", data=(val, train))
        command = command_to_run(
            f"{self.name} evaluate", f"{self.name}/evaluate.py", "--weights", folder,
            "--data", val, "--output", folder / "evaluation",
        )  # fmt: skip
        return [named, Step(text=self.evaluation, command=command)] if val else [named]


def check_classes(file: str | None, *, name: str = "--classes") -> None:
    """Refuse a list of classes, named by an option or setting, that cannot be read."""
    if file:
        require_data(file, name=name, forms="a text file of classes")
        read_class_list(file)
