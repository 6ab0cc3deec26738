"""What comes out: the number format that went in, one copy of the weights, an adapter and a model card."""

import json
import shutil
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from torch import nn

from tests.end_to_end.test_cli import call, one_line
from tests.end_to_end.test_own_texts import SPLITS, adapter, keep, llama, write
from tests.worlds import small_mixtures, word_tokenizer
from unrecall.disk import weights
from unrecall.errors import BadInput
from unrecall.experiment.output import Unlearned, drop_parts, save_unlearned
from unrecall.experiment.starting_point import StartingPoint
from unrecall.harness.checking import check
from unrecall.methods.lora import LoRA
from unrecall.methods.npo import NPO
from unrecall.record.schema import load as load_record
from unrecall.scenarios import language
from unrecall.scenarios.texts import Texts
from unrecall.training.session import Session

OWN = ["--model", "model", "--forget", "forget.jsonl", "--retain", "retain.jsonl", "--anyway"]
LORA = ["--method", "npo:lr=1e-2,epochs=2", "--lora", "r=2", "--device", "cpu", "--out", "out"]
RUN = ["run", *OWN, *LORA, "--suite", "loss"]
UNLEARN = ["unlearn", *OWN, *LORA]


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A small Llama in bfloat16 with a chat template and settings of its own, files of texts, and a folder of a run.

    The run was interrupted once its model was unlearned, and went on without training anything again.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder := tmp_path_factory.mktemp("case"))
        patch.setenv("UNRECALL_CACHE", "cache")
        make_case()
        with pytest.MonkeyPatch.context() as inner:
            inner.setattr("unrecall.experiment.run.audit", interrupted)
            assert call(*RUN) == 130
        assert list(Path("out/seed-0/parts").glob("unlearned-*.safetensors"))
        with pytest.MonkeyPatch.context() as inner:
            inner.setattr("unrecall.methods.lora.train", lambda *_: pytest.fail("trained again"))
            assert call(*RUN) == 0
        Path("out").rename("ran")
        yield folder


def interrupted(**_: Any) -> None:
    raise KeyboardInterrupt


