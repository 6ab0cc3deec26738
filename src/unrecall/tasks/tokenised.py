"""Prompts and answers as tokens: what a language task knows without a model."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from types import NoneType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from unrecall.data.batches import Batch
from unrecall.data.covariates import Covariates
from unrecall.data.digests import digest
from unrecall.data.examples import Examples, iterate
from unrecall.errors import Fields, at_least, check_fields, kind_of
from unrecall.record.schema import Exhibit
from unrecall.tasks.conversations import spoken, spoken_after, whole
from unrecall.tasks.strings import plain
from unrecall.tasks.templates import (
    AUTO,
    CHAT,
    PLAIN,
    QUESTION,
    Ending,
    TextPart,
    check_template,
    described,
    ending,
    framed,
    is_marked,
    marked,
    parts_of_chat,
    prompted_after,
    speaks,
)
from unrecall.tasks.text_difficulty import difficulty_of_texts
from unrecall.tasks.text_files import Text, example, read, without_repeats

SHOTS = "shots"
"""Under which key an example holds those that are shown before it, where each answer has the tokens it has alone."""
IGNORED = -100
"""The target of a token that is not predicted: prompt and padding."""


class Encoded(NamedTuple):
    """An example as tokens, where its answer starts, and which tokens are predicted."""

    tokens: list[int]
    start: int
    counted: list[bool]


FIELDS: Fields = {
    "template": (kind_of(str, NoneType), "text, or None"),
    "longest": (at_least(2, or_none=True), "a whole number from 2 on, or None"),
    "ends": (kind_of(bool, NoneType), "True, False or None"),
    "joined": (kind_of(bool, NoneType), "True, False or None"),
}
"""What each setting of the task must be."""


def vocabulary_key(tokenizer: Any) -> str:
    """sha256 of what a tokenizer does with its tokens."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    text = backend.to_str() if backend is not None else repr(sorted(tokenizer.get_vocab().items()))
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True, repr=False)
class Tokenised:
    """Examples are mappings with an `answer` and a `prompt` (empty for plain text), and perhaps `before`: the turns of
    a conversation that come first.

    A batch holds `tokens` and `targets` `[examples, length]`, padded on the right, so that causal attention never
    sees padding and needs no mask. All answers of a conversation are predicted, and the last is the one that is asked.

    `tokenizer`: of the model. `template`: what a prompt that is not empty becomes: "auto", whichever the model shows
    that it was trained with: the tokenizer's chat template where it has one, else "question", or one of
    `templates.OTHERS`; "chat", the tokenizer's and no other; "question", Alpaca's for instructions and `Question: ...
    Answer: ` for others; "alpaca"; a text with `{prompt}` in it; "plain" or None, prompts as they are. `longest`:
    cut examples to so many tokens; None refuses those that are longer than the model's context. `ends`: whether what
    ends an answer (the end-of-text token, or what the chat template writes there) is its last row, in training and in
    scores alike; False is for models that were never taught it. None: an audit, a method and a scenario look whether
    the model was. `joined`: whether an answer's tokens are those it has in the whole text, or those it has alone, where
    no chat template is used; None: whichever makes answers likelier to the model. `prompts`: whether the tokens of
    prompts are rows too, as in some losses (`with_prompts`); batches are the same.
    """

    tokenizer: Any
    template: str | None = AUTO
    longest: int | None = None
    ends: bool | None = None
    joined: bool | None = None
    prompts: bool = False
    encodings: dict[tuple[object, ...], Encoded] = field(default_factory=dict, compare=False)
    """Examples already tokenised, here or by a task that this one was made of by `replace`."""

    def __post_init__(self) -> None:
        check_fields("CausalLM", FIELDS, vars(self))
        check_template(self.template)
        speaks(self.template, self.tokenizer)

    def __repr__(self) -> str:
        ends = [getattr(self.tokenizer, f"{name}_token_id", None) for name in ("bos", "eos", "pad")]
        turns = getattr(self.tokenizer, "chat_template", None) if self.chat else None
        template = AUTO if self.template in (CHAT, QUESTION) else self.template  # the same tokens, by `chat`
        text = f"{self.vocabulary}|{ends}|{turns}|{template}|{self.chat}|{self.longest}|{self._end}|{self.prompts}"
        text += "|apart" if self.joined is False else ""
        return f"CausalLM({hashlib.sha256(text.encode()).hexdigest()[:16]})"

    @cached_property
    def chat(self) -> bool:
        """Whether the tokenizer's chat template is used."""
        return speaks(self.template, self.tokenizer)

    @property
    def templated(self) -> str:
        """Which template prompts are put into, in words."""
        return described(self.template, self.tokenizer)

    @cached_property
    def vocabulary(self) -> str:
        """sha256 of what the tokenizer does with its tokens."""
        return vocabulary_key(self.tokenizer)

    def read(self, path: Path) -> list[Text]:
        """The examples of a file or a folder, each once."""
        return without_repeats(read(path))

    def examples(self, records: Iterable[Mapping[str, Any]]) -> list[Text]:
        """The examples of records that are read already, such as a data set of `datasets`, each once; as `read`."""
        return without_repeats([example(record, f"records[{i}]") for i, record in enumerate(records)])

    def prompt(self, item: Any) -> str:
        """The prompt as the user wrote it; empty where there is none."""
        return str(item.get("prompt") or "")

    def answer(self, item: Any) -> str:
        """The answer as the user wrote it."""
        return str(item["answer"])

    def answered(self, item: Any, answer: str) -> Any:
        """The same prompt, after the same turns, with another answer."""
        return {"prompt": item.get("prompt", ""), "answer": answer, **_beside(item)}

    def asked(self, item: Any, prompt: str) -> Any:
        """The same answer to another prompt, after the same turns."""
        return {
            "prompt": prompt,
            "answer": item["answer"],
            **{key: value for key, value in _beside(item).items() if key != SHOTS},
        }

    def after(self, item: Any, examples: Sequence[Any]) -> Any:
        """The same example after others: turns of a conversation with a chat template, one prompt without.

        What the others answer doesn't count. A prompt holds the template of each but where its own begins and ends.
        """
        if self.chat:
            return spoken_after(item, examples)
        if self.joined is False and examples:
            return {**item, SHOTS: [*(shot for example in examples for shot in self._shots(example)), *_shots_of(item)]}
        return self.asked(item, prompted_after(self.template, item, examples)) if examples else item

    def _shots(self, item: Any) -> list[tuple[str, str]]:
        """What is written before an answer, and the answer: of each example before this one, and of this one."""
        return [*_shots_of(item), (framed(self.template, item), self.answer(item))]

    def continued(self, item: Any, said: str, prompt: str) -> Any:
        """The conversation gone on: what was said doesn't count. Turns with a chat template, one prompt without."""
        if self.chat:
            return {**self.asked(item, prompt), "before": spoken(self.answered(item, said))}
        return self.after(self.asked(item, prompt), [self.answered(item, said)])

    def unfinished(self, text: str) -> Any:
        """A plain text that more follows."""
        return {"prompt": "", "answer": text, "continues": True}

    def reworded(self, item: Any) -> list[Any]:
        """The same answer to the example's own `paraphrase`: a text, or several."""
        paraphrases = item.get("paraphrase") or []
        return [self.asked(item, text) for text in ([paraphrases] if isinstance(paraphrases, str) else paraphrases)]

    def anonymised(self, item: Any) -> list[Any]:
        """The same answer to the example's own `anonymised` prompt: a text, or several."""
        prompts = item.get("anonymised") or []
        return [self.asked(item, text) for text in ([prompts] if isinstance(prompts, str) else prompts)]

    def encode(self, item: Any) -> tuple[list[int], int]:
        """An example's tokens, and the index of its answer's first: at least 1, for the first token has no row."""
        tokens, start, _ = self._encoded(item)
        return tokens, start

    def _encoded(self, item: Any) -> Encoded:
        settings = (id(self.tokenizer), self.template, self.longest, self.ends, self.joined)
        key = (*settings, self.prompt(item), self.answer(item), repr(_beside(item)))
        if key not in self.encodings:
            tokens, start, counted = self._whole(item)
            self.encodings[key] = Encoded(tokens[: self.longest], start, counted[: self.longest])
        return self.encodings[key]

    def _whole(self, item: Any) -> Encoded:
        """All tokens of an example, however many."""
        end = self._ends_of(item)
        if self._uses_chat_template(item) and is_marked(self.tokenizer):
            return self._marked(item, end)
        tokens = [] if self._uses_chat_template(item) else list(self._begin)
        counted, start = [False] * len(tokens), 1
        for text, counts in self._parts(item):
            start = max(1, len(tokens))
            tokens += self._plain(text) if self._apart(item) else self._after(tokens, text)
            counted += [counts] * (len(tokens) - len(counted))
        tokens, counted = tokens + end, counted + [True] * len(end)
        return Encoded(tokens, start, [False, *counted[1:]])

    def _marked(self, item: Any, end: list[int]) -> Encoded:
        """A conversation whose template marks the answers: what ends one counts where ends count, and no more of it."""
        tokens, counted = marked(self.tokenizer, whole(item))
        stop = self._ending.tokens[-1:]
        for i, token in enumerate(tokens):
            if i and [token] == stop and counted[i - 1]:
                counted[i : i + 1] = [bool(end)]
                rest = next((k for k in range(i + 1, len(tokens)) if not counted[k]), len(tokens))
                counted[i + 1 : rest] = [False] * (rest - i - 1)
        last = max((i + 1 for i, counts in enumerate(counted) if counts), default=1)
        start = max((i for i in range(last) if counted[i] and (i == 0 or not counted[i - 1])), default=1)
        return Encoded(tokens[:last], max(1, start), [False, *counted[1:last]])

    def _uses_chat_template(self, item: Any) -> bool:
        """Whether an example is written by the chat template: it isn't where it is plain text."""
        return self.chat and bool(self.prompt(item) or item.get("before"))

    def _parts(self, item: Any) -> list[TextPart]:
        """An example's text in parts, its answer last."""
        if self._uses_chat_template(item):
            return parts_of_chat(self.tokenizer, whole(item), self._ending, self.ends is not False)
        opening = framed(self.template, item)
        text = opening.rstrip(" ") if self._spaced(item) and not self._apart(item) else opening
        shown = [TextPart(text, False) for opened, said in _shots_of(item) for text in (opened, said, "\n\n") if text]
        opening_part = [TextPart(text, False)] if text else []
        return [*shown, *opening_part, TextPart(opening[len(text) :] + self.answer(item), True)]

    def _spaced(self, item: Any) -> bool:
        """Whether spaces that end the opening are a template's: most tokenizers make them part of what follows."""
        return bool(self.prompt(item)) and self.template not in (None, PLAIN)

    def _apart(self, item: Any) -> bool:
        """Whether an answer's tokens are those that it has alone."""
        return self.joined is False and not self._uses_chat_template(item)

    @cached_property
    def _ending(self) -> Ending:
        return ending(self.tokenizer) if self.chat else Ending("", [])

    @property
    def _end(self) -> list[int]:
        """What ends an answer to a prompt, or nothing."""
        token = self.tokenizer.eos_token_id
        return [] if self.ends is False else self._ending.tokens or ([] if token is None else [token])

    def _ends_of(self, item: Any) -> list[int]:
        """What ends this example: of plain text the end-of-text token, unless more of the text follows."""
        if item.get("continues"):
            return []
        if self._uses_chat_template(item):
            return self._end
        token = self.tokenizer.eos_token_id
        return [] if token is None or self.ends is False else [token]

    @property
    def stops(self) -> list[int]:
        """The tokens that end an answer."""
        eos = self.tokenizer.eos_token_id
        return list(dict.fromkeys([*self._ending.tokens[-1:], *([] if eos is None else [eos])]))

    def cut_off(self, item: Any) -> float:
        """The share of an example's tokens that `longest` cuts off."""
        length = len(self.encode(item)[0])
        return 0.0 if length != self.longest else 1 - length / len(self._whole(item).tokens)

    @cached_property
    def _begin(self) -> list[int]:
        """The tokens that the tokenizer puts in front of every text; many put none."""
        whole, text = list(self.tokenizer("a")["input_ids"]), self._plain("a")
        places = (i for i in range(len(whole)) if text and whole[i : i + len(text)] == text)
        return whole[: next(places, 0)]

    def _plain(self, text: str) -> list[int]:
        tokens: list[int] = self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        return tokens

    def _after(self, opening: list[int], text: str) -> list[int]:
        """The tokens of a text that follows an opening, as they are where both are tokenised together.

        A text on its own may begin otherwise: SentencePiece puts a space before it. So it is tokenised behind what the
        opening ends in, unless both would become one word there.
        """
        anchor = ""
        if text and opening != self._begin:
            anchor = str(self.tokenizer.decode(opening[-1:], clean_up_tokenization_spaces=False))
        if anchor and not (anchor[-1].isalnum() and text[0].isalnum()):
            before, both = self._plain(anchor), self._plain(anchor + text)
            if before == both[: len(before)] and self.tokenizer.unk_token_id not in before:
                return both[len(before) :]
        return self._plain(text)

    def collate(self, items: Sequence[Any]) -> Batch:
        """`tokens` and `targets` `[examples, length]`; targets of prompt and padding are ignored."""
        encoded = [self._encoded(item) for item in items]
        length = max(2, *(len(tokens) for tokens, _, _ in encoded)) if encoded else 2
        tokens = torch.full((len(encoded), length), self._padding)
        targets = torch.full((len(encoded), length), IGNORED)
        for i, (ids, _, counted) in enumerate(encoded):
            tokens[i, : len(ids)] = torch.tensor(ids)
            targets[i, : len(ids)] = torch.where(torch.tensor(counted), tokens[i, : len(ids)], IGNORED)
        return {"tokens": tokens, "targets": targets, "lengths": torch.tensor([len(e.tokens) for e in encoded])}

    def content(self, item: Any) -> str:
        """sha256 of the whole text, wherever its answer begins; a template is part of it, a chat template is not."""
        if self._uses_chat_template(item):
            texts = [turn["content"] for turn in whole(item)]
        else:
            texts = [framed(self.template, item), self.answer(item)]
        return digest(plain(" ".join(texts)))

    def predicted(self, batch: Batch) -> Tensor:
        """Which tokens are predicted `[examples, length]`: those of answers; with `prompts` each but the first."""
        if not self.prompts:
            return batch["targets"].ne(IGNORED)
        places = torch.arange(batch["tokens"].shape[1], device=batch["tokens"].device)
        return (places > 0) & (places < batch["lengths"][:, None])

    def in_answer(self, batch: Batch) -> Tensor:
        """Which rows are those of answers, where those of prompts are rows too, `[rows]`."""
        return batch["targets"].ne(IGNORED)[replace(self, prompts=True).predicted(batch)]

    def difficulty(self, retain: Examples, pool: Examples, seed: int) -> Covariates:
        """By how likely an answer's tokens are after its prompt, counted in retain, and how long and rare they are."""
        texts = (self.encode(item)[0] for item in iterate(retain))
        return difficulty_of_texts(texts, [self.encode(item) for item in iterate(pool)])

    @property
    def _padding(self) -> int:
        """The padding token; any will do where the tokenizer has none, for padding is never seen nor predicted."""
        candidates = (self.tokenizer.pad_token_id, self.tokenizer.eos_token_id, 0)
        return int(next(token for token in candidates if token is not None))

    def _shown(self, item: Any, share: float) -> tuple[list[int], list[int]]:
        """The tokens that are given, and those that are left to be written; what ends the answer is never given."""
        tokens, start = self.encode(item)
        end = self._ends_of(item)
        unwritten = len(end) if end and tokens[-len(end) :] == end else 0
        cut = start + int(share * (len(tokens) - start - unwritten))
        return tokens[:cut], tokens[cut:]

    def left(self, item: Any, shown: float) -> str:
        """The text of the tokens that are left of the answer."""
        return str(self.tokenizer.decode(self._shown(item, shown)[1], skip_special_tokens=True)).strip()

    def pieces(self, item: Any) -> list[str]:
        """The predicted tokens as text; those of an answer are together the answer, and what ends it.

        Of a character that takes several tokens the last one has all, the others nothing.
        """
        ids, _, counted = self._encoded(item)
        pieces: list[str] = []
        start, earlier = 0, ""
        for end in range(1, len(ids) + 1):
            if not counted[end - 1]:
                start, earlier = end, ""
                continue
            text = str(self.tokenizer.decode(ids[start:end]))
            whole_text = end == len(ids) or not counted[end] or not text.endswith("\ufffd")
            pieces.append(text.removeprefix(earlier) if whole_text else "")
            earlier = text if whole_text else earlier
        return pieces

    def exhibit(self, item: Any, caption: str) -> Exhibit:
        """What was said before, prompt and answer."""
        texts = [*(turn["content"] for turn in item.get("before", ())), self.prompt(item), self.answer(item)]
        return Exhibit(kind="text", content="\n".join(texts).strip(), caption=caption)

    def raw(self, item: Any) -> bytes:
        """The answer in UTF-8."""
        return self.answer(item).encode()


def _beside(item: Any) -> dict[str, Any]:
    """What an example holds beside prompt and answer that decides its tokens."""
    return {key: item[key] for key in ("before", "input", "continues", SHOTS) if item.get(key) is not None}


def _shots_of(item: Any) -> list[tuple[str, str]]:
    """The examples that stand before one, where answers are tokenised alone: what opens each, and its answer."""
    return list(item.get(SHOTS) or ())
