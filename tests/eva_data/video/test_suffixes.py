"""What is taken for a video in a folder can be one, whatever the case of its name."""

import pytest

from eva_data.files import DEMO_IMAGE_SUFFIXES, IMAGE_SUFFIXES, VIDEO_SUFFIXES
from eva_data.inputs import Job
from eva_data.video.source import open_video


def test_suffixes_are_lower_case_and_of_one_kind():
    for suffix in VIDEO_SUFFIXES | DEMO_IMAGE_SUFFIXES:
        assert suffix == suffix.lower()
        assert suffix.startswith(".")
    assert not VIDEO_SUFFIXES & DEMO_IMAGE_SUFFIXES
    assert IMAGE_SUFFIXES < DEMO_IMAGE_SUFFIXES


@pytest.mark.parametrize("suffix", sorted(VIDEO_SUFFIXES))
def test_the_content_decides_and_not_the_name(videos, tmp_path, suffix):
    """Names are often wrong: downloaded .mp4 files are Matroska, and the other way round."""
    for number, name in enumerate(("h264.mp4", "vp9-odd.webm", "mpeg4.avi", "mpeg2.mpg")):
        file = tmp_path / f"{number}{suffix}"
        file.write_bytes((videos / name).read_bytes())
        assert Job(file, file.name, ()).is_video
        with open_video(file) as video:
            assert len(video) == 36
            assert video.frames([20]).std() > 10
