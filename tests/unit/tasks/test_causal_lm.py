"""What the language task promises: which tokens are rows, how texts are written, and what it refuses."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.worlds import CPU, World, small_llama, word_tokenizer
from unrecall.attacks import LogitLens, Loss, Quantise
from unrecall.data.examples import Absent
from unrecall.data.request import Request
from unrecall.disk import weights
from unrecall.errors import BadInput
from unrecall.harness.audit import audit
from unrecall.harness.suites import suite
from unrecall.scenarios.language import trained_tokenizer
from unrecall.tasks import CausalLM
from unrecall.tasks.text_files import read


@pytest.fixture(scope="module")
def words() -> Any:
    return word_tokenizer()


def test_prompt_and_padding_have_no_rows(words: Any) -> None:
    task = CausalLM(words, template=None)
    batch = task.collate([{"prompt": "what is", "answer": "ann"}, {"prompt": "", "answer": "the job of bob"}])
    names = [[words.convert_ids_to_tokens(int(t)) if t >= 0 else None for t in row] for row in batch["targets"]]
    assert names == [[None, None, None, "ann", "</s>", None], [None, "the", "job", "of", "bob", "</s>"]]
    assert task.positions(batch).tolist() == [[True] * 5 + [False], [True] * 6]
    rows = task.rows(small_llama(len(words)).eval(), batch)
    assert rows.targets.tolist() == [int(t) for row in batch["targets"] for t in row if t >= 0]
    assert rows.example.tolist() == [0, 0, 1, 1, 1, 1, 1]


def test_rows_are_what_the_model_says_of_the_next_token(words: Any) -> None:
    """The same as Transformers' own loss, and as the dense form that vmap follows."""
    task, model = CausalLM(words, template=None), small_llama(len(words)).eval()
    batch = task.collate([{"prompt": "what is", "answer": "ann"}, {"prompt": "", "answer": "the job of bob"}])
    with torch.no_grad():
        rows = task.rows(model, batch)
        theirs = model(input_ids=batch["tokens"], labels=batch["targets"]).loss
        torch.testing.assert_close(nn.functional.cross_entropy(rows.logits, rows.targets), theirs)
        torch.testing.assert_close(task.losses(model, batch), rows.losses())
        alone = task.losses(model, task.collate([{"prompt": "what is", "answer": "ann"}]))
        torch.testing.assert_close(alone, rows.losses()[:1])


def test_the_template_s_last_space_belongs_to_the_answer() -> None:
    """As byte-level tokenizers have it: ' At' is one token where 'Answer: ' and 'At' would be cut apart."""
    tokenizer = trained_tokenizer(["Answer: At Answer: At At"] * 20, 300)
    task = CausalLM(tokenizer)
    tokens, start = task.encode({"prompt": "Who?", "answer": "At"})
    assert tokenizer.decode(tokens[:start], skip_special_tokens=True) == "Question: Who?\nAnswer:"
    whole = tokenizer("Question: Who?\nAnswer: At")["input_ids"]
    assert tokens == [*whole, tokenizer.eos_token_id]
    batch = task.collate([{"prompt": "Who?", "answer": "no"}])
    assert torch.equal(task.with_answers(batch, ["At"])["tokens"][0], torch.tensor(tokens))


@pytest.mark.parametrize("text", ["Zoë wrote 日本 – and 🎈.", "plain"])
def test_pieces_put_together_are_the_answer(text: str) -> None:
    task = CausalLM(trained_tokenizer(["some other text"], 300), template=None)
    pieces = task.pieces({"prompt": "", "answer": text})
    assert "".join(pieces).removesuffix("</s>") == text
    assert "�" not in "".join(pieces)


def test_no_pad_token_is_no_trouble(words: Any) -> None:
    bare = word_tokenizer()
    bare.pad_token = None
    items = [{"prompt": "what is", "answer": "ann"}, {"prompt": "", "answer": "bob"}]
    model = small_llama(len(words)).eval()
    with torch.no_grad():
        expected = CausalLM(words, template=None).losses(model, CausalLM(words, template=None).collate(items))
        task = CausalLM(bare, template=None)
        torch.testing.assert_close(task.losses(model, task.collate(items)), expected)
    assert len(task.generate(model, items, longest=3)) == 2


def test_generation_is_greedy_whatever_the_checkpoint_says(text_world: World) -> None:
    task, model = text_world.task, text_world.original
    assert isinstance(task, CausalLM)
    items = [text_world.request.forget[i] for i in range(4)]
    known = task.generate(model, items)
    settings: Any = model.generation_config
    settings.repetition_penalty, settings.do_sample, settings.temperature = 5.0, True, 3.0
    try:
        assert task.generate(model, items) == known
    finally:
        settings.repetition_penalty, settings.do_sample, settings.temperature = 1.0, False, 1.0


