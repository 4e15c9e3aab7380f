"""What is taken for a video in a folder can be one, whatever the case of its name."""

import pytest

from eva_data.inputs import Job
from eva_data.suffixes import PICTURES, SHOWN_PICTURES, VIDEOS
from eva_data.video.video_source import open_video


def test_suffixes_are_lower_case_and_of_one_kind():
    for suffix in VIDEOS | SHOWN_PICTURES:
        assert suffix == suffix.lower()
        assert suffix.startswith(".")
    assert not VIDEOS & SHOWN_PICTURES
    assert PICTURES < SHOWN_PICTURES


@pytest.mark.parametrize("suffix", sorted(VIDEOS))
def test_the_content_decides_and_not_the_name(videos, tmp_path, suffix):
    """Names are often wrong: downloaded .mp4 files are Matroska, and the other way round."""
    for number, name in enumerate(("h264.mp4", "vp9-odd.webm", "mpeg4.avi", "mpeg2.mpg")):
        file = tmp_path / f"{number}{suffix}"
        file.write_bytes((videos / name).read_bytes())
        assert Job(file, file.name, ()).is_video
        with open_video(file) as video:
            assert len(video) == 36
            assert video.frames([20]).std() > 10
