"""ViT with adapter beside a naive one, same weights, in one process.

The naive one holds all attention scores at once (and the bias of BEiT's table with `--rel-pos
table`), and its deformable attention is mmcv's Python function. Yields `(name, value)`: how many
times faster the forward pass and a forward and backward pass are, the share of the naive one's
peak of memory beyond weights and input, and the same for deformable attention alone. On a GPU
also images per second. Without `--compiled` mmcv's CUDA operation is left out.

    OMP_WAIT_POLICY=PASSIVE PYTHONPATH=.:segmentation python benchmarks/segmentation_backbone.py

Letters: B images, h heads, N tokens, D channels of a head.
"""

import argparse
import contextlib
import copy
import itertools
from collections.abc import Callable, Iterator
from unittest.mock import patch

import torch
from measuring import Call, Figure, by_clock, here, in_turn, parser_of_sizes, show, with_peak
from torch import Tensor, nn

from eva_backbone.attention import Attention, TableRelPosAttention
from eva_backbone.rel_pos import table_bias_index
from eva_openmmlab.stand_in import has_cuda_operations
from eva_segmentation.model import deformable_attention
from eva_segmentation.model.backbone import EVAViTAdapter
from eva_segmentation.model.deformable_attention import Grid


class DenseAttention(Attention):
    """Softmax attention that holds the scores (B, h, N, N)."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor, grid: Grid | None) -> Tensor:
        """Attend with (B, h, N, D) queries, keys and values."""
        del grid
        return (q * q.shape[-1] ** -0.5 @ k.mT).softmax(-1) @ v


class DenseTableAttention(TableRelPosAttention):
    """The same with BEiT's table; at the table's own size only."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor, grid: Grid | None) -> Tensor:
        """Attend with (B, h, N, D) queries, keys and values."""
        assert grid == (self.window, self.window)
        index = table_bias_index(grid, slice(0, q.shape[2]), q.device)
        bias = self.relative_position_bias_table[index]  # (N, N, h)
        return (q * q.shape[-1] ** -0.5 @ k.mT + bias.permute(2, 0, 1)).softmax(-1) @ v


def make_naive(model: nn.Module) -> nn.Module:
    """A copy with the attention of textbooks."""
    naive = copy.deepcopy(model)
    for module in naive.modules():
        if type(module) is Attention:
            module.__class__ = DenseAttention
        elif type(module) is TableRelPosAttention:
            module.__class__ = DenseTableAttention
    return naive


@contextlib.contextmanager
def mmcv_function() -> Iterator[None]:
    """Let every model use mmcv's Python function."""
    with (
        patch.object(deformable_attention, "bag_attention", deformable_attention.level_attention),
        patch.object(deformable_attention, "_compiled", lambda: False),
    ):
        yield


def cost(call: Call, rounds: int, device: torch.device) -> tuple[float, float]:
    """Median seconds of a call, and its peak memory in GiB."""
    (times,) = in_turn([call], rounds=rounds, device=device)
    return by_clock(times), with_peak(call, device)[1]


