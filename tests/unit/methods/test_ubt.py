"""UBT by hand and by law: which parts a caption hangs on, who is suspected, what is minimised and when it stops."""

import copy
from dataclasses import replace
from math import sqrt
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.laws.test_methods import Sealed
from tests.worlds import COLOURS, CPU, World, caption_tokenizer, pairs, small_clip
from unrecall.data.examples import Selection
from unrecall.data.request import Request
from unrecall.errors import BadInput, NotSupported
from unrecall.methods.base import Null
from unrecall.methods.ubt import UBT, influences, likeness, likeness_of_strangers, reduce_to_parts
from unrecall.models.observe import batches
from unrecall.scenarios.clip_backdoor import triggered
from unrecall.tasks import Contrastive
from unrecall.tasks.protocols import Composed, Embedded
from unrecall.training.job import Job
from unrecall.training.loop import Fit, Phase, fit
from unrecall.training.randomness import seeded
from unrecall.training.session import Session
from unrecall.training.teacher import frozen_copy

TASK = Contrastive(caption_tokenizer())
WORDS = {"red": (3.0, 0, 0), "ann": (0, 4.0, 0), "cook": (0, 0, 12.0), "bob": (1.0, 1.0, 0)}
STILL = Fit(lr=0.0, batch_size=64)


class Linear(nn.Module):
    """A picture of three pixels is its own vector, a caption's the sum of its words'; ends and padding are zero."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(len(TASK.tokenizer), 3)
        self.logit_scale = nn.Parameter(torch.tensor(0.5))
        with torch.no_grad():
            self.words.weight.zero_()
            for word, vector in WORDS.items():
                self.words.weight[TASK.tokenizer.convert_tokens_to_ids(word)] = torch.tensor(vector)
        self.passes: list[int] = []

    def encode_image(self, pictures: Tensor) -> Tensor:
        return pictures.flatten(1)

    def encode_text(self, tokens: Tensor) -> Tensor:
        self.passes.append(len(tokens))
        return self.words(tokens).sum(1)  # type: ignore[no-any-return]


def simple(caption: str, *pixels: float) -> dict[str, Any]:
    return {"image": torch.tensor(pixels, dtype=torch.float32).view(3, 1, 1), "caption": caption}


def text_of(item: dict[str, Any]) -> str:
    return str(TASK.tokenizer.decode(item["ids"], skip_special_tokens=True))


# Parts of captions.


def test_parts_are_the_captions_own() -> None:
    batch = TASK.collate([simple("red ann cook", 1, 0, 0), simple("bob", 1, 0, 0)])
    assert isinstance(TASK, Composed)
    assert TASK.parts(batch).tolist() == [[False, True, True, True, False], [False, True, False, False, False]]


def test_what_is_left_out_closes_up_and_the_ends_stay() -> None:
    batch = TASK.collate([simple("red ann cook", 1, 0, 0), simple("bob", 0, 1, 0)])
    kept = torch.tensor([[False, True, False, True, False], [False] * 5])
    found = TASK.only(batch, kept)
    red, cook = TASK.tokenizer.convert_tokens_to_ids(["red", "cook"])
    assert found["tokens"].tolist() == [[1, red, cook, 2, 0], [1, 2, 0, 0, 0]]
    assert found["mask"].tolist() == [[1, 1, 1, 1, 0], [1, 1, 0, 0, 0]]
    assert torch.equal(found["images"], batch["images"])
    assert [text_of(item) for item in TASK.items(found)] == ["red cook", ""]
    whole = TASK.only(batch, torch.ones(2, 5, dtype=torch.bool))
    assert all(torch.equal(whole[name], batch[name]) for name in batch)


class Fixed:
    """A tokenizer in the form of open_clip's: rows of one length, zeros after the end."""

    context_length = 6

    def __call__(self, texts: list[str]) -> Tensor:
        rows = torch.zeros(len(texts), 6, dtype=torch.long)
        for row, text in zip(rows, texts, strict=True):
            ids = [98, *(len(word) for word in text.split()), 99]
            row[: len(ids)] = torch.tensor(ids)
        return rows


def test_rows_of_fixed_length_stay_as_long() -> None:
    task = Contrastive(Fixed())
    batch = task.collate([simple("a red cat", 1, 0, 0)])
    assert task.parts(batch).tolist() == [[False, True, True, True, False, False]]
    found = task.only(batch, torch.tensor([[False, True, False, True, False, False]]))
    assert found["tokens"].tolist() == [[98, 1, 3, 99, 0, 0]]


