"""Own folders of images and label maps: the class file, the pairs, and the config."""

import argparse

import numpy as np
import pytest
from mmengine.config import Config
from mmseg.registry import DATASETS
from PIL import Image

from eva_segmentation.data import custom_data
from eva_segmentation.data.classes import distinct_color, read_class_file
from eva_segmentation.data.label_maps import LabelMapError, LabelTable, read_label_map
from eva_segmentation.data.pairs import check_pairs, find_pairs

CLASSES = """
ignore = [0]
[[classes]]
name = "road"
label = 7
color = [128, 64, 128]
[[classes]]
name = "sky"
label = 40
"""


@pytest.fixture
def own(tmp_path):
    """Folders `images` and `maps` with three pairs of 20 x 30 px, one below a folder; classes."""
    rng = np.random.default_rng(0)
    for kind in ("images", "maps"):
        (tmp_path / kind / "b").mkdir(parents=True)
    for name in ("a", "b/c", "d"):
        Image.new("RGB", (30, 20), (9, 99, 9)).save(tmp_path / "images" / f"{name}.jpg")
        values = rng.choice(np.array([0, 7, 40], np.uint8), (20, 30))
        Image.fromarray(values).save(tmp_path / "maps" / f"{name}.png")
    (tmp_path / "classes.toml").write_text(CLASSES)
    return tmp_path


@pytest.fixture
def arguments(own):
    """Function: the command line with all flags for `own`, some changed."""

    def make(**changes):
        parser = argparse.ArgumentParser()
        custom_data.add_arguments(parser)
        args = parser.parse_args([])
        for part in ("train", "val"):
            setattr(args, f"{part}_images", own / "images")
            setattr(args, f"{part}_maps", own / "maps")
        args.classes = own / "classes.toml"
        vars(args).update(changes)
        return args

    return make


def test_class_file(own):
    classes = read_class_file(own / "classes.toml")
    assert classes.names == ("road", "sky")
    assert classes.labels == (7, 40)
    assert classes.colors == ((128, 64, 128), distinct_color(1))
    assert classes.ignore == (0,)
    (own / "short.toml").write_text('[[classes]]\nname = "a"\n[[classes]]\nname = "b"\n')
    short = read_class_file(own / "short.toml")
    assert (short.labels, short.ignore) == ((0, 1), (255,))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("ignore = [0]", "ignored = [0]", "unknown ignored; there are ignore"),
        ("ignore = [0]", "ignore = 0", r"ignore = 0 must be a list of labels"),
        ("ignore = [0]", "ignore = [7]", "label 7 of 'road' is also in ignore"),
        ("label = 40", "label = 7", "class 2: an earlier class has the label 7 too"),
        ("label = 40", "label = -1", "class 2: label = -1 must be from 0"),
        ("label = 40", "", "1 of 2 classes have a label"),
        ('"sky"', '"road"', "class 2: an earlier class has the name 'road' too"),
        ('"sky"', '""', "class 2: name = '' must be a text"),
        ("[128, 64, 128]", "[128, 64, 256]", "class 1: color = .128, 64, 256. must be"),
        ('name = "sky"', "name = ", "is no TOML"),
    ],
)
def test_a_wrong_class_file_is_named(own, old, new, message):
    file = own / "classes.toml"
    file.write_text(CLASSES.replace(old, new))
    with pytest.raises(ValueError, match=message):
        read_class_file(file)


def test_pairs_by_ending(tmp_path):
    for kind, name in (("i", "x_left.png"), ("i", "x_right.png"), ("m", "x_ids.png")):
        (tmp_path / kind).mkdir(exist_ok=True)
        Image.new("L", (2, 2)).save(tmp_path / kind / name)
    pairs, lonely, unused = find_pairs(
        tmp_path / "i", tmp_path / "m", image_ending="_left", map_ending="_ids"
    )
    assert [(pair.image.name, pair.label_map.name) for pair in pairs] == [
        ("x_left.png", "x_ids.png")
    ]
    assert not lonely
    assert not unused
    Image.new("L", (2, 2)).save(tmp_path / "i" / "x_left.jpg")
    with pytest.raises(ValueError, match="the same name but for the suffix"):
        find_pairs(tmp_path / "i", tmp_path / "m", image_ending="_left")


def test_label_table():
    table = LabelTable([7, 40], [0])
    values = np.array([[0, 7], [40, 7]], np.uint8)
    np.testing.assert_array_equal(table(values, "x.png"), [[255, 0], [1, 0]])
    for wrong in (3, 41, 42, 65535):
        odd = np.array([[7, wrong]], np.uint16)
        with pytest.raises(ValueError, match=rf"x.png has labels .* ignored: {wrong};"):
            table(odd, "x.png")


def test_maps_of_other_kinds(tmp_path):
    values = np.array([[0, 1], [2, 300]], np.uint16)
    Image.fromarray(values).save(tmp_path / "16.png")
    np.testing.assert_array_equal(read_label_map(tmp_path / "16.png"), values)
    big = Image.frombytes("I;16B", (2, 2), values.astype(">u2").tobytes())
    big.save(tmp_path / "big.tif")
    assert (tmp_path / "big.tif").read_bytes().startswith(b"MM")  # the bytes of large parts first
    read = read_label_map(tmp_path / "big.tif")
    assert read.dtype == np.dtype("uint16")
    np.testing.assert_array_equal(read, values)
    Image.new("F", (2, 2)).save(tmp_path / "f.tif")
    with pytest.raises(ValueError, match=r"f.tif holds fractions \(mode F\)"):
        read_label_map(tmp_path / "f.tif")
    palette = Image.fromarray(np.array([[3, 1]], np.uint8))
    palette.putpalette([9, 9, 9] * 256)
    palette.save(tmp_path / "p.png")
    np.testing.assert_array_equal(read_label_map(tmp_path / "p.png"), [[3, 1]])
    Image.new("RGB", (2, 2)).save(tmp_path / "rgb.png")
    with pytest.raises(ValueError, match=r"rgb.png holds colours \(mode RGB\)"):
        read_label_map(tmp_path / "rgb.png")


