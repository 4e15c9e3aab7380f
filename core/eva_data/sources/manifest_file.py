"""Manifests: TOML files that merge several sources, and the index of what is in them.

    root = "$DATASETS"                  # of relative paths; default: the manifest's folder
    index = "merged30m.safetensors"     # optional; written by tools/verify_data.py

    [[source]]
    name = "coco"
    folder = "coco/train2017"           # the kind of the source, and where it is

    [[source]]
    name = "cc12m"
    shards = "cc12m/{00000..01242}.tar"
    weight = 0.5                        # how often a sample comes in an epoch; default 1
    limit = 1000000                     # most samples in an epoch; default all

Sources follow one another in the manifest's order. `weight` and `limit` take samples evenly from
all of a source, always the same ones, so that an index stands for the same sample in every run.
"""

import difflib
import os
import re
import tomllib
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import Any

from eva_data.files import home_expanded
from eva_data.sources.index_file import KIND, Table

_MANIFEST_KEYS = ("root", "index", "source")
_LARGEST_WEIGHT = 1000  # the order of an epoch lies in memory


@dataclass(frozen=True, kw_only=True)
class Form:
    """What the manifests of one kind of data may say.

    Attributes:
        kinds: Kinds of sources; the key that holds the place of one.
        options: Further keys of a source, which hold text.
        check: Command of tools/verify_data.py that writes the index.
        index: Kind of the index file.
    """

    kinds: tuple[str, ...]
    options: tuple[str, ...] = ()
    check: str
    index: str


IMAGES = Form(kinds=("folder", "shards"), check="images", index=KIND)


