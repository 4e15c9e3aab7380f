"""Nearest neighbours among features on disk: exact, or by an index of faiss.

Exact search reads all features, of unit length in half precision, through a memory map. The index
(IVF-PQ: Jegou et al., 2011, https://doi.org/10.1109/TPAMI.2010.57) reads few, and what it finds is
compared again with the exact features.

Shapes: N features of D values, Q queries.
"""

import hashlib
import json
import math
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from eva_data.files import load_object, open_regular
from eva_data.progress import ProgressBar
from eva_data.saving import replace_folder, write_text

ABOUT, NAMES, FEATURES, FAISS = "index.json", "names.arrow", "features.npy", "index.faiss"
_ROWS = 65536  # that are compared, or added, at once
_LEAST = 256  # features, for faiss to learn codes of 8 bits
_TRAINED = 64  # samples for each cell
_VALUES = 16  # of a feature that become one byte in the index
_PROBED, _CHECKED = 64, 1000  # cells; candidates that are compared again
Hits = list[tuple[str, float]]  # names, and cosines in falling order


def build_index(
    parts: Iterable[tuple[Sequence[str], NDArray[Any]]],
    folder: Path,
    *,
    about: dict[str, Any],
    approximate: bool,
) -> None:
    """Write an index of parts of names and features (n, D), completely or not at all.

    Args:
        parts: All features.
        folder: What is written; it replaces another index.
        about: N as `count`, D as `width`, and what else the features are.
        approximate: Add an index of faiss to the features.
    """
    with replace_folder(folder) as temporary:
        count, width = about["count"], about["width"]
        features = np.lib.format.open_memmap(temporary / FEATURES, "w+", np.float16, (count, width))
        schema, done = pa.schema({"name": pa.large_string(), "crc32": pa.uint32()}), 0
        with (
            pa.OSFile(str(temporary / NAMES), "wb") as file,
            pa.ipc.new_file(file, schema) as writer,
            ProgressBar(count, title="copying", unit="feature") as bar,
        ):
            for names, values in parts:
                lengths = np.linalg.norm(values.astype(np.float32), axis=1, keepdims=True)
                if values.shape[1:] != (width,) or not np.isfinite(lengths).all():
                    raise ValueError(f"features of {names[0]} ... are not {width} finite values")
                features[done : done + len(values)] = values / np.maximum(lengths, 1e-12)
                rows = [*map(zlib.crc32, np.asarray(features[done : done + len(values)]))]
                writer.write_batch(pa.record_batch([names, rows], schema))
                done += len(values)
                bar.update(len(values))
        features.flush()
        if approximate and count >= _LEAST:
            _build_faiss(features, temporary / FAISS)
        digests = {name: _digest_of(temporary / name) for name in (NAMES, FAISS)}
        write_text(temporary / ABOUT, json.dumps(about | {"files": digests}) + "\n")


