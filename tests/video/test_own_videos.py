"""A folder of videos for each class, and one command."""

from pathlib import Path

import pytest

from eva_engine.checkpoints.files import read_config
from eva_engine.commands.training import parse
from eva_video import training
from eva_video.config import VideoConfig

RECIPE = Path(__file__).parents[2] / "video/configs/own_videos.py"
SMALL = (
    "--model.variant eva_debug --model.init-checkpoint eva_debug --model.image-size 16 "
    "--model.frames 2 --run.precision fp32 --run.batch-size 4 --run.accumulate 1 --run.epochs 1 "
    "--run.workers 0 --run.no-tensorboard --run.device cpu"
)


@pytest.fixture
def parsed(tmp_path):
    """Function: the recipe for a folder, in small."""

    def parse_for(folder, *arguments):
        given = [str(RECIPE), *SMALL.split(), "--data.train", f"{folder}/train", "--data.val",
                 f"{folder}/val", "--run.output", f"{tmp_path}/run", *arguments]  # fmt: skip
        config, *_ = parse(VideoConfig, given, program="video/train.py")
        return config

    return parse_for


def test_a_list_to_train_on_and_folders_for_validation(parsed, colours, device, tmp_path):
    """`root` is for the list; each is left out where it has no use."""
    lines = [f"{name}/{n}.mp4 {label}\n"
             for label, name in enumerate(("blue", "green", "red")) for n in range(8)]  # fmt: skip
    (tmp_path / "train.txt").write_text("".join(lines))
    (tmp_path / "classes.txt").write_text("blue\ngreen\nred\n")
    config = parsed(
        colours, "--model.frozen-blocks", "0", "--data.train", f"{tmp_path}/train.txt",
        "--data.root", f"{colours}/train", "--data.classes", f"{tmp_path}/classes.txt",
    )  # fmt: skip
    training.train(config, device)
    noted = read_config(tmp_path / "run/best/model.safetensors")
    assert noted["class_names"] == ["blue", "green", "red"]
