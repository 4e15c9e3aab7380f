"""The tokenizer learns, its codebook stays alive, and all processes hold the same one."""

import pytest
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn

from eva_pretrain.tokenizer import Codebook, FeatureTokenizer

CODEBOOK = {"num_codes": 64, "code_dim": 8, "decay": 0.9}
DIM = 24


@pytest.fixture(scope="module")
def features():
    """What a frozen random network makes of handwritten digits, (1797, 16, 24)."""
    torch.manual_seed(0)
    images = torch.tensor(load_digits().images, dtype=torch.float32)[:, None] / 16
    teacher = nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, DIM, 3, stride=2, padding=1)
    )
    with torch.no_grad():
        found = teacher(images).flatten(2).transpose(1, 2)
    return found - found.mean((0, 1))


def _tokenizer(*, num_heads=4, **options):
    codebook = Codebook(**CODEBOOK | options)
    return FeatureTokenizer(feature_dim=DIM, codebook=codebook, width=32, num_heads=num_heads)


def _train(tokenizer, features, *, steps):
    """Train on the first 1500 digits and return the metrics of all others."""
    optimizer = torch.optim.AdamW(tokenizer.train().parameters(), lr=3e-3)
    for _ in range(steps):
        loss, _ = tokenizer(features[torch.randint(1500, (64,))])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        return tokenizer.eval()(features[1500:])[1]


def _unit(count, dim=8):
    return F.normalize(torch.randn(count, dim), dim=1)


# Learning


@pytest.fixture(scope="module")
def trained(features):
    torch.manual_seed(0)
    tokenizer = _tokenizer()
    return tokenizer, _train(tokenizer, features, steps=150)


def test_it_learns_to_reconstruct_unseen_digits(features, trained):
    _, metrics = trained
    with torch.no_grad():
        _, before = _tokenizer().eval()(features[1500:])
    assert before["cosine"] < 0.3
    assert metrics["cosine"] > 0.85
    assert metrics["perplexity"] > 45
    assert metrics["code_usage"] == 1


def test_encode_names_the_nearest_code(features, trained):
    tokenizer, _ = trained
    codes = tokenizer.encode(features[:5])
    assert codes.shape == (5, 16)
    assert codes.dtype == torch.int64
    vectors = F.normalize(tokenizer.encoder(F.rms_norm(features[:5], (DIM,), eps=1e-6)), dim=-1)
    cosine = vectors @ tokenizer.codebook.codes.t()
    assert torch.equal(codes, cosine.argmax(-1))
    assert torch.equal(tokenizer.encode(7 * features[:5]), codes)  # the length does not matter
    assert torch.equal(tokenizer.encode(features[:5, 3:4]), codes[:, 3:4])  # nor do the others


def test_the_gradient_goes_straight_through(features):
    """The encoder gets the decoder's gradient at the codes, and the commitment's."""
    tokenizer = _tokenizer().eval()
    with torch.no_grad():
        vectors = F.normalize(tokenizer.encoder(F.rms_norm(features[:4], (DIM,))), dim=-1)
        tokenizer.codebook.codes.copy_(vectors.flatten(0, 1))  # 64 vectors, 64 codes
    loss, metrics = tokenizer(features[:4])
    assert metrics["commitment"] < 1e-12
    loss.backward()
    encoder = [parameter.grad.clone() for parameter in tokenizer.encoder.parameters()]
    tokenizer.zero_grad()
    vectors = tokenizer._vectors(features[:4])  # the same, without a codebook between
    (-F.cosine_similarity(tokenizer._decode(vectors), features[:4], dim=-1).mean()).backward()
    for actual, parameter in zip(encoder, tokenizer.encoder.parameters(), strict=True):
        torch.testing.assert_close(actual, parameter.grad, atol=1e-6, rtol=1e-4)


# The codebook