def _digest_of(file: Path) -> str | None:
    if not file.exists():
        return None
    with open_regular(file) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _build_faiss(features: NDArray[np.float16], file: Path) -> None:
    import faiss

    count, width = features.shape
    cells = 2 ** round(math.log2(4 * math.sqrt(count)))
    most = max(8, width // _VALUES)
    pieces = max(n for n in range(1, min(most, width) + 1) if width % n == 0)
    index: Any = faiss.index_factory(width, f"IVF{cells},PQ{pieces}", faiss.METRIC_INNER_PRODUCT)
    index.do_polysemous_training = False  # ten seconds for an order of codes that no search uses
    index.pq.cp.max_points_per_centroid = _TRAINED  # as for cells; its default takes minutes
    sample = np.random.default_rng(0).choice(count, min(count, _TRAINED * cells), replace=False)
    index.train(features[np.sort(sample)].astype(np.float32))
    with ProgressBar(count, title="indexing", unit="feature") as bar:
        for at in range(0, count, _ROWS):
            part = features[at : at + _ROWS].astype(np.float32)
            index.add(part)
            bar.update(len(part))
    faiss.write_index(index, str(file))


class Neighbours:
    """An index that `build_index` wrote, of which no feature is read before a search.

    Features are compared with their checksums when they are read first, all else at once.

    Attributes:
        about: What the features are.

    Raises:
        ValueError: If there is none, or it is damaged, which a search may also find.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._seen = folder, set[int]()  # starts of blocks that are whole
        try:
            self.about = load_object(folder / ABOUT)
            for name in (NAMES, FAISS):
                if self.about["files"][name] != _digest_of(folder / name):
                    raise ValueError(f"{name} is not the one that was written")
            table = pa.ipc.open_file(pa.memory_map(str(folder / NAMES))).read_all()
            self._names, self._checksums = table["name"], table["crc32"]
            # "c": torch takes no array that it could not write to
            self.features = np.asarray(np.load(folder / FEATURES, mmap_mode="c"))
            form = self.features.dtype.str, self.features.shape, self.features.flags.c_contiguous
            if form != ("<f2", (len(table), self.about["width"]), True):
                raise ValueError(f"{FEATURES} holds {self.features.dtype} {self.features.shape}")
        except Exception as error:  # numpy's readers raise errors of many kinds
            message = f"{folder} is no index of `eva index build`, or is damaged: build it again"
            raise ValueError(f"{message} ({type(error).__name__}: {error})") from error
        self._faiss: Any = None
        if (folder / FAISS).exists():
            import faiss

            flags = faiss.IO_FLAG_MMAP | faiss.IO_FLAG_READ_ONLY
            self._faiss = faiss.read_index(str(folder / FAISS), flags)
            self._faiss.nprobe = _PROBED

    def search(self, queries: NDArray[np.float32], *, top: int, exact: bool = False) -> list[Hits]:
        """Find the features with the largest cosines for each query (Q, D) of unit length."""
        top = min(top, len(self.features))
        if self._faiss is None or exact:
            scores, rows = self._exact(queries, top)
        else:
            _, candidates = self._faiss.search(queries, max(_CHECKED, 10 * top))
            pairs = [self._compared(*pair, top) for pair in zip(queries, candidates, strict=True)]
            scores, rows = ([pair[part] for pair in pairs] for part in (0, 1))
        names = [self._names.take(pa.array(of)).to_pylist() for of in rows]
        return [
            list(zip(neighbours, np.clip(of, -1, 1).tolist(), strict=True))
            for neighbours, of in zip(names, scores, strict=True)
        ]

    def _exact(self, queries: NDArray[np.float32], top: int) -> tuple[Any, Any]:
        import torch

        query_tensor = torch.from_numpy(queries)
        scores = torch.empty(len(queries), 0)
        rows = torch.empty(len(queries), 0, dtype=torch.int64)
        for at in range(0, len(self.features), _ROWS):
            if at not in self._seen:
                self._require_whole(range(at, min(at + _ROWS, len(self.features))))
                self._seen.add(at)
            part = torch.from_numpy(self.features[at : at + _ROWS]).float()
            best_scores, places = (query_tensor @ part.T).topk(min(top, len(part)), dim=1)
            both = torch.cat([scores, best_scores], dim=1)
            scores, best = both.topk(min(top, both.shape[1]), dim=1)
            rows = torch.cat([rows, places + at], dim=1).gather(1, best)
        return scores.numpy(), rows.numpy()

    def _compared(self, query: Any, candidates: Any, top: int) -> tuple[Any, Any]:
        rows = np.sort(candidates[candidates >= 0])
        self._require_whole(rows)
        scores = self.features[rows].astype(np.float32) @ query
        best = np.argsort(-scores, kind="stable")[:top]
        return scores[best], rows[best]

    def _require_whole(self, rows: Any) -> None:
        noted = self._checksums.take(pa.array(rows)).to_pylist()
        for row, checksum in zip(rows, noted, strict=True):
            if zlib.crc32(self.features[row]) != checksum:
                message = (
                    f"{self._folder / FEATURES} is damaged in row {row}: build the index again"
                )
                raise ValueError(message)
