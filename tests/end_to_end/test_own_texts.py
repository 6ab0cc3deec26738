"""Your own model and JSON Lines by command line alone; whatever can't be used is one line, and nothing is written."""

import copy
import itertools
import json
import re
import shutil
import socket
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from tests.end_to_end.test_bad_input import tree
from tests.end_to_end.test_cli import call, one_line
from tests.unit.disk.test_tables import as_parquet
from tests.worlds import JOBS, NAMES, facts, small_llama, word_tokenizer
from unrecall.data.examples import Absent
from unrecall.disk import weights
from unrecall.errors import BadInput
from unrecall.experiment.checkpoints import checkpoint_key
from unrecall.record.schema import load as load_record
from unrecall.scenarios import hub, language
from unrecall.scenarios.texts import Texts
from unrecall.tasks import CausalLM

FACTS: list[dict[str, Any]] = [
    {"question": fact["prompt"], "answer": fact["answer"], "paraphrased_question": fact["paraphrase"]}
    for fact in facts()
]
SPLITS = {"forget": FACTS[:4], "retain": FACTS[4:12], "holdout": FACTS[12:16], "test": FACTS[16:20]}
OWN = ["--model", "model", "--forget", "forget.jsonl", "--retain", "retain.jsonl", "--anyway"]
ALL = [*OWN, "--holdout", "holdout.jsonl", "--test", "test.jsonl"]
HOW = ["--method", "npo:lr=1e-2,epochs=2", "--lora", "r=2", "--device", "cpu", "--out", "out"]
RUN = ["run", *ALL, *HOW, "--suite", "loss"]


def llama(**changes: Any) -> Any:
    """The small Llama for as many words as the tokenizer has, of other sizes where they are named."""
    model = small_llama(len(word_tokenizer()))
    if not changes:
        return model
    config: Any = copy.deepcopy(model.config)
    for name, value in changes.items():
        setattr(config, name, value)
    with torch.random.fork_rng():
        return type(model)(config)


def keep(folder: Path, model: Any = None, tokenizer: Any = None) -> Path:
    """A tiny model and its tokenizer as Transformers saves them."""
    (model or llama()).save_pretrained(folder)
    (tokenizer or word_tokenizer()).save_pretrained(folder)
    return folder


def adapter(folder: Path, base: str, **changes: Any) -> Path:
    """A LoRA adapter that moves the model it was made for."""
    from peft import LoraConfig, get_peft_model

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # PEFT still calls what Transformers has renamed
        made = get_peft_model(llama(**changes), LoraConfig(target_modules=["q_proj"]))
    for name, weight in made.named_parameters():
        if "lora_B" in name:
            torch.nn.init.constant_(weight, 0.01)
    made.peft_config["default"].base_model_name_or_path = base
    made.save_pretrained(folder, save_embedding_layers=False)
    return folder


def said(folder: Path, **changes: Any) -> None:
    """Changes what the model's configuration says, and not the model."""
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def write(name: str, *records: Any) -> None:
    Path(name).write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return keep(tmp_path_factory.mktemp("saved") / "model")


