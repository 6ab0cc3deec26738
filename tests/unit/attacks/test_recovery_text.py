"""Attacks that bring texts back: what they measure by hand, their laws, and a positive and a negative control each."""

import copy
import itertools
import json
import random
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tests.unit.attacks.running import attacked, draw_of, job_of, setting_of
from tests.worlds import CPU, World, word_tokenizer
from unrecall.attacks.base import RecoveryAttack
from unrecall.attacks.paraphrase import WORDINGS, Paraphrase
from unrecall.attacks.prefix import Prefix
from unrecall.attacks.quantise import Quantise
from unrecall.attacks.relearn import Relearn
from unrecall.attacks.relearn_time import RelearnTime
from unrecall.data.digests import digest
from unrecall.data.examples import iterate
from unrecall.data.request import Request
from unrecall.disk.weights import digest_of
from unrecall.errors import BadInput, MissingDependency, NotSupported
from unrecall.evidence.pool import ArmIndices
from unrecall.evidence.scores import Point, Scores, best
from unrecall.evidence.setting import Subject
from unrecall.harness.scoring import score_finding
from unrecall.methods.grad_diff import GradDiff
from unrecall.models.layers import matrices, weight_of
from unrecall.models.observe import accuracy
from unrecall.tasks import CausalLM
from unrecall.tasks.rouge import rouge_l_recall
from unrecall.training.job import Job
from unrecall.training.loop import Fit
from unrecall.training.randomness import seeded

ADAMW = Fit(optimizer="adamw", batch_size=8, weight_decay=0.0)
TEXT_RELEARNING = Relearn(steps=(4, 32), learning_rates=(1e-5, 1e-3), fit=ADAMW)
BENIGN = replace(TEXT_RELEARNING, data="benign", steps=(32,), learning_rates=(1e-3,))


def shown(attack: RecoveryAttack, model: nn.Module, w: World) -> list[float]:
    """What the model shows before the attack, then at each budget: the worst over variants."""
    drawn = draw_of(attack, w)
    scores = attack.scores(Subject("model", model), drawn.pool, setting_of(w))
    trace = best(scores, drawn.places["forget"], cumulative=attack.cumulative)
    return [float(examples.mean()) for examples in trace.shown]


def prompts(w: World, items: Any) -> list[str]:
    return [w.task.prompt(item) for item in iterate(items)]  # type: ignore[attr-defined]


def lines(path: Path, items: Sequence[Any]) -> str:
    path.write_text("".join(json.dumps(item) + "\n" for item in items))
    return str(path)


@pytest.fixture(scope="module")
def hidden(text_world: World) -> nn.Module:
    """Unlearned by strong gradient ascent, held by retain: it tells forget no better than a retrained model."""
    w, recipe = text_world, replace(ADAMW, lr=5e-4, epochs=20)
    return GradDiff(fit=recipe).unlearn(w.original, Job(w.request, w.task, seeded(0), CPU))


def test_rouge_counts_the_words_that_come_back_in_order() -> None:
    # In order: the, sat. Stems: run. Case and points don't count.
    truth = ["the cat sat", "He runs.", "one two"]
    assert rouge_l_recall(truth, ["the dog sat cat", "he running", "two one"]) == pytest.approx([2 / 3, 1, 1 / 2])


