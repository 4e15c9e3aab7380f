"""Records of an input of any size in shards: folders, lists, tar shards, Parquet, lines of text.

`plan_records` cuts an input once; `read_shard` reads any shard at any time after. Records pass one
by one, so that memory does not grow with the input.
"""

import contextlib
import hashlib
import os
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from eva_data.captions.lists import (
    CAPTION_COLUMNS,
    IMAGE_COLUMNS,
    LEFT_OUT,
    UnreadableCaptionError,
    pairs_of_list,
    parse_captions,
)
from eva_data.checks.findings import Findings
from eva_data.files import (
    IMAGE_SUFFIXES,
    LISTED_IMAGE_SUFFIXES,
    find_files,
    open_regular,
    replacing,
    require_regular_file,
)
from eva_data.images import UnreadableImageError, read_image
from eva_data.tables import LONGEST, text_lines
from eva_data.tar import expand_braces, expand_shards, find_members, is_shard_pattern

NAMES = "names.parquet"  # a row group for each shard
_MOST, _LEAST, _FEW = 4096, 64, 32  # records of a shard at most and at least; shards
_COLUMNS = ("image", "img", "jpg", "jpeg", "png", "webp", "bytes", "image_bytes", "content")
_TEXTS = frozenset({".txt", ".json"})  # beside the images of tar shards
_AT_ONCE = 64  # rows of a Parquet file in memory


class Record(NamedTuple):
    """An image or a text by its name; nothing is decoded yet."""

    name: str  # path of the image, its place in a shard, or the text
    content: str | bytes | None  # path or bytes; None for a text
    caption: str | None = None  # None for that of the text file beside the image
    problem: str = ""  # why there is no caption

    def image(self) -> Image.Image:
        """Decode the image as RGB, upright by its EXIF data, or raise `UnreadableImageError`."""
        if self.content is None:
            raise UnreadableImageError(f"{self.name} has no image")
        return read_image(self.content, upright=True, name=self.name)

    def text(self) -> str:
        """Return the caption, the first of several, or raise `UnreadableCaptionError`."""
        if self.problem:
            raise UnreadableCaptionError(f"{self.name}: {self.problem}")
        if self.caption is not None or not isinstance(self.content, str):
            return self.caption or self.name
        file = Path(self.content).with_suffix(".txt")
        with open_regular(file) as stream:
            return parse_captions(stream.read(LONGEST + 4), str(file))[0]


def plan_records(
    inputs: Sequence[str],
    folder: Path,
    *,
    size: int | None = None,
    limit: int | None = None,
    texts: bool = False,
    captions: bool = False,
    image_column: str | None = None,
    caption_column: str | None = None,
) -> dict[str, Any]:
    """Cut an input into shards.

    Args:
        inputs: Folders, which are searched, images, lists of paths or, with `texts`, of texts, a
            line each, tables or JSON of images with captions; or tar shards or Parquet files, also
            as patterns and addresses of fsspec such as `s3://bucket/{0000..0099}.tar`.
        folder: Where `NAMES` is written if there are no shards.
        size: Records of a shard; by default 4096, or fewer for 32 shards. Each tar file is one.
        limit: Number of the first records, which are taken alone.
        texts: See `inputs`.
        captions: Whether images need captions.
        image_column: Column with the images, or their paths; by default found by its name.
        caption_column: The same for captions.

    Returns:
        What `read_shard` needs, for JSON; `shards` is their number.

    Raises:
        ValueError: If there is no record, or no such column.
        OSError: If there is no such file.
    """
    plan: dict[str, Any] = {"root": str(Path.cwd()), "captions": captions, "texts": texts}
    if files := [] if texts else [file for one in inputs for file in _shards(one)]:
        if files[0].endswith(".parquet"):
            plan["columns"] = _find_columns(files[0], image_column, caption_column, captions)
        plan["places"] = (_cut_parquet if "columns" in plan else _cut_tar)(files, size, limit)
        plan["shards"] = len(plan["places"])
    else:
        names = (_names(one, image_column, caption_column, texts) for one in inputs)
        chosen = islice(chain.from_iterable(names), limit)
        plan["shards"] = _write_names(chosen, folder / NAMES, size)
    if not plan["shards"]:
        raise ValueError(f"{', '.join(inputs)}: no image there, of {LISTED_IMAGE_SUFFIXES}")
    return plan


