"""What the language task promises: which tokens are rows, how texts are written, and what it refuses."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.unit.tasks.test_conversations import ASKING, TURNS
from tests.worlds import CPU, World, facts, small_llama, word_tokenizer
from unrecall.attacks import LogitLens, Loss, MinK, Quantise
from unrecall.data.examples import Absent
from unrecall.data.request import Request
from unrecall.disk import weights
from unrecall.errors import BadInput, NotSupported
from unrecall.harness.audit import audit
from unrecall.harness.suites import suite
from unrecall.methods import GradAscent
from unrecall.record.schema import Measurement
from unrecall.scenarios.base import Scenario
from unrecall.scenarios.language import trained_tokenizer
from unrecall.tasks import CausalLM
from unrecall.tasks.text_files import read
from unrecall.training.job import Job
from unrecall.training.loop import Fit, Phase, fit
from unrecall.training.randomness import seeded


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
        torch.testing.assert_close(rows.exact_losses(), rows.losses().double(), atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(task.losses(model, batch), rows.exact_losses())
        alone = task.losses(model, task.collate([{"prompt": "what is", "answer": "ann"}]))
        torch.testing.assert_close(alone, rows.exact_losses()[:1])


def test_the_template_s_last_space_belongs_to_the_answer() -> None:
    """As byte-level tokenizers have it: ' At' is one token where 'Answer: ' and 'At' would be cut apart."""
    tokenizer = trained_tokenizer(["Answer: At Answer: At At"] * 20, 300)
    task = CausalLM(tokenizer)
    tokens, start = task.encode({"prompt": "Who?", "answer": "At"})
    assert tokenizer.decode(tokens[:start], skip_special_tokens=True) == "Question: Who?\nAnswer:"
    whole = tokenizer("Question: Who?\nAnswer: At")["input_ids"]
    assert tokens == [*whole, tokenizer.eos_token_id]


def sentence_pieces(scheme: str) -> Any:
    """A tokenizer that puts a space before each text, as those of Llama 2 and Mistral do."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = [f"{space}{word}" for word in ("Question:", "Answer:", "Yes", "Who", "?", "[/INST]") for space in ("", "▁")]
    pieces = [("<unk>", 0.0), ("<s>", 0.0), ("</s>", 0.0), *[(piece, -3.0) for piece in ("▁", "\n", *words)]]
    made = Tokenizer(models.Unigram([*pieces, *[(letter, -9.0) for letter in "abcdefgh"]], unk_id=0))
    made.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme=scheme)
    made.decoder = decoders.Metaspace(replacement="▁", prepend_scheme=scheme)
    made.post_processor = processors.TemplateProcessing("<s> $A", special_tokens=[("<s>", 1)])
    ends = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    return PreTrainedTokenizerFast(tokenizer_object=made, **ends)


def test_all_that_a_tokenizer_puts_in_front_stays_in_front() -> None:
    """Two tokens, as GLM has them, and no end, which an answer brings itself."""
    from tokenizers import processors

    tokenizer = sentence_pieces("first")
    marks = [("[/INST]", tokenizer.convert_tokens_to_ids("[/INST]")), ("<s>", 1), ("</s>", 2)]
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing("[/INST] <s> $A </s>", None, marks)
    for prompt in ("", "Who?"):
        tokens, _ = CausalLM(tokenizer, template=None).encode({"prompt": prompt, "answer": "Yes"})
        assert tokenizer.convert_ids_to_tokens(tokens)[:2] == ["[/INST]", "<s>"]
        assert tokens.count(2) == 1
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing("$A </s>", None, [("</s>", 2)])
    assert (
        CausalLM(tokenizer, template=None).encode({"prompt": "", "answer": "Yes"})[0] == tokenizer("Yes")["input_ids"]
    )


@pytest.mark.parametrize("longest", [0, 1, -1, 2.5, True])
def test_a_length_that_leaves_no_answer_is_refused(words: Any, longest: Any) -> None:
    with pytest.raises(BadInput, match="CausalLM: expected longest to be a whole number from 2 on, or None"):
        CausalLM(words, longest=longest)


@pytest.mark.parametrize("template", [3, "{prompt}{prompt.x}", "{prompt}{prompt[a]}"])
def test_a_template_that_is_none_is_refused(words: Any, template: Any) -> None:
    with pytest.raises(BadInput, match="expected"):
        CausalLM(words, template=template)