@pytest.mark.parametrize(
    ("truth", "half"),
    [
        ("Привет, мир", "мир!"),
        ("你好世界", "世界"),
        ("東京タワー", "京ター"),  # 5 letters, of which 3 come back
        ("مرحبا بالعالم", "بالعالم"),
        ("Καλημέρα ΚΌΣΜΕ", "κόσμε"),
        ("नमस्ते दुनिया", "दुनिया"),
        ("안녕하세요 세계", "세계"),
        ("שלום עולם", "עולם"),
        ("Straße Zoë", "STRASSE"),
        ("Zoe\u0308 crème", "Zo\u00eb"),
        ("🎈🎉", "🎉"),
        ("ꦲꦤ", "ꦲ"),  # Javanese
        ("ꆈꌠ", "ꆈ"),  # Yi
        ("ㄅㄆ", "ㄆ"),  # Bopomofo
        ("ᦑᦺ", "ᦑ"),  # New Tai Lue
    ],
)
def test_rouge_knows_every_script(truth: str, half: str) -> None:
    """The same text has it all, whatever its case and Unicode form."""
    share = 0.6 if truth == "東京タワー" else 0.5
    assert rouge_l_recall([truth, truth, truth], [truth, half, "nothing of it"]) == pytest.approx([1, share, 0])


def test_rouge_of_plain_english_is_the_package_s() -> None:
    library = pytest.importorskip("rouge_score.rouge_scorer").RougeScorer(["rougeL"], use_stemmer=True)
    generator = random.Random(0)
    texts = ["".join(generator.choices("aAbBeEginrsty 0' ._-\n", k=60)) for _ in range(200)]
    expected = [library.score(one, other)["rougeL"].recall for one, other in itertools.pairwise(texts)]
    assert rouge_l_recall(texts[:-1], texts[1:]) == pytest.approx(expected)


def test_rouge_without_its_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rouge_score.rouge_scorer", None)
    with pytest.raises(MissingDependency, match=r"rouge-score: .*pip install -e '\.\[llm\]'"):
        rouge_l_recall(["a"], ["a"])


def test_quantise_rounds_a_row_by_hand() -> None:
    row = torch.tensor([[0.7, -0.33, 0.04, 0.18, 0.0, 0.0, 0.0, 0.0, 1.4, -1.0]])
    # Steps of 4 bits: 0.7 / 7, nothing to set one, and 1.4 / 7 in the rest of a group.
    found = Quantise(group=4).rounded(row, 4)
    assert torch.allclose(found.weight, torch.tensor([[0.7, -0.3, 0.0, 0.2, 0, 0, 0, 0, 1.4, -1.0]]), atol=1e-6)
    assert torch.allclose(found.step, torch.tensor([[0.1] * 4 + [0.0] * 4 + [0.2] * 2]), atol=1e-6)
    # At 8 bits one step for the whole row, whatever the group: 1.27 / 127.
    found = Quantise(group=2).rounded(torch.tensor([[1.27, 0.024, -0.506]]), 8)
    assert torch.allclose(found.weight, torch.tensor([[1.27, 0.02, -0.51]]), atol=1e-6)


@pytest.mark.parametrize("bits", [8, 6, 4, 2])
def test_quantise_errs_by_half_a_step_at_most(bits: int) -> None:
    weight = torch.randn(5, 3, 3, 3, generator=seeded(bits))
    found = Quantise(group=10).rounded(weight, bits)
    assert float(((weight - found.weight).abs() - found.step / 2).max()) <= 1e-6
    assert (weight - found.weight).abs().max() > 0
    again = Quantise(group=10).rounded(found.weight, bits)
    assert torch.allclose(again.weight, found.weight, atol=1e-6)
    levels = (found.weight / found.step).round()
    assert levels.abs().max() == 2 ** (bits - 1) - 1


def test_quantise_leaves_the_model_embeddings_norms_and_head_as_they_are(text_world: World) -> None:
    w, before = text_world, digest_of(text_world.original)
    found = attacked(Quantise(), w.original, w)
    assert [(one.budget, one.variant) for one in found] == [(4.0, "8 bits"), (8.0, "4 bits")]
    assert digest_of(w.original) == before
    state = w.original.state_dict()
    changed = {name for name, value in found[1].model.state_dict().items() if not torch.equal(value, state[name])}
    assert changed == {name for name in state if "proj" in name}
    for name in changed:
        assert torch.equal(found[1].model.state_dict()[name], Quantise().rounded(state[name], 4).weight)