def test_one_move_by_hand():
    book = Codebook(num_codes=3, code_dim=2, decay=0.75, revive_below=0.0).train()
    book.codes.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]]))
    book.started.fill_(True)
    vectors = F.normalize(torch.tensor([[3.0, 1.0], [3.0, 2.0], [1.0, 4.0]]), dim=1)
    before = book.codes.clone()
    quantised, counts = book(vectors)
    assert torch.equal(quantised, before[[0, 0, 1]])
    assert counts.tolist() == [2, 1, 0]
    first = F.normalize(vectors[0] + vectors[1], dim=0)
    for code, mean in ((0, first), (1, vectors[2])):
        expected = F.normalize(0.75 * before[code] + 0.25 * mean, dim=0)
        torch.testing.assert_close(book.codes[code], expected)
    assert torch.equal(book.codes[2], before[2])
    usage = torch.tensor([0.75 / 3 + 0.25 * 2 / 3, 0.75 / 3 + 0.25 / 3, 0.75 / 3])
    torch.testing.assert_close(book.usage, usage)


def test_unused_codes_move_onto_vectors_of_the_batch():
    book = Codebook(num_codes=4, code_dim=8, decay=0.5, revive_below=0.3).train()
    book.codes.copy_(torch.eye(8)[:4])
    book.started.fill_(True)
    vectors = F.normalize(torch.eye(8)[0] + 0.1 * torch.rand(10, 8), dim=1)
    book(vectors)
    assert torch.equal(book.codes[1:], torch.eye(8)[1:4])  # 1/2 of the even part is left
    book(vectors)
    distance = torch.cdist(book.codes[1:], vectors)
    assert distance.amin(1).max() < 1e-3
    assert len(distance.argmin(1).unique()) == 3
    torch.testing.assert_close(book.usage[1:], torch.full((3,), 0.25))


# Two processes

PROGRAM = """
import datetime, sys, torch
import torch.distributed as dist
import torch.multiprocessing as mp
import torch.nn.functional as F
from torch.nn.parallel import DistributedDataParallel
from eva_pretrain.tokenizer import Codebook
from eva_pretrain.tokenizer import FeatureTokenizer

def worker(rank, folder):
    timeout = datetime.timedelta(seconds=20)
    options = {"rank": rank, "world_size": 2, "timeout": timeout}
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", **options)
    book = Codebook(num_codes=5, code_dim=4, decay=0.5, revive_below=0.0).train()
    start = torch.load(f"{folder}/start.pt")
    book.codes.copy_(start["codes"])
    book.started.fill_(True)
    counts = book(start["vectors"][:20] if rank == 0 else start["vectors"][20:])[1]
    torch.manual_seed(0)
    codes = Codebook(num_codes=16, code_dim=4, decay=0.8, revive_below=0.5)
    model = FeatureTokenizer(feature_dim=6, codebook=codes, width=8, num_heads=2)
    trained = DistributedDataParallel(model, broadcast_buffers=False)
    optimizer = torch.optim.SGD(trained.parameters(), lr=0.1)
    torch.manual_seed(rank)
    for step in range(12):
        loss, metrics = trained(torch.randn(3 + rank, 5, 6))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    results = {"moved": book.codes, "counts": counts, "perplexity": metrics["perplexity"]}
    torch.save(results | model.state_dict(), f"{folder}/{rank}.pt")
    del trained, loss  # before the group: DDP's end joins gloo's thread, which may want the GIL
    dist.destroy_process_group()

if __name__ == "__main__":
    mp.start_processes(worker, (sys.argv[1],), 2, start_method="fork")
"""


def test_two_processes_share_one_codebook(run_started, tmp_path):
    """Each sees other data, of another amount. One move equals that of one process that sees all;
    after training with k-means start and revived codes everything is equal bit for bit."""
    start = {"codes": _unit(5, 4), "vectors": _unit(50, 4)}
    torch.save(start, tmp_path / "start.pt")
    done = run_started("-c", PROGRAM, tmp_path, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert torch.equal(value, second[name]), name
    assert first["codebook.started"]
    book = Codebook(num_codes=5, code_dim=4, decay=0.5, revive_below=0.0).train()
    book.codes.copy_(start["codes"])
    book.started.fill_(True)
    _, counts = book(start["vectors"])
    assert torch.equal(first["counts"], counts)
    torch.testing.assert_close(first["moved"], book.codes)
