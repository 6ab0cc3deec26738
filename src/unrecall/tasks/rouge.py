"""How much of a true text stands in a written one, word by word."""

import importlib
import unicodedata
from collections.abc import Sequence
from typing import Any

import numpy as np

from unrecall.errors import MissingDependency

UNSPACED = "".join(
    rf"\p{{{script}}}"
    for script in (
        *("Han", "Hiragana", "Katakana", "Bopomofo", "Yi", "Tangut", "Nushu", "Thai", "Lao", "Khmer", "Myanmar"),
        *("Tai_Tham", "Tai_Le", "New_Tai_Lue", "Tai_Viet", "Cham", "Javanese", "Balinese", "Tibetan"),
    )
)
"""Scripts that are written without spaces between words: each of their letters is one."""
WORD = rf"[{UNSPACED}]\p{{M}}*|[[\p{{L}}\p{{M}}\p{{N}}]--[{UNSPACED}]]+"
SIGN = r"\S"


def rouge_l_recall(truth: Sequence[str], written: Sequence[str]) -> np.ndarray:
    """ROUGE-L recall of each pair `[n]`, in [0, 1]: the longest common subsequence of words over the true text's words.

    Words are runs of letters, marks and digits of any script, whatever their case and Unicode form; in scripts without
    spaces each letter is one. English words of more than three letters are stemmed, as in the field's tables. A true
    text without words (signs alone) is compared sign by sign. MissingDependency without the package rouge-score.

    Reference: Lin, "ROUGE: A Package for Automatic Evaluation of Summaries", ACL workshop 2004. Differs from the
    package rouge-score in its words, which are runs of a-z and 0-9 there: other letters are lost.
    """
    try:
        library: Any = importlib.import_module("rouge_score.rouge_scorer")
    except ImportError as error:
        raise MissingDependency("rouge-score", "llm") from error
    words, signs = Words(WORD), Words(SIGN)
    by_word, by_sign = (library.RougeScorer(["rougeL"], tokenizer=tokenizer) for tokenizer in (words, signs))
    scores = [
        (by_word if words.tokenize(true) else by_sign).score(true, text)["rougeL"].recall
        for true, text in zip(truth, written, strict=True)
    ]
    return np.array(scores, dtype=np.float64)


class Words:
    """The parts of a text that match a pattern, as rouge-score asks for them."""

    def __init__(self, pattern: str) -> None:
        self._pattern: Any = importlib.import_module("regex").compile(pattern, importlib.import_module("regex").V1)
        self._stemmer: Any = importlib.import_module("nltk.stem.porter").PorterStemmer()

    def tokenize(self, text: str) -> list[str]:
        """In their order; English ones stemmed where longer than three letters."""
        words = self._pattern.findall(unicodedata.normalize("NFKC", text).casefold())
        return [self._stemmer.stem(word) if len(word) > 3 and word.isascii() else word for word in words]
