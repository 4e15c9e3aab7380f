"""What a check of a data set found: kinds of problems, how many of each, and the first of them.

How it is shown and written, too.
"""

import itertools
import json
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from eva_data.files import replacing

SHOWN = 5  # ids of a kind in the table
KEPT = 1000  # ids of a kind in the report
WRITTEN_AT_ONCE = 20_000  # entries of a list


@dataclass(frozen=True)
class Kind:
    """A kind of finding.

    Attributes:
        text: what is the matter, for the table.
        cleaning: what cleaning does about it.
        note: whether it is worth knowing, but no problem.
    """

    text: str
    cleaning: str
    note: bool = False


@dataclass
class _Found:
    count: int = 0
    ids: list[Any] = field(default_factory=list)
    detail: str = ""


class Findings:
    """Counts findings by kind, in the order of the kinds.

    Args:
        kinds: name -> kind.
    """

    def __init__(self, kinds: Mapping[str, Kind]) -> None:
        self.kinds = kinds
        self._found: dict[str, _Found] = {}

    def add(self, name: str, key: Any, detail: str = "") -> None:
        """Counts one finding.

        Args:
            name: of the kind.
            key: id of what has the problem.
            detail: shown for the first of its kind.
        """
        self.add_many(name, 1, [key], detail)

    def add_many(self, name: str, count: int, keys: Iterable[Any], detail: str = "") -> None:
        """Counts findings of one kind; nothing if ``count`` is 0.

        Args:
            name: of the kind.
            count: how many.
            keys: the ids of the first of them, or of all.
            detail: of the first, shown if it is the first of its kind.
        """
        if not count:
            return
        found = self._found.setdefault(name, _Found(detail=detail))
        found.count += int(count)
        found.ids += itertools.islice(keys, KEPT - len(found.ids))

    def count(self, name: str) -> int:
        """How many findings of a kind there are."""
        return self._found[name].count if name in self._found else 0

    @property
    def problems(self) -> int:
        """How many findings are not just notes."""
        return sum(found.count for name, found in self._found.items() if not self.kinds[name].note)

    def as_json(self) -> list[dict[str, Any]]:
        """The findings for a report, each with up to 1000 ids."""
        return [
            {
                "kind": name,
                "text": kind.text,
                "note": kind.note,
                "count": found.count,
                "cleaning": kind.cleaning,
                "first": found.detail,
                "ids": found.ids,
            }
            for name, kind, found in self._in_order()
        ]

    def _in_order(self) -> list[tuple[str, Kind, _Found]]:
        """Problems first, then notes, each in the order of the kinds."""
        order = sorted(self.kinds, key=lambda name: self.kinds[name].note)
        return [(name, self.kinds[name], self._found[name]) for name in order if self.count(name)]

    def table(self) -> str:
        """The findings as text: a line for each kind, and below it the first case."""
        rows = [("problem", "count", "cleaning", "first ids")]
        details = [""]
        for _, kind, found in self._in_order():
            shown = ", ".join(map(str, found.ids[:SHOWN]))
            more = ", ..." if found.count > len(found.ids[:SHOWN]) else ""
            text = f"note: {kind.text}" if kind.note else kind.text
            rows.append((text, f"{found.count:,}", kind.cleaning, shown + more))
            details.append(f"\n    {found.ids[0]}: {found.detail}" if found.detail else "")
        widths = [max(len(row[column]) for row in rows) for column in range(3)]
        return "\n".join(
            f"{text:<{widths[0]}}  {count:>{widths[1]}}  {cleaning:<{widths[2]}}  {ids}".rstrip()
            + detail
            for (text, count, cleaning, ids), detail in zip(rows, details, strict=True)
        )


def progress(items: Iterable[Any], *, total: int, what: str) -> Iterable[Any]:
    """The items, with a progress bar if errors go to a terminal."""
    from tqdm import tqdm

    return tqdm(items, total=total, desc=what, file=sys.stderr, disable=None)


def write_json(file: Path, data: Mapping[str, Any]) -> None:
    """Writes an object; the file appears when it is complete."""
    with replacing(file) as part, part.open("w", encoding="utf-8") as stream:
        for number, (name, value) in enumerate(data.items()):
            stream.write(f"{',' if number else '{'}\n{json.dumps(name)}: ")
            if not isinstance(value, list) or not value:
                stream.write(json.dumps(value))
                continue
            for start in range(0, len(value), WRITTEN_AT_ONCE):
                stream.write("," if start else "[")
                stream.write(json.dumps(value[start : start + WRITTEN_AT_ONCE])[1:-1])
            stream.write("]")
        stream.write("\n}\n" if data else "{}\n")
