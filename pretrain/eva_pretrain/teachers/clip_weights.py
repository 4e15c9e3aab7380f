"""Build the vision tower of an open_clip model, with weights from the hub or from a file.

OpenAI publishes its models as TorchScript archives, which hold code; only their tensors are read,
see `eva_backbone.checkpoints.torchscript`. An archive whose SHA-256 was not published is mentioned,
because it is assumed to be trained with quick-GELU. All other files are read with
`weights_only=True` or as safetensors.
"""

import contextlib
import difflib
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import open_clip
from open_clip.model import resize_pos_embed
from torch import Tensor, nn

from eva_backbone.checkpoints.hub import obedient
from eva_backbone.checkpoints.loading import read_weights
from eva_backbone.checkpoints.registry import resolve_source
from eva_backbone.checkpoints.torchscript import is_torchscript, read_torchscript
from eva_backbone.checkpoints.verification import sha256_of

logger = logging.getLogger(__name__)

SCHEMAS = ("hf-hub:", "local-dir:")  # names that bring their weights with them
PRECISIONS = ("fp32", "fp16", "bf16")


def build_vision_tower(
    model_name: str,
    pretrained: str | None = None,
    *,
    image_size: int | None = None,
    quick_gelu: bool | None = None,
    precision: str = "fp32",
) -> Any:
    """Build an open_clip model and keep its vision tower; the text tower is freed.

    Args:
        model_name: Name in open_clip, also `hf-hub:...` and `local-dir:...`.
        pretrained: Tag of open_clip, a file, or the name of an official EVA-CLIP file; None for
            random weights, or for those that a hub or folder name brings along.
        image_size: Side of the images; position embeddings are resized as open_clip does.
        quick_gelu: Whether the MLPs use quick-GELU; None for what the weights were trained with.
        precision: Precision of the weights, as open_clip defines it: "fp32", "fp16" or "bf16".

    Returns:
        The tower, on the CPU.

    Raises:
        ValueError: For an unknown name or tag, weights that do not fit, or a wrong activation.
        FileNotFoundError: If a file is not there.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}, got {precision!r}")
    schema = model_name.startswith(SCHEMAS)
    if schema and pretrained:
        raise ValueError(f"{model_name} brings its weights with it: leave out {pretrained!r}")
    name = model_name if schema else model_name.replace("/", "-")
    config = _config(name)
    tag, file = _find_weights(name, pretrained)
    archive = file is not None and is_torchscript(file)
    quick_gelu = _activation(quick_gelu, config=config, name=name, tag=tag, file=file)
    is_timm = "timm_model_name" in config["vision_cfg"]
    with _allowed_to_download(f"{model_name} {tag or ''}".strip()):
        model = open_clip.create_model(
            name,
            pretrained=tag,
            precision=precision,
            force_quick_gelu=quick_gelu,
            # a file's position embeddings have to meet the size that they were trained with
            force_image_size=None if is_timm and file else image_size,
            pretrained_text=False,
            require_pretrained=schema or tag is not None,
        )
    tower: Any = model.visual
    if file is not None:
        state = _read_torchscript(file) if archive else read_weights(file)
        _load(model, state, what=f"{file.name} into {model_name}")
        if is_timm and image_size is not None:
            tower.set_input_size(image_size)
    return tower


def _config(name: str) -> dict[str, Any]:
    config: dict[str, Any] | None = open_clip.get_model_config(name)
    if config is None:
        raise ValueError(
            f"open_clip has no model {name!r}. {_closest(name, open_clip.list_models())}"
            "open_clip.list_models() has them all"
        )
    return config


def _closest(name: str, known: list[str]) -> str:
    by_lower = {entry.lower(): entry for entry in known}
    close = difflib.get_close_matches(name.lower(), by_lower, n=3, cutoff=0.5)
    return f"Close matches: {', '.join(by_lower[entry] for entry in close)}. " if close else ""


@contextlib.contextmanager
def _allowed_to_download(what: str) -> Iterator[None]:
    """Let open_clip download, unless that is switched off."""
    with obedient() as reason:
        try:
            yield
        except (FileNotFoundError, RuntimeError) as error:
            if "ailed to download" not in str(error):
                raise
            raise FileNotFoundError(
                f"open_clip's weights {what} are not on this machine, and "
                f"{reason or 'the hub cannot be reached'}: start once with downloads, or give a "
                "file as teacher.weights"
            ) from error


def _find_weights(name: str, pretrained: str | None) -> tuple[str | None, Path | None]:
    """Find tag or file; one of them, or none for random weights."""
    if pretrained is None:
        return None, None
    tags = open_clip.list_pretrained_tags_by_model(name)
    if pretrained in tags:
        return pretrained, None
    try:
        return None, resolve_source(pretrained)
    except ValueError as error:
        known = ", ".join(tags) or "none, so give a file"
        raise ValueError(
            f"{pretrained!r} is neither a file nor a tag of {name}. {_closest(pretrained, tags)}"
            f"Tags are {known}"
        ) from error


def _activation(
    asked: bool | None, *, config: dict[str, Any], name: str, tag: str | None, file: Path | None
) -> bool:
    """Decide whether to force quick-GELU; refuse what the weights were not trained with."""
    if "timm_model_name" in config["vision_cfg"]:
        if asked:
            raise ValueError(f"{name} is a timm model: quick_gelu=True would have no effect")
        return False
    configured = bool(config.get("quick_gelu", False))
    if tag is not None:
        trained = bool(open_clip.get_pretrained_cfg(name, tag).get("quick_gelu", False))
    elif file is not None and is_torchscript(file):
        trained = True  # only OpenAI published such files
    elif asked is not None:
        trained = asked
    elif file is not None and not configured and f"{name}-quickgelu" in open_clip.list_models():
        raise ValueError(
            f"{file.name} does not say whether it was trained with quick-GELU: give "
            "quick_gelu=True (OpenAI, MetaCLIP, DFN) or quick_gelu=False (LAION, DataComp)"
        )
    else:
        trained = configured
    if asked is not None and asked != trained:
        source = tag or (file.name if file else "")
        raise ValueError(
            f"quick_gelu={asked}, but {source!r} of {name} was trained "
            f"{'with' if trained else 'without'} quick-GELU: leave quick_gelu out"
        )
    if configured and not trained:
        raise ValueError(
            f"{name} stands for quick-GELU, which {tag or 'quick_gelu=False'} contradicts: "
            f"name {name.removesuffix('-quickgelu')!r}"
        )
    return trained


def _read_torchscript(file: Path) -> dict[str, Tensor]:
    """Read the tensors of OpenAI's archives."""
    digest = sha256_of(file)
    urls = [
        open_clip.get_pretrained_url(model, "openai") for model in open_clip.list_openai_models()
    ]
    if not any(digest in url for url in urls):
        logger.warning(
            "%s is not one of the files that OpenAI published (SHA-256 %s)", file, digest
        )
    return read_torchscript(file)


