"""The classifier of clips beside the official form of its attention and beside timm's blocks.

Yields `(name, value)`; all ways have the same weights and are timed in turn in one process, on a
CPU by processor time. The official form computes all scores and their softmax in float32; timm's
are the blocks of `Eva` over the same tokens. Then a video of 12 views, decoded once and classified
as one batch, beside 12 times opening, decoding and classifying one view.

    python benchmarks/video.py                       # 8 and 16 frames, two of EVA-g's blocks
    python benchmarks/video.py --depth 40 --frames 8 --dtype bfloat16     # EVA-g, on a GPU

`benchmarks/video_decoding.py` measures the decoders. Letters: B clips, h heads, N tokens, D
channels of a head.
"""

import argparse
import statistics
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import MethodType
from typing import Any

import torch
from measuring import (
    Figure,
    Seconds,
    by_clock,
    here,
    in_turn,
    parser_of_sizes,
    ratios,
    show,
    with_peak,
)
from torch import Tensor, nn
from video_decoding import write

from eva_backbone.attention import Attention
from eva_data.video.source import open_video
from eva_engine.evaluation.counting import MultiView
from eva_video.data.clips import Sampling
from eva_video.data.transforms import CropsTransform, Normalise
from eva_video.model.classifier import VideoClassifier

CLASSES = 400
CLIPS, CROPS = 4, 3


def build(args: argparse.Namespace, frames: int) -> dict[str, VideoClassifier]:
    """Build the same classifier three times, with other blocks."""
    torch.manual_seed(0)
    sizes = {
        "embed_dim": args.width, "depth": args.depth, "num_heads": args.heads,
        "mlp_dim": 6144 * args.width // 1408,
    }  # fmt: skip
    models = {
        name: VideoClassifier(
            num_classes=CLASSES, frames=frames, img_size=args.image_size, **sizes
        ).to(args.device, args.dtype)
        for name in ("ours", "official form", "timm")
    }
    ours, official, timm = models.values()
    for other in (official, timm):
        other.load_state_dict(ours.state_dict())
    for module in official.modules():
        if isinstance(module, Attention):
            module.attend = MethodType(_explicit, module)  # type: ignore[method-assign]
    timm.blocks = timm_blocks(ours, mlp_ratio=sizes["mlp_dim"] / args.width)
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


def timm_blocks(model: VideoClassifier, *, mlp_ratio: float) -> nn.ModuleList:
    """Make timm's blocks with a model's weights."""
    from timm.models.eva import Eva

    parameter = next(model.parameters())
    peer = Eva(
        img_size=model.img_size, patch_size=model.patch_size, embed_dim=model.embed_dim,
        depth=model.depth, num_heads=model.num_heads, mlp_ratio=mlp_ratio, use_rot_pos_emb=False,
    )  # fmt: skip
    found: Any = peer.blocks.load_state_dict(model.blocks.state_dict(), strict=False)
    assert not found.unexpected_keys
    assert not found.missing_keys, found.missing_keys
    blocks = peer.blocks.to(parameter.device, parameter.dtype)
    return nn.ModuleList(_Ungridded(block) for block in blocks)


def compare(frames: int, args: argparse.Namespace) -> Iterator[Figure]:
    """Yield times, memory and ratios at a number of frames."""
    models = build(args, frames)
    side = args.image_size
    clips = torch.randn(args.batch, frames, 3, side, side, device=args.device, dtype=args.dtype)

    def forward(model: nn.Module) -> Tensor:
        with torch.no_grad():
            result: Tensor = model(clips)
        return result

    def both(model: nn.Module) -> None:
        model.zero_grad(set_to_none=True)
        model(clips).float().square().mean().backward()

    name = f"{frames} frames"
    exact, *others = (forward(model.eval()).double() for model in models.values())
    difference = max(float((other - exact).abs().max()) for other in others)
    yield (
        f"{name}: largest difference of logits, in their deviation",
        difference / float(exact.std()),
    )
    passes: dict[str, Callable[[nn.Module], object]] = {
        "forward": forward,
        "forward and backward": both,
    }
    for title, call in passes.items():
        calls = [lambda model=model, call=call: call(model) for model in models.values()]
        times = in_turn(calls, rounds=args.rounds, device=args.device)
        peaks = [with_peak(each, args.device)[1] for each in calls]
        yield f"{name}, {title}: seconds", by_clock(times[0])
        yield f"{name}, {title}: peak GiB", peaks[0]
        for peer, taken, peak in zip(list(models)[1:], times[1:], peaks[1:], strict=True):
            yield from _beside(f"{name}, {title}", peer, _ratios(taken, times[0], args))
            yield f"{name}, {title}: share of the peak memory of {peer}", peaks[0] / peak


