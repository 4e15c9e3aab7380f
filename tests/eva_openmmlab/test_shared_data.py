"""Records of mmengine's datasets in two processes: one reads them, both have them."""

import subprocess
import sys

import pytest

PROGRAM = """
import sys
from pathlib import Path
import torch.distributed as dist
from mmengine.dataset import BaseDataset
from mmengine.registry import DATASETS
from mmengine.runner import Runner
from eva_openmmlab.data_order import build_shared

@DATASETS.register_module()
class Numbers(BaseDataset):
    def load_data_list(self):
        with open("read.txt", "a") as file:
            file.write(f"{dist.get_rank()} {self.ann_file}\\n")
        self.cat_ids, self._metainfo = [7], {"classes": ("a",)}
        return [{"number": number} for number in range(int(self.ann_file))]

    def filter_data(self):
        return self.data_list[1:]

dist.init_process_group("gloo")
datasets = [dict(type="Numbers", ann_file=count) for count in ("3", "4")]
dataset, sampler = dict(type="ConcatDataset", datasets=datasets), dict(type="DefaultSampler")
loader = dict(dataset=dataset, batch_size=5, sampler=sampler)
sharing = loader | {"dataset": {"type": build_shared, "config": dataset}}
both = [Runner.build_dataloader(one).dataset for one in (loader, sharing)]
plain, shared = ([dataset[i] for i in range(len(dataset))] for dataset in both)
numbers = [(1, 0), (2, 1), (1, 0), (2, 1), (3, 2)]
assert plain == shared == [dict(number=number, sample_idx=index) for number, index in numbers]
assert both[0].metainfo == both[1].metainfo
assert [one.cat_ids for one in both[1].datasets] == [[7], [7]]
dist.destroy_process_group()
"""


@pytest.mark.slow
def test_one_process_of_a_machine_reads_the_annotations(tmp_path):
    (tmp_path / "program.py").write_text(PROGRAM)
    words = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*words, "program.py"], cwd=tmp_path, capture_output=True, text=True, timeout=120,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    read = sorted((tmp_path / "read.txt").read_text().splitlines())
    assert read == sorted(["0 3", "0 4", "1 3", "1 4", "0 3", "0 4"])  # plain, and shared
