"""The contrastive task by hand arithmetic on two pairs, by law on a small CLIP, and an audit of it from end to end."""

import copy
import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.worlds import CPU, World, caption_tokenizer, pairs, small_clip, word_tokenizer
from unrecall import audit
from unrecall.attacks import UMA, GradNorm, Loss, Prototypical, Quantise, Relearn, ResidualKnowledge
from unrecall.data.request import Request
from unrecall.errors import BadInput, NotSupported
from unrecall.evidence.setting import Models, Setting
from unrecall.harness.scoring import score_finding
from unrecall.harness.suites import suite
from unrecall.models.importance import exact, mean_gradient, per_example, trainable
from unrecall.models.layers import matrices
from unrecall.models.observe import accuracy, batches, mean_loss, observe, one_size
from unrecall.models.perturb import Walk, pgd
from unrecall.report import page
from unrecall.scenarios.image_text import load_clip
from unrecall.tasks import CausalLM, Classed, Contrastive, Perturbable, dual_encoder
from unrecall.tasks.protocols import Paired, with_own_rows
from unrecall.tasks.zero_shot import ZeroShot
from unrecall.training.job import Job
from unrecall.training.randomness import seeded
from unrecall.training.session import Session
from unrecall.training.teacher import remembered, summed_losses


class Words:
    """A tokenizer as open_clip has them: rows of a fixed length, zeros after the end."""

    context_length = 4

    def __init__(self, *words: str) -> None:
        self.encoder = {word: i for i, word in enumerate(("!", *words, "<begin>", "<end>"))}

    def __call__(self, texts: list[str]) -> Tensor:
        rows = torch.zeros(len(texts), self.context_length, dtype=torch.long)
        for row, text in zip(rows, texts, strict=True):
            ids = [self.encoder[word] for word in ("<begin>", *text.split(), "<end>")]
            row[: len(ids)] = torch.tensor(ids)
        return rows


class Toy(nn.Module):
    """A picture of two values is its own vector; a text is the sum of its words'."""

    def __init__(self, *words: tuple[float, ...], scale: float = 2.0) -> None:
        super().__init__()
        width = len(words[0])
        self.text_words = nn.Embedding(len(words) + 3, width)
        self.image_layer = nn.Linear(2, 2, bias=False)
        self.logit_scale = nn.Parameter(torch.tensor(math.log(scale)))
        with torch.no_grad():
            none = torch.zeros(width)
            self.text_words.weight.copy_(torch.stack([none, *map(torch.tensor, words), none, none]))
            self.image_layer.weight.copy_(torch.eye(2))

    def encode_image(self, images: Tensor) -> Tensor:
        return self.image_layer(images.flatten(1))  # type: ignore[no-any-return]

    def encode_text(self, tokens: Tensor) -> Tensor:
        return self.text_words(tokens).sum(1)  # type: ignore[no-any-return]

    def forward(self, images: Tensor, tokens: Tensor) -> dict[str, Tensor]:
        """As open_clip's models have it; only what is wrapped is called like this."""
        return {"image_features": self.encode_image(images), "text_features": self.encode_text(tokens)}


