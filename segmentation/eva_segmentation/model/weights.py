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

_RULES = (
    (r"(pixel_decoder\.encoder\.layers\.\d+)\.attentions\.0\.", r"\1.self_attn."),
    (r"(transformer_decoder\.layers\.\d+)\.attentions\.0\.", r"\1.cross_attn."),
    (r"(transformer_decoder\.layers\.\d+)\.attentions\.1\.", r"\1.self_attn."),
    (r"((?:pixel_decoder\.encoder|transformer_decoder)\.layers\.\d+)\.ffns\.0\.", r"\1.ffn."),
)


def modern_name(name: str, prefix: str = "decode_head.") -> str:
    """Translate a name behind `prefix` to mmsegmentation 1.x; other and modern ones stay."""
    if not name.startswith(prefix):
        return name
    for old, new in _RULES:
        name = re.sub(f"^{re.escape(prefix)}{old}", prefix + new, name)
    return name


_ADAPTER = r"backbone\.(spm\.|interactions\.|up\.|norm[1-4]\.|level_embed$)"
_HEAD = r"(decode_head|auxiliary_head)\."
_CLASSIFIER = r"(decode_head|auxiliary_head)\.(\d+\.)?(cls_embed|conv_seg)\."


def load_segmentor(
    model: nn.Module, source: str | os.PathLike[str], *, complete: bool = False
) -> LoadReport:
    """Load a backbone or a complete segmentor; see `eva_openmmlab.weights.load_start`."""
    path = resolve_source(source)
    return load_weights(
        model,
        read_weights(path),
        source=path.name,
        complete=complete,
        allow_missing=() if complete else (_ADAPTER, _HEAD),
        reinitialise=() if complete else (_CLASSIFIER,),
        rename=modern_name,
    )
