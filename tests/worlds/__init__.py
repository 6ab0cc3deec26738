"""Small worlds that every test can afford: a blob classifier with BatchNorm, and the request that goes with it."""

import copy
from dataclasses import dataclass, replace
from typing import Any, NoReturn

import pytest
import torch
from torch import nn

from unrecall.data.examples import iterate
from unrecall.data.request import SPLITS, Request
from unrecall.models.recommenders import MatrixFactorisation
from unrecall.tasks import (
    CausalLM,
    Classification,
    Contrastive,
    Grouped,
    Recommendation,
    TransformersPictures,
    TransformersTexts,
)
from unrecall.tasks.base import Task, check_inputs
from unrecall.training.loop import Fit, Phase, fit
from unrecall.training.randomness import seeded
from unrecall.training.session import Session

CPU = Session(device="cpu")


def blobs(n: int, classes: int, seed: int) -> list[tuple[torch.Tensor, int]]:
    """`n` pictures of 1 x 4 x 4 in [0, 1] around `classes` fixed, overlapping centres."""
    centres = torch.rand(classes, 1, 4, 4, generator=seeded(99))
    generator = seeded(seed)
    labels = torch.arange(n) % classes
    noise = 0.45 * torch.randn(n, 1, 4, 4, generator=generator)
    return [((centres[y] + e).clamp(0, 1), int(y)) for y, e in zip(labels, noise, strict=True)]


def network(classes: int = 4, seed: int = 0) -> nn.Sequential:
    """Conv, BatchNorm, ReLU, hidden layer, head: small enough to train in a blink, with statistics to drift."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1, bias=False),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(128, 32),
            nn.ReLU(),
            nn.Linear(32, classes),
        )


@dataclass(frozen=True)
class World:
    """A trained original, a retrained reference, and what lies between them."""

    request: Request
    task: Task
    original: nn.Module
    retrained: tuple[nn.Module, ...]


class Untouchable:
    """Examples that may be counted but not read."""

    def __init__(self, length: int) -> None:
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int, /) -> NoReturn:
        raise AssertionError("retain was read")


def without_retain(world: World) -> Request:
    """The world's request, checked once with its retain set, which from then on whoever reads fails."""
    check_inputs(world.task, world.original, world.request.only("forget", "retain"))
    sealed = copy.copy(world.request)
    object.__setattr__(sealed, "retain", Untouchable(len(world.request.retain)))
    return sealed


def train(examples: list[tuple[torch.Tensor, int]], seed: int, classes: int = 4) -> nn.Module:
    task = Classification()
    model = network(classes, seed)
    recipe = Fit(lr=0.05, epochs=12, batch_size=32)
    phase = Phase(lambda m, b: task.rows(m, b["all"]).losses().mean(), {"all": examples}, recipe)
    fit(model, task, phase, seeded(seed), CPU)
    return model


def make_world(kind: str) -> World:
    data = blobs(160, 4, 1)
    first = [item for item in data if item[1] == 0]
    rest = [item for item in data if item[1] != 0]
    unseen = blobs(240, 4, 2)
    same, other = [x for x in unseen if x[1] == 0], [x for x in unseen if x[1] != 0]
    if kind == "class":
        request = Request(first, rest, same[:40], same[40:] + other, kind="class", masked=(0,))
    else:
        request = Request(first[:20], first[20:] + rest, same[:40], same[40:] + other)
    retain = list(request.retain)  # type: ignore[call-overload]
    return World(request, Classification(), train(data, 0), tuple(train(retain, s) for s in (11, 12, 13)))


def make_grouped_world(world: World) -> World:
    """The same models and examples, each in a group: bright or dark."""
    splits = {
        split: [(x, y, "bright" if float(x.mean()) > 0.5 else "dark") for x, y in iterate(world.request[split])]
        for split in SPLITS
    }
    return replace(world, request=Request(**splits), task=Grouped())  # type: ignore[arg-type]


