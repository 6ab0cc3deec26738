"""By hand: the share of a text that stands in earlier ones."""

import pytest

from unrecall.models.knowledge_holes.self_bleu import self_bleu, stretches


def test_stretches_are_counted_in_words() -> None:
    assert stretches("A b c D", (3,)) == [("a", "b", "c"), ("b", "c", "d")]
    assert len(stretches("a b c d e")) == 3 + 2 + 1
    assert stretches("a b") == []


def test_by_hand() -> None:
    """Of "a b c d e x": 3 of 4 stretches of three words, 2 of 3 of four, 1 of 2 of five stand in "a b c d e"."""
    earlier = set(stretches("a b c d e"))
    assert self_bleu("a b c d e x", earlier) == pytest.approx((3 / 4 + 2 / 3 + 1 / 2) / 3)
    assert self_bleu("A B c d e", earlier) == 1
    assert self_bleu("e d c b a", earlier) == 0
    assert self_bleu("a b", earlier) == 0
    assert self_bleu("a b c", earlier) == pytest.approx(1 / 3), "lengths that a text doesn't reach count 0"
    assert self_bleu("a b c d e", set()) == 0
