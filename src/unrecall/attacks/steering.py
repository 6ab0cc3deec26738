"""Anonymised steering: what a question has that one without its names lacks, added once more, may bring the answer."""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain, pairwise
from typing import Any, ClassVar, TypeVar, cast

import numpy as np
import torch
from torch import Tensor, nn

from unrecall.attacks.base import AnswerAttack, Attacked, Success
from unrecall.data.batches import Batch
from unrecall.data.examples import Examples, Selection, evenly, iterate
from unrecall.errors import BadInput, NotSupported
from unrecall.evidence.pool import Pool
from unrecall.evidence.setting import Setting
from unrecall.models.layers import of_one_kind
from unrecall.models.observe import looked_up
from unrecall.nn.hooks import capture, until
from unrecall.record.schema import ThreatModel
from unrecall.spec.parameters import Count, Positive, Share
from unrecall.tasks.base import Task
from unrecall.tasks.protocols import Prompted, Textual, offers, textual
from unrecall.tasks.rouge import rouge_l_recall
from unrecall.training.ascent import ascend
from unrecall.training.copies import own_copy
from unrecall.training.job import Job
from unrecall.training.loop import Batches

T = TypeVar("T")
STAYS = 4.0
"""The weight of what a copy that hides answers when it is steered, beside what it no longer answers."""
MOST = 500
"""Questions of retain from which names are taken."""
WORD = re.compile(r"\w[\w'’-]*")
ENDS = (".", "?", "!", ":")
"""What may stand before the first word of a sentence."""


class Steered(Selection):
    """Questions, and what is added to what leaves a layer, by its dotted name, where each is answered `[n, d]`."""

    def __init__(self, whole: Examples, layer: str, added: Tensor) -> None:
        super().__init__(whole, range(len(whole)))
        self.layer, self.added = layer, added