@dataclass(frozen=True, kw_only=True)
class SourceEntry:
    """A source as the manifest states it.

    Attributes:
        name: The source's name.
        kind: What it is, such as "folder" or "shards".
        location: The folder, or the pattern of the shards; full paths.
        weight: Times that a sample comes in an epoch.
        limit: Most samples in an epoch.
        options: What else the manifest says of it; `root` is a full path.
    """

    name: str
    kind: str
    location: str
    weight: float = 1.0
    limit: int | None = None
    options: Mapping[str, str] = field(default_factory=dict)

    def samples_of(self, available: int) -> int:
        """Count the samples of the source in an epoch.

        Args:
            available: Samples that the source has.
        """
        wanted = max(1, round(self.weight * available))
        return wanted if self.limit is None else min(wanted, self.limit)


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """A manifest's content.

    Attributes:
        file: The manifest.
        sources: The sources in its order.
        index: The index file, if it names one.
        form: What it may say.
    """

    file: Path
    sources: tuple[SourceEntry, ...]
    index: Path | None
    form: Form = IMAGES

    @classmethod
    def read(
        cls, file: str | os.PathLike[str], *, root: str | None = None, form: Form = IMAGES
    ) -> "Manifest":
        """Read a manifest.

        Args:
            file: The TOML file.
            root: Folder of relative paths, instead of the manifest's `root`.
            form: What it may say.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If it is not a manifest; the message names the entry.
        """
        path = Path(file)
        if not path.is_file():
            raise FileNotFoundError(f"there is no manifest {path}")
        try:
            content = tomllib.loads(path.read_text(encoding="utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
            raise ValueError(f"{path} is not a TOML file: {error}") from error
        _refuse_unknown(content, _MANIFEST_KEYS, str(path))
        folder = path.parent / expand_path(root or content.get("root", "."), str(path))
        entries = content.get("source")
        if not isinstance(entries, list) or not entries:
            raise ValueError(f"{path} has no source: write one as [[source]]")
        sources = tuple(
            _source(entry, folder, f"{path}, source {entry}", form) for entry in entries
        )
        names = [source.name for source in sources]
        if len(set(names)) < len(names):
            raise ValueError(f"{path} names a source twice: {', '.join(names)}")
        index = content.get("index")
        return cls(
            file=path,
            sources=sources,
            index=None if index is None else path.parent / expand_path(index, str(path)),
            form=form,
        )


class Mixture:
    """Which sample of which source stands at each place of an epoch.

    Args:
        sizes: Samples that each source has.
        counts: Samples of each in an epoch.
        what: Name of a sample in messages.
    """

    def __init__(self, sizes: Sequence[int], counts: Sequence[int], *, what: str) -> None:
        self._sizes, self._ends = sizes, list(accumulate(counts))
        self._what = what

    def __len__(self) -> int:
        return self._ends[-1]

    def locate(self, index: int) -> tuple[int, int]:
        """Find the number of the source of a sample, and its index there.

        Raises:
            IndexError: If there is no such sample.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"no {self._what} {index} among {len(self)}")
        number = bisect_right(self._ends, index)
        begin = self._ends[number - 1] if number else 0
        count = self._ends[number] - begin
        return number, (index - begin) * self._sizes[number] // count  # evenly over all of them


def write_index(file: Path, tables: Mapping[str, Table], manifest: Manifest) -> None:
    """Write the index file of a manifest.

    Args:
        file: Is replaced when the new one is complete.
        tables: Samples of each source: arrays `names.*`, and those of `index_members` for shards.
        manifest: The manifest.
    """
    arrays = {f"{name}/{key}": table[key] for name, table in tables.items() for key in table}
    about = []
    for entry in manifest.sources:
        place = asdict(entry) | {"location": os.path.abspath(entry.location)}  # noqa: PTH100 (of a pattern)
        about.append([entry.name, entry.kind, tables[entry.name].about, place])
    Table(arrays, about, kind=manifest.form.index).save(file)


def read_index(manifest: Manifest, file: Path) -> list[Table]:
    """Read the index file of a manifest.

    Args:
        manifest: The manifest.
        file: Its index.

    Returns:
        A table for each source.

    Raises:
        FileNotFoundError: If there is none.
        ValueError: If it is of other sources.
    """
    again = " --overwrite" if file.exists() else ""
    check = f"python tools/verify_data.py {manifest.form.check} {manifest.file} --write {file}"
    command = f"write it with: {check}{again}"
    if not file.is_file():
        raise FileNotFoundError(f"there is no index file {file}; {command}")
    index = Table.open(file, kind=manifest.form.index)
    known = [entry[:2] for entry in index.about] if isinstance(index.about, list) else []
    wanted = [[entry.name, entry.kind] for entry in manifest.sources]
    if known != wanted:
        raise ValueError(
            f"{file} is the index of {known}, and {manifest.file} has {wanted}; {command}"
        )
    for about, entry in zip(index.about, manifest.sources, strict=True):
        noted = _columns(about[3].get("options", {})) if len(about) > 3 else {}
        if noted != _columns(entry.options):
            raise ValueError(
                f"{file} has {entry.name} with {noted or 'no columns named'}, and {manifest.file} "
                f"with {_columns(entry.options) or 'none'}; {command}"
            )
    return [index.part(entry[0], entry[2]) for entry in index.about]


def _columns(options: Mapping[str, str]) -> dict[str, str]:
    """Leave out where the data lie, which may change."""
    return {key: value for key, value in options.items() if key != "root"}


def _source(entry: Any, root: Path, where: str, form: Form) -> SourceEntry:
    if not isinstance(entry, dict):
        raise ValueError(f"{where} is not a table: write [[source]]")
    _refuse_unknown(entry, ("name", *form.kinds, "weight", "limit", *form.options), where)
    name = entry.get("name")
    if not isinstance(name, str) or not re.fullmatch(r"[\w.-]+", name):
        raise ValueError(f"{where}: name must be letters, digits, '_', '-' and '.', got {name!r}")
    kinds = [kind for kind in form.kinds if kind in entry]
    if len(kinds) != 1 or not isinstance(entry[kinds[0]], str):
        raise ValueError(f"{where}: give either {' or '.join(form.kinds)}, as a string")
    weight, limit = entry.get("weight", 1.0), entry.get("limit")
    is_number = isinstance(weight, int | float) and not isinstance(weight, bool)
    if not is_number or not 0 < weight <= _LARGEST_WEIGHT:
        raise ValueError(
            f"{where}: weight must be a number above 0 and at most {_LARGEST_WEIGHT}, got "
            f"{weight!r}"
        )
    if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or limit < 1):
        raise ValueError(f"{where}: limit must be an integer from 1, got {limit!r}")
    options = {key: entry[key] for key in form.options if key in entry}
    for key, value in options.items():
        if not isinstance(value, str) or not value:
            raise ValueError(f"{where}: {key} must be text, got {value!r}")
        if key == "root":
            options[key] = str(root / expand_path(value, where))
    return SourceEntry(
        name=name,
        kind=kinds[0],
        location=str(root / expand_path(entry[kinds[0]], where)),
        weight=float(weight),
        limit=limit,
        options=options,
    )


def expand_path(text: Any, where: str) -> Path:
    """Put in the variables of the environment and the home folder.

    Args:
        text: A path.
        where: Place that has it, for messages.

    Raises:
        ValueError: If it is not a path, or a variable is not set.
    """
    if not isinstance(text, str) or not text:
        raise ValueError(f"{where}: {text!r} is not a path")
    expanded = os.path.expandvars(text)
    unset = re.search(r"\$\{?\w+", expanded)
    if unset:
        raise ValueError(f"{where}: {unset.group()} of {text!r} is not set; export it")
    return home_expanded(expanded)


def _refuse_unknown(entry: Mapping[str, Any], known: tuple[str, ...], where: str) -> None:
    for key in entry:
        if key not in known:
            close = difflib.get_close_matches(key, known, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else f"; known are {', '.join(known)}"
            raise ValueError(f"{where}: unknown key {key!r}{hint}")