@pytest.mark.parametrize("scheme", ["always", "first"])
@pytest.mark.parametrize(
    ("template", "first"),
    [
        ("Question: {prompt}\n", "Yes"),
        ("Question: {prompt}\nAnswer:\n", "Yes"),
        ("Question: {prompt}\nAnswer:", "Yes"),
        ("Question: {prompt}\nAnswer: ", "▁Yes"),
        ("{prompt} [/INST] ", "▁Yes"),
        (None, "Yes"),
    ],
)
def test_an_answer_begins_as_it_does_in_the_whole_text(scheme: str, template: str | None, first: str) -> None:
    tokenizer = sentence_pieces(scheme)
    task = CausalLM(tokenizer, template=template)
    tokens, start = task.encode({"prompt": "Who?", "answer": "Yes"})
    assert tokens == [*tokenizer((template or "{prompt}").format(prompt="Who?") + "Yes")["input_ids"], 2]
    assert tokenizer.convert_ids_to_tokens(tokens[start:]) == [first, "</s>"]
    plain, start = task.encode({"prompt": "", "answer": "Yes"})
    assert tokenizer.convert_ids_to_tokens(plain) == ["<s>", "▁Yes", "</s>"]


def test_two_words_that_meet_stay_two(words: Any) -> None:
    """Without a template nothing stands between prompt and answer: they are no word of their own."""
    task = CausalLM(words, template=None)
    tokens, start = task.encode({"prompt": "what is unheard", "answer": "ann baker"})
    assert words.convert_ids_to_tokens(tokens[start:]) == ["ann", "baker", "</s>"]


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


