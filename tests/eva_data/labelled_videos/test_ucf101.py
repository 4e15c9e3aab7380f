"""UCF-101: where its lists are, and which folder is which class; middle frames."""

import pytest

from eva_data.labelled_images import MiddleFrames
from eva_data.labelled_videos.sources import open_ucf101

CLASSES = ("Apply Eye Makeup", "Hand Stand Pushups", "Yo Yo")
PATHS = (
    "YoYo/v_YoYo_g01_c01.avi", "ApplyEyeMakeup/v_ApplyEyeMakeup_g02_c01.avi",
    "HandstandPushups/v_HandStandPushups_g01_c04.avi",
)  # fmt: skip


@pytest.fixture
def make(tmp_path):
    """Function: the videos, empty, below a folder, and a list at a place."""

    def write(below, place, lines=PATHS):
        for path in PATHS:
            file = tmp_path / below / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch()
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).write_text("".join(f"{line}\n" for line in lines))
        return tmp_path

    return write


@pytest.mark.parametrize(
    ("below", "place"),
    [("ucf", "ucfTrainTestlist/testlist02.txt"), ("ucf/UCF-101", "ucf/testlist02.txt")],
)
def test_places_of_a_list(make, below, place):
    folder = make(below, place) / "ucf"
    videos = open_ucf101(folder, CLASSES, split=2)
    assert videos.labels.tolist() == [2, 0, 1]
    assert videos.classes == CLASSES
    assert [videos.name(index) for index in range(3)] == [*PATHS]
    with pytest.raises(FileNotFoundError, match=r"testlist01.txt"):
        open_ucf101(folder, CLASSES, split=1)


@pytest.mark.parametrize(("frames", "middle"), [(1, 0), (5, 2), (6, 3)])
def test_the_frame_in_the_middle(make, write_video, frames, middle):
    folder = make("ucf", "ucf/testlist01.txt") / "ucf"
    write_video(folder / PATHS[1], frames, list(range(frames)))
    samples = MiddleFrames(open_ucf101(folder, CLASSES), lambda picture: picture)
    picture, label = samples[1]
    assert (label, picture.mode, picture.size) == (0, "RGB", (64, 48))
    assert abs(picture.getpixel((30, 20))[1] - (10 + 40 * middle)) <= 3
    assert samples.sample_id(1) == str(folder / PATHS[1])
    with pytest.raises(OSError, match=r"v_YoYo_g01_c01.avi"):
        samples[0]
