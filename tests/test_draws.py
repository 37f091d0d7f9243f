"""Quick draws are torch's own."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rftkit import draws


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
    assert torch.multinomial is draws._torchs


def test_they_are_quick_where_torch_draws_like_this(monkeypatch):
    asked = []
    monkeypatch.setattr(draws, "_torchs", lambda *args, **options: asked.append(args))
    with draws.quick_draws():
        torch.multinomial(torch.full((2, 5), 0.2), 1)
        assert bool(asked) != draws._draws_alike()


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_no_number_is_torchs_error(bad):
    with draws.quick_draws(), pytest.raises(RuntimeError, match="probability tensor"):
        torch.multinomial(torch.tensor([[0.5, bad]]), 1)


@pytest.mark.parametrize("options", [{"num_samples": 2}, {"num_samples": 1, "generator": torch.Generator()}])
def test_other_draws_are_left_to_torch(options):
    with draws.quick_draws():
        assert torch.multinomial(torch.full((3, 9), 1 / 9), **options).shape == (3, options["num_samples"])


def test_randomness_of_another_kind_is_left_to_torch(monkeypatch):
    monkeypatch.setattr(draws, "_draws_alike", lambda: False)
    torch.manual_seed(3)
    expected = torch.multinomial(torch.full((4, 50), 0.02), 1)
    torch.manual_seed(3)
    with draws.quick_draws():
        assert (torch.multinomial(torch.full((4, 50), 0.02), 1) == expected).all()
