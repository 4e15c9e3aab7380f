"""Export of both towers: the files equal the model, and what is refused leaves nothing behind."""

import gzip
import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from eva_contrastive import commands
from eva_contrastive.inference import export
from eva_contrastive.inference.export import export_towers
from eva_contrastive.model.eva_clip import build_eva_clip, tokenize

TEXTS = ["a dog", "", "the digit seven", "two " * 99]


def _inputs(model, count):
    images = torch.randn(count, 3, model.image_size, model.image_size)
    return {"image": images, "text": tokenize(TEXTS[:count], model.context_length)}


def _expected(model, inputs, **kwargs):
    with torch.no_grad():
        return {
            "image": model.encode_image(inputs["image"], **kwargs),
            "text": model.encode_text(inputs["text"], **kwargs),
        }


@pytest.fixture
def model(make_clip):
    return make_clip(depth=1, text={"depth": 1}).requires_grad_(False)


def test_programs_equal_the_model(model, tmp_path):
    folder = tmp_path / "new" / "out"
    shares = export_towers(model, folder, form="torch-export", normalize=True)
    assert list(shares) == ["image", "text"]
    assert max(shares.values()) < 1e-5
    for count in (1, 3, 4):
        inputs = _inputs(model, count)
        for tower, expected in _expected(model, inputs, normalize=True).items():
            program = torch.export.load(folder / f"{tower}.pt2").module()
            found = program(inputs[tower])["features"]
            torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    names = sorted(path.name for path in folder.iterdir())
    assert names == ["bpe_simple_vocab_16e6.txt.gz", "clip.json", "image.pt2", "text.pt2"]
    assert [path.name for path in folder.parent.iterdir()] == ["out"]


def test_onnx_equals_the_model(model, tmp_path):
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    export_towers(model, tmp_path / "out", form="onnx")
    for count in (1, 3, 4):
        inputs = _inputs(model, count)
        for tower, expected in _expected(model, inputs).items():
            file = tmp_path / "out" / f"{tower}.onnx"
            session = runtime.InferenceSession(file, providers=["CPUExecutionProvider"])
            name = export.INPUTS[tower]
            assert [each.name for each in session.get_inputs()] == [name]
            (found,) = session.run(["features"], {name: inputs[tower].numpy()})
            np.testing.assert_allclose(found, expected, atol=1e-4, rtol=1e-4)
    stored = onnx.load(file)
    facts = {entry.key: entry.value for entry in stored.metadata_props}
    assert json.loads(facts["preparation"])["texts"]["context_length"] == 16


def _facts_text(folder):
    return (folder / "clip.json").read_text()


@pytest.fixture
def run(tmp_path, randomise):
    model = randomise(build_eva_clip("eva_debug", "debug", embed_dim=16, img_size=32))
    model.text.logit_scale.data.fill_(np.log(50))
    save_file(
        model.state_dict(),
        tmp_path / "debug.safetensors",
        {"config": json.dumps({"data": {"mean": [0.5, 0.5, 0.5]}})},
    )

    def call(*options):
        always = ["--weights", str(tmp_path / "debug.safetensors"), "--format", "torch-export"]
        given = [*always, "--output", str(tmp_path / "out"), "--towers", "text", *options]
        return commands.export(given)

    return call


def test_command_line(run, tmp_path, capsys):
    assert run("--normalize") == 0
    assert "text: differs from the model by at most" in capsys.readouterr().out
    facts = json.loads(_facts_text(tmp_path / "out"))
    assert facts["images"]["mean"] == [0.5, 0.5, 0.5]  # of its training
    assert facts["images"]["std"] == pytest.approx([0.26862954, 0.26130258, 0.27577711])
    assert facts["images"]["size"] == 32
    texts = facts["texts"]
    assert (texts["start_token"], texts["end_token"], texts["context_length"]) == (49406, 49407, 32)
    assert facts["logits"] == {"scale": pytest.approx(50), "bias": None}
    assert facts["features"] == {"values": 16, "dtype": "float32", "unit_length": True}
    entry = {"file": "text.pt2", "input": "tokens", "output": "features", "batch": "any"}
    assert facts["towers"] == {"text": entry}
    with gzip.open(tmp_path / "out" / texts["vocabulary"]) as vocabulary:
        assert b"version" in vocabulary.readline()
    before = (tmp_path / "out" / "text.pt2").stat().st_mtime_ns
    assert run() == 2
    assert (tmp_path / "out" / "text.pt2").stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--device", "cuda"), "has no GPU"),
        (("--weights", "nothing.pt"), "nothing.pt"),
        (("--image-size", "33"), "33"),
    ],
)
def test_refusals(run, tmp_path, capsys, options, message):
    if message == "has no GPU" and torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    assert run(*options) == 2
    assert message in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["debug.safetensors"]


@pytest.mark.parametrize("wrong", [0.01, float("nan")])
def test_a_program_that_differs_is_deleted(model, tmp_path, monkeypatch, wrong):
    def off(inputs):
        return {"features": model.encode_text(inputs["tokens"]) + wrong}

    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "clip.json").write_text("earlier")
    monkeypatch.setattr(export, "open_program", lambda file: off)
    monkeypatch.setattr(export, "write_program", lambda program, file, **_: file.touch())
    monkeypatch.setattr(torch.export, "export", lambda *_, **__: None)
    with pytest.raises(ValueError, match=r"the written file differs by .* and was deleted"):
        export_towers(model, tmp_path / "out", form="torch-export", towers=["text"])
    assert _facts_text(tmp_path / "out") == "earlier"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
