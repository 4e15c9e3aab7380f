"""The files of results in shards: a manifest, a Parquet file for each shard, and its errors."""

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from eva_data import saving
from eva_data.files import load_object
from eva_data.saving import replace_file, write_text
from eva_runs.errors import single_line_message
from eva_runs.output_folder import match_recorded_settings

MANIFEST, SETTINGS, PARTS = "manifest.json", "settings.json", "parts"
WRITING: Any = {"compression": "zstd", "write_page_checksum": True}


class Summary(NamedTuple):
    """What there is of an output folder."""

    shards: int
    done: set[int]
    failed: dict[int, str]  # with the reasons
    errors: dict[int, int]  # shard -> number of records that could not be read
    rows: int  # results


def summarise(folder: Path, *, rows: bool = False) -> Summary:
    """Look at what there is of an output folder; with `rows`, find damaged files, as failed."""
    done, failed, errors, count = set[int](), dict[int, str](), dict[int, int](), 0
    shards = read_manifest(folder)["plan"]["shards"]
    for file in sorted((folder / PARTS).glob("part-*")):
        stem, _, kind = file.name.partition(".")
        number = int(digits) if (digits := stem.removeprefix("part-")).isdecimal() else shards
        if number >= shards:
            continue
        if kind == "errors.jsonl":
            errors[number] = file.read_bytes().count(b"\n")
        elif kind == "failed.txt":
            failed[number] = file.read_text(errors="replace").strip().rpartition("\n")[2]
        elif kind == "parquet":
            try:
                count += pq.read_metadata(file).num_rows if rows else 0
                done.add(number)
            except (pa.ArrowException, OSError) as error:
                failed[number] = f"{file} is damaged ({single_line_message(error)})"
    return Summary(shards, done, failed, errors, count)


def write_manifest(
    folder: Path, settings: dict[str, Any], options: dict[str, Any], plan: Callable[[], Any]
) -> None:
    """Write the manifest of an output folder once; a ValueError if it has other settings."""
    saving.make_folder(folder / PARTS)
    begun = (folder / MANIFEST).exists()
    own = {} if begun else plan()
    match_recorded_settings(folder / SETTINGS, settings)
    if not begun:
        manifest = json.loads(json.dumps({"options": options, "plan": own}))
        content = json.dumps(manifest | {"sha256": _digest_of(manifest)}) + "\n"
        write_text(folder / MANIFEST, content, once=True)
    if "names" in own and read_manifest(folder)["plan"] != own:  # another process was first
        (folder / own["names"]).unlink()


def read_manifest(folder: Path) -> dict[str, Any]:
    """Read the manifest of an output folder; an OSError if there is none."""
    manifest = load_object(folder / MANIFEST)
    noted = manifest.pop("sha256", None)
    if {*manifest} != {"options", "plan"} or noted != _digest_of(manifest):
        raise ValueError(f"{folder / MANIFEST} is damaged: compute it again in another folder")
    return manifest


def _digest_of(manifest: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(manifest).encode()).hexdigest()


def part_of(folder: Path, number: int) -> Path:
    """Name the results of a shard."""
    return folder / PARTS / f"part-{number:06}.parquet"


def read_parts(folder: Path) -> Iterator[pa.Table]:
    """Yield the row groups of all results in order; a ValueError if one is missing or damaged."""
    parts = [part_of(folder, number) for number in range(read_manifest(folder)["plan"]["shards"])]
    missing = [part.name for part in parts if not part.is_file()]
    if missing:
        message = f"{folder} lacks {len(missing)} of {len(parts)} shards, such as {missing[0]}"
        raise ValueError(f"{message}: run the same command again to complete it")
    for part in parts:
        try:
            with pq.ParquetFile(part, pre_buffer=False, page_checksum_verification=True) as file:
                yield from map(file.read_row_group, range(file.num_row_groups))
        except (pa.ArrowException, OSError) as error:
            message = f"{part} is damaged ({error}): delete it and run the same command again"
            raise ValueError(message) from error


def merge_parts(folder: Path, file: Path) -> int:
    """Merge all results into one Parquet file; return the number of rows."""
    count, schema = 0, next(read_parts(folder)).schema
    with replace_file(file) as part, pq.ParquetWriter(part, schema, **WRITING) as writer:
        for table in read_parts(folder):
            writer.write_table(table)
            count += len(table)
    return count
