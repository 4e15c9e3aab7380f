"""Texts to tokens, by open_clip's tokenizer (OpenAI's byte-pair encoding of 49,408 words).

Shapes: B texts, L tokens.
"""

from collections.abc import Sequence
from functools import cache
from typing import Any

from open_clip.tokenizer import SimpleTokenizer
from torch import Tensor

_LONGEST = 50  # characters of a text for each of its tokens; a word of the vocabulary has 24
_KEPT = 200_000  # words whose tokens are remembered; captions of a large data set have far more
_OF_CLIP = 77  # tokens of a text


@cache
def _tokenizer() -> Any:
    return SimpleTokenizer()


def tokenize(texts: str | Sequence[str], context_length: int = _OF_CLIP) -> Tensor:
    """Turn texts into tokens; a longer text is cut, and keeps its end token.

    Args:
        texts: B texts.
        context_length: L.

    Returns:
        (B, L) int64.
    """
    tokenizer = _tokenizer()
    _forget(tokenizer)
    several = [texts] if isinstance(texts, str) else texts
    tokens: Tensor = tokenizer([_beginning(text, context_length) for text in several],
                               context_length)  # fmt: skip
    return tokens


def count_tokens(text: str) -> int:
    """Count the tokens of a text, with those of its start and end; of a very long one its first."""
    tokenizer = _tokenizer()
    _forget(tokenizer)
    return len(tokenizer.encode(_beginning(text, _OF_CLIP))) + 2


def _beginning(text: str, length: int) -> str:
    """Cut what cannot reach the tokens; a word takes a time that grows with its square."""
    longest = _LONGEST * length
    return text if len(text) <= longest else " ".join(text.split())[:longest]


def _forget(tokenizer: Any) -> None:
    """Keep the tokenizer's memory of words from growing through all captions of a data set."""
    if len(tokenizer.cache) > _KEPT:
        tokenizer.cache = {token: token for token in map(tokenizer.decoder.get,
                                                         tokenizer.all_special_ids)}  # fmt: skip
