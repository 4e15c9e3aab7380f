"""Export: the written file equals the model, and what is refused leaves nothing behind."""

import json

import pytest
import torch

from eva_detection import command_line
from eva_detection.inference import export

CONFIG = "detection/configs/demo/cascade_mask_rcnn_vitdet_eva_debug.py"
pytestmark = pytest.mark.filterwarnings("ignore:torch.meshgrid:UserWarning")


@pytest.fixture(scope="module")
def tiny_detector(make_tiny_detector, randomise):
    torch.manual_seed(0)
    return randomise(make_tiny_detector(), std=0.1).eval()


@pytest.fixture(scope="module")
def weights(tiny_detector, tmp_path_factory):
    """File of a complete detector, one of its ViT alone."""
    folder = tmp_path_factory.mktemp("weights")
    torch.save({"model": tiny_detector.state_dict()}, folder / "detector.pth")
    torch.save({"model": tiny_detector.backbone.net.state_dict()}, folder / "vit.pth")
    return folder


@pytest.fixture
def run_export(repository, tiny_overrides, weights, tmp_path):
    """Function: the command line with the tiny detector; options replace those before."""

    def run(*options, opts=()):
        always = ["--config-file", str(repository / CONFIG), "--format", "torch-export"]
        always += ["--weights", str(weights / "detector.pth")]
        always += ["--output", str(tmp_path / "out" / "tiny.pt2")]
        command_line.export([*always, *options, "--opts", *tiny_overrides, *opts])

    return run


@pytest.mark.parametrize(
    ("settings", "size", "batch_size"),
    [
        ((), (128, 128), 1),
        ((), (64, 64), None),
        (("model.backbone.net.rel_pos=beit", "model.backbone.net.img_size=128"), (192, 192), 1),
    ],
)
def test_program_equals_the_model(
    make_tiny_detector, randomise, tmp_path, settings, size, batch_size
):
    backbone = randomise(make_tiny_detector(*settings), std=0.1).backbone.eval()
    file = tmp_path / "new" / "a.pt2"
    differences = export.export_backbone(backbone, file, size=size, batch_size=batch_size)
    assert list(differences) == ["p2", "p3", "p4"]
    images = torch.randn(batch_size or 3, 3, *size)
    with torch.no_grad():
        expected = backbone(images)
    found = torch.export.load(file).module()(images)
    assert list(found) == ["p2", "p3", "p4"]
    for name, level in expected.items():
        torch.testing.assert_close(found[name], level, rtol=0, atol=1e-5)
    assert [path.name for path in file.parent.iterdir()] == ["a.pt2"]


def test_command_line(run_export, tiny_detector, tmp_path, caplog):
    """The canvas by default; what the input must be is in the file; nothing is overwritten."""
    caplog.set_level("INFO")
    run_export()
    file = tmp_path / "out" / "tiny.pt2"
    assert "p4 differs from the model by at most" in caplog.text
    stored = {"preparation.json": ""}
    program = torch.export.load(file, extra_files=stored)
    facts = json.loads(stored["preparation.json"])
    assert facts["strides"] == {"p2": 4, "p3": 8, "p4": 16}
    assert facts["pixel_mean"] == pytest.approx([123.675, 116.28, 103.53])
    images = torch.randn(1, 3, 128, 128)
    with torch.no_grad():
        expected = tiny_detector.backbone(images)["p2"]
    torch.testing.assert_close(program.module()(images)["p2"], expected, rtol=0, atol=1e-5)
    before = file.stat().st_mtime_ns
    with pytest.raises(SystemExit) as stopped:
        run_export()
    assert stopped.value.code == 2
    assert file.stat().st_mtime_ns == before
    run_export("--overwrite")
    assert file.stat().st_mtime_ns != before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--output", "a.onnx"), "a.onnx"),
        (("--size", "100"), "100x100"),
        (("--batch-size", "0"), "--batch-size"),
        (("--weights", "nowhere.pth"), "nowhere.pth"),
        (("--tolerance", "nan"), "--tolerance"),
    ],
)
def test_refusals(run_export, tmp_path, capsys, options, message):
    with pytest.raises(SystemExit) as stopped:
        run_export(*options)
    assert stopped.value.code in (1, 2)
    assert message in capsys.readouterr().err
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_file_that_differs_is_deleted(tiny_detector, tmp_path, monkeypatch):
    def off(inputs):
        levels = tiny_detector.backbone(inputs["images"])
        return {name: level + 0.01 for name, level in levels.items()}

    monkeypatch.setattr(export, "open_program", lambda file: off)
    (tmp_path / "a.pt2").write_bytes(b"earlier")
    with pytest.raises(ValueError, match=r"differs by 0\.01 from the model, more than 0\.001"):
        export.export_backbone(tiny_detector.backbone, tmp_path / "a.pt2", size=(64, 64))
    assert [path.name for path in tmp_path.iterdir()] == ["a.pt2"]
    assert (tmp_path / "a.pt2").read_bytes() == b"earlier"
