"""What one GPU does in at most 12 minutes: the loop, importance, 64 references, a language model by LoRA and its audit.

python recipes/gpu.py OUT [--minutes 12] [--device cuda] [--tiny]

Writes a line for each part into OUT/measurements.jsonl as soon as it is there, and the audit's record beside it. What
has a line from the same kind of device and the same source isn't measured again; a part that needs more time than is
left is named and left out. --tiny: the same on sizes that a laptop's processor does in a minute, which shows that the
script runs.
"""

import argparse
import copy
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import unrecall as ur
from unrecall.data.examples import Examples, Joined, Selection
from unrecall.disk.code_key import code_key
from unrecall.experiment.run import experiment
from unrecall.harness.suites import suite
from unrecall.methods.lora import LoRA
from unrecall.methods.npo import NPO
from unrecall.models.importance import exact
from unrecall.scenarios.base import Scenario
from unrecall.scenarios.digits import Digits
from unrecall.scenarios.networks import resnet18, resnet20, small_cnn
from unrecall.tasks import CausalLM, Classification
from unrecall.training.loop import Fit, Phase, fit, loss_on
from unrecall.training.randomness import own_randomness, seeded
from unrecall.training.session import Session

WORDS = 16_000


class Place(NamedTuple):
    """Where it runs, how large things are, and where records go."""

    device: str
    tiny: bool
    out: Path

    def wait(self) -> None:
        """Until the device has done what it was given."""
        if self.device == "cuda":
            torch.cuda.synchronize()

    def seconds(self, work: Callable[[], object], times: int = 3) -> float:
        """The shortest of some times that work takes, after one that doesn't count."""
        spent = []
        for _ in range(times + 1):
            self.wait()
            started = time.perf_counter()
            work()
            self.wait()
            spent.append(time.perf_counter() - started)
        return min(spent[1:])


def pictures(count: int) -> list[tuple[Tensor, int]]:
    """Noise in the shape of CIFAR-10."""
    inputs = torch.rand(count, 3, 32, 32, generator=seeded(0))
    return [(x, i % 10) for i, x in enumerate(inputs)]


def _network(place: Place) -> nn.Module:
    with own_randomness(0):
        return resnet20(10) if place.tiny else resnet18(10)


def loop(place: Place) -> dict[str, float]:
    """An epoch of ResNet-18 by the loop, and by a bare one whose examples lie on the device already."""
    count, size = (32, 8) if place.tiny else (12_800, 256)
    data, start, task = pictures(count), _network(place), Classification()
    inputs = torch.stack([x for x, _ in data]).to(place.device)
    targets = torch.tensor([y for _, y in data], device=place.device)

    def ours() -> None:
        phase = Phase(loss_on("all", task), {"all": data}, Fit(batch_size=size))
        fit(copy.deepcopy(start), task, phase, seeded(0), Session(device=place.device))

    def bare() -> None:
        model = copy.deepcopy(start).to(place.device).train()
        optimizer = torch.optim.SGD(model.parameters(), 0.01, 0.9, weight_decay=5e-4)
        for part in torch.randperm(count, device=place.device).split(size):
            optimizer.zero_grad(set_to_none=True)
            F.cross_entropy(model(inputs[part]), targets[part]).backward()
            optimizer.step()

    own, other = place.seconds(ours), place.seconds(bare)
    return {"examples": count, "seconds": own, "bare_seconds": other, "ratio": other / own}


def importance(place: Place) -> dict[str, float]:
    """Exact importance of ResNet-18 on some pictures, and by a backward pass for each."""
    count, alone = (8, 4) if place.tiny else (1024, 64)
    data, model, task = pictures(count), _network(place).to(place.device).eval(), Classification()
    batch = {name: value.to(place.device) for name, value in task.collate(data[:alone]).items()}

    def one_by_one() -> None:
        for i in range(alone):
            model.zero_grad(set_to_none=True)
            one = {name: value[i : i + 1] for name, value in batch.items()}
            torch.autograd.backward(task.rows(model, one).losses().mean())

    own = place.seconds(lambda: exact(model, task, data), 1)
    other = place.seconds(one_by_one, 1) * count / alone
    return {"examples": count, "seconds": own, "loop_seconds": other, "ratio": other / own}