def _load(model: nn.Module, state: Mapping[str, Tensor], *, what: str) -> None:
    """Load the vision tower's part of a state dict, all of it or nothing."""
    tower: Any = model.visual
    target = tower
    if "visual.pos_embed" in state and hasattr(tower, "trunk"):  # the official EVA-CLIP files
        from timm.models.eva import checkpoint_filter_fn

        target = tower.trunk
        values = checkpoint_filter_fn(state, target)
    else:
        state = dict(state)
        resize_pos_embed(state, model)  # leaves timm's towers alone
        prefix = "visual."
        values = {key[len(prefix) :]: state[key] for key in state if key.startswith(prefix)}
    wanted = target.state_dict()
    missing = [key for key in wanted if key not in values]
    unknown = [key for key in values if key not in wanted]
    shapes = [
        f"{key} is {tuple(values[key].shape)}, not {tuple(value.shape)}"
        for key, value in wanted.items()
        if key in values and values[key].shape != value.shape
    ]
    problems = [f"{len(missing)} missing ({missing[0]}, ...)"] if missing else []
    problems += [f"{len(unknown)} unknown ({unknown[0]}, ...)"] if unknown else []
    problems += [f"{len(shapes)} of another shape ({shapes[0]}, ...)"] if shapes else []
    if problems:
        raise ValueError(
            f"cannot load {what}: of the vision tower's tensors {', '.join(problems)}; "
            "name the model that the file was made with"
        )
    target.load_state_dict(values)
