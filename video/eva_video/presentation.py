"""What a training of videos says of itself on the terminal and in its report."""

from collections.abc import Callable
from pathlib import Path

from PIL import Image

from eva_data.labelled_videos.sources import LabelledVideos
from eva_engine.classifier_training import present_classifier
from eva_engine.evaluation.classification_report import Validation
from eva_engine.report import Presentation
from eva_report.content import Step
from eva_report.sheets import strip_of
from eva_runs.commands import command_to_run, folder_to_show
from eva_video.config import VideoConfig


def present_training(
    config: VideoConfig,
    videos: LabelledVideos,
    others: LabelledVideos | None,
    validation: Validation | None,
) -> Presentation:
    """Describe a training and its validation, if any, on the terminal and in its report."""
    model = config.model
    return present_classifier(
        config,
        validation,
        task="Video recognition",
        what=f"{model.variant}, {model.frames} frames of {model.image_size} px",
        unit="videos",
        train=counted_videos(videos),
        val="" if others is None else counted_videos(others),
        picture=strips_of(videos if others is None else others),
        next_steps=_next_steps,
    )


def strips_of(videos: LabelledVideos) -> Callable[[int], Image.Image]:
    """Make the function that shows a video, by its index, as a strip of frames."""

    def strip(index: int) -> Image.Image:
        with videos.open(index) as video:
            return strip_of(video)

    return strip


def counted_videos(videos: LabelledVideos) -> str:
    """Say how many videos of how many classes there are, and how many are missing."""
    missing = f", {len(videos.missing):,} more are listed and not there" if videos.missing else ""
    return f"{len(videos):,} videos, {len(videos.classes):,} classes{missing}"


def _next_steps(val: str, train: str, folder: Path) -> list[Step]:
    evaluate = command_to_run(
        "video evaluate", "video/evaluate.py",
        "--weights", folder, "--data", val, "--output", folder / "evaluation",
    )  # fmt: skip
    demo = command_to_run(
        "video demo", "video/demo.py",
        "--weights", folder, "--output", folder / "demo",
        folder_to_show(val, train, otherwise="VIDEO_OR_FOLDER"),
    )  # fmt: skip
    scored = Step(text="Score the best weights with 12 views of each video.", command=evaluate)
    named = Step(text="Name what happens in videos.", command=demo)
    return [scored, named] if val else [named]  # not on what it was trained on