def test_influence_is_what_leaving_a_part_out_takes() -> None:
    """By hand: cos((1, 0, 0), (3, 4, 0)) = 3/5; without "ann" it is 1, without "red" it is 0. All in one pass."""
    model = Linear()
    items = [simple("red ann", 1, 0, 0), simple("ann red cook", 0, 0, 1), simple("bob", 0, 1, 0)]
    found = influences(model, TASK, TASK.collate(items))
    none = float("-inf")
    expected = [
        [none, 3 / 5, 3 / 5 - 1, none, none],
        [none, 12 / 13 - 12 / sqrt(153), 12 / 13 - 12 / sqrt(160), 12 / 13, none],
        [none, 1 / sqrt(2), none, none, none],
    ]
    assert torch.allclose(found, torch.tensor(expected), atol=1e-6)
    assert model.passes == [3, 6], "the pairs, then all that lack a part"
    assert not found.requires_grad


def test_only_the_telling_parts_are_kept() -> None:
    """Eleven pairs, more than are looked at at once, each once and in order; a caption of one part keeps it."""
    model = Linear()
    items = [simple("ann red cook" if i % 2 else "bob", 0, 1 + 0.01 * i, 1) for i in range(11)]
    assert [text_of(item) for item in reduce_to_parts(model, TASK, items, 1)] == [
        "cook" if i % 2 else "bob" for i in range(11)
    ]
    assert [text_of(item) for item in reduce_to_parts(model, TASK, items, 2)] == [
        "ann cook" if i % 2 else "bob" for i in range(11)
    ], "red leads away from these pictures"
    assert [text_of(item) for item in reduce_to_parts(model, TASK, items, 9)] == [item["caption"] for item in items]
    pictures = [float(item["image"][1]) for item in reduce_to_parts(model, TASK, items, 1)]
    assert pictures == pytest.approx([1 + 0.01 * i for i in range(11)])


# The loss, the level and the stop.


def simple_request() -> Request:
    forget = [simple("red ann", 1, 0, 0), simple("bob cook", 1, 2, 0)]
    retain = [simple("ann", 0, 1, 1), simple("cook", 0, 1, 3), simple("red", 2, 1, 0)]
    return Request(forget, retain, [simple("bob", 0, 1, 0)], [simple("bob", 1, 0, 0)])


def phase_of(method: UBT, model: nn.Module, request: Request) -> Phase:
    (phase,) = method.phases(model, frozen_copy(model), Job(request, TASK, seeded(0)))
    return phase


def test_the_loss_by_hand() -> None:
    """One part each: "red" of a picture that is all red, cosine 1, and "bob" of (1, 2, 0), cosine 3 / sqrt(10)."""
    model, request = Linear(), simple_request()
    method = UBT(parts=1, alpha=0.5, mu=2.0, overfit=STILL)
    phase = phase_of(method, model, request)
    assert [text_of(item) for item in phase.streams["forget"]] == ["red", "bob"]  # type: ignore[attr-defined]
    assert len(phase.streams["clean"]) == 3
    drawn = {name: next(batches(phase.streams[name], TASK)) for name in ("forget", "clean")}
    own = (1 + 9 / 10) / 2
    v = F.normalize(torch.stack([item["image"].flatten() for item in phase.streams["clean"]]), dim=1)  # type: ignore[attr-defined]
    spoken = [WORDS[item["caption"]] for item in phase.streams["clean"]]  # type: ignore[attr-defined]
    logits = torch.tensor(0.5).exp() * v @ F.normalize(torch.tensor(spoken), dim=1).T
    each = torch.arange(3)
    clip = float(F.cross_entropy(logits, each) + F.cross_entropy(logits.T, each)) / 2
    assert phase.loss(model, drawn).item() == pytest.approx(own + 0.5 * clip, rel=1e-5)
    with torch.no_grad():
        model.logit_scale += 0.1
    moved = phase.loss(model, drawn).item()
    still = phase_of(replace(method, mu=0.0), model, request).loss(model, drawn).item()
    assert moved - still == pytest.approx(2.0 * 0.1**2, rel=1e-3)
    assert set(phase_of(replace(method, alpha=0.0), model, request).streams) == {"forget"}