def deformable_inputs(
    shapes: tuple[Grid, ...], queries: int, *, heads: int, dim: int, device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    """Values, locations around evenly spread queries and weights, as in a trained model."""
    count = sum(height * width for height, width in shapes)
    sizes = torch.tensor([[width, height] for height, width in shapes], device=device)[:, None]
    columns = round(queries**0.5)
    number = torch.arange(queries, device=device)
    place = torch.stack([number % columns, number // columns], -1) / columns
    offsets = 2 * torch.randn(1, queries, heads, len(shapes), 4, 2, device=device)
    locations = place[:, None, None, None] + offsets / sizes
    weights = torch.rand(1, queries, heads, len(shapes), 4, device=device)
    value = torch.randn(1, count, heads, dim, device=device)
    return value.requires_grad_(), locations.requires_grad_(), weights.requires_grad_()


def compare_deformable(args: argparse.Namespace, device: torch.device) -> Iterator[Figure]:
    """Deformable attention alone: injector and extractor of the adapter, and Mask2Former's."""
    fine, middle, coarse = ((args.size // stride,) * 2 for stride in (8, 16, 32))
    levels, patches = (fine, middle, coarse), middle[0] ** 2
    spatial = sum(height * width for height, width in levels)
    for name, shapes, queries, heads, dim in (
        ("injector", levels, patches, args.heads, args.width // 2 // args.heads),
        ("extractor", (middle,), spatial, args.heads, args.width // 2 // args.heads),
        ("pixel decoder", levels, spatial, 32, 32),
    ):
        inputs = deformable_inputs(shapes, queries, heads=heads, dim=dim, device=device)

        def attend(
            inputs: tuple[Tensor, Tensor, Tensor] = inputs, shapes: tuple[Grid, ...] = shapes
        ) -> Tensor:
            value, locations, weights = inputs
            return deformable_attention.deformable_attention(value, shapes, locations, weights)

        for backward in (False, True):
            call = make_call(attend, inputs, backward=backward)
            mine, memory = cost(call, args.rounds, device)
            with mmcv_function():
                theirs, their_memory = cost(call, args.rounds, device)
            label = f"{name}, {'forward and backward' if backward else 'forward'}"
            yield f"{label}: times faster than mmcv's Python function", theirs / mine
            yield f"{label}: share of its peak memory", memory / their_memory


def make_call(
    forward: Callable[[], Tensor], inputs: nn.Module | tuple[Tensor, ...], *, backward: bool
) -> Call:
    """A forward pass, or one with the gradients of the inputs (tensors or a module)."""

    def call() -> None:
        with torch.set_grad_enabled(backward):
            out = forward()
        if backward:
            out.square().mean().backward()
            parameters = inputs.parameters() if isinstance(inputs, nn.Module) else inputs
            for parameter in parameters:
                parameter.grad = None

    return call


def compare_backbone(args: argparse.Namespace, device: torch.device) -> Iterator[Figure]:
    """The complete backbone; batch norms use their statistics, so that both give the same."""
    torch.manual_seed(0)
    relative = args.rel_pos == "table"
    ours = EVAViTAdapter(
        img_size=args.size,
        embed_dim=args.width,
        depth=args.depth,
        num_heads=args.heads,
        mlp_dim=args.mlp,
        deform_num_heads=args.heads,
        rel_pos=args.rel_pos,
        layer_scale=1.0 if relative else None,
    )
    for name, parameter in ours.named_parameters():
        if name.endswith(("gamma", "bias_table", "attention_weights.weight")):
            nn.init.normal_(parameter, std=0.1)  # start at zero, which would hide a difference
    ours = ours.eval().to(device)
    naive = make_naive(ours)
    images = torch.randn(args.batch, 3, args.size, args.size, device=device)
    with torch.no_grad():
        mine = ours(images)
        with mmcv_function():
            theirs = naive(images)
    error = max(float((a - b).abs().max() / b.std()) for a, b in zip(mine, theirs, strict=True))
    del mine, theirs
    yield "largest difference of the outputs, in standard deviations", error
    for backward in (False, True):
        label = f"{args.size} px, {'forward and backward' if backward else 'forward'}"
        call = make_call(lambda: total(ours, images), ours, backward=backward)
        fast, memory = cost(call, args.rounds, device)
        with mmcv_function():
            call = make_call(lambda: total(naive, images), naive, backward=backward)
            slow, peer = cost(call, args.rounds, device)
        yield f"{label}: seconds", fast
        yield f"{label}: peak GiB", memory
        if device.type == "cuda":
            yield f"{label}: images/s", args.batch / fast
        yield f"{label}: times faster than naive", slow / fast
        yield f"{label}: share of naive peak memory", memory / peer


def total(model: nn.Module, images: Tensor) -> Tensor:
    """One tensor that depends on all four maps."""
    return torch.cat([feature_map.flatten(2).mean(-1) for feature_map in model(images)])


def main() -> None:
    """Print every pair."""
    parser = parser_of_sizes(__doc__)
    parser.add_argument("--size", type=int, default=896, help="image side")
    parser.add_argument("--mlp", type=int, default=6144)
    parser.add_argument("--rel-pos", choices=["none", "table"], default="none")
    parser.add_argument("--compiled", action="store_true", help="use mmcv's CUDA operation")
    args, device = parser.parse_args(), here()
    if args.compiled and not (device.type == "cuda" and has_cuda_operations()):
        parser.error("--compiled needs a GPU and mmcv with compiled operations")
    with contextlib.ExitStack() as stack:
        if not args.compiled:
            stack.enter_context(patch.object(deformable_attention, "_compiled", lambda: False))
        figures = (compare(args, device) for compare in (compare_deformable, compare_backbone))
        show(itertools.chain.from_iterable(figures), rounds=args.rounds)


if __name__ == "__main__":
    main()