@pytest.fixture(autouse=True)
def work(case: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it."""
    monkeypatch.setenv("UNRECALL_CACHE", str(tmp_path / "cache"))
    shutil.copytree(case, tmp_path / "work")
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work"


def make_case() -> None:
    tokenizer = word_tokenizer()
    tokenizer.chat_template = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
    keep(Path("model"), llama().to(torch.bfloat16), tokenizer)
    settings = json.loads(Path("model/generation_config.json").read_text()) | {"temperature": 0.7, "do_sample": True}
    Path("model/generation_config.json").write_text(json.dumps(settings))
    for split, texts in SPLITS.items():
        write(f"{split}.jsonl", *texts)


def opened(place: str, **how: Any) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(place, **how).eval()


def with_adapter(base: str, place: str, **how: Any) -> Any:
    from peft import PeftModel

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # PEFT still calls what Transformers has renamed
        return PeftModel.from_pretrained(opened(base, **how), place).eval()


def logits(model: nn.Module) -> torch.Tensor:
    with torch.no_grad():
        said: torch.Tensor = model(input_ids=torch.arange(4, 20).view(2, 8)).logits.float()
    return said


def kinds(file: str) -> set[str]:
    return set(weights.formats(Path(file)).values())


def same_answers(base: str, out: str) -> None:
    """The adapter beside the base gives what the merged folder gives; weights of 8 bits round by 1/256 of a logit's."""
    merged, before = logits(opened(f"{out}/unlearned")), logits(opened(base))
    apart = float((logits(with_adapter(base, f"{out}/adapter")) - merged).abs().max())
    assert apart < 0.06 < float((merged - before).abs().max())


def test_a_run_leaves_a_folder_an_adapter_a_card_and_one_copy_of_the_weights() -> None:
    from transformers import AutoTokenizer

    out, record = Path("ran/seed-0"), load_record(Path("ran/seed-0/record.json"))
    held = [path.relative_to(out).as_posix() for path in out.rglob("*.safetensors") if path.parent.name != "scores"]
    assert sorted(held) == ["adapter/adapter_model.safetensors", "unlearned/model.safetensors"]
    assert kinds("ran/seed-0/unlearned/model.safetensors") == {"BF16"} == kinds("model/model.safetensors")
    model = opened("ran/seed-0/unlearned")
    assert (model.dtype, model.config.dtype) == (torch.bfloat16, torch.bfloat16)
    assert weights.digest_of(model) == record.provenance.weights["unlearned"]
    same_answers("model", "ran/seed-0")
    settings = json.loads((out / "adapter/adapter_config.json").read_text())
    assert (settings["base_model_name_or_path"], settings["r"], settings["task_type"]) == ("model", 2, "CAUSAL_LM")
    assert {"q_proj", "down_proj"} < set(settings["target_modules"])
    assert AutoTokenizer.from_pretrained("ran/seed-0/unlearned").chat_template.startswith("{% for message in")
    assert (model.generation_config.temperature, model.generation_config.do_sample) == (0.7, True)
    assert {"transformers", "tokenizers", "peft"} < record.provenance.versions.keys()


def test_the_card_says_what_was_asked_done_and_found_and_no_text_of_it() -> None:
    card = Path("ran/seed-0/unlearned/README.md").read_text(encoding="utf-8")
    record = load_record(Path("ran/seed-0/record.json"))
    head = yaml.safe_load(card.split("---")[1])
    assert (head["base_model"], head["library_name"], head["tags"]) == (
        "model",
        "transformers",
        ["unlearning", "unrecall"],
    )
    for line in (
        "- forget: 4 records, to be forgotten",
        f"`{record.provenance.fingerprint}`",
        "`lora(npo:lr=0.01,epochs=2):r=2`",
        "- seed: 0",
        "- weights: bfloat16",
        f"transformers {record.provenance.versions['transformers']}",
        record.verdict.line,
        "Attacks that were not run may find more.",
        f"`{record.provenance.weights['unlearned']}`",
        "`unrecall check record.json`",
    ):
        assert line in card, line
    for record_of in SPLITS["forget"]:
        assert not any(text in card for text in record_of.values())
    assert str(Path.cwd()) not in card


def test_unlearn_leaves_a_card_without_a_verdict(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(*UNLEARN) == 0
    card = Path("out/unlearned/README.md").read_text(encoding="utf-8")
    assert "Nothing was measured. `unrecall audit` measures and attacks it." in card
    place, _, _, digest = capsys.readouterr().out.split()
    assert place == "out/unlearned"
    assert f"`{digest}`" in card
    assert not list(Path("out").glob("*.safetensors"))
    same_answers("model", "out")


@pytest.mark.parametrize(("dtype", "kind"), [(torch.float16, "F16"), (torch.float32, "F32")])
def test_other_formats_come_out_as_they_went_in(dtype: torch.dtype, kind: str) -> None:
    keep(Path("model"), llama().to(dtype))
    loaded = language.load("model")
    assert (loaded.precision, next(loaded.model.parameters()).dtype) == (str(dtype)[6:], torch.float32)
    assert call(*UNLEARN) == 0
    assert kinds("out/unlearned/model.safetensors") == {kind}
    same_answers("model", "out")


def test_a_full_weight_step_too_small_for_bfloat16_is_lost_once_and_not_each_time() -> None:
    """20 steps of 1e-4 in float32 move a weight of 0.1 by 2e-3, four times what bfloat16 tells apart there."""
    how = ["--method", "finetune:lr=1e-4,epochs=20,optimizer=adamw", "--device", "cpu", "--out", "out"]
    assert call("unlearn", *OWN, *how) == 0
    before, after = (
        opened(place).state_dict()["model.layers.0.mlp.up_proj.weight"] for place in ("model", "out/unlearned")
    )
    assert float((before != after).float().mean()) > 0.5


def test_a_weight_too_large_for_the_format_is_said() -> None:
    model = llama()
    with torch.no_grad():
        model.model.norm.weight[0] = 70000.0
    with pytest.raises(BadInput, match=r"model.norm.weight: expected weights that float16 can hold"):
        weights.rounded(model, "float16")
    assert weights.digest_of(weights.rounded(llama(), None)) == weights.digest_of(llama())


def architectures() -> Iterator[Any]:
    """Llama, GPT-2, Qwen2, Gemma and Mixtral of two layers of width 32, for 320 words."""
    import transformers as library

    ends = {"vocab_size": 320, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "initializer_range": 0.1}
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    sizes |= {"num_key_value_heads": 2, "max_position_embeddings": 64, **ends}
    yield library.LlamaConfig(**sizes)
    yield library.GPT2Config(n_embd=32, n_layer=2, n_head=2, n_positions=64, **ends)
    yield library.Qwen2Config(tie_word_embeddings=True, **sizes)
    yield library.GemmaConfig(head_dim=16, **sizes)
    yield library.MixtralConfig(num_local_experts=4, **sizes)


@pytest.mark.parametrize("which", range(5), ids=["llama", "gpt2", "qwen2", "gemma", "mixtral"])
def test_each_architecture_is_loaded_unlearned_and_left_with_its_adapter(which: int) -> None:
    from transformers import AutoModelForCausalLM

    with torch.random.fork_rng():
        torch.manual_seed(0)
        tokenizer = language.trained_tokenizer([f"{t['question']} {t['answer']}" for t in SPLITS["retain"]], 300)
        keep(Path("model"), AutoModelForCausalLM.from_config([*architectures()][which]).float(), tokenizer)
    assert call(*UNLEARN) == 0
    same_answers("model", "out")
    loaded = Texts(model="out/unlearned", forget="forget.jsonl", retain="retain.jsonl").make().original
    assert loaded is not None
    assert weights.digest_of(loaded) == weights.digest_of_file(Path("out/unlearned"))
    again = weights.load(language.load("model").model, Path("out/unlearned"))
    assert weights.digest_of(again) == weights.digest_of(loaded)


def test_the_experts_of_each_mixture_are_changed_and_their_router_is_not() -> None:
    for i, model in enumerate(small_mixtures(len(word_tokenizer()) + 8)):
        keep(Path("model"), model)
        assert call(*UNLEARN, "--out", f"out{i}") == 0
        before, after = (language.load(place).model.state_dict() for place in ("model", f"out{i}/unlearned"))
        moved = {name.partition("layers.0.")[2] for name in before if not torch.equal(before[name], after[name])}
        assert {"mlp.experts.gate_up_proj", "mlp.experts.down_proj"} < moved
        assert "mlp.gate.weight" not in moved


def changed(folder: Path) -> None:
    file = folder / "model.safetensors"
    tensors = load_file(file)
    name = sorted(tensors)[-1]
    save_file(tensors | {name: tensors[name] * 2}, file, {"format": "pt"})


def cut(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-9])


def without(folder: Path) -> None:
    file = folder / "model.safetensors"
    tensors = load_file(file)
    del tensors[sorted(tensors)[-1]]
    save_file(tensors, file, {"format": "pt"})


@pytest.mark.parametrize("change", [changed, cut, without])
def test_check_holds_the_folder_against_the_record(change: Callable[[Path], None]) -> None:
    assert check(Path("ran/seed-0/record.json")).problems == []
    change(Path("ran/seed-0/unlearned"))
    (problem,) = check(Path("ran/seed-0/record.json")).problems
    assert "unlearned: " in problem


@pytest.mark.parametrize("key", ["folder", "adapter_merged_first"])
def test_no_adapter_where_its_base_lies_nowhere(key: str) -> None:
    """Its base is the model with the first adapter merged, which no folder holds."""
    first = ["--adapter", str(adapter(Path("first"), "model"))] if key == "adapter_merged_first" else []
    assert call(*UNLEARN, *first) == 0
    assert Path("out/adapter").is_dir() == (not first)
    assert kinds("out/unlearned/model.safetensors") == {"BF16"}


def test_checkpoints_of_audit_that_are_no_weights_are_said(capsys: pytest.CaptureFixture[str]) -> None:
    keep(Path("quantised"))
    settings = json.loads(Path("quantised/config.json").read_text())
    settings["quantization_config"] = {"quant_method": "gptq", "bits": 4}
    Path("quantised/config.json").write_text(json.dumps(settings))
    Path("gguf").mkdir()
    shutil.copy("model/config.json", "gguf")
    Path("gguf/model-q4_k_m.gguf").write_bytes(b"GGUF")
    line = "texts:model=model,forget=forget.jsonl,retain=retain.jsonl"
    for place, got in (("quantised", "quantised ones"), ("gguf", "GGUF (model-q4_k_m.gguf)")):
        audit = ["audit", "-s", line, "--unlearned", place, "--alone", "--suite", "loss", "--out", "audited"]
        assert call(*audit) == 2
        assert f"{place}: expected" in (said := one_line(capsys))
        assert f"got {got}" in said


def test_a_model_is_audited_by_plain_words_as_an_adapter_or_a_folder() -> None:
    sets = ["--original", "model", *OWN[2:6], "--holdout", "holdout.jsonl", "--alone", "--suite", "loss"]
    weights_after = {}
    for place in ("unlearned", "adapter"):
        words = ["audit", *sets, "--unlearned", f"ran/seed-0/{place}", "--device", "cpu", "--out", place]
        assert call(*words) == 0
        record = load_record(Path(place, "record.json"))
        assert "Trained for this audit" not in record.scenario_summary
        weights_after[place] = record.measurement("forget_probability")
    folder, added = weights_after.values()
    assert folder is not None and added is not None
    assert folder.original.value == added.original.value
    assert folder.unlearned.value != folder.original.value
    assert folder.unlearned.value == pytest.approx(added.unlearned.value, abs=0.02)


@pytest.mark.parametrize(("unseen", "named"), [("holdout", "."), ("test", "."), ("holdout", "model.safetensors")])
def test_what_a_run_has_tuned_on_is_not_audited_afterwards(
    unseen: str, named: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Half of the holdout, or of the test set where there is none, serves tuning; a later audit does without."""
    sets = [*OWN[:6], f"--{unseen}", f"{unseen}.jsonl"]
    words = [
        "--method",
        "finetune",
        "--tune",
        "--suite",
        "loss",
        "--device",
        "cpu",
        "--anyway",
        "--alone",
        "--out",
        "tuned",
    ]
    assert call("run", *sets, *words) == 0
    after = load_record(Path("tuned/seed-0/record.json")).sizes
    assert after[unseen] == len(SPLITS[unseen]) // 2
    monkeypatch.chdir("tuned/seed-0/unlearned")
    up = [f"../../../{word}" if word == "model" or word.endswith(".jsonl") else word for word in sets]
    audit = [
        "audit",
        *up,
        "--unlearned",
        named,
        "--suite",
        "loss",
        "--device",
        "cpu",
        "--alone",
        "--out",
        "../../../audited",
    ]
    assert call(*audit) == 0
    record = load_record(Path("../../../audited/record.json"))
    assert record.sizes == after
    card = Path("README.md").read_text(encoding="utf-8")
    assert f"- {unseen}: {after[unseen]} records" in card
    assert f"- tuning: {len(SPLITS[unseen]) - after[unseen]} more records" in card
    assert record.method == ("unlearned" if named == "." else named)
    swap = {"../../../model": ".", named: "../../../model", "../../../audited": "../../../original"}
    assert call(*(swap.get(word, word) for word in audit)) == 0
    assert load_record(Path("../../../original/record.json")).sizes == after, "so is an original that was tuned"
    shutil.copytree(".", "../../../moved")
    assert call(*(word.replace("audited", "again") if word != named else "../../../moved" for word in audit)) == 0
    alone = load_record(Path("../../../again/record.json"))
    assert alone.sizes[unseen] == len(SPLITS[unseen])
    warning = "moved: its strength was tuned on a part of a holdout, and tuned-on.json, which says on which, is not"
    assert warning in alone.scenario_summary
    assert f"warning: {warning}" in capsys.readouterr().err


def test_an_adapter_is_left_beside_the_model_that_it_made_and_no_other(tmp_path: Path) -> None:
    """A method that was edited after a kill finds the parts of the one before it, and those of its own."""
    scenario = Texts(model="model", forget="forget.jsonl", retain="retain.jsonl").make()
    assert scenario.original is not None
    start = StartingPoint(scenario, scenario.original, 0, Session(tmp_path / "parts", "cpu"))
    low_rank = LoRA(base=NPO(fit=replace(NPO.fit, lr=1e-2, epochs=1)), r=2)
    other_rank = replace(low_rank, r=3)
    ranks = []
    for method in (low_rank, other_rank, low_rank.base, low_rank):
        save_unlearned(Unlearned(start.unlearned(method).model, method, 0), scenario, tmp_path)
        settings = tmp_path / "adapter" / "adapter_config.json"
        ranks.append(json.loads(settings.read_text())["r"] if settings.exists() else None)
    assert ranks == [2, 3, None, 2]
    drop_parts(tmp_path)
    assert not list((tmp_path / "parts").glob("adapter*"))


def test_an_adapter_that_names_this_model_and_doesnt_fit_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    adapter(Path("added"), "model", hidden_size=16)
    assert call(*UNLEARN, "--adapter", "added") == 2
    assert "added: expected an adapter of model, got weights that don't fit it." in one_line(capsys)


@pytest.mark.parametrize(
    ("precision", "held", "written"),
    [("auto", "float32", "bfloat16"), ("float32", "float32", "float32"), ("bfloat16", "bfloat16", "bfloat16")],
)
def test_what_a_model_is_computed_in_and_written_in(precision: Any, held: str, written: str) -> None:
    scenario = Texts(model="model", forget="forget.jsonl", retain="retain.jsonl", precision=precision).make()
    assert scenario.original is not None
    assert {str(p.dtype) for p in scenario.original.parameters()} == {f"torch.{held}"}
    assert scenario.precision == written
