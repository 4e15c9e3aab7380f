"""Texts to tokens: open_clip's, whatever the length of the text, in bounded time and memory."""

import random
import string

import pytest
import torch
from open_clip.tokenizer import SimpleTokenizer

from eva_contrastive.model.eva_clip import count_tokens, tokenize

LETTERS = "".join(random.Random(0).choices(string.ascii_lowercase, k=100_000))


@pytest.fixture(scope="module")
def peer():
    return SimpleTokenizer()


@pytest.mark.parametrize("text", [
    "a dog", "", " \n\t ", "a &amp; b", "\u72d7\u5728\u8349\u5730\u4e0a" * 2000,
    "= - = " * 9000, f"{' ' * 50_000} a dog", "&lt;b&gt; bold " * 3000,
])  # fmt: skip
def test_the_tokens_of_open_clip(peer, text):
    for length in (77, 16, 2):
        assert torch.equal(tokenize(text, length), peer([text], length))


def test_a_word_of_many_letters():
    """Byte pairs are joined in a time that grows with the square of a word's length."""
    found = tokenize([LETTERS, f"a dog {LETTERS}"])
    assert (found[:, -1] == 49407).all()
    assert torch.equal(found[1, :3], tokenize("a dog")[0, :3])
    assert torch.equal(found[0, :60], tokenize(LETTERS[:2000])[0, :60])
    assert count_tokens(LETTERS) > 77
