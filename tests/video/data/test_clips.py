"""Data sets of clips: what is decoded, their order, short and unreadable videos."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from eva_data.index import FolderFiles, Names, Table
from eva_data.labelled_videos.sources import open_videos
from eva_data.labelled_videos.videos import LabelledVideos
from eva_runs.data_order import Draw, SeededDataset
from eva_video.config import AugmentConfig
from eva_video.data.clips import Clips, Sampling, TrainingClips, Views
from eva_video.data.transforms import (
    CentreTransform,
    CropsTransform,
    Normalise,
    TrainingTransform,
)

SPARSE = Sampling(frames=4)
CENTRE = CentreTransform(16, normalise=Normalise())


class Numbered:
    """A video whose frame n has the grey level 2 n; notes what it is asked for."""

    def __init__(self, owner, name, length, size):
        self.owner, self.name, self.length, self.size = owner, name, length, size

    def __enter__(self):
        self.owner.opened += 1
        return self

    def __exit__(self, *_):
        self.owner.closed += 1

    def __len__(self):
        return self.length

    def frames(self, indices):
        self.owner.asked.append(list(indices))
        grey = 2 * np.array(indices, np.uint8)[:, None, None, None]
        return np.broadcast_to(grey, (len(indices), *self.size, 3)).copy()


class NumberedVideos(LabelledVideos):
    """Videos of so many frames."""

    def __init__(self, lengths, size=(20, 30)):
        names = Names.collect(f"video-{index}.mp4" for index in range(len(lengths)))
        labels = np.arange(len(lengths), dtype=np.int32) % 2
        super().__init__(FolderFiles(Path(), Table(names.arrays())), labels, "ab")
        self.lengths, self.size = lengths, size
        self.asked, self.opened, self.closed = [], 0, 0

    def open(self, index):
        return Numbered(self, self.sample_id(index), self.lengths[index], self.size)


def numbers(clip):
    """Frame numbers of clips (..., 3, H, W) of `Numbered`."""
    grey = (clip[..., 0, 5, 5] * 0.229 + 0.485) * 255
    return (grey / 2).round().int().tolist()


def training_clips(videos, **changes):
    augment = AugmentConfig(color_jitter=0.0, gray=0.0, **changes)
    transform = TrainingTransform(16, normalise=Normalise(), augment=augment)
    return TrainingClips(videos, sampling=SPARSE, transform=transform)


def test_a_training_clip():
    clips = training_clips(NumberedVideos([80, 3]))
    clip, label = clips[1]
    assert clip.shape == (4, 3, 16, 16)
    assert label == 1
    assert numbers(clip) == [0, 1, 2, 2]
    drawn = {tuple(numbers(clips[0][0])) for _ in range(20)}
    assert len(drawn) > 15
    assert all(20 * place <= n < 20 * place + 20 for clip in drawn for place, n in enumerate(clip))
    assert clips.videos.opened == clips.videos.closed == 21
    assert clips.classes == ("a", "b")
    assert clips.sample_id(0) == "video-0.mp4"
    assert len(clips) == 2


@pytest.mark.parametrize("crops", [1, 3])
def test_views_are_crop_by_crop_and_decoded_once(crops):
    videos = NumberedVideos([80])
    transform = CropsTransform(16, crops=crops, normalise=Normalise())
    clip, _ = Views(videos, sampling=SPARSE, transform=transform, clips=2)[0]
    assert clip.shape == (2 * crops, 4, 3, 16, 16)
    assert clip.is_contiguous()
    assert numbers(clip) == [[5, 25, 45, 65], [15, 35, 55, 75]] * crops
    assert videos.asked == [[5, 25, 45, 65, 15, 35, 55, 75]]
    assert videos.opened == videos.closed == 1


def test_random_views_are_a_function_of_seed_and_index():
    videos = NumberedVideos([80, 80])

    def views(seed, index):
        torch.manual_seed(torch.seed())
        data = Views(videos, sampling=SPARSE, transform=CENTRE, draws="random", seed=seed)
        return numbers(data[index][0])

    assert views(0, 0) == views(0, 0)
    assert views(0, 0) != views(0, 1)
    assert views(0, 0) != views(1, 0)
    assert len({tuple(clip) for clip in views(0, 0)}) == 4


@pytest.mark.parametrize("length", [1, 2, 3, 4])
def test_short_videos(length):
    videos = NumberedVideos([length])
    for clips in (
        training_clips(videos),
        Clips(videos, sampling=SPARSE, transform=CENTRE),
        Views(videos, sampling=Sampling(frames=4, kind="dense", interval=3), transform=CENTRE),
    ):
        assert clips[0][0].isfinite().all()
    assert all(0 <= n < length for asked in videos.asked for n in asked)


def test_a_video_that_vanishes_or_breaks_is_replaced_by_the_next(colours, tmp_path, write_sound):
    folder = shutil.copytree(colours / "val", tmp_path / "val")
    files = sorted(folder.rglob("*.mp4"))
    samples = SeededDataset(training_clips(open_videos(folder)), seed=3)
    whole = [samples[Draw((0, index), index)] for index in range(len(files))]
    files[0].unlink()
    files[4].write_bytes(files[4].read_bytes()[:-2000])
    write_sound(files[8])
    for index in (0, 4, 8):
        (clip, label), _, unreadable = samples[Draw((0, index), index)]
        assert list(unreadable) == [str(files[index])]
        assert unreadable[str(files[index])].startswith("UnreadableVideoError: ")
        again, _, _ = samples[Draw((0, index), index)]
        assert clip.equal(again[0])
        assert label == index // 4
    for index in (1, 5, 9):
        assert samples[Draw((0, index), index)][0][0].equal(whole[index][0][0])
