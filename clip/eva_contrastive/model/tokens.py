"""Texts to tokens, by open_clip's tokenizer (OpenAI's byte-pair encoding of 49,408 words).

Shapes: B texts, L tokens.
"""

from collections.abc import Sequence
from functools import cache
from typing import Any

from open_clip.tokenizer import SimpleTokenizer
from torch import Tensor


@cache
def _tokenizer() -> Any:
    return SimpleTokenizer()


def tokenize(texts: str | Sequence[str], context_length: int = 77) -> Tensor:
    """Turn texts into tokens; a longer text is cut, and keeps its end token.

    Args:
        texts: B texts.
        context_length: L.

    Returns:
        (B, L) int64.
    """
    tokens: Tensor = _tokenizer()(
        [texts] if isinstance(texts, str) else list(texts), context_length
    )
    return tokens


def count_tokens(text: str) -> int:
    """Count the tokens of a text, with those of its start and end."""
    return len(_tokenizer().encode(text)) + 2
