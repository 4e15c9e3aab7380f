"""`eva data make-kinetics722` on files with the names of Kinetics, in every form that it reads."""

from itertools import chain
from pathlib import Path

import numpy as np
import pytest

from eva_data.kinetics import SOURCES, kinetics_classes, mapping
from eva_data.labelled_videos.lists import youtube_id
from eva_data.labelled_videos.sources import open_videos
from eva_video.kinetics722 import main

CHOSEN = {  # class of each data set -> its spelling on a folder
    "k400": {
        "changing wheel": "changing_wheel",
        "air drumming": "air_drumming",
        "hugging": "hugging",
    },
    "k600": {"changing wheel (not on bike)": "changing wheel (not on bike)", "zumba": "zumba"},
    "k700": {"massaging person's head": "massaging_person_s_head", "abseiling": "abseiling"},
}
LISTS = [f"{name}_{split}.txt" for name in (*SOURCES, "k722") for split in ("train", "val")]


def make_files(folder, seed=0):
    """Write empty files `data set/split/class/name`; of ids, some begin with - or _."""
    chance = np.random.default_rng(seed)
    letters = np.array(list("ab-_0Z"))
    pool = ["".join(chance.choice(letters, 11)) for _ in range(40)]
    for name in SOURCES:
        for split, count in (("train", 25), ("val", 6)):
            for own in CHOSEN[name].values():
                place = folder / name / split / own
                place.mkdir(parents=True)
                for video in chance.choice(pool, count // len(CHOSEN[name]), replace=False):
                    tail = "" if chance.integers(3) == 0 else "_000010_000020"
                    (place / f"{video}{tail}.mp4").touch()


@pytest.fixture
def data(tmp_path, monkeypatch):
    make_files(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*arguments, names=SOURCES, output="out"):
    given = [part for n in names for part in (f"--{n}", f"{n}/train", f"{n}/val")]
    return main([*given, "--output", output, *arguments])


def rows(name, split):
    """(path, class in Kinetics-722) of each file of a data set, sorted as folders are."""
    merged = kinetics_classes("k722")
    labels = dict(zip(kinetics_classes(name), mapping(name), strict=True))
    spelled = sorted((folder, own) for own, folder in CHOSEN[name].items())
    return [
        (f"{name}/{split}/{folder}/{file}", merged[labels[own]])
        for folder, own in spelled
        for file in sorted(path.name for path in Path(name, split, folder).iterdir())
    ]


def without_repeats(lines, *held_out):
    """The rule of the notebook: first by id, then none that is in a validation list."""
    seen = {}
    for path, label in lines:
        seen.setdefault(Path(path).name[:11], (path, label))
    leaks = {Path(path).name[:11] for part in held_out for path, _ in part}
    return [line for video, line in seen.items() if video not in leaks]


def read(output, name):
    """(path, class in Kinetics-722) of the lines of a list."""
    classes = kinetics_classes(name.partition("_")[0])
    aliases = {"changing wheel": "changing wheel (not on bike)"}
    lines = [line.rsplit(" ", 1) for line in (output / name).read_text().splitlines()]
    names = [(Path(path).relative_to(Path.cwd()), classes[int(label)]) for path, label in lines]
    return [(str(path), aliases.get(name, name)) for path, name in names]


def expected(*, leaks=False, other=None):
    """The lists by the rule; `other` replaces what lies in folders."""
    train, val = (
        {name: (other or {}).get((name, split)) or rows(name, split) for name in SOURCES}
        for split in ("train", "val")
    )
    lists = {}
    for name in SOURCES:
        held_out = [] if leaks and name == "k400" else [val[name]]
        lists[f"{name}_train.txt"] = without_repeats(train[name], *held_out)
        lists[f"{name}_val.txt"] = without_repeats(val[name])
    lists["k722_train.txt"] = without_repeats(chain.from_iterable(train.values()), *val.values())
    lists["k722_val.txt"] = without_repeats(chain.from_iterable(val.values()))
    return lists


@pytest.mark.parametrize("leaks", [False, True])
def test_the_lists_are_the_notebooks_and_open_with_their_classes(data, leaks):
    assert run(*["--keep-k400-leaks"] * leaks) == 0
    lists = expected(leaks=leaks)
    assert {name: read(data / "out", name) for name in LISTS} == lists
    assert any(len(lists[f"{name}_train.txt"]) < len(rows(name, "train")) for name in SOURCES)
    for name in (*SOURCES, "k722"):
        classes = data / "out" / f"{name}_classes.txt"
        videos = open_videos(data / "out" / f"{name}_train.txt", root=data, classes=classes)
        assert videos.classes == kinetics_classes(name)
        assert len(videos) == len(lists[f"{name}_train.txt"])
        assert len(videos.missing) == 0
    for name in SOURCES:
        rows_of_head = np.load(data / "out" / f"k722_to_{name}_mapping.npy")
        assert rows_of_head.tolist() == mapping(name).tolist()
    table = (data / "out" / "classes.csv").read_text().splitlines()
    assert [len(table), table[0][:19]] == [723, "name,k400,k600,k700"]


def test_deepminds_lists_beside_flat_folders(data, caplog):
    """K-700 as cvdf has it: ids and times in a table, `ID_000010_000020.mp4` or `ID.mp4`."""
    other, given = {}, ["--k700", "annotations/train.csv", "annotations/val.csv"]
    Path("annotations").mkdir()
    for split in ("train", "val"):
        flat = Path("flat", split)
        flat.mkdir(parents=True)
        lines, moved = ["label,youtube_id,time_start,time_end,split"], []
        for path, label in without_repeats(rows("k700", split)):
            Path(path).rename(flat / Path(path).name)
            moved.append((f"flat/{split}/{Path(path).name}", label))
            lines.append(f"{label},{Path(path).name[:11]},10,20,{split}")
        lines.insert(3, f"abseiling,removed0000,0,10,{split}")
        Path("annotations", f"{split}.csv").write_text("\n".join(lines) + "\n")
        other["k700", split] = moved
    for name in ("k400", "k600"):
        given += [f"--{name}", f"{name}/train", f"{name}/val"]
    folders = ["--k700-videos", "flat/train", "flat/val", "--k400-videos", "-", "-"]
    assert main([*given, *folders, "--output", "out"]) == 0
    assert {name: read(data / "out", name) for name in LISTS} == expected(other=other)
    assert "removed0000" in caplog.text


def test_a_list_in_the_output_is_not_replaced(data):
    assert run(names=["k400"]) == 0
    before = (data / "out" / "k400_train.txt").read_bytes()
    lists = ["--k400", "out/k400_train.txt", "out/k400_val.txt"]
    with pytest.raises(SystemExit, match="1"):
        main([*lists, "--output", "out", "--overwrite"])
    assert (data / "out" / "k400_train.txt").read_bytes() == before
    (data / "out" / "notes.txt").touch()
    with pytest.raises(SystemExit, match="1"):
        run("--overwrite", names=["k400"])


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