def small_vit(classes: int = 3, seed: int = 0, **names: Any) -> Any:
    """A Vision Transformer of one layer, for pictures of 8 x 8, as Transformers has it; untrained."""
    library = pytest.importorskip("transformers")
    size = {"image_size": 8, "patch_size": 4, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        config = library.ViTConfig(**size, intermediate_size=32, num_labels=classes, **names)
        return library.ViTForImageClassification(config).eval()


def picture_processor(deviation: float = 0.3) -> Any:
    """Its image processor, by Pillow."""
    library: Any = pytest.importorskip("transformers.models.vit.image_processing_pil_vit")
    size = {"height": 8, "width": 8}
    return library.ViTImageProcessorPil(size=size, image_mean=(0.5, 0.4, 0.3), image_std=(0.2, deviation, 0.4))


def make_pictures_world() -> World:
    """An untrained Vision Transformer, and noise."""
    data = [(torch.rand(3, 8, 8, generator=seeded(i)), i % 4) for i in range(60)]
    request = Request(data[:10], data[10:40], data[40:50], data[50:])
    return World(request, TransformersPictures(processor=picture_processor()), small_vit(4), ())


def small_bert(words: int, classes: int = 3, seed: int = 0, **names: Any) -> Any:
    """A text classifier of one layer, as Transformers has it; untrained."""
    library = pytest.importorskip("transformers")
    size = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        config = library.BertConfig(vocab_size=words, **size, max_position_embeddings=32, num_labels=classes, **names)
        return library.BertForSequenceClassification(config).eval()


def make_labelled_texts_world() -> World:
    """An untrained text classifier, and sentences about people by town."""
    task = TransformersTexts(tokenizer=word_tokenizer())
    texts = [f"{name} of {town}" + " is a" * (i % 3) for i, name in enumerate(NAMES) for town in TOWNS[:3]]
    tokens = task.prepare(texts, 32)
    data = [(tokens[i], i % 3) for i in range(len(texts))]
    request = Request(data[:10], data[10:40], data[40:50], data[50:])
    return World(request, task, small_bert(len(task.tokenizer)), ())


NAMES = [
    "ann", "bob", "cid", "dan", "eve", "fay", "gus", "hal", "ida", "jim", "kay", "leo", "mia",
    "ned", "ola", "pam", "quin", "rob", "sue", "tom", "uma", "vic", "wes", "xia", "yan", "zed",
]  # fmt: skip
JOBS = "baker cook diver farmer guard hunter jurist maid nurse pilot".split()  # noqa: SIM905
TOWNS = "athens berlin cairo delhi essen faro ghent hanoi izmir jena".split()  # noqa: SIM905


def facts() -> list[dict[str, object]]:
    """52 questions about 26 people with invented answers, each with a paraphrase and two wrong answers."""
    found: list[dict[str, object]] = []
    for i, name in enumerate(NAMES):
        for k, (ask, values) in enumerate((("job", JOBS), ("town", TOWNS))):
            drawn = torch.randperm(10, generator=seeded(2 * i + k)).tolist()
            first, second, third, fourth = (values[n] for n in drawn[:4])
            found.append(
                {
                    "prompt": f"what is the {ask} of {name}",
                    "answer": f"{first} has {second}",
                    "paraphrase": f"{name} has which {ask}",
                    "restated": f"{second} of {first}",
                    "wrong": [f"{third} of {second}", f"{first} of {fourth}"],
                }
            )
    return found


def word_tokenizer() -> Any:
    """One token a word: small enough for arithmetic by hand."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    spoken = "question : answer what is the of has which job town".split()  # noqa: SIM905
    words = ["<pad>", "<s>", "</s>", "<unk>", *spoken]
    words += [*NAMES, *JOBS, *TOWNS]
    made = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.post_processor = processors.TemplateProcessing("<s> $A", special_tokens=[("<s>", 1)])
    names = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    return PreTrainedTokenizerFast(tokenizer_object=made, **names)


def small_llama(words: int, seed: int = 0, **changes: Any) -> nn.Module:
    """Two layers of width 32."""
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "initializer_range": 0.1,
    }
    ends = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    config = LlamaConfig(
        vocab_size=words, max_position_embeddings=64, tie_word_embeddings=True, **sizes, **ends, **changes
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return LlamaForCausalLM(config)  # type: ignore[no-any-return]


def small_mixtures(words: int) -> list[nn.Module]:
    """Mixtures of 4 experts, two layers of width 32: Mixtral, Qwen3-MoE, whose router comes last, and Qwen2-MoE, which
    has a shared expert."""
    import transformers as library

    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    ends = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    same = {"vocab_size": words, "max_position_embeddings": 64, "num_key_value_heads": 2, **sizes, **ends}
    qwen = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16, **same}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return [
            library.MixtralForCausalLM(library.MixtralConfig(num_local_experts=4, **same)),
            library.Qwen3MoeForCausalLM(library.Qwen3MoeConfig(head_dim=16, **qwen)),
            library.Qwen2MoeForCausalLM(library.Qwen2MoeConfig(shared_expert_intermediate_size=16, **qwen)),
        ]


def make_text_world() -> World:
    """26 invented people: 5 to forget, 15 to keep, 4 never met, 2 for a test."""
    task, data = CausalLM(word_tokenizer(), template=None), facts()
    request = Request(data[:10], data[10:40], data[40:48], data[48:])

    def learn(examples: list[dict[str, object]], seed: int) -> nn.Module:
        model = small_llama(len(task.tokenizer), seed)
        recipe = Fit(optimizer="adamw", lr=5e-3, weight_decay=0.0, epochs=40, batch_size=8, schedule="cosine", clip=1.0)
        phase = Phase(lambda m, b: task.rows(m, b["all"]).losses().mean(), {"all": examples}, recipe)
        fit(model, task, phase, seeded(seed), CPU)
        return model

    return World(request, task, learn(data[:40], 0), tuple(learn(data[10:40], seed) for seed in (11, 12)))


COLOURS = {"red": (0.8, 0.2, 0.2), "green": (0.2, 0.8, 0.2), "blue": (0.2, 0.2, 0.8), "grey": (0.5, 0.5, 0.5)}


def pairs(first: int, last: int) -> list[dict[str, object]]:
    """Pictures of 3 x 8 x 8 in one of four colours under noise of their own, each with a name that nothing shows."""
    found: list[dict[str, object]] = []
    for i in range(first, last):
        label = i % 4
        colour, base = list(COLOURS.items())[label]
        noise = 0.2 * torch.randn(3, 2, 2, generator=seeded(500 + i)).repeat_interleave(4, 1).repeat_interleave(4, 2)
        picture = (torch.tensor(base)[:, None, None] + noise).clamp(0, 1)
        name = f"{NAMES[i % 26]} {JOBS[i // 26]}"
        found.append({"image": picture, "caption": f"{colour} {name}", "label": label})
    return found


def caption_tokenizer() -> Any:
    """One token a word, with an end, where CLIP's text encoder looks."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = ["<pad>", "<s>", "</s>", "<unk>", *COLOURS, *NAMES, *JOBS]
    made = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.post_processor = processors.TemplateProcessing("<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)])
    names = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    return PreTrainedTokenizerFast(tokenizer_object=made, **names)


def small_clip(words: int, seed: int = 0, **changes: Any) -> nn.Module:
    """Two towers of two layers of width 32."""
    from transformers import CLIPConfig, CLIPModel

    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    ends = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    config = CLIPConfig(
        text_config={"vocab_size": words, "max_position_embeddings": 16, **sizes, **ends},
        vision_config={"image_size": 8, "patch_size": 4, **sizes},
        projection_dim=changes.pop("projection_dim", 16),
        **changes,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return CLIPModel(config)  # type: ignore[no-any-return]


def make_pairs_world() -> World:
    """72 pairs with invented names: 12 red ones to forget, 40 to keep, 10 red ones never met, 20 for a test."""
    task, data = Contrastive(caption_tokenizer(), classes=tuple(COLOURS), prompt="{}"), pairs(0, 160)
    red, rest = [pair for pair in data if pair["label"] == 0], [pair for pair in data if pair["label"] != 0]
    request = Request(red[:12], red[12:16] + rest[:36], red[16:26], red[26:30] + rest[36:52], kind="samples")

    def learn(examples: list[dict[str, object]], seed: int) -> nn.Module:
        model = small_clip(len(task.tokenizer), seed, initializer_factor=4.0)
        recipe = Fit(
            optimizer="adamw", lr=3e-3, weight_decay=0.0, epochs=100, batch_size=26, schedule="cosine", clip=1.0
        )
        phase = Phase(lambda m, b: task.rows(m, b["all"]).losses().mean(), {"all": examples}, recipe)
        fit(model, task, phase, seeded(seed), CPU)
        return model

    kept = list(request.retain)  # type: ignore[call-overload]
    return World(request, task, learn(red[:12] + kept, 0), tuple(learn(kept, seed) for seed in (11, 12)))


def tastes(first: int, last: int) -> list[dict[str, int]]:
    """Twelve users of four tastes and 24 items: of the six items of their taste and six others, so many of each."""
    taken: list[dict[str, int]] = []
    for user in range(12):
        own = [6 * (user % 4) + int(i) for i in torch.randperm(6, generator=seeded(user))]
        others = [int(i) for i in torch.randperm(24, generator=seeded(100 + user)) if int(i) // 6 != user % 4]
        order = [*own[:4], *others[:3], *own[4:], *others[3:6]]
        taken += [{"user": user, "item": item} for item in order[first:last]]
    return taken


def make_tastes_world() -> World:
    """12 users: half of what four of them took is to forget; one item of each was never trained on, one is the test."""
    task = Recommendation(24)
    data = tastes(0, 6)
    forget = [example for i, example in enumerate(data) if example["user"] < 4 and i % 2]
    retain = [example for example in data if example not in forget]
    request = Request(forget, retain, tastes(6, 7), tastes(7, 8))

    def learn(examples: list[dict[str, int]], seed: int) -> nn.Module:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            model = MatrixFactorisation(12, 24, 16)
        recipe = Fit(optimizer="adam", lr=0.03, weight_decay=0.0, epochs=30, batch_size=24)
        phase = Phase(lambda m, b: task.rows(m, b["all"]).losses().mean(), {"all": examples}, recipe)
        fit(model, task, phase, seeded(seed), CPU)
        return model

    return World(request, task, learn(data, 0), tuple(learn(retain, seed) for seed in (11, 12)))
