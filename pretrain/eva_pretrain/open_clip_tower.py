"""The vision tower of a CLIP by open_clip's names, and how it goes from its last block to features.

OpenAI publishes its models as TorchScript archives, of which only the tensors are read; an archive
is assumed to be trained with quick-GELU.
"""

import contextlib
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import open_clip
import torch
from open_clip.model import resize_pos_embed
from timm.models.eva import checkpoint_filter_fn
from torch import Tensor, nn

from eva_backbone.checkpoints.hub import respect_offline_mode
from eva_backbone.checkpoints.reading import read_weights
from eva_backbone.checkpoints.registry import resolve_source
from eva_backbone.checkpoints.torchscript import is_torchscript, read_torchscript

logger = logging.getLogger(__name__)

_SCHEMAS = ("hf-hub:", "local-dir:")  # names that bring their weights with them


class OpenClipTower:
    """open_clip's own ViT: `ln_post`, pooling, `proj`; some models pool before `ln_post`."""

    def __init__(self, visual: Any) -> None:
        self.visual, self.patches = visual, visual.conv1
        self.image_size: tuple[int, int] = tuple(visual.image_size)
        self.grid: tuple[int, int] = tuple(visual.grid_size)
        self.has_prefix = True
        self.norm_before_pool: bool = not visual.final_ln_after_pool

    def project(self, tokens: Tensor) -> Tensor:
        """Map tokens (..., C) of the last block to features (..., D)."""
        if not self.norm_before_pool:
            tokens = self.visual.ln_post(tokens)
        return tokens if self.visual.proj is None else tokens @ self.visual.proj

    def pool(self, prefix: Tensor, patches: Tensor) -> Tensor:
        """Pool prefix tokens (B, P, C) and patch tokens (B, N, C) to embeddings (B, D)."""
        token = patches.mean(1) if self.visual.pool_type == "avg" else prefix[:, 0]
        return self.project(token)


class TimmTower:
    """A ViT or EVA of timm: `norm`, pooling, `fc_norm` and `head`, then open_clip's `head`."""

    norm_before_pool = True

    def __init__(self, visual: Any) -> None:
        self.trunk, self.head = visual.trunk, visual.head
        self.patches = self.trunk.patch_embed.proj
        self.image_size: tuple[int, int] = tuple(self.trunk.patch_embed.img_size)
        self.grid: tuple[int, int] = tuple(self.trunk.patch_embed.grid_size)
        self.has_prefix = bool(self.trunk.num_prefix_tokens)

    def project(self, tokens: Tensor) -> Tensor:
        """Map tokens (..., C) of the last block to features (..., D)."""
        trunk = self.trunk
        if trunk.global_pool == "map":  # what follows attention pooling fits no single patch
            return tokens
        projected: Tensor = self.head(trunk.head(trunk.head_drop(trunk.fc_norm(tokens))))
        return projected

    def pool(self, prefix: Tensor, patches: Tensor) -> Tensor:
        """Pool prefix tokens (B, P, C) and patch tokens (B, N, C) to embeddings (B, D)."""
        pooled: Tensor = self.head(self.trunk.forward_head(torch.cat([prefix, patches], 1)))
        return pooled


def tower_of(visual: Any) -> OpenClipTower | TimmTower:
    """Find out how the tower goes from its last block to its output."""
    trunk = getattr(visual, "trunk", None)
    needed = ("patch_embed", "blocks", "num_prefix_tokens", "fc_norm", "head")
    if getattr(trunk, "global_pool", None) in ("token", "avg", "map"):
        if all(hasattr(trunk, name) for name in needed):
            return TimmTower(visual)
    elif getattr(visual, "pool_type", "") in ("tok", "avg") and visual.attn_pool is None:
        return OpenClipTower(visual)
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
