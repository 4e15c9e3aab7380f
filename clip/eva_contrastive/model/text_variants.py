"""The sizes of the text tower as a table of integers."""

from dataclasses import dataclass


@dataclass(frozen=True)
class TextVariant:
    """Shape of a text tower: width, depth, heads, tokens of a text, words of the vocabulary."""

    width: int
    depth: int
    num_heads: int
    context_length: int = 77
    vocab_size: int = 49408


TEXT_VARIANTS: dict[str, TextVariant] = {
    #                         width depth heads
    "clip_l": TextVariant(768, 12, 12),  # OpenAI CLIP-L, of EVA-CLIP-g
    "openclip_h": TextVariant(1024, 24, 16),  # of EVA-CLIP-g-plus
    "debug": TextVariant(64, 2, 1, context_length=32),
}
