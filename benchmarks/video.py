"""The classifier of clips beside the official form of its attention and beside timm's blocks.

Yields `(name, value)`; all ways have the same weights and are timed in turn in one process. The
official form computes all scores and their softmax in float32; timm's are the blocks of `Eva` over
the same tokens. Then a video of 12 views, decoded once and classified as one batch, beside 12 times
opening, decoding and classifying one view.

    python benchmarks/video.py                       # 8 and 16 frames, two of EVA-g's blocks
    python benchmarks/video.py --depth 40 --frames 8 --dtype bfloat16     # EVA-g, on a GPU

`benchmarks/video_decoding.py` measures the decoders. Letters: B clips, h heads, N tokens.
"""

import argparse
import itertools
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import MethodType

import torch
from measuring import EVA_MLP, EVA_WIDTH, Figure, beside, both_passes, here, parser_of_sizes, show
from timm.models.eva import Eva
from torch import Tensor, nn
from video_decoding import write

from eva_backbone.attention import Attention
from eva_data.video.source import open_video
from eva_engine.evaluation.counting import MultiView
from eva_video.data.clips import Sampling
from eva_video.data.transforms import CropsTransform, Normalise
from eva_video.model.classifier import VideoClassifier

CLASSES, SIDE = 400, 224
CLIPS, CROPS = 4, 3


def build(args: argparse.Namespace, frames: int) -> dict[str, VideoClassifier]:
    """Build the same classifier three times, with other blocks."""
    torch.manual_seed(0)
    sizes = {"embed_dim": args.width, "depth": args.depth, "num_heads": args.heads}
    mlp_dim = EVA_MLP * args.width // EVA_WIDTH
    models = {
        name: VideoClassifier(
            num_classes=CLASSES, frames=frames, img_size=SIDE, mlp_dim=mlp_dim, **sizes
        ).to(args.device, args.dtype)
        for name in ("ours", "the official form", "timm")
    }
    ours, official, timm = models.values()
    for other in (official, timm):
        other.load_state_dict(ours.state_dict())
    for module in official.modules():
        if isinstance(module, Attention):
            module.attend = MethodType(_explicit, module)  # type: ignore[method-assign]
    peer = Eva(
        img_size=SIDE, patch_size=14, mlp_ratio=mlp_dim / args.width, use_rot_pos_emb=False, **sizes
    )
    peer.blocks.load_state_dict(ours.blocks.state_dict())
    blocks = peer.blocks.to(args.device, args.dtype)
    timm.blocks = nn.ModuleList(_Ungridded(block) for block in blocks)
    return models


def _explicit(self: nn.Module, q: Tensor, k: Tensor, v: Tensor, grid: object) -> Tensor:
    del grid
    scores = (q * q.shape[-1] ** -0.5).float() @ k.float().transpose(-2, -1)  # (B, h, N, N)
    return scores.softmax(-1).to(v.dtype) @ v


class _Ungridded(nn.Module):
    """A block of timm that is called as ours."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block

    def forward(self, x: Tensor, grid: object, read: object) -> Tensor:
        del grid, read
        result: Tensor = self.block(x)
        return result


def compare(frames: int, args: argparse.Namespace) -> Iterator[Figure]:
    """Yield times, memory and ratios at a number of frames."""
    models = {name: model.eval() for name, model in build(args, frames).items()}
    clips = torch.randn(args.batch, frames, 3, SIDE, SIDE, device=args.device, dtype=args.dtype)
    with torch.no_grad():
        exact, *others = (model(clips).double() for model in models.values())
    difference = max(float((other - exact).abs().max()) for other in others)
    name = f"{frames} frames: largest difference of logits, in their deviation"
    yield name, difference / float(exact.std())
    forwards = {name: (model, partial(model, clips)) for name, model in models.items()}
    yield from both_passes(f"{frames} frames", forwards, rounds=args.rounds, device=args.device)


def evaluation(args: argparse.Namespace) -> Iterator[Figure]:
    """Yield the ratio of 12 decodes and forwards to one."""
    frames = args.frames[0]
    model = build(args, frames)["ours"].eval()
    sampling, normalise = Sampling(frames=frames), Normalise()
    together = MultiView(model)
    every = [*range(CLIPS)], [*range(CROPS)]
    single = [([clip], [crop]) for crop in range(CROPS) for clip in range(CLIPS)]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "video.mp4"
        write(file, gop=12)

        def read(clips: list[int], crops: list[int]) -> Tensor:
            with open_video(file) as video:
                indexes = sampling.fixed(len(video), clips=CLIPS)[clips]
                pixels = video.frames(indexes.reshape(-1).tolist())
            views = CropsTransform(SIDE, crops=CROPS, normalise=normalise)(pixels)
            return views[crops].reshape(-1, frames, *views.shape[2:]).to(args.device, args.dtype)

        @torch.no_grad()
        def once() -> Tensor:
            result: Tensor = together(read(*every)[None])[0].exp()
            return result

        @torch.no_grad()
        def twelve_times() -> Tensor:
            return torch.stack([model(read(*view)).float().softmax(-1) for view in single]).mean(0)

        difference = (once() - twelve_times()).abs().max()
        yield "12 views: largest difference of probabilities", float(difference)
        ways = {"ours": once, "12 decodes and forwards": twelve_times}
        reading = {
            "ours": lambda: read(*every),
            "12 decodes": lambda: torch.cat([read(*view) for view in single]),
        }
        options = {"rounds": args.rounds, "device": args.device, "memory": False}
        yield from beside("12 views", ways, **options)
        yield from beside("12 views, reading alone", reading, **options)


def main() -> None:
    parser = parser_of_sizes(__doc__, depth=2)
    parser.add_argument("--frames", type=int, nargs="+", default=[8, 16])
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), default="float32")
    args = parser.parse_args()
    args.device, args.dtype = here(), getattr(torch, args.dtype)
    parts = [*(compare(frames, args) for frames in args.frames), evaluation(args)]
    show(itertools.chain.from_iterable(parts), rounds=args.rounds)


if __name__ == "__main__":
    main()
