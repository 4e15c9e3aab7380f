"""Records of an input of any size in shards: folders, lists, tables, tar shards, Parquet, texts.

`plan_records` cuts an input once; `read_shard` reads any shard at any time after. Records pass one
by one, so that memory does not grow with the input.
"""

import contextlib
import hashlib
import os
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from eva_data import files, saving
from eva_data.captions import lists
from eva_data.checks.findings import Findings
from eva_data.files import IMAGE_SUFFIXES, LISTED_IMAGE_SUFFIXES
from eva_data.images import UnreadableImageError, read_image
from eva_data.manifests import file_and_split
from eva_data.tables import find_columns, text_lines
from eva_data.tar import Member, expand_braces, expand_shards, find_members, shard_pattern

NAMES = "names{}.parquet"  # a row group for each shard; of several plans the manifest names one
_MOST, _LEAST, _FEW = 4096, 64, 32  # records of a shard at most and at least; shards
_IMAGES = ("image", "img", "jpg", "jpeg", "png", "webp", "bytes", "image_bytes", "content")
_COLUMNS = {"image": (*_IMAGES, *lists.IMAGE_COLUMNS), "caption": lists.CAPTION_COLUMNS}
_TABLES = (".csv", ".tsv", ".json")
_AT_ONCE = 64  # rows of a Parquet file in memory


class Record(NamedTuple):
    """An image or a text by its name; nothing is decoded yet."""

    name: str  # path of the image, its place in a shard, or the text
    content: str | bytes | None  # path or bytes; None for a text
    caption: str | list[str] | None = None  # None for that of the text file beside the path

    def image(self) -> Image.Image:
        """Decode the image as RGB, upright by its EXIF data, or raise `UnreadableImageError`."""
        if self.content is None:
            raise UnreadableImageError(f"{self.name} has no image")
        return read_image(self.content, upright=True, name=self.name)

    def text(self) -> str:
        """Return the caption, the first of several, or raise an OSError."""
        if self.caption is None and isinstance(self.content, str):
            file = Path(self.content).with_suffix(".txt")
            return lists.read_captions(lambda: files.read_regular(file), str(file))[0]
        if self.caption is None and self.content is not None:
            raise lists.UnreadableCaptionError(f"{self.name} has no caption")
        if self.caption is None:
            return self.name
        first = self.caption[:1] if isinstance(self.caption, list) else self.caption
        return lists.captions_of(first, self.name)[0]


def plan_records(
    inputs: Sequence[str],
    folder: Path,
    *,
    size: int | None = None,
    limit: int | None = None,
    texts: bool = False,
    captions: bool = False,
    columns: Sequence[str | None] = (None, None),
) -> dict[str, Any]:
    """Cut an input into shards.

    Args:
        inputs: Folders, images, lists of paths or, with `texts`, of texts, a line each; or tar
            shards or Parquet files, also as patterns and addresses of fsspec such as
            `s3://bucket/{0000..0099}.tar`; or tables (CSV, TSV) and JSON lists with the images'
            paths, as training on captions reads them.
        folder: Where `NAMES` is written if there are no shards.
        size: Records of a shard; by default 4096, or fewer for 32 shards. Each tar file is one.
        limit: Number of the first records, which are taken alone.
        texts: Whether lists are of texts.
        captions: Whether images need captions.
        columns: Those of images and captions in tables; None is found by its usual names.

    Returns:
        What `read_shard` needs, for JSON; `shards` is their number.

    Raises:
        ValueError: If there is no record, or no such column.
        OSError: If there is no such file.
    """
    plan: dict[str, Any] = {"root": str(Path.cwd()), "captions": captions, "texts": texts}
    shards = [] if texts else [file for path in inputs for file in _shards(path)]
    if shards:
        if shards[0].endswith(".parquet"):
            plan["columns"] = _find_columns(shards[0], columns, captions)
        plan["places"] = (_cut_parquet if "columns" in plan else _cut_tar)(shards, size, limit)
        plan["shards"] = len(plan["places"])
    else:
        names = chain.from_iterable(_names(path, texts, captions, columns) for path in inputs)
        plan["names"] = NAMES.format(f"-{os.urandom(4).hex()}")
        plan["shards"] = _write_names(islice(names, limit), folder / plan["names"], size)
    if not plan["shards"]:
        raise ValueError(f"{', '.join(inputs)}: no image there, of {LISTED_IMAGE_SUFFIXES}")
    return plan


