"""Quick draws are torch's own."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rftkit.shared_prefix import draws

EVEN = torch.full((4, 50), 0.02)


@given(st.integers(0, 2**31), st.integers(1, 70), st.integers(1, 300), st.floats(0.1, 30))
def test_the_same_words_are_drawn_and_the_same_randomness_is_left(seed, rows, words, spread):
    logits = torch.randn(rows, words, generator=torch.Generator().manual_seed(seed))
    probabilities = (spread * logits).softmax(-1)
    torch.manual_seed(seed)
    expected, after = torch.multinomial(probabilities, 1), torch.rand(3)
    torch.manual_seed(seed)
    with draws.quick_draws():
        found = torch.multinomial(probabilities, num_samples=1)
    assert (found == expected).all() and found.shape == expected.shape
    assert (torch.rand(3) == after).all()


def test_torch_is_not_asked_and_is_as_before_afterwards(monkeypatch):
    stock = torch.multinomial
    with draws.quick_draws():
        assert torch.multinomial is draws._multinomial
    assert torch.multinomial is stock
    monkeypatch.setattr(draws, "_stock_multinomial", None)
    assert draws._multinomial(EVEN, 1).shape == (4, 1)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_no_number_is_torchs_error(bad):
    with draws.quick_draws(), pytest.raises(RuntimeError, match="probability tensor"):
        torch.multinomial(torch.tensor([[0.5, bad]]), 1)


@pytest.mark.parametrize("asked", [(EVEN, 3), (EVEN, 3, True), (EVEN.double(), 1), (EVEN[0], 1)])
def test_other_draws_are_torchs(asked):
    for options in ({}, {"generator": torch.Generator()}):
        said = []
        for draw in (draws._stock_multinomial, draws._multinomial):
            for randomness in (torch, *options.values()):
                randomness.manual_seed(3)
            said.append(draw(*asked, **options))
        assert torch.equal(*said)


def test_randomness_of_another_kind_is_left_to_torch(monkeypatch):
    monkeypatch.setattr(draws, "_draws_alike", lambda: False)
    monkeypatch.setattr(draws, "_exponential", None)
    assert draws._multinomial(EVEN, 1).shape == (4, 1)