@pytest.fixture(autouse=True)
def folder(saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a model and four files, a cache beside it, and no hub to be reached."""
    from huggingface_hub import constants

    made = tmp_path / "work"
    made.mkdir()
    monkeypatch.setenv("UNRECALL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.chdir(made)
    shutil.copytree(saved, "model")
    for split, texts in SPLITS.items():
        write(f"{split}.jsonl", *texts)
    return made


def test_a_run_needs_no_file_of_code(capsys: pytest.CaptureFixture[str]) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    assert call(*RUN) == 0
    out = capsys.readouterr().out
    assert re.match(r"lora\(npo:lr=0.01,epochs=2\):r=2, seed 0: Can't be told: these records left no trace", out)
    record = load_record(Path("out/seed-0/record.json"))
    assert (record.scenario, record.parameters["r"]) == ("texts", 2)
    opened = AutoModelForCausalLM.from_pretrained("out/seed-0/unlearned")
    assert weights.digest_of(opened) == record.provenance.weights["unlearned"]
    assert len(AutoTokenizer.from_pretrained("out/seed-0/unlearned")) == len(word_tokenizer())
    before = AutoModelForCausalLM.from_pretrained("model").state_dict()
    after = opened.state_dict()
    moved = {key for key in after if not torch.equal(after[key], before[key])}
    assert moved
    assert all("_proj" in key for key in moved), "merged into the linear layers, nothing else changed"
    assert not list(Path("out").rglob("*.part"))


def test_without_holdout_and_test_the_rows_say_why() -> None:
    assert call("run", *OWN, *HOW, "--suite", "loss") == 0
    record = load_record(Path("out/seed-0/record.json"))
    notes = {estimate.note for m in record.measurements for estimate in (m.unlearned,) if estimate.value is None}
    assert any("--holdout" in note for note in notes)
    assert any("--test" in note for note in notes)


def test_unlearn_leaves_a_folder_to_open_and_so_does_bfloat16() -> None:
    from transformers import AutoModelForCausalLM

    how = ["--method", "finetune:lr=1e-2,epochs=1", "--device", "cpu", "--out", "out", "--anyway"]
    assert (
        call("unlearn", "-s", "texts:model=model,forget=forget.jsonl,retain=retain.jsonl,precision=bfloat16", *how) == 0
    )
    opened = AutoModelForCausalLM.from_pretrained("out/unlearned")
    assert opened.dtype == torch.bfloat16
    Path("out/unlearned/config.json").unlink()
    assert (
        call("unlearn", "-s", "texts:model=model,forget=forget.jsonl,retain=retain.jsonl,precision=bfloat16", *how) == 0
    )
    assert Path("out/unlearned/config.json").exists(), "an older folder gives way"


def test_a_tokenizer_that_names_no_padding_works() -> None:
    tokenizer = word_tokenizer()
    tokenizer.pad_token = None
    keep(Path("bare"), tokenizer=tokenizer)
    assert language.load("bare").tokenizer.pad_token_id is None
    assert call("unlearn", *with_model("bare"), *HOW) == 0


def with_model(name: str, *more: str) -> list[str]:
    return ["--model", name, *OWN[2:], *more]


def test_with_a_base_models_are_retrained_from_it() -> None:
    keep(Path("base"), small_llama(len(word_tokenizer()), seed=5))
    case = Texts(
        model="model", forget="forget.jsonl", retain="retain.jsonl", base="base", references=2, epochs=1, lr=1e-2
    )
    scenario = case.make()
    assert scenario.can_retrain()
    assert scenario.retraining_recipe is not None
    assert (scenario.references, scenario.retraining_recipe.lr, scenario.retraining_recipe.epochs) == (2, 1e-2, 1)
    from unrecall.training.session import Session

    retrained = scenario.train_retrained(0, Session(device="cpu")).model.state_dict()
    for key, value in small_llama(len(word_tokenizer()), seed=5).state_dict().items():
        assert 0 < float((retrained[key] - value).abs().max()) < 0.05, "one step of 0.01 from the base"


def test_what_the_scenario_holds() -> None:
    scenario = Texts(model="model", forget="forget.jsonl", retain="retain.jsonl", holdout="holdout.jsonl").make()
    request = scenario.request
    first = facts()[0]
    assert request.forget[0] == {name: first[name] for name in ("prompt", "answer", "paraphrase")}
    assert len(request.forget) == 4
    assert len(request.retain) == 8
    assert len(request.holdout) == 4
    assert isinstance(request.test, Absent)
    assert not scenario.can_retrain()
    assert scenario.summary == (
        "model; forget 4 texts of forget.jsonl, keep 8 of retain.jsonl; "
        r"prompts in 'Question: {prompt}\nAnswer: ', instructions in Alpaca's template"
    )
    assert Texts.template == CausalLM.template


@pytest.mark.parametrize(
    ("template", "opening"),
    [
        ("Question: {prompt}\nAnswer: ", "question : what is the answer :"),
        ("what {prompt}\\nis", "what what is the is"),
        (None, "what is the"),
    ],
)
def test_templates(template: str | None, opening: str) -> None:
    case = Texts(model="model", forget="forget.jsonl", retain="retain.jsonl", template=template)
    task = case.make().task
    assert isinstance(task, CausalLM)
    ids, start = task.encode({"prompt": "what is the", "answer": "ann"})
    spoken = word_tokenizer()(opening, add_special_tokens=False)["input_ids"]
    unknown = word_tokenizer().unk_token_id
    assert ids[1:start] == [unknown if word in ("question", "answer") and template and "Q" in template else token
                            for word, token in zip(opening.split(), spoken, strict=True)]  # fmt: skip


CHATTY = "{% for m in messages %}{{ 'question' if m.role == 'user' else 'answer' }} {{ m.content }} {% endfor %}"


def chatty() -> None:
    """A model beside the other whose tokenizer has a chat template."""
    tokenizer = word_tokenizer()
    tokenizer.chat_template = CHATTY
    keep(Path("chatty"), tokenizer=tokenizer)


@pytest.mark.parametrize(
    ("template", "opening"),
    [("auto", "question what is answer"), ("plain", "<s> what is"), ("{prompt} has", "<s> what is has")],
)
def test_a_tokenizer_s_template_is_used_unless_told_otherwise(template: str, opening: str) -> None:
    chatty()
    made = Texts(model="chatty", forget="forget.jsonl", retain="retain.jsonl", template=template).make()
    assert isinstance(made.task, CausalLM)
    ids, start = made.task.encode({"prompt": "what is", "answer": "ann"})
    assert word_tokenizer().decode(ids[:start]) == opening
    assert made.summary.endswith(made.task.templated)


def test_a_conversation_is_forgotten_by_one_command() -> None:
    from transformers import AutoModelForCausalLM

    chatty()
    turns = [[{"role": role, "content": text} for role, text in talk] for talk in TALKS]
    write("chat.jsonl", *({"messages": talk} for talk in turns[:2]))
    Path("rest.parquet").write_bytes(as_parquet([{"messages": talk} for talk in turns[2:]]))
    own = ["--model", "chatty", "--forget", "chat.jsonl", "--retain", "rest.parquet", "--anyway"]
    how = ["--method", "npo:lr=1e-2,epochs=2", "--device", "cpu", "--out", "out", "--suite", "loss", "--show-examples"]
    assert call("run", *own, *how) == 0
    record = load_record(Path("out/seed-0/record.json"))
    assert "forget 2 texts of chat.jsonl, keep 3 of rest.parquet; prompts in the tokenizer's chat template" in (
        record.scenario_summary
    )
    assert len(record.readings[0].pieces) == 6, "two answers of three words; the model wasn't taught to end them"
    assert AutoModelForCausalLM.from_pretrained("out/seed-0/unlearned").config.max_position_embeddings == 64


def test_a_model_that_reads_words_otherwise_is_not_compared(capsys: pytest.CaptureFixture[str]) -> None:
    """Texts go to every model by the original's tokenizer; a folder without one of its own is taken for the same."""
    shutil.copytree("model", "other")
    path = Path("other/tokenizer.json")
    words = json.loads(path.read_text())
    vocabulary = words["model"]["vocab"]
    vocabulary["ann"], vocabulary["bob"] = vocabulary["bob"], vocabulary["ann"]
    path.write_text(json.dumps(words))
    audit = ["audit", "--original", "model", "--unlearned", "other", *ALL[2:], "--suite", "loss", "--alone"]
    audit = [*(word for word in audit if word != "--anyway"), "--device", "cpu", "--out", "audited"]
    assert call(*audit) == 2
    assert "expected the tokenizer of the original, got one by which 'ann' is another word" in one_line(capsys)
    vocabulary["ann"], vocabulary["bob"] = vocabulary["bob"], vocabulary["ann"]
    for change in ({"normalizer": {"type": "Replace", "pattern": {"String": "a"}, "content": "b"}}, {"model": None}):
        other = json.loads(json.dumps(words)) | change
        if other["model"] is None:
            other["model"] = words["model"] | {"vocab": {word.replace("a", "z"): i for word, i in vocabulary.items()}}
        path.write_text(json.dumps(other))
        assert call(*audit) == 2
        assert "expected the tokenizer of the original, got one by which" in one_line(capsys)
    path.write_text("{}")
    assert call(*audit) == 2
    assert "expected a tokenizer that Transformers reads" in one_line(capsys)
    path.unlink()
    assert call(*audit) == 0


ROLES = ("system", "user", "assistant", "user", "assistant")
TALKS = [
    list(zip(ROLES, ("of has", one["prompt"], one["answer"], two["prompt"], two["answer"]), strict=True))
    for one, two in zip(facts()[:10:2], facts()[1:10:2], strict=True)
]


def test_a_conversation_that_can_not_be_used_names_its_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    chatty()
    talk = [{"role": role, "content": text} for role, text in TALKS[0]]
    write("chat.jsonl", {"messages": talk}, {"messages": [*talk[1:2], {"role": "assistant", "content": "ann " * 80}]})
    own = ["run", "--model", "chatty", "--forget", "chat.jsonl", "--retain", "retain.jsonl", *HOW, "--anyway"]
    refused(own, r"chat\.jsonl:2: expected at most 64 tokens .* got 89\. Shorten it", folder, capsys)
    write("chat.jsonl", {"messages": talk}, {"messages": talk[:2]})
    refused(own, r"chat\.jsonl:2: expected a turn of the assistant that counts, got system, user", folder, capsys)
    write("chat.jsonl", {"messages": talk})
    refused([*own[:2], "model", *own[3:]], r"chat\.jsonl:1: template: expected a chat template for", folder, capsys)


def test_a_text_that_would_not_fit_is_cut_into_pieces_that_all_count() -> None:
    """With whose each piece is: a text in three pieces is one record, and not three."""
    text = " ".join(f"{name} has {job}" for name, job in itertools.product(NAMES[:5], JOBS))
    write("forget.jsonl", {"text": "bob has"}, {"text": text})
    case = Texts(model="model", forget="forget.jsonl", retain="retain.jsonl", holdout="holdout.jsonl")
    made = case.make()
    forget = [made.request.forget[i] for i in range(4)]
    assert "".join(item["answer"] for item in forget[1:]) == text
    assert made.request.groups == {
        "forget": ["forget 0", "forget 1", "forget 1", "forget 1"],
        "holdout": [f"holdout {i}" for i in range(4)],
    }
    assert "; 1 long text in 3 pieces" in made.summary
    assert case._place("forget", 3, [[0], [0, 0, 0]]) == "forget.jsonl:2"
    write("forget.jsonl", {"text": "bob has", "who": "bob"}, {"text": text, "who": "ann"})
    write("holdout.jsonl", *({**text, "who": f"other {i}"} for i, text in enumerate(SPLITS["holdout"])))
    named = replace(case, group="who").make().request.groups
    assert named is not None and named["forget"] == ["bob", "ann", "ann", "ann"]


def test_longest_is_the_length_of_a_piece_and_cuts_what_has_a_prompt() -> None:
    text = " ".join(f"{name} has {job}" for name, job in itertools.product(NAMES[:4], JOBS[:8]))
    write("forget.jsonl", {"text": text}, {"question": "who", "answer": "bob " * 100})
    made = Texts(model="model", forget="forget.jsonl", retain="retain.jsonl", longest=32).make()
    lengths = made.task.collate([made.request.forget[i] for i in range(len(made.request.forget))])["lengths"]
    assert lengths.tolist() == [31, 31, 31, 7, 32]


def test_a_checkpoint_that_is_an_adapter_is_all_that_decides_what_it_does(tmp_path: Path) -> None:
    """Its weights at twice the scale are another model's; weights in a pickle are not opened, and it is said."""
    made = adapter(tmp_path / "adapter", "model")
    before = checkpoint_key(made)
    config = json.loads((made / "adapter_config.json").read_text())
    (made / "adapter_config.json").write_text(json.dumps(config | {"lora_alpha": 2 * config["lora_alpha"]}))
    assert checkpoint_key(made) != before
    (made / "adapter_model.safetensors").rename(made / "adapter_model.bin")
    with pytest.raises(BadInput, match=r"expected a folder with adapter_model\.safetensors, got a pickle"):
        checkpoint_key(made)


def test_an_adapter_is_merged() -> None:
    adapter(Path("adapter"), "model")
    plain, merged = (
        language.load("model").model.state_dict(),
        language.load("model", adapter="adapter").model.state_dict(),
    )
    assert plain.keys() == merged.keys()
    moved = {key for key in plain if not torch.equal(plain[key], merged[key])}
    assert moved == {f"model.layers.{i}.self_attn.q_proj.weight" for i in (0, 1)}
    assert call("unlearn", *OWN, "--adapter", "adapter", *HOW) == 0, "it can be given another change"


# What can't be used.


def other_base(bad: Path) -> None:
    keep(Path("other"))
    adapter(bad, "other")


def fewer_layers(bad: Path) -> None:
    keep(bad, llama(num_hidden_layers=1))
    said(bad, num_hidden_layers=2)


def cut_off(bad: Path) -> None:
    path = keep(bad) / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-9])


