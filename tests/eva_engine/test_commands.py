"""Commands that run a model: how they begin and end, device and number format."""

import pytest
import torch

from eva_engine.commands.options import (
    add_arguments,
    add_weights,
    command,
    new_parser,
    parse_with_weights,
)
from eva_engine.distributed import choose_dtype


def test_number_formats():
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    assert [choose_dtype("auto", place) for place in (cpu, gpu)] == [torch.float32, torch.float16]
    assert choose_dtype("bf16", gpu) == choose_dtype("bf16", cpu) == torch.bfloat16
    assert choose_dtype("fp16", cpu) == torch.float16


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


def test_an_error_is_one_line(capsys):
    def work(options, device):
        raise ValueError("a value and the fix")

    with pytest.raises(SystemExit) as end:
        command("program", parse, work)(["--device=cpu"])
    assert end.value.code == 1
    assert capsys.readouterr().err == "program: a value and the fix\n"


@pytest.mark.parametrize(("words", "weights"), [
    (["a.pt"], "a.pt"), (["--weights", "a.pt"], "a.pt"), (["a.pt", "--weights", "b.pt"], None),
    ([], None),
])  # fmt: skip
def test_weights_are_a_word_or_a_flag(words, weights):
    parser = new_parser("program", "Runs a model.")
    add_weights(parser, alone=True)
    if weights is not None:
        assert parse_with_weights(parser, words).weights == weights
        return
    with pytest.raises(SystemExit) as end:
        parse_with_weights(parser, words)
    assert end.value.code == 2
