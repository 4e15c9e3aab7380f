"""Videos and cameras in demos: each frame drawn on, and a video written of them."""

import contextlib
from collections.abc import Callable
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eva_data.files import make_folder
from eva_data.inputs import Job
from eva_data.progress import ProgressBar
from eva_data.video.streams import CameraReader, VideoReader, VideoWriter

Pixels = NDArray[np.uint8]


def draw_video(job: Job, draw: Callable[[Pixels, int], Pixels]) -> tuple[int, str | None]:
    """Draw on all frames of a video, or of a camera until Ctrl-C, and write them as a video.

    Args:
        job: The video or camera, and the file to write, if any.
        draw: Function that takes a frame (H, W, 3) and its number, and returns the drawn one, of
            the same size for all frames.

    Returns:
        Number of frames, and a sentence if it could not be read, or not to its end.
    """
    for target in job.targets:
        make_folder(target.parent)
    reader: Any = CameraReader(job.source) if job.is_camera else VideoReader(job.source)
    frames = iter(reader)
    first = next(frames, None)  # then the number of frames is known
    done = 0
    with contextlib.ExitStack() as stack:
        writers = [stack.enter_context(VideoWriter(target)) for target in job.targets]
        bar = ProgressBar(reader.count, what=job.name, unit="frame", leave=False)
        stack.enter_context(bar)
        for frame in chain([first] if first else [], frames):
            drawn = draw(frame.rgb, done)
            for writer in writers:
                writer.add(drawn, frame)
            bar.update()
            done += 1
    return done, reader.error