def pickled(bad: Path) -> None:
    torch.save({}, keep(bad) / "pytorch_model.bin")
    (bad / "model.safetensors").unlink()


def whole_numbers(dtype: torch.dtype) -> Callable[[Path], None]:
    """Makes what stores one weight as numbers of another kind."""

    def spoil(bad: Path) -> None:
        file = next(bad.glob("*model.safetensors"), None) or keep(bad) / "model.safetensors"
        stored = weights.read(file)
        name = next(name for name in stored if "q_proj" in name)
        stored[name] = stored[name].mul(100).to(dtype)
        save_file(stored, file, {"format": "pt"})

    return spoil


def untold(bad: Path) -> None:
    for path in keep(bad).glob("tokenizer*"):
        path.unlink()


def poisoned(bad: Path) -> None:
    model = llama()
    model.lm_head.weight.data[3, 3] = torch.nan
    keep(bad, model)


CODE = {"model_type": "mine", "auto_map": {"AutoConfig": "x.Y", "AutoModelForCausalLM": "x.Z"}}
SPOILT: dict[str, Callable[[Path], Any]] = {
    "a folder that is none": Path.mkdir,
    "an adapter alone": lambda bad: adapter(bad, "model"),
    "an adapter of another base": other_base,
    "an adapter of a wider base": lambda bad: adapter(bad, "gone", hidden_size=64),
    "an adapter of a deeper base": lambda bad: adapter(bad, "gone", num_hidden_layers=3),
    "an adapter of a shallower base": lambda bad: adapter(bad, "gone", num_hidden_layers=1),
    "an adapter without weights": lambda bad: (adapter(bad, "model") / "adapter_model.safetensors").unlink(),
    "a tokenizer with more words": lambda bad: keep(bad, small_llama(len(word_tokenizer()) - 1)),
    "fewer layers than it says": fewer_layers,
    "narrower than it says": lambda bad: said(keep(bad), intermediate_size=128),
    "cut off": cut_off,
    "pickle": pickled,
    "code of its own": lambda bad: said(keep(bad), **CODE),
    "int8": whole_numbers(torch.int8),
    "uint8": whole_numbers(torch.uint8),
    "truth values": whole_numbers(torch.bool),
    "int64": whole_numbers(torch.int64),
    "complex": whole_numbers(torch.complex64),
    "single bytes": whole_numbers(torch.float8_e4m3fn),
    "an adapter in int8": lambda bad: whole_numbers(torch.int8)(adapter(bad, "model")),
    "no tokenizer": untold,
    "NaN": poisoned,
}
"""Models and adapters that somebody may have on a disk."""


