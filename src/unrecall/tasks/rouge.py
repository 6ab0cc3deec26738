"""How much of a true text stands in a written one, word by word."""

import importlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from unrecall.errors import MissingDependency


def rouge_l_recall(truth: Sequence[str], written: Sequence[str]) -> np.ndarray:
    """ROUGE-L recall of each pair `[n]`, in [0, 1]: the longest common subsequence of words over the true text's words.

    Words are runs of a-z and 0-9 in lower case, stemmed where longer than three letters, as in the field's tables; a
    true text that has none (one in another script, say) scores 0. MissingDependency without the package rouge-score.

    Reference: Lin, "ROUGE: A Package for Automatic Evaluation of Summaries", ACL workshop 2004.
    """
    try:
        library: Any = importlib.import_module("rouge_score.rouge_scorer")
    except ImportError as error:
        raise MissingDependency("rouge-score", "llm") from error
    scorer = library.RougeScorer(["rougeL"], use_stemmer=True)
    pairs = zip(truth, written, strict=True)
    return np.array([scorer.score(true, text)["rougeL"].recall for true, text in pairs], dtype=np.float64)
