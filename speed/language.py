"""What methods for language models save: NPO reads its reference once, RMU's passes end at the layer they steer."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn

from speed.clock import Race, race
from unrecall.data.batches import Batch
from unrecall.data.examples import Examples
from unrecall.data.request import Request
from unrecall.data.signals import Rows
from unrecall.methods.base import Method
from unrecall.methods.npo import NPO
from unrecall.methods.rmu import RMU
from unrecall.tasks import CausalLM
from unrecall.tasks.base import Task
from unrecall.training.job import Job
from unrecall.training.loop import Fit
from unrecall.training.randomness import seeded
from unrecall.training.session import Session
from unrecall.training.teacher import Teacher

WORDS, LENGTH, EXAMPLES = 2048, 64, 32
RECIPE = Fit(optimizer="adamw", lr=1e-5, weight_decay=0.0, batch_size=16, epochs=10)


def run() -> list[Race]:
    model, task, request = small_llama(), CausalLM(Words()), some_text()

    def unlearning(method: Method) -> Callable[[], nn.Module]:
        return lambda: method.unlearn(model, Job(request, task, seeded(0), Session(device="cpu")))

    def raced(name: str, method: Method, target: str, rival: str, place: str, slow: Any) -> Race:
        ours = unlearning(method)

        def theirs() -> nn.Module:
            with patch(place, slow):
                return unlearning(method)()

        pairs = zip(ours().parameters(), theirs().parameters(), strict=True)
        worst = max((a - b).abs().max().item() for a, b in pairs)
        return Race(name, *race(ours, theirs, rounds=3), rival, target, f"weights differ by {worst:.0e}")

    reference = "unrecall.methods.npo.remembered"
    each_step = "reference run each step"
    return [
        raced(
            "NPO alone, small Llama",
            NPO(retain_weight=0.0, fit=RECIPE),
            "ratio >= 1.25",
            each_step,
            reference,
            at_each_step,
        ),
        raced("NPO with retain, small Llama", NPO(fit=RECIPE), "no more than 7/6", each_step, reference, at_each_step),
        raced(
            "RMU, layer 2 of 6, small Llama",
            RMU(fit=replace(RECIPE, epochs=5)),
            "ratio > 1",
            "passes run to their end",
            "unrecall.methods.rmu.until",
            to_the_end,
        ),
    ]


def at_each_step(model: nn.Module, task: Task, examples: Examples, of: Callable[[Rows], Tensor]) -> Teacher:
    """The reference's summed losses from a pass of its own for every batch."""

    @torch.no_grad()
    def answer(batch: Batch) -> Tensor:
        return of(task.rows(model, batch))

    return answer


def to_the_end(model: nn.Module, module: nn.Module, run: Callable[[], object]) -> Tensor:
    """What a module gives out in a pass that is not ended there."""
    outputs: list[Tensor] = []
    handle = module.register_forward_hook(lambda _, __, output: outputs.append(output))
    run()
    handle.remove()
    return outputs[0]


class Words:
    """A tokenizer for texts that are numbers: each is its own token."""

    bos_token_id, eos_token_id, pad_token_id = 0, 1, 1

    def __call__(self, text: str, **_: object) -> dict[str, list[int]]:
        return {"input_ids": [int(word) for word in text.split()]}

    def __len__(self) -> int:
        return WORDS

    def get_vocab(self) -> dict[str, int]:
        return {str(i): i for i in range(WORDS)}


def some_text() -> Request:
    """Plain text of so many random words that each example has the whole length."""
    ids = torch.randint(2, WORDS, (2 * EXAMPLES + 2, LENGTH - 2), generator=seeded(0)).tolist()
    texts = [{"prompt": "", "answer": " ".join(map(str, row))} for row in ids]
    return Request(texts[:EXAMPLES], texts[EXAMPLES : 2 * EXAMPLES], texts[-2:-1], texts[-1:])


def small_llama() -> nn.Module:
    """Six layers of width 128 with random weights."""
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes: dict[str, Any] = {"hidden_size": 128, "intermediate_size": 384, "num_hidden_layers": 6}
    config = LlamaConfig(vocab_size=WORDS, num_attention_heads=4, bos_token_id=0, eos_token_id=1, **sizes)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made: nn.Module = LlamaForCausalLM(config).eval()
        return made
