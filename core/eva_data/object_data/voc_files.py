"""An annotation file of Pascal VOC, by an XML parser that takes no document types and entities."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.parsers import expat

from eva_data.coco.rules import shown
from eva_data.object_data.content import Report

_MOST_BYTES = 16 * 2**20  # no file of one picture is larger
_EDGES = ("xmin", "ymin", "xmax", "ymax")


class _DocumentTypeError(ValueError):
    """A document type, whose entities could name other files or stand for billions of letters."""


@dataclass(slots=True)
class _Element:
    tag: str
    line: int
    texts: list[str] = field(default_factory=list)
    inside: list["_Element"] = field(default_factory=list)

    def find(self, tag: str) -> "_Element | None":
        return next((one for one in self.inside if one.tag == tag), None)

    def text_of(self, tag: str) -> str:
        found = self.find(tag)
        return "".join(found.texts).strip() if found else ""


@dataclass(frozen=True, slots=True)
class VocObject:
    """An object of a file.

    Attributes:
        name: Name of its class.
        box: xmin, ymin, xmax and ymax in pixels; the first pixel is 1.
        difficult: Whether VOC's scoring ignores it.
        line: Line of the file.
    """

    name: str
    box: tuple[float, float, float, float]
    difficult: bool
    line: int


@dataclass(frozen=True, slots=True)
class VocFile:
    """The content of a file.

    Attributes:
        filename: Name of the picture, as the file has it; empty if it has none.
        size: Height and width of the picture; None if they are not given, or are 0.
        objects: The objects that can be used.
    """

    filename: str
    size: tuple[int, int] | None
    objects: tuple[VocObject, ...]


def read_voc_file(file: Path, *, report: Report) -> VocFile:
    """Read a file.

    Args:
        file: The file.
        report: Receives what is wrong; what it is wrong with is left out if it returns.

    Raises:
        ValueError: If it is not there, is not XML, or is not of this kind.
    """
    root = _parse(file)
    if root.tag != "annotation":
        raise ValueError(
            f"{file} begins with <{shown(root.tag)[1:-1]}>; a file of Pascal VOC begins with "
            "<annotation>"
        )
    objects = []
    for one in root.inside:
        if one.tag == "object":
            try:
                objects.append(_object(one))
            except ValueError as error:
                report(f"{file}, line {one.line}: {error}")
    return VocFile(
        filename=root.text_of("filename"), size=_size(file, root), objects=tuple(objects)
    )


def _object(one: _Element) -> VocObject:
    name = " ".join(one.text_of("name").split())
    if not name:
        raise ValueError("the object has no name")
    box = one.find("bndbox")
    if box is None:
        raise ValueError(f"the object {name!r} has no bndbox")
    edges = []
    for key in _EDGES:
        text = box.text_of(key)
        value = _number(text)
        if value is None:
            raise ValueError(f"{key} of the object {name!r} is {shown(text)}, not a finite number")
        edges.append(value)
    for low, high in (0, 2), (1, 3):
        if edges[high] < edges[low]:
            raise ValueError(
                f"the object {name!r} has {_EDGES[low]} {edges[low]:g} and {_EDGES[high]} "
                f"{edges[high]:g}: the second must not be smaller"
            )
    flag = one.text_of("difficult").lower()
    if flag not in ("", "0", "1", "true", "false", "unspecified"):
        raise ValueError(f"difficult of the object {name!r} is {shown(flag)}; it must be 0 or 1")
    return VocObject(
        name, (edges[0], edges[1], edges[2], edges[3]), flag in ("1", "true"), one.line
    )


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if abs(value) < 2**31 and "_" not in text else None


def _size(file: Path, root: _Element) -> tuple[int, int] | None:
    size = root.find("size")
    if size is None:
        return None
    sides = [_number(size.text_of(key) or "0") for key in ("height", "width")]
    height, width = sides
    if height is None or width is None or min(height, width) < 0:
        raise ValueError(f"{file}, line {size.line}: its size is not a width and a height")
    return (int(height), int(width)) if height and width else None


def _parse(file: Path) -> _Element:
    try:
        if file.stat().st_size > _MOST_BYTES:
            raise ValueError(f"{file} has {file.stat().st_size:,} bytes, too many for labels")
        content = file.read_bytes()
    except OSError as error:
        raise ValueError(f"{file} cannot be read: {error.strerror}") from error
    parser: Any = expat.ParserCreate()
    parser.buffer_text = True
    top = _Element("", 0)
    open_elements = [top]

    def start(tag: str, attributes: dict[str, str]) -> None:
        del attributes
        element = _Element(tag, parser.CurrentLineNumber)
        open_elements[-1].inside.append(element)
        open_elements.append(element)

    def end(tag: str) -> None:
        del tag
        open_elements.pop()

    def characters(text: str) -> None:
        open_elements[-1].texts.append(text)

    def document_type(*_: object) -> None:
        raise _DocumentTypeError(
            f"{file}, line {parser.CurrentLineNumber}: it declares a document type "
            "(<!DOCTYPE ...>), which could name other files; remove it"
        )

    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.CharacterDataHandler = characters
    parser.StartDoctypeDeclHandler = document_type
    try:
        parser.Parse(content, True)
    except expat.ExpatError as error:
        raise ValueError(
            f"{file}, line {error.lineno}: it is not complete XML ({expat.ErrorString(error.code)})"
        ) from error
    except _DocumentTypeError:
        raise
    except (LookupError, ValueError) as error:  # ValueError: of several bytes a letter, as GBK
        raise ValueError(f"{file} is in an encoding that is not read: save it as UTF-8") from error
    return top.inside[0]
