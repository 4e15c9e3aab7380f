"""The attentive probe: what it computes, what it can find that a mean cannot, and its choices."""

import pytest
import torch
import torch.nn.functional as F

from eva_engine.evaluation.attentive import AttentiveProbe, fit_probe


def noise(videos, seed):
    """Tokens (videos, 4, 9, 16), labels of two classes and their signs, and the generator."""
    chance = torch.Generator().manual_seed(seed)
    tokens = 0.3 * torch.randn(videos, 4, 9, 16, generator=chance)
    labels = torch.randint(0, 2, (videos,), generator=chance)
    return tokens, labels, 2 * labels.float() - 1, chance


def marked(videos, seed=0):
    """All tokens say yes or no in channel 3; the one that channel 5 marks says the class."""
    tokens, labels, signs, chance = noise(videos, seed)
    tokens[..., 3] += 4 * torch.randint(0, 2, tokens.shape[:3], generator=chance) - 2
    flat, rows = tokens.flatten(1, 2), torch.arange(videos)
    place = torch.randint(0, flat.shape[1], (videos,), generator=chance)
    flat[rows, place, 5] = 3.0
    flat[rows, place, 3] = 2 * signs
    return tokens, labels


def ordered(videos, seed=0):
    """Yes and then no, or no and then yes."""
    tokens, labels, signs, _ = noise(videos, seed)
    tokens[:, 0, :, 3] += signs[:, None]
    tokens[:, -1, :, 3] -= signs[:, None]
    return tokens, labels


def test_a_block_of_cross_attention(randomise):
    """Beside torch's own attention and the formula written out."""
    probe = randomise(AttentiveProbe(128, frames=3, num_classes=5)).eval()
    assert probe.heads == 2
    tokens = torch.randn(4, 3, 6, 128)
    peer = torch.nn.MultiheadAttention(128, 2, batch_first=True)
    with torch.no_grad():
        peer.in_proj_weight.copy_(torch.cat([probe.to_query.weight, probe.to_key_value.weight]))
        peer.in_proj_bias.copy_(torch.cat([probe.to_query.bias, probe.to_key_value.bias]))
        peer.out_proj.load_state_dict(probe.proj.state_dict())
        context = (F.layer_norm(tokens, [128], probe.norm1.weight, probe.norm1.bias)
                   + probe.frame_positions).reshape(4, 18, 128)  # fmt: skip
        query = probe.query.expand(4, 1, 128)
        found = query + peer(query, context, context)[0]
        found = found + probe.mlp(probe.norm2(found))
        expected = probe.head(found[:, 0])
        torch.testing.assert_close(probe(tokens), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("task", [marked, ordered])
def test_it_finds_what_the_mean_hides(task):
    tokens, labels = task(240)
    queries, truth = task(100, seed=1)

    def right(reduce):
        fitted = fit_probe(reduce(tokens), labels, num_classes=2, learning_rates=(3e-3,), epochs=30)
        return (fitted(reduce(queries)).argmax(1) == truth).float().mean().item()

    assert right(torch.Tensor.half) > 0.95
    assert right(lambda values: values.mean(dim=(1, 2), keepdim=True)) < 0.7


def test_the_best_epoch_and_rate_are_kept():
    """A rate that destroys everything loses, also if it comes last."""
    tokens, labels = ordered(120)
    fitted = fit_probe(tokens, labels, num_classes=2, learning_rates=(1e-2, 50.0), epochs=20)
    assert fitted.learning_rate == 1e-2
    # of labels that mean nothing, later epochs know more of the rest and not of what is held out
    noise_labels = torch.randint(0, 2, (120,), generator=torch.Generator().manual_seed(4))
    fitted = fit_probe(tokens, noise_labels, num_classes=2, learning_rates=(1e-2,), epochs=20)
    assert 1 <= fitted.epoch < 20
    order = torch.randperm(120, generator=torch.Generator().manual_seed(0))
    right = fitted(tokens).argmax(1) == noise_labels
    assert right[order[:24]].float().mean().item() == pytest.approx(fitted.right)
    assert right[order[24:]].float().mean() < 0.9