def read_shard(plan: dict[str, Any], folder: Path, number: int) -> Iterator[Record]:
    """Yield the records of a shard, in the order of the input."""
    root = plan["root"]
    if "columns" in plan:
        address, *rows = plan["places"][number]
        yield from _records_of_parquet(root, address, rows, plan["columns"])
    elif "places" in plan:
        file, stop = plan["places"][number]
        yield from islice(_records_of_tar(root, file, captions=plan["captions"]), stop)
    else:
        with pq.ParquetFile(folder / NAMES) as names:
            rows = names.read_row_group(number).to_pylist()
        for row in rows:
            name = os.fsdecode(row["name"])
            content = None if plan["texts"] else os.path.join(root, name)  # noqa: PTH118 (millions)
            yield Record(name, content, row["caption"])


def identify(inputs: Sequence[str]) -> str:
    """Compute a hash of an input: names and sizes of shards, content of lists, names of folders.

    Folders are not searched, which may take hours.
    """
    digest = hashlib.sha256()
    for name in chain.from_iterable(_shards(one) or [one] for one in inputs):
        path = Path(name)
        digest.update(os.fsencode(name))
        if path.suffix in (".tar", ".parquet") and path.is_file():
            digest.update(str(path.stat().st_size).encode())
        elif path.is_file() and path.suffix.lower() not in IMAGE_SUFFIXES:
            with path.open("rb") as stream:
                digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()


def _shards(location: str) -> list[str]:
    """List the tar or Parquet files of a pattern, by paths or addresses; none for other inputs."""
    if not (location.endswith(".parquet") or is_shard_pattern(Path(location))):
        return []
    if "://" not in location:
        return [str(path) for path in expand_shards(location)]
    import fsspec

    found: list[str] = []
    for address in expand_braces(location):
        system, path = fsspec.url_to_fs(address)
        paths = sorted(system.glob(path)) if any(sign in path for sign in "*?[") else [path]
        found += map(system.unstrip_protocol, paths)
    if not found:
        raise ValueError(f"there is no file {location}")
    return found


def _names(
    location: str, image: str | None, caption: str | None, texts: bool
) -> Iterator[tuple[str, str | None]]:
    """Yield paths of images with captions, if a table has them, or texts."""
    path = Path(location)
    suffix = path.suffix.lower()
    if path.is_dir():
        for name in find_files(path, IMAGE_SUFFIXES):
            yield os.path.join(location, name), None  # noqa: PTH118 (millions)
        return
    require_regular_file(path)
    if suffix in IMAGE_SUFFIXES and not texts:
        yield location, None
    elif suffix in (".csv", ".tsv", ".json") and not texts:
        left_out = Findings(LEFT_OUT)
        for name, text in pairs_of_list(path, left_out, split=None, image=image, caption=caption):
            yield str(path.parent / name), text
        left_out.warn(path)
    else:
        for _, line in text_lines(path):
            yield line if texts else str(path.parent / line), None


def _write_names(names: Iterator[tuple[str, str | None]], file: Path, size: int | None) -> int:
    """Write names; return the number of shards."""
    ahead = list(islice(names, _MOST * _FEW))
    names, size, count = chain(ahead, names), size or _usual(len(ahead)), 0
    schema = pa.schema({"name": pa.binary(), "caption": pa.string()})
    with replacing(file) as part, pq.ParquetWriter(part, schema, compression="zstd") as writer:
        while chunk := list(islice(names, size)):
            columns = [os.fsencode(name) for name, _ in chunk], [text for _, text in chunk]
            writer.write_table(pa.table([*columns], schema=schema), row_group_size=size)
            count += 1
    return count


