"""Manifests: TOML files that merge several sources, and the index of what is in them.

    root = "$DATASETS"                  # of relative paths; default: the manifest's folder
    index = "merged30m.safetensors"     # optional; written by `eva data verify`

    [[source]]
    name = "cc12m"
    shards = "cc12m/{00000..01242}.tar" # the kind of the source, and where it is
    weight = 0.5                        # how often a sample comes in an epoch; default 1
    limit = 1000000                     # most samples in an epoch; default all

Sources follow one another. `weight` and `limit` take samples evenly from all of a source, always
the same ones, so that an index stands for the same sample in every run.
"""

import difflib
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from eva_data.files import expand_home, load_toml
from eva_data.index import IMAGE_KIND, INDEX_SUFFIX, Table, damaged, require_unchanged
from eva_data.tar import shard_pattern

_LARGEST_WEIGHT = 1000  # the order of an epoch lies in memory


@dataclass(frozen=True, kw_only=True)
class Form:
    """What manifests may say: kinds of sources (keys of their places), further keys that hold text.

    `unit` is what the samples are called; `check` is that of `eva data verify` that writes the
    index, whose kind is `index`.
    """

    kinds: tuple[str, ...]
    options: tuple[str, ...] = ()
    unit: str
    check: str
    index: str


IMAGES = Form(kinds=("folder", "shards"), unit="images", check="images", index=IMAGE_KIND)


@dataclass(frozen=True, kw_only=True)
class SourceEntry:
    """A source as the manifest states it; places are full paths."""

    name: str
    kind: str
    location: str
    weight: float = 1.0
    limit: int | None = None
    options: Mapping[str, str] = field(default_factory=dict)


def entry_of(path: Path, form: Form, options: Mapping[str, str] | None = None) -> SourceEntry:
    """Make a source of the path of a folder, of tar shards, or of a list."""
    pattern = shard_pattern(path)
    kind = "shards" if pattern else "folder" if path.is_dir() else "table"
    location = pattern or str(path)
    return SourceEntry(name=form.unit, kind=kind, location=location, options=options or {})


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """A manifest's content: its sources in order, and the index file, if it names one."""

    file: Path
    sources: tuple[SourceEntry, ...]
    index: Path | None
    form: Form = IMAGES

    @classmethod
    def read(
        cls, file: str | os.PathLike[str], *, root: str | None = None, form: Form = IMAGES
    ) -> "Manifest":
        """Read a manifest of a form; `root` takes the place of its own. Errors name the entry."""
        path = Path(file)
        content = load_toml(path)
        _refuse_unknown(content, ("root", "index", "source"), str(path))
        folder = path.parent / expand_path(root or content.get("root", "."), str(path))
        entries = content.get("source")
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            entries = []
        sources = tuple(_source(entry, folder, f"{path}, {entry}", form) for entry in entries)
        names = {source.name for source in sources}
        if not names or len(names) < len(sources):
            raise ValueError(f"{path} has no [[source]], or one twice: {', '.join(sorted(names))}")
        index = content.get("index")
        index_path = None if index is None else path.parent / expand_path(index, str(path))
        return cls(file=path, sources=sources, index=index_path, form=form)


def _source(entry: dict[str, Any], root: Path, where: str, form: Form) -> SourceEntry:
    _refuse_unknown(entry, ("name", *form.kinds, "weight", "limit", *form.options), where)
    kinds = [kind for kind in form.kinds if kind in entry]
    name, weight, limit = entry.get("name"), entry.get("weight", 1.0), entry.get("limit")
    options = {key: entry[key] for key in form.options if key in entry}
    checks = {
        " or ".join(form.kinds): len(kinds) == 1,
        "name": isinstance(name, str) and re.fullmatch(r"[\w.-]+", name),
        "weight": type(weight) in (int, float) and 0 < weight <= _LARGEST_WEIGHT,
        "limit": limit is None or (type(limit) is int and limit >= 1),
        **{key: isinstance(value, str) and value for key, value in options.items()},
    }
    for key, is_right in checks.items():
        if not is_right:
            raise ValueError(
                f"{where}: {key} is {entry.get(key)!r}; a source has one place, a name of "
                "letters, digits, '_', '-' and '.', a weight above 0 and at most "
                f"{_LARGEST_WEIGHT}, a limit from 1"
            )
    if "root" in options:
        options["root"] = str(root / expand_path(options["root"], where))
    location = str(root / expand_path(entry[kinds[0]], where))
    return SourceEntry(
        name=str(name),
        kind=kinds[0],
        location=location,
        weight=float(weight),
        limit=limit,
        options=options,
    )


