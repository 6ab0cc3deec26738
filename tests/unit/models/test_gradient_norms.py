"""Norms of single examples' gradients: by hand, and against one backward pass an example, for layers of all kinds."""

import copy
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.unit.methods.test_distillation import same
from tests.unit.models.test_importance import Ragged
from tests.worlds import facts, small_llama, small_mixtures, word_tokenizer
from unrecall.data.examples import Examples
from unrecall.models import gradient_norms as norms
from unrecall.models.gradient_norms import Product, gradient_norms, of_products
from unrecall.tasks import CausalLM, Classification
from unrecall.tasks.base import Task
from unrecall.training.randomness import own_randomness, seeded


def one_by_one(model: nn.Module, task: Task, examples: Examples) -> np.ndarray:
    """A backward pass an example."""
    model, norms = copy.deepcopy(model).eval().requires_grad_(True), []
    for i in range(len(examples)):
        loss = task.losses(model, task.collate([examples[i]])).sum()
        gradients = torch.autograd.grad(loss, list(model.parameters()), allow_unused=True)
        norms.append(sum(float(g.double().square().sum()) for g in gradients if g is not None) ** 0.5)
    return np.array(norms)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[tuple[set[str], int]]:
    """In which weights, and for how many examples, gradients themselves were computed."""
    calls: list[tuple[set[str], int]] = []
    exact = norms._exact

    def count(model: nn.Module, task: Task, examples: Examples, weights: dict[str, Tensor]) -> Tensor:
        calls.append((set(weights), len(examples)))
        return exact(model, task, examples, weights)

    monkeypatch.setattr(norms, "_exact", count)
    return calls


# By hand.


def test_a_linear_layer_by_hand() -> None:
    """Two classes with equal logits: p - y is (-1/2, 1/2), so the norm is |x| / sqrt 2, and with a bias |(x, 1)|."""
    data = [(torch.tensor([3.0, 4.0]), 0), (torch.tensor([0.0, 1.0]), 1), (torch.tensor([6.0, 8.0]), 0)]
    model = nn.Linear(2, 2, bias=False)
    nn.init.zeros_(model.weight)
    task = Classification(bounds=(0, 10))
    assert gradient_norms(model, task, data) == pytest.approx([5 / math.sqrt(2), 1 / math.sqrt(2), 10 / math.sqrt(2)])
    model = nn.Linear(2, 2)
    nn.init.zeros_(model.weight)
    nn.init.zeros_(model.bias)
    assert gradient_norms(model, task, data) == pytest.approx([math.sqrt(s / 2) for s in (26, 2, 101)])


def test_what_is_left_of_a_loss_near_0_keeps_its_gradient() -> None:
    """At a margin of 30 the target's p is 1 in float32; 1 - p is exp(-30), and the norm sqrt 2 times that."""
    model = nn.Linear(1, 2, bias=False)
    model.weight.data.copy_(torch.tensor([[30.0], [0.0]]))
    found = gradient_norms(model, Classification(), [(torch.ones(1), 0)] * 3)
    assert found == pytest.approx([math.sqrt(2) * math.exp(-30)] * 3, rel=1e-5)


def test_products_by_hand() -> None:
    """l = (1, 2), (3, 4) and r = (1), (10): the matrix is (31, 42), its squared norm 961 + 1764; either way."""
    left, right = torch.tensor([[[1.0, 2.0], [3.0, 4.0]]]), torch.tensor([[[1.0], [10.0]]])
    assert of_products([Product(left, right)]).tolist() == [2725.0]
    apart = [Product(left[:, :1], right[:, :1]), Product(left[:, 1:], right[:, 1:])]
    assert of_products(apart).tolist() == [2725.0]
    wide = [Product(F.pad(part.left, (0, 50)), F.pad(part.right, (0, 50))) for part in apart]
    assert of_products(wide).tolist() == [2725.0]


def test_words_are_rows_of_their_matrix_by_hand() -> None:
    """Word 1 twice and word 0 once: rows (3) and (1 + 2); beside a dense product that adds (10, 20) to them."""
    words, right = torch.tensor([[1, 0, 1]]), torch.tensor([[[1.0], [3.0], [2.0]]])
    assert of_products([Product(words, right)]).tolist() == [18.0]
    dense = Product(torch.tensor([[[1.0, 2.0]]]), torch.tensor([[[10.0]]]))
    assert of_products([Product(words, right), dense]).tolist() == [13.0**2 + 23.0**2]
    assert of_products([dense, Product(words, right)]).tolist() == [13.0**2 + 23.0**2]


# Against one backward pass an example.