class Wrapped(nn.Module):
    """A model in another, as DataParallel wraps one."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module, self.calls = module, 0

    def forward(self, *given: Any, **named: Any) -> Any:
        self.calls += 1
        return self.module(*given, **named)


def toy() -> tuple[Toy, Contrastive]:
    """Word a lies where picture (1, 0) does, word b at (0.6, 0.8)."""
    return Toy((1.0, 0.0), (0.6, 0.8)), Contrastive(Words("a", "b"), classes=("a", "b"), prompt="{}")


def seen(first: float, second: float, caption: str, label: int = -1) -> dict[str, Any]:
    return {"image": torch.tensor([[[first, second]]]), "caption": caption, "label": label}


PAIRS = [seen(1.0, 0.0, "a", 0), seen(0.0, 1.0, "b", 1)]


def log_sum(*logits: float) -> float:
    """The loss of the first of some logits."""
    return math.log(sum(math.exp(one - logits[0]) for one in logits))


# Rows.


def test_rows_by_hand() -> None:
    """Cosines [[1, 0.6], [0, 0.8]] of pictures with captions, times 2; each picture's row, then its caption's."""
    model, task = toy()
    rows = task.rows(model, task.collate(PAIRS))
    torch.testing.assert_close(rows.logits, torch.tensor([[2, 1.2], [2, 0], [0, 1.6], [1.2, 1.6]]))
    assert rows.targets.tolist() == rows.example.tolist() == [0, 0, 1, 1]
    assert rows.examples == 2
    losses = [(log_sum(2, 1.2) + log_sum(2, 0)) / 2, (log_sum(1.6, 0) + log_sum(1.6, 1.2)) / 2]
    assert rows.losses().tolist() == pytest.approx(losses)


def test_signals_by_hand() -> None:
    """A third picture lies nearer to caption a than the second's does to its own."""
    model, task = toy()
    found = observe(model, task, [*PAIRS, seen(0.9, 0.1, "b")])
    assert found.prediction.tolist() == [0, 0, 1, 1, 0, 1], "both captions b are equally near: the first is taken"
    assert found.correct.tolist() == [1, 1, 0]
    assert found.target.tolist() == [0, 0, 1, 1, 2, 2]
    two = observe(model, task, PAIRS)
    assert [rows.tolist() for rows in two.of_rows(np.exp(two.log_prob))] == [
        pytest.approx([math.exp(-log_sum(2, 1.2)), math.exp(-log_sum(2, 0))]),
        pytest.approx([math.exp(-log_sum(1.6, 0)), math.exp(-log_sum(1.6, 1.2))]),
    ]
    assert two.features.tolist() == [pytest.approx([1, 0, 1, 0]), pytest.approx([0, 1, 0.6, 0.8])]


def test_the_mean_loss_is_clips_own(pairs_world: World) -> None:
    w: Any = pairs_world
    batch = w.task.collate([w.request.retain[i] for i in range(9)])
    named = {"pixel_values": batch["images"], "input_ids": batch["tokens"], "attention_mask": batch["mask"]}
    with torch.no_grad():
        own = w.original(**named, return_loss=True).loss
        assert w.task.rows(w.original, batch).losses().mean() == pytest.approx(float(own), rel=1e-5)


def test_means_and_deviations_are_what_the_model_sees(pairs_world: World) -> None:
    w: Any = pairs_world
    shifted = replace(w.task, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))
    picture = w.request.forget[0]["image"]
    expected = (picture - torch.tensor([0.5, 0.4, 0.3])[:, None, None]) / torch.tensor([0.2, 0.3, 0.4])[:, None, None]
    torch.testing.assert_close(shifted.normalised(picture[None])[0], expected)
    two = [w.request.forget[0], w.request.forget[1]]
    own = [{**item, "image": shifted.normalised(item["image"][None])[0]} for item in two]
    found, same = (one.rows(w.original, w.task.collate(items)) for one, items in ((shifted, two), (w.task, own)))
    torch.testing.assert_close(found.logits, same.logits)


def test_a_wrapped_model_is_called_as_a_whole(pairs_world: World) -> None:
    model, task = toy()
    for inner, own, items in (
        (model, task, PAIRS),
        (pairs_world.original, pairs_world.task, [pairs_world.request.forget[i] for i in range(3)]),
    ):
        wrapped = Wrapped(inner)
        assert dual_encoder.unwrapped(wrapped) is inner
        assert isinstance(own, Contrastive)
        batch = own.collate(items)
        assert torch.equal(own.rows(wrapped, batch).logits, own.rows(inner, batch).logits)
        assert wrapped.calls == 1
    with pytest.raises(NotSupported, match=r"expected a dual encoder .* got Linear"):
        dual_encoder.unwrapped(nn.Linear(1, 1))


# An example is one of 32, whatever follows.


@pytest.mark.parametrize(
    ("n", "starts"), [(2, [0]), (31, [0]), (32, [0]), (33, [0, 1]), (64, [0, 32]), (70, [0, 32, 38])]
)
def test_every_example_has_the_same_number_of_others_and_counts_once(n: int, starts: list[int]) -> None:
    task, model = Contrastive(caption_tokenizer()), small_clip(len(caption_tokenizer()))
    data = pairs(0, n)
    found = [batch["index"].tolist() for batch in batches(data, task)]
    assert [one[0] for one in found] == starts
    assert {len(one) for one in found} == {min(n, 32)}
    signals = observe(model, task, data)
    assert len(signals) == n
    assert np.bincount(signals.example).tolist() == [2] * n
    assert signals.features.shape == (n, 32)
    np.testing.assert_allclose(accuracy(model, task, data), signals.correct)
    assert mean_loss(model, task, data) == pytest.approx(signals.loss.mean())
    mates = found[-1]
    own = task.rows(model, task.collate([data[i] for i in mates])).losses().detach().numpy()
    np.testing.assert_allclose(signals.loss[-1], own[-1], rtol=1e-5)


