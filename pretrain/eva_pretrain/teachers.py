"""Frozen networks whose patch features are predicted: CLIP's vision tower, a ViT, a CNN; pixels.

EVA's targets (https://arxiv.org/abs/2211.07636, section 2.2) are the last features of CLIP's vision
tower: its final norm on every patch token, then the projection into the space of texts. The class
token is dropped and nothing is normalised to unit length, which a cosine loss would not notice.

OpenAI publishes its models as TorchScript archives, of which only the tensors are read; an archive
is assumed to be trained with quick-GELU.

B batch, N = H x W patches, C width of the tower, D dimension of its projection.
"""

import contextlib
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import open_clip
import torch
import torch.nn.functional as F
from open_clip.model import resize_pos_embed
from timm import create_model
from timm.models import load_checkpoint
from timm.models.eva import checkpoint_filter_fn
from torch import Tensor, nn

from eva_backbone.checkpoints.from_weights import describe, load_pooled
from eva_backbone.checkpoints.hub import respect_offline_mode
from eva_backbone.checkpoints.reading import Weights, read_weights
from eva_backbone.checkpoints.registry import resolve_source
from eva_backbone.checkpoints.torchscript import is_torchscript, read_torchscript
from eva_backbone.variants import CLIP_MEAN, CLIP_STD, variant_arguments
from eva_engine.features import pixel_statistics
from eva_pretrain.config import TeacherConfig
from eva_runs.precision import DTYPES, resolve

logger = logging.getLogger(__name__)

_SCHEMAS = ("hf-hub:", "local-dir:")  # names that bring their weights with them


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
        self._tower = _tower_of(visual)
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


class _OpenClipTower:
    """open_clip's own ViT: `ln_post`, pooling, `proj`; some models pool before `ln_post`."""

    def __init__(self, visual: Any) -> None:
        self.visual, self.patches = visual, visual.conv1
        self.image_size: tuple[int, int] = tuple(visual.image_size)
        self.grid: tuple[int, int] = tuple(visual.grid_size)
        self.has_prefix = True
        self.norm_before_pool: bool = not visual.final_ln_after_pool

    def project(self, tokens: Tensor) -> Tensor:
        if not self.norm_before_pool:
            tokens = self.visual.ln_post(tokens)
        return tokens if self.visual.proj is None else tokens @ self.visual.proj

    def pool(self, prefix: Tensor, patches: Tensor) -> Tensor:
        token = patches.mean(1) if self.visual.pool_type == "avg" else prefix[:, 0]
        return self.project(token)


class _TimmTower:
    """A ViT or EVA of timm: `norm`, pooling, `fc_norm` and `head`, then open_clip's `head`."""

    norm_before_pool = True

    def __init__(self, visual: Any) -> None:
        self.trunk, self.head = visual.trunk, visual.head
        self.patches = self.trunk.patch_embed.proj
        self.image_size: tuple[int, int] = tuple(self.trunk.patch_embed.img_size)
        self.grid: tuple[int, int] = tuple(self.trunk.patch_embed.grid_size)
        self.has_prefix = bool(self.trunk.num_prefix_tokens)

    def project(self, tokens: Tensor) -> Tensor:
        trunk = self.trunk
        if trunk.global_pool == "map":  # what follows attention pooling fits no single patch
            return tokens
        projected: Tensor = self.head(trunk.head(trunk.head_drop(trunk.fc_norm(tokens))))
        return projected

    def pool(self, prefix: Tensor, patches: Tensor) -> Tensor:
        pooled: Tensor = self.head(self.trunk.forward_head(torch.cat([prefix, patches], 1)))
        return pooled


def _tower_of(visual: Any) -> _OpenClipTower | _TimmTower:
    """Find out how the tower goes from its last block to its output."""
    trunk = getattr(visual, "trunk", None)
    needed = ("patch_embed", "blocks", "num_prefix_tokens", "fc_norm", "head")
    if getattr(trunk, "global_pool", None) in ("token", "avg", "map"):
        if all(hasattr(trunk, name) for name in needed):
            return _TimmTower(visual)
    elif getattr(visual, "pool_type", "") in ("tok", "avg") and visual.attn_pool is None:
        return _OpenClipTower(visual)
    raise ValueError(
        f"{type(visual if trunk is None else trunk).__name__} is not a plain ViT that pools its "
        "tokens after its last norm: it has no projected patch tokens to learn from; choose a CLIP "
        "with a ViT, such as ViT-L-14 or EVA01-g-14"
    )


