"""Small layers of the plain ViT: patch embedding, MLP, norms, stochastic depth; initialisation.

Shapes: B images, N tokens, C channels, H x W pixels or patches, p patch size.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from functools import partial
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eva_backbone.recording import is_traced

LAYER_NORM_EPS = 1e-6  # every norm of EVA and detectron2's ViTDet
LAYER_NORM = partial(nn.LayerNorm, eps=LAYER_NORM_EPS)
HEAD_SCALE = 0.001  # factor of a new head's weights: the first predictions are all but uniform

_deferred: ContextVar[bool] = ContextVar("init_weights_deferred", default=False)


class RMSNorm(nn.RMSNorm):
    """RMSNorm; a trace holds it as operations that ONNX has before its opset 23."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (..., C)."""
        if not is_traced():
            return super().forward(x)
        return x * (x.square().mean(dim=-1, keepdim=True) + (self.eps or 0.0)).rsqrt() * self.weight


class Linear(nn.Linear):
    """`nn.Linear` that only allocates; the model's `init_weights` fills it.

    PyTorch's own initialisation would draw a billion random numbers that are thrown away.
    """

    def reset_parameters(self) -> None:
        """Leave the memory as allocated."""

    def forward(self, x: Tensor, *, bias: Tensor | None = None) -> Tensor:
        """Map (..., C) to (..., C'), with the layer's bias or, if it has none, another (C',)."""
        return F.linear(x, self.weight, self.bias if bias is None else bias)


