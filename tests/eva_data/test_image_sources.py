"""Decoding, folders, manifests and their indices, on photographs."""

import io
import pickle

import pytest
from PIL import Image
from skimage import data as photographs

from eva_data.image_sources import decode_image, open_images, open_source
from eva_data.images import LIMIT, UnreadableImageError
from eva_data.index import Names
from eva_data.manifests import Manifest, write_index
from eva_pretrain.transforms import PretrainTransform, Views

SMALL = {"coffee": 3, "chelsea": 2, "rocket": 4}  # photograph -> copies


def _manifest(folder, text, name="set.toml"):
    (folder / name).write_text(text)
    return folder / name


def _encode(image, kind):
    stream = io.BytesIO()
    image.save(stream, kind)
    return stream.getvalue()


@pytest.fixture(scope="module")
def picture(photograph):
    return Image.fromarray(photograph).resize((96, 64))


@pytest.fixture
def folders(tmp_path):
    """Three folders of small photographs."""
    for name, copies in SMALL.items():
        (tmp_path / name / "b").mkdir(parents=True)
        image = Image.fromarray(getattr(photographs, name)()).resize((48, 32))
        for number in range(copies):
            image.save(tmp_path / name / ("b" if number % 2 else ".") / f"{number}.JPEG")
    (tmp_path / "coffee" / "notes.txt").write_text("no picture")
    return tmp_path


@pytest.fixture
def merged(folders):
    """Manifest of the three."""
    entries = [f'[[source]]\nname = "{name}"\nfolder = "{name}"\n' for name in SMALL]
    return _manifest(folders, "\n".join(entries))


def _write_index(manifest, file):
    opened = Manifest.read(manifest)
    tables = {}
    for entry in opened.sources:
        tables[entry.name] = open_source(entry).table
    write_index(file, tables, opened)


def test_what_a_header_claims_is_looked_at_before_anything_is_decoded(picture, monkeypatch):
    """torchvision would take 11 GB for the first."""
    content = bytearray(_encode(picture, "JPEG"))
    place = content.index(b"\xff\xc0") + 5
    content[place : place + 4] = (65_500).to_bytes(2, "big") * 2
    monkeypatch.setattr("eva_data.image_sources.torchvision_decode", None)
    message = r"^x has 65500 x 65500 pixels, more than 100,000,000; .* EVA_MAX_IMAGE_PIXELS=4290250"
    with pytest.raises(UnreadableImageError, match=message):
        decode_image(bytes(content), "x")
    monkeypatch.setenv(LIMIT, "6143")
    with pytest.raises(UnreadableImageError, match=r"96.*64.*6,143"):
        decode_image(_encode(picture, "PNG"))


def test_folder_is_searched_in_a_fixed_order(folders):
    (folders / "coffee" / "link").symlink_to(folders / "chelsea")
    (folders / "coffee" / "b" / "up").symlink_to(folders / "coffee")
    (folders / "coffee" / ".hidden").mkdir()
    source = open_images(folders / "coffee")
    assert list(Names(source.table)) == [
        "0.JPEG",
        "2.JPEG",
        "b/1.JPEG",
        "link/0.JPEG",
        "link/b/1.JPEG",
    ]
    assert source.sample_id(2) == str(folders / "coffee" / "b" / "1.JPEG")
    assert source[2].shape == (3, 32, 48)
    with pytest.raises(IndexError):
        source[5]
    (folders / "coffee" / "b" / "1.JPEG").unlink()
    with pytest.raises(UnreadableImageError, match=r"b/1\.JPEG"):
        source[2]


def _naming(index, manifest):
    manifest.write_text(f'index = "{index}"\n' + manifest.read_text())
    return manifest


def test_index_replaces_the_search(merged, folders, monkeypatch):
    searched = open_images(merged)
    index = folders / "set.safetensors"
    _write_index(merged, index)
    monkeypatch.setattr("eva_data.image_sources.find_files", None)
    transform = PretrainTransform(Views(size=28, mean=(0.5,) * 3, std=(0.5,) * 3))
    indexed = open_images(_naming(index, merged), transform)
    every = range(len(searched))
    assert [indexed.sample_id(i) for i in every] == [searched.sample_id(i) for i in every]
    assert indexed.checksum() == searched.checksum()
    # a spawned worker maps the file, and gets no copy of it
    sent = pickle.dumps(indexed)
    assert index.name.encode() in sent
    assert b"b/1.JPEG" not in sent
    again = pickle.loads(sent)
    assert again[8]["images"].shape == (3, 28, 28)
    assert [again.sample_id(i) for i in every] == [searched.sample_id(i) for i in every]


def test_checksum_changes_with_names_and_counts(merged, folders):
    before = open_images(merged).checksum()
    (folders / "coffee" / "0.JPEG").rename(folders / "coffee" / "00.JPEG")
    renamed = open_images(merged).checksum()
    merged.write_text(merged.read_text() + "limit = 3\n")
    assert len({before, renamed, open_images(merged).checksum()}) == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[[source]]\nname = "a"\nfolder = "x"\nwieght = 1', "unknown key 'wieght'; is it weight"),
        ("", r"has no \[\[source\]\]"),
        ('[[source]]\nname = "a"\nfolder = "x"\nshards = "y"', "folder or shards"),
        ('[[source]]\nname = "a"\nfolder = "x"\nweight = 0', "weight is 0"),
        ('[[source]]\nname = "a"\nfolder = "$EVA_UNSET_X/a"', "EVA_UNSET_X"),
        ('[[source]]\nname="a"\nfolder="x"\n[[source]]\nname="a"\nfolder="y"', "one twice: a"),
    ],
)
def test_wrong_manifests(tmp_path, text, message):
    with pytest.raises(ValueError, match=message):
        open_images(_manifest(tmp_path, text))