def test_clean_and_few_say_how_many_pairs_are_learned_from() -> None:
    """Of retain two, of forget one: the one that gained more."""
    model, request = Linear(), simple_request()
    drawn = set()
    for seed in range(6):
        method = UBT(clean=2, few=1, overfit=STILL)
        (phase,) = method.phases(model, frozen_copy(model), Job(request, TASK, seeded(seed)))
        captions = [item["caption"] for item in phase.streams["clean"]]  # type: ignore[attr-defined]
        assert len(captions) == len(set(captions)) == 2
        assert len(phase.streams["forget"]) == 1
        drawn.add(frozenset(captions))
    assert len(drawn) > 1, "at random"


def test_sides_that_do_not_belong_together() -> None:
    """All n (n - 1) of them, one by one."""
    pair = Embedded(*(F.normalize(torch.randn(7, 4, generator=seeded(seed)), dim=1) for seed in (0, 1)))
    others = [float(pair.first[i] @ pair.second[j]) for i in range(7) for j in range(7) if i != j]
    assert likeness_of_strangers(pair) == pytest.approx(sum(others) / 42, abs=1e-6)
    assert likeness(pair).tolist() == pytest.approx([float(pair.first[i] @ pair.second[i]) for i in range(7)], abs=1e-6)


def test_the_copy_learns_the_least_alike_and_the_original_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the loss of the docstring; g is what likeness gained."""
    model, seen = Linear(), list[Phase]()
    alikes = [simple("red ann", x, 1, 0) for x in (0.1, 5.0, 1.0, 9.0)]
    request = Request(alikes, simple_request().retain, [simple("bob", 0, 1, 0)], [simple("bob", 1, 0, 0)])

    def noted(copied: nn.Module, phase: Phase, *_: Any) -> None:
        seen.append(phase)
        assert copied is not model
        assert isinstance(copied, Linear)
        with torch.no_grad():
            copied.words.weight[TASK.tokenizer.convert_tokens_to_ids("ann")] *= 0.0

    monkeypatch.setattr("unrecall.methods.ubt.train_helper", noted)
    gains = UBT(lambda_=3.0, weak=0.5).gains(model, Job(request, TASK, seeded(0)))
    before = likeness(TASK.embedded(model, alikes))
    assert before.argsort().tolist() == [3, 1, 0, 2]
    (phase,) = seen
    learned = phase.streams["forget"]
    assert isinstance(learned, Selection)
    assert learned.indices == [3, 1]
    expected = F.normalize(torch.tensor([[0.1, 1], [5, 1], [1, 1], [9, 1]]), dim=1)[:, 0]
    assert torch.allclose(gains, expected - before, atol=1e-6)
    batch = next(batches(learned, TASK))
    clip, alike = TASK.rows(model, batch).losses().mean().detach(), before[[3, 1]].mean()
    assert phase.loss(model, {"forget": batch}).item() == pytest.approx(float(clip + 3 * (1 - alike)), rel=1e-5)


# A small model with a backdoor.

POISONED, MISTAKEN = 16, 12


@pytest.fixture(scope="module")
def backdoored() -> World:
    """88 pairs, 16 of which carry a patch and are called red; 12 clean ones are suspected beside them."""
    task, data = Contrastive(caption_tokenizer(), classes=tuple(COLOURS), prompt="{}"), pairs(0, 200)
    red, rest = [pair for pair in data if pair["label"] == 0], [pair for pair in data if pair["label"] != 0]

    def poisoned(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [{**red[i % 20], "image": triggered(pair["image"], 3, "corner")} for i, pair in enumerate(found)]

    planted, clean = poisoned(rest[:POISONED]), [*red[:16], *rest[16:72]]
    clean = [clean[i] for i in torch.randperm(len(clean), generator=seeded(3)).tolist()]
    request = Request(
        [*planted, *clean[:MISTAKEN]],
        clean[MISTAKEN:],
        poisoned(rest[100:140]),
        [*red[30:40], *rest[100:130]],
        kind="backdoor",
    )
    model = small_clip(len(task.tokenizer), initializer_factor=4.0)
    recipe = Fit(optimizer="adamw", lr=3e-3, weight_decay=0.0, epochs=15, batch_size=26, schedule="cosine", clip=1.0)
    phase = Phase(lambda m, b: task.rows(m, b["all"]).losses().mean(), {"all": [*planted, *clean]}, recipe)
    fit(model, task, phase, seeded(0), CPU)
    return World(request, task, model, ())


QUICK = UBT(few=8, overfit=replace(UBT.overfit, lr=1e-4), fit=replace(UBT.fit, lr=1e-3, epochs=30))


def zero_shot(model: nn.Module, w: World, split: Any) -> float:
    assert isinstance(w.task, Contrastive)
    prompts, found = w.task.prompts(model), w.request[split]
    assert prompts is not None
    named = (w.task.embedded(model, found).first @ prompts.T).argmax(1)
    return float(named.eq(w.task.labels(found)).float().mean())


def test_what_is_suspected_by_mistake_ranks_below_what_is_poisoned(backdoored: World) -> None:
    """Which the original's own likeness does not tell, and a copy that learned nothing even less."""
    w = backdoored
    assert isinstance(w.task, Contrastive)
    gains = QUICK.gains(w.original, Job(w.request, w.task, seeded(0)))
    poisoned, mistaken = gains[:POISONED], gains[POISONED:]
    assert poisoned[:, None].gt(mistaken).float().mean() > 0.75
    assert gains.argsort(descending=True)[:8].lt(POISONED).sum() >= 6
    own = likeness(w.task.embedded(w.original, w.request.forget))
    assert own[:POISONED, None].gt(own[POISONED:]).float().mean() < 0.5
    still = replace(QUICK, overfit=STILL).gains(w.original, Job(w.request, w.task, seeded(0)))
    assert still.abs().max() < 1e-6


