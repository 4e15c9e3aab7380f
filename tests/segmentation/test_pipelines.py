"""The functions that configs call: what comes of them is data, and sizes follow from one number."""

import pytest
from mmengine.dataset import Compose
from PIL import Image

from eva_backbone.variants import VARIANTS
from eva_segmentation.data import pipelines
from eva_segmentation.model.sizes import mask2former, vit, with_adapter

PLAIN = (str, int, float, bool, type(None))


def is_data(node):
    if isinstance(node, dict):
        return all(type(key) is str and is_data(value) for key, value in node.items())
    return all(map(is_data, node)) if isinstance(node, list | tuple) else isinstance(node, PLAIN)


@pytest.mark.parametrize(
    "path", ["_base_/mask2former_eva_g", "_base_/digit_scenes", "demo/upernet_eva_debug"]
)
def test_neither_functions_nor_modules_are_left_in_a_config(path, load_config):
    content = load_config(path).to_dict()
    assert is_data(content)
    assert not {"training", "testing", "multi_scale", "annotated", "vit"} & set(content)


def steps(pipeline):
    return [step["type"] for step in pipeline]


def test_training_crops_the_side_that_is_resized():
    pipeline = pipelines.training(64)
    by_name = {step["type"]: step for step in pipeline}
    assert by_name["RandomResize"]["scale"] == (256, 64)
    assert by_name["RandomCrop"]["crop_size"] == (64, 64)
    assert pipelines.training(64) == pipeline
    assert pipelines.training(64)[0] is not pipeline[0]  # a config may change its own


def test_a_strip_keeps_a_pixel_of_its_short_side(tmp_path):
    Image.new("RGB", (1200, 2)).save(tmp_path / "strip.png")
    Image.new("L", (1200, 2)).save(tmp_path / "labels.png")
    record = {
        "img_path": str(tmp_path / "strip.png"),
        "seg_map_path": str(tmp_path / "labels.png"),
        "label_map": None,
        "reduce_zero_label": False,
    }
    trained = Compose(pipelines.training(64, ratios=(0.1, 0.1)))(dict(record, seg_fields=[]))
    assert (
        trained["inputs"].shape[1:] == trained["data_samples"].gt_sem_seg.data.shape[1:] == (1, 25)
    )
    tested = Compose(pipelines.testing(64))(dict(record, seg_fields=[]))
    assert tested["inputs"].shape == (3, 32, 256)


def test_labels_are_read_after_the_resizing_of_a_test_picture():
    names = steps(pipelines.testing(64))
    (labels,) = [place for place, name in enumerate(names) if name in pipelines.LABEL_READERS]
    assert names.index("Resize") < names.index("ResizeToMultiple") < labels


def test_each_size_is_a_view_and_its_mirror_image():
    reading, views = pipelines.multi_scale((32, 48), window=32)
    assert reading["type"] == "LoadImageFromFile"  # as mmsegmentation's inferencer wants it
    scales, _, flips, pad, *_ = views["transforms"]
    assert [step["scale"] for step in scales] == [(128, 32), (192, 48)]
    assert [step["prob"] for step in flips] == [0.0, 1.0]
    assert pad == [dict(type="PadShortSide", size=32)]


def test_a_backbone_has_the_sizes_of_its_variant():
    variant = VARIANTS["eva_l_patch16"]
    model = with_adapter("eva_l_patch16", drop_path_rate=0.3)
    assert model["backbone"] == vit("eva_l_patch16") | dict(drop_path_rate=0.3)
    assert model["backbone"]["mlp_dim"] == variant.mlp_dim
    assert model["decode_head"] == dict(in_channels=[variant.embed_dim] * 4)
    assert not {"patch_size", "img_size"} & set(model["backbone"])  # the config's own
    with pytest.raises(ValueError, match="unknown variant 'eva_xl'"):
        vit("eva_xl")


def test_one_width_reaches_every_part_of_the_head():
    small = dict(heads=2, hidden=48, queries=6, groups=4, points=64)
    head = mask2former(32, encoder_layers=1, decoder_layers=2, **small)
    assert (head["feat_channels"], head["out_channels"]) == (32, 32)
    encoder = head["pixel_decoder"]["encoder"]["layer_cfg"]
    decoder = head["transformer_decoder"]["layer_cfg"]
    for part in (*encoder.values(), *decoder.values()):
        assert part["embed_dims"] == 32
    assert head["positional_encoding"]["num_feats"] == 16
