"""Videos are opened where they are read: in the workers of a loader, forked or spawned."""

import json
import subprocess
import sys

import numpy as np

from eva_data.video.source import open_video

_PROGRAM = """
import json, sys
import torch
from torch.utils.data import DataLoader, Dataset
from eva_data.video.source import open_video


class Clips(Dataset):
    def __init__(self, files):
        self.files = files

    def __len__(self):
        return len(self.files)

    def __getitem__(self, index):
        with open_video(self.files[index]) as video:
            return index, int(video.frames([len(video) - 1, 0]).sum())


if __name__ == "__main__":
    clips = Clips(sys.argv[2:])
    clips[0]  # the libraries have worked before the fork
    loader = DataLoader(
        clips, batch_size=3, num_workers=2, multiprocessing_context=sys.argv[1], timeout=100
    )
    print(json.dumps([batch for pair in loader for batch in zip(*map(torch.Tensor.tolist, pair))]))
"""


def _sums(program, method, files):
    command = [sys.executable, str(program), method, *map(str, files)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_forked_and_spawned_workers_read_videos(videos, tmp_path):
    program = tmp_path / "program.py"
    program.write_text(_PROGRAM)
    files = sorted(videos.iterdir())
    expected = []
    for index, file in enumerate(files):
        with open_video(file) as video:
            expected.append([index, int(video.frames([len(video) - 1, 0]).sum(dtype=np.int64))])
    running = [_sums(program, method, files) for method in ("fork", "spawn")]
    for process in running:
        output, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
        assert json.loads(output) == expected
