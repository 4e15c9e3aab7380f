"""Own data of mixed sizes from the first command to overlays, and maps that are not right."""

import gc

import pytest
from mmengine.config import Config
from PIL import Image

from eva_segmentation.evaluation import evaluate
from eva_segmentation.training import train

SIZES = {"a": (32, 32), "sub/a": (40, 48), "b": (64, 32)}  # height, width
LABELS = (7, 40, 200)
CLASSES = "ignore = [0]\n" + "".join(
    f'[[classes]]\nname = "class {label}"\nlabel = {label}\n' for label in LABELS
)
MAPS = ["a.png", "b.png", "sub/a.png"]


@pytest.fixture(scope="module")
def own(tmp_path_factory, write_pairs, tiny):
    """Folders `images` and `maps`, `classes.toml` and a config that validates two at once."""
    root = tmp_path_factory.mktemp("own")
    write_pairs(root / "images", root / "maps", SIZES, (0, *LABELS))
    (root / "classes.toml").write_text(CLASSES)
    cfg = tiny()
    assert cfg.val_dataloader.batch_size > 1
    cfg.dump(root / "tiny.py")
    return root


@pytest.fixture(scope="module")
def flags(own):
    """The flags of training."""
    places = ("images", own / "images", "maps", own / "maps")
    train_part, val_part = (
        [f"--{part}-{item}" if isinstance(item, str) else item for item in places]
        for part in ("train", "val")
    )
    return [*train_part, *val_part, "--classes", own / "classes.toml"]


@pytest.fixture(scope="module")
def run(own, flags, launch):
    """Work folder; its `tiny.py` is all that the other programs need."""
    launch(train, own / "tiny.py", "--work-dir", own / "run", *flags)
    return own / "run"


@pytest.mark.parametrize("workers", [0, 1])
def test_a_map_of_another_size_stops_a_run_with_one_sentence(
    workers, run, write_pairs, fails, monkeypatch, tmp_path
):
    """The saved config is started again: nothing looks at a sample of the files before."""
    write_pairs(tmp_path / "images", tmp_path / "maps", {"x": (32, 32)}, LABELS)
    Image.new("L", (32, 40), LABELS[0]).save(tmp_path / "maps" / "x.png")
    cfg = Config.fromfile(run / "tiny.py")
    loader = cfg.train_dataloader
    loader.num_workers = workers
    loader.dataset.update(images=str(tmp_path / "images"), maps=str(tmp_path / "maps"))
    cfg.dump(tmp_path / "other.py")
    # torch would wait 5 seconds for the end of the process that loads
    monkeypatch.setattr("torch.utils.data._utils.MP_STATUS_CHECK_INTERVAL", 0.1)
    line = fails(train, tmp_path / "other.py", "--work-dir", tmp_path / "run")
    assert "maps/x.png is (40, 32)" in line
    gc.collect()


def test_an_unknown_label_stops_an_evaluation_with_one_sentence(run, write_pairs, fails, tmp_path):
    write_pairs(tmp_path / "images", tmp_path / "maps", {"x": (32, 32)}, (7, 8))
    cfg = Config.fromfile(run / "tiny.py")
    cfg.test_dataloader.dataset.update(images=str(tmp_path / "images"), maps=str(tmp_path / "maps"))
    cfg.dump(tmp_path / "other.py")
    command = [evaluate, tmp_path / "other.py", run / "iter_3.pth"]
    line = fails(*command, "--work-dir", tmp_path / "run")
    assert "x.png" in line
    assert "8" in line


def test_a_root_of_other_data_beside_own_data_is_refused(own, flags, fails, tmp_path):
    place = ("--work-dir", tmp_path / "run", "--data-root", tmp_path)
    assert "--data-root" in fails(train, own / "tiny.py", *place, *flags)
    assert not (tmp_path / "run").exists()
