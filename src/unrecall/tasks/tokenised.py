"""Prompts and answers as tokens: what a language task knows without a model."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unrecall.data.covariates import Covariates
from unrecall.data.examples import Batch, Examples, digest, iterate
from unrecall.record.schema import Exhibit
from unrecall.tasks.text_difficulty import difficulty_of_texts
from unrecall.tasks.text_files import Text, plain, read, without_repeats

IGNORED = -100
"""The target of a token that is not predicted: prompt and padding."""


@dataclass(frozen=True, repr=False)
class Tokenised:
    """Examples are mappings with an `answer` and a `prompt` (empty for plain text).

    A batch holds `tokens` and `targets` `[examples, length]`, padded on the right, so that causal attention never
    sees padding and needs no mask.

    `tokenizer`: of the model. `template`: what a prompt that is not empty becomes, with `{prompt}` in it; None where
    prompts are used as they are. `chat`: the tokenizer's own chat template in its place. `longest`: cut examples to
    so many tokens; None refuses those that are longer than the model's context. `ends`: whether the end-of-text token
    is the last row of each answer, in training and in scores alike, which it is where the tokenizer has one; False is
    for models that were never taught it. None: an audit, a method and a scenario look whether the model was.
    `prompts`: whether the tokens of prompts are rows too, as in some losses (`with_prompts`); batches are the same.
    """

    tokenizer: Any
    template: str | None = "Question: {prompt}\nAnswer: "
    chat: bool = False
    longest: int | None = None
    ends: bool | None = None
    prompts: bool = False
    known: dict[tuple[str, str], tuple[list[int], int]] = field(default_factory=dict, compare=False)
    """Examples already tokenised: tokens, and where the answer starts."""

    def __repr__(self) -> str:
        ends = [getattr(self.tokenizer, f"{name}_token_id", None) for name in ("bos", "eos", "pad")]
        turns = getattr(self.tokenizer, "chat_template", None) if self.chat else None
        text = f"{self.vocabulary}|{ends}|{turns}|{self.template}|{self.chat}|{self.longest}|{self._end}|{self.prompts}"
        return f"CausalLM({hashlib.sha256(text.encode()).hexdigest()[:16]})"

    @cached_property
    def vocabulary(self) -> str:
        """sha256 of what the tokenizer does with its tokens."""
        backend = getattr(self.tokenizer, "backend_tokenizer", None)
        text = backend.to_str() if backend is not None else repr(sorted(self.tokenizer.get_vocab().items()))
        return hashlib.sha256(text.encode()).hexdigest()

    def read(self, path: Path) -> list[Text]:
        """Prompts and answers of a JSON Lines file, each once."""
        return without_repeats(read(path))

    def prompt(self, item: Any) -> str:
        """The prompt as the user wrote it."""
        return str(item.get("prompt", ""))

    def answer(self, item: Any) -> str:
        """The answer as the user wrote it."""
        return str(item["answer"])

    def answered(self, item: Any, answer: str) -> Any:
        """The same prompt with another answer."""
        return {"prompt": item.get("prompt", ""), "answer": answer}

    def asked(self, item: Any, prompt: str) -> Any:
        """The same answer to another prompt."""
        return {"prompt": prompt, "answer": item["answer"]}

    def reworded(self, item: Any) -> list[Any]:
        """The same answer to the example's own `paraphrase`: a text, or several."""
        paraphrases = item.get("paraphrase") or []
        return [self.asked(item, text) for text in ([paraphrases] if isinstance(paraphrases, str) else paraphrases)]

    def encode(self, item: Any) -> tuple[list[int], int]:
        """An example's tokens, and the index of the first that is predicted: at least 1, for the first has no row."""
        key = (self.prompt(item), self.answer(item))
        if key not in self.known:
            tokens, start = self._whole(*key)
            self.known[key] = tokens[: self.longest], start
        return self.known[key]

    def _whole(self, prompt: str, answer: str) -> tuple[list[int], int]:
        """All tokens of an example, however many, and the index of the first that is predicted."""
        tokens = self._opening(prompt)
        start = max(1, len(tokens))
        return tokens + self._after(tokens, self._space(prompt) + answer) + self._end, start

    @property
    def _end(self) -> list[int]:
        """What ends every answer: the end-of-text token, or nothing."""
        token = self.tokenizer.eos_token_id
        return [] if token is None or self.ends is False else [token]

    def cut_off(self, item: Any) -> float:
        """The share of an example's tokens that `longest` cuts off."""
        kept = len(self.encode(item)[0])
        if kept != self.longest:
            return 0.0
        return 1 - kept / len(self._whole(self.prompt(item), self.answer(item))[0])

    def _opening(self, prompt: str) -> list[int]:
        """The tokens before an answer; for plain text only what the tokenizer puts in front of every text."""
        if self.chat and prompt:
            turns = [{"role": "user", "content": prompt}]
            text = self.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
            return self._plain(text)
        text = self.template.rstrip(" ").format(prompt=prompt) if self.template and prompt else prompt
        return self._begin + (self._plain(text) if text else [])

    def _space(self, prompt: str) -> str:
        """The spaces that end the template: most tokenizers make them part of the answer's first token."""
        if self.chat or not self.template or not prompt:
            return ""
        return " " * (len(self.template) - len(self.template.rstrip(" ")))

    @cached_property
    def _begin(self) -> list[int]:
        """The tokens that the tokenizer puts in front of every text; many put none."""
        alone: list[int] = self.tokenizer("")["input_ids"]
        return [token for token in alone[:1] if token == self.tokenizer.bos_token_id]

    def _plain(self, text: str) -> list[int]:
        tokens: list[int] = self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        return tokens

    def _after(self, opening: list[int], text: str) -> list[int]:
        """The tokens of a text that follows an opening, as they are where both are tokenised together.

        A text on its own may begin otherwise: SentencePiece puts a space before it. So it is tokenised behind what the
        opening ends in, unless both would become one word there.
        """
        alone = self._plain(text)
        if not text or opening == self._begin:
            return alone
        anchor = str(self.tokenizer.decode(opening[-1:], clean_up_tokenization_spaces=False))
        glued = anchor[-1:].isalnum() and text[:1].isalnum()
        before, both = self._plain(anchor), self._plain(anchor + text)
        whole = not glued and before == both[: len(before)] and self.tokenizer.unk_token_id not in before
        return both[len(before) :] if anchor and whole else alone

    def collate(self, items: Sequence[Any]) -> Batch:
        """`tokens` and `targets` `[examples, length]`; targets of prompt and padding are ignored."""
        return self._padded([self.encode(item) for item in items])

    def content(self, item: Any) -> str:
        """sha256 of the whole text as it reads, template included, wherever its answer begins."""
        prompt = self.prompt(item)
        asked = self.template.format(prompt=prompt) if self.template and prompt and not self.chat else prompt
        return digest(plain(f"{asked} {self.answer(item)}"))

    def _padded(self, encoded: Sequence[tuple[list[int], int]]) -> Batch:
        length = max(2, *(len(tokens) for tokens, _ in encoded)) if encoded else 2
        tokens = torch.full((len(encoded), length), self._padding)
        targets = torch.full((len(encoded), length), IGNORED)
        for i, (ids, start) in enumerate(encoded):
            tokens[i, : len(ids)] = torch.tensor(ids)
            targets[i, start : len(ids)] = tokens[i, start : len(ids)]
        return {"tokens": tokens, "targets": targets, "lengths": torch.tensor([len(ids) for ids, _ in encoded])}

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
        ends = tokens[-1:] == self._end
        cut = start + int(share * (len(tokens) - start - ends))
        return tokens[:cut], tokens[cut:]

    def left(self, item: Any, shown: float) -> str:
        """The text of the tokens that are left of the answer."""
        return str(self.tokenizer.decode(self._shown(item, shown)[1], skip_special_tokens=True)).strip()

    def pieces(self, item: Any) -> list[str]:
        """The answer's tokens as text; together they are the answer, and what ends it.

        Of a character that takes several tokens the last one has all, the others nothing.
        """
        ids, start = self.encode(item)
        pieces, done = [], str(self.tokenizer.decode(ids[start:start]))
        for end in range(start + 1, len(ids) + 1):
            text = str(self.tokenizer.decode(ids[start:end]))
            whole = end == len(ids) or not text.endswith("\ufffd")
            pieces.append(text.removeprefix(done) if whole else "")
            done = text if whole else done
        return pieces

    def exhibit(self, item: Any, caption: str) -> Exhibit:
        """Prompt and answer."""
        return Exhibit(kind="text", content=f"{self.prompt(item)}\n{self.answer(item)}".strip(), caption=caption)

    def raw(self, item: Any) -> bytes:
        """The answer in UTF-8."""
        return self.answer(item).encode()
