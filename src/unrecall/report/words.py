"""What the words on the page mean, each in one line; docs/glossary.md says the same of each, which a test checks."""

from collections.abc import Mapping
from typing import Final

WORDS: Final[Mapping[str, str]] = {
    "forget": "the examples that were trained on and must go.",
    "retain": "the examples that were trained on and stay.",
    "holdout": "examples like those of forget that were never trained on.",
    "test": "examples that were never trained on; they show what a model is good for.",
    "validation": "examples like those of the holdout that only tuning looks at.",
    "group": "examples that belong together, such as one person's, and are counted as one.",
    "original": "the model before unlearning.",
    "unlearned": "the model that the method made of it, which is what an audit is about.",
    "retrained": "a model that was trained on retain alone, with a seed of its own.",
    "null": "what the same method leaves at learning rate 0: whatever it forgot, BatchNorm statistics forgot.",
    "method": "makes a model forget.",
    "attack": "tries to show that something was not forgotten.",
    "control": "a trial of an attack on what is known to hold something (positive), or known not to (negative).",
    "suite": "a list of attacks.",
    "scenario": "a request and a task, and how the models are trained.",
    "measurement": "one number of the unlearned model beside the same number of all the others.",
    "record": "everything about one unlearning and its audit, as JSON.",
    "verdict": "the audit in a word or two; docs/verdict.md says what each promises.",
    "fixed suite": "the attacks of a verdict without retrained models, settled before any model is looked at.",
    "share of memory (rho)": ("how much of what the original shows of the forgotten the unlearned model still shows."),
    "basis": "what a verdict compares with: retrained models, or examples that were never trained on.",
    "grade": "how strong the evidence behind a verdict is.",
    "leak": (
        "a number by which the unlearned model shows what should be gone. Its side is `above` or `below` the retrained "
        "models, where that shows."
    ),
    "judged": "said of a measurement on which a verdict rests.",
    "not judged": "said where there is nothing to hold the model against, or no rule that does it.",
    "inconclusive": "said where too much could go unseen for a yes or a no.",
    "can't be told": "said where the original shows no trace of the forgotten either, so that none can be seen to go.",
    "margin": "how far the unlearned model may differ from the retrained ones and still be like them.",
    "hidden": "said of what a model still holds and no longer shows; **erased**, of what it no longer holds.",
    "interval": "where, 95 times in 100, the number lies that very many examples would give.",
    "p": "how often chance alone would show as much; 0.04 is 4 times in 100.",
    "z": "how far a test's figure lies from what chance gives, in standard deviations.",
    "AUC": "how often a forgotten example looks better known than one that was never trained on; 0.5 is guessing.",
    "TPR at 1 % FPR": "the share of forgotten examples that are found while 1 of 100 others is named wrongly.",
    "epsilon": "a lower bound on what the model gives away of the whole request, as differential privacy counts it.",
    "alpha": "how often a verdict may accuse a model that never saw the forgotten.",
    "BatchNorm statistics": "means and variances that a network takes from its batches, without any learning.",
    "residual knowledge": "how much surer the model is of slightly changed forgotten examples than a retrained one.",
    "recalibration": "BatchNorm statistics taken again on unlabelled data.",
    "relearning": "a short fine-tuning that tries to bring the forgotten back.",
    "memory left": "1 where the model recognises the forgotten as the original does, 0 where as retrained models do.",
    "ROUGE-L recall": "the share of a true answer's words that the model writes, in their order.",
    "extraction strength": "the share of an answer that the model completes by itself, shown its beginning.",
}
