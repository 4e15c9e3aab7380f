"""Frozen networks whose patch features are predicted: CLIP's vision tower, a ViT, a CNN; pixels.

EVA's targets (https://arxiv.org/abs/2211.07636, section 2.2) are the last features of CLIP's vision
tower: its final norm on every patch token, then the projection into the space of texts. The class
token is dropped and nothing is normalised to unit length, which a cosine loss would not notice.

B batch, N = H x W patches, C width of the tower, D dimension of its projection.
"""

from typing import Any

import torch
import torch.nn.functional as F
from timm import create_model
from timm.models import load_checkpoint
from torch import Tensor, nn

from eva_backbone.checkpoints.from_weights import describe, load_pooled
from eva_backbone.checkpoints.reading import Weights
from eva_backbone.checkpoints.registry import resolve_source
from eva_backbone.variants import CLIP_MEAN, CLIP_STD, variant_arguments
from eva_engine.features import pixel_statistics
from eva_pretrain.config import TeacherConfig
from eva_pretrain.open_clip_tower import allowed_to_download, build_vision_tower, tower_of
from eva_runs.precision import DTYPES, resolve


class Teacher(nn.Module):
    """A frozen network that gives features (B, N, D) of all patches of images.

    It computes without gradients, and takes images in float32 whatever its own precision is.

    Attributes:
        mean: Mean of the images that it takes, in red, green and blue.
        std: Standard deviation of those images.
        image_size: Height and width of those images in pixels.
        grid: Patches down and across; the student's has to be the same.
        dim: D, the channels of its features.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    image_size: tuple[int, int]
    grid: tuple[int, int]
    dim: int


def build_teacher(config: TeacherConfig, device: torch.device, *, patches: int = 0) -> Teacher:
    """Build the frozen teacher of a recipe on a device, for a student of so many patches a side.

    Raises:
        ValueError: For an unknown model, unfit weights, or fp16 without a GPU.
        FileNotFoundError: If weights are not there.
    """
    if config.precision == "fp16" and device.type == "cpu":
        raise ValueError("teacher.precision=fp16 needs a GPU; on a CPU use fp32")
    precision = resolve(config.precision, device)
    if config.library == "eva":
        sizes = {"image_size": config.image_size, "patches": patches}
        plain = BackboneTeacher(config.model, weights=config.weights, **sizes)
        return plain.to(device, DTYPES[precision])
    if config.library == "timm":
        sizes = {"image_size": config.image_size, "stride": config.stride}
        network = TimmTeacher(config.model, weights=config.weights, **sizes)
        return network.to(device, DTYPES[precision])
    if config.library == "pixels":
        return PixelTeacher(config.image_size, side=patches)
    return ClipTeacher.from_open_clip(
        config.model,
        config.weights or None,
        image_size=config.image_size or None,
        precision=precision,
        device=device,
    )


class BackboneTeacher(Teacher):
    """Frozen ViT that returns its patch tokens, after the final norm if it has one.

    Args:
        variant: A key of `eva_backbone.VARIANTS`; empty for the size that the weights have.
        weights: Official name, bundled name, file or run, of any task.
        image_size: Side of its images in pixels; 0 for one of so many `patches`.

    Raises:
        ValueError: For an unknown variant, or weights that do not fit.
    """

    def __init__(
        self, variant: str, *, weights: str, image_size: int = 0, patches: int = 0
    ) -> None:
        super().__init__()
        content = Weights.read(weights)
        image_size = image_size or patches * describe(content).arguments["patch_size"]
        settings = variant_arguments(variant) | {"img_size": image_size} if variant else {}
        self.vit, trunk = load_pooled(content, image_size=image_size, **settings)
        self.mean, self.std = pixel_statistics(weights, trunk).values()
        self.image_size = (image_size, image_size)
        self.grid = (image_size // trunk.arguments["patch_size"],) * 2
        self.dim = trunk.arguments["embed_dim"]
        self.eval()

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Compute the features (B, N, D) of images (B, 3, H, W), normalised by `mean` and `std`."""
        return self.vit.patch_tokens(self.vit.encode(images)[0])