class PatchEmbed(nn.Module):
    """Cut an image into patches of `patch_size` pixels and project each one (section 2.2)."""

    def __init__(
        self, *, patch_size: int, embed_dim: int, in_channels: int = 3, bias: bool = True
    ) -> None:
        super().__init__()
        self.patch_size, self.in_channels = patch_size, in_channels
        self.proj = nn.Conv2d(
            in_channels, embed_dim, kernel_size=patch_size, stride=patch_size, bias=bias
        )
        self.norm: nn.Module = nn.Identity()  # of the tokens; the ViT calls it

    def forward(self, images: Tensor) -> Tensor:
        """Embed normalised images (B, 3, H, W) into a patch map (B, C, H/p, W/p).

        Raises:
            ValueError: If the input is not a batch of images of `in_channels`, or the patch size
                does not divide its sides.
        """
        self._check(images, f"(batch, {self.in_channels}, height, width)")
        return self.proj(images)

    def _check(self, images: Tensor, form: str) -> None:
        patch_size = self.patch_size
        height, width = images.shape[-2:]
        fits = images.ndim == 1 + form.count(",") and images.shape[-3] == self.in_channels
        empty = any(side == 0 for side in images.shape[1:])
        if not fits or empty or height % patch_size or width % patch_size:
            up = [max(1, -(-side // patch_size)) * patch_size for side in (height, width)]
            raise ValueError(
                f"expected images of shape {form}, with sides divisible by the patch size "
                f"{patch_size}, got {tuple(images.shape)}; resize or pad to {up[0]}x{up[1]}"
            )


class FramePatchEmbed(PatchEmbed):
    """Cut each frame of a clip into patches and project each one (paper section 2.3.2).

    The weight has the official five dimensions, (C, 3, 1, p, p).
    """

    def __init__(
        self, *, patch_size: int, embed_dim: int, in_channels: int = 3, bias: bool = True
    ) -> None:
        super().__init__(
            patch_size=patch_size, embed_dim=embed_dim, in_channels=in_channels, bias=bias
        )
        self.proj = _FrameConv(
            in_channels, embed_dim, kernel_size=patch_size, stride=patch_size, bias=bias
        )

    def forward(self, clips: Tensor) -> Tensor:
        """Embed normalised clips (B, T, 3, H, W) into a patch map (B, C, T, H/p, W/p).

        Raises:
            ValueError: If the input is not a batch of clips of `in_channels`, or the patch size
                does not divide its sides.
        """
        self._check(clips, f"(batch, frames, {self.in_channels}, height, width)")
        patches = self.proj(clips.flatten(0, 1))  # (B * T, C, H/p, W/p)
        return patches.unflatten(0, clips.shape[:2]).transpose(1, 2)


class _FrameConv(nn.Conv2d):
    """Convolution of single frames whose weight keeps a time axis of length 1.

    Three-dimensional convolutions in half precision are slow on GPUs, or need much memory.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.weight = nn.Parameter(self.weight.detach().unsqueeze(2))

    def forward(self, frames: Tensor) -> Tensor:
        return self._conv_forward(frames, self.weight.squeeze(2), self.bias)


class Mlp(nn.Module):
    """Two linear layers with a GELU between them, exact (erf) or approximated by "tanh"."""

    def __init__(
        self, dim: int, *, hidden_dim: int, approximate: Literal["none", "tanh"] = "none"
    ) -> None:
        super().__init__()
        self.approximate = approximate
        self.fc1 = Linear(dim, hidden_dim)
        self.fc2 = Linear(hidden_dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., C) to (..., C)."""
        return self.fc2(F.gelu(self.fc1(x), approximate=self.approximate))


class GatedMlp(nn.Module):
    """SwiGLU (arXiv 2002.05202): the SiLU of one linear layer times another, then a third.

    With `inner_norm`, a LayerNorm stands before the last layer (EVA-02, arXiv 2303.11331).
    """

    def __init__(
        self, dim: int, *, hidden_dim: int, inner_norm: bool = False, bias: bool = True
    ) -> None:
        super().__init__()
        self.w1 = Linear(dim, hidden_dim, bias=bias)
        self.w2 = Linear(dim, hidden_dim, bias=bias)
        self.ffn_ln = nn.LayerNorm(hidden_dim, eps=LAYER_NORM_EPS) if inner_norm else nn.Identity()
        self.w3 = Linear(hidden_dim, dim, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., C) to (..., C)."""
        return self.w3(self.ffn_ln(F.silu(self.w1(x)) * self.w2(x)))


MLPS: dict[str, Callable[..., nn.Module]] = {
    "gelu": Mlp,
    "gelu_tanh": partial(Mlp, approximate="tanh"),
    "swiglu": GatedMlp,
    "swiglu_norm": partial(GatedMlp, inner_norm=True),
    "swiglu_no_bias": partial(GatedMlp, bias=False),
}


class ChannelLayerNorm(nn.Module):
    """LayerNorm over the channels of a map (B, C, H, W), as ViTDet's pyramid uses it."""

    def __init__(self, num_channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(num_channels))
        self.bias = nn.Parameter(torch.zeros(num_channels))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (B, C, H, W) over C."""
        x = x.permute(0, 2, 3, 1)  # (B, H, W, C)
        x = F.layer_norm(x, self.weight.shape, self.weight, self.bias, LAYER_NORM_EPS)
        return x.permute(0, 3, 1, 2)  # (B, C, H, W)


def take_tokens(x: Tensor, positions: Tensor) -> Tensor:
    """Pick the tokens at positions (B, M) int64 of (B, N, C): (B, M, C)."""
    first = torch.arange(x.shape[0], device=x.device)[:, None] * x.shape[1]  # (B, 1)
    rows = x.flatten(0, 1).index_select(0, (first + positions).flatten())  # (B * M, C)
    return rows.unflatten(0, positions.shape)


class StochasticDepth(nn.Module):
    """Residual addition that computes its branch only for the samples that are kept.

    Same distribution as per-sample drop path (each sample is kept independently with
    probability 1 - rate, a kept branch is scaled by 1 / (1 - rate)), but a dropped sample costs
    nothing, unless all of a batch are dropped. Idea: DINOv2's batch-subset stochastic depth, there
    with a fixed subset size.

    The random choice is drawn from the CPU generator, so that no GPU synchronisation is needed.
    `torch.compile` makes a graph of fixed shapes, which computes all branches and drops the same.

    Args:
        rate: Probability of dropping a sample's branch, in [0, 1).
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        if not 0.0 <= rate < 1.0:
            raise ValueError(f"drop path rate must be in [0, 1), got {rate}")
        self.rate = rate

    def forward(
        self,
        x: Tensor,
        branch: Callable[..., Tensor],
        context: Sequence[Tensor] = (),
    ) -> Tensor:
        """Return `x + branch(x, *context)`, or its stochastic version in training.

        Args:
            x: (B, ...).
            branch: Maps (k, ...) to (k, ...) for any subset of k samples.
            context: Further tensors of B samples that the branch takes, cut to the same subset.

        Returns:
            (B, ...), the dtype of `x`.
        """
        if not self.training or self.rate == 0.0:
            return x + branch(x, *context)
        keep = 1.0 - self.rate
        is_selected = torch.rand(x.shape[0], device="cpu") < keep
        if torch.compiler.is_compiling():
            factor = (is_selected.to(x.device) / keep).view(-1, *[1] * (x.ndim - 1))
            return x + (branch(x, *context) * factor).to(x.dtype)
        indices = is_selected.nonzero().squeeze(1)
        scale = 1.0 / keep
        if len(indices) == 0:
            # one sample, times zero: gradients of zero arrive in the order of other processes',
            # by which ZeRO-2 lays them out, and none is None
            indices, scale = torch.zeros(1, dtype=torch.int64), 0.0
        elif len(indices) == x.shape[0]:
            return x + branch(x, *context) / keep
        indices = indices.to(x.device, non_blocking=True)
        update = branch(*(tensor.index_select(0, indices) for tensor in (x, *context)))
        return x.index_add(0, indices, update.to(x.dtype), alpha=scale)


def window_partition(x: Tensor, window_size: int) -> tuple[Tensor, tuple[int, int]]:
    """Cut a map into windows, padding with zeros at the bottom and right where needed.

    As in ViTDet, padded positions take part in the attention of their window.

    Args:
        x: (B, H, W, C).
        window_size: Side w of a window in patches.

    Returns:
        Windows (B * n, w, w, C) and the padded size (H', W') in patches.
    """
    batch, height, width, channels = x.shape
    pad_h = -height % window_size
    pad_w = -width % window_size
    if is_traced() or pad_h or pad_w:  # a trace holds for other sizes too
        x = F.pad(x, (0, 0, 0, pad_w, 0, pad_h))
    rows, columns = (height + pad_h) // window_size, (width + pad_w) // window_size
    x = x.view(batch, rows, window_size, columns, window_size, channels)
    x = x.transpose(2, 3)  # (B, rows, columns, w, w, C)
    windows = x.reshape(-1, window_size, window_size, channels)  # (B * n, w, w, C)
    return windows, (height + pad_h, width + pad_w)


def window_unpartition(
    windows: Tensor, window_size: int, padded: tuple[int, int], size: tuple[int, int]
) -> Tensor:
    """Undo `window_partition`, given the padded size that it returned: (B, H, W, C)."""
    rows, columns = padded[0] // window_size, padded[1] // window_size
    channels = windows.shape[-1]
    x = windows.view(-1, rows, columns, window_size, window_size, channels)
    x = x.transpose(2, 3)  # (B, rows, w, columns, w, C)
    x = x.reshape(-1, padded[0], padded[1], channels)  # (B, H', W', C)
    return x[:, : size[0], : size[1]]


@contextlib.contextmanager
def no_init_weights(when: bool = True) -> Iterator[None]:
    """Leave out the random initialisation of each `VisionTransformer` that is built inside.

    EVA-g draws a billion random numbers, which a checkpoint then replaces. Loading one
    (`load_pretrained`, or `load_state_dict` of the ViT or of a model around it) initialises the
    parameters of the ViT that it lacks as usual; `init_weights()` after the context initialises
    all. Until then a forward pass raises `RuntimeError`. Heads, pyramids, adapters and buffers are
    what they always are, but draw other random numbers, as the ViT's come first.

        with no_init_weights():
            model = instantiate(cfg.model)  # the ViT's parameters are allocated, not drawn
        load_pretrained(model, "eva_psz14to16.pt")

    Args:
        when: Whether it does so, such as whether there is a checkpoint.
    """
    token = _deferred.set(when or _deferred.get())
    try:
        yield
    finally:
        _deferred.reset(token)


def init_is_deferred() -> bool:
    """Return whether `no_init_weights` holds."""
    return _deferred.get()


def init_head(head: nn.Linear) -> None:
    """Initialise the head of a classifier as officially; does nothing on the meta device."""
    if not head.weight.is_meta:
        nn.init.trunc_normal_(head.weight, std=0.02)
        nn.init.zeros_(head.bias)
        head.weight.data.mul_(HEAD_SCALE)
