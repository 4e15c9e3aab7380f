"""What a command or a setting must not say once it is written down: passwords and tokens."""

import re

_IN_ADDRESS = re.compile(r"(?<=://)[^\s/?#\"'<>]*@")
_TOKEN = re.compile(r"\bhf_[A-Za-z0-9]{20,}\b")  # of the hub


def without_secrets(text: str) -> str:
    """Take user and password out of addresses, and tokens of the hub out of everything.

    Args:
        text: A command, settings or prose.

    Returns:
        The text: `https://HOST/...` for `https://USER:TOKEN@HOST/...`, `hf_...` for a token.
    """
    return _TOKEN.sub("hf_...", _IN_ADDRESS.sub("", text))
