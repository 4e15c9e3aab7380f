"""Small videos of many kinds, made once for all tests of reading them."""

from fractions import Fraction

import av
import numpy as np
import pytest

from eva_data.video.streams import VideoReader

QUIET = {
    "libx264": {},
    "libx265": {"x265-params": "log-level=none"},
    "libsvtav1": {"svtav1-params": "lp=1"},
}
OPEN_GOP = "open-gop=1:keyint=12:min-keyint=12:scenecut=0"
JUMPS = [0, 1, 2, 7, 9, 10, 20, 21, 22, 30, 31, 32, 33, 34, 35, 50, 60, 61, 62, 63]
# name: what differs from 36 frames of 64 x 48 pixels in H.264 with B-frames and a GOP of 12
MATRIX = {
    "h264.mp4": {},
    "h264-intra.mp4": {"gop": 1, "b_frames": 0},
    "h264-long.mkv": {"gop": 250},
    "h264-open.mp4": {"options": {"x264-params": OPEN_GOP}},
    "h264-refresh.mp4": {"options": {"x264-params": "intra-refresh=1:keyint=12:scenecut=0"}},
    "h264-fragments.mp4": {"muxer": {"movflags": "frag_keyframe+empty_moov"}},
    "h264-444-odd.mp4": {"pixels": "yuv444p", "size": (67, 35), "rotation": 90},
    "h264-turned.mp4": {"size": (68, 70), "rotation": -90},
    "h264-upside-down.mov": {"rotation": 180},
    "h264-full-range.mp4": {"pixels": "yuvj420p", "size": (50, 50)},
    "h264-bt709.mp4": {"options": {"x264-params": "colormatrix=bt709"}},
    "h264-grey.mp4": {"pixels": "gray"},
    "h264-jumps.mp4": {"times": JUMPS},
    "h264-jumps.mkv": {"times": JUMPS},
    "h264-late.mp4": {"times": [37 + i for i in range(20)]},
    "h264-early.mkv": {"times": [i - 5 for i in range(20)]},
    "h264-one.mp4": {"times": [0]},
    "h264.flv": {},
    "h264.avi": {},
    "h264.ts": {},
    "h264.264": {},
    "hevc.mp4": {"codec": "libx265"},
    "hevc-open.mkv": {"codec": "libx265", "options": {"x265-params": f"log-level=none:{OPEN_GOP}"}},
    "hevc-10-bits.mp4": {"codec": "libx265", "pixels": "yuv420p10le"},
    "h264-422-10-bits.mkv": {"pixels": "yuv422p10le", "size": (66, 50)},
    "prores.mov": {"codec": "prores", "pixels": "yuv422p10le", "b_frames": 0},
    "vp8.webm": {"codec": "libvpx", "options": {"auto-alt-ref": "1", "lag-in-frames": "16"}},
    "vp9-odd.webm": {"codec": "libvpx-vp9", "size": (35, 67)},
    "av1.mp4": {"codec": "libsvtav1", "size": (66, 68)},
    "mpeg4.avi": {"codec": "mpeg4", "b_frames": 0, "size": (128, 96)},
    "mpeg4-b.avi": {"codec": "mpeg4"},
    "mpeg2.mpg": {"codec": "mpeg2video"},
    "mjpeg.avi": {"codec": "mjpeg", "pixels": "yuvj422p", "b_frames": 0, "size": (50, 50)},
    "ffv1-odd.mkv": {"codec": "ffv1", "size": (35, 67), "b_frames": 0},
    "ffv1-rgb.mkv": {"codec": "ffv1", "pixels": "bgr0", "b_frames": 0},
    "wmv2.wmv": {"codec": "wmv2", "b_frames": 0},
    "gif.gif": {"codec": "gif", "pixels": "rgb8", "b_frames": 0},
}


def _write(
    file,
    *,
    codec="libx264",
    size=(64, 48),
    gop=12,
    b_frames=2,
    times=range(36),
    rotation=0,
    pixels="yuv420p",
    options=None,
    muxer=None,
):
    """Write a video of a coloured pattern that moves and of a corner that becomes lighter."""
    width, height = size
    colours = np.random.default_rng(0).integers(0, 256, (height // 8 + 1, width // 8 + 1, 3))
    pattern = np.kron(colours, np.ones((8, 8, 1)))[:height, :width].astype(np.uint8)
    with av.open(str(file), "w", container_options=muxer or {}) as container:
        stream = container.add_stream(codec, rate=30, options=options or QUIET.get(codec, {}))
        stream.width, stream.height, stream.pix_fmt = width, height, pixels
        stream.codec_context.gop_size = gop
        stream.codec_context.max_b_frames = b_frames
        stream.codec_context.thread_count = 1
        if rotation:
            stream.set_display_rotation(rotation)
        for number, time in enumerate(times):
            rgb = np.roll(pattern, 3 * number, axis=1)
            rgb[:8, :8] = 6 * number
            frame = av.VideoFrame.from_ndarray(rgb, format="rgb24")
            frame.pts, frame.time_base = time, Fraction(1, 30)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def _write_changing(file):
    """Write a video of 20 frames that becomes larger in the middle."""
    with av.open(str(file), "w") as container:
        stream = container.add_stream("libvpx-vp9", rate=30)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        time = 0
        packets = []
        for width, height in ((64, 48), (96, 80)):
            encoder = av.CodecContext.create("libvpx-vp9", "w")
            encoder.width, encoder.height, encoder.pix_fmt = width, height, "yuv420p"
            encoder.time_base, encoder.framerate = Fraction(1, 30), Fraction(30)
            ramp = np.linspace(0, 255, width).astype(np.uint8)
            rgb = np.broadcast_to(ramp[None, :, None], (height, width, 3))
            for _ in range(10):
                frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), format="rgb24")
                frame.pts, frame.time_base = time, Fraction(1, 30)
                packets += encoder.encode(frame)
                time += 1
            packets += encoder.encode()
        for packet in packets:
            packet.stream, packet.time_base = stream, Fraction(1, 30)
            container.mux(packet)


@pytest.fixture(scope="session")
def write_changing():
    """Function: write a video whose frames change their size; see `_write_changing`."""
    return _write_changing


@pytest.fixture(scope="session")
def write_moving():
    """Function: write a video; see `_write`."""
    return _write


@pytest.fixture(scope="session")
def videos(tmp_path_factory):
    """Folder with the videos of `MATRIX`."""
    folder = tmp_path_factory.mktemp("videos")
    for name, differences in MATRIX.items():
        _write(folder / name, **differences)
    return folder


@pytest.fixture(scope="session")
def read_all():
    """Function: all frames of a file in turn, (N, H, W, 3)."""

    def read(file):
        reader = VideoReader(file)
        frames = [frame.rgb for frame in reader]
        assert reader.error is None
        return np.stack(frames)

    return read


def pytest_generate_tests(metafunc):
    if "video_name" in metafunc.fixturenames:
        metafunc.parametrize("video_name", MATRIX)
