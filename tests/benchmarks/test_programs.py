"""The bench: each case runs beside its peer, notices unequal work, and the page has the results."""

import json

import pytest
import torch

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def bench(benchmark):
    return benchmark("bench")


def test_the_page_has_what_the_results_say(bench):
    assert bench.page(bench.PAGE.read_text(), bench.RESULTS) == bench.PAGE.read_text()


def test_a_case_replaces_its_own_results_alone(bench, tmp_path, monkeypatch, capsys):
    values = torch.randn(300, 300)

    def loading(scale, device):
        calls = {"ours": values.clone, "peer": lambda: [values @ values for _ in range(20)]}
        yield bench.Case("small", calls, items=3, unit="images", flops=1e6)

    monkeypatch.setattr(bench.importlib.import_module("bench_data"), "loading", loading)
    for _ in range(2):
        bench.main(["--trial", "--only", "loading", "--output", str(tmp_path)])
        (file,) = tmp_path.iterdir()
        found = json.loads(file.read_text())
        found["cases"].setdefault("other", found["cases"]["small"] | {"date": "2000-01-01"})
        file.write_text(json.dumps(found))
    assert [*found["cases"]] == ["small", "other"]
    ours, peer = found["cases"]["small"]["ways"].values()
    assert ours["minimum"] <= ours["median"] <= ours["maximum"]
    assert peer["ratios"][0] == pytest.approx(peer["median"] / ours["median"], rel=1e-6)
    assert peer["cpu"] > 1
    assert ours["share"] > peer["share"] > 0
    assert "2000-01-01" in bench.page("".join(bench.MARKS), tmp_path)
    assert "| small |" in capsys.readouterr().out


def test_an_unknown_case_is_named(bench, capsys):
    with pytest.raises(SystemExit):
        bench.main(["--only", "encoder,nosuch"])
    assert "no case nosuch" in capsys.readouterr().err


def test_unequal_outputs_are_refused(bench, benchmark, monkeypatch):
    program = benchmark("bench_models")
    stock = program.timm_eva

    def other(*arguments):
        model = stock(*arguments)
        model.norm.eps = 0.1
        return model

    monkeypatch.setattr(program, "timm_eva", other)
    with pytest.raises(ValueError, match=r"encoder .* do not do the same"):
        next(program.encoder(bench.SCALES["trial"], CPU))


def test_unequal_training_steps_are_refused(bench, benchmark, monkeypatch):
    program = benchmark("bench_training")

    class Other(program.PlainModel):
        def forward(self, images, mask):
            return super().forward(images, ~mask)[: int(mask.sum())]

    monkeypatch.setattr(program, "PlainModel", Other)
    with pytest.raises(ValueError, match="MIM"):
        next(program.mim(bench.SCALES["trial"], CPU))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The 'warn' method:DeprecationWarning")  # of lvis
def test_every_case_runs(bench, tmp_path):
    bench.main(["--trial", "--output", str(tmp_path)])
    (file,) = tmp_path.iterdir()
    cases = json.loads(file.read_text())["cases"].values()
    assert len([case for case in cases if len(case["ways"]) > 1]) > 20


@pytest.mark.slow
def test_the_stock_clip_has_our_sizes(benchmark, monkeypatch):
    """The bench on a GPU measures EVA-CLIP-g of both."""
    program = benchmark("bench_training")
    monkeypatch.setattr(program, "with_our_weights", lambda *pair: pair[:2])  # meta has none
    with torch.device("meta"):
        ours, peer = program.build_pair("complete")
    weights = program.peer_weights(ours.state_dict())
    assert {name: value.shape for name, value in weights.items()} == {
        name: value.shape for name, value in peer.state_dict().items()
    }
    assert sum(value.numel() for value in weights.values()) == 1_136_435_841