def test_signals_do_not_depend_on_what_follows() -> None:
    task, model = Contrastive(caption_tokenizer()), small_clip(len(caption_tokenizer()))
    data = pairs(0, 70)
    more, fewer = observe(model, task, data), observe(model, task, data[:40])
    np.testing.assert_allclose(more.loss[:32], fewer.loss[:32], rtol=1e-6)
    assert not np.allclose(more.loss[32:40], fewer.loss[32:], rtol=1e-3), "these have other mates"


def test_sets_that_are_held_against_each_other_have_batches_of_one_size(pairs_world: World) -> None:
    """Forget has 12 pairs and holdout 10: in a batch of all, the holdout's would be easier to tell."""
    w = pairs_world
    assert one_size(w.task, (w.request.forget, [], w.request.holdout)) == 10
    assert one_size(w.task, (pairs(0, 40), pairs(40, 90))) == 32
    assert one_size(CausalLM(word_tokenizer()), ([1],)) is None
    found = Setting(Models(w.original, w.original), w.request, w.task, 0, CPU).evidence["original"].signals
    for split in ("forget", "retain", "holdout", "test"):
        own = observe(w.original, w.task, w.request[split], 10)  # type: ignore[index]
        np.testing.assert_array_equal(found[split].loss, own.loss)  # type: ignore[index]


def test_gradients_over_a_set_count_each_example_once(pairs_world: World) -> None:
    w = pairs_world
    found = mean_gradient(w.original, w.task, w.request.retain)
    total = sum(
        w.task.rows(w.original, batch).losses()[skipped:].sum() / 40
        for batch, skipped in zip(batches(w.request.retain, w.task), (0, 24), strict=True)
    )
    weights = dict(w.original.named_parameters())
    assert isinstance(total, Tensor)
    for name, gradient in zip(found, torch.autograd.grad(total, [weights[name] for name in found]), strict=True):
        torch.testing.assert_close(found[name], gradient, rtol=1e-3, atol=1e-6)


def test_what_needs_examples_of_their_own_says_so(pairs_world: World) -> None:
    w = pairs_world
    with pytest.raises(NotSupported, match="their own example alone, got Contrastive"):
        next(per_example(w.original, w.task, w.request.forget, trainable(w.original)))
    assert exact(w.original, w.task, w.request.forget).keys() == trainable(w.original).keys()
    batch = next(batches(w.request.retain, w.task, 5))
    rows = w.task.rows(w.original, batch)
    assert torch.equal(remembered(w.original, w.task, w.request.retain)(batch), rows.logits.detach())
    summed = remembered(w.original, w.task, w.request.retain, summed_losses)(batch)
    torch.testing.assert_close(summed, 2 * rows.losses().detach())


# Zero-shot.


def test_zero_shot_by_hand() -> None:
    """Prompts a and b are (1, 0) and (0.6, 0.8); the label counts, and no other pair."""
    model, task = toy()
    own = task.classified()
    rows = own.rows(model, own.collate([seen(0, 1, "a", 1), seen(1, 0, "b", 0)]))
    torch.testing.assert_close(rows.logits, torch.tensor([[0, 1.6], [2, 1.2]]))
    assert rows.targets.tolist() == [1, 0]
    assert rows.example.tolist() == [0, 1]
    assert own.classified() is own  # type: ignore[attr-defined]
    assert isinstance(own, Classed)
    assert not own.rows_depend_on_batch
    assert with_own_rows(own) is own
    assert task.prompts(model).tolist() == [pytest.approx([1, 0]), pytest.approx([0.6, 0.8])]  # type: ignore[union-attr]
    assert task.labels(PAIRS).tolist() == [0, 1]
    assert task.labels([seen(0, 1, "a"), {"caption": "b"}]).tolist() == [-1, -1]


