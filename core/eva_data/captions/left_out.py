"""What makes no pair of a picture and a caption: counted by kind, and the first of each named."""

import logging
from collections.abc import Mapping

logger = logging.getLogger(__name__)

LONGEST = 1_000_000  # bytes of a caption, or of the JSON that holds it
KINDS: Mapping[str, str] = {
    "missing": "missing shard",
    "damaged": "damaged or compressed shard",
    "uncaptioned": "picture without a caption",
    "unpictured": "caption without a picture",
    "dotted": "picture with several dots in its name, whose key ends at the first",
    "empty": "empty caption",
    "long": f"caption of more than {LONGEST:,} bytes",
    "encoding": "caption that is not text in UTF-8",
    "duplicate": "key with several pictures or captions in one shard",
    "malformed": "entry that is not of the form of its list",
}
_KEPT = 1000  # names of a kind
_SHOWN = 3


class LeftOut:
    """Counts and names of what is left out."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        self.names: dict[str, list[str]] = {}

    def add(self, kind: str, name: str) -> None:
        """Count one.

        Args:
            kind: A key of `KINDS`.
            name: Its place, and what is wrong with it where that differs.
        """
        self.counts[kind] = self.counts.get(kind, 0) + 1
        names = self.names.setdefault(kind, [])
        if len(names) < _KEPT:
            names.append(name)

    def merge(self, other: "LeftOut") -> None:
        """Add what another has counted."""
        for kind, count in other.counts.items():
            self.counts[kind] = self.counts.get(kind, 0) + count
            names = self.names.setdefault(kind, [])
            names += other.names[kind][: _KEPT - len(names)]

    def warn(self, where: object) -> None:
        """Log a line for each kind.

        Args:
            where: The data.
        """
        for kind, count in self.counts.items():
            first = ", ".join(self.names[kind][:_SHOWN]) + (", ..." if count > _SHOWN else "")
            logger.warning("%s: %s x %s, left out: %s", where, f"{count:,}", KINDS[kind], first)