def test_the_first_wrong_file_is_named(own):
    classes = read_class_file(own / "classes.toml")
    assert len(check_pairs(own / "images", own / "maps", classes)) == 3
    Image.new("RGB", (31, 20)).save(own / "images" / "b/c.jpg")
    with pytest.raises(ValueError, match=r"c.jpg is \(20, 31\) .* c.png|c.png \(20, 30\)"):
        check_pairs(own / "images", own / "maps", classes)
    Image.new("RGB", (30, 20)).save(own / "images" / "b/c.jpg")
    Image.new("L", (30, 20), 8).save(own / "maps" / "d.png")
    with pytest.raises(ValueError, match=r"d.png has labels that .* nor ignored: 8;"):
        check_pairs(own / "images", own / "maps", classes)
    (own / "maps" / "a.png").unlink()
    with pytest.raises(ValueError, match=r"1 of 3 images .*, such as .*a.jpg"):
        check_pairs(own / "images", own / "maps", classes)


@pytest.mark.parametrize("name", ["demo/mask2former_eva_debug", "ade20k/mask2former_eva_g_896_20k"])
def test_apply_sets_data_and_classes_everywhere(load_config, arguments, own, name):
    before = load_config(name)
    text = before.pretty_text
    cfg = custom_data.apply(before, arguments())
    assert before.pretty_text == text
    assert cfg.model.decode_head.num_classes == 2
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        dataset = loader.dataset
        assert (dataset.type, dataset.images) == ("PairedFolders", str(own / "images"))
        assert dataset.metainfo["classes"] == ["road", "sky"]
    assert "LoadAnnotations" not in cfg.pretty_text  # in no pipeline, tta_pipeline included
    assert {"type": "LoadLabelMap", "labels": [7, 40], "ignore": [0]} in [
        dict(step) for step in cfg.train_dataloader.dataset.pipeline
    ]
    assert cfg.train_dataloader.dataset.pipeline[-1].type == "PackSegInputs"
    assert custom_data.apply(before, arguments(**dict.fromkeys(vars(arguments())))) is before


def test_channels_that_are_as_many_as_the_classes_follow_only_where_they_are_classes(
    load_config, arguments
):
    cfg = load_config("demo/mask2former_eva_debug")
    head = cfg.model.decode_head
    head.num_classes = head.out_channels = 64  # by accident: these are channels of masks
    own = custom_data.apply(cfg, arguments()).model.decode_head
    assert (own.num_classes, own.out_channels) == (2, 64)
    cfg.model.auxiliary_head = dict(type="FCNHead", num_classes=64, out_channels=64)
    own = custom_data.apply(cfg, arguments()).model.auxiliary_head
    assert (own.num_classes, own.out_channels) == (2, 2)


def test_the_saved_config_loads_the_data(load_config, arguments, own):
    cfg = custom_data.apply(load_config("demo/mask2former_eva_debug"), arguments())
    cfg.dump(own / "saved.py")
    saved = Config.fromfile(own / "saved.py")
    dataset = DATASETS.build(saved.val_dataloader.dataset)
    assert len(dataset) == 3
    assert [len(dataset.metainfo[key]) for key in ("classes", "palette", "labels")] == [2, 2, 2]
    truth = dataset[0]["data_samples"].gt_sem_seg.data[0].numpy()
    stored = np.asarray(Image.open(own / "maps" / "a.png"))
    np.testing.assert_array_equal(truth, np.select([stored == 7, stored == 40], [0, 1], 255))


def test_a_map_that_was_not_sampled_stops_the_loader(load_config, arguments, own):
    cfg = custom_data.apply(load_config("demo/mask2former_eva_debug"), arguments())
    Image.new("L", (30, 20), 8).save(own / "maps" / "d.png")
    dataset = DATASETS.build(cfg.val_dataloader.dataset)
    with pytest.raises(ValueError, match=r"d.png has labels that .* nor ignored: 8;"):
        dataset[2]
    Image.new("L", (20, 30), 7).save(own / "maps" / "d.png")
    message = r"d\.png is \(30, 20\) \(height, width\) and its picture .*d\.jpg \(20, 30\)"
    with pytest.raises(LabelMapError, match=message):
        dataset[2]


def test_missing_flags_and_folders(load_config, arguments, own):
    cfg = load_config("demo/mask2former_eva_debug")
    with pytest.raises(ValueError, match="--val-maps, --classes missing: own data needs all 5"):
        custom_data.apply(cfg, arguments(val_maps=None, classes=None))
    with pytest.raises(FileNotFoundError, match=r"there is no folder .*none"):
        custom_data.apply(cfg, arguments(train_maps=own / "none"))
    with pytest.raises(FileNotFoundError, match="there is no class file"):
        custom_data.apply(cfg, arguments(classes=own / "none.toml"))


def test_class_weights_follow(load_config, arguments):
    cfg = load_config("demo/mask2former_eva_debug")
    loss = cfg.model.decode_head.loss_cls
    loss.class_weight = [1.0] * 5 + [0.1]
    found = custom_data.apply(cfg, arguments()).model.decode_head.loss_cls.class_weight
    assert found == [1.0, 1.0, 0.1]
    loss.class_weight = [1.0, 2.0, 1.0, 1.0, 1.0, 0.1]
    with pytest.raises(ValueError, match="class_weight of a loss has 6 values for 5 classes"):
        custom_data.apply(cfg, arguments())