def read_shard(plan: dict[str, Any], folder: Path, number: int) -> Iterator[Record]:
    """Yield the records of a shard, in the order of the input."""
    if "places" in plan:
        address, *rows = plan["places"][number]
        read = _records_of_parquet if "columns" in plan else _records_of_tar
        yield from read(plan, address, *rows)
        return
    with _open_parquet(str(folder / plan.get("names", NAMES.format("")))) as file:
        rows = file.read_row_group(number).to_pylist()
        names = [os.fsdecode(row["name"]) for row in rows]  # a damaged file may have no such column
    for name, row in zip(names, rows, strict=True):
        yield Record(name, None if plan["texts"] else _place(plan, name), row.get("caption"))


def identify(inputs: Sequence[str]) -> str:
    """Compute a hash of names, sizes of shards and content of lists; folders are not searched."""
    digest = hashlib.sha256()
    for name in chain.from_iterable(_shards(path) or [path] for path in inputs):
        path, _ = file_and_split(Path(name))
        digest.update(os.fsencode(name))
        if path.suffix in (".tar", ".parquet") and path.is_file():
            digest.update(str(path.stat().st_size).encode())
        elif path.is_file() and path.suffix.lower() not in IMAGE_SUFFIXES:
            with path.open("rb") as stream:
                digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()


def _shards(location: str) -> list[str]:
    """List the tar or Parquet files of a pattern; none for other inputs."""
    pattern = location if location.endswith(".parquet") else shard_pattern(Path(location))
    if pattern is None:
        return []
    if "://" not in location:
        return [str(path) for path in expand_shards(pattern)]
    shards: list[str] = []
    for address in expand_braces(location):
        system, path = fsspec.url_to_fs(address)
        paths = sorted(system.glob(path)) if any(sign in path for sign in "*?[") else [path]
        shards += map(system.unstrip_protocol, paths)
    if not shards:
        raise ValueError(f"there is no file {location}")
    return shards


def _place(plan: dict[str, Any], name: str) -> str:
    """Complete a path, which may be relative to the folder where the plan was made."""
    return name if "://" in name else os.path.join(plan["root"], name)  # noqa: PTH118 (millions)


def _names(
    location: str, texts: bool, captions: bool, columns: Sequence[str | None]
) -> Iterator[tuple[str, str | None]]:
    """Yield paths of images with the captions of a list that has them, or texts."""
    path, split = file_and_split(Path(location))
    if path.is_dir():
        folder = location.rstrip("/")
        for name in files.find_files(path, IMAGE_SUFFIXES):
            yield f"{folder}/{name}", None
    elif path.suffix.lower() in IMAGE_SUFFIXES and not texts:
        files.require_regular_file(path)
        yield location, None
    elif texts or path.suffix.lower() not in _TABLES or not (captions or _has_header(path)):
        for _, line in text_lines(path):
            yield line if texts else str(path.parent / line), None
    else:
        left_out, previous = Findings(lists.LEFT_OUT), ""
        image, caption = columns
        if captions:
            pairs = lists.pairs_of_list(path, left_out, split=split, image=image, caption=caption)
            yield from ((str(path.parent / name), text) for name, text in pairs)
        else:
            for name in lists.images_of_list(path, left_out, split=split, image=image):
                if name != previous:  # of several captions, or boxes
                    yield str(path.parent / name), None
                previous = name
        left_out.warn(path)


def _has_header(table: Path) -> bool:
    """Return whether a list begins with names, as JSON does, and not with the path of an image."""
    if table.suffix.lower() == ".json":  # which may be one line of any length
        return True
    columns = find_columns(table, {"image": lists.IMAGE_COLUMNS})
    return len(columns.names) != 1 or Path(columns.names[0]).suffix.lower() not in IMAGE_SUFFIXES


def _write_names(names: Iterator[tuple[str, str | None]], file: Path, size: int | None) -> int:
    """Write names and captions; return the number of shards."""
    ahead = list(islice(names, _MOST * _FEW))
    names, size, count = chain(ahead, names), size or _usual(len(ahead)), 0
    schema = pa.schema({"name": pa.binary(), "caption": pa.string()})
    with (
        saving.replace_file(file) as part,
        pq.ParquetWriter(part, schema, write_page_checksum=True) as writer,
    ):
        while chunk := [(os.fsencode(name), caption) for name, caption in islice(names, size)]:
            columns = [*zip(*chunk, strict=True)]
            writer.write_table(pa.table(columns, schema=schema), row_group_size=size)
            count += 1
    return count


