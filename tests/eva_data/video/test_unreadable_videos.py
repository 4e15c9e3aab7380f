"""Files that are not videos, or not all of one: one sentence, no noise, no wait."""

import os
import wave

import av
import numpy as np
import pytest

from eva_data.video.source import UnreadableVideoError, open_video
from eva_data.video.streams import VideoReader


def _sound(path):
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 8000, 0, "NONE", ""))
        file.writeframes(bytes(8000))


def _cover(path):
    """A record with a picture on it."""
    with av.open(str(path), "w", format="mp4") as container:
        cover = container.add_stream("png", rate=1)
        cover.width, cover.height, cover.pix_fmt = 32, 32, "rgb24"
        cover.disposition = av.stream.Disposition.attached_pic
        sound = container.add_stream("aac", rate=16000)
        picture = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")
        for packet in (*cover.encode(picture), *cover.encode()):
            container.mux(packet)
        samples = np.zeros((1, 1024), np.float32)
        noise = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
        noise.sample_rate = 16000
        container.mux(sound.encode(noise))
        container.mux(sound.encode())


def _playlist(path):
    path.write_text("#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nhttp://127.0.0.1:9/a.ts\n")


def _script(path):
    path.write_text("ffconcat version 1.0\nfile /etc/hostname\n")


DAMAGED = "it is damaged or not a video"
UNKNOWN = "it is not a video of a known kind"
FILES = {
    "empty.mp4": (lambda path: path.write_bytes(b""), DAMAGED),
    "text.mp4": (lambda path: path.write_bytes(b"no video" * 100), DAMAGED),
    "missing.mp4": (lambda path: None, "missing.mp4 is not there"),
    "link.mp4": (lambda path: path.symlink_to(path), "cannot be read: Too many levels"),
    "folder.mp4": (lambda path: path.mkdir(), "is a folder and not a file"),
    "pipe.mp4": (os.mkfifo, "is a named pipe and not a file"),
    "device.mp4": (lambda path: path.symlink_to("/dev/zero"), "is a device and not a file"),
    "sound.mp4": (_sound, UNKNOWN),
    "record.mp4": (_cover, "it has no images"),
    "playlist.m3u8": (_playlist, "not a video"),
    "playlist.mp4": (_playlist, "not a video"),
    "script.mp4": (_script, "not a video"),
}


def _reasons(source, name):
    """What the three ways to read a video say of it."""
    with pytest.raises(UnreadableVideoError) as caught:
        open_video(source, name=name)
    yield str(caught.value)
    if not isinstance(source, bytes):
        reader = VideoReader(source)
        list(reader)
        yield reader.error


def _is_one_sentence(text, name):
    return name in text and "\n" not in text and text.count(": ") <= 2 and len(text) < 300


@pytest.mark.parametrize("name", FILES)
def test_what_is_not_a_video(tmp_path, name, capfd):
    make, expected = FILES[name]
    path = tmp_path / name
    make(path)
    sources = [path] + ([path.read_bytes()] if path.is_file() else [])
    for source in sources:
        for reason in _reasons(source, str(path)):
            assert expected in reason
            assert _is_one_sentence(reason, name)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("place", [0.1, 0.5, 0.9, 0.995])
@pytest.mark.parametrize("name", ["h264.mp4", "vp9-odd.webm", "mpeg4.avi", "h264.flv"])
def test_truncated_files(tmp_path, videos, write_moving, name, place, capfd):
    """With the index at the front, or without one."""
    path = tmp_path / name
    if name == "h264.mp4":
        write_moving(path, muxer={"movflags": "faststart"})
    else:
        path.write_bytes((videos / name).read_bytes())
    content = path.read_bytes()
    path.write_bytes(content[: int(place * len(content))])
    for reason in _reasons(path, str(path)):
        assert "it is truncated" in reason or DAMAGED in reason or "no images" in reason
        assert _is_one_sentence(reason, name)
    if place == 0.5:
        assert "it is truncated" in reason
    assert capfd.readouterr() == ("", "")


def test_what_is_damaged_in_the_middle(tmp_path, videos, read_all, capfd):
    """Frames that need a damaged one are refused, those of other groups are as they were."""
    path = tmp_path / "damaged.mp4"
    content = bytearray((videos / "h264.mp4").read_bytes())
    expected = read_all(videos / "h264.mp4")
    with av.open(str(videos / "h264.mp4")) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
    hurt = next(packet for packet in packets[1:] if packet.is_keyframe)
    start = hurt.pos + 100
    content[start : start + 100] = bytes(100)
    path.write_bytes(content)
    with open_video(path) as video:
        assert len(video) == 36
        rest = [0, 11, 24, 35]
        assert np.array_equal(video.frames(rest), expected[rest])
        with pytest.raises(UnreadableVideoError, match=r"frame \d+ of 36"):
            video.frames(range(36))
        assert np.array_equal(video.frames(rest), expected[rest])  # it is still of use
    reader = VideoReader(path)
    assert 12 <= len(list(reader)) < 24
    assert "damaged.mp4 as a video after" in reader.error
    assert "it is damaged" in reader.error
    assert capfd.readouterr() == ("", "")


def test_encrypted_videos(tmp_path, write_moving):
    key = {"encryption_scheme": "cenc-aes-ctr", "encryption_key": "7" * 32}
    write_moving(tmp_path / "a.mp4", muxer=key | {"encryption_kid": "5" * 32})
    for reason in _reasons(tmp_path / "a.mp4", "a.mp4"):
        assert "it is encrypted" in reason


def test_frames_that_are_too_large(tmp_path, videos, monkeypatch):
    monkeypatch.setenv("EVA_MAX_IMAGE_PIXELS", "3071")
    for reason in _reasons(videos / "h264.mp4", "h264.mp4"):
        assert "its frames have 64 x 48 pixels, more than 3,071; if it is meant, set" in reason
    monkeypatch.setenv("EVA_MAX_IMAGE_PIXELS", "many")
    with pytest.raises(ValueError, match="must be a positive integer"):
        open_video(videos / "h264.mp4")