def build_vision_tower(
    model_name: str, pretrained: str | None, image_size: int | None, precision: str
) -> Any:
    """Build an open_clip model and keep its vision tower on the CPU; the text tower is freed.

    Args:
        model_name: Name in open_clip, also `hf-hub:...` and `local-dir:...`.
        pretrained: Tag, which open_clip downloads; a file (safetensors, a state dict, OpenAI's
            TorchScript), or the name of an official EVA-CLIP file; None for random weights, or for
            those that a hub or folder name brings along.
        image_size: Side of the images; position embeddings are resized as open_clip does.
        precision: Precision of the weights, as open_clip defines it: "fp32", "fp16" or "bf16".

    Raises:
        ValueError: For an unknown tag, weights that do not fit, or a wrong activation.
        RuntimeError: For a name that open_clip does not know.
        FileNotFoundError: If a file is not there.
    """
    schema = model_name.startswith(_SCHEMAS)
    name = model_name if schema else model_name.replace("/", "-")
    tag, file = _find_weights(name, pretrained)
    config = open_clip.get_model_config(name) or {"vision_cfg": {}}  # whose lack it explains
    is_timm = "timm_model_name" in config["vision_cfg"]
    # a file's position embeddings have to meet the size that they were trained with
    size = None if is_timm and file else image_size
    with allowed_to_download(f"open_clip's weights {model_name} {tag or ''}".strip()):
        model = open_clip.create_model(
            name,
            pretrained=tag,
            precision=precision,
            force_image_size=size,
            force_quick_gelu=not is_timm and _quick_gelu(config, name, tag, file),
            pretrained_text=False,
            require_pretrained=schema or tag is not None,
        )
    tower: Any = model.visual
    if file is not None:
        state = read_torchscript(file) if is_torchscript(file) else read_weights(file)
        _load(model, state, subject=f"{file.name} into {model_name}")
        if is_timm and image_size is not None:
            tower.set_input_size(image_size)
    return tower


@contextlib.contextmanager
def allowed_to_download(subject: str) -> Iterator[None]:
    """Let open_clip or timm download, unless that is switched off."""
    with respect_offline_mode() as reason:
        try:
            yield
        except (FileNotFoundError, RuntimeError) as error:
            if all(
                phrase not in str(error) for phrase in ("ailed to download", "outgoing traffic")
            ):
                raise
            raise FileNotFoundError(
                f"{subject} are not on this machine, and "
                f"{reason or 'the hub cannot be reached'}: start once with downloads, or give a "
                "file as teacher.weights"
            ) from error


def _find_weights(name: str, pretrained: str | None) -> tuple[str | None, Path | None]:
    """Find tag or file; one of them, or none for random weights."""
    tags = open_clip.list_pretrained_tags_by_model(name)
    if pretrained is None or pretrained in tags:
        return pretrained, None
    try:
        return None, resolve_source(pretrained)
    except ValueError as error:
        raise ValueError(
            f"{pretrained!r} is neither a file nor a tag of {name}, which has {tags or 'none'} "
            f"(weights are empty for {' and '.join(_SCHEMAS)}...)"
        ) from error


def _quick_gelu(config: Mapping[str, Any], name: str, tag: str | None, file: Path | None) -> bool:
    """Say whether the weights were trained with quick-GELU; of most files the name has to."""
    configured = bool(config.get("quick_gelu", False))
    if tag is not None:
        trained = bool(open_clip.get_pretrained_cfg(name, tag).get("quick_gelu", False))
    else:  # only OpenAI published TorchScript
        trained = configured or (file is not None and is_torchscript(file))
        if file and not trained and f"{name}-quickgelu" in open_clip.list_models():
            logger.warning(
                "%s does not say whether it was trained with quick-GELU: if so (OpenAI, MetaCLIP, "
                "DFN), name the model %s-quickgelu",
                file.name,
                name,
            )
    if configured and not trained:
        raise ValueError(
            f"{name} stands for quick-GELU, which {tag} contradicts: name "
            f"{name.removesuffix('-quickgelu')!r}"
        )
    return trained


def _load(model: nn.Module, state: Mapping[str, Tensor], *, subject: str) -> None:
    """Load the vision tower's part of a state dict, all of it or nothing."""
    target: Any = model.visual
    if "visual.pos_embed" in state and hasattr(target, "trunk"):  # the official EVA-CLIP files
        target = target.trunk
        values = checkpoint_filter_fn(state, target)
    else:
        state = dict(state)
        resize_pos_embed(state, model)  # leaves timm's towers alone
        prefix = "visual."
        values = {key[len(prefix) :]: state[key] for key in state if key.startswith(prefix)}
    try:
        target.load_state_dict(values)
    except RuntimeError as error:
        raise ValueError(
            f"cannot load {subject}: name the model that the file was made with ({error!s:.300})"
        ) from error