class Twice(nn.Module):
    """A layer used twice, one whose weight is used elsewhere too, a parameter of its own, and work in place."""

    def __init__(self) -> None:
        super().__init__()
        self.shared, self.read, self.last = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 3)
        self.scale, self.unused = nn.Parameter(torch.ones(6)), nn.Linear(2, 2)

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = self.shared(self.shared(inputs).relu_()) * self.scale
        hidden = self.read(hidden) + F.linear(hidden, self.read.weight)
        return self.last(hidden.mul_(2))  # type: ignore[no-any-return]


class Sequenced(nn.Module):
    """Examples stand in the second dimension of a sequence."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.steps, self.inner, self.head = steps, nn.Linear(6 // steps, 6), nn.Linear(6, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        steps = inputs.view(len(inputs), self.steps, -1).transpose(0, 1)
        return self.head(self.inner(steps).relu().sum(0))  # type: ignore[no-any-return]


class Attending(nn.Module):
    """Attention of PyTorch's own, whose matrices are no layer's."""

    def __init__(self) -> None:
        super().__init__()
        self.attention, self.head = nn.MultiheadAttention(3, 1, batch_first=True), nn.Linear(3, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        steps = inputs.view(len(inputs), 2, 3)
        return self.head(self.attention(steps, steps, steps)[0].sum(1))  # type: ignore[no-any-return]


def seeded_model(build: Callable[[], nn.Module]) -> nn.Module:
    with own_randomness(0):
        model = build()
        for norm in model.modules():
            if isinstance(norm, nn.modules.batchnorm._BatchNorm):
                norm.running_mean.uniform_(-1, 1)  # type: ignore[union-attr]
                norm.running_var.uniform_(0.5, 2)  # type: ignore[union-attr]
        return model


FLAT = [(torch.rand(6, generator=torch.Generator().manual_seed(i)), i % 3) for i in range(7)]
PICTURES = [(torch.rand(2, 12, 9, generator=torch.Generator().manual_seed(i)), i % 3) for i in range(7)]


ATTENTION_OUT = {"attention.out_proj.weight", "attention.out_proj.bias"}


def convolutions() -> nn.Module:
    """Strides, paddings, dilations, groups; many positions and few; every norm."""
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(inplace=True),
        nn.Conv2d(4, 6, (3, 1), stride=(2, 1), padding=(1, 0), dilation=(2, 1)),
        nn.GroupNorm(2, 6),
        nn.Conv2d(6, 32, 3, stride=2, bias=False),
        nn.Conv2d(32, 32, 3, padding=1),
        nn.Flatten(),
        nn.LayerNorm(256),
        nn.Linear(256, 3),
    )


def odd_convolutions() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding="same"),
        nn.Conv2d(4, 4, 3, groups=2),
        nn.Conv2d(4, 4, 3, padding=1, padding_mode="circular"),
        nn.BatchNorm2d(4, track_running_stats=True, affine=False),
        nn.Flatten(),
        nn.utils.parametrizations.weight_norm(nn.Linear(280, 8)),
        nn.RMSNorm(8),
        nn.Linear(8, 3),
    )


@pytest.mark.parametrize(
    ("build", "data", "without"),
    [
        (convolutions, PICTURES, set()),
        (
            odd_convolutions,
            PICTURES,
            {f"{i}.{name}" for i in range(3) for name in ("weight", "bias")}
            | {"5.bias", "5.parametrizations.weight.original0", "5.parametrizations.weight.original1"},
        ),
        (Twice, FLAT, {"scale", "read.weight"}),
        (lambda: Sequenced(2), FLAT, {"inner.weight", "inner.bias"}),
        (Attending, FLAT, {"attention.in_proj_weight", "attention.in_proj_bias", *ATTENTION_OUT}),
    ],
)
def test_norms_are_those_of_a_backward_pass_an_example(
    build: Callable[[], nn.Module],
    data: Sequence[Any],
    without: set[str],
    counted: list[tuple[set[str], int]],
) -> None:
    """Only weights `without` a formula are differentiated, and all for three examples, looked at in both orders."""
    model = seeded_model(build)
    found = gradient_norms(model, Classification(), data)
    assert found == pytest.approx(one_by_one(model, Classification(), data), rel=1e-4)
    assert [number for _, number in counted[:2]] == [3, 3]
    assert counted[2:] == ([(without, len(data))] if without else [])


def test_what_formulas_do_not_fit_is_differentiated(counted: list[tuple[set[str], int]]) -> None:
    """Three steps and three examples: what enters looks as if the first dimension were the examples'."""
    model = seeded_model(lambda: Sequenced(3))
    found = gradient_norms(model, Classification(), FLAT)
    assert found == pytest.approx(one_by_one(model, Classification(), FLAT), rel=1e-4)
    assert counted[-1] == ({name for name, _ in model.named_parameters()}, len(FLAT))