def test_zero_shot_needs_labels_and_classes() -> None:
    model, task = toy()
    with pytest.raises(NotSupported, match="every pair to have a label, got one without"):
        task.classified().rows(model, task.collate([seen(0, 1, "a")]))
    bare = replace(task, classes=())
    assert bare.prompts(Toy((1.0, 0.0))) is None
    for refused in (bare.classified, lambda: with_own_rows(bare)):
        with pytest.raises(NotSupported, match="expected the classes' names"):
            refused()


def test_pictures_can_be_perturbed(pairs_world: World) -> None:
    w = pairs_world
    own = w.task.classified()  # type: ignore[attr-defined]
    assert isinstance(w.task, Perturbable)
    assert isinstance(own, Perturbable)
    assert isinstance(own, ZeroShot)
    batch = own.collate([w.request.forget[i] for i in range(4)])
    moved = pgd(w.original, own, batch, Walk(radius=0.1, step=0.05, steps=5), seeded(0))
    change = (own.inputs(moved) - own.inputs(batch)).abs()
    assert 0.05 < float(change.max()) <= 0.1 + 1e-6
    worse = own.rows(w.original, moved).losses() - own.rows(w.original, batch).losses()
    assert bool((worse > 0).all())
    one = own.collate([w.request.forget[0]])
    alone = pgd(w.original, own, one, Walk(radius=0.1, step=0.05, steps=5))
    among = pgd(w.original, own, batch, Walk(radius=0.1, step=0.05, steps=5))
    torch.testing.assert_close(own.inputs(alone)[0], own.inputs(among)[0])
    again = own.collate(own.items(batch))
    assert all(torch.equal(value, again[name]) for name, value in batch.items())


# Parts of a model.


def test_blocks_hold_every_parameter_of_a_module_once(pairs_world: World) -> None:
    model, task = pairs_world.original, pairs_world.task
    blocks = task.blocks(model)
    assert [name for name, _ in blocks] == [
        "vision_model.embeddings",
        "text_model.embeddings",
        "vision_model.pre_layrnorm",
        "text_model.encoder.layers.0",
        "vision_model.encoder.layers.0",
        "text_model.encoder.layers.1",
        "vision_model.encoder.layers.1",
        "head",
    ]
    held = [id(p) for _, group in blocks for module in group for p in module.parameters()]
    assert len(held) == len(set(held))
    assert {id(p) for name, p in model.named_parameters() if name != "logit_scale"} == set(held)
    toy_model, toy_task = toy()
    assert [name for name, _ in toy_task.blocks(toy_model)] == ["text_words", "image_layer"]


def test_endings(pairs_world: World) -> None:
    model: Any = pairs_world.original
    assert pairs_world.task.endings(model, {}) == [model.visual_projection, model.text_projection]
    assert pairs_world.task.classified().endings(model, {}) == [model.visual_projection]  # type: ignore[attr-defined]
    own, task = toy()
    assert task.endings(own, {}) == [own.image_layer, own.text_words]
    nameless = Toy((1.0, 0.0))
    nameless.first = nameless._modules.pop("image_layer")  # type: ignore[assignment]
    with pytest.raises(NotSupported, match=r"one for texts, got text_words, first\. Rename the towers"):
        task.endings(nameless, {})
    with pytest.raises(NotSupported, match="which has none"):
        task.head(own, {})


def test_both_sides_are_unit_vectors_and_the_features(pairs_world: World) -> None:
    w: Any = pairs_world
    assert isinstance(w.task, Paired)
    first, second = w.task.embedded(w.original, w.request.retain)
    np.testing.assert_allclose(
        torch.cat((first, second), 1), observe(w.original, w.task, w.request.retain).features, atol=1e-6
    )
    torch.testing.assert_close(first.norm(dim=1), torch.ones(40))
    torch.testing.assert_close(second.norm(dim=1), torch.ones(40))


# Tokens.


