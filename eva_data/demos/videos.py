"""Videos and cameras in demos: each frame drawn on, and a video written of them."""

from collections.abc import Callable
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eva_data.files import make_folder
from eva_data.inputs import Job
from eva_data.progress import ProgressBar
from eva_data.video.camera import CameraReader
from eva_data.video.frame_stream import VideoReader
from eva_data.video.writer import VideoWriter

Pixels = NDArray[np.uint8]


def draw_video(job: Job, draw: Callable[[Pixels, int], Pixels]) -> tuple[int, str | None]:
    """Draw on all frames of a video, or of a camera until Ctrl-C, and write them as a video.

    Args:
        job: The video or camera, and the file to write.
        draw: Function that takes a frame (H, W, 3) and its number, and returns the drawn one, of
            the same size for all frames.

    Returns:
        Number of frames, and a sentence if it could not be read, or not to its end.
    """
    make_folder(job.targets[0].parent)
    reader: Any = CameraReader(job.source) if job.is_camera else VideoReader(job.source)
    frames = iter(reader)
    first = next(frames, None)  # then the number of frames is known
    done = 0
    with (
        VideoWriter(job.targets[0]) as writer,
        ProgressBar(reader.count, what=job.name, unit="frame", leave=False) as bar,
    ):
        for frame in chain([first] if first else [], frames):
            writer.add(draw(frame.rgb, done), frame)
            bar.update()
            done += 1
    return done, reader.error
