"""Eight facts are forgotten at defaults, and the others kept, by greedy decoding: five architectures."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tests.worlds import CPU, facts, small_llama, small_mixtures, word_tokenizer
from unrecall.data.request import Request
from unrecall.experiment.goal import stopping
from unrecall.experiment.tune import tune
from unrecall.methods.simnpo import SimNPO
from unrecall.tasks import CausalLM
from unrecall.training.job import Job
from unrecall.training.loop import Fit, Phase, fit, loss_on
from unrecall.training.randomness import seeded

DATA = facts()
SETS = {"forget": DATA[:8], "retain": DATA[8:32], "holdout": DATA[32:44], "test": DATA[44:]}


def untrained(kind: str, words: int) -> nn.Module:
    """A model of width 32 with two layers."""
    import transformers as library

    sizes: dict[str, Any] = {"num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2}
    sizes |= {"hidden_size": 32, "intermediate_size": 64, "initializer_range": 0.1, "max_position_embeddings": 64}
    ends = {"vocab_size": words, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        if kind == "gpt2":
            own: dict[str, Any] = {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 64, "initializer_range": 0.1}
            own |= dict.fromkeys(("attn_pdrop", "embd_pdrop", "resid_pdrop"), 0.0)
            return library.GPT2LMHeadModel(library.GPT2Config(**own, **ends))
        if kind == "qwen2":
            return library.Qwen2ForCausalLM(library.Qwen2Config(**sizes, **ends))
        if kind == "gemma":
            return library.GemmaForCausalLM(library.GemmaConfig(head_dim=16, **sizes, **ends))
    return small_mixtures(words)[0] if kind == "mixtral" else small_llama(words)


def whole(model: nn.Module, task: CausalLM, texts: list[dict[str, object]]) -> float:
    """The share of answers that the model writes word for word."""
    written = task.generate(model, texts)
    return float(np.mean([text["answer"] == said for text, said in zip(texts, written, strict=True)]))


STRENGTH = 128.0
"""What the others are unlearned at: 32 to 256 serve each of them. The Llama is tuned."""


@pytest.mark.parametrize("kind", ["llama", "gpt2", "qwen2", "gemma", "mixtral"])
def test_eight_facts_are_forgotten_and_the_others_are_not(kind: str) -> None:
    task = CausalLM(word_tokenizer(), template="plain", ends=True)
    original = untrained(kind, len(task.tokenizer))
    recipe = Fit(optimizer="adamw", lr=5e-3, weight_decay=0.0, epochs=60, batch_size=8, schedule="cosine", clip=1.0)
    known = [*SETS["forget"], *SETS["retain"]]
    fit(original, task, Phase(loss_on("all", task), {"all": known}, recipe), seeded(0), CPU)
    assert whole(original, task, known) == 1

    job, method = Job(Request(**SETS), task, seeded(0), CPU), SimNPO()
    strength = tune(method, original, job.seeded(0)).chosen if kind == "llama" else STRENGTH
    unlearned = method.scaled(strength).unlearn(original, stopping(job.seeded(0)))
    assert whole(unlearned, task, SETS["forget"]) == 0
    assert whole(unlearned, task, SETS["retain"]) >= 0.9
