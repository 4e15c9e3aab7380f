"""The optional decoder beside PyAV: the same frames; and what it says where it is not installed.

torchcodec needs FFmpeg's shared libraries under their own names. PyAV brings them under others, so
a folder of links serves a process of its own.
"""

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import av
import pytest

_COMPARE = """
import json, random, sys
from pathlib import Path
import numpy as np
from eva_data.video.pyav_source import PyavSource
from eva_data.video.source import open_video

random.seed(0)
fallen_back = []
rgb = PyavSource._rgb
PyavSource._rgb = lambda self, indices: fallen_back.append(indices) or rgb(self, indices)
found = {}
for file in sorted(Path(sys.argv[1]).iterdir()):
    with open_video(file) as video:
        indices = [*random.choices(range(len(video)), k=12), 0, len(video) - 1]
        frames, times = video.frames(indices), video.times(indices)
    for content in (file, file.read_bytes()):
        fallen_back.clear()
        with open_video(content, backend="torchcodec") as other:
            others = other.frames(indices)
            again = other.frames(indices[::-1])
            facts = [(v.rate, v.size, v.rotation, len(v)) for v in (video, other)]
            found.setdefault(file.name, []).append({
                "facts": facts[0] == facts[1],
                "times": times == other.times(indices),
                "shape": frames.shape == others.shape,
                "largest": int(np.abs(frames.astype(int) - others).max()),
                "again": bool(np.array_equal(others[::-1], again)),
                "pyav": bool(fallen_back),
            })
        other.close()
        try:
            other.frames([0])
        except ValueError as error:
            found[file.name][-1]["closed"] = "is closed" in str(error)
try:
    open_video(b"no video", backend="torchcodec", name="a text")
except OSError as error:
    found["error"] = str(error)
print(json.dumps(found))
"""
# Decoded by PyAV: their packets do not say which frames there are, or torchcodec refuses or skips
# one, as after a seek to a picture that is refreshed bit by bit.
_BY_PYAV = {
    *("gif.gif", "h264.264", "h264.avi", "h264.ts", "mpeg2.mpg", "mpeg4-b.avi", "wmv2.wmv"),
    *("changes.webm", "h264-refresh.mp4"),
}


@pytest.fixture(scope="module")
def libraries(tmp_path_factory):
    """Folder with PyAV's libraries under the names by which torchcodec looks for them."""
    bundled = Path(av.__file__).parents[1] / "av.libs"
    folder = tmp_path_factory.mktemp("libraries")
    for file in bundled.glob("lib*") if bundled.is_dir() else ():
        if name := re.fullmatch(r"(lib(?:av|sw)\w+)-\w+(\.so\.\d+)[\d.]*", file.name):
            (folder / "".join(name.groups())).symlink_to(file)
    if importlib.util.find_spec("torchcodec") is None or not any(folder.iterdir()):
        pytest.skip("torchcodec, or FFmpeg inside PyAV, is not installed")
    return folder


@pytest.fixture(scope="module")
def comparison(videos, libraries, write_changing, tmp_path_factory):
    """For each video, how the two decoders differ: from the file, and from its bytes."""
    folder = tmp_path_factory.mktemp("both")
    for file in videos.iterdir():
        (folder / file.name).symlink_to(file)
    write_changing(folder / "changes.webm")
    environment = os.environ | {"LD_LIBRARY_PATH": str(libraries)}
    command = [sys.executable, "-c", _COMPARE, str(folder)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return json.loads(done.stdout)


def test_both_give_the_same_frames(comparison, video_name):
    for found in comparison[video_name]:
        assert found == {
            "facts": True,
            "times": True,
            "shape": True,
            "largest": 0,
            "again": True,
            "pyav": video_name in _BY_PYAV,
            "closed": True,
        }


def test_frames_that_torchcodec_refuses_come_from_pyav(comparison):
    """It has no frames of another size than the first."""
    for found in comparison["changes.webm"]:
        assert found["largest"] == 0
        assert found["pyav"]
