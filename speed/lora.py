"""Peak memory of unlearning with LoRA against plain LoRA fine-tuning, a process each; aimed at: at most 1.1 times.

Both see the same forget and retain texts at each step, and both end with the merge: PEFT's own adds to the weights
where they are; unlearning leaves the model it was given alone, and so ends with a second one. That shows in the second
row, where a step is so small that the weights are all there is to remember.
"""

import os
import resource
import subprocess
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

from unrecall.training.job import Job

WORDS, STEPS = 16_000, 3


class Peak(NamedTuple):
    """Peak resident memory in MB of both, above what a process holds once everything is imported."""

    name: str
    ours: float
    theirs: float
    rival: str
    target: str

    def line(self) -> str:
        ratio = self.ours / self.theirs
        return (
            f"{self.name:<38} {self.ours:8.0f} MB  {self.theirs:8.0f} MB  {ratio:6.2f}x  {self.target:<14} "
            f"{self.rival}; memory, ours / theirs"
        )


def run() -> list[Peak]:
    rival = "PEFT and a bare loop"
    return [
        Peak(
            "NPO in LoRA, 33 M, 2 x 8 x 64 tokens", _peak("ours", 8, 64), _peak("theirs", 8, 64), rival, "ratio <= 1.1"
        ),
        Peak("NPO in LoRA, 33 M, 2 x 1 x 8 tokens", _peak("ours", 1, 8), _peak("theirs", 1, 8), rival, "at most 2"),
    ]


def _peak(who: str, batch: int, length: int) -> float:
    # Large blocks go back to the system when they are freed, so that resident memory is memory in use.
    surroundings = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536"}
    command = [sys.executable, "-m", "speed.lora", who, str(batch), str(length)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True, env=surroundings).stdout)


def main(who: str, size: int, length: int) -> None:
    """Does the work of one of them and prints how many MB it took at most."""
    import peft
    import psutil
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from torch import nn
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    from unrecall.data.examples import Absent
    from unrecall.data.request import Request
    from unrecall.methods.lora import LoRA
    from unrecall.methods.npo import NPO
    from unrecall.tasks import CausalLM
    from unrecall.training.loop import Fit
    from unrecall.training.randomness import seeded
    from unrecall.training.session import Session

    tokenizer = Tokenizer(models.WordLevel({f"w{i}": i for i in range(WORDS)}, unk_token="w0"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    task = CausalLM(PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="w1", eos_token="w2", pad_token="w3"))
    drawn = torch.randint(4, WORDS, (2 * STEPS * size, length - 2), generator=seeded(0)).tolist()
    texts = [{"prompt": "", "answer": " ".join(f"w{i}" for i in row)} for row in drawn]
    forget, retain = texts[: STEPS * size], texts[STEPS * size :]

    def small() -> nn.Module:
        sizes: dict[str, Any] = {"hidden_size": 512, "intermediate_size": 1376, "num_attention_heads": 8}
        return LlamaForCausalLM(LlamaConfig(vocab_size=WORDS, num_hidden_layers=8, tie_word_embeddings=True, **sizes))

    def ours(model: nn.Module) -> nn.Module:
        base = NPO(fit=Fit(optimizer="adamw", lr=1e-4, weight_decay=0.0, batch_size=size, epochs=1))
        request = Request(forget, retain, Absent("no holdout"), Absent("no test"))
        return LoRA(base=base).unlearn(model, Job(request, task, seeded(0), Session(device="cpu")))

    def theirs(model: nn.Module) -> nn.Module:
        linear = {name.rsplit(".", 1)[-1] for name, m in model.named_modules() if isinstance(m, nn.Linear)} - {
            "lm_head"
        }
        wrapped = peft.get_peft_model(model, peft.LoraConfig(r=16, lora_alpha=32, target_modules=sorted(linear)))
        optimizer = torch.optim.AdamW([p for p in wrapped.parameters() if p.requires_grad], 1e-4)
        for first in range(0, len(forget), size):
            optimizer.zero_grad(set_to_none=True)
            batches = [task.collate(part[first : first + size]) for part in (forget, retain)]
            loss = sum(task.rows(wrapped, batch).losses().mean() for batch in batches)
            loss.backward()  # type: ignore[union-attr]
            optimizer.step()
        return wrapped.merge_and_unload()

    chosen: Callable[[nn.Module], nn.Module] = {"ours": ours, "theirs": theirs}[who]
    before = psutil.Process().memory_info().rss
    chosen(small())
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 - before / 2**20)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
