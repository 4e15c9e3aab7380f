"""What a check of a dataset found: kinds of problems, how many of each, and the first of them."""

import itertools
import json
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from eva_data.saving import replace_file

logger = logging.getLogger(__name__)

SHOWN = 5  # ids of a kind in the table
KEPT = 1000  # ids of a kind in the report


@dataclass(frozen=True)
class Kind:
    """A kind of finding: its text, what cleaning does, and whether it is a note, no problem."""

    text: str
    cleaning: str
    note: bool = False


@dataclass
class _Found:
    count: int = 0
    ids: list[Any] = field(default_factory=list)
    detail: str = ""

    def shown(self) -> str:
        more = ", ..." if self.count > len(self.ids[:SHOWN]) else ""
        return ", ".join(map(str, self.ids[:SHOWN])) + more


class Findings:
    """Findings counted by kind, in the order of the kinds."""

    def __init__(self, kinds: Mapping[str, Kind]) -> None:
        self.kinds = kinds
        self._found: dict[str, _Found] = {}

    def add(self, name: str, key: Any, detail: str = "") -> None:
        """Count one finding of a kind: an id, and a text that is shown for the first."""
        self.add_many(name, 1, [key], detail)

    def add_many(self, name: str, count: int, keys: Iterable[Any], detail: str = "") -> None:
        """Count findings of one kind by the ids of the first of them, or of all; 0 is nothing."""
        if not count:
            return
        finding = self._found.setdefault(name, _Found(detail=detail))
        finding.count += int(count)
        finding.ids += itertools.islice(keys, KEPT - len(finding.ids))

    def merge(self, other: "Findings") -> None:
        """Add what another has counted."""
        for name, finding in other._found.items():
            self.add_many(name, finding.count, finding.ids, finding.detail)

    def count(self, name: str) -> int:
        """Count the findings of a kind."""
        return self._found[name].count if name in self._found else 0

    @property
    def problems(self) -> int:
        """Number of findings that are not notes."""
        return sum(
            finding.count for name, finding in self._found.items() if not self.kinds[name].note
        )

    def summary(self) -> str:
        """Say how many problems there are."""
        if not self.problems:
            return "no problem"
        return "1 problem" if self.problems == 1 else f"{self.problems:,} problems"

    def lines(self) -> list[str]:
        """Say of each kind how often it was found and where first."""
        ordered = self._in_order()
        return [
            f"{finding.count:,} x {kind.text}: {finding.shown()}" for _, kind, finding in ordered
        ]

    def warn(self, where: object) -> None:
        """Log a line for each kind, about the data `where`."""
        for line in self.lines():
            logger.warning("%s: left out %s", where, line)

    def as_json(self) -> list[dict[str, Any]]:
        """Make the findings' part of a report: each kind with up to 1000 ids."""
        return [
            {
                "kind": name,
                **vars(kind),
                "count": finding.count,
                "first": finding.detail,
                "ids": finding.ids,
            }
            for name, kind, finding in self._in_order()
        ]

    def _in_order(self) -> list[tuple[str, Kind, _Found]]:
        """List problems first, then notes, each in the order of the kinds."""
        order = sorted(self.kinds, key=lambda name: self.kinds[name].note)
        return [(name, self.kinds[name], self._found[name]) for name in order if self.count(name)]

    def table(self) -> str:
        """Make a table: a line for each kind, and below it the first case."""
        rows = [("problem", "count", "cleaning", "first ids", "")]
        for _, kind, finding in self._in_order():
            description = f"note: {kind.text}" if kind.note else kind.text
            detail = f"\n    {finding.ids[0]}: {finding.detail}" if finding.detail else ""
            rows.append((description, f"{finding.count:,}", kind.cleaning, finding.shown(), detail))
        wide, narrow, middle = (max(len(row[column]) for row in rows) for column in range(3))
        return "\n".join(
            f"{description:<{wide}}  {count:>{narrow}}  {cleaning:<{middle}}  {ids}".rstrip()
            + detail
            for description, count, cleaning, ids, detail in rows
        )


def write_json(file: Path, data: Mapping[str, Any]) -> None:
    """Write an object of JSON, completely or not at all; each of its values is text at a time."""
    with replace_file(file) as part, part.open("w", encoding="utf-8") as stream:
        for number, (name, value) in enumerate(data.items()):
            stream.write(f"{',' if number else '{'}\n{json.dumps(name)}: {json.dumps(value)}")
        stream.write("\n}\n" if data else "{}\n")
