"""open_clip's models, and a stand-in of their shape for where open_clip isn't installed."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.unit.tasks.test_contrastive import Words, Wrapped
from tests.worlds import COLOURS, CPU, NAMES, pairs
from unrecall.attacks import Quantise
from unrecall.data.request import Request
from unrecall.errors import BadInput
from unrecall.methods import RMU, CFk, EUk, GradDiff
from unrecall.models.layers import matrices
from unrecall.models.observe import accuracy, observe
from unrecall.tasks import Contrastive
from unrecall.training.job import Job
from unrecall.training.loop import Fit, Phase, fit
from unrecall.training.randomness import seeded

WIDTH, CONTEXT = 32, 8


class Layer(nn.Module):
    """Attention and a matrix, as open_clip's `ResidualAttentionBlock`."""

    def __init__(self) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(WIDTH)
        self.attn = nn.MultiheadAttention(WIDTH, 2, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.GELU())

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        y = self.ln_1(x)
        x = x + self.attn(y, y, y, need_weights=False, attn_mask=mask)[0]
        return x + self.mlp(x)  # type: ignore[no-any-return]


class Layers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.resblocks = nn.ModuleList([Layer(), Layer()])

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        for layer in self.resblocks:
            x = layer(x, mask)
        return x


class Visual(nn.Module):
    """The names of open_clip's `VisionTransformer`."""

    def __init__(self) -> None:
        super().__init__()
        self.positional_embedding = nn.Parameter(0.1 * torch.randn(4, WIDTH))
        self.conv1 = nn.Conv2d(3, WIDTH, 4, 4, bias=False)
        self.ln_pre = nn.LayerNorm(WIDTH)
        self.transformer = Layers()
        self.ln_post = nn.LayerNorm(WIDTH)
        self.proj = nn.Parameter(WIDTH**-0.5 * torch.randn(WIDTH, 16))

    def forward(self, images: Tensor) -> Tensor:
        x = self.conv1(images).flatten(2).transpose(1, 2) + self.positional_embedding
        return self.ln_post(self.transformer(self.ln_pre(x)).mean(1)) @ self.proj  # type: ignore[no-any-return]


