"""Sliding windows and the streaming average over scales and flips."""

import numpy as np
import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.dataset import pseudo_collate
from mmengine.registry import init_default_scope
from PIL import Image
from torch import nn

from eva_segmentation.model.segmentor import StreamingTTA

# isort: split
# after ours, which makes them importable without compiled operations
from mmseg.datasets import BaseSegDataset
from mmseg.models.segmentors import EncoderDecoder, SegTTAModel
from mmseg.registry import MODELS

META_KEYS = (
    *("img_path", "ori_shape", "img_shape", "pad_shape", "padding_size"),
    *("flip", "flip_direction"),
)


@MODELS.register_module()
class PositionBackbone(nn.Module):
    """Sees where in its input a pixel lies, so that wrong windows or flips change the result."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(5, 8, 5, padding=2)

    def forward(self, x):
        ys = torch.linspace(0, 1, x.shape[2])[:, None].expand(x.shape[2:])
        xs = torch.linspace(0, 1, x.shape[3])[None].expand(x.shape[2:])
        place = torch.stack([ys, xs])[None].expand(len(x), -1, -1, -1)
        return [self.conv(torch.cat([x, place], dim=1))]


def _config(kind, **test_cfg):
    return dict(
        type=kind,
        data_preprocessor=dict(
            type="SegDataPreProcessor",
            mean=[120.0] * 3,
            std=[60.0] * 3,
            bgr_to_rgb=True,
            pad_val=0,
            seg_pad_val=255,
        ),
        backbone=dict(type="PositionBackbone"),
        decode_head=dict(
            type="FCNHead",
            **dict(in_channels=8, channels=8, in_index=0, num_convs=0, concat_input=False),
            **dict(dropout_ratio=0.0, num_classes=4, align_corners=False),
            loss_decode=dict(type="CrossEntropyLoss", avg_non_ignore=True),
        ),
        test_cfg=ConfigDict(test_cfg),  # read by attribute
    )


@pytest.fixture
def make_model(randomise):
    """Function: a small segmentor, its weights the same for each class of segmentor."""
    init_default_scope("mmseg")

    def make(kind="EVASegmentor", **test_cfg):
        torch.manual_seed(0)
        config = _config(kind, **(test_cfg or {"mode": "whole"}))
        model = MODELS.build(config)
        return randomise(model, std=0.5).eval()

    return make


@pytest.fixture
def make_views(tmp_path):
    """Function: a picture, at three scales and mirrored, as the data loader gives it."""
    init_default_scope("mmseg")

    def make(height=50, width=70, least=0, count=1):
        (tmp_path / "images").mkdir(exist_ok=True)
        rng = np.random.default_rng(0)
        for index in range(count):
            pixels = rng.integers(0, 255, (height, width, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "images" / f"{index}.png")
        scales = [dict(type="Resize", scale=(4 * s, s), keep_ratio=True) for s in (24, 40, 64)]
        pipeline = [
            dict(type="LoadImageFromFile"),
            dict(
                type="TestTimeAug",
                transforms=[
                    scales,
                    [dict(type="RandomFlip", prob=0.0), dict(type="RandomFlip", prob=1.0)],
                    [dict(type="PadShortSide", size=least or 1)],
                    [dict(type="PackSegInputs", meta_keys=META_KEYS)],
                ],
            ),
        ]
        dataset = BaseSegDataset(
            data_prefix=dict(img_path=str(tmp_path / "images")),
            img_suffix=".png",
            metainfo=dict(classes=list("abcd")),
            pipeline=pipeline,
        )
        return [dataset[index] for index in range(count)]

    return make


# ---- windows -------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(32, 32), (40, 61), (75, 33), (20, 50)])
def test_slide_inference_equals_mmsegmentations(make_model, size):
    test_cfg = {"mode": "slide", "crop_size": (32, 32), "stride": (20, 16)}
    ours, theirs = make_model(**test_cfg), make_model("EncoderDecoder", **test_cfg)
    theirs.load_state_dict(ours.state_dict())
    inputs = torch.randn(2, 3, *size)
    metas = [{"ori_shape": size, "img_shape": size} for _ in range(2)]
    with torch.no_grad():
        expected = EncoderDecoder.slide_inference(theirs, inputs, [dict(m) for m in metas])
        found = ours.inference(inputs, metas)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    assert metas[0]["img_shape"] == size  # left as it is


# ---- the average ---------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:The shape of value will convert")  # mmsegmentation's own
@pytest.mark.parametrize("test_cfg", [{}, {"crop_size": (32, 32), "stride": (16, 16)}])
def test_streaming_average_equals_the_plain_one(make_model, make_views, test_cfg):
    mode = "slide" if test_cfg else "whole"
    model = make_model(mode=mode, **test_cfg)
    data = pseudo_collate(make_views(least=32))
    assert len(data["inputs"]) == 6
    with torch.no_grad():
        (plain,) = SegTTAModel(model).test_step(data)
        each = [model.test_step({k: v[i] for k, v in data.items()})[0] for i in range(6)]
        mean = torch.stack([one.seg_logits.data.softmax(0) for one in each]).mean(0)
        (found,) = StreamingTTA(model).test_step(data)
    assert found.seg_logits.data.shape == (4, 50, 70)
    torch.testing.assert_close(found.seg_logits.data, mean, atol=1e-6, rtol=1e-5)
    assert torch.equal(found.pred_sem_seg.data[0], plain.pred_sem_seg.data.squeeze())
    assert found.img_path == plain.img_path
    assert len(found.pred_sem_seg.data.unique()) > 1  # of several classes, or nothing is shown


@pytest.mark.filterwarnings("ignore:The shape of value will convert")
def test_probabilities_of_two_classes_by_a_sigmoid_are_averaged(make_model, make_views):
    model = make_model()
    model.out_channels = model.decode_head.out_channels = 1
    model.decode_head.threshold = 0.5
    model.decode_head.conv_seg = torch.nn.Conv2d(model.decode_head.channels, 1, 1)
    data = pseudo_collate(make_views(least=32))
    with torch.no_grad():
        each = [model.test_step({k: v[i] for k, v in data.items()})[0] for i in range(6)]
        mean = torch.stack([one.seg_logits.data for one in each]).mean(0)
        (found,) = StreamingTTA(model).test_step(data)
    torch.testing.assert_close(found.seg_logits.data, mean)
    assert torch.equal(found.pred_sem_seg.data, (mean > 0.5).long())
    assert found.pred_sem_seg.data.unique().tolist() == [0, 1]


# ---- padding -------------------------------------------------------------------------------------


def test_short_sides_are_padded_with_raw_zeros(make_views, make_model):
    (sample,) = make_views(height=20, width=70, least=64)
    assert [tuple(one.shape) for one in sample["inputs"]] == [
        *[(3, 64, 84)] * 2,
        *[(3, 64, 140)] * 2,
        *[(3, 64, 224)] * 2,
    ]
    image, meta = sample["inputs"][0], sample["data_samples"][0].metainfo
    assert meta["padding_size"] == [0, 0, 0, 40]
    assert meta["img_shape"] == (24, 84)
    assert image[:, 24:].max() == 0
    assert image[:, :24].float().mean() > 50
    prepared = make_model().data_preprocessor(
        {"inputs": [image], "data_samples": [sample["data_samples"][0]]}
    )["inputs"]
    assert (prepared[0, :, 24:] == (0 - 120) / 60).all()  # black, not the mean colour


def test_padding_is_cut_off_before_the_flip(make_views, make_model):
    """Columns of the picture, not of the border, must come back when the view was mirrored."""
    (sample,) = make_views(height=20, width=30, least=64)
    flipped = sample["data_samples"][1].metainfo
    assert flipped["flip"]
    assert flipped["padding_size"] == [0, 64 - 36, 0, 40]
    model = make_model()
    scores = torch.zeros(1, 4, 64, 64)
    scores[:, 1, :24, 0] = 9.0  # the picture's right border
    (result,) = model.postprocess_result(scores, [sample["data_samples"][1]])
    columns = result.pred_sem_seg.data[0].float().mean(0)
    assert columns[-1] == 1
    assert columns[:-1].max() == 0