def _ratios(slow: list[Seconds], fast: list[Seconds], args: argparse.Namespace) -> list[float]:
    """Ratios of processor time on a CPU, which other work disturbs less, and by the clock else."""
    return ratios(slow, fast, cpu=args.device.type == "cpu")


def _beside(name: str, peer: str, found: list[float]) -> Iterator[Figure]:
    yield f"{name}: times faster than {peer}", statistics.median(found)
    yield f"{name}: the same, slowest round", min(found)
    yield f"{name}: the same, fastest round", max(found)


def evaluation(args: argparse.Namespace) -> Iterator[Figure]:
    """Yield the ratio of 12 decodes and forwards to one."""
    frames = args.frames[0]
    model = build(args, frames)["ours"].eval()
    sampling, normalise = Sampling(frames=frames), Normalise()
    together = MultiView(model, views_per_forward=args.views_per_forward)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "video.mp4"
        write(file, gop=12)

        def read(clips: list[int], crops: list[int]) -> Tensor:
            with open_video(file) as video:
                indexes = sampling.fixed(len(video), clips=CLIPS)[clips]
                pixels = video.frames(indexes.reshape(-1).tolist())
            views = CropsTransform(args.image_size, crops=CROPS, normalise=normalise)(pixels)
            return views[crops].reshape(-1, frames, *views.shape[2:]).to(args.device, args.dtype)

        def once() -> Tensor:
            with torch.no_grad():
                result: Tensor = together(read([*range(CLIPS)], [*range(CROPS)])[None])[0].exp()
            return result

        def twelve_times() -> Tensor:
            views = [
                model(read([clip], [crop])).float().softmax(-1)
                for crop in range(CROPS)
                for clip in range(CLIPS)
            ]
            return torch.stack(views).mean(0)

        def twelve_without_gradients() -> Tensor:
            with torch.no_grad():
                return twelve_times()

        difference = (once() - twelve_without_gradients()).abs().max()
        yield "12 views: largest difference of probabilities", float(difference)
        slow, fast = in_turn(
            (twelve_without_gradients, once), rounds=args.rounds, device=args.device
        )
        yield "12 views: seconds", by_clock(fast)
        yield from _beside("12 views", "12 decodes and forwards", _ratios(slow, fast, args))
        views = [([clip], [crop]) for crop in range(CROPS) for clip in range(CLIPS)]
        slow, fast = in_turn(
            (
                lambda: [read(*view) for view in views],
                lambda: read([*range(CLIPS)], [*range(CROPS)]),
            ),
            rounds=args.rounds,
            device=args.device,
        )
        yield from _beside("12 views, reading alone", "12 decodes", _ratios(slow, fast, args))


def figures(args: argparse.Namespace) -> Iterator[Figure]:
    """Yield all figures."""
    for frames in args.frames:
        yield from compare(frames, args)
    yield from evaluation(args)


def main() -> None:
    """Print all figures."""
    parser = parser_of_sizes(__doc__)
    parser.set_defaults(depth=2)
    parser.add_argument("--frames", type=int, nargs="+", default=[8, 16])
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--views-per-forward", type=int, default=None)
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), default="float32")
    args = parser.parse_args()
    args.device, args.dtype = here(), getattr(torch, args.dtype)
    show(figures(args), rounds=args.rounds)


if __name__ == "__main__":
    main()
