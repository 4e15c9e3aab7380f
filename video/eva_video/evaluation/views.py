"""The views of a video that an evaluation judges, and what they gave as a line of JSON.

Shapes: V views, T frames, S the side of a clip, K classes.
"""

from collections.abc import Sequence
from typing import Any

from torch import Tensor
from torch.utils.data import Dataset

from eva_data.labelled_videos.sources import LabelledVideos
from eva_engine.evaluation.counting import BatchResults
from eva_engine.evaluation.sample_lines import SampleLines
from eva_video.data.clips import CentreClips, Draws, Views
from eva_video.data.sampling import Sampling
from eva_video.data.transforms import Normalise

_DIGITS = 7  # of a probability


class SingleView(Dataset[tuple[Tensor, int]]):
    """The central view of each video (1, T, 3, S, S), as in the validation of a training.

    Args:
        clips: Central clips.
    """

    def __init__(self, clips: CentreClips) -> None:
        self._clips = clips
        self.classes = clips.classes

    def __len__(self) -> int:
        return len(self._clips)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        clip, label = self._clips[index]
        return clip[None], label

    def sample_id(self, index: int) -> str:
        """Name the video, for messages."""
        return self._clips.sample_id(index)


def open_views(
    videos: LabelledVideos,
    *,
    sampling: Sampling,
    image_size: int,
    clips: int,
    crops: int,
    draws: Draws,
    seed: int,
    normalise: Normalise,
) -> Views | SingleView:
    """Make the views of an evaluation; each video is decoded once for all of its views.

    One clip and one crop without random draws is the official validation: frames from the centres
    of the segments, resized to 256 / 224 of the crop. All others are the official test: the shorter
    side becomes S.

    Args:
        videos: The videos.
        sampling: What chooses the frames.
        image_size: S.
        clips: Places in time.
        crops: Places in the picture, 1 or 3.
        draws: `fixed` or `random`, see `eva_video.data.clips.Views`.
        seed: Seed of the random draws.
        normalise: What makes numbers of pixels.

    Returns:
        A data set of views (V, T, 3, S, S) and labels.
    """
    if clips == crops == 1 and draws == "fixed":
        return SingleView(
            CentreClips(videos, sampling=sampling, image_size=image_size, normalise=normalise)
        )
    return Views(
        videos,
        sampling=sampling,
        image_size=image_size,
        clips=clips,
        crops=crops,
        draws=draws,
        seed=seed,
        normalise=normalise,
    )


class VideoLines:
    """Writes a line for each video of an evaluation: what it is, its first five, and its views.

    Args:
        lines: Where the lines go.
        samples: The data set, for the names of its videos.
        names: Names of the classes.
        clips: Places in time of the views, which are in the order crop by crop.
    """

    def __init__(
        self,
        lines: SampleLines,
        samples: Views | SingleView,
        names: Sequence[str],
        *,
        clips: int,
    ) -> None:
        self._lines, self._samples, self._names, self._clips = lines, samples, names, clips

    def __call__(self, batch: BatchResults) -> None:
        """Write the lines of a batch."""
        entries: dict[int, dict[str, Any]] = {
            index: {"error": reason} for index, reason in batch.unreadable.items()
        }
        if len(batch.indexes):
            assert batch.views is not None
            mean, each = batch.logits.exp().cpu(), batch.views.exp().cpu()  # (B, K), (B, V, K)
            labels = batch.labels.tolist()
            for place, index in enumerate(batch.indexes.tolist()):
                entries[index] = self._entry(labels[place], mean[place], each[place])
        for index in sorted(entries):
            self._lines.add(index, {"video": self._samples.sample_id(index), **entries[index]})

    def _entry(self, label: int, mean: Tensor, each: Tensor) -> dict[str, Any]:
        values, classes = mean.topk(min(5, len(mean)))
        best, first = each.max(dim=1)  # (V,)
        views = zip(first.tolist(), best.tolist(), each[:, label].tolist(), strict=True)
        return {
            "label": self._names[label],
            "probability_of_label": round(mean[label].item(), _DIGITS),
            "top5": [
                {"class": self._names[index], "probability": round(value, _DIGITS)}
                for index, value in zip(classes.tolist(), values.tolist(), strict=True)
            ],
            "views": [
                {
                    "crop": number // self._clips,
                    "clip": number % self._clips,
                    "class": self._names[index],
                    "probability": round(value, _DIGITS),
                    "probability_of_label": round(own, _DIGITS),
                }
                for number, (index, value, own) in enumerate(views)
            ],
        }
