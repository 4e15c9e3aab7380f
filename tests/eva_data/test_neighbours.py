"""Features on disk: exact search against numpy, the index against exact search."""

import numpy as np
import pytest

from eva_data.neighbours import Neighbours, build_index

WIDTH = 16


@pytest.fixture(scope="module")
def features():
    chance = np.random.default_rng(0)
    centres = chance.standard_normal((40, WIDTH))
    return (np.repeat(centres, 100, 0) + 0.5 * chance.standard_normal((4000, WIDTH))) * 3


def built(features, folder, *, approximate):
    parts = (
        ([f"{at + one}.jpg" for one in range(len(part))], part)
        for at, part in ((at, features[at : at + 900]) for at in range(0, len(features), 900))
    )
    about = {"count": len(features), "width": WIDTH}
    build_index(parts, folder, about=about, approximate=approximate)
    return Neighbours(folder)


def queries_of(features):
    queries = (features[::400] + 0.1).astype(np.float32)
    return queries / np.linalg.norm(queries, axis=1, keepdims=True)


def test_exact_search_is_numpy_s(features, tmp_path, monkeypatch):
    monkeypatch.setattr("eva_data.neighbours._ROWS", 1000)  # several parts
    index, queries = built(features, tmp_path / "index", approximate=False), queries_of(features)
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    cosines = queries @ unit.astype(np.float16).astype(np.float32).T
    for hits, expected in zip(index.search(queries, top=7), cosines, strict=True):
        best = np.argsort(-expected)[:7]
        assert [name for name, _ in hits] == [f"{row}.jpg" for row in best]
        assert np.allclose([score for _, score in hits], expected[best].clip(-1, 1), atol=1e-3), (
            "half precision"
        )
    assert [len(hits) for hits in index.search(queries[:1], top=9999)] == [4000]


def test_few_features_are_searched_exactly(features, tmp_path):
    index = built(features[:100], tmp_path / "index", approximate=True)
    assert not (tmp_path / "index/index.faiss").exists()
    assert len(index.search(queries_of(features[:100]), top=3)) == 1


@pytest.mark.slow
def test_the_index_finds_what_exact_search_finds(features, tmp_path):
    index, queries = built(features, tmp_path / "index", approximate=True), queries_of(features)
    exact, found = (index.search(queries, top=10, exact=one) for one in (True, False))
    shares = [len(dict(one).keys() & dict(other)) for one, other in zip(exact, found, strict=True)]
    assert np.mean(shares) >= 9.5


def test_what_is_no_index_is_refused(tmp_path):
    with pytest.raises(ValueError, match=str(tmp_path)):
        Neighbours(tmp_path)
