"""Chosen frames by PyAV, beside reading all frames in turn, and how much it decodes for them."""

import itertools
import os
from fractions import Fraction

import av
import numpy as np
import pytest

from eva_data.video import decoding
from eva_data.video.decoding import open_container, packets_of
from eva_data.video.source import open_video

MS = 1.1e-3  # Matroska's times are whole milliseconds
ROTATIONS = {"h264-444-odd.mp4": 90, "h264-turned.mp4": 270, "h264-upside-down.mov": 180}
JUMPS = [0, 1, 2, 7, 9, 10, 20, 21, 22, 30, 31, 32, 33, 34, 35, 50, 60, 61, 62, 63]


@pytest.fixture
def decoded(monkeypatch):
    """List of the packets that are decoded after a video was opened."""
    packets = []

    def noted(video):
        for packet in packets_of(video):
            packets.append(packet)
            yield packet

    monkeypatch.setattr(decoding, "packets_of", noted)
    return packets


def test_frames_are_those_of_reading_all_in_turn(videos, read_all, video_name):
    expected = read_all(videos / video_name)
    random = np.random.default_rng(0)
    with open_video((videos / video_name).read_bytes()) as video:
        assert np.array_equal(video.frames([len(video) - 1]), expected[-1:])
    with open_video(videos / video_name) as video:
        assert len(video) == len(expected)
        assert video.size == expected.shape[1:3]
        assert video.rotation == ROTATIONS.get(video_name, 0)
        for count in (1, 3, 16, 2 * len(video)):
            indices = random.integers(0, len(video), count).tolist()  # unsorted, with repeats
            assert np.array_equal(video.frames(indices), expected[indices])
        assert video.frames([]).shape == (0, *video.size, 3)
        backwards = range(len(video) - 1, -1, -1)
        assert np.array_equal(video.frames(backwards), expected[::-1])
        assert all(
            np.array_equal(rgb, expected[index]) for index, rgb in video.iterate_frames(backwards)
        )
        assert [index for index, _ in video.iterate_frames(backwards)] == [*range(len(video))]


@pytest.mark.parametrize("name", ["h264.mp4", "mpeg2.mpg"])
def test_frames_that_come_one_by_one_let_others_be_read_meanwhile(videos, read_all, name):
    """A file with keyframes, and one that is decoded from its beginning."""
    expected = read_all(videos / name)
    with open_video(videos / name) as video:
        for index, rgb in video.iterate_frames(range(5, 20)):
            assert np.array_equal(rgb, expected[index])
            other = (7 * index) % len(video)
            assert np.array_equal(video.frames([other])[0], expected[other])
        frames = video.iterate_frames([3, 4])
        next(frames)
    with pytest.raises(ValueError, match="closed"):
        next(frames)


@pytest.mark.parametrize("name", ["h264-jumps.mp4", "h264-jumps.mkv"])
def test_times_are_those_that_were_written(videos, name):
    with open_video(videos / name) as video:
        assert video.times(range(len(video))) == pytest.approx([t / 30 for t in JUMPS], abs=MS)
        assert video.times([3, 0, 3]) == pytest.approx([7 / 30, 0, 7 / 30], abs=MS)


@pytest.mark.parametrize("index", [36, -1, 10**9])
def test_frames_that_are_not_there(videos, index):
    with open_video(videos / "h264.mp4") as video:
        for read in (video.frames, video.times):
            with pytest.raises(IndexError, match=rf"h264\.mp4.*{index}.*36"):
                read([0, index])


def test_only_what_a_frame_needs_is_decoded(videos, decoded):
    """36 packets in GOPs of 12; the decoder gives a frame two packets later, or at the end."""
    with open_video(videos / "h264.mp4") as video:
        decoded.clear()
        video.frames([35])
        assert 0 < len([packet for packet in decoded if packet.size]) <= 12
        decoded.clear()
        video.frames([12])
        assert len(decoded) <= 3
        decoded.clear()
        video.frames([13, 20])  # from one keyframe
        assert len(decoded) <= 10
        decoded.clear()
        video.frames([0, 12, 24])  # leaves out what is between them, and what would follow them
        assert len(decoded) <= 1 + 1 + 3


@pytest.mark.parametrize("name", ["h264.mp4", "h264-open.mp4", "hevc.mp4", "h264.avi"])
def test_frames_before_a_leap_come_in_any_order_of_storage(videos, read_all, name):
    """A frame that is stored before others which are shown earlier ends no group of frames."""
    expected = read_all(videos / name)
    with open_video(videos / name) as video:
        for first, second in itertools.combinations(range(12), 2):
            indices = [first, second, 30]
            assert np.array_equal(video.frames(indices), expected[indices])


