"""What a user asks of a training, whatever framework carries it out."""

import argparse
import math
from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Self

from eva_data.bands import BandRequest


@dataclass(frozen=True, kw_only=True)
class RunRequest:
    """What a command line asks of a training; what it leaves out, None, is as the recipe has it.

    Each framework has a function that applies it to its own config. Nothing heavy is imported.

    Attributes:
        output: Folder of the run.
        evaluates: Whether weights are evaluated, and nothing is trained.
        weights: Those that are evaluated, or that training begins from; None for the recipe's.
        resume: Whether to continue the run in it, if there is one.
        epochs: Passes over the training data; the schedule follows.
        batch: Samples of a forward pass of a process; a step keeps its number of them.
        accumulate: Forward passes of a step.
        image_size: Side of the images in training and evaluation.
        precision: Number format.
        lora: Rank of adapters.
        backbone: Plain ViT in place of the recipe's, by name, see `find_backbone`.
        seed: Seed of the run.
        bands: Bands of the images, in place of RGB.
        band_range: Values of them that become 0 and 1.
        show_bands: Those that drawings show.
        data: Own data, as the project reads them.
    """

    output: Path | None = None
    evaluates: bool = False
    weights: str | None = None
    resume: bool = False
    epochs: int | None = None
    batch: int | None = None
    accumulate: int | None = None
    image_size: int | None = None
    precision: str | None = None
    lora: int | None = None
    backbone: str | None = None
    seed: int | None = None
    bands: int | None = None
    band_range: str | None = None
    show_bands: str | None = None
    data: Any = None

    @classmethod
    def from_options(cls, options: argparse.Namespace, **changes: Any) -> Self:
        """Take the options of these names; `changes` are what the program calls otherwise."""
        names = {field.name for field in fields(cls)}
        parsed = {name: value for name, value in vars(options).items() if name in names}
        return cls(**parsed | changes)

    @property
    def resumes(self) -> bool:
        """Whether a training goes on, if it has a checkpoint."""
        return self.resume and not self.evaluates

    def band_request(self) -> BandRequest | None:
        """Return what the user says of bands; None for images in RGB."""
        settings = {"range": self.band_range, "show": self.show_bands}
        stated = {name: value for name, value in settings.items() if value is not None}
        if self.bands is None:
            if stated:
                raise ValueError("--band-range and --show-bands need --bands N")
            return None
        return BandRequest(count=self.bands, **stated)

    def require_rgb(self) -> None:
        """Refuse `bands` for a training that reads images in RGB alone."""
        if self.bands is not None:
            raise ValueError(
                f"--bands {self.bands}: this training reads images in RGB alone; own data of "
                "segmentation, detection and classification may have bands"
            )

    def accumulation_steps(self, samples: int, processes: int = 1) -> int:
        """Return how many forward passes of `batch` on all processes make the samples of a step.

        Raises:
            ValueError: If they do not divide them.
        """
        assert self.batch
        together = self.batch * processes
        if samples % together:
            few = [size for size in range(1, samples + 1) if samples % (size * processes) == 0]
            raise ValueError(
                f"--batch {self.batch}: a step has {samples} samples; one of {few} fits"
            )
        return samples // together

    def iterations(self, samples: int, images: int, *, multiple: int = 1) -> tuple[int, str]:
        """Return the iterations of `epochs` over so many samples, and a line that says so.

        An iteration has so many `images` of all processes; a step takes `multiple` iterations.
        """
        assert self.epochs
        count = multiple * math.ceil(self.epochs * samples / images / multiple)
        return count, (
            f"--epochs {self.epochs}: {self.epochs} x {samples:,} images, {images} an iteration, "
            f"are {count:,} iterations"
        )


def require_counts(config: Any, part: str, names: Iterable[str]) -> None:
    """Refuse, by a ValueError, numbers of iterations or between them that are below one."""
    for name in names:
        value = config.get(part)
        for key in name.split("."):
            value = {} if value is None else value.get(key)
        if isinstance(value, int) and value < 1:
            raise ValueError(f"{part}.{name}={value} must be at least 1")