def test_tokens_as_either_library_has_them() -> None:
    ours = Contrastive(caption_tokenizer(), longest=4)
    assert ours.encode("red ann baker") == [1, 4, 8, 2], "cut, and its end is there"
    batch = ours.collate([{"image": torch.zeros(3, 8, 8), "caption": text} for text in ("red", "red ann")])
    assert batch["tokens"].tolist() == [[1, 4, 2, 0], [1, 4, 8, 2]]
    assert batch["mask"].tolist() == [[1, 1, 1, 0], [1, 1, 1, 1]]
    assert batch["labels"].tolist() == [-1, -1]
    theirs = Contrastive(Words("a", "b"))
    assert theirs.encode("a") == [3, 1, 4]
    batch = theirs.collate([seen(0, 1, "a"), seen(0, 1, "b a")])
    assert batch["tokens"].tolist() == [[3, 1, 4, 0], [3, 2, 1, 4]]
    assert batch["mask"].tolist() == [[1, 1, 1, 0], [1, 1, 1, 1]]


def test_its_name_tells_tokenizers_and_settings_apart_and_nothing_else() -> None:
    task = Contrastive(caption_tokenizer(), classes=("red",))
    fresh = repr(task)
    task.encode("red ann baker")
    assert repr(Contrastive(task.tokenizer, classes=("red",))) == fresh, "where it was told to cut is no part of it"
    others = [
        Contrastive(word_tokenizer(), classes=("red",)),
        Contrastive(Words("a"), classes=("red",)),
        Contrastive(Words("b"), classes=("red",)),
        *(replace(task, **{key: value}) for key, value in [("classes", ()), ("longest", 9), ("prompt", "a {}")]),
        replace(task, mean=(0.5,), std=(0.5,)),
    ]
    assert len({fresh, *map(repr, others)}) == 8
    script = (
        "from tests.worlds import caption_tokenizer\nfrom unrecall.tasks import Contrastive\n"
        "print(repr(Contrastive(caption_tokenizer(), classes=('red',))))"
    )
    environment = os.environ | {"PYTHONHASHSEED": "7"}
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False, env=environment
    )
    assert done.stdout.strip() == fresh, done.stderr


def test_an_exported_model_opens_again(pairs_world: World, tmp_path: Path) -> None:
    w: Any = pairs_world
    w.task.export(w.original, tmp_path / "left")
    opened = load_clip(str(tmp_path / "left"))
    before, after = w.original.state_dict(), opened.model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    again = replace(w.task, tokenizer=opened.tokenizer, caption_tokens={})
    assert again.encode("red ann baker") == w.task.encode("red ann baker")
    np.testing.assert_array_equal(
        observe(opened.model, again, w.request.forget).loss, observe(w.original, w.task, w.request.forget).loss
    )
    model, task = toy()
    task.export(model, tmp_path / "toy")
    assert not (tmp_path / "toy").exists(), "its weights are all there is"


def test_pictures_and_bytes_for_people() -> None:
    task = Contrastive(caption_tokenizer())
    item = {"image": torch.full((3, 2, 2), 0.5), "caption": "red ann"}
    shown = task.exhibit(item, "sure")
    assert (shown.kind, shown.caption) == ("picture", "red ann: sure")
    assert shown.content.startswith("data:image/png;base64,")
    assert task.raw(item) == bytes([127] * 12) + b"red ann"


# What can't be used.


def changed(request: Request, **values: Any) -> Request:
    """The request with a second retain pair that is off."""
    kept: Any = request.retain
    return replace(request, retain=[kept[0], {**kept[1], **values}, *kept[2:]])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"caption": None}, r"retain\[1\]: expected a caption, got None"),
        ({"caption": " "}, r"retain\[1\]: expected a caption, got ' '"),
        ({"image": "a path"}, r"retain\[1\]: expected image to be a tensor .*, got str"),
        ({"image": torch.zeros(8, 8)}, r"retain\[1\]: expected image to be a tensor .*, got shape \(8, 8\)"),
        ({"image": torch.zeros(3, 8, 9)}, r"retain\[1\]: expected an image of shape \(3, 8, 8\), got \(3, 8, 9\)"),
        ({"image": torch.full((3, 8, 8), torch.nan)}, r"retain\[1\]: expected a finite image"),
        ({"image": torch.full((3, 8, 8), 255.0)}, r"retain\[1\]: expected an image within \[0, 1\], got \[255, 255\]"),
        ({"label": "red"}, r"retain\[1\]: expected label to be a whole number, got 'red'"),
        ({"label": 4}, r"retain\[1\]: expected a label in 0\.\.3 \(the classes\), got 4"),
        ({"caption": "red " * 20}, r"retain\[1\]: expected at most 16 tokens .* got 22. Set longest=16 to cut"),
    ],
)
def test_pairs_that_can_not_be_used(pairs_world: World, values: dict[str, Any], message: str) -> None:
    w = pairs_world
    with pytest.raises(BadInput, match=f"^{message}"):
        w.task.check(w.original, changed(w.request, **values))