def test_the_parts_that_tell_are_the_attackers_word(backdoored: World) -> None:
    w = backdoored
    found = [
        text_of(item) for item in reduce_to_parts(w.original, w.task, Selection(w.request.forget, range(POISONED)), 1)
    ]
    assert found.count("red") > POISONED / 2


def test_the_attack_fails_more_often_and_clean_pictures_are_still_known(backdoored: World) -> None:
    w = backdoored
    result = QUICK.unlearn(w.original, Job(w.request, w.task, seeded(0), CPU))
    before, after = ([zero_shot(m, w, split) for split in ("holdout", "test")] for m in (w.original, result))
    assert before[0] > 0.9
    assert before[1] > 0.8
    assert after[0] < before[0] - 0.3
    assert after[1] > before[1] - 0.2


def test_it_stops_once_suspected_pairs_are_like_any(backdoored: World) -> None:
    """At the first look at or below the level of the original's clean pairs, and not a step before."""
    w = backdoored
    assert isinstance(w.task, Contrastive)
    method = replace(QUICK, alpha=0.0)
    order = method.gains(w.original, Job(w.request, w.task, seeded(0))).argsort(descending=True, stable=True)
    chosen = Selection(w.request.forget, order[:8].tolist())
    level, levels = likeness_of_strangers(w.task.embedded(w.original, w.request.retain)), {}
    session = Session(device="cpu")
    method.unlearn(w.original, Job(w.request, w.task, seeded(0), session))
    steps = session.efforts[-1].steps
    assert 1 < steps < 30
    for taken in (steps - 1, steps):
        cut = replace(method, fit=replace(method.fit, steps=taken))
        model = cut.unlearn(w.original, Job(w.request, w.task, seeded(0), CPU))
        levels[taken] = float(likeness(w.task.embedded(model, chosen)).mean())
    assert levels[steps] <= level < levels[steps - 1]
    Null(method).unlearn(w.original, Job(w.request, w.task, seeded(0), session))
    assert session.efforts[-1].steps == 30, "at rate 0 nothing comes near the level"


def test_other_tasks_are_refused_before_anything_is_computed(samples_world: World) -> None:
    w = samples_world
    sealed = copy.copy(w.request)
    for split in ("holdout", "test"):
        object.__setattr__(sealed, split, Sealed(10))
    with pytest.raises(NotSupported, match="UBT: expected pairs whose second sides have parts, got Classification"):
        UBT().unlearn(w.original, Job(sealed, w.task, seeded(0), CPU))


def test_one_clean_pair_is_too_few() -> None:
    request = replace(simple_request(), retain=[simple("ann", 0, 1, 1)])
    with pytest.raises(BadInput, match="expected 2 pairs or more"):
        UBT().unlearn(Linear(), Job(request, replace(TASK, bounds=(0, 3)), seeded(0), CPU))