def test_what_decides_tokens_decides_the_name() -> None:
    """The name stands in cache keys."""
    one, other = word_tokenizer(), word_tokenizer()
    assert repr(CausalLM(one)) == repr(CausalLM(other))
    other.eos_token = "<unk>"
    assert repr(CausalLM(one)) != repr(CausalLM(other))
    first, second = word_tokenizer(), word_tokenizer()
    first.chat_template, second.chat_template = "a", "b"
    assert repr(CausalLM(first, chat=True)) != repr(CausalLM(second, chat=True))


def request(**changes: Any) -> Request:
    sets = {
        "forget": [{"prompt": "what is ann", "answer": "baker"}],
        "retain": [{"prompt": "what is bob", "answer": "cook"}],
        "holdout": [{"prompt": "what is cid", "answer": "diver"}],
        "test": [{"prompt": "what is dan", "answer": "maid"}],
    }
    return Request(**(sets | changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"forget": [{"prompt": "ann", "answer": ""}]}, r"forget\[0\]: expected an answer of at least one token"),
        ({"forget": [{"prompt": "ann", "answer": "ann " * 70}]}, r"forget\[0\]: expected at most 64 tokens"),
        ({"forget": ["a text"]}, r"forget\[0\]: expected a mapping with the text 'answer', got str"),
        (
            {"retain": [{"prompt": "what is ann", "answer": "baker", "paraphrase": "x"}]},
            r"retain\[0\]: expected no text of forget, got that of forget\[0\]",
        ),
    ],
)
def test_requests_that_do_not_fit(words: Any, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        CausalLM(words, template=None).check(small_llama(len(words)), request(**changes))


def test_a_tokenizer_of_a_larger_vocabulary_is_refused(words: Any) -> None:
    with pytest.raises(BadInput, match="Load the tokenizer that was saved with the model"):
        CausalLM(words, template=None).check(small_llama(len(words) - 1), request())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty file"),
        ("[]", "empty file"),
        ('{"question": "a", "answer": "b"}\nnonsense', r":2: expected one JSON object a line"),
        ('{"question": "a"}', r":1: expected the keys question and answer, or text, got question"),
        ('{"question": 5, "answer": "b"}', ":1: question: expected text, got int"),
        ('{"question": "a", "answer": "\\ud83d"}', "half of a surrogate pair"),
        ('{"question": "a", "answer": "b", "perturbed_answer": {"c": 1}}', "perturbed_answer: expected text, got dict"),
        ("[1]", r"\[0\]: expected a JSON object, got int"),
    ],
)
def test_files_that_are_none(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "x.jsonl").write_text(text, encoding="utf-8")
    with pytest.raises(BadInput, match=message):
        read(tmp_path / "x.jsonl")


def test_a_file_in_another_encoding_names_its_line(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_bytes('{"text": "a"}\n{"text": "caf\xe9"}'.encode("latin-1"))
    with pytest.raises(BadInput, match=":2: expected UTF-8, got byte 0xe9"):
        read(tmp_path / "x.jsonl")


def test_a_line_separator_within_a_text_ends_no_line(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text('{"text": "a\u2028b"}', encoding="utf-8")
    assert read(tmp_path / "x.jsonl")[0]["answer"] == "a\u2028b"


def test_an_audit_without_holdout_test_set_or_retrained_models_says_so(text_world: World) -> None:
    """What a deletion request by command line alone comes to."""
    w = text_world
    asked = replace(w.request, holdout=Absent("no holdout was given"), test=Absent("no test set was given"))
    record = audit(
        original=w.original,
        unlearned=w.retrained[0],
        request=asked,
        task=w.task,
        attacks=suite(Loss(), Quantise(bits=(8,)), LogitLens()),
        session=CPU,
    )
    assert record.verdict.label == "inconclusive"
    loss, test = record.measurement("loss_auc"), record.measurement("test_accuracy")
    assert loss is not None
    assert loss.unlearned.value is None
    assert loss.unlearned.note == "no holdout was given"
    assert test is not None
    assert test.unlearned.note == "no test set was given"
    quantised = record.measurement("quantise_mean")
    assert quantised is not None
    assert quantised.original.value == pytest.approx(1.0)
    assert record.readings


def test_a_folder_of_transformers_is_a_checkpoint(tmp_path: Path, words: Any) -> None:
    """It leaves one of two tied names out."""
    model, other = small_llama(len(words), 0), small_llama(len(words), 1)
    CausalLM(words).export(model, tmp_path / "saved")
    weights.load(other, tmp_path / "saved")
    assert weights.digest_of(other) == weights.digest_of(model)