class StandIn(nn.Module):
    """The names, and the order of the parts, of open_clip's `CLIP`."""

    def __init__(self, words: int) -> None:
        super().__init__()
        self.context_length, self.vocab_size = CONTEXT, words
        self.visual = Visual()
        self.transformer = Layers()
        self.token_embedding = nn.Embedding(words, WIDTH)
        self.positional_embedding = nn.Parameter(0.1 * torch.randn(CONTEXT, WIDTH))
        self.ln_final = nn.LayerNorm(WIDTH)
        self.text_projection = nn.Parameter(WIDTH**-0.5 * torch.randn(WIDTH, 16))
        self.logit_scale = nn.Parameter(torch.tensor(2.6))

    def encode_image(self, image: Tensor, normalize: bool = False) -> Tensor:
        return self.visual(image)  # type: ignore[no-any-return]

    def encode_text(self, text: Tensor, normalize: bool = False) -> Tensor:
        mask = torch.full((CONTEXT, CONTEXT), -torch.inf).triu(1)
        x = self.ln_final(self.transformer(self.token_embedding(text) + self.positional_embedding, mask))
        return x[torch.arange(len(x)), text.argmax(1)] @ self.text_projection  # type: ignore[no-any-return]

    def forward(self, image: Tensor, text: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.encode_image(image), self.encode_text(text), self.logit_scale.exp()


class Read(Words):
    """As many tokens as the model has places for."""

    context_length = CONTEXT


@dataclass(frozen=True)
class Made:
    """A small model that has learned some pairs, and what goes with it. `beside`: parameters in no module of theirs."""

    model: nn.Module
    task: Contrastive
    request: Request
    beside: set[str]
    names: list[str]


def stand_in() -> tuple[nn.Module, Any]:
    tokenizer = Read(*COLOURS, *NAMES, "baker", "cook", "diver", "farmer")
    return StandIn(len(tokenizer.encoder)), tokenizer


def real(kind: str) -> tuple[nn.Module, Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        library = pytest.importorskip("open_clip")
    vision = library.CLIPVisionCfg(layers=2, width=WIDTH, head_width=16, patch_size=4, image_size=8)
    tokenizer = library.SimpleTokenizer(context_length=CONTEXT)
    text = library.CLIPTextCfg(context_length=CONTEXT, vocab_size=tokenizer.vocab_size, width=WIDTH, heads=2, layers=2)
    return getattr(library, kind)(16, vision, text), tokenizer


NAMED = [
    "visual.conv1",
    "token_embedding",
    "visual.ln_pre",
    "transformer.resblocks.0",
    "visual.transformer.resblocks.0",
    "transformer.resblocks.1",
    "visual.transformer.resblocks.1",
    "head",
]
BESIDE = {"logit_scale", "positional_embedding", "text_projection", "visual.positional_embedding", "visual.proj"}
OWN = [f"text.{name}" if name.startswith("t") else name for name in NAMED]
OWN_BESIDE = {f"text.{name}" if name.startswith(("pos", "text")) else name for name in BESIDE}
MODELS: dict[str, tuple[Callable[[], tuple[nn.Module, Any]], list[str], set[str]]] = {
    "stand-in": (stand_in, NAMED, BESIDE),
    "CLIP": (lambda: real("CLIP"), NAMED, BESIDE | {"visual.class_embedding"}),
    "CustomTextCLIP": (lambda: real("CustomTextCLIP"), OWN, OWN_BESIDE | {"visual.class_embedding"}),
}


@pytest.fixture(scope="module", params=MODELS)
def made(request: pytest.FixtureRequest) -> Made:
    build, names, beside = MODELS[request.param]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model, tokenizer = build()
    task = Contrastive(tokenizer, classes=tuple(COLOURS), prompt="{}", longest=CONTEXT)
    data = pairs(0, 100)
    red, rest = [pair for pair in data if pair["label"] == 0], [pair for pair in data if pair["label"] != 0]
    asked = Request(red[:8], red[8:12] + rest[:28], red[12:20], red[20:] + rest[28:40])
    recipe = Fit(optimizer="adamw", lr=3e-3, weight_decay=0.0, epochs=40, batch_size=20, clip=1.0)
    phase = Phase(lambda m, b: task.rows(m, b["all"]).losses().mean(), {"all": [*red[:12], *rest[:28]]}, recipe)
    fit(model, task, phase, seeded(0), CPU)
    return Made(model, task, asked, beside, names)


def test_it_learns_pairs_and_classes(made: Made) -> None:
    made.task.check(made.model, made.request)
    batch = made.task.collate([made.request.forget[i] for i in range(3)])
    assert batch["tokens"].shape == (3, CONTEXT)
    rows = made.task.rows(made.model, batch)
    assert rows.logits.shape == (6, 3)
    torch.testing.assert_close(rows.logits, made.task.rows(Wrapped(made.model), batch).logits)
    assert accuracy(made.model, made.task, made.request.forget).mean() > 0.4
    assert accuracy(made.model, made.task.classified(), made.request.retain).mean() > 0.5
    assert made.task.prompts(made.model).shape == (4, 16)  # type: ignore[union-attr]
    assert observe(made.model, made.task, made.request.test).features.shape == (len(made.request.test), 32)


def test_its_parts(made: Made) -> None:
    model: Any = made.model
    blocks = made.task.blocks(model)
    assert [name for name, _ in blocks] == made.names
    held = [id(p) for _, group in blocks for module in group for p in module.parameters()]
    assert len(held) == len(set(held))
    assert {name for name, p in model.named_parameters() if id(p) not in held} == made.beside
    last = getattr(model, "text", model).ln_final
    assert made.task.endings(model, {}) == [model.visual.ln_post, last] == blocks[-1][1][::-1]
    assert made.task.classified().endings(model, {}) == [model.visual.ln_post]


def test_methods_and_attacks_run_on_it(made: Made) -> None:
    recipe = Fit(optimizer="adamw", lr=1e-3, weight_decay=0.0, epochs=4, batch_size=8)
    before = dict(made.model.named_parameters())
    for method, few in (
        (GradDiff(fit=recipe), False),
        (CFk(fit=recipe), True),
        (EUk(fit=recipe), True),
        (RMU(fit=recipe), True),
    ):
        after = method.unlearn(made.model, Job(made.request, made.task, seeded(0), CPU))
        moved = {name for name, p in after.named_parameters() if not torch.equal(p, before[name])}
        assert (0 < len(moved) < len(before)) == few, type(method).__name__
    assert len(matrices(made.model, made.task, made.request.retain)) >= 5
    hidden = Quantise(bits=(4,)).disguise(made.model, Job(made.request, made.task, session=CPU))
    assert isinstance(hidden, nn.Module)
    left = accuracy(hidden, made.task, made.request.forget).mean()
    assert left < accuracy(made.model, made.task, made.request.forget).mean()


def test_what_does_not_fit_it(made: Made) -> None:
    larger = [{**made.request.forget[i], "image": torch.zeros(3, 12, 12) + i / 10} for i in range(8)]  # type: ignore[misc]
    others = [[{**item, "caption": f"{colour} ann"} for item in larger] for colour in ("green", "blue", "grey")]
    with pytest.raises(BadInput, match=r"expected to accept images \(2, 3, 12, 12\)"):
        made.task.check(made.model, Request(larger, *others))
