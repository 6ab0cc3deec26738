"""A small Llama and a small CLIP that learn invented facts and pictures; nothing but the public names is used."""

import torch

import unrecall as ur

NAMES = (
    "ann bob cid dan eve fay gus hal ida jim kay leo mia ned ola pam quin rob sue tom uma vic wes xia yan zed".split()
)
JOBS = "baker cook diver farmer guard hunter jurist maid nurse pilot".split()
TOWNS = "athens berlin cairo delhi essen faro ghent hanoi izmir jena".split()
COLOURS = {"red": (0.8, 0.2, 0.2), "green": (0.2, 0.8, 0.2), "blue": (0.2, 0.2, 0.8), "grey": (0.5, 0.5, 0.5)}


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def tokenizer(words, template):
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = ["<pad>", "<s>", "</s>", "<unk>", *words]
    made = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.post_processor = processors.TemplateProcessing(template, special_tokens=[("<s>", 1), ("</s>", 2)])
    return PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )


def facts():
    found = []
    for i, name in enumerate(NAMES):
        for k, (ask, values) in enumerate((("job", JOBS), ("town", TOWNS))):
            a, b, c, d = (values[n] for n in torch.randperm(10, generator=seeded(2 * i + k)).tolist()[:4])
            found.append(
                {
                    "prompt": f"what is the {ask} of {name}",
                    "answer": f"{a} has {b}",
                    "paraphrase": f"{name} has which {ask}",
                    "restated": f"{b} of {a}",
                    "wrong": [f"{c} of {b}", f"{a} of {d}"],
                }
            )
    return found


def llama():
    from transformers import LlamaConfig, LlamaForCausalLM

    words = tokenizer("question : answer what is the of has which job town".split() + NAMES + JOBS + TOWNS, "<s> $A")

    def build(seed, session):
        return LlamaForCausalLM(
            LlamaConfig(
                vocab_size=len(words),
                max_position_embeddings=64,
                tie_word_embeddings=True,
                hidden_size=32,
                intermediate_size=64,
                num_hidden_layers=2,
                num_attention_heads=2,
                initializer_range=0.1,
                pad_token_id=0,
                bos_token_id=1,
                eos_token_id=2,
            )
        )

    data = facts()
    recipe = ur.Fit(optimizer="adamw", lr=5e-3, weight_decay=0.0, epochs=40, batch_size=8, schedule="cosine", clip=1.0)
    return ur.Scenario(
        name="golden-llama",
        summary="",
        task=ur.tasks.CausalLM(words, template=None),
        request=ur.Request(data[:10], data[10:40], data[40:48], data[48:]),
        build=build,
        recipe=recipe,
        references=2,
    )


def clip():
    from transformers import CLIPConfig, CLIPModel

    words = tokenizer([*COLOURS, *NAMES, *JOBS], "<s> $A </s>")
    data = []
    for i in range(160):
        colour, base = list(COLOURS.items())[i % 4]
        noise = 0.2 * torch.randn(3, 2, 2, generator=seeded(500 + i)).repeat_interleave(4, 1).repeat_interleave(4, 2)
        picture = (torch.tensor(base)[:, None, None] + noise).clamp(0, 1)
        data.append({"image": picture, "caption": f"{colour} {NAMES[i % 26]} {JOBS[i // 26]}", "label": i % 4})
    red, rest = [p for p in data if p["label"] == 0], [p for p in data if p["label"] != 0]

    def build(seed, session):
        sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
        ends = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
        return CLIPModel(
            CLIPConfig(
                text_config={"vocab_size": len(words), "max_position_embeddings": 16, **sizes, **ends},
                vision_config={"image_size": 8, "patch_size": 4, **sizes},
                projection_dim=16,
                initializer_factor=4.0,
            )
        )

    recipe = ur.Fit(optimizer="adamw", lr=3e-3, weight_decay=0.0, epochs=60, batch_size=26, schedule="cosine", clip=1.0)
    return ur.Scenario(
        name="golden-clip",
        summary="",
        task=ur.tasks.Contrastive(words, classes=tuple(COLOURS), prompt="{}"),
        request=ur.Request(red[:12], red[12:16] + rest[:36], red[16:26], red[26:30] + rest[36:52], kind="samples"),
        build=build,
        recipe=recipe,
        references=2,
    )
