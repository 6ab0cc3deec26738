"""Membership attacks on texts: five from one pass against a pass for each, and gradient norms besides."""

import zlib
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from speed.clock import Race, race
from unrecall.attacks.grad_norm import GradNorm
from unrecall.attacks.loss import Loss
from unrecall.attacks.min_k import MinK
from unrecall.attacks.min_k_plus_plus import MinKPlusPlus
from unrecall.attacks.reference_model import ReferenceModel
from unrecall.attacks.zlib_ratio import ZlibRatio
from unrecall.data.request import Request
from unrecall.evidence.pool import draw_pool
from unrecall.evidence.setting import Models, Setting, Subject
from unrecall.tasks import CausalLM
from unrecall.training.randomness import own_randomness, seeded
from unrecall.training.session import Session

WORDS, TEXTS, LENGTH = 2048, 200, 80
RIVALS = (
    ("one text at a time, token by token", 1, True),
    ("one text at a time", 1, False),
    ("batches of 32", 32, False),
)


def run() -> list[Race]:
    task, texts = _task(), _texts(TEXTS + 2)
    request = Request(texts[:100], texts[200:201], texts[100:200], texts[201:])
    subject, reference = _llama(0), _llama(1)
    attacks = (Loss(), ZlibRatio(), MinK(), MinKPlusPlus(), ReferenceModel())
    by_rival: dict[str, np.ndarray] = {}

    def ours() -> None:
        """One pass of the subject and one of the reference, in batches; every attack reads them."""
        setting = Setting(Models(subject, subject, (reference,)), request, task, session=Session(device="cpu"))
        pool = draw_pool(request, setting.seed).pool
        scores = [attack.scores(Subject("unlearned", subject), pool, setting).shown for attack in attacks]
        by_rival["ours"] = np.stack([np.concatenate([arm[0] for arm in arms]) for arms in scores])

    def naive(at_once: int, one_by_one: bool) -> None:
        """A pass for each attack, two for the one with a reference, `at_once` texts at a time, tokenised each time."""
        groups = [texts[i : min(i + at_once, TEXTS)] for i in range(0, TEXTS, at_once)]
        sizes = np.array([len(zlib.compress(text["answer"].encode())) for text in texts[:TEXTS]])

        def read(model: nn.Module, standard: bool = False) -> list[np.ndarray]:
            return [row for group in groups for row in _rows(model, task, group, one_by_one, standard)]

        with torch.no_grad():
            scores = [
                [row.mean() for row in read(subject)],
                np.array([row.mean() for row in read(subject)]) / sizes,
                [_lowest(row) for row in read(subject)],
                [_lowest(row) for row in read(subject, standard=True)],
                [own.mean() - other.mean() for own, other in zip(read(subject), read(reference), strict=True)],
            ]
        by_rival["naive"] = np.array(scores)

    def six() -> None:
        """Those five, and gradient norms."""
        setting = Setting(Models(subject, subject, (reference,)), request, task, session=Session(device="cpu"))
        pool = draw_pool(request, setting.seed).pool
        scores = [
            attack.scores(Subject("unlearned", subject), pool, setting).shown for attack in (*attacks, GradNorm())
        ]
        by_rival["ours"] = np.concatenate([arm[0] for arm in scores[-1]])

    def each(at_once: int) -> None:
        """A pass for each of five, `at_once` texts at a time, and a backward pass a text, as open-unlearning has it."""
        naive(at_once, False)
        norms = []
        for text in texts[:TEXTS]:
            subject.zero_grad(set_to_none=True)
            batch = task.collate([text])
            logits = subject(input_ids=batch["tokens"], use_cache=False).logits[:, :-1]
            F.cross_entropy(logits.flatten(0, 1).float(), batch["tokens"][0, 1:]).backward()
            norms.append(sum(float(p.grad.square().sum()) for p in subject.parameters() if p.grad is not None) ** 0.5)
        by_rival["naive"] = -np.array(norms)

    races = []
    for at_once in (1, 32):
        times = race(six, partial(each, at_once), rounds=2)
        gap = float(np.abs(by_rival["ours"] / by_rival["naive"] - 1).max())
        described = f"a pass each, {at_once} at a time, a backward a text"
        races.append(Race(f"six attacks, {TEXTS} texts", *times, described, "no target", f"norms differ by {gap:.0e}"))
    for name, at_once, one_by_one in RIVALS:
        rival = partial(naive, at_once, one_by_one)
        times = race(ours, rival, rounds=2)
        gap = float(np.abs(by_rival["ours"] - by_rival["naive"]).max())
        target = "ratio >= 5" if one_by_one else "no target"
        note = f"6 passes against 2; scores differ by {gap:.0e}"
        races.append(Race(f"five attacks, {TEXTS} texts", *times, f"a pass each, {name}", target, note))
    return races


def _rows(model: nn.Module, task: CausalLM, texts: Sequence[Any], one_by_one: bool, standard: bool) -> list[np.ndarray]:
    """The log-probability of each token of each text, standardised for Min-K%++; read at once, or one by one."""
    task.encodings.clear()
    batch = task.collate(texts)
    targets = batch["tokens"][:, 1:]
    log_p = F.log_softmax(model(input_ids=batch["tokens"], use_cache=False).logits[:, :-1].float(), -1)
    if one_by_one:
        each = np.array([[log_p[i, j, token].item() for j, token in enumerate(row)] for i, row in enumerate(targets)])
    else:
        each = log_p.gather(2, targets[:, :, None]).squeeze(2).numpy()
    if standard:
        mean = (log_p.exp() * log_p).sum(-1)
        deviation = ((log_p.exp() * log_p.square()).sum(-1) - mean.square()).sqrt()
        each = (each - mean.numpy()) / deviation.numpy()
    return [row[: length - 1] for row, length in zip(each, batch["lengths"].tolist(), strict=True)]


def _lowest(row: np.ndarray) -> float:
    return float(np.sort(row)[: int(0.2 * len(row))].mean())


def _task() -> CausalLM:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    names = ["<pad>", "<s>", "</s>", "<unk>"]
    words = names + [f"w{i}" for i in range(WORDS - len(names))]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    ends = dict(zip(("pad_token", "bos_token", "eos_token", "unk_token"), names, strict=True))
    return CausalLM(PreTrainedTokenizerFast(tokenizer_object=tokenizer, **ends))


def _texts(count: int) -> list[dict[str, str]]:
    """Plain texts of about 80 words."""
    generator, texts = seeded(0), []
    for _ in range(count):
        length = int(torch.randint(LENGTH - 20, LENGTH + 20, (1,), generator=generator))
        drawn = torch.randint(WORDS - 4, (length,), generator=generator).tolist()
        texts.append({"prompt": "", "answer": " ".join(f"w{i}" for i in drawn)})
    return texts


def _llama(seed: int) -> nn.Module:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=WORDS,
        hidden_size=96,
        intermediate_size=256,
        num_hidden_layers=4,
        num_attention_heads=4,
        max_position_embeddings=128,
        tie_word_embeddings=True,
        initializer_range=0.1,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    with own_randomness(seed):
        made: nn.Module = LlamaForCausalLM(config).eval()
        return made
