"""Search among features on disk: exact, and by the index of `eva index build`.

    python benchmarks/neighbours.py --features 1000000 --width 128

Features of random clusters; queries are others of them. Yields seconds of a query, medians of 20
with the files in the system's cache, and the share of the ten nearest that the index finds.
"""

import statistics
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from timeit import timeit
from typing import Any

import numpy as np
from measuring import Figure, show

from eva_data.neighbours import Neighbours, build_index
from eva_runs.options import command_parser

_QUERIES, _PART, _IN_CLUSTER, _SPREAD = 20, 50_000, 200, 0.7


def measure(count: int, width: int, folder: Path) -> Iterator[Figure]:
    """Build an index and search in it both ways."""
    chance = np.random.default_rng(0)
    centres = chance.standard_normal((max(1, count // _IN_CLUSTER), width), dtype=np.float32)

    def drawn(number: int) -> Any:
        noise = chance.standard_normal((number, width), dtype=np.float32)
        return centres[chance.integers(len(centres), size=number)] + _SPREAD * noise

    def parts() -> Iterator[tuple[list[str], Any]]:
        for at in range(0, count, _PART):
            number = min(_PART, count - at)
            yield [f"{at + offset}.jpg" for offset in range(number)], drawn(number)

    began = time.perf_counter()
    build_index(parts(), folder, about={"count": count, "width": width}, approximate=True)
    yield "build, seconds", time.perf_counter() - began
    for file in sorted(folder.iterdir()):
        yield f"{file.name}, MiB", file.stat().st_size / 2**20
    index, queries = Neighbours(folder), drawn(_QUERIES)
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)

    def search(query: Any, exact: bool) -> set[str]:
        return {name for name, _ in index.search(query[None], top=10, exact=exact)[0]}

    hits = {exact: [search(query, exact) for query in queries] for exact in (True, False)}
    for exact in hits:
        times = [timeit(partial(search, query, exact), number=1) for query in queries]
        yield f"query, {'exact' if exact else 'index'}, seconds", statistics.median(times)
    shares = [
        len(neighbours & other) / 10 for neighbours, other in zip(*hits.values(), strict=True)
    ]
    yield "recall@10", statistics.mean(shares)


if __name__ == "__main__":
    parser = command_parser(__doc__)
    parser.add_argument("--features", type=int, default=200_000, help="number")
    parser.add_argument("--width", type=int, default=128, help="values of a feature")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        show(measure(args.features, args.width, Path(temporary, "index")), rounds=_QUERIES)
