"""Which videos stay, beside the steps of the official notebook in plain Python."""

import numpy as np
import pytest

from eva_data.labelled_videos.lists import youtube_id
from eva_video.kinetics722 import Videos, concatenated, merge

SETS = ("k400", "k600", "k700")


def videos(*pairs):
    return Videos(
        ids=np.array([name for name, _ in pairs], dtype="S11"),
        labels=np.array([label for _, label in pairs], dtype=np.int64),
    )


def random_videos(chance, count, pool):
    """Videos of which many share an id, with labels that need not agree."""
    ids = [f"{number:011d}" for number in chance.integers(0, pool, count)]
    return videos(*zip(ids, chance.integers(0, 5, count).tolist(), strict=True))


def without_repeats(rows):
    first = {}
    for row in rows:
        first.setdefault(row[1], row)
    return list(first.values())


def notebook(train, val, *, keep_k400_leaks):
    """Do as the notebook: drop repeats, then what is in validation; rows are (position, id)."""

    def rows(part):
        return list(enumerate(part.ids.tolist()))

    def ids(part):
        return set(part.ids.tolist())

    lists = {}
    for name in train:
        kept = without_repeats(rows(train[name]))
        if name != "k400" or not keep_k400_leaks:
            kept = [row for row in kept if row[1] not in ids(val[name])]
        lists[f"{name}_train"] = kept
        lists[f"{name}_val"] = without_repeats(rows(val[name]))
    kept = without_repeats(rows(concatenated(train.values())))
    for part in val.values():
        kept = [row for row in kept if row[1] not in ids(part)]
    lists["k722_train"] = kept
    lists["k722_val"] = without_repeats(rows(concatenated(val.values())))
    return {name: [position for position, _ in rows] for name, rows in lists.items()}


@pytest.mark.parametrize("leaks", [False, True])
@pytest.mark.parametrize("seed", range(6))
def test_as_the_official_notebook(seed, leaks):
    chance = np.random.default_rng(seed)
    names = SETS if seed else SETS[1:]
    train = {name: random_videos(chance, 120, 200) for name in names}
    val = {name: random_videos(chance, 30, 200) for name in names}
    lists = merge(train, val, keep_k400_leaks=leaks)
    expected = notebook(train, val, keep_k400_leaks=leaks)
    assert {name: kept.kept.tolist() for name, kept in lists.items()} == expected
    for kept in lists.values():
        left = set(kept.videos.ids.tolist())
        assert kept.repeated == kept.videos.ids.size - len(left)
        assert kept.leaked == len(left) - kept.kept.size


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("-3B32lodo2M_000059_000069.mp4", "-3B32lodo2M"),
        ("a_b-c_d-e_f_000010_000020.webm", "a_b-c_d-e_f"),
        ("12345678901", "12345678901"),  # a folder of frames
        ("abcdefghij__10_20 (1).mp4", "abcdefghij_"),
        ("abcdefghijk_4.5_14.5.mp4", "abcdefghijk"),
        ("abcdefghij.mp4", None),
        ("video_000123_000001.mp4", None),
        ("abseiling_clip_0001.mp4", None),
    ],
)
def test_ids_of_file_names(name, found):
    assert youtube_id(name, sure=True) == found
    assert youtube_id(f"any folder/{name}", sure=True) == found
