"""Lists of names in messages and reports."""

from collections.abc import Sequence


def listed(names: Sequence[str], shown: int = 8) -> str:
    """Join names with commas; count those beyond `shown`, and cut what is too long for a name."""
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    plain = (" ".join(name.split()) for name in names[:shown])
    return ", ".join(n if len(n) <= 120 else n[:100] + "..." for n in plain) + more
