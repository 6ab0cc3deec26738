"""Your own text classifier by command line alone."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.end_to_end.test_bad_input import tree
from tests.end_to_end.test_cli import call, one_line
from tests.worlds import JOBS, NAMES, TOWNS, small_bert, word_tokenizer
from unrecall.cli.lines import own_kind
from unrecall.data.request import Request
from unrecall.errors import BadInput
from unrecall.record.schema import load as load_record
from unrecall.scenarios.classifiers import load_classifier
from unrecall.scenarios.labelled_texts import LabelledTexts, positions_of
from unrecall.tasks import TransformersTexts

CLASSES = ("baker", "cook", "pilot")
OWN = ["--model", "model", "--forget", "forget.jsonl", "--retain", "retain.jsonl"]
UNSEEN = ["--holdout", "holdout.jsonl", "--test", "test.jsonl"]
HOW = ["--method", "grad_diff:lr=1e-3,epochs=1", "--device", "cpu", "--out", "out"]


def records(first: int, last: int) -> list[dict[str, Any]]:
    """Sentences of several words, whose class is chance; three of a person."""
    draws = torch.randint(10, (last, 5), generator=torch.Generator().manual_seed(0)).tolist()
    return [
        {
            "text": f"{NAMES[a]} of {TOWNS[b]} which is {JOBS[c]} of {NAMES[e]}" + " the job" * (i % 20),
            "label": CLASSES[d % 3],
            "who": f"person {i // 3}",
        }
        for i, (a, b, c, d, e) in list(enumerate(draws))[first:]
    ]


def write(name: str, lines: list[Any]) -> None:
    Path(name).write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A classifier that knows 60 texts, its base with other classes, and four files."""
    monkeypatch.setenv("UNRECALL_CACHE", str(tmp_path / "cache"))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    for name, first, last in (("forget", 0, 6), ("retain", 6, 60), ("holdout", 60, 120), ("test", 120, 140)):
        write(f"{name}.jsonl", records(first, last))
    tokenizer = word_tokenizer()
    task = TransformersTexts(tokenizer=tokenizer)
    known = records(0, 60)
    tokens, labels = task.prepare([r["text"] for r in known], 32), [CLASSES.index(r["label"]) for r in known]
    names = dict(enumerate(CLASSES))
    model = small_bert(len(tokenizer), id2label=names, label2id={name: number for number, name in names.items()})
    optimizer = torch.optim.AdamW(model.parameters(), 0.01)
    batch = task.collate(list(zip(tokens, labels, strict=True)))
    for _ in range(60):
        optimizer.zero_grad()
        task.losses(model, batch).mean().backward()
        optimizer.step()
    for name, made in (("model", model), ("base", small_bert(len(tokenizer), 5, 1))):
        made.save_pretrained(name)
        tokenizer.save_pretrained(name)
    return tmp_path / "work"


def test_a_run_needs_no_file_of_code(capsys: pytest.CaptureFixture[str]) -> None:
    run = ["run", *OWN, *UNSEEN, "--group", "who", "--alone", *HOW, "--no-tune", "--suite", "quick", "--show-examples"]
    assert call(*run) == 0
    assert re.match(r"grad_diff:lr=0.001,epochs=1, seed 0: ", capsys.readouterr().out)
    record = load_record(Path("out/seed-0/record.json"))
    assert (record.scenario, record.kind) == ("labelled-texts", "samples")
    assert record.sizes == {"forget": 6, "retain": 54, "holdout": 60, "test": 20}
    assert "texts cut to 32 tokens" in record.scenario_summary
    page = Path("out/report.html").read_text(encoding="utf-8")
    assert records(0, 1)[0]["text"] in page, "people read the texts, not numbers"
    again = load_classifier(LabelledTexts.kind, "out/seed-0/unlearned")
    assert isinstance(again, nn.Module)
    assert call("check", "out") == 0
    theirs = ["--unlearned", "out/seed-0/unlearned", "--suite", "loss", "--device", "cpu", "--out", "theirs"]
    assert call("audit", *OWN, *UNSEEN, "--alone", *theirs) == 0