def _usual(count: int) -> int:
    return max(_LEAST, min(_MOST, -(-count // _FEW)))


# ---- tar shards ----------------------------------------------------------------------------------
def _cut_tar(files: Iterable[str], _: int | None, limit: int | None) -> list[Any]:
    if limit is None:
        return [(file, None) for file in files]
    places = list[Any]()
    for file in files:  # are read for this
        places += [(file, sum(1 for _ in islice(_records_of_tar("", file), limit)))]
        limit -= places[-1][1]
        if not limit:
            break
    return places


def _records_of_tar(root: str, address: str, *, captions: bool = False) -> Iterator[Record]:
    suffixes = IMAGE_SUFFIXES | (_TEXTS if captions else frozenset())
    with _local(root, address) as shard, open_regular(shard) as stream:
        members = list(find_members(shard, suffixes))
        texts = {one.key: one for one in members if one.suffix == ".json"}
        texts |= {one.key: one for one in members if one.suffix == ".txt"}
        for member in members:
            if member.suffix in _TEXTS:
                continue
            name, caption, problem = f"{address}:{member.name}", None, "no caption" * captions
            if text := texts.get(member.key):
                stream.seek(text.offset)
                value, is_json = stream.read(min(text.size, LONGEST + 1)), text.suffix == ".json"
                try:
                    caption, problem = parse_captions(value, name, is_json=is_json)[0], ""
                except UnreadableCaptionError as error:
                    problem = str(error)
            stream.seek(member.offset)
            yield Record(name, stream.read(member.size), caption, problem)


@contextlib.contextmanager
def _local(root: str, address: str) -> Iterator[Path]:
    """Give the path of a file, or of a copy of one in another file system."""
    if "://" not in address:
        yield Path(root, address)
        return
    import fsspec

    system, path = fsspec.url_to_fs(address)
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, Path(path).name)
        system.get_file(path, str(copy))
        yield copy


# ---- Parquet -------------------------------------------------------------------------------------
@contextlib.contextmanager
def _open_parquet(address: str) -> Iterator[Any]:
    with contextlib.ExitStack() as stack:
        place: Any = address
        if "://" in address:
            import fsspec

            place = stack.enter_context(fsspec.open(address))
        try:
            yield stack.enter_context(pq.ParquetFile(place, pre_buffer=False))
        except pa.ArrowInvalid as error:
            raise ValueError(f"{address} is not a Parquet file, or is damaged: {error}") from error


def _find_columns(
    address: str, image: str | None, caption: str | None, captions: bool
) -> list[str]:
    """Find the column of the images and, if they are wanted, that of the captions."""
    with _open_parquet(address) as file:
        names = file.schema_arrow.names
    wanted = {"image": [image] if image else [*_COLUMNS, *IMAGE_COLUMNS]}
    wanted |= {"caption": [caption] if caption else [*CAPTION_COLUMNS]} if captions else {}
    found = {role: [one for one in known if one in names] for role, known in wanted.items()}
    for role in (role for role, there in found.items() if not there):
        text = f"{address} has the columns {', '.join(names)}: name one with --{role}-column"
        raise ValueError(text)
    return [there[0] for there in found.values()]


def _cut_parquet(files: Iterable[str], size: int | None, limit: int | None) -> list[Any]:
    counts, left = dict[str, int](), sys.maxsize if limit is None else limit
    for file in files:
        with _open_parquet(file) as opened:
            counts[file] = min(left, opened.metadata.num_rows)
        left -= counts[file]
    size = size or _usual(sum(counts.values()))
    return [
        (file, start, min(start + size, count))
        for file, count in counts.items()
        for start in range(0, count, size)
    ]


def _records_of_parquet(
    root: str, address: str, rows: list[int], columns: list[str]
) -> Iterator[Record]:
    start, stop = rows
    place = address if "://" in address else os.path.join(root, address)  # noqa: PTH118
    folder, row = os.path.dirname(place), 0  # noqa: PTH120 (of an address too)
    with _open_parquet(place) as file:
        for group in range(file.num_row_groups):
            end = row + file.metadata.row_group(group).num_rows
            chosen = [group] if start < end and row < stop else []
            for batch in file.iter_batches(_AT_ONCE, row_groups=chosen, columns=columns):
                if row >= stop:
                    return
                kept = range(max(start, row), min(stop, row + batch.num_rows))
                inside = batch.slice(min(max(0, start - row), batch.num_rows), len(kept))
                row += batch.num_rows
                values = zip(*(inside[name].to_pylist() for name in columns), strict=True)
                for index, (value, *more) in zip(kept, values, strict=True):
                    caption, problem = (*more, None)[0], "no caption" * (more == [None])
                    yield Record(f"{address}:{index}", _content(value, folder), caption, problem)
            row = end


def _content(value: Any, folder: str) -> str | bytes | None:
    """Take the bytes or the path of a cell, as Hugging Face's datasets have them too."""
    if isinstance(value, dict):
        value = value.get("bytes") or value.get("path")
    return os.path.join(folder, value) if isinstance(value, str) else value  # noqa: PTH118