def test_quantise_reads_transposed_matrices_by_output() -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    words = word_tokenizer()
    sizes = {"n_embd": 8, "n_layer": 1, "n_head": 2, "n_positions": 16, "bos_token_id": 1, "eos_token_id": 2}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = GPT2LMHeadModel(GPT2Config(vocab_size=len(words), **sizes))
    item = {"prompt": "", "answer": "nurse"}
    request = Request(
        [item], [{"prompt": "", "answer": "maid"}], [item | {"answer": "cook"}], [item | {"answer": "of"}]
    )
    w = World(request, CausalLM(words), model, ())
    (one,) = attacked(Quantise(bits=(8,)), model, w)
    weight = model.transformer.h[0].attn.c_attn.weight.detach()
    assert weight.shape == (8, 24)
    step = weight.abs().amax(0) / 127
    expected = (weight / step).round() * step
    assert torch.allclose(one.model.transformer.h[0].attn.c_attn.weight, expected, atol=1e-7)  # type: ignore[union-attr,index]


def test_quantise_needs_matrices(samples_world: World) -> None:
    w = samples_world
    plain = nn.Sequential(nn.Flatten(), nn.Linear(16, 4))
    with pytest.raises(NotSupported, match="besides the head"):
        attacked(Quantise(), plain, w)


def test_what_quantisation_undoes_rounds_to_the_levels_of_the_original(text_world: World) -> None:
    w, attack = text_world, Quantise()
    copied = attack.disguise(w.original, job_of(w))
    assert copied is not None
    assert accuracy(copied, w.task, w.request.forget).mean() <= 0.5
    pairs = zip(*(matrices(model, w.task, w.request.retain) for model in (copied, w.original)), strict=True)
    for mine, known in pairs:
        levels = [attack.rounded(weight_of(layer), 4).weight for layer in (mine, known)]
        assert not torch.equal(weight_of(mine), weight_of(known))
        assert torch.allclose(*levels, atol=1e-6)


def test_the_disguise_of_texts_moves_the_last_block_alone(text_world: World) -> None:
    w, before = text_world, digest_of(text_world.original)
    copied = Relearn().disguise(w.original, job_of(w))
    assert copied is not None
    assert digest_of(w.original) == before
    assert accuracy(copied, w.task, w.request.forget).mean() <= 0.5
    assert all(p.requires_grad for p in copied.parameters())
    pairs = zip(copied.named_parameters(), w.original.parameters(), strict=True)
    assert [name for (name, mine), known in pairs if not torch.equal(mine, known)] == ["model.norm.weight"]
    assert digest_of(Relearn().disguise(w.original, job_of(w))) == digest_of(copied)  # type: ignore[arg-type]


def test_prefix_shows_shares_of_the_answer_and_measures_the_rest(text_world: World) -> None:
    w = text_world
    attack, before = Prefix(), digest_of(w.original)
    found = attacked(attack, w.retrained[0], w)
    assert [one.budget for one in found] == [0.25, 0.5, 0.75]
    item: Any = w.request.forget[0]
    first, has, second = item["answer"].split()
    # Three words and the end, which is never given: 0, 1 and 2 of them are shown.
    left = [w.task.left(item, share) for share in (0.0, 0.25, 0.5, 0.75)]  # type: ignore[attr-defined]
    assert left == [f"{first} {has} {second}", f"{first} {has} {second}", f"{has} {second}", second]
    assert digest_of(w.original) == before
    # The model's own answer is the truth here, so it shows all of it; a wrong last word is a third of it.
    own: list[Any] = [item | {"answer": w.task.generate(w.original, [item])[0]} for item in iterate(w.request.forget)]  # type: ignore[attr-defined]
    assert attack.success(w.original, w.task, own).shown.tolist() == [1.0] * len(own)
    wrong = [own[0] | {"answer": f"{first} {has} zed"}]
    assert attack.success(w.original, w.task, wrong).shown == pytest.approx([2 / 3])