def test_requests_that_can_not_be_used(pairs_world: World) -> None:
    w: Any = pairs_world
    none = replace(w.request, holdout=[3])
    with pytest.raises(BadInput, match=r"^holdout: expected 2 pairs or more"):
        w.task.check(w.original, none)
    with pytest.raises(BadInput, match=r"^forget\[0\]: expected a mapping with 'image' and 'caption', got int"):
        w.task.check(w.original, replace(w.request, forget=[3, 4]))
    with pytest.raises(BadInput, match=r"expected masked classes among \('red', .*\), got 7"):
        w.task.check(w.original, replace(w.request, kind="class", masked=(7,)))
    with pytest.raises(BadInput, match=r"got classes \[0\] in forget and \[0\] of them in retain"):
        w.task.check(w.original, replace(w.request, kind="class", masked=(0,)))
    long = replace(w.task, prompt="red " * 20 + "{}")
    with pytest.raises(BadInput, match=r"^prompt of 'red': expected at most 16 tokens"):
        long.check(w.original, w.request)


def test_models_that_can_not_be_used(pairs_world: World) -> None:
    w: Any = pairs_world
    fewer = small_clip(6)
    with pytest.raises(BadInput, match=r"'blue': expected tokens below 6 \(the model's vocabulary\), got 6\. Load"):
        w.task.check(fewer, w.request)
    poisoned = copy.deepcopy(w.original)
    poisoned.visual_projection.weight.data[0, 0] = torch.nan
    with pytest.raises(BadInput, match="expected finite weights"):
        w.task.check(poisoned, w.request)
    _, task = toy()
    others = [[seen(x, 0.5, "a"), seen(0.5, x, "b")] for x in (0.1, 0.2, 0.3)]
    request = Request(PAIRS, *others)
    task.check(Toy((1.0, 0.0), (0.6, 0.8)), request)
    with pytest.raises(BadInput, match="one width, got 2 for images and 3 for captions"):
        task.check(Toy((1.0, 0.0, 0.0), (0.6, 0.8, 0.0)), request)
    with pytest.raises(BadInput, match=r"expected to accept images \(2, 1, 1, 2\) .*, got: mat1 and mat2"):
        other = Toy((1.0, 0.0), (0.6, 0.8))
        other.image_layer = nn.Linear(5, 2)
        task.check(other, request)
    with pytest.raises(NotSupported, match="expected a dual encoder"):
        task.check(nn.Linear(1, 1), request)


def test_settings_that_can_not_be_used() -> None:
    for prompt in ("a picture", "{} and {}", "{name}"):
        with pytest.raises(BadInput, match="expected prompt to have one slot"):
            Contrastive(Words("a"), prompt=prompt)
    with pytest.raises(BadInput, match="expected as many means as deviations"):
        Contrastive(Words("a"), mean=(0.5,))


# Attacks.


def test_attacks_that_perturb_see_one_example_at_a_time(pairs_world: World) -> None:
    """Where there are no classes, there is a row with the reason; the other attacks see the pairs."""
    w = pairs_world
    own = w.task.classified()  # type: ignore[attr-defined]
    for attack in (UMA(), ResidualKnowledge(), Prototypical()):
        assert attack.adapted(w.task) == own
        assert attack.adapted(own) is own
    assert Relearn().adapted(w.task) is w.task
    with pytest.raises(NotSupported, match="depend on one example each, got a task that mixes"):
        with_own_rows(SimpleNamespace(rows_depend_on_batch=True))  # type: ignore[arg-type]
    bare: Any = replace(w.task, classes=())  # type: ignore[type-var]
    reason = "Contrastive: expected the classes' names, got none. Set classes=(...)."
    setting = Setting(Models(w.original, w.original), w.request, w.task, 0, CPU)
    nameless = setting.with_task(bare)
    uma, residual = score_finding(UMA(), nameless), score_finding(ResidualKnowledge(), nameless)
    assert [uma.report.note, residual.report.note] == [f"{name}: {reason}" for name in ("UMA", "ResidualKnowledge")]
    assert [row.name for row in (*uma.measurements, *residual.measurements)] == ["uma_mean", "residual_knowledge_sums"]
    assert residual.measurements[0].unlearned.value is None
    text = score_finding(ResidualKnowledge(), setting.with_task(CausalLM(word_tokenizer())))
    assert text.report.note.startswith("ResidualKnowledge: expected a task with continuous inputs, got CausalLM.")
    norms = score_finding(GradNorm(), setting)
    assert norms.measurements[0].note.startswith(
        "GradNorm: expected examples that have a loss of their own, got Contrastive."
    )