class TimmTeacher(Teacher):
    """A feature map of a network of timm.

    Args:
        model: Name in timm.
        weights: File in timm's format; empty for timm's own, which it downloads.
        image_size: Side of its images in pixels.
        stride: Pixels from cell to cell of the map; 0 for the deepest.

    Raises:
        ValueError: If there is no such map.
    """

    def __init__(self, model: str, *, weights: str, image_size: int, stride: int) -> None:
        super().__init__()
        with allowed_to_download(f"timm's weights {model}"):
            network: Any = create_model(model, pretrained=not weights)
        if weights:
            load_checkpoint(network, str(resolve_source(weights)), weights_only=True)
        maps = network.feature_info
        strides = [level["reduction"] for level in maps]
        stride = stride or strides[-1]
        if stride not in strides or image_size % stride:
            raise ValueError(
                f"teacher.stride={stride} at {image_size} px: the maps of {model} have strides "
                f"{sorted(set(strides))}, one of which must divide teacher.image_size"
            )
        config, side = network.pretrained_cfg, image_size // stride
        # the faster order of a convolution's numbers, on CPUs as on GPUs
        self.network = network.requires_grad_(False).to(memory_format=torch.channels_last)
        self.mean, self.std = tuple(config["mean"]), tuple(config["std"])
        self.level = max(n for n, reduction in enumerate(strides) if reduction == stride)
        self.dim = maps[self.level]["num_chs"]
        self.image_size, self.grid = (image_size, image_size), (side, side)
        self.eval()

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Compute the features (B, N, D) of images (B, 3, H, W), normalised by `mean` and `std`."""
        images = images.to(next(self.network.parameters()).dtype)
        only = {"intermediates_only": True, "stop_early": True}
        maps = self.network.forward_intermediates(images, [self.level], **only)
        return maps[0].flatten(2).transpose(1, 2)  # (B, D, h, w) -> (B, N, D)


class PixelTeacher(Teacher):
    """The pixels of each patch, of mean 0 and variance 1 (MAE, arXiv:2111.06377, section 4.1).

    Args:
        image_size: Side of the student's images in pixels.
        side: Patches down and across.

    Raises:
        ValueError: If patches do not divide the images.
    """

    mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)

    def __init__(self, image_size: int, *, side: int) -> None:
        super().__init__()
        if image_size % side:
            message = f"teacher.image_size={image_size} is not that of the student: {side} patches"
            raise ValueError(f"{message} do not divide it")
        self.image_size, self.grid = (image_size, image_size), (side, side)
        self.patch = image_size // side
        self.dim = 3 * self.patch**2

    def forward(self, images: Tensor) -> Tensor:
        """Cut images (B, 3, H, W) of 0 to 1 into normalised patches (B, N, 3 * p * p)."""
        pixels = F.unfold(images.float(), self.patch, stride=self.patch).transpose(1, 2)
        return F.layer_norm(pixels, pixels.shape[-1:], eps=1e-6)


class ClipTeacher(Teacher):
    """Frozen vision tower of open_clip that gives a target for every patch.

    Under `torch.autocast` it follows the caller; otherwise it computes in the type of its weights.

    Args:
        visual: Vision tower of an open_clip model: its own ViT, or a ViT or EVA of timm.

    Raises:
        ValueError: If the tower has no patch tokens that its projection fits.
    """

    def __init__(self, visual: nn.Module) -> None:
        super().__init__()
        self.visual: Any = visual.eval().requires_grad_(False)
        self._tower = tower_of(visual)
        self.mean = tuple(getattr(visual, "image_mean", None) or CLIP_MEAN)
        self.std = tuple(getattr(visual, "image_std", None) or CLIP_STD)
        self.image_size, self.grid = self._tower.image_size, self._tower.grid
        with torch.no_grad():
            weight = self._tower.patches.weight
            self.dim = self._tower.project(weight.new_zeros(1, len(weight))).shape[-1]
        self.eval()

    @classmethod
    def from_open_clip(
        cls,
        model_name: str,
        pretrained: str | None = None,
        *,
        image_size: int | None = None,
        precision: str = "fp32",
        device: torch.device | None = None,
    ) -> "ClipTeacher":
        """Build a teacher by open_clip's names, and check its tokens on its device.

        The paper's is `("ViT-L-14", "openai")`; EVA-L's is `("EVA01-g-14", "eva_clip_psz14.pt")`.
        See `build_vision_tower` for the arguments and errors.
        """
        teacher = cls(build_vision_tower(model_name, pretrained, image_size, precision))
        teacher.to(device)  # before the check: half precision is slow on a CPU
        teacher.check()
        return teacher

    def forward(self, images: Tensor) -> Tensor:
        """Compute the features of all patches.

        Args:
            images: (B, 3, height, width) of `image_size`, normalised by `mean` and `std`.

        Returns:
            (B, N, D), row by row; ordinary tensors, which a loss may save for its backward pass.
        """
        with torch.inference_mode():
            tokens = self._tower.project(self._hidden(images)[1])
        # Autograd refuses to save inference tensors; a copy made out here is an ordinary tensor.
        return tokens.clone()

    def pooled(self, images: Tensor) -> Tensor:
        """Compute CLIP's embeddings of images, (B, D), from the same tensors as the targets."""
        with torch.inference_mode():
            pooled = self._tower.pool(*self._hidden(images))
        return pooled.clone()

    def check(self) -> None:
        """Compare `pooled` with open_clip's own output on noise.

        Raises:
            RuntimeError: If they differ: this release of open_clip or timm computes something else,
                and the targets would be wrong.
        """
        noise = torch.randn(1, 3, *self.image_size, generator=torch.Generator().manual_seed(0))
        noise = noise.to(self._tower.patches.weight)
        with torch.inference_mode():
            expected = self.visual(noise).float()
        error = float((self.pooled(noise).float() - expected).abs().max() / expected.abs().max())
        if not error <= (1e-3 if noise.dtype == torch.float32 else 5e-2):
            raise RuntimeError(
                f"the pooled output of {type(self.visual).__name__} and that of the teacher's own "
                f"tensors differ by {error:.2g} of the largest value: use the versions of "
                "open_clip and timm in constraints.txt"
            )

    def _hidden(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Compute prefix tokens (B, 1, C) and the patch tokens (B, N, C) that `project` takes."""
        outputs = self.visual.forward_intermediates(
            images.to(self._tower.patches.weight.dtype),
            indices=1,  # the last block
            normalize_intermediates=self._tower.norm_before_pool,
            intermediates_only=True,
            output_fmt="NLC",
            output_extra_tokens=self._tower.has_prefix,
        )
        patches = outputs["image_intermediates"][-1]
        prefix = outputs.get("image_intermediates_prefix", [patches[:, :0]])[-1]
        return prefix, patches
