"""The classes of Kinetics beside torchvision's and the counts and sums of the official files."""

import numpy as np
import pytest
from torchvision.models._meta import _KINETICS400_CATEGORIES

from eva_data.kinetics import (
    ALIASES,
    SOURCES,
    find_classes,
    kinetics_classes,
    mapping,
    official_classes,
)

# Sums of the official k722_to_k400_mapping.npy and so on.
SUMS = {"k400": 141636, "k600": 214501, "k700": 251778}


def in_k722(name):
    """Names of the classes of a data set, as Kinetics-722 calls them."""
    return {ALIASES[name].get(own, own) for own in kinetics_classes(name)}


def test_k400_is_torchvisions():
    assert list(kinetics_classes("k400")) == _KINETICS400_CATEGORIES


def test_k722_is_the_union_by_three_aliases():
    names = [in_k722(name) for name in SOURCES]
    assert sorted(set().union(*names)) == list(kinetics_classes("k722"))
    k400, k600, k700 = names
    overlaps = [k400 & k600, k600 & k700, k400 & k700, k400 & k600 & k700]
    assert [len(both) for both in overlaps] == [371, 597, 380, 370]
    assert k600 - k700 == {"bull fighting", "chopping vegetables", "picking fruit"}
    raw = set().union(*(kinetics_classes(name) for name in SOURCES))
    assert len(raw) == 725  # what the official notebook makes of folders with the raw names
    assert sum(map(len, ALIASES.values())) == 3


@pytest.mark.parametrize("name", SOURCES)
def test_mappings_are_the_official_ones(name):
    rows = mapping(name)
    assert rows.dtype == np.int64
    assert rows.sum() == SUMS[name]
    assert (np.diff(rows) > 0).all()
    for label, own in enumerate(kinetics_classes(name)):
        assert kinetics_classes("k722")[rows[label]] == ALIASES[name].get(own, own)


def test_official_weights_are_known_by_the_rows_of_their_heads():
    for rows in (400, 600, 700, 722):
        assert official_classes(rows) == kinetics_classes(f"k{rows}")
    assert official_classes(710) is None  # another order than EVA's would have
    assert official_classes(8) is None


def test_names_of_folders():
    folders = [
        "air_drumming", "passing_American_football_(in_game)", "massaging_person_s_head",
        "massaging persons head", "changing_wheel", "changing wheel (not on bike)", "Zumba",
    ]  # fmt: skip
    merged = [kinetics_classes("k722")[label] for label in find_classes(folders, "k400")]
    assert merged == [
        "air drumming", "passing American football (in game)", "massaging person's head",
        "massaging person's head", *["changing wheel (not on bike)"] * 2, "zumba",
    ]  # fmt: skip
    for name in SOURCES:  # no two classes have one spelling
        underscored = [own.replace(" ", "_") for own in kinetics_classes(name)]
        assert find_classes(underscored, name).tolist() == mapping(name).tolist()
    with pytest.raises(ValueError, match=r"abseilng, qqqq.* abseiling"):
        find_classes(["abseiling", "abseilng", "qqqq"], "k400")