def test_texts_are_read_as_transformers_reads_them() -> None:
    scenario = LabelledTexts(model="model", forget="forget.jsonl", retain="retain.jsonl").make()
    task, model = scenario.task, scenario.original
    assert isinstance(task, TransformersTexts)
    assert isinstance(model, nn.Module)
    assert task.classes == CLASSES
    known = records(0, 6)
    encoded = word_tokenizer()([r["text"] for r in known], truncation=True, max_length=32, padding=True)
    inputs = {name: torch.tensor(encoded[name]) for name in ("input_ids", "attention_mask")}
    with torch.no_grad():
        expected = model(**inputs).logits
        rows = task.rows(model, task.collate([scenario.request.forget[i] for i in range(6)]))
    assert torch.allclose(rows.logits, expected, atol=1e-5), "padding to the longest of all sets says nothing"
    assert rows.targets.tolist() == [CLASSES.index(r["label"]) for r in known]
    assert task.text(scenario.request.forget[0]) == known[0]["text"]
    assert task.raw(scenario.request.forget[0]) == known[0]["text"].encode()


def test_a_causal_model_ends_in_the_layer_whose_last_token_it_takes() -> None:
    """GPT-2 gives logits of each token, and takes those of the last that isn't padding."""
    library: Any = pytest.importorskip("transformers")
    sizes = {"n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 32, "num_labels": 3, "pad_token_id": 0}
    tokenizer = word_tokenizer()
    model = library.GPT2ForSequenceClassification(library.GPT2Config(vocab_size=len(tokenizer), **sizes)).eval()
    task = TransformersTexts(tokenizer=tokenizer)
    tokens = task.prepare([r["text"] for r in records(0, 6)], 32)
    batch = task.collate([(row, 0) for row in tokens])
    with torch.no_grad():
        view = task.view(model, batch)
        assert task.head(model, batch) is model.score
        assert torch.allclose(model.score(view.features), view.rows.logits)
    assert view.features.shape == (6, 16)


def test_what_an_example_is_does_not_hang_on_how_long_other_texts_are() -> None:
    digests = []
    for length in (1, 30):
        write("test.jsonl", [{"text": "ann of athens" + " of berlin" * length, "label": 0}])
        request = (
            LabelledTexts(model="model", forget="forget.jsonl", retain="retain.jsonl", test="test.jsonl").make().request
        )
        digests.append(request.digests["forget"])
    assert digests[0] == digests[1]


@pytest.mark.parametrize("own", [2, None])
def test_padding_that_changes_answers_is_refused(own: int | None) -> None:
    """GPT-2 takes the last token that isn't its configuration's padding."""
    library: Any = pytest.importorskip("transformers")
    sizes = {"n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 32, "num_labels": 3, "pad_token_id": own}
    tokenizer = word_tokenizer()
    model = library.GPT2ForSequenceClassification(library.GPT2Config(vocab_size=len(tokenizer), **sizes)).eval()
    task = TransformersTexts(tokenizer=tokenizer)
    data = [(tokens, i % 3) for i, tokens in enumerate(task.prepare([r["text"] for r in records(0, 30)], 32))]
    with pytest.raises(BadInput, match=f"expected padding to change nothing .* config.pad_token_id is {own}"):
        task.check(model, Request(data[:5], data[5:]))
    model.config.pad_token_id = 0
    task.check(model, Request(data[:5], data[5:]))


def test_a_pretrained_base_gets_a_head_of_its_own() -> None:
    """It has neither the classifier nor the pooler that a text classifier adds."""
    library: Any = pytest.importorskip("transformers")
    config = small_bert(len(word_tokenizer())).config
    library.BertForMaskedLM(config).save_pretrained("base")
    scenario = LabelledTexts(model="model", forget="forget.jsonl", retain="retain.jsonl", base="base").make()
    assert scenario.build is not None
    library.BertModel(config.__class__(**{**config.to_dict(), "num_hidden_layers": 3})).save_pretrained("base")
    json_config = json.loads(Path("base/config.json").read_text())
    Path("base/config.json").write_text(json.dumps({**json_config, "num_hidden_layers": 4}))
    with pytest.raises(BadInput, match=r"base: expected .* holds every weight, got none that fits bert\.encoder"):
        LabelledTexts(model="model", forget="forget.jsonl", retain="retain.jsonl", base="base").make()


def test_roberta_counts_positions_from_behind_the_padding() -> None:
    library: Any = pytest.importorskip("transformers")
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    config = library.RobertaConfig(vocab_size=20, max_position_embeddings=34, pad_token_id=1, **sizes)
    assert positions_of(library.RobertaForSequenceClassification(config)) == 32
    assert positions_of(small_bert(20)) == 32


def test_retrained_models_come_from_a_base_of_other_classes() -> None:
    scenario = LabelledTexts(model="model", forget="forget.jsonl", retain="retain.jsonl", base="base").make()
    assert scenario.build is not None
    made: Any = scenario.build(0, None)  # type: ignore[arg-type]
    assert made.config.num_labels == 3


def test_a_whole_class_is_a_class_request() -> None:
    rewritten("retain.jsonl", label=1.0)
    assert LabelledTexts(model="model", forget="forget.jsonl", retain="retain.jsonl").make().request.retain[1][1] == 1
    by_class = [[r for r in records(0, 60) if (r["label"] == "cook") is cook] for cook in (True, False)]
    write("forget.jsonl", by_class[0])
    write("retain.jsonl", by_class[1])
    request = LabelledTexts(model="model", forget="forget.jsonl", retain="retain.jsonl").make().request
    assert (request.kind, request.masked) == ("class", (1,))


def rewritten(name: str, **changes: Any) -> None:
    """The second record of a file with other values; None takes a key out."""
    lines = [json.loads(line) for line in Path(name).read_text().splitlines()]
    lines[1] = {key: value for key, value in {**lines[1], **changes}.items() if value is not None}
    write(name, lines)


def relabelled() -> None:
    """A text that must go stays in retain under another class."""
    first = records(0, 1)[0]
    write("retain.jsonl", [*records(6, 60), {**first, "label": next(c for c in CLASSES if c != first["label"])}])


def numbered() -> None:
    """A text that must go stays in retain with the number of its class in place of the name."""
    first = records(0, 1)[0]
    write("retain.jsonl", [*records(6, 60), {**first, "label": CLASSES.index(first["label"])}])


def begun() -> None:
    """A text that stays begins as one that must go, and both are longer than what is read of them."""
    first = records(0, 1)[0]
    longer = first["text"] + " the job" * 40
    write("forget.jsonl", [{**first, "text": longer}])
    write("retain.jsonl", [*records(6, 60), {**first, "text": f"{longer} job"}])


def unpadded() -> None:
    tokenizer = word_tokenizer()
    tokenizer.pad_token = None
    tokenizer.save_pretrained("model")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda: rewritten("forget.jsonl", text=None), r"forget\.jsonl:2: expected the keys text and label, got label"),
        (lambda: rewritten("retain.jsonl", text=" "), r"retain\.jsonl:2: expected text to be a text that can be read"),
        (lambda: rewritten("retain.jsonl", label=2.5), r"retain\.jsonl:2: expected label to be a class"),
        (lambda: rewritten("retain.jsonl", label="bakr"), r"retain\.jsonl:2: expected a class .*, got 'bakr'.*baker"),
        (lambda: rewritten("forget.jsonl", who=None), r"forget\.jsonl:2: expected 'who' to say whose it is"),
        (lambda: write("retain.jsonl", records(0, 60)), r"forget and retain to share nothing, got 6 .*forget\.jsonl:1"),
        (relabelled, r"no text that must go in retain, got forget\.jsonl:1 under .*, retain\.jsonl:55"),
        (numbered, r"forget and retain to share nothing, got 1 .*forget\.jsonl:1"),
        (begun, r"retain\.jsonl:55: expected a text that differs from forget\.jsonl:1 in the 32 tokens that are read"),
        (unpadded, "expected a tokenizer with a padding token, got none"),
    ],
)  # fmt: skip
def test_what_can_not_be_used(change: Any, message: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change()
    before = tree(folder)
    assert call("run", *OWN, *UNSEEN, "--group", "who", "--alone", *HOW) == 2
    said = one_line(capsys)
    assert re.search(message, said), said
    assert tree(folder) == before


def test_the_architecture_says_what_a_model_reads() -> None:
    assert own_kind(Path("model"), Path("retain.jsonl")) == "labelled-texts"