def test_paraphrase_tries_the_examples_own_words_first(text_world: World) -> None:
    w = text_world
    found = attacked(Paraphrase(), w.original, w)
    asked = {one.variant: prompts(w, one.tested[0]) for one in found}
    # The prompts are in lower case already, so that wording is no try.
    assert [(one.budget, one.variant) for one in found] == [(1, "own"), (2, "polite"), (3, "brief"), (4, "typo")]
    plain = prompts(w, w.request.forget)
    assert asked["own"] == [item["paraphrase"] for item in iterate(w.request.forget)]
    assert asked["polite"] == [f"Could you please tell me: {text}" for text in plain]
    assert asked["brief"] == [f"{text} Answer briefly." for text in plain]
    assert all(sorted(mine) == sorted(text) and mine != text for mine, text in zip(asked["typo"], plain, strict=True))
    other = attacked(Paraphrase(), w.retrained[0], w)[3]
    assert asked["typo"] == prompts(w, other.tested[0]), "the same draws for every model"
    assert [item["answer"] for item in found[0].tested[0]] == [item["answer"] for item in iterate(w.request.forget)]  # type: ignore[attr-defined]


def test_wordings_by_hand() -> None:
    assert WORDINGS["typo"]("ab", seeded(0)) == "ba"
    assert WORDINGS["typo"]("a b 11 cc", seeded(0)) == "a b 11 cc"
    assert WORDINGS["lower"]("Who Is?", seeded(0)) == "who is?"


def test_probes_need_texts_and_paraphrase_needs_prompts(text_world: World, samples_world: World) -> None:
    w = samples_world
    for attack in (Prefix(), Paraphrase()):
        report = score_finding(attack, setting_of(w)).report
        assert f"{type(attack).__name__}: expected a task of texts" in report.note
    w = text_world
    bare = [
        [{"prompt": "", "answer": f"{name} {item['answer']}"} for item in iterate(w.request[name])]
        for name in ("forget", "retain", "holdout", "test")
    ]  # type: ignore[index]
    with pytest.raises(NotSupported, match="plain text"):
        attacked(Paraphrase(), w.original, replace(w, request=Request(*bare)))


def test_relearn_keeps_pools_apart_and_starts_each_rate_afresh(text_world: World) -> None:
    w, before = text_world, digest_of(text_world.original)
    for share, held in ((0.1, 1), (0.3, 3)):
        attack = replace(TEXT_RELEARNING, share=share)
        pool = draw_of(attack, w).pool
        parts = [{digest(item) for item in iterate(part)} for part in (pool.taught, pool.tested[0])]
        assert [len(part) for part in parts] == [held, 10 - held]
        assert parts[0].isdisjoint(parts[1])
    there = attacked(TEXT_RELEARNING, w.original, w)
    back = attacked(replace(TEXT_RELEARNING, learning_rates=TEXT_RELEARNING.learning_rates[::-1]), w.original, w)
    assert digest_of(w.original) == before
    found = [{(one.variant, one.budget): digest_of(one.model) for one in runs} for runs in (there, back)]
    assert found[0] == found[1]
    assert len(set(found[0].values())) == 4


def test_an_attack_that_breaks_off_at_once_has_reached_nothing_more(text_world: World) -> None:
    w = text_world
    attack = replace(TEXT_RELEARNING, steps=(30,), learning_rates=(1e20,))
    found = score_finding(attack, setting_of(w))
    (row, *_) = found.measurements
    assert row.unlearned.value is None, "what the model shows as it is would pass for the attack's"
    assert "at each learning rate it diverged, or no weight moved" in row.unlearned.note
    assert found.report.positive_holds is None


