"""Words that a native reader stumbles over, and what stands in their place (CONTRIBUTING.md)."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HIDDEN = {".venv", "output", "build", "dist"}
AVOIDED = {
    r"\bis no (?!longer|more|fewer|less|\w+er than)(?=[a-z])": "is not a ...",
    r"\bis none of\b": "is not one of",
    r"\banew\b": "again, from scratch",
    r"\b(tells|told|tell)\b": "says, reports, names",
    r"\bmend(s|ed|ing)?\b": "fix",
    r"\b(?:the|a) whole (?!number)": "complete, entire, all of",
}
FRAGMENT = re.compile(
    r"^\s+(?!Yields|Raises|Returns|Note)\*{0,2}\w+: (?:Of|That of|Those of|To|By|With) "
)


def _texts():
    here = Path(__file__)
    for suffix in (".py", ".md", ".sh", ".toml"):
        for path in sorted(ROOT.rglob(f"*{suffix}")):
            parts = path.relative_to(ROOT).parts
            if path != here and not any(p in HIDDEN or p.startswith(".") for p in parts):
                yield path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8")


def _found(pattern):
    return [
        f"{name}:{number}: {line.strip()}"
        for name, text in _texts()
        for number, line in enumerate(text.splitlines(), 1)
        if pattern.search(line)
    ]


@pytest.mark.parametrize("pattern", AVOIDED)
def test_plain_words(pattern):
    found = _found(re.compile(pattern))
    assert not found, f"write {AVOIDED[pattern]!r}:\n" + "\n".join(found)


def test_parameters_are_noun_phrases():
    """`batch_size: Images per forward pass.`, not `batch_size: Of the forward pass.`"""
    found = _found(FRAGMENT)
    assert not found, "\n".join(found)
