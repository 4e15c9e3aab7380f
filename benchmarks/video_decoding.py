"""Clips per second of one core: the frames of a clip beside decoding all frames of its video.

A video of 300 frames of 340 x 256 pixels in H.264, as Kinetics is kept for training, with a
keyframe every 12 or 250 frames. For each number of frames in a clip, in turn in one process, each
with opening and closing: PyAV, torchcodec (where it can be loaded), and with PyAV all frames
decoded of which all ("every frame") or only those of the clip ("every frame, converts the clip's")
become RGB. First the program makes sure that all give the same frames.

Yields `(name, value)`: the clips per second of each, and how many times as many they are as with
every frame.

    OMP_WAIT_POLICY=PASSIVE python benchmarks/video_decoding.py
"""

import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from functools import partial
from pathlib import Path

import av
import numpy as np
import torch
import torch.nn.functional as F
from measuring import Figure, beside, new_parser, show
from numpy.typing import NDArray

from eva_data.video.containers import explained, frames_of, open_container, to_rgb
from eva_data.video.source import BACKENDS, Backend, open_video

LENGTH, HEIGHT, WIDTH, RATE = 300, 256, 340, 30
CLIPS = 5  # of a measurement
PEER = "every frame"
CPU = torch.device("cpu")
Frames = NDArray[np.uint8]
Read = Callable[[Path, Sequence[int]], Frames]


def write(file: Path, *, gop: int) -> None:
    """Write a camera that moves over a landscape of noise, with some noise of its own."""
    random = torch.Generator().manual_seed(0)
    land = torch.zeros(1, 3, 2 * HEIGHT, 2 * WIDTH)
    for scale in (4, 16, 64):  # more of the coarse than of the fine, as in photographs
        noise = torch.randn(1, 3, 2 * HEIGHT // scale, 2 * WIDTH // scale, generator=random)
        land += 8 * scale**0.5 * F.interpolate(noise, land.shape[-2:], mode="bicubic")
    with av.open(str(file), "w") as container:
        stream = container.add_stream("libx264", rate=RATE)
        stream.height, stream.width, stream.pix_fmt = HEIGHT, WIDTH, "yuv420p"
        stream.codec_context.gop_size = gop
        for number in range(LENGTH):
            angle = 2 * np.pi * number / LENGTH
            y, x = int(HEIGHT / 2 * (1 + np.sin(angle))), int(WIDTH / 2 * (1 + np.cos(angle)))
            view = land[0, :, y : y + HEIGHT, x : x + WIDTH]
            view = 128 + view + 2 * torch.randn(view.shape, generator=random)
            rgb = view.clamp(0, 255).byte().permute(1, 2, 0).contiguous().numpy()
            frame = av.VideoFrame.from_ndarray(rgb, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, RATE)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def chosen(backend: Backend, file: Path, indices: Sequence[int]) -> Frames:
    """Read the frames of a clip as the toolkit does."""
    with open_video(file, backend=backend) as video:
        return video.frames(indices)


def every(file: Path, indices: Sequence[int], *, convert_all: bool) -> Frames:
    """Decode all frames and keep those of a clip."""
    wanted, kept = set(indices), {}
    with explained(str(file)):
        video = open_container(file)
        for number, frame in enumerate(frames_of(video)):
            if convert_all or number in wanted:
                rgb = to_rgb(frame, (HEIGHT, WIDTH))
                if number in wanted:
                    kept[number] = rgb
        video.container.close()
    return np.stack([kept[index] for index in indices])


def ways(file: Path) -> dict[str, Read]:
    """The ways that can be taken here, by name."""
    found: dict[str, Read] = {}
    for backend in BACKENDS:
        try:
            chosen(backend, file, [0])
        except ValueError as error:
            print(f"without {backend}: {error}", file=sys.stderr)
        else:
            found[backend] = partial(chosen, backend)
    found[f"{PEER}, converts the clip's"] = partial(every, convert_all=False)
    found[PEER] = partial(every, convert_all=True)
    return found


def compare(file: Path, gop: int, frames: int, rounds: int) -> Iterator[Figure]:
    """Yield the figures of a video and a number of frames in a clip."""
    # the centres of equal segments, as in an evaluation
    indices = [int((part + 0.5) * LENGTH / frames) for part in range(frames)]
    found = ways(file)
    peer = found.pop(PEER)
    expected = peer(file, indices)
    for name, read in found.items():
        np.testing.assert_array_equal(read(file, indices), expected, err_msg=name)
    for name, read in found.items():
        calls = {who: partial(several, way, file, indices)
                 for who, way in ((name, read), (PEER, peer))}  # fmt: skip
        yield from beside(
            f"GOP {gop}, {frames} frames", calls, rounds=rounds, device=CPU, items=CLIPS,
            memory=False,
        )  # fmt: skip


def several(read: Read, file: Path, indices: Sequence[int]) -> None:
    """Read a clip several times."""
    for _ in range(CLIPS):
        read(file, indices)


def figures(rounds: int) -> Iterator[Figure]:
    with tempfile.TemporaryDirectory() as folder:
        for gop in (12, 250):
            file = Path(folder) / f"{gop}.mp4"
            write(file, gop=gop)
            yield f"GOP {gop}: kB of the video", file.stat().st_size / 1000
            for frames in (8, 16):
                yield from compare(file, gop, frames, rounds)


def main() -> None:
    args = new_parser(__doc__, rounds=7).parse_args()
    torch.set_num_threads(1)
    show(figures(args.rounds), rounds=args.rounds)


if __name__ == "__main__":
    main()
