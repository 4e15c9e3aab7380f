"""Order and content of pairs in shards: with any workers, in two processes, and after a kill."""

import numpy as np
import pytest
from safetensors.torch import load_file

STEPS = 12  # 24 pairs, 4 a step, 2 epochs


@pytest.fixture(scope="module")
def plain(launcher, shards, tmp_path_factory):
    """The digests of an undisturbed run and its folder."""
    folder = tmp_path_factory.mktemp("plain")
    output = folder / "run"
    ended = launcher([shards, str(output), "0", "4"], ranks=1, log=folder / "log")
    assert ended.codes == [0], ended.texts
    return (folder / "run.0").read_text().split(), output


def weights(output):
    return load_file(output / f"checkpoints/step_{STEPS:08d}/model.safetensors")


def test_epochs_differ_and_a_sample_that_cannot_be_read_is_replaced(plain):
    digests, _ = plain
    assert len(digests) == 4 * STEPS
    first, second = digests[:24], digests[24:]
    assert len(set(first)) == 24  # the replacement has a crop of its own
    assert len(set(first) & set(second)) < 8  # by chance the same caption and the entire picture


def test_two_processes_share_each_step(plain, launch, tmp_path):
    ended, digests = launch(tmp_path / "run", batch_size=2, ranks=2, workers=1)
    assert ended.codes == [0, 0], ended.texts
    together = np.concatenate([np.reshape(seen, (STEPS, 2)) for seen in digests], axis=1)
    assert together.reshape(-1).tolist() == plain[0]


def test_killed_in_the_middle_of_an_epoch_and_continued(plain, launch, metrics, tmp_path):
    """kill -9 of a run with two workers, of whose samples the order is the same; then without."""
    output = tmp_path / "run"
    ended, (killed,) = launch(output, workers=2, signal="SIGKILL", lines=3, after=0.0, group=True)
    assert ended.codes == [-9], ended.texts
    assert 12 <= len(killed) < 4 * STEPS
    assert killed == plain[0][: len(killed)]
    ended, (digests,) = launch(output)
    assert ended.codes == [0], ended.texts
    begun = int(ended.texts[0].partition("resume   after step ")[2].split()[0].rstrip(",:."))
    assert begun % 6, "the checkpoint is in the middle of an epoch"
    assert digests[len(killed) :] == plain[0][4 * begun :]
    assert metrics(output) == metrics(plain[1])
    first, second = weights(output), weights(plain[1])
    assert first.keys() == second.keys()
    assert all(first[name].equal(second[name]) for name in first)
