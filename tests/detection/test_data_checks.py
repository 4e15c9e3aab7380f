"""Files and labels are looked at once before a run; the workers of an evaluation end."""

import os
import signal

import pytest
from torch.utils.data import DataLoader, Dataset

from eva_detection.data.checks import check_labels, check_pictures, records_of
from eva_detection.data.loading import EvaluationLoader


@pytest.fixture
def records(tmp_path):
    """Forty pictures."""
    found = []
    for key in range(40):
        file = tmp_path / f"{key}.jpg"
        file.write_bytes(b"x")
        found.append({"file_name": str(file), "image_id": key})
    return found


def test_every_file_is_looked_at(records, tmp_path):
    assert check_pictures(records, part="evaluation") == []
    (tmp_path / "33.jpg").unlink()
    message = r"1 of 40 pictures for evaluation cannot be read: .*33\.jpg \(id 33\) is missing; put"
    with pytest.raises(ValueError, match=message):
        check_pictures(records, part="evaluation")
    (tmp_path / "7.jpg").write_bytes(b"")
    (tmp_path / "8.jpg").unlink()
    (tmp_path / "8.jpg").mkdir()
    message = r"3 of 40 .*7\.jpg \(id 7\) is empty, .*8\.jpg \(id 8\) is a folder, .*33\.jpg"
    with pytest.raises(ValueError, match=message):
        check_pictures(records, part="evaluation", allowed=2)
    assert len(check_pictures(records, part="training", allowed=3)) == 3


def test_a_pipe_is_never_allowed(records, tmp_path):
    (tmp_path / "5.jpg").unlink()
    os.mkfifo(tmp_path / "5.jpg")
    with pytest.raises(ValueError, match=r"5\.jpg \(id 5\) is a pipe, socket or device"):
        check_pictures(records, part="training", allowed=10)


def test_what_is_not_a_file_is_left_to_detectron2():
    assert check_pictures([{"file_name": "s3://a/b.jpg"}, {"image": 3}], part="training") == []
    assert records_of(DataLoader([1])) == ()
    assert records_of([{"a": 1}]) == [{"a": 1}]


def test_labels():
    record = {"file_name": "a.jpg", "image_id": 3, "annotations": [{"category_id": 9}]}
    check_labels([record, {"file_name": "b.jpg"}], 10)
    with pytest.raises(ValueError, match=r"a\.jpg \(id 3\) has an object of class 9.*classes=9"):
        check_labels([record], 9)


class Handlers(Dataset):
    """What a worker does with the signals that end a run."""

    def __len__(self):
        return 4

    def __getitem__(self, index):
        numbers = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
        return [signal.getsignal(number) == signal.SIG_IGN for number in numbers], os.getpid()


def test_workers_leave_signals_to_the_run_and_end():
    loader = EvaluationLoader(DataLoader(Handlers(), num_workers=1, collate_fn=list))
    assert len(loader) == 4
    batches = iter(loader)
    ((ignored, worker),) = next(batches)
    assert ignored == [True, True, True]
    loader.close()  # with batches still to come
    with pytest.raises(ProcessLookupError):
        os.kill(worker, 0)
    loader.close()


def test_other_loaders_are_used_as_they_are():
    loader = EvaluationLoader([1, 2])
    assert list(loader) == [1, 2]
    loader.close()