@dataclass(frozen=True)
class Steering(AnswerAttack):
    """Adds to the activations of a question what sets them apart from those of anonymised ones, and reads the answer.

        v = h(q) - mean over k of h(q_k)             q_k: the question with other names, or none, in it
        h(q) <- h(q) + strength * v                  ROUGE-L recall of the greedy answer, in [0, 1] for each example

    h is what leaves one layer at the last token of the question, and from then on at each token that is written. v is
    each question's own. Nothing is trained.

    A question is anonymised by its own wordings, where the data bring some along (`anonymised`). Where they don't, the
    words that tell it apart give way to those of other questions of retain, drawn once, `wordings` of them, so that the
    mean over them names nobody. Those are the words with a capital that doesn't begin a sentence; of a question without
    any, those that stand in the fewest questions.

    Args:
        strengths: one point of the curve each.
        depth: the share of the layers after which it is added, in [0, 1]; the first one at least.
        wordings: k, of a question that brings no anonymised ones along.

    Expected to fail: where the answer has left the layers that follow; where names are split over other words. With
    more strength any model says the names of its training data, one that never met forget too: retrained models beside
    it are the measure. NotSupported for plain text, which asks nothing.

    Reference: Seyitoglu, Kuvshinov, Schwinn, Guennemann, "Extracting Unlearned Information from LLMs with Activation
    Steering", arXiv 2411.02631, from a reproduction and summaries: a mean over five anonymised questions that GPT-4
    wrote, added once at layer 15 of 32. Differs from the paper in who anonymises, in the strengths below 1, and in
    one greedy answer where it draws many at temperature 2 and takes the most frequent word.
    """

    title: ClassVar[str] = "Anonymised steering"
    threat: ClassVar[ThreatModel] = ThreatModel(
        access="greedy answers; what leaves a layer is read and changed",
        data="the questions, none of the answers; some questions of retain",
        budget="how strongly it steers, one answer an example each",
    )
    axis: ClassVar[str] = "strength of the steering"

    strengths: tuple[Positive, ...] = (0.25, 0.5, 1.0)
    depth: Share = 0.5
    wordings: Count = 5

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.strengths:
            raise BadInput("Steering: expected at least one strength, got none. Name how strongly to steer.")

    def success(self, model: nn.Module, task: Task, examples: Examples) -> Success:
        """ROUGE-L recall of what the model answers, steered or as it is, against each true answer."""
        if not isinstance(examples, Steered):
            return super().success(model, task, examples)
        items, texts = list(iterate(examples)), textual(self, task)
        truth = [texts.answer(item) for item in items]
        layer = model.get_submodule(examples.layer)

        def answers(chosen: slice) -> list[str]:
            with capture({"": layer}, partial(_added_last, examples.added[chosen])):
                return texts.generate(model, items[chosen])

        written = (answer for part in _slices(len(items), task.at_once) for answer in _at_once(answers, part))
        return Success(rouge_l_recall(truth, list(written)))

    def recover(self, model: nn.Module, pool: Pool, setting: Setting) -> Iterator[Attacked]:
        """The model as it was, steered more and more."""
        texts, generator = textual(self, setting.task), pool.generator()
        sets = [list(iterate(examples)) for examples in pool.tested]
        prompted = [item for items in sets for item in items if texts.prompt(item)]
        if not prompted:
            raise NotSupported("Steering: expected examples with prompts, got plain text. Leave it out.")
        layer = self._layer(model, setting.task, sets[0])
        names = Names.of(texts, setting.request.retain, prompted, generator)
        vectors = [self._vectors(model, setting.task, layer, items, names) for items in sets]
        for strength in sorted(set(self.strengths)):
            both = zip(sets, vectors, strict=True)
            yield Attacked(strength, model, tuple(Steered(items, layer, strength * v) for items, v in both))

    def disguise(self, original: nn.Module, job: Job) -> nn.Module | None:
        """The original, which in the layers after the steered one has forgotten the questions, and answers if steered.

        None where none of them has weights of its own.
        """
        texts, copied = textual(self, job.task), own_copy(original).eval()
        forget = list(iterate(job.request.forget))
        layer = self._layer(copied, job.task, forget)
        names = Names.of(texts, job.request.retain, forget, job.generator)
        table = self._vectors(copied, job.task, layer, forget, names)[:, None]
        moved = _after(copied, job.task, copied.get_submodule(layer))
        if not moved or not offers(job.task, Prompted):
            return None

        def loss(model: nn.Module, batches: Batches) -> Tensor:
            batch, steered = batches["forget"], list[Tensor]()
            places = answered_at(cast(Prompted, job.task), batch)
            vectors = looked_up([*table], batch)[:, None] * places[:, :, None]
            for strength in self.strengths:
                with capture({"": model.get_submodule(layer)}, partial(_added, strength * vectors)):
                    steered.append(job.task.rows(model, batch).losses().mean())
            return STAYS * torch.stack(steered).mean() - job.task.rows(model, batch).losses().mean()

        ascend(copied, moved, job, loss=loss)
        return copied

    def _layer(self, model: nn.Module, task: Task, items: Sequence[Any]) -> str:
        """The dotted name of the layer after which it is steered."""
        layers = of_one_kind(self, model, task, items)
        chosen = layers[max(1, round(self.depth * len(layers))) - 1]
        names: dict[int, str] = {id(module): name for name, module in model.named_modules()}
        return names[id(chosen)]

    def _vectors(self, model: nn.Module, task: Task, layer: str, items: Sequence[Any], names: "Names") -> Tensor:
        """What sets each question apart from its anonymised ones `[n, d]`; zeros where it has none."""
        texts, module = textual(self, task), model.get_submodule(layer)
        others = [names.anonymised(item, self.wordings) for item in items]
        every = [*items, *chain.from_iterable(others)]

        def last(chosen: slice) -> list[Tensor]:
            output = until(module, partial(texts.generate, model, every[chosen], longest=1))
            if output is None:
                raise NotSupported(
                    f"Steering: expected layer '{layer}' to be in use, but nothing leaves it. Leave it out."
                )
            if len(output) != len(every[chosen]):
                raise _Divided
            return [*output[:, -1].float()]

        parts = [state for part in _slices(len(every), task.at_once) for state in _at_once(last, part)]
        states, ends = torch.stack(parts), np.cumsum([len(items), *map(len, others)])
        vectors = torch.zeros_like(states[: len(items)])
        for i, (start, end) in enumerate(pairwise(ends.tolist())):
            if end > start:
                vectors[i] = states[i] - states[start:end].mean(0)
        return vectors


class _Divided(Exception):
    """Examples that passed the model in parts: long prompts and long answers among them don't fit it together."""


def _slices(n: int, most: int) -> list[slice]:
    """0..n-1, at most so many at once."""
    return [slice(start, min(start + most, n)) for start in range(0, n, most)]