def _refuse_unknown(entry: Mapping[str, Any], keys: tuple[str, ...], where: str) -> None:
    unknown = [key for key in entry if key not in keys]
    if unknown:
        close = difflib.get_close_matches(unknown[0], keys, n=1) or keys
        raise ValueError(f"{where}: unknown key {unknown[0]!r}; is it {' or '.join(close)}?")


def expand_path(value: Any, where: str) -> Path:
    """Put the environment's variables and the home folder into a path; `where` is its place."""
    if not isinstance(value, str) or not value or re.search(r"\$\{?\w+", os.path.expandvars(value)):
        raise ValueError(f"{where}: {value!r} is not a path, or has a variable that is not set")
    return expand_home(os.path.expandvars(value))


def write_index(file: Path, tables: Mapping[str, Table], manifest: Manifest) -> None:
    """Write the index file of a manifest, from a table of each source, complete or not at all."""
    arrays = {f"{name}/{key}": table[key] for name, table in tables.items() for key in table}
    about = []
    for entry in manifest.sources:
        options = dict(entry.options)
        if "root" in options:
            options["root"] = os.path.abspath(options["root"])  # noqa: PTH100 (of a pattern, too)
        location = os.path.abspath(entry.location)  # noqa: PTH100
        description = asdict(replace(entry, location=location, options=options))
        about.append([description, tables[entry.name].about])
    Table(arrays, about, kind=manifest.form.index).save(file)


def open_parts(
    path: Path, form: Form, *, options: Mapping[str, str] | None = None, root: str | None = None
) -> list[tuple[SourceEntry, Table | None]]:
    """List the sources at a path: of a manifest, of an index, or one with `options`.

    Each comes with its part of an index, or None where there is no index. `root` is that of the
    manifest, or where the shards or images of an index have been moved to.
    """
    if path.suffix == INDEX_SUFFIX:
        return [(_moved(entry, root), table) for entry, table in _open_index(path, form)]
    if path.suffix != ".toml":
        return [(entry_of(path, form, options), None)]
    manifest = Manifest.read(path, root=root, form=form)
    file, sources = manifest.index, manifest.sources
    if file is None:
        return [(entry, None) for entry in sources]
    command = f"eva data verify {form.check} {path} --write {file}"
    if not file.is_file():
        raise FileNotFoundError(f"there is no index file {file}; write it with: {command}")
    index = _open_index(file, form)
    indexed, current = [_stated(entry) for entry, _ in index], [*map(_stated, sources)]
    if indexed != current:
        raise ValueError(
            f"{file} is the index of {indexed}, and {path} has {current}; write it again "
            f"with: {command} --overwrite"
        )
    return [(entry, table) for entry, (_, table) in zip(sources, index, strict=True)]


def _open_index(file: Path, form: Form) -> list[tuple[SourceEntry, Table]]:
    """Open an index of a form: the sources as they were, with the table of each."""
    index = Table.open(file, kind=form.index)
    try:
        entries = [(SourceEntry(**description), about) for description, about in index.about]
        parts = [(entry, index.part(entry.name, about)) for entry, about in entries]
    except (TypeError, LookupError, AttributeError, ValueError) as error:
        raise damaged(file, repr(error)) from error
    for entry, table in parts:
        if entry.kind == "table":
            listed, split = file_and_split(Path(entry.location))
            require_unchanged(listed, table.about, part=split, index=file)
    return parts


def _moved(entry: SourceEntry, root: str | None) -> SourceEntry:
    """Say where a source of an index lies now."""
    if root is None:
        return entry
    if entry.kind == "table":
        return replace(entry, options={**entry.options, "root": root})
    name = Path(entry.location).name if entry.kind == "shards" else ""
    return replace(entry, location=str(Path(root, name)))


def file_and_split(path: Path) -> tuple[Path, str | None]:
    """Split the name of a list into its file and the split behind `#`, if it has one."""
    name, mark, split = path.name.rpartition("#")
    if mark and split and name.lower().endswith(".json") and not path.is_file():
        return path.with_name(name), split
    return path, None


def _stated(entry: SourceEntry) -> tuple[str, str, dict[str, str]]:
    """Leave out where the data lie, which may change."""
    options = {key: value for key, value in entry.options.items() if key != "root"}
    return entry.name, entry.kind, options
