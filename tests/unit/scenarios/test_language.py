"""Language data sets and checkpoints: real files where they can be had, small ones of the same form otherwise."""

import json
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tests.worlds import CPU, small_llama
from unrecall.data.examples import Absent
from unrecall.data.request import Request
from unrecall.data.signals import Signals
from unrecall.errors import BadInput
from unrecall.evidence.evidence import Evidence
from unrecall.metrics.utility import restoration
from unrecall.scenarios import KnowUnDo, Restor, TinyStories, Tofu, llama2c
from unrecall.tasks import CausalLM

DATA = Path(os.environ.get("UNRECALL_DATA", "nowhere"))
needs_data = pytest.mark.skipif(not (DATA / "tofu").is_dir(), reason="needs the folder that UNRECALL_DATA names")

LILY = """Once upon a time, there was a little girl named Lily. She loved to play outside in the park. One day, she \
saw a big, red ball. She wanted to play with it, but it was too high.
Lily's mom said, "Lily, let's go to the park." Lily was sad and didn't know what to do. She said, "I want to play with \
your ball, but I can't find it."
Lily was sad and didn't know what to do. She said, "I'm sorry, Lily. I didn't know what to do."
Lily didn't want to help her mom, so she said, "I'm sorry, mom. I didn't know what to do." Her mom said, "Don't worry, \
Lily. We can help you."""


class TestLlama2c:
    @pytest.mark.data
    @needs_data
    def test_the_real_model_writes_its_known_text(self) -> None:
        """llama2.c prints these 256 tokens for stories260K at temperature 0."""
        pair = llama2c.load(DATA / "stories260k" / "stories260K.bin", DATA / "stories260k" / "tok512.bin")
        start = torch.tensor([[1]])
        mask = torch.ones_like(start)
        written = pair.model.generate(start, attention_mask=mask, max_new_tokens=256, do_sample=False)  # type: ignore[operator]
        assert pair.tokenizer.decode(written[0], skip_special_tokens=True).strip() == LILY
        assert sum(p.numel() for p in pair.model.parameters()) == 260_032

    @pytest.mark.data
    @needs_data
    def test_the_real_tokenizer_gives_text_back(self) -> None:
        pair = llama2c.load(DATA / "stories260k" / "stories260K.bin", DATA / "stories260k" / "tok512.bin")
        assert pair.tokenizer("Once upon a time", add_special_tokens=False)["input_ids"] == [403, 407, 261, 378]
        for text in ("A café, 3 naïve dogs!", "line\nbreak", "日本"):
            assert pair.tokenizer.decode(pair.tokenizer(text)["input_ids"], skip_special_tokens=True).strip() == text

    def test_weights_find_their_places(self, tmp_path: Path) -> None:
        """A Llama written in llama2.c's order comes back with the same logits."""
        model = small_llama(8, num_key_value_heads=1, rms_norm_eps=1e-5).eval()
        (tmp_path / "w.bin").write_bytes(written(model))
        (tmp_path / "t.bin").write_bytes(pieces(8))
        found = llama2c.load(tmp_path / "w.bin", tmp_path / "t.bin").model
        tokens = torch.tensor([[1, 3, 4, 5, 6, 7]])
        with torch.no_grad():
            torch.testing.assert_close(found(tokens).logits, model(tokens).logits, rtol=1e-4, atol=1e-4)

    @pytest.mark.parametrize("cut", [10, 28, 500])
    def test_a_truncated_file_is_refused(self, tmp_path: Path, cut: int) -> None:
        (tmp_path / "w.bin").write_bytes(written(small_llama(8))[:cut])
        (tmp_path / "t.bin").write_bytes(pieces(8))
        with pytest.raises(BadInput, match="expected"):
            llama2c.load(tmp_path / "w.bin", tmp_path / "t.bin")

    def test_a_tokenizer_of_another_model_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "w.bin").write_bytes(written(small_llama(8)))
        (tmp_path / "t.bin").write_bytes(pieces(5))
        with pytest.raises(BadInput, match="expected 8 pieces"):
            llama2c.load(tmp_path / "w.bin", tmp_path / "t.bin")