def test_a_disguise_hides_in_the_last_block(pairs_world: World) -> None:
    w = pairs_world
    hidden = Relearn().disguise(w.original, Job(w.request, w.task, session=CPU))
    assert isinstance(hidden, nn.Module)
    assert (
        accuracy(hidden, w.task, w.request.forget).mean() <= 0.5 * accuracy(w.original, w.task, w.request.forget).mean()
    )
    last = {p for module in w.task.blocks(hidden)[-1][1] for p in module.parameters()}
    before = dict(w.original.named_parameters())
    assert {name for name, p in hidden.named_parameters() if not torch.equal(p, before[name])} == {
        name for name, p in hidden.named_parameters() if p in last
    }


def test_quantisation_leaves_both_projections(pairs_world: World) -> None:
    w: Any = pairs_world
    found = matrices(w.original, w.task, w.request.retain)
    assert len(found) == 2 * 2 * 6 + 1, "six matrices a layer, and the patches"
    assert not {w.original.visual_projection, w.original.text_projection} & set(found)


def test_a_quick_audit_from_end_to_end(pairs_world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The original itself is given as unlearned: every judged figure of forgetting stands out, and controls hold.

    With few pairs, relearning at one rate or another brings little back by chance: here it tries more. Whether enough
    pairs are hidden for its positive control then hangs on a pair or two; it holds, or is not run.
    """
    monkeypatch.setenv("UNRECALL_CACHE", str(tmp_path / "cache"))
    w = pairs_world
    session = Session(folder=tmp_path / "parts", device="cpu")
    more: Any = {"steps": (1, 2, 4, 8, 16, 32), "learning_rates": (1e-4, 3e-4, 1e-3)}
    attacks = [
        replace(attack, **more) if isinstance(attack, Relearn) else attack for attack in suite("quick").suiting(w.task)
    ]
    record = audit(
        original=w.original,
        unlearned=copy.deepcopy(w.original),
        request=w.request,
        task=w.task,
        retrained=w.retrained,
        attacks=suite(*attacks),
        session=session,
        show_examples=True,
    )
    values = {m.name: m for m in record.measurements}
    for name in ("forget_accuracy", "forget_retrieval_first", "relearn_mean", "quantise_mean", "loss_auc"):
        assert values[name].judged == (name != "loss_auc")
        assert values[name].unlearned.value is not None
        assert values[name].reference is not None
        assert values[name].unlearned.value > values[name].reference + 0.2, name
    assert values["forget_zero_shot"].reference == 1, "what colour it is everybody sees"
    held = {one.name: (one.positive_holds, one.negative_holds) for one in record.attacks}
    assert held.pop("relearn") in ((None, True), (True, True))
    assert held == {
        "quantise": (True, True),
        "residual_knowledge": (None, True),
        "linear_probe": (False, True),
        "cka": (None, None),
        "loss": (True, True),
        "rmia": (True, True),
    }, "the original recognises no colour that retrained models don't, and there are two of them"
    shown = page([record])
    assert "Retrieval among 82, first, forget" in shown
    assert shown.count("data:image/png;base64,") >= 8


def test_standard_and_quick_audits_are_there() -> None:
    _, task = toy()
    for name in ("standard", "quick"):
        names = [type(attack).__name__ for attack in suite(name).suiting(task)]
        assert {"Relearn", "Quantise", "ResidualKnowledge", "Loss", "RMIA"} <= set(names)
    assert {Relearn, Quantise, Loss, UMA} <= set(map(type, suite("standard").suiting(task)))


def test_classes_that_are_none_are_refused() -> None:
    with pytest.raises(BadInput, match="Contrastive: expected classes to be a tuple of names"):
        Contrastive(caption_tokenizer(), classes=None)  # type: ignore[arg-type]