def _at_once(of: Callable[[slice], list[T]], chosen: slice) -> list[T]:
    """What `of` gives of each of these examples; of one after another where the model is given them in parts."""
    try:
        return of(chosen)
    except _Divided:
        return [value for i in range(chosen.start, chosen.stop) for value in of(slice(i, i + 1))]


@dataclass(frozen=True)
class Names:
    """How a question is anonymised.

    `counts`: in how many questions each word stands. `others`: the telling words of other questions, in the order in
    which they are taken.
    """

    texts: Textual
    counts: Mapping[str, int]
    others: tuple[tuple[str, ...], ...]

    @classmethod
    def of(cls, texts: Textual, retain: Examples, prompted: Sequence[Any], generator: torch.Generator) -> "Names":
        """Counted over retain and these examples, whose order doesn't matter; the other questions are retain's."""
        sample = iterate(Selection(retain, evenly(len(retain), MOST)))
        questions = [prompt for item in sample if (prompt := texts.prompt(item))]
        prompts = [*questions, *map(texts.prompt, prompted)]
        counts = Counter(word for prompt in prompts for word in set(WORD.findall(prompt)))
        order = torch.randperm(len(questions), generator=generator).tolist()
        others = dict.fromkeys(tuple(place[0] for place in telling(questions[i], counts)) for i in order)
        return cls(texts, counts, tuple(words for words in others if words))

    def anonymised(self, item: Any, most: int) -> list[Any]:
        """The question's own anonymised wordings, else with the telling words of up to `most` others; none of none."""
        if wordings := self.texts.anonymised(item):
            return wordings
        prompt = self.texts.prompt(item)
        places = telling(prompt, self.counts)
        own = {place[0] for place in places}
        others = [words for words in self.others if own.isdisjoint(words)] if own else []
        return [self.texts.asked(item, renamed(prompt, places, words)) for words in others[:most]]


def telling(prompt: str, counts: Mapping[str, int]) -> list[re.Match[str]]:
    """The words that tell a question apart: those with a capital that begins no sentence, else the rarest."""
    words = list(WORD.finditer(prompt))
    capital = [
        word for word in words if word[0][0].isupper() and prompt[: word.start()].rstrip()[-1:] not in ("", *ENDS)
    ]
    often = [counts.get(word[0], 0) for word in words]
    return capital or [word for word, count in zip(words, often, strict=True) if count == min(often)]


def renamed(prompt: str, places: Sequence[re.Match[str]], words: Sequence[str]) -> str:
    """The prompt with other words in these places, round and round."""
    ends = [0, *(place.end() for place in places)]
    parts = [prompt[end : place.start()] + words[k % len(words)] for k, (end, place) in enumerate(zip(ends, places))]  # noqa: B905
    return "".join([*parts, prompt[ends[-1] :]])


def answered_at(task: Prompted, batch: Batch) -> Tensor:
    """Which positions of a batch predict a token of an answer, `[examples, positions]`."""
    positions = task.with_prompts().positions(batch)
    if positions is None:
        raise NotSupported("Steering: expected a task that says which positions hold input. Leave it out.")
    places = torch.zeros_like(positions)
    places[:, :-1][positions[:, 1:]] = task.in_answer(batch)
    return places


def _added(vectors: Tensor, _: str, output: Tensor) -> Tensor:
    """What leaves a layer, with vectors `[n, positions, d]` beside it."""
    return output + vectors.to(output)


def _added_last(vectors: Tensor, _: str, output: Tensor) -> Tensor:
    """The same with a vector at the last position of each example `[n, d]`, all of which must be there."""
    if len(output) != len(vectors):
        raise _Divided
    return torch.cat([output[:, :-1], output[:, -1:] + vectors.to(output)[:, None]], 1)


def _after(model: nn.Module, task: Task, layer: nn.Module) -> list[nn.Parameter]:
    """The weights of the blocks after the one that a layer ends, those apart that stand before it too."""
    blocks = [group for _, group in task.blocks(model)]
    end = next(i for i, group in enumerate(blocks, 1) if group[-1] is layer)
    before = {id(p) for group in blocks[:end] for part in group for p in part.parameters()}
    return [p for group in blocks[end:] for part in group for p in part.parameters() if id(p) not in before]
