"""Self-BLEU: how much of a text stands word for word in earlier ones."""

from collections.abc import Set

SIZES = (3, 4, 5)
"""How many words in a row are looked for, as in curiosity-driven red teaming."""


def stretches(text: str, sizes: tuple[int, ...] = SIZES) -> list[tuple[str, ...]]:
    """Every stretch of so many words of a text, whatever their case."""
    words = text.casefold().split()
    return [tuple(words[i : i + n]) for n in sizes for i in range(len(words) - n + 1)]


def self_bleu(text: str, earlier: Set[tuple[str, ...]]) -> float:
    """The share of a text's stretches of n words that stand in earlier texts, mean over n = 3, 4, 5; in [0, 1].

    `earlier`: the stretches of the earlier texts. A length that the text doesn't reach counts 0.

    Reference: Zhu, Lu, Zheng, Guo, Zhang, Wang, Yu, "Texygen: A Benchmarking Platform for Text Generation Models",
    SIGIR 2018, arXiv 1802.01886. Differs from the paper in taking the precision of each length alone, without clipping,
    shorter lengths and the brevity penalty of BLEU.
    """
    shares = []
    for n in SIZES:
        own = stretches(text, (n,))
        shares.append(sum(stretch in earlier for stretch in own) / len(own) if own else 0.0)
    return sum(shares) / len(shares)