BAD_MODELS: list[tuple[str, list[str], str]] = [
    ("a folder that is none", with_model("bad"), "bad: expected a Transformers causal language model .* got: Unrec"),
    ("an adapter alone", with_model("bad"), "bad: expected a whole model, got an adapter. Name its base"),
    ("an adapter of another base", [*OWN, "--adapter", "bad"], "bad: expected an adapter of model, got one .* other"),
    ("an adapter of a wider base", [*OWN, "--adapter", "bad"], "bad: expected an adapter of model, got .* gone"),
    ("an adapter of a deeper base", [*OWN, "--adapter", "bad"], "bad: expected an adapter of model, got .* gone"),
    ("an adapter of a shallower base", [*OWN, "--adapter", "bad"], "bad: expected an adapter of model, got .* gone"),
    ("an adapter without weights", [*OWN, "--adapter", "bad"], "bad: .* with adapter_model.safetensors, got none"),
    ("a tokenizer with more words", with_model("bad"), r"tokenizer: expected at most \d+ tokens .* Load the tokenizer"),
    ("fewer layers than it says", with_model("bad"), r"bad: .* none that fits model\.layers\.1\..* \(9 in all\)"),
    ("narrower than it says", with_model("bad"), r"bad: .* none that fits model\.layers\.0\.mlp\..* \(6 in all\)"),
    ("cut off", with_model("bad"), "bad: expected .* weights in safetensors, got: Error while deserializing header"),
    ("pickle", with_model("bad"), r"bad: expected safetensors, got a pickle .*save_pretrained"),
    ("code of its own", with_model("bad"), "bad: expected a Transformers causal .* got: .*contains custom code"),
    ("int8", with_model("bad"), r"bad: expected weights in floats, got .*q_proj\.weight in I8\. Give the model as"),
    ("uint8", with_model("bad"), r"bad: expected weights in floats, got .*q_proj\.weight in U8"),
    ("truth values", with_model("bad"), r"bad: expected weights in floats, got .*q_proj\.weight in BOOL"),
    ("int64", with_model("bad"), r"bad: expected weights in floats, got .*q_proj\.weight in I64"),
    ("complex", with_model("bad"), r"bad: expected weights in floats, got .*q_proj\.weight in C64"),
    ("single bytes", with_model("bad"), r"bad: expected weights in floats, got .*q_proj\.weight in F8_E4M3"),
    ("an adapter in int8", [*OWN, "--adapter", "bad"], r"bad: expected weights in floats, got .*lora_.* in I8"),
    ("no tokenizer", with_model("bad"), "bad: expected the model's tokenizer beside it, got: "),
    ("NaN", with_model("bad"), "model: expected finite weights, got NaN"),
    ("missing folder", with_model("./nowhere"), r"\./nowhere: expected a folder with a Transformers model"),
    ("unreachable hub", with_model("who/what"), "who/what: expected a folder or a hub id .* path of a local folder"),
    ("impossible hub id", with_model("who what"), "who what: expected a folder or a hub id .* path of a local folder"),
    ("missing base", [*OWN, "--base", "./nowhere"], r"\./nowhere: expected a folder with a Transformers model"),
    ("missing adapter", [*OWN, "--adapter", "nowhere"], r"nowhere: .* with adapter_config\.json, got none"),
]  # fmt: skip


