"""UCF-101: where its lists are, and which folder is which class."""

import pytest

from eva_data.labelled_videos.middle_frames import MiddleFrames
from eva_data.labelled_videos.opening import open_ucf101

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
    [
        ("ucf", "ucf/testlist02.txt"),
        ("ucf", "ucf/ucfTrainTestlist/testlist02.txt"),
        ("ucf", "ucfTrainTestlist/testlist02.txt"),
        ("ucf", "testlist02.txt"),
        ("ucf/UCF-101", "ucf/testlist02.txt"),
    ],
)
def test_places_of_a_list(make, below, place):
    folder = make(below, place) / "ucf"
    videos = open_ucf101(folder, CLASSES, split=2)
    assert videos.labels.tolist() == [2, 0, 1]
    assert videos.classes == CLASSES
    assert [videos.name(index) for index in range(3)] == [*PATHS]
    with pytest.raises(ValueError, match=r"ucf has no testlist01.txt: put the lists of UCF101"):
        open_ucf101(folder, CLASSES, split=1)


def test_a_list_itself(make):
    folder = make("videos", "lists/mine.txt", [f"{PATHS[0]} 101", "Yo Yo\\v_YoYo_gone.avi"])
    videos = open_ucf101(folder / "lists/mine.txt", CLASSES, root=folder / "videos")
    assert videos.labels.tolist() == [2]  # the folder says it, not the number
    assert [*videos.missing] == ["Yo Yo\\v_YoYo_gone.avi"]


def test_what_is_wrong(make, tmp_path):
    folder = make("ucf", "ucf/testlist01.txt", [PATHS[0], "Juggling/v_Juggling_g01_c01.avi"])
    with pytest.raises(ValueError, match=r"testlist01.txt, line 2 is .* 'Juggling' is not among"):
        open_ucf101(folder / "ucf", CLASSES)
    (folder / "ucf/testlist01.txt").write_text("v_YoYo_g01_c01.avi\n")
    with pytest.raises(ValueError, match=r"line 1 is 'v_YoYo_g01_c01.avi', and '' is not among"):
        open_ucf101(folder / "ucf", CLASSES)
    (folder / "ucf/testlist01.txt").write_text("\n")
    with pytest.raises(ValueError, match=r"none of the 0 videos of .*testlist01.txt"):
        open_ucf101(folder / "ucf", CLASSES)
    with pytest.raises(ValueError, match="split must be 1, 2 or 3, got 4"):
        open_ucf101(folder / "ucf", CLASSES, split=4)
    with pytest.raises(ValueError, match=r"there is no .*gone: name the folder of UCF-101"):
        open_ucf101(tmp_path / "gone", CLASSES)
    (folder / "ucf/testlist01.txt").write_text(PATHS[0])
    with pytest.raises(ValueError, match="backend must be one of"):
        open_ucf101(folder / "ucf", CLASSES, backend="decord")


@pytest.mark.parametrize(("frames", "middle"), [(1, 0), (2, 1), (5, 2), (6, 3)])
def test_the_frame_in_the_middle(make, write_video, frames, middle):
    folder = make("ucf", "ucf/testlist01.txt") / "ucf"
    write_video(folder / PATHS[1], frames, list(range(frames)))
    samples = MiddleFrames(open_ucf101(folder, CLASSES), lambda picture: picture)
    picture, label = samples[1]
    assert label == 0
    assert picture.mode == "RGB"
    assert picture.size == (64, 48)
    assert abs(picture.getpixel((30, 20))[1] - (10 + 40 * middle)) <= 3
    assert samples.sample_id(1) == str(folder / PATHS[1])
    with pytest.raises(OSError, match=r"v_YoYo_g01_c01.avi"):
        samples[0]


def test_a_strip(make, write_video):
    folder = make("ucf", "ucf/testlist01.txt") / "ucf"
    write_video(folder / PATHS[0], 1, [0], size=(16, 1600))
    with pytest.raises(OSError, match="frames of 16 x 1600 pixels"):
        MiddleFrames(open_ucf101(folder, CLASSES), lambda picture: picture)[0]
