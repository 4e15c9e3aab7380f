"""Weights of segmentors, official or own: loaded completely or not at all.

The head's names in the official files are those of mmsegmentation 0.x: the old attention modules
are numbered, and the decoder's cross attention comes first. Taking 0 for self attention would load
without any error, because the shapes are equal.
"""

import os
import re

from torch import nn

from eva_backbone import LoadReport
from eva_backbone.checkpoints.loading import load_weights, read_weights
from eva_backbone.checkpoints.registry import resolve_source

_RULES: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"^(pixel_decoder\.encoder\.layers\.\d+)\.attentions\.0\.", r"\1.self_attn."),
        (r"^(transformer_decoder\.layers\.\d+)\.attentions\.0\.", r"\1.cross_attn."),
        (r"^(transformer_decoder\.layers\.\d+)\.attentions\.1\.", r"\1.self_attn."),
        (
            r"^((?:pixel_decoder\.encoder|transformer_decoder)\.layers\.\d+)\.ffns\.0\.",
            r"\1.ffn.",
        ),
    )
)


def modern_name(name: str, prefix: str = "decode_head.") -> str:
    """Translate one name of a state dict.

    Args:
        name: Name in a file, of either version.
        prefix: Text in front of the head's own names.

    Returns:
        The name in mmsegmentation 1.x; names outside the head and modern ones are unchanged.
    """
    if not name.startswith(prefix):
        return name
    local = name.removeprefix(prefix)
    for pattern, replacement in _RULES:
        local, found = pattern.subn(replacement, local)
        if found:
            break
    return prefix + local


_ADAPTER = r"backbone\.(spm\.|interactions\.|up\.|norm[1-4]\.|level_embed$)"
_HEAD = r"(decode_head|auxiliary_head)\."
_CLASSIFIER = r"(decode_head|auxiliary_head)\.(\d+\.)?(cls_embed|conv_seg)\."


def load_segmentor(
    model: nn.Module, source: str | os.PathLike[str], *, complete: bool = False
) -> LoadReport:
    """Load a backbone or a complete segmentor before training or evaluation.

    Args:
        model: The segmentor, with `backbone` and `decode_head`.
        source: Name of an official or bundled file, or a path.
        complete: Refuse a file that lacks any part or has another number of classes (for
            evaluation). Otherwise a classifier of other classes starts from scratch, which the
            report says.

    Returns:
        The load report.

    Raises:
        ValueError: If the file does not fit; the model is then unchanged.
        FileNotFoundError: If there is no such file.
    """
    path = resolve_source(source)
    weights = read_weights(path)
    if complete and not any(re.match(_HEAD, name) for name in weights):
        raise ValueError(
            f"{path.name} holds a backbone and not a segmentor; name weights of a segmentor, or "
            f"train one from it with segmentation/train.py --load-from {os.fspath(source)}"
        )
    return load_weights(
        model,
        weights,
        source=path.name,
        complete=complete,
        allow_missing=() if complete else (_ADAPTER, _HEAD),
        reinitialise=() if complete else (_CLASSIFIER,),
        rename=modern_name,
    )
