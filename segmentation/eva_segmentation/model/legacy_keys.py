"""Names of the head's weights in the official files (mmsegmentation 0.x) and in mmsegmentation 1.x.

The old attention modules are numbered, and the decoder's cross attention comes first. Taking 0 for
self attention would load without any error, because the shapes are equal.
"""

import re

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
