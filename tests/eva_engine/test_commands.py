"""Commands that run a model: how they begin and end, device and number format."""

import argparse

import pytest
import torch

from eva_engine import distributed
from eva_engine.commands.ending import ending, sentence
from eva_engine.commands.options import (
    add_arguments,
    choose_device,
    choose_dtype,
    command,
    new_parser,
)


@pytest.fixture(autouse=True)
def _alone(monkeypatch):
    monkeypatch.setattr(distributed, "stop", lambda: None)  # other tests need the group
    monkeypatch.delenv("WORLD_SIZE", raising=False)


@pytest.mark.parametrize(("error", "code"), [
    (ValueError("the last\nof two lines"), "program: the last of two lines"),
    (OSError("gone"), "program: gone"), (ValueError(""), "program: ValueError('')"),
    (KeyboardInterrupt(), 130),
])  # fmt: skip
def test_how_errors_end_a_command(error, code):
    with pytest.raises(SystemExit) as end, ending("program"):
        raise error
    assert end.value.code == code


def test_our_own_faults_keep_their_traceback():
    with pytest.raises(ZeroDivisionError), ending("program"):
        1 // 0  # noqa: B018


def test_number_formats():
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    assert [choose_dtype("auto", place) for place in (cpu, gpu)] == [torch.float32, torch.float16]
    assert choose_dtype("bf16", gpu) == choose_dtype("bf16", cpu) == torch.bfloat16
    assert choose_dtype("fp16", cpu) == torch.float16
    assert choose_dtype("fp32", gpu) == torch.float32


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_devices():
    assert choose_device() == choose_device("cpu", join=True) == torch.device("cpu")
    with pytest.raises(ValueError, match="device cuda: this machine has no GPU; use cpu"):
        choose_device("cuda")


def parse(arguments):
    parser = new_parser("program", "Runs a model.")
    add_arguments(parser, batch_size=3)
    return parser.parse_args(arguments)


def test_a_command_hands_options_and_device_on():
    seen = []
    command("program", parse, lambda *given: seen.append(given))(["--device=cpu", "--workers=1"])
    ((options, device),) = seen
    assert (options.workers, options.batch_size, options.precision) == (1, 3, "auto")
    assert device == torch.device("cpu")


def test_a_command_ends_with_a_sentence():
    def work(options: argparse.Namespace, device: torch.device) -> None:
        raise OSError("the disk is full")

    with pytest.raises(SystemExit, match=r"^program: the disk is full$"):
        command("program", parse, work)(["--device=cpu"])


def test_a_command_takes_no_abbreviations(capsys):
    with pytest.raises(SystemExit) as end:
        command("program", parse, lambda *given: None)(["--batch=3"])
    assert end.value.code == 2
    assert "there is no flag --batch; close to it: --batch-size" in capsys.readouterr().err


def test_the_message_of_an_error_in_a_worker_is_its_last_line():
    text = (
        "Caught ValueError in DataLoader worker process 0.\n"
        "Original Traceback (most recent call last):\n  File ...\nValueError: a value: and the fix"
    )
    assert sentence(ValueError(text)) == "a value: and the fix"
    assert sentence(ValueError("two\n lines")) == "two lines"
    assert sentence(OSError()) == "OSError()"