def written(model: nn.Module) -> bytes:
    """The weights of a small Llama in llama2.c's order, its rotary halves put back into pairs of neighbours."""
    config: Any = model.config
    state, heads, width = model.state_dict(), config.num_attention_heads, config.hidden_size
    head, layers = width // heads, range(config.num_hidden_layers)

    def pairs(rows: torch.Tensor) -> torch.Tensor:
        return torch.stack([rows[i * head + j + h * head // 2] for i in range(len(rows) // head)
                            for j in range(head // 2) for h in (0, 1)])  # fmt: skip

    def stack(name: str, turn: Callable[[torch.Tensor], torch.Tensor] = lambda rows: rows) -> bytes:
        return b"".join(turn(state[f"model.layers.{i}.{name}.weight"]).contiguous().numpy().tobytes() for i in layers)

    sizes = (width, config.intermediate_size, len(layers), heads, config.num_key_value_heads, config.vocab_size, 64)
    parts = [struct.pack("<7i", *sizes), state["model.embed_tokens.weight"].numpy().tobytes()]
    parts += [stack("input_layernorm"), stack("self_attn.q_proj", pairs), stack("self_attn.k_proj", pairs)]
    parts += [stack(f"self_attn.{name}_proj") for name in "vo"] + [stack("post_attention_layernorm")]
    parts += [stack(f"mlp.{name}_proj") for name in ("gate", "down", "up")]
    return b"".join([*parts, state["model.norm.weight"].numpy().tobytes()])


def pieces(count: int) -> bytes:
    texts = ["<unk>", "<s>", "</s>", "a", "b", "ab", "c", "abc"][:count]
    return struct.pack("<i", 3) + b"".join(struct.pack("<fi", 0.0, len(t)) + t.encode() for t in texts)


@pytest.mark.parametrize("builder", [Tofu, KnowUnDo, TinyStories, Restor])
@pytest.mark.parametrize("data", ["", "no/such/folder"])
def test_a_missing_folder_is_said(builder: Any, data: str) -> None:
    with pytest.raises(BadInput, match="expected data=FOLDER"):
        builder(data=data).make()


@pytest.mark.data
@needs_data
class TestReal:
    @pytest.mark.parametrize(
        ("forget", "count", "held"), [("forget01", 40, 200), ("forget05", 200, 200), ("forget10", 400, 400)]
    )
    def test_tofu_holds_whole_authors_out(self, forget: Any, count: int, held: int) -> None:
        request = Tofu(data=str(DATA / "tofu"), forget=forget).make().request
        assert (len(request.forget), len(request.holdout), len(request.retain)) == (count, held, 4000 - count - held)
        assert len(request.test) == 217
        full = [json.loads(line) for line in (DATA / "tofu" / "full.json").read_text(encoding="utf-8").splitlines()]
        places = {(text["question"], text["answer"]): i // 20 for i, text in enumerate(full)}
        authors = {
            split: {places[item["prompt"], item["answer"]] for item in request[split]}  # type: ignore[attr-defined]
            for split in ("forget", "retain", "holdout")
        }
        assert not authors["forget"] & authors["retain"] | authors["holdout"] & (authors["forget"] | authors["retain"])
        assert all("wrong" in item and "restated" in item for item in request.forget)  # type: ignore[attr-defined]

    def test_knowundo_reads_its_four_files(self) -> None:
        request = KnowUnDo(data=str(DATA / "knowundo")).make().request
        assert [len(request[split]) for split in ("forget", "retain", "holdout", "test")] == [400, 441, 110, 108]

    def test_tinystories_says_what_it_lacks(self) -> None:
        scenario = TinyStories(data=str(DATA), forget=5, retain=10).make()
        assert isinstance(scenario.request.holdout, Absent)
        assert scenario.original is not None
        scenario.task.check(scenario.original, scenario.request)
        assert not scenario.can_retrain()

    def test_tinystories_can_be_taught(self) -> None:
        scenario = TinyStories(data=str(DATA), forget=5, retain=10, holdout=4, epochs=1).make()
        assert [len(scenario.request[split]) for split in ("forget", "retain", "holdout", "test")] == [5, 10, 4, 4]  # type: ignore[index]
        assert scenario.build is not None
        scenario.task.check(scenario.build(0, CPU), scenario.request)

    def test_restor_tests_the_facts_that_the_paper_does(self) -> None:
        scenario = Restor(data=str(DATA / "restor"), documents=50).make()
        assert len(scenario.request.test) == 1051
        assert (len(scenario.request.forget), len(scenario.request.holdout)) == (45, 5)
        prompts = {item["prompt"] for item in scenario.request.test}  # type: ignore[attr-defined]
        assert prompts.isdisjoint(item["prompt"] for item in scenario.request.retain)  # type: ignore[attr-defined]


def test_restoration_by_hand() -> None:
    """Clean models know 4 of 4, the corrupted one 1, the unlearned one 2: a third came back."""

    def signals(correct: list[float]) -> Signals:
        values = np.array(correct)
        return Signals(values, values, values, values[:, None], *[values] * 6)

    before, after, clean = signals([1, 0, 0, 0]), signals([1, 1, 0, 0]), signals([1, 1, 1, 1])
    request = Request(["a"], ["b"], ["c"], ["d"])
    found = restoration(Evidence(request, {"test": after}, ({"test": clean}, {"test": clean}), {"test": before}))
    assert found.value == pytest.approx(1 / 3)
    nothing = restoration(Evidence(request, {"test": after}, ({"test": before},), {"test": before}))
    assert nothing.value is None
    assert "took nothing" in nothing.note


def test_task_reads_the_usual_keys(tmp_path: Path) -> None:
    lines = [
        {"question": "q", "answer": "a"},
        {"instruction": "i", "input": "n", "output": "o"},
        {"text": "plain"},
        {"text": "t", "labels": "l"},
    ]
    (tmp_path / "x.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    found = CausalLM(tokenizer=None).read(tmp_path / "x.jsonl")
    assert [(item["prompt"], item["answer"]) for item in found] == [
        ("q", "a"),
        ("i\nn", "o"),
        ("", "plain"),
        ("t", "l"),
    ]