@pytest.mark.parametrize("at_once", [1, 2, 3, 100])
def test_batches_do_not_matter_and_nothing_is_left_behind(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    model = seeded_model(convolutions).train()
    monkeypatch.setattr(Classification, "at_once", at_once)
    model[0].requires_grad_(False)  # type: ignore[index]
    before = copy.deepcopy(model)
    found = gradient_norms(model, Classification(), PICTURES)
    assert found == pytest.approx(one_by_one(model, Classification(), PICTURES), rel=1e-4)
    assert same(model, before)
    flags = [[p.requires_grad for p in part.parameters()] for part in (model, before)]
    assert flags[0] == flags[1]
    assert model.training
    assert all(p.grad is None for p in model.parameters())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_rows_that_are_ragged(counted: list[tuple[set[str], int]]) -> None:
    """An example of class k has k + 1 rows."""
    model = seeded_model(lambda: nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 9), nn.Unflatten(1, (3, 3))))
    found = gradient_norms(model, Ragged(), FLAT)
    assert found == pytest.approx(one_by_one(model, Ragged(), FLAT), rel=1e-4)
    assert len(counted) == 2


# Language models.


def gpt2(words: int) -> nn.Module:
    from transformers import GPT2Config, GPT2LMHeadModel

    return GPT2LMHeadModel(GPT2Config(vocab_size=words, n_positions=64, n_embd=16, n_layer=2, n_head=2))  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("build", "without"),
    [
        (small_llama, set()),
        (gpt2, {"transformer.wpe.weight"}),
        (lambda words: small_mixtures(words)[0], None),
    ],
)
@pytest.mark.parametrize("prompts", [False, True])
def test_texts_of_all_lengths_and_tied_weights(
    build: Callable[[int], nn.Module], without: set[str] | None, prompts: bool, counted: list[tuple[set[str], int]]
) -> None:
    """The embeddings are the head's matrix too; position embeddings are the same for a whole batch; experts differ."""
    task = CausalLM(word_tokenizer(), template=None, prompts=prompts)
    texts = [*facts()[:3], {"prompt": "", "answer": "ann"}, {"prompt": "what is", "answer": "ned cook ola pam ned"}]
    model = seeded_model(lambda: build(len(task.tokenizer)))
    found = gradient_norms(model, task, texts)
    assert found == pytest.approx(one_by_one(model, task, texts), rel=1e-4)
    if without is not None:
        assert counted[2:] == ([(without, len(texts))] if without else [])


def test_a_head_without_a_bias_that_is_tied_by_hand() -> None:
    """One word w in, the same matrix out: the gradient of row k is (p_k - y_k) e_w, and row w has E^T (p - y) more."""
    from transformers import LlamaConfig, LlamaForCausalLM

    task = CausalLM(word_tokenizer(), template=None, ends=False)
    size = len(task.tokenizer)
    config = LlamaConfig(
        vocab_size=size, hidden_size=8, intermediate_size=8, num_hidden_layers=0, num_attention_heads=2,
        tie_word_embeddings=True, rms_norm_eps=0.0,
    )  # fmt: skip
    with own_randomness(0):
        model = LlamaForCausalLM(config)
    text = {"prompt": "", "answer": "ann"}
    batch = task.collate([text])
    (start, word) = batch["tokens"][0].tolist()
    table = model.get_input_embeddings().weight.detach().double()
    entered = table[start]
    scale = entered.square().mean().sqrt()
    unit = entered / scale
    residual = (table @ unit).softmax(0)
    residual[word] -= 1
    pulled = table.T @ residual
    gradient = torch.outer(residual, unit)
    gradient[start] += (pulled - unit * (unit * pulled).mean()) / scale
    gain = unit * pulled
    expected = float((gradient.square().sum() + gain.square().sum()).sqrt())
    assert gradient_norms(model, task, [text, text]) == pytest.approx([expected] * 2, rel=1e-4)


class Sorting(nn.Module):
    """Puts its batch in order by the first number, and back."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.head = nn.Linear(6, 8), nn.Linear(8, 9)

    def forward(self, x: Tensor) -> Tensor:
        order = x[:, 0].argsort()
        return self.head(torch.tanh(self.first(x[order])))[order.argsort()]


def test_a_model_that_puts_a_batch_in_another_order_is_differentiated() -> None:
    """Whose first examples stand in that order, so that only the way back shows it."""
    first = [(torch.full((6,), i / 10), i % 9) for i in range(3)]
    data = [*first, *((torch.rand(6, generator=seeded(i)), i % 9) for i in range(8))]
    model = seeded_model(Sorting)
    found = gradient_norms(model, Classification(), data)
    assert found == pytest.approx(one_by_one(model, Classification(), data), rel=1e-4)
