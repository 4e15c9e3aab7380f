"""Patterns of shards' paths: `{0000..0099}`, `{a,b}`, and those of a shell."""

import itertools
import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

MOST_SHARDS = 1_000_000
_DIGITS = 18


def is_pattern(path: Path) -> bool:
    """Test whether a path names shards: tar files, or a pattern of them."""
    return path.suffix == ".tar" or (path.name.endswith("}") and not path.is_dir())


def expand(pattern: str | Sequence[str], *, missing: list[str] | None = None) -> list[Path]:
    """Turn patterns into the paths of existing files.

    Args:
        pattern: Path with `{0000..0099}` for numbers of that many digits, `{a,b}` for
            alternatives, and the `*`, `?` and `[...]` of a shell; or several patterns.
        missing: List that takes the files that are not there; None refuses them.

    Raises:
        ValueError: If a file is not there, nothing fits a pattern, or one stands for more than
            `MOST_SHARDS` files.
    """
    patterns = [pattern] if isinstance(pattern, str) else list(pattern)
    paths: list[Path] = []
    for one in patterns:
        for path in _expand_braces(one):
            if any(character in path for character in "*?["):
                root = Path(Path(path).anchor or ".")
                matches = root.glob(str(Path(path).relative_to(root)))
                found = sorted(match for match in matches if match.is_file())
                if not found:
                    raise ValueError(f"no shard fits {path!r}")
                paths += found
            elif not Path(path).is_file() and missing is not None:
                missing.append(path)
            elif not Path(path).is_file():
                raise ValueError(f"there is no shard {path} (of {one!r})")
            else:
                paths.append(Path(path))
            if len(paths) > MOST_SHARDS:
                raise ValueError(f"{one!r} stands for more than {MOST_SHARDS:,} shards")
    if not paths:
        raise ValueError(f"no shard of {pattern!r} is there" if missing else "no shard was named")
    return paths


def _expand_braces(pattern: str) -> Iterator[str]:
    """Yield the paths one by one: a pattern of some bytes may stand for more than the memory."""
    pieces = re.split(r"\{([^{}]*)\}", pattern)  # text, braces, text, braces, ..., text
    choices = [[text] if number % 2 == 0 else _choices(text) for number, text in enumerate(pieces)]
    count = math.prod(map(len, choices))
    if count > MOST_SHARDS:
        raise ValueError(
            f"{pattern!r} stands for {count:,} shards, more than {MOST_SHARDS:,}: name those that "
            "are there, with * or with several patterns"
        )
    for chosen in itertools.product(*choices):
        yield "".join(chosen)


def _choices(text: str) -> Sequence[str]:
    numbers = re.fullmatch(r"(\d+)\.\.(\d+)", text)
    if numbers is None:
        return text.split(",")
    first, last = numbers.groups()
    if max(len(first), len(last)) > _DIGITS:
        raise ValueError(f"{{{text}}} has numbers of more than {_DIGITS} digits")
    if int(first) > int(last):
        raise ValueError(f"{{{text}}} counts down; write {{{last}..{first}}}")
    return _Numbers(int(first), int(last), len(first))


class _Numbers(Sequence[str]):
    """Numbers with leading zeros, made when they are asked for."""

    def __init__(self, first: int, last: int, digits: int) -> None:
        self._numbers, self._digits = range(first, last + 1), digits

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, index: Any) -> Any:
        return str(self._numbers[index]).zfill(self._digits)