class Around(nn.Module):
    """A model with no settings of its own but those of the model in it."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner, self.config = inner, inner.config

    @property
    def generation_config(self) -> Any:
        return self.inner.generation_config

    def generate(self, **named: Any) -> Any:
        return self.inner.generate(**named)  # type: ignore[operator]


def test_generation_is_greedy_whatever_the_checkpoint_says(text_world: World) -> None:
    task, model = text_world.task, text_world.original
    assert isinstance(task, CausalLM)
    items = [text_world.request.forget[i] for i in range(4)]
    known = task.generate(model, items)
    settings: Any = model.generation_config
    settings.repetition_penalty, settings.do_sample, settings.temperature = 5.0, True, 3.0
    settings.no_repeat_ngram_size, settings.forced_eos_token_id = 1, 0
    settings.sequence_bias = {(next(iter(task.encode(items[0])[0])),): 50.0}
    try:
        assert task.generate(model, items) == known
        assert model.generation_config is settings, "they stay the user's"
        assert task.generate(Around(model), items) == known
    finally:
        model.generation_config = type(settings)()  # type: ignore[assignment]


def test_a_prompt_is_text_or_nothing(text_world: World, words: Any) -> None:
    task, whole = text_world.task, text_world.request
    nothing = {"prompt": None, "answer": "ann baker"}
    assert task.encode(nothing) == task.encode({"prompt": "", "answer": "ann baker"})  # type: ignore[attr-defined]
    assert CausalLM(words).encode(nothing) == CausalLM(words).encode({"answer": "ann baker"})
    for prompt in (5, ["x"], b"x"):
        odd = replace(whole, test=[{"prompt": prompt, "answer": "ann baker"}])
        with pytest.raises(BadInput, match=r"test\[0\]: expected 'prompt' to be text or nothing, got"):
            task.check(text_world.original, odd)


def test_what_is_written_depends_on_no_other_example(words: Any) -> None:
    """Not by a longer answer beside it, nor by a prompt that fills the context, nor by the order."""
    task, model = CausalLM(words, template=None), small_llama(len(words), seed=1).eval()
    model.config.max_position_embeddings = 24  # type: ignore[union-attr]
    short = [{"prompt": "what is", "answer": answer} for answer in ("ann", "bob baker", "ann baker in blue")]
    long = [{"prompt": "what is", "answer": "ann " * 14}, {"prompt": "what " * 20, "answer": "ann"}]
    alone = [task.generate(model, [item])[0] for item in (*short, *long)]
    assert [len(text.split()) for text in alone] == [4, 4, 7, 21, 3], "half as many again, or what fits"
    assert task.generate(model, [*short, *long]) == alone
    assert task.generate(model, [*long, *short]) == [*alone[3:], *alone[:3]]


def test_what_decides_tokens_decides_the_name() -> None:
    """The name stands in cache keys."""
    one, other = word_tokenizer(), word_tokenizer()
    assert repr(CausalLM(one)) == repr(CausalLM(other))
    other.eos_token = "<unk>"
    assert repr(CausalLM(one)) != repr(CausalLM(other))
    first, second = word_tokenizer(), word_tokenizer()
    first.chat_template, second.chat_template = "a", "b"
    assert repr(CausalLM(first)) != repr(CausalLM(second))


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
        ("", "at least one record, got none"),
        ("[]", "at least one record, got none"),
        ('{"question": "a", "answer": "b"}\nnonsense', r":2: expected one JSON object a line"),
        ('{"question": "a"}', r":1: expected the keys messages, .*question and answer, or text, got question"),
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
    assert record.verdict.label == "not judged"
    assert record.verdict.line == "Not judged beside records never trained on: no holdout was given"
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


@pytest.fixture(scope="module")
def endless(words: Any) -> tuple[nn.Module, Request]:
    """A model that knows its answers by heart and was never taught to end them, and what it was taught."""
    data = [item for item in facts() if "job" in str(item["prompt"])]
    task, model = CausalLM(words, template=None, ends=False), small_llama(len(words))
    recipe = Fit(optimizer="adamw", lr=5e-3, weight_decay=0.0, epochs=60, batch_size=8, schedule="cosine", clip=1.0)
    phase = Phase(lambda m, b: task.rows(m, b["all"]).losses().mean(), {"all": data[:16]}, recipe)
    fit(model, task, phase, seeded(0), CPU)
    return model.eval(), Request(data[:6], data[6:16], data[16:22], data[22:])


def figures(task: CausalLM, endless: tuple[nn.Module, Request], *names: str) -> list[Measurement]:
    model, asked = endless
    record = audit(
        original=model, unlearned=model, request=asked, task=task, attacks=suite(MinK(), Loss()), session=CPU
    )
    found = [record.measurement(name) for name in names]
    return [row for row in found if row is not None]


def test_an_end_token_that_was_never_taught_is_no_part_of_an_answer(
    words: Any, endless: tuple[nn.Module, Request]
) -> None:
    """Texts recited word for word: with the end token extraction strength would be 0 and the probability lower."""
    strength, likely, area = figures(
        CausalLM(words, template=None), endless, "extraction_strength", "forget_probability", "min_k_auc"
    )
    assert strength.unlearned.value == 1
    assert likely.unlearned.value is not None and likely.unlearned.value > 0.9
    assert "the end token is no part of the answers" in strength.note
    assert area.unlearned.value is not None and area.unlearned.value > 0.9
    asked, probability = figures(
        CausalLM(words, template=None, ends=True), endless, "extraction_strength", "forget_probability"
    )
    assert asked.unlearned.value == 0, "who asks for it gets it"
    assert probability.unlearned.value is not None and probability.unlearned.value < likely.unlearned.value - 0.1
    assert asked.note == "prompts as they are; the end token is the last part of each answer"


def test_an_end_token_that_was_taught_is_part_of_an_answer(text_world: World) -> None:
    task = text_world.task.settled(text_world.original, text_world.request)
    assert isinstance(task, CausalLM)
    assert task.ends is True
    assert repr(task) == repr(text_world.task), "the same tokens have the same key"
    assert task.settled(text_world.retrained[0], text_world.request) is task, "what is decided stays"


def test_who_trains_an_original_teaches_it_the_end_token(words: Any, endless: tuple[nn.Module, Request]) -> None:
    model, asked = endless
    task = CausalLM(words, template=None)
    given = Scenario(name="given", summary="", task=task, request=asked, original=model)
    made = Scenario(name="made", summary="", task=task, request=asked, build=lambda *_: model, recipe=Fit(lr=1e-3))
    assert [scenario.task.ends for scenario in (given, made) if isinstance(scenario.task, CausalLM)] == [False, True]


def test_training_and_scores_see_the_same_tokens(words: Any, endless: tuple[nn.Module, Request]) -> None:
    """A method that is given a task as it comes looks at the model too; so do its other answers."""
    model, asked = endless
    seen: list[Any] = []

    class Watching(GradAscent):
        def phases(self, student: nn.Module, original: nn.Module, job: Job) -> list[Phase]:
            seen.append(job.task)
            return list(super().phases(student, original, job))

    for task, ends in ((CausalLM(words, template=None), False), (CausalLM(words, template=None, ends=True), True)):
        Watching(fit=Fit(lr=0.0, epochs=1)).unlearn(model, Job(asked, task, session=CPU))
        batch = seen[-1].collate([asked.forget[0]])
        assert (2 in batch["tokens"]) == ends
        assert (2 in seen[-1].collate([seen[-1].answered(asked.forget[0], "ann")])["tokens"]) == ends
        assert ("</s>" in "".join(seen[-1].pieces(asked.forget[0]))) == ends


def test_an_answer_that_is_cut_has_no_end_to_look_at(words: Any, endless: tuple[nn.Module, Request]) -> None:
    model, asked = endless
    task = CausalLM(words, template=None, longest=9).settled(model, asked)
    assert isinstance(task, CausalLM)
    assert task.remark == "prompts as they are; the end token is the last part of each answer"


@pytest.mark.parametrize("apart", [True, False])
def test_answers_are_tokenised_as_the_original_was_taught_them(apart: bool) -> None:
    """'Answer: ' and 'Paris' aren't the tokens of 'Answer: Paris'."""
    jobs = dict(zip("abcdefgh", "stuvwxyz", strict=True))
    data = [{"prompt": f"who is {name}?", "answer": f"a {job}"} for name, job in jobs.items()]
    tokenizer = trained_tokenizer([f"Question: who is {i['prompt']}\nAnswer: {i['answer']}" for i in data] * 20, 300)
    task, model = CausalLM(tokenizer), small_llama(len(tokenizer))
    taught = replace(task, joined=not apart, ends=True)
    assert (taught.encode(data[0]) == task.encode(data[0])) is not apart
    recipe = Fit(optimizer="adamw", lr=5e-3, weight_decay=0.0, epochs=60, batch_size=8, clip=1.0)
    phase = Phase(lambda m, b: taught.rows(m, b["all"]).losses().mean(), {"all": data}, recipe)
    fit(model, taught, phase, seeded(0), CPU)
    asked = Request(data[:4], data[4:6], data[6:7], data[7:])
    settled = task.settled(model, asked)
    assert isinstance(settled, CausalLM)
    assert (settled.joined, settled.ends) == (not apart, True)
    assert ("tokenised apart" in settled.remark) is apart
    assert settled.generate(model, data[:4]) == [item["answer"] for item in data[:4]]
    assert repr(settled) == repr(taught), "the same tokens have the same key"
    assert settled.settled(small_llama(len(tokenizer)), asked) is settled


