"""The vision tower of an open_clip model, with weights from the hub or from a file.

OpenAI publishes its models as TorchScript archives, which hold code; only their tensors are read,
see `eva_backbone.checkpoints.torchscript`. An archive whose SHA-256 was not published is mentioned,
because it is assumed to be trained with quick-GELU. All other files are read with
`weights_only=True` or as safetensors.
"""

import contextlib
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import open_clip
from open_clip.model import resize_pos_embed
from timm.models.eva import checkpoint_filter_fn
from torch import Tensor, nn

from eva_backbone.checkpoints.hub import respect_offline_mode
from eva_backbone.checkpoints.reading import read_weights
from eva_backbone.checkpoints.registry import resolve_source
from eva_backbone.checkpoints.torchscript import is_torchscript, read_torchscript
from eva_backbone.checkpoints.verification import sha256_of

logger = logging.getLogger(__name__)

_SCHEMAS = ("hf-hub:", "local-dir:")  # names that bring their weights with them


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
        state = _read_torchscript(file) if is_torchscript(file) else read_weights(file)
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


def _read_torchscript(file: Path) -> dict[str, Tensor]:
    """Read the tensors of OpenAI's archives."""
    digest = sha256_of(file)
    urls = [open_clip.get_pretrained_url(name, "openai") for name in open_clip.list_openai_models()]
    if not any(digest in url for url in urls):
        logger.warning("%s is none of the files that OpenAI published (SHA-256 %s)", file, digest)
    return read_torchscript(file)


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
