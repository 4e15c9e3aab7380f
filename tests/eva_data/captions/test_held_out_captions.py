"""A share of the pairs held out: by the names of the pictures, whatever form they are in."""

import json

import pytest

from eva_data.captions.sources import open_captions

COUNT = 40


@pytest.fixture
def photos(tmp_path, png, write_tar):
    """One set as a folder with texts, a table with two captions of each, a list, and shards."""
    folder = tmp_path / "photos"
    folder.mkdir()
    members, lines, entries = [], ["file;title"], []
    for number in range(COUNT):
        name = f"{number:04}"
        (folder / f"{name}.png").write_bytes(png(number))
        (folder / f"{name}.txt").write_text(f"picture {number}")
        lines += [f"{name}.png;picture {number}", f"./{name}.png;number {number}"]
        entries.append({"image": str(folder / f"{name}.png"), "caption": [f"picture {number}"]})
        members += [(f"{name}.png", png(number)), (f"{name}.txt", f"picture {number}".encode())]
    (tmp_path / "pairs.csv").write_text("\n".join(lines))
    (tmp_path / "pairs.json").write_text(json.dumps(entries))
    for part in (0, 1):
        half = members[part * COUNT : (part + 1) * COUNT]
        write_tar(tmp_path / f"{part}.tar", half)
    return tmp_path


def stems(pairs):
    return [pairs.name(index).rpartition("/")[2].partition(".")[0] for index in range(len(pairs))]


def test_every_form_gives_the_same_pictures(photos):
    forms = {
        "folder": open_captions(photos / "photos"),
        "table": open_captions(photos / "pairs.csv", root=photos / "photos"),
        "list": open_captions(photos / "pairs.json", root=photos / "photos"),
        "shards": open_captions(photos / "{0,1}.tar"),
    }
    parts = {name: pairs.hold_out(0.2, name="data.val_share") for name, pairs in forms.items()}
    chosen = {name: sorted({*stems(held)}) for name, (_, held) in parts.items()}
    assert chosen["folder"] == chosen["table"] == chosen["list"] == chosen["shards"]
    assert 2 < len(chosen["folder"]) < 16
    for train, held in parts.values():
        assert not {*stems(train)} & {*stems(held)}
        assert {*stems(train), *stems(held)} == {f"{number:04}" for number in range(COUNT)}
        assert len(stems(held)) == len({*stems(held)})
        for index in range(len(held)):
            number = int(stems(held)[index])
            assert held.captions(index)[0] == f"picture {number}"
            assert held.image(index).getpixel((0, 0))[0] == number
    train, held = parts["folder"]
    assert train.checksum() != held.checksum() != forms["folder"].checksum()
    with pytest.raises(IndexError):
        held.image(len(held))


def test_of_a_manifest_a_picture_is_evaluated_once(photos):
    (photos / "all.toml").write_text(
        '[[source]]\nname = "a"\nfolder = "photos"\nweight = 3\n'
        '[[source]]\nname = "b"\nshards = "{0,1}.tar"\n'
    )
    pairs = open_captions(photos / "all.toml")
    assert len(pairs) == 4 * COUNT
    train, held = pairs.hold_out(0.2, name="data.val_share")
    places = [held.sample_id(index) for index in range(len(held))]
    assert len(places) == len({*places}) == 2 * len({*stems(held)})  # of both sources
    assert not {*stems(train)} & {*stems(held)}
    assert len(train) == 4 * (COUNT - len({*stems(held)}))