def references(place: Place) -> dict[str, float]:
    """Models of the digits that were trained without forget, one after another, and an audit beside all of them."""
    count, epochs = (2, 1) if place.tiny else (64, 30)
    case, session = Digits().make(), Session(device=place.device)
    request = case.request
    whole = Joined((request.forget, request.retain))

    def trained(data: Examples, seed: int) -> nn.Module:
        with own_randomness(seed):
            model = small_cnn()
        fit(
            model,
            case.task,
            Phase(loss_on("data", case.task), {"data": data}, Fit(epochs=epochs)),
            seeded(seed),
            session,
        )
        return model.eval()

    original, unlearned = trained(whole, 0), trained(request.retain, 1)
    started = time.perf_counter()
    retrained = [trained(request.retain, 2 + seed) for seed in range(count)]
    seconds = time.perf_counter() - started
    ur.audit(
        original=original,
        unlearned=unlearned,
        retrained=retrained,
        request=request,
        task=case.task,
        attacks="loss lira rmia",
        session=session,
    )
    audit_seconds = time.perf_counter() - started - seconds
    return {"references": count, "seconds_each": seconds / count, "audit_seconds": audit_seconds}


def language(place: Place) -> dict[str, float]:
    """NPO in LoRA on a Llama with random weights, and its audit by the quick suite without retrained models."""
    case = _language_case(place)
    session = Session(place.out / "parts", place.device, show=True)
    recipe = Fit(optimizer="adamw", lr=1e-3, epochs=1, batch_size=4, weight_decay=0.0, clip=1.0)
    started = time.perf_counter()
    outcome = experiment(case, LoRA(NPO(fit=recipe), r=16), suite("quick"), session=session)
    seconds = time.perf_counter() - started
    outcome.record.save(place.out / "language.json")
    cost = outcome.record.costs["unlearned"]
    peak = torch.cuda.max_memory_allocated() / 2**20 if place.device == "cuda" else 0.0
    return {
        "weights": float(sum(p.numel() for p in outcome.model.parameters())),
        "unlearning_seconds": cost.seconds or 0.0,
        "unlearning_peak_mib": cost.peak_mib,
        "seconds": seconds,
        "audit_peak_mib": peak,
    }


def _language_case(place: Place) -> Scenario:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    words = 64 if place.tiny else WORDS
    tokenizer = Tokenizer(models.WordLevel({f"w{i}": i for i in range(words)}, unk_token="w0"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="w1", eos_token="w2", pad_token="w3")
    count, length = (4, 8) if place.tiny else (64, 128)
    drawn = torch.randint(4, words, (5 * count, length), generator=seeded(0)).tolist()
    texts = [
        {"prompt": " ".join(f"w{i}" for i in row[:4]), "answer": " ".join(f"w{i}" for i in row[4:])} for row in drawn
    ]
    wide: dict[str, Any] = {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16}
    small: dict[str, Any] = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2}
    sizes = small if place.tiny else wide

    heads = 2 if place.tiny else 32
    with own_randomness(0):
        model: nn.Module = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=words,
                num_attention_heads=heads,
                num_key_value_heads=heads,
                max_position_embeddings=256,
                bos_token_id=1,
                eos_token_id=2,
                pad_token_id=3,
                **sizes,
            )
        )

    def part(i: int) -> Selection:
        return Selection(texts, range(i * count, (i + 1) * count))

    request = ur.Request(part(0), Selection(texts, range(count, 3 * count)), part(3), part(4), control="random split")
    return Scenario(
        name="random Llama",
        summary="a Llama with random weights and random texts, which shows time and memory and no forgetting",
        task=CausalLM(fast, template="{prompt} "),
        request=request,
        original=model.to(place.device).eval(),
        references=0,
    )


class Measurement(NamedTuple):
    """A part of the table: what measures it, and how many seconds it takes on a GPU at most."""

    measure: Callable[[Place], dict[str, float]]
    seconds: float


PARTS = {
    "loop": Measurement(loop, 60),
    "importance": Measurement(importance, 60),
    "language": Measurement(language, 360),
    "references": Measurement(references, 240),
}


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("--minutes", type=float, default=12.0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", choices=["cpu", "cuda"])
    parser.add_argument("--tiny", action="store_true")
    given = parser.parse_args(arguments)
    if given.device == "cuda" and not torch.cuda.is_available():
        parser.error("expected a GPU that PyTorch can use, got none; --tiny --device cpu shows that the script runs")
    place = Place(given.device, given.tiny, given.out)
    name = torch.cuda.get_device_name() if place.device == "cuda" else "cpu"
    given.out.mkdir(parents=True, exist_ok=True)
    path, started = given.out / "measurements.jsonl", time.perf_counter()
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    for part, (measure, most) in PARTS.items():
        key = {"part": part, "device": name, "tiny": place.tiny, "source": code_key(experiment, measure)[:16]}
        if any(key.items() <= line.items() for line in lines):
            print(f"{part}: measured before")
            continue
        if not place.tiny and time.perf_counter() - started + most > 60 * given.minutes:
            print(f"{part}: left out, for it may take {most:.0f} s and less is left")
            continue
        figures = {figure: round(value, 4) for figure, value in measure(place).items()}
        with path.open("a") as file:
            file.write(json.dumps({**key, "torch": torch.__version__, **figures}) + "\n")
        print(part, figures, flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