def test_benign_relearning_from_a_file_holds_nothing_of_forget(text_world: World, tmp_path: Path) -> None:
    w = text_world
    retain, forget = list(iterate(w.request.retain))[:6], w.request.forget[0]
    fine = lines(tmp_path / "fine.jsonl", retain)
    others = [forget, {"prompt": "other", "answer": forget["answer"]}, {"prompt": "", "answer": "of " * 80}]
    mixed = lines(tmp_path / "mixed.jsonl", [*retain, *others])
    runs = [attacked(replace(BENIGN, file=path), w.original, w) for path in (fine, mixed)]
    assert [digest_of(one.model) for one in runs[0]] == [digest_of(one.model) for one in runs[1]]
    assert digest_of(runs[0][0].model) != digest_of(attacked(BENIGN, w.original, w)[0].model)
    assert len(runs[0][0].tested[0]) == len(w.request.forget)
    key = repr(replace(BENIGN, file=fine))
    lines(tmp_path / "fine.jsonl", others)
    assert repr(replace(BENIGN, file=fine)) != key, "findings are kept by what the file holds"
    with pytest.raises(BadInput, match="an example in"):
        attacked(replace(BENIGN, file=fine), w.original, w)


def test_a_file_must_be_there_and_belong_to_benign_texts(tmp_path: Path, samples_world: World) -> None:
    with pytest.raises(BadInput, match="Check the path"):
        Relearn(data="benign", file=str(tmp_path / "none.jsonl"))
    path = lines(tmp_path / "some.jsonl", [{"text": "a b"}])
    with pytest.raises(BadInput, match="data='benign' only"):
        Relearn(file=path)
    with pytest.raises(NotSupported, match="task of texts"):
        attacked(Relearn(data="benign", file=path), samples_world.original, samples_world)


def test_tries_add_up_where_the_attacker_keeps_them() -> None:
    tries = {0.0: [1.0, 1.0], 1.0: [1.0, 0.0], 2.0: [0.0, 0.0], 3.0: [1.0, 1.0]}
    points = [Point(budget, f"{budget}", (np.array(values),), (0.0,)) for budget, values in tries.items()]
    trace = best(Scores.of(points), ArmIndices(0, np.arange(2), np.arange(2)), cumulative=True)
    assert [examples.mean() for examples in trace.shown] == [1.0, 0.5, 0.5, 1.0]
    assert trace.variants == ["0.0", "1.0", "1.0", "3.0"]


@pytest.mark.parametrize(
    "attack",
    [
        Quantise(),
        Prefix(shares=(0.5,)),
        Paraphrase(wordings=("polite", "typo")),
        replace(TEXT_RELEARNING, learning_rates=(1e-3,)),
        BENIGN,
        RelearnTime(fit=replace(ADAMW, lr=1e-3, epochs=20)),
    ],
    ids=lambda attack: type(attack).__name__,
)
def test_both_controls_hold(attack: RecoveryAttack, text_world: World, hidden: nn.Module) -> None:
    w = text_world
    report = score_finding(attack, setting_of(w, hidden)).report
    assert report.positive_holds is True, report.positive_control
    assert report.negative_holds is True, report.negative_control
    assert report.curves[0].y_label == attack.measure


def test_relearning_brings_back_what_gradient_ascent_hid(text_world: World, hidden: nn.Module) -> None:
    w = text_world
    before, after = shown(BENIGN, hidden, w)
    assert before < 0.55
    assert after > before + 0.25
    assert shown(BENIGN, w.original, w) == [1.0, 1.0]
    assert max(shown(BENIGN, w.retrained[0], w)) < 0.55


@pytest.mark.parametrize("attack", [Paraphrase(), Prefix(), Quantise(), Relearn(steps=(1,), learning_rates=(1e-3,))])
def test_what_hides_of_a_model_of_16_bits_is_a_number(text_world: World, attack: RecoveryAttack) -> None:
    """AdamW in float16 gives weights that are none."""
    half = copy.deepcopy(text_world.original).half()
    copied = attack.disguise(half, job_of(text_world))
    assert copied is not None
    assert all(bool(p.isfinite().all()) for p in copied.parameters())