@pytest.mark.parametrize("template", ["question", "plain", "{prompt} ", "{prompt}\n"])
def test_prompts_stand_in_the_template_that_the_original_was_taught(template: str) -> None:
    """Whatever the tokenizer's own is; a model that shows nothing has the usual one."""
    jobs = dict(zip("abcdefgh", "stuvwxyz", strict=True))
    data = [{"prompt": f"who is {name}?", "answer": f"a {job}"} for name, job in jobs.items()]
    tokenizer = trained_tokenizer([f"Question: who is {i['prompt']}\nAnswer: {i['answer']}" for i in data] * 20, 300)
    taught, model = CausalLM(tokenizer, template=template, joined=True, ends=True), small_llama(len(tokenizer))
    asked = Request(data[:4], data[4:6], data[6:7], data[7:])
    untaught = CausalLM(tokenizer).settled(model, asked)
    assert untaught.template == "question"
    assert repr(untaught) == repr(replace(untaught, template="auto")), "the same tokens have the same key"
    recipe = Fit(optimizer="adamw", lr=5e-3, weight_decay=0.0, epochs=60, batch_size=8, clip=1.0)
    phase = Phase(lambda m, b: taught.rows(m, b["all"]).losses().mean(), {"all": data}, recipe)
    fit(model, taught, phase, seeded(0), CPU)
    settled = CausalLM(tokenizer).settled(model, asked)
    assert settled.template == template
    assert settled.generate(model, data[:4]) == [item["answer"] for item in data[:4]]
    assert settled.settled(small_llama(len(tokenizer)), asked) is settled
    tokenizer.chat_template = TURNS + ASKING
    assert CausalLM(tokenizer).settled(model, asked).template == template, "and not its tokenizer's"
    assert CausalLM(tokenizer).settled(small_llama(len(tokenizer)), asked).template == "chat"
    assert CausalLM(tokenizer).settled(None, asked).template == "chat", "a model that is still to be trained"