class _BadlyIndexed:
    """A container whose seeks end behind a time, or fail."""

    def __init__(self, container, fails):
        self._container, self._fails = container, fails

    def __getattr__(self, name):
        return getattr(self._container, name)

    def seek(self, time, *, stream):
        if self._fails:
            raise av.PermissionError(1, "Operation not permitted")
        self._container.seek(10**6, stream=stream)


@pytest.mark.parametrize("fails", [False, True])
def test_where_a_seek_has_ended_is_checked(videos, read_all, monkeypatch, fails):
    def open_badly(content):
        video = open_container(content)
        return video._replace(container=_BadlyIndexed(video.container, fails))

    expected = read_all(videos / "h264.mp4")
    monkeypatch.setattr(decoding, "open_container", open_badly)
    with open_video(videos / "h264.mp4") as video:
        for index in (20, 3, 35, 14):
            assert np.array_equal(video.frames([index])[0], expected[index])


def test_sizes_that_change_are_scaled_to_the_first(tmp_path, write_changing, read_all):
    write_changing(tmp_path / "changes.webm")
    with open_video(tmp_path / "changes.webm") as video:
        assert (len(video), video.size) == (20, (48, 64))
        frames = video.frames(range(20))
    assert np.array_equal(frames, read_all(tmp_path / "changes.webm"))
    ramp = np.linspace(0, 255, 64)[None, :, None]
    assert abs(frames - ramp).max() < 8


def test_recordings_that_were_cut_begin_with_a_keyframe(tmp_path, write_moving, read_all):
    """A transport stream begins anywhere; B-frames that lack a neighbour are left out."""
    write_moving(tmp_path / "all.ts", options={"x264-params": "open-gop=1:keyint=12:scenecut=0"})
    content, expected = (tmp_path / "all.ts").read_bytes(), read_all(tmp_path / "all.ts")
    lengths = set()
    for number in range(0, len(content) // 188, 9):
        (tmp_path / "cut.ts").write_bytes(content[188 * number :])
        try:
            video = open_video(tmp_path / "cut.ts")
        except OSError:
            continue  # behind the last keyframe
        with video:
            frames = video.frames(range(len(video)))
            assert np.array_equal(frames, expected[-len(video) :])
            lengths.add(len(video))
    assert len(lengths) >= 3


def test_an_edit_list_leaves_out_the_beginning(tmp_path, videos, read_all, decoded):
    """Phones cut a video without encoding it again: the list says what of it is shown."""
    content = bytearray((videos / "h264.mp4").read_bytes())
    entry = content.find(b"elst") + 12  # duration in ms, first tick of 512 a frame, after B-frames
    content[entry : entry + 8] = (500).to_bytes(4, "big") + (20 * 512 + 1024).to_bytes(4, "big")
    (tmp_path / "edited.mp4").write_bytes(content)
    expected = read_all(videos / "h264.mp4")[20:35]
    assert np.array_equal(read_all(tmp_path / "edited.mp4"), expected)
    with open_video(tmp_path / "edited.mp4") as video:
        assert len(video) == 15
        assert np.array_equal(video.frames([14, 0, 7]), expected[[14, 0, 7]])
        assert video.times([0, 14]) == pytest.approx([0, 14 / 30])
        decoded.clear()
        video.frames([14])
        assert 0 < len(decoded) <= 14


def test_packets_that_show_nothing_are_not_counted(tmp_path, read_all):
    """Encoders of MPEG-4 (part 2) store a repeated frame as a packet that gives none."""
    repeated = bytes.fromhex("000001b650cf")  # a frame that is not coded
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=30)
        stream.width, stream.height, stream.pix_fmt = 128, 96, "yuv420p"
        stream.codec_context.max_b_frames = 0
        for number in range(20):
            rgb = np.random.default_rng(number).integers(0, 256, (96, 128, 3), dtype=np.uint8)
            for packet in stream.encode(av.VideoFrame.from_ndarray(rgb, format="rgb24")):
                packet.time_base = Fraction(1, 60)
                packet.pts = packet.dts = 2 * number
                container.mux(packet)
            if number == 10:
                packet = av.Packet(repeated)
                packet.stream, packet.time_base = stream, Fraction(1, 60)
                packet.pts = packet.dts = 2 * number + 1
                container.mux(packet)
    expected = read_all(tmp_path / "a.mp4")
    assert len(expected) == 20
    with open_video(tmp_path / "a.mp4") as video:
        assert len(video) == 20
        assert np.array_equal(video.frames([19, 10, 11]), expected[[19, 10, 11]])


def _descriptors():
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208


def test_closed_at_once_and_again(videos):
    before = _descriptors()
    video = open_video(videos / "h264.mp4")
    video.frames([20])
    assert _descriptors() == before + 1
    video.close()
    assert _descriptors() == before
    video.close()
    with pytest.raises(ValueError, match=r"h264\.mp4"):
        video.frames([0])
    assert len(video) == 36
