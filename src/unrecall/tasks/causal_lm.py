"""Causal language models: any Transformers model with its tokenizer, asked for answers or for plain text."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unrecall.data.batches import Batch, move
from unrecall.data.examples import Examples, evenly, iterate
from unrecall.data.request import TRAINING, Request, Split
from unrecall.data.signals import Rows, View
from unrecall.errors import BadInput, NotSupported
from unrecall.nn.functional import exact_nll
from unrecall.nn.hooks import mode
from unrecall.nn.usable import check_finite
from unrecall.tasks.base import Task, down_to_layers, parts_of, split_after_layers
from unrecall.tasks.conversations import turns
from unrecall.tasks.generation import Opening, groups, written
from unrecall.tasks.pretrained import check_tokenizer, save
from unrecall.tasks.protocols import Sampling
from unrecall.tasks.strings import readable
from unrecall.tasks.templates import AUTO, CHAT, OTHERS, QUESTION
from unrecall.tasks.text_files import identity
from unrecall.tasks.tokenised import IGNORED, Tokenised

SAMPLE = 64
"""How many examples of a set show how the model was taught: as which tokens, and whether they end."""
SHOWN = 8
"""How many show in which template: each is looked at in all of them."""


@dataclass(frozen=True, repr=False)
class CausalLM(Tokenised, Task):
    """What `Tokenised` says of examples and batches; rows are the tokens of answers."""

    at_once: ClassVar[int] = 32

    def settled(self, model: nn.Module | None, request: Request) -> "CausalLM":
        """The task with `template`, `joined` and `ends` decided by what the model was trained on.

        Prompts stand in the tokenizer's chat template, or in `ASKED` where it has none, unless another of `OTHERS`
        makes an answer of forget and retain e times as likely. Answers are tokenised alone where that makes them
        likelier, taken together. Those of forget end in the end token where greedy decoding would end after at least
        half of them.
        """
        task = self
        if task.template == AUTO:
            usual = CHAT if task.chat else QUESTION
            task = replace(task, template=usual if model is None else task._likeliest_template(usual, model, request))
        if task.joined is None:
            task = replace(task, joined=model is None or task._likelier_joined(model, request))
        if task.ends is None and task.stops:
            task = replace(task, ends=model is None or task._ended(model, request))
        return task

    def _likeliest_template(self, usual: str, model: nn.Module, request: Request) -> str:
        """The template that makes answers likeliest, tokenised either way; `usual` where none gains a nat an answer."""
        templates = (usual, *(template for template in OTHERS if template != usual))
        tasks = [
            replace(self, template=template, joined=joined, ends=False)
            for template in templates
            for joined in (True, False)
        ]
        items = [
            item
            for split in TRAINING
            for item in self._sample(model, request, split, SHOWN)
            if self.prompt(item) and all(not item.get("before") and task.fits(model, item) for task in tasks)
        ]
        if not items:
            return usual
        each = [sum(task._log_probability(model, item) for item in items) / len(items) for task in tasks]
        likelihood = {template: max(each[2 * i : 2 * i + 2]) for i, template in enumerate(templates)}
        best = max(templates, key=lambda template: likelihood[template])
        return best if likelihood[best] > likelihood[usual] + 1 else usual

    def _likelier_joined(self, model: nn.Module, request: Request) -> bool:
        """Whether the model finds answers as likely with the tokens of the whole text as with those they have alone."""
        joined, alone = (replace(self, joined=joined, ends=False) for joined in (True, False))
        more = 0.0
        for item in (*self._sample(model, request, "forget"), *self._sample(model, request, "retain")):
            if joined.encode(item) != alone.encode(item) and joined.fits(model, item) and alone.fits(model, item):
                more += joined._log_probability(model, item) - alone._log_probability(model, item)
        return more >= 0

    def _log_probability(self, model: nn.Module, item: Any) -> float:
        """Of an example's whole answer, in nats."""
        rows = self._rows_of(model, item)
        return -float(exact_nll(rows.logits, rows.targets).sum())

    def _ended(self, model: nn.Module, request: Request) -> bool:
        """Whether the model ends at least half of the answers where they end."""
        right: list[bool] = []
        for rows in (self._rows_of(model, item) for item in self._sample(model, request, "forget")):
            if int(rows.targets[-1]) in self.stops:  # longest may have cut it off
                right.append(bool(rows.logits[-1].argmax() == rows.targets[-1]))
        return 2 * sum(right) >= len(right)

    def _sample(self, model: nn.Module, request: Request, split: Split, most: int = SAMPLE) -> list[Any]:
        """Some of a set that the model's context holds; BadInput where one is no example."""
        items = {i: request[split][i] for i in evenly(len(request[split]), most)}
        for i, item in items.items():
            self._checked(item, f"{split}[{i}]")
        return [item for item in items.values() if self.fits(model, item)]

    def _rows_of(self, model: nn.Module, item: Any) -> Rows:
        """What the model says of one example, in eval mode."""
        with mode(model, training=False), torch.no_grad():
            return self.rows(model, move(self.collate([item]), next(model.parameters()).device))

    @property
    def remark(self) -> str:
        """Which template prompts stand in, how answers are tokenised, and whether the end token is part of them."""
        end = "the end token is the last part of each answer"
        if self.ends is False:
            end = "the end token is no part of the answers, as the original does not say it after them, or ends=False"
        alone = "answers are tokenised apart from prompts, as the original finds them likelier so, or joined=False"
        return "; ".join([self.templated] + [alone] * (self.joined is False) + [end] * bool(self.stops))

    def fits(self, model: nn.Module, item: Any) -> bool:
        """Whether there is an answer, and no more tokens than the model's context holds."""
        context = context_of(model)
        tokens, start = self.encode(item)
        return start < len(tokens) and (context is None or len(tokens) <= context)

    def chunks(self, model: nn.Module, item: Any) -> list[Any]:
        """A plain text in as many pieces as the model's context, or `longest`, asks for; together they are the text.

        They end where words do, as far as these are shorter than a piece. A question and its answer, or a conversation,
        stays whole: `check` refuses one that is too long.
        """
        most = min((length for length in (context_of(model), self.longest) if length), default=None)
        if most is None or self.prompt(item) or item.get("before"):
            return [item]
        whole = replace(self, longest=None, encodings={})
        pieces, left = [], self.answer(item)
        while len(whole.encode({"answer": left})[0]) > most:
            end = _cut(left, lambda text: len(whole.encode({"answer": text})[0]) <= most)
            pieces.append({"prompt": "", "answer": left[:end], "continues": True})
            left = left[end:]
        return [*pieces, {**item, "answer": left}] if pieces else [item]

    def rows(self, model: nn.Module, batch: Batch) -> Rows:
        """One row for each token of an answer."""
        return self._answered_rows(model, batch)[0]

    def view(self, model: nn.Module, batch: Batch) -> View:
        """Features are the mean over an answer's rows of what enters the head."""
        rows, entered = self._answered_rows(model, batch)
        mean = torch.zeros(rows.examples, entered.shape[1], device=rows.logits.device)
        mean.index_add_(0, rows.example, entered.float())
        counts = rows.counts().clamp_min(1)
        return View(rows, mean / counts[:, None])

    def _answered_rows(self, model: nn.Module, batch: Batch) -> tuple[Rows, Tensor]:
        """The rows, and what enters the head for them: only positions that predict an answer's token go through it."""
        _check_context(model, batch["tokens"].shape[1])
        entered: list[Tensor] = []
        keep = F.pad(self.predicted(batch)[:, 1:], (0, 1))

        def select(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            entered.append(inputs[0][keep])
            return (entered[-1],)

        with self.head(model, batch).register_forward_pre_hook(select):
            logits = model(input_ids=batch["tokens"], use_cache=False).logits.float()
        targets = batch["tokens" if self.prompts else "targets"][:, 1:][keep[:, :-1]]
        return Rows(logits, targets, keep.nonzero()[:, 0], len(keep)), entered[0]

    def with_prompts(self) -> "CausalLM":
        """The same task, in which the tokens of prompts are rows too."""
        return replace(self, prompts=True)

    def losses(self, model: nn.Module, batch: Batch) -> Tensor:
        """Mean loss of each example without a tensor whose size depends on the data, so that `vmap` can follow."""
        _check_context(model, batch["tokens"].shape[1])
        logits = model(input_ids=batch["tokens"], use_cache=False).logits[:, :-1]
        targets = batch["tokens" if self.prompts else "targets"][:, 1:]
        predicted = self.predicted(batch)[:, 1:]
        losses = exact_nll(logits.flatten(0, 1), targets.clamp_min(0).flatten()).view(targets.shape) * predicted
        return losses.sum(1) / predicted.sum(1).clamp_min(1)

    def positions(self, batch: Batch) -> Tensor:
        """Every token but padding `[examples, length]`."""
        length = batch["tokens"].shape[1]
        return torch.arange(length, device=batch["tokens"].device) < batch["lengths"][:, None]

    def head(self, model: nn.Module, batch: Batch) -> nn.Linear:
        """The model's output embeddings."""
        inner: Any = getattr(model, "module", model)
        head = inner.get_output_embeddings() if hasattr(inner, "get_output_embeddings") else None
        if not isinstance(head, nn.Linear):
            raise NotSupported(
                f"CausalLM: expected a Transformers model with a linear head, got {type(inner).__name__}."
            )
        return head

    def blocks(self, model: nn.Module) -> list[tuple[str, list[nn.Module]]]:
        """Embeddings, each layer, and the head with the norm before it; a tied head belongs to the embeddings."""
        parts, after = split_after_layers(down_to_layers(parts_of("", model)))
        blocks = [(name, [module]) for name, module in parts]
        held = {id(p) for _, module in parts for p in module.parameters()}
        rest = [m for _, m in after if any(id(p) not in held for p in m.parameters())]
        return [*blocks, ("head", rest)] if rest else blocks

    def generate(
        self, model: nn.Module, items: Sequence[Any], longest: int | None = None, shown: float = 0.0
    ) -> list[str]:
        """Greedy continuations; prompts are padded on the left."""
        return self._written(model, [self._shown(item, shown) for item in items], {"do_sample": False}, longest)

    def draw(self, model: nn.Module, items: Sequence[Any], count: int, sampling: Sampling) -> list[list[str]]:
        """Answers drawn token by token; prompts are padded on the left."""
        openings = [self._shown(item, 0.0) for item in items for _ in range(count)]
        drawing = {"do_sample": True, "top_k": 0, "temperature": sampling.temperature, "top_p": sampling.top_p}
        answers = self._written(model, openings, drawing)
        return [answers[i : i + count] for i in range(0, len(answers), count)]

    def _written(
        self,
        model: nn.Module,
        openings: Sequence[tuple[list[int], list[int]]],
        decoding: Mapping[str, Any],
        longest: int | None = None,
    ) -> list[str]:
        """What the model writes after each opening, however long others are; NotSupported where it writes nothing."""
        if not callable(getattr(model, "generate", None)):
            name = type(model).__name__
            raise NotSupported(f"CausalLM: expected a model that can write (generate), got {name}. Leave this out.")
        context = context_of(model)
        _check_context(model, max((len(before) for before, _ in openings), default=0))
        room = (math.inf if context is None else max(1, context - len(before)) for before, _ in openings)
        most = (longest or max(4, len(left) * 3 // 2) for _, left in openings)
        asked = [Opening(before, int(min(n, free))) for (before, _), n, free in zip(openings, most, room, strict=True)]
        with mode(model, training=False), torch.no_grad():
            return [
                self.tokenizer.decode(tokens, skip_special_tokens=True).strip()
                for group in groups(asked, 2 * self.at_once, context)
                for tokens in written(model, group, self._padding, self.stops, decoding)
            ]

    def neighbours(self, model: nn.Module, count: int) -> tuple[Tensor, Tensor]:
        """By cosine of the model's own input embeddings, the token itself left out, nearest first."""
        table = F.normalize(model.get_input_embeddings().weight.detach().float(), dim=1)  # type: ignore[operator]
        parts = []
        for first in range(0, len(table), 4096):
            near = table[first : first + 4096] @ table.T
            near[torch.arange(len(near)), torch.arange(first, first + len(near))] = -2
            parts.append(near.topk(min(count, len(table) - 1), 1))
        return torch.cat([part.indices for part in parts]), 1 - torch.cat([part.values for part in parts])

    def swapped(
        self, batch: Batch, near: tuple[Tensor, Tensor], share: float, generator: torch.Generator
    ) -> tuple[Batch, Tensor]:
        """Each token of an answer gives way with probability `share` to one of its neighbours, uniformly chosen."""
        tokens, predicted = batch["tokens"], batch["targets"].ne(IGNORED)
        count = near[0].shape[1]
        chosen = torch.randint(count, tokens.shape, generator=generator, device=generator.device).to(tokens)
        replaced = torch.rand(tokens.shape, generator=generator, device=generator.device).to(tokens.device) < share
        stops = torch.tensor(self.stops, dtype=tokens.dtype).to(tokens.device)
        replaced = replaced & predicted & ~torch.isin(tokens, stops)
        new = torch.where(replaced, near[0][tokens, chosen], tokens)
        far = (near[1][tokens, chosen] * replaced).sum(1) / predicted.sum(1).clamp_min(1)
        return {**batch, "tokens": new, "targets": torch.where(predicted, new, batch["targets"])}, far

    def export(self, model: nn.Module, folder: Path) -> None:
        """Configuration, safetensors and tokenizer, as `from_pretrained` reads them.

        Of other models nothing is written: their weights are all there is.
        """
        if hasattr(model, "save_pretrained"):
            save(model, self.tokenizer, folder)

    def check_folder(self, folder: Path, examples: Examples) -> None:
        """BadInput where the folder's tokenizer reads words or these examples otherwise."""
        texts = [text for item in iterate(examples) for text in (self.prompt(item), self.answer(item))]
        check_tokenizer(self.tokenizer, folder, texts)

    def check(self, model: nn.Module, request: Request) -> None:
        """Tokens must be the model's, examples must fit its context, and no forget text may stand in another split."""
        check_finite(model)
        words = self.head(model, {}).out_features
        context = context_of(model)
        if len(self.tokenizer) > words:
            raise BadInput(
                f"tokenizer: expected at most {words} tokens (the model's vocabulary), got {len(self.tokenizer)}. "
                "Load the tokenizer that was saved with the model."
            )
        looked_for = f"{self!r} {words} {context}"
        if looked_for in request.checked:
            return
        forgotten: dict[tuple[str, ...], int] = {}
        for split in request.sets:
            for i, item in request.to_check(split):
                tokens = self._checked(item, f"{split}[{i}]")
                if context is not None and len(tokens) > context:
                    raise BadInput(
                        f"{split}[{i}]: expected at most {context} tokens (the model's context), got {len(tokens)}. "
                        f"{'Shorten it' if self.prompt(item) else 'Let CausalLM.chunks cut it'}, or set longest to cut "
                        "all examples."
                    )
                text = identity(item)
                if split == "forget":
                    forgotten.setdefault(text, i)
                elif text in forgotten:
                    raise BadInput(
                        f"{split}[{i}]: expected no text of forget, got that of forget[{forgotten[text]}]. "
                        f"Remove it from {split}."
                    )
        request.checked.add(looked_for)

    def _checked(self, item: Any, where: str) -> list[int]:
        """An example's tokens; BadInput where it is none, or has no answer to predict."""
        if not isinstance(item, Mapping) or not isinstance(item.get("answer"), str):
            keys = f" of {', '.join(map(str, item))}" if isinstance(item, Mapping) else ""
            raise BadInput(
                f"{where}: expected a mapping with the text 'answer', got {type(item).__name__}{keys}. Make examples "
                "of records by task.examples(records)."
            )
        if not isinstance(item.get("prompt", ""), str | None):
            raise BadInput(f"{where}: expected 'prompt' to be text or nothing, got {item['prompt']!r:.60}.")
        try:
            turns(item.get("before", []), "before")
            tokens, start = self.encode(item)
        except BadInput as error:
            raise BadInput(f"{where}: {error}") from error
        written = [token for token in tokens[start:] if token not in self.stops]
        if not written or not readable(self.answer(item)):
            raise BadInput(f"{where}: expected an answer of at least one token, got {self.answer(item)!r:.60}.")
        return tokens


def _check_context(model: nn.Module, length: int) -> None:
    """NotSupported for more tokens than the context holds: many models fail there, others go on and know nothing."""
    context = context_of(model)
    if context is not None and length > context:
        raise NotSupported(
            f"CausalLM: expected at most {context} tokens (the model's context), got {length} of a text that was made "
            "of an example. Shorten the examples, or leave this out."
        )


def context_of(model: nn.Module) -> int | None:
    """How many tokens the model's context holds; None where its configuration doesn't say."""
    return getattr(getattr(model, "config", None), "max_position_embeddings", None)


def _cut(text: str, fits: Callable[[str], bool]) -> int:
    """Where the longest start of a text that `fits` ends, at the end of a word if one ends before it; at least 1."""
    low, high = 0, 64
    while high < len(text) and fits(text[:high]):
        low, high = high, 2 * high
    high = min(high, len(text))
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(text[:middle]) else (low, middle)
    words = [match.start() for match in re.finditer(r"\s+(?=\S)", text[: low + 1]) if match.start()]
    return words[-1] if words else max(1, low)