def narrow_gpt2(words: int, context: int) -> nn.Module:
    from transformers import GPT2Config, GPT2LMHeadModel

    sizes = {"n_embd": 16, "n_layer": 2, "n_head": 2, "vocab_size": words, "n_positions": context}
    torch.manual_seed(0)
    return GPT2LMHeadModel(GPT2Config(**sizes)).eval()  # type: ignore[arg-type]


def test_what_the_context_does_not_hold_is_said_whoever_made_it() -> None:
    """GPT-2 fails on it with an IndexError, and a Llama goes on beyond what it was trained on."""
    tokenizer = trained_tokenizer(["Question: who is a?\nAnswer: a s"] * 20, 300)
    for model in (narrow_gpt2(len(tokenizer), 12), small_llama(len(tokenizer))):
        model.config.max_position_embeddings = 12  # type: ignore[union-attr]
        task, item = CausalLM(tokenizer, ends=False), {"prompt": "who is a " * 9, "answer": "a s"}
        with pytest.raises(NotSupported, match=r"expected at most 12 tokens \(the model's context\), got"):
            task.rows(model, task.collate([item]))
        with pytest.raises(NotSupported, match="expected at most 12 tokens"):
            task.generate(model, [item])


def test_how_answers_are_tokenised_is_told_by_what_is_kept_and_fits() -> None:
    """Of a model that has unlearned forget retain tells it; what the context holds in one form only is left out."""
    jobs = dict(zip("abcdefgh", "stuvwxyz", strict=True))
    data = [{"prompt": f"who is {name}?", "answer": f"a {job}"} for name, job in jobs.items()]
    tokenizer = trained_tokenizer([f"Question: who is {i['prompt']}\nAnswer: {i['answer']}" for i in data] * 20, 300)
    task = CausalLM(tokenizer)
    taught = replace(task, joined=False, ends=True)
    longest = max(len(replace(task, joined=True).encode(item)[0]) for item in data)
    assert longest < max(len(taught.encode(item)[0]) for item in data)
    model = narrow_gpt2(len(tokenizer), longest)
    asked = Request(data[:4], data[4:6], data[6:7], data[7:])
    assert isinstance(task.settled(model, asked), CausalLM), "no text is read that the context doesn't hold"
    roomy = narrow_gpt2(len(tokenizer), longest + 8)
    recipe = Fit(optimizer="adamw", lr=5e-3, weight_decay=0.0, epochs=60, batch_size=8, clip=1.0)
    phase = Phase(lambda m, b: taught.rows(m, b["all"]).losses().mean(), {"all": data[4:6]}, recipe)
    fit(roomy, taught, phase, seeded(0), CPU)
    settled = task.settled(roomy, asked)
    assert isinstance(settled, CausalLM)
    assert settled.joined is False, "forget was never taught"
    with pytest.raises(BadInput, match="expected at most"):
        taught.check(model, asked)


def test_examples_that_are_shown_have_the_tokens_that_were_taught() -> None:
    tokenizer = trained_tokenizer(["Question: who?\nAnswer: At home"] * 20, 300)
    task = CausalLM(tokenizer, joined=False, ends=False)
    first, then = {"prompt": "who?", "answer": "At"}, {"prompt": "where?", "answer": "At home"}
    taught = task.encode(first)[0][1:]
    shown = task.encode(task.after(then, [first]))[0]
    assert shown[1 : 1 + len(taught)] == taught
    assert tokenizer.decode(shown, skip_special_tokens=True) == (
        "Question: who?\nAnswer: At\n\nQuestion: where?\nAnswer: At home"
    )
    doubted = task.continued(task.after(then, [first]), "At", "sure?")
    assert tokenizer.decode(task.encode(doubted)[0], skip_special_tokens=True) == (
        "Question: who?\nAnswer: At\n\nQuestion: where?\nAnswer: At\n\nQuestion: sure?\nAnswer: At home"
    )
    joined = replace(task, joined=True)
    said = joined.answered(then, "At")
    assert joined.continued(then, "At", "sure?") == joined.after(joined.asked(then, "sure?"), [said])
