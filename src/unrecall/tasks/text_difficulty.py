"""How hard texts are, from other texts alone: how likely their words are after those before them."""

import math
from collections.abc import Iterable, Sequence

import numpy as np

from unrecall.data.covariates import Covariates

BEGINNING = -1
"""What stands before the first token."""


class NGrams:
    """How likely a token is after those before it, from counts of what followed the last two, the last one, and none.

        P(w | h) = (count(h w) + followers(h) P(w | h')) / (count(h .) + followers(h))

    h': h without its first token; followers(h): how many different tokens came after h; below no history at all, each
    of the V tokens seen, and any other one, has 1 / (V + 1). A history that never came says what h' says.

    Reference: Witten, Bell, "The Zero-Frequency Problem", IEEE Transactions on Information Theory 37, 1991; as in
    Chen, Goodman, "An Empirical Study of Smoothing Techniques for Language Modeling", 1998.
    """

    def __init__(self, texts: Iterable[Sequence[int]], order: int = 3) -> None:
        self.order = order
        self.after: dict[tuple[int, ...], dict[int, int]] = {}
        for text in texts:
            padded = (*(BEGINNING,) * (order - 1), *text)
            for end in range(order - 1, len(padded)):
                for length in range(order):
                    followers = self.after.setdefault(padded[end - length : end], {})
                    followers[padded[end]] = followers.get(padded[end], 0) + 1
        self.totals = {history: sum(followers.values()) for history, followers in self.after.items()}

    @property
    def counts(self) -> dict[int, int]:
        """How often each token was seen."""
        return self.after.get((), {})

    def log_probabilities(self, text: Sequence[int], start: int) -> list[float]:
        """The log-probability of each token of a text from `start` on, in nats."""
        padded = (*(BEGINNING,) * (self.order - 1), *text)
        return [math.log(self._probability(padded, i)) for i in range(start + self.order - 1, len(padded))]

    def _probability(self, padded: Sequence[int], end: int) -> float:
        probability = 1 / (len(self.counts) + 1)
        for length in range(self.order):
            history = tuple(padded[end - length : end])
            if history not in self.after:
                break
            followers = self.after[history]
            total = self.totals[history] + len(followers)
            probability = (followers.get(padded[end], 0) + len(followers) * probability) / total
        return probability

    def log_frequency(self, token: int) -> float:
        """The logarithm of a token's share of all tokens, one added to each count."""
        return math.log((self.counts.get(token, 0) + 1) / (self.totals.get((), 0) + len(self.counts) + 1))


def difficulty_of_texts(retain: Iterable[Sequence[int]], pool: Sequence[tuple[Sequence[int], int]]) -> Covariates:
    """What retain's texts alone say of each example of the pool `[n]`: tokens, and where the answer starts.

    Columns: c, the mean log-probability of the answer's tokens under `NGrams` of retain, in nats (group "confidence");
    c^2 ("square"); the logarithm of the answer's length and the mean log-frequency of its tokens in retain ("words").
    """
    counted = NGrams(retain)
    rows = []
    for tokens, start in pool:
        answer = tokens[start:]
        c = float(np.mean(counted.log_probabilities(tokens, start))) if answer else 0.0
        frequency = float(np.mean([counted.log_frequency(token) for token in answer])) if answer else 0.0
        rows.append((c, c * c, math.log(max(1, len(answer))), frequency))
    return Covariates(
        ("c", "c^2", "log length", "log frequency"),
        ("confidence", "square", "words", "words"),
        np.array(rows, np.float64).reshape(len(pool), 4),
    )
