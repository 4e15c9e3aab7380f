"""Own folders of images and label maps in a config."""

import argparse

import numpy as np
import pytest
from mmengine.config import Config
from mmseg.registry import DATASETS
from PIL import Image

from eva_data.label_maps import LabelMapError
from eva_segmentation.data import custom_data


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


def test_a_share_is_held_out_for_evaluation(load_config, arguments, own, tmp_path):
    for kind in ("images", "maps"):
        (tmp_path / "more" / kind).mkdir(parents=True)
        first = min((own / kind).iterdir())
        for number in range(20):
            (tmp_path / "more" / kind / f"{number}{first.suffix}").write_bytes(first.read_bytes())
    given = dict(train_images=tmp_path / "more/images", train_maps=tmp_path / "more/maps")
    alone = dict(given, val_images=None, val_maps=None, val_share=0.3)
    cfg = custom_data.apply(load_config("demo/mask2former_eva_debug"), arguments(**alone))
    parts = [DATASETS.build(cfg[f"{name}_dataloader"].dataset) for name in ("train", "val", "test")]
    train, val, test = (
        {part[i]["img_path"] for i in range(len(part))} for part in map(_plain, parts)
    )
    assert len(train | val) == 20
    assert val == test
    assert val
    assert not train & val
    for changes, message in (
        (dict(given, val_share=0.3), "leave it out, or --val-images, --val-maps"),
        (dict(alone, val_share=1.0), "between 0 and 1"),
        (dict(alone, val_share=1e-9), "leaves none to evaluate on"),
        (dict(alone, train_maps=None), "--train-maps missing"),
    ):
        with pytest.raises(ValueError, match=message):
            custom_data.apply(load_config("demo/mask2former_eva_debug"), arguments(**changes))


def _plain(dataset):
    return [dataset.get_data_info(index) for index in range(len(dataset))]


def test_class_weights_follow(load_config, arguments):
    cfg = load_config("demo/mask2former_eva_debug")
    loss = cfg.model.decode_head.loss_cls
    loss.class_weight = [1.0] * 5 + [0.1]
    found = custom_data.apply(cfg, arguments()).model.decode_head.loss_cls.class_weight
    assert found == [1.0, 1.0, 0.1]
    loss.class_weight = [1.0, 2.0, 1.0, 1.0, 1.0, 0.1]
    with pytest.raises(ValueError, match="class_weight of a loss has 6 values for 5 classes"):
        custom_data.apply(cfg, arguments())
