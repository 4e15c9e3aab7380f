"""Index files: large tables of names and numbers, memory-mapped.

Starting takes no time, and all workers of a machine, forked or spawned, share one copy. An index
file is a safetensors file; its metadata name the kind of index.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

KIND = "eva_pretrain image index 1"
VIDEO_KIND = "eva_data video index 1"
CAPTION_KIND = "eva_data caption index 1"
_CALLED = {
    KIND: "an index of images",
    VIDEO_KIND: "an index of videos",
    CAPTION_KIND: "an index of captions",
}
_DTYPES = {"U8": np.uint8, "I32": np.int32, "I64": np.int64}


class Table(Mapping[str, NDArray[Any]]):
    """Named arrays with a description, in memory or mapped from an index file.

    Args:
        arrays: Name -> array of uint8, int32 or int64.
        about: Description, any value that JSON can hold.
        kind: What the table lists.
    """

    def __init__(
        self, arrays: Mapping[str, NDArray[Any]], about: Any = None, *, kind: str = KIND
    ) -> None:
        self._arrays = dict(arrays)
        self.about, self._kind = about, kind
        self._origin: tuple[Path, str] | None = None  # index file, and which part of it

    @classmethod
    def open(cls, file: Path, *, kind: str = KIND) -> "Table":
        """Map an index file.

        Args:
            file: The index file.
            kind: What it must list.

        Raises:
            FileNotFoundError: If there is none.
            ValueError: If it is not an index file, or is damaged.
        """
        if not file.is_file():
            raise FileNotFoundError(f"there is no index file {file}")
        try:
            with safe_open(file, "np") as opened:  # checks that sizes and offsets fit the file
                metadata = opened.metadata() or {}
        except SafetensorError as error:
            raise ValueError(f"{file} is not an index file, or is damaged ({error})") from error
        if metadata.get("kind") != kind:
            raise ValueError(f"{file} is not {_CALLED[kind]}: its kind is {metadata.get('kind')!r}")
        with file.open("rb") as stream:
            size = int.from_bytes(stream.read(8), "little")
            header = json.loads(stream.read(size))
        content = np.memmap(file, np.uint8, mode="r")[8 + size :]
        arrays = {}
        try:
            for name, entry in header.items():
                if name != "__metadata__":
                    begin, end = entry["data_offsets"]
                    arrays[name] = content[begin:end].view(_DTYPES[entry["dtype"]])
            table = cls(arrays, json.loads(metadata["about"]), kind=kind)
        except (KeyError, ValueError, RecursionError) as error:
            raise ValueError(
                f"{file} is a damaged index file ({error!r}): write it again"
            ) from error
        table._origin = (file, "")
        return table

    def save(self, file: Path) -> None:
        """Write an index file, which appears when it is complete.

        Args:
            file: The index file.
        """
        from eva_data.outputs.tensors import write_tensors  # loads torch, which no reader needs

        metadata = {"kind": self._kind, "about": json.dumps(self.about)}
        write_tensors(self._arrays, file, metadata)

    def part(self, prefix: str, about: Any = None) -> "Table":
        """Give the arrays of `{prefix}/...`, under the rest of their names.

        Args:
            prefix: Name of the part.
            about: Its description.
        """
        start = f"{prefix}/"
        arrays = {k.removeprefix(start): v for k, v in self.items() if k.startswith(start)}
        table = Table(arrays, about, kind=self._kind)
        table._origin = None if self._origin is None else (self._origin[0], prefix)
        return table

    def __reduce__(self) -> tuple[Any, ...]:
        if self._origin is not None:  # a spawned worker maps the file itself
            return _reopen, (*self._origin, self.about, self._kind)
        return _rebuilt, (self._arrays, self.about, self._kind)

    def __getitem__(self, name: str) -> NDArray[Any]:
        return self._arrays[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)


def _reopen(file: Path, prefix: str, about: Any, kind: str) -> Table:
    table = Table.open(file, kind=kind)
    return table.part(prefix, about) if prefix else table


def _rebuilt(arrays: Mapping[str, NDArray[Any]], about: Any, kind: str) -> Table:
    return Table(arrays, about, kind=kind)