def refused(arguments: list[str], message: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = tree(folder)
    assert call(*arguments) == 2
    line = one_line(capsys)
    assert line.startswith("error: ")
    assert re.search(message, line), line
    assert tree(folder) == before


@pytest.mark.parametrize(("name", "arguments", "message"), BAD_MODELS, ids=[row[0] for row in BAD_MODELS])
def test_models_that_can_not_be_used(
    name: str, arguments: list[str], message: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    SPOILT.get(name, lambda _: None)(Path("bad"))
    capsys.readouterr()
    refused(["run", *arguments, *HOW, "--suite", "loss"], message, folder, capsys)


SAME = SPLITS["forget"][1]
BAD_FILES: list[tuple[str, bytes, str]] = [
    ("empty", b"", r"bad\.jsonl: expected at least one record, got none"),
    ("blank", b"\n \n", r"bad\.jsonl: expected at least one record, got none"),
    ("malformed", b'{"text": "ann"}\n{"text": \n', r"bad\.jsonl:2: expected one JSON object a line"),
    ("not UTF-8", b'{"text": "ann"}\n\n{"text": "\xe9"}\n', r"bad\.jsonl:3: expected UTF-8, got byte 0xe9"),
    ("no object", b'{"text": "ann"}\n3\n', r"bad\.jsonl:2: expected a JSON object, got int"),
    ("missing keys", b'{"text": "ann"}\n{"question": "who"}\n', r"bad\.jsonl:2: expected the keys .* got question"),
    ("a number for an answer", b'{"prompt": "who", "answer": 3}', r"bad\.jsonl:1: answer: expected text, got int"),
    ("no answer", b'{"text": "ann"}\n\n{"prompt": "who", "answer": " "}\n', r"bad\.jsonl:3: .* at least one token"),
    (
        "too long",
        b'{"text": "ann"}\n{"prompt": "who", "answer": "' + b"ann " * 99 + b'"}',
        r"bad\.jsonl:2: expected at most 64 tokens .*Shorten it, or set longest",
    ),
    ("in forget", json.dumps(SAME).encode(), r"retain .* share nothing.*forget\.jsonl:2 equals bad\.jsonl:1"),
    (
        "in forget, told otherwise",
        b'{"text": "ann"}\n{"text": "ann"}\n' + json.dumps({k: SAME[k] for k in ("question", "answer")}).encode(),
        r"bad\.jsonl:3: expected no text of forget, got that of forget\.jsonl:2\. Remove it from retain",
    ),
    (
        "in forget, with other spaces",
        json.dumps({**SAME, "answer": f" {SAME['answer']}  "}).encode(),
        r"retain to share nothing.*forget\.jsonl:2 equals bad\.jsonl:1",
    ),
    ("in forget, as a list", json.dumps([FACTS[30], SAME]).encode(), r"forget\.jsonl:2 equals bad\.jsonl\[1\]"),
]  # fmt: skip


@pytest.mark.parametrize(("content", "message"), [row[1:] for row in BAD_FILES], ids=[row[0] for row in BAD_FILES])
def test_files_that_can_not_be_used(
    content: bytes, message: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("bad.jsonl").write_bytes(content)
    own = ["--model", "model", "--forget", "forget.jsonl", "--retain", "bad.jsonl", "--anyway"]
    refused(["run", *own, *HOW, "--suite", "loss"], message, folder, capsys)


SPEC = "texts:model=model,forget=forget.jsonl,retain=retain.jsonl"
BAD_LINES: list[tuple[str, list[str], str]] = [
    ("neither", ["run", *HOW], "Missing option '--scenario', or '--model' with '--forget' and '--retain'"),
    ("both", [*RUN, "--scenario", "digits"], "--scenario: expected it alone, or --model .* got both it and --model"),
    ("a file for a scenario", ["run", "-s", "digits", "--holdout", "h", *HOW], "got both it and --holdout"),
    ("no forget", ["run", "--model", "model", *HOW], "--forget: expected it beside --model, got none"),
    ("no retain", ["unlearn", *OWN[:4], *HOW], "--retain: expected it beside --model, got none"),
    ("no model", ["unlearn", *OWN[2:], *HOW], "--model: expected it beside --forget, got none"),
    ("a comma", ["run", *with_model("mo,del"), *HOW], "--model: expected a path without a comma, got 'mo,del'"),
    ("missing file", ["run", *OWN[:4], "--retain", "gone.jsonl", *HOW], r"gone\.jsonl: expected a file of records"),
    ("a folder", ["run", *OWN[:4], "--retain", "model", *HOW], "model: expected a file, .* without dataset_info"),
    ("rank 0", ["run", *OWN, *HOW, "--lora", "r=0"], "LoRA: expected r to be greater than or equal to 1, got '0'"),
    ("unknown in LoRA", ["run", *OWN, *HOW, "--lora", "rank=4"], "LoRA: unknown parameter 'rank'"),
    ("only a rank", ["run", *OWN, *HOW, "--lora", "4"], "expected key=value, got '4'"),
    ("a base that writes", ["run", *OWN, *HOW, "--method", "eu_k"], "LoRA: expected a base that only trains, got EUk"),
    ("a base that has no steps", ["run", *OWN, *HOW, "--method", "ssd"], "LoRA: expected base to be GradientMethod"),
    ("no place", ["run", "-s", f"{SPEC},template=who", *HOW], "a text to hold {prompt}"),
    ("other places", ["run", "-s", SPEC + ",template={prompt}{x}", *HOW], "a text to hold {prompt}"),
    ("no chat", ["run", "-s", f"{SPEC},template=chat", *HOW], "expected a tokenizer with a chat template"),
    ("no files", ["run", "-s", "texts:model=model", *HOW], "texts: expected forget=PATH, got none"),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "message"), [row[1:] for row in BAD_LINES], ids=[row[0] for row in BAD_LINES])
def test_lines_that_can_not_be_used(
    arguments: list[str], message: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    refused(arguments, message, folder, capsys)


def test_a_hub_that_never_answers_is_waited_for_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        monkeypatch.setattr(hub, "PATIENCE", 0.2)
        start = time.monotonic()
        with pytest.raises(BadInput, match=r"from the hub: timed out\. Give the path of a local folder"):
            language.load("who/what")
        assert time.monotonic() - start < 10


def test_offline_the_hub_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(BadInput, match=r"from the hub: HF_HUB_OFFLINE is set\. Give the path of a local folder"):
        language.load("who/what")


def clients(*others: str) -> dict[str, str]:
    """Two texts of one client to forget, and one of each of the others for the holdout."""
    for split, start, names in (("forget", 0, ("ann", "ann")), ("holdout", 40, others)):
        own = enumerate(names, start)
        write(f"{split}-of.jsonl", *({**facts()[i], "client": name, "id": i} for i, name in own))
    return {"model": "model", "forget": "forget-of.jsonl", "retain": "retain.jsonl", "holdout": "holdout-of.jsonl"}


@pytest.mark.parametrize("others", [["bob", "bob", "cid", "cid"], ["bob", "cid", "dan", "eve"]])
def test_a_key_that_several_texts_share_is_proposed_as_whose_they_are(
    others: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    given: dict[str, Any] = clients(*others)
    made = Texts(**given).make()
    assert made.note == (
        "the key 'client' was ignored, by which the 2 texts of forget are of 1: if it says whose each is, give --group "
        "client, and persons are counted in place of texts"
    )
    assert "client in 2 records of forget-of.jsonl" in made.summary
    assert Texts(**given, group="client").make().note == ""
    own = [word for name, value in given.items() for word in (f"--{name}", value)]
    assert call("run", *own, "--anyway", *HOW, "--no-tune", "--alone", "--suite", "loss") == 0
    assert f"note: {made.note}\n" in capsys.readouterr().err
    assert call("doctor", *own, *HOW[:6], "--no-tune", "--alone", "--suite", "loss") == 0
    assert f"  data       {made.note}\n" in capsys.readouterr().out


def test_a_key_that_names_nobody_is_told_with_those_that_are_there() -> None:
    given: dict[str, Any] = clients("bob", "cid", "dan", "eve")
    with pytest.raises(
        BadInput, match=r"forget-of\.jsonl:1: expected 'clint' to .*, got no such key\. Did you mean 'cli"
    ):
        Texts(**given, group="clint").make()
    write("forget-of.jsonl", {**facts()[0], "client": None})
    with pytest.raises(BadInput, match=r"forget-of\.jsonl:1: expected 'client' to .*, got none\. Name somebody\."):
        Texts(**given, group="client").make()