def _usual(count: int) -> int:
    return max(_LEAST, min(_MOST, -(-count // _FEW)))


# ---- tar shards ----------------------------------------------------------------------------------
def _cut_tar(shards: Iterable[str], _: int | None, limit: int | None) -> list[Any]:
    if limit is None:
        return [(file, None) for file in shards]
    places, plan = list[Any](), {"root": "", "captions": False}
    for file in shards:  # are read for this
        count = sum(1 for _ in _records_of_tar(plan, file, limit))
        places.append((file, count))
        limit -= count
        if not limit:
            break
    return places


def _records_of_tar(plan: dict[str, Any], address: str, limit: int | None) -> Iterator[Record]:
    kinds = {".txt", ".json"} if plan["captions"] else set[str]()
    with _local(_place(plan, address)) as shard, files.open_regular(shard) as stream:

        def read(member: Member) -> bytes:
            stream.seek(member.offset)
            return stream.read(member.size)

        members = list(find_members(shard, IMAGE_SUFFIXES | kinds))
        texts = {member.key: member for member in members if member.suffix == ".json"}
        texts |= {member.key: member for member in members if member.suffix == ".txt"}
        for member in islice((member for member in members if member.suffix not in kinds), limit):
            name, caption = f"{address}:{member.name}", None
            if label := texts.get(member.key):
                is_json = label.suffix == ".json"
                with contextlib.suppress(lists.UnreadableCaptionError):
                    caption = lists.read_captions(partial(read, label), name, is_json=is_json)[0]
            yield Record(name, read(member), caption)


@contextlib.contextmanager
def _local(address: str) -> Iterator[Path]:
    """Give the path of a file, or of a copy of one in another file system."""
    if "://" not in address:
        yield Path(address)
        return
    system, path = fsspec.url_to_fs(address)
    with tempfile.TemporaryFile() as copy:  # has no name, so that it ends with its process
        try:
            system.get_file(path, f"/dev/fd/{copy.fileno()}")
            yield Path(f"/dev/fd/{copy.fileno()}")
        except ValueError as error:
            raise ValueError(f"{address}: {error}") from error


# ---- Parquet -------------------------------------------------------------------------------------
@contextlib.contextmanager
def _open_parquet(address: str) -> Iterator[Any]:
    system, path = fsspec.url_to_fs(address)
    checks = {"pre_buffer": False, "page_checksum_verification": True}
    try:
        with pq.ParquetFile(path, filesystem=system, **checks) as file:
            yield file
    except (pa.ArrowException, OSError, LookupError) as error:
        raise ValueError(f"{address} is not a Parquet file, or is damaged: {error}") from error


def _find_columns(address: str, requested: Sequence[str | None], captions: bool) -> list[str]:
    """Find the column of the images and, if they are wanted, that of the captions."""
    with _open_parquet(address) as file:
        names, columns = file.schema_arrow.names, list[str]()
    for role, name in zip(
        ("image", "caption") if captions else ("image",), requested, strict=False
    ):
        candidates = [name] if name else _COLUMNS[role]
        column = next((column for column in candidates if column in names), None)
        if column is None:
            message = f"{address} has the columns {', '.join(names)}: name one with --{role}-column"
            raise ValueError(message)
        columns.append(column)
    return columns


def _cut_parquet(shards: Iterable[str], size: int | None, limit: int | None) -> list[Any]:
    counts, left = dict[str, int](), sys.maxsize if limit is None else limit
    for file in shards:
        with _open_parquet(file) as opened:
            counts[file] = min(left, opened.metadata.num_rows)
        left -= counts[file]
        if not left:
            break
    size = size or _usual(sum(counts.values()))
    return [
        (file, start, min(start + size, count))
        for file, count in counts.items()
        for start in range(0, count, size)
    ]


def _records_of_parquet(
    plan: dict[str, Any], address: str, start: int, stop: int
) -> Iterator[Record]:
    location, columns, row = _place(plan, address), plan["columns"], 0
    with _open_parquet(location) as file:
        for group in range(file.num_row_groups):
            end = row + file.metadata.row_group(group).num_rows
            groups = [group] if start < end and row < stop else []
            for batch in file.iter_batches(_AT_ONCE, row_groups=groups, columns=columns):
                if row >= stop:
                    return
                selected_rows = range(max(start, row), min(stop, row + batch.num_rows))
                inside = batch.slice(min(max(0, start - row), batch.num_rows), len(selected_rows))
                row += batch.num_rows
                values = zip(*(inside[name].to_pylist() for name in columns), strict=True)
                for index, (value, *caption) in zip(selected_rows, values, strict=True):
                    if isinstance(value, dict):  # as Hugging Face's datasets have it
                        value = value.get("bytes") or value.get("path")
                    if isinstance(value, str):
                        value = os.path.join(os.path.dirname(location), value)  # noqa: PTH118, PTH120
                    yield Record(f"{address}:{index}", value, *caption)
            row = end
