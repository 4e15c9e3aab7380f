"""Export: the written file equals the model, and what is refused leaves nothing behind."""

import json

import pytest
import torch
from torch import nn

from eva_detection import command_line
from eva_detection.inference import export
from eva_detection.model.backbone import EVAViTDet

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
        ((), (64, 192), 2),
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


def test_all_levels_of_the_pyramid_in_half_precision(make_vit, randomise, tmp_path):
    """Patch 16, p2 to p6."""
    from detectron2.modeling.backbone.fpn import LastLevelMaxPool

    net = make_vit(
        img_size=64,
        patch_size=16,
        extra_tokens=(),
        final_norm=False,
        window_size=4,
        rel_pos="vitdet",
    )
    backbone = EVAViTDet(net=net, out_channels=8, top_block=LastLevelMaxPool())
    backbone = randomise(backbone, std=0.1).eval().half()
    file = tmp_path / "a.pt2"
    differences = export.export_backbone(backbone, file, size=(64, 128))
    assert list(differences) == ["p2", "p3", "p4", "p5", "p6"]
    found = torch.export.load(file).module()(torch.zeros(1, 3, 64, 128).half())
    assert found["p2"].dtype == torch.float16
    assert found["p6"].shape == (1, 8, 1, 2)


def test_onnx_equals_the_model(run_export, tiny_detector, tmp_path):
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    file = tmp_path / "tiny.onnx"
    (tmp_path / "tiny.onnx.data").write_bytes(b"of a larger one")
    run_export(
        "--format", "onnx", "--output", str(file), "--size", "64", "128", "--batch-size", "any"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.onnx"]
    session = runtime.InferenceSession(file, providers=["CPUExecutionProvider"])
    assert [level.name for level in session.get_outputs()] == ["p2", "p3", "p4"]
    images = torch.randn(3, 3, 64, 128)
    with torch.no_grad():
        expected = tiny_detector.backbone(images)
    found = session.run(None, {"images": images.numpy()})
    for level, values in zip(expected.values(), found, strict=True):
        torch.testing.assert_close(torch.from_numpy(values), level, rtol=0, atol=1e-4)
    stored = {entry.key: entry.value for entry in onnx.load(file).metadata_props}
    assert json.loads(stored["preparation"])["input_format"] == "RGB"


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


def test_a_bare_vit_is_exported_with_a_warning(run_export, weights, caplog):
    run_export("--weights", str(weights / "vit.pth"), "--size", "64")
    assert "has no pyramid" in caplog.text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--part", "detector"), "find_top_rpn_proposals"),
        (("--output", "a.onnx"), "a.onnx"),
        (("--size", "1", "2", "3"), "3 numbers"),
        (("--size", "100"), "multiples of 16"),
        (("--batch-size", "0"), "--batch-size"),
        (("--batch-size", "many"), "--batch-size"),
        (("--weights", ""), "got ''"),
        (("--weights", "nowhere.pth"), "nowhere.pth"),
        (("--config-file", "nowhere.py"), "nowhere.py"),
        (("--tolerance", "nan"), "--tolerance"),
    ],
)
def test_refusals(run_export, tmp_path, capsys, options, message):
    with pytest.raises(SystemExit) as stopped:
        run_export(*options)
    assert stopped.value.code in (1, 2)
    assert message in capsys.readouterr().err
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_wrong_overrides(run_export, tmp_path, capsys):
    with pytest.raises(SystemExit):
        run_export(opts=["trian.x=3"])
    assert "trian.x" in capsys.readouterr().err
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


class _Proposals(nn.Module):
    """The detector up to the RPN's boxes, without detectron2's padding."""

    def __init__(self, detector):
        super().__init__()
        self.detector = detector

    def forward(self, images):
        from detectron2.structures import ImageList

        features = self.detector.backbone(images)
        listed = ImageList(images, [tuple(images.shape[-2:])])
        proposals, _ = self.detector.proposal_generator(listed, features, None)
        return proposals[0].proposal_boxes.tensor


def test_the_reason_for_refusing_detectors_still_holds(tiny_detector):
    """Fails when torch or detectron2 learns it: then `--part detector` should be built."""
    with torch.no_grad(), pytest.raises(Exception, match="data-dependent") as refused:
        torch.export.export(_Proposals(tiny_detector), (torch.randn(1, 3, 64, 64),))
    names = [entry.name for entry in refused.traceback]
    assert "find_top_rpn_proposals" in names
