"""What benchmarks measure: rounds in turn, ratios of a round, the peak of memory."""

import pytest
import torch

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def measuring(benchmark):
    return benchmark("measuring")


def test_calls_take_turns_and_the_first_round_does_not_count(measuring):
    order = []
    times = measuring.in_turn(
        [lambda: order.append("a"), lambda: order.append("b")], rounds=2, device=CPU
    )
    assert order == ["a", "b"] * 3
    assert [len(taken) for taken in times] == [2, 2]


def test_ratios_are_those_of_rounds(measuring):
    slow, fast = [(6.0, 9.0), (2.0, 4.0), (9.0, 1.0)], [(3.0, 3.0), (2.0, 1.0), (1.0, 2.0)]
    assert measuring.ratios(slow, fast) == [2.0, 1.0, 9.0]
    assert measuring.ratios(slow, fast, cpu=True) == [3.0, 4.0, 0.5]


def test_the_peak_is_the_largest_sum_at_once(measuring):
    def call():
        kept = torch.empty(2**20)  # 4 MiB
        for _ in range(3):
            torch.empty(2**19)  # 2 MiB, freed before the next
        return kept

    result, peak = measuring.with_peak(call, CPU)
    assert result.shape == (2**20,)
    assert peak == pytest.approx(6 / 1024, rel=0.01)
