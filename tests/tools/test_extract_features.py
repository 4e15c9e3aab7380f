"""`eva extract` puts together what two projects compute: CLIP's embeddings too."""

import json

import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from eva_classification.features import FeatureExtractor
from eva_command.extract import main as extract_command
from eva_contrastive.inference.features import ClipFeatures
from eva_engine.extraction import read_features

SMALL = str(2 * 2 * 16 / 2**20)  # MiB of two vectors in fp16
TEXTS = ["a cat", "a rocket", "an astronaut", "ein Haus mit Dächern", "a cat"]


@pytest.fixture(scope="module")
def weights(clip_weights):
    return clip_weights


@pytest.fixture(scope="module")
def clip(weights):
    return ClipFeatures.from_weights(weights, device="cpu")


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    from skimage import data

    folder = tmp_path_factory.mktemp("photographs")
    for name in ("astronaut", "chelsea", "coffee"):
        Image.fromarray(getattr(data, name)()).resize((60, 40)).save(folder / f"{name}.png")
    return folder


@pytest.fixture
def texts(tmp_path):
    file = tmp_path / "texts.txt"
    file.write_text("\n".join(TEXTS) + "\n", encoding="utf-8")
    return file


@pytest.fixture
def extract(weights, tmp_path):
    """Function: run the tool; gives the folder of the files."""

    def run(*arguments, output="features"):
        options = f"--weights {weights} --device cpu --workers 0 --batch-size 2".split()
        extract_command([*options, "--output", str(tmp_path / output), *map(str, arguments)])
        return tmp_path / output

    return run


def test_embeddings_of_pictures(extract, clip, photographs, capsys):
    folder = extract("--images", photographs, "--kind", "embedding", "--store", "fp32")
    names, features = read_features(folder)
    assert names == [
        str(photographs / f"{name}.png") for name in ("astronaut", "chelsea", "coffee")
    ]
    torch.testing.assert_close(features, clip.images(names, normalize=False))
    assert "holds embedding features (16,) of 3 images in 1 files" in capsys.readouterr().out
    unit = extract("--images", photographs, "--kind", "embedding", "--unit-length", output="unit")
    expected = F.normalize(features, dim=-1)
    torch.testing.assert_close(read_features(unit).features.float(), expected, atol=1e-3, rtol=1e-3)


def test_embeddings_of_texts_and_their_lines(extract, clip, texts, capsys):
    folder = extract("--texts", texts, "--store", "fp32", "--file-mb", SMALL)
    names, features = read_features(folder)
    assert names == TEXTS
    torch.testing.assert_close(features, clip.texts(TEXTS, normalize=False))
    assert "holds embedding features (16,) of 5 texts in 5 files" in capsys.readouterr().out
    assert json.loads((folder / "features.json").read_text())["samples"] == 5


def test_pooled_features_are_the_default_for_pictures(extract, weights, photographs):
    names, features = read_features(extract("--images", photographs, "--store", "fp32"))
    extractor = FeatureExtractor.from_weights(weights, device="cpu")
    assert extractor.pooling == "cls"
    torch.testing.assert_close(features, extractor(names))
    assert features.shape == (3, 128)


def test_texts_are_continued_and_other_texts_refused(extract, texts, monkeypatch, refused):
    folder = extract("--texts", texts, "--file-mb", SMALL)
    whole = read_features(folder)
    lost = folder / "features-00001-of-00003.safetensors"
    lost.unlink()
    seen = []
    compute = ClipFeatures.token_features

    def record(self, tokens, **options):
        seen.append(len(tokens))
        return compute(self, tokens, **options)

    monkeypatch.setattr(ClipFeatures, "token_features", record)
    extract("--texts", texts, "--file-mb", SMALL)
    assert sum(seen) == 2
    assert torch.equal(read_features(folder).features, whole.features)
    texts.write_text("\n".join(TEXTS[::-1]))
    with refused(r"other settings \(names .*choose another folder"):
        extract("--texts", texts, "--file-mb", SMALL)


def test_a_folder_of_open_clip_gives_the_same(extract, photographs, texts, weights, tmp_path):
    from eva_command.convert import main as convert

    folder = tmp_path / "open_clip"
    assert not convert([str(weights), "--to=open-clip", f"--output={folder}"])
    for number, what in enumerate((("--images", photographs), ("--texts", texts))):
        options = (*what, "--kind", "embedding", "--store", "fp32")
        ours = read_features(extract(*options, output=f"ours{number}"))
        theirs = read_features(extract(*options, "--weights", folder, output=f"theirs{number}"))
        assert theirs.names == ours.names
        torch.testing.assert_close(theirs.features, ours.features)


@pytest.mark.parametrize(("arguments", "message"), [
    (["--texts", "T", "--kind", "pooled"], "--kind pooled is not computed of --texts"),
    (["--images", "I", "--unit-length"], "--unit-length has no use with --kind pooled"),
])  # fmt: skip
def test_options_without_sense(extract, arguments, message, capsys):
    with pytest.raises(SystemExit) as ended:
        extract(*arguments)
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(("content", "message"), [
    (b"a\n\nb\n", r"texts\.txt .* blank line \(2\)"),
    (b"", r"texts\.txt is empty"),
    (b"\xff\xfe\x00", r"texts\.txt is not text in UTF-8"),
])  # fmt: skip
def test_files_that_hold_no_texts(extract, texts, content, message, refused):
    texts.write_bytes(content)
    with refused(message):
        extract("--texts", texts)


def test_weights_of_another_task_have_no_embedding(extract, photographs, texts, refused):
    with refused("not a complete EVA-CLIP"):
        extract("--texts", texts, "--weights", "eva_debug")
    with refused("these weights have no projection"):
        extract("--images", photographs, "--kind", "embedding", "--weights", "eva_debug")
