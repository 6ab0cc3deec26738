"""Eight runs whose numbers must not change when code only moves.

    python tests/end_to_end/golden.py keep FOLDER            # runs all eight; PYTHONPATH decides by which code
    python tests/end_to_end/golden.py compare OLD NEW        # every number that differs; exit code 1 if any does

Numbers depend on the processor's last bits, so both folders must come from one machine under one setting.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

CASES = '''"""A small Llama and a small CLIP that learn invented facts and pictures; nothing but the public names is used."""

import torch
import unrecall as ur

NAMES = "ann bob cid dan eve fay gus hal ida jim kay leo mia ned ola pam quin rob sue tom uma vic wes xia yan zed".split()
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
            found.append({"prompt": f"what is the {ask} of {name}", "answer": f"{a} has {b}", "paraphrase": f"{name} has which {ask}",
                          "restated": f"{b} of {a}", "wrong": [f"{c} of {b}", f"{a} of {d}"]})
    return found


def llama():
    from transformers import LlamaConfig, LlamaForCausalLM

    words = tokenizer("question : answer what is the of has which job town".split() + NAMES + JOBS + TOWNS, "<s> $A")

    def build(seed, session):
        return LlamaForCausalLM(LlamaConfig(vocab_size=len(words), max_position_embeddings=64, tie_word_embeddings=True,
            hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, initializer_range=0.1,
            pad_token_id=0, bos_token_id=1, eos_token_id=2))

    data = facts()
    recipe = ur.Fit(optimizer="adamw", lr=5e-3, weight_decay=0.0, epochs=40, batch_size=8, schedule="cosine", clip=1.0)
    return ur.Scenario(name="golden-llama", summary="", task=ur.tasks.CausalLM(words, template=None),
        request=ur.Request(data[:10], data[10:40], data[40:48], data[48:]), build=build, recipe=recipe, references=2)


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
        return CLIPModel(CLIPConfig(text_config={"vocab_size": len(words), "max_position_embeddings": 16, **sizes, **ends},
            vision_config={"image_size": 8, "patch_size": 4, **sizes}, projection_dim=16, initializer_factor=4.0))

    recipe = ur.Fit(optimizer="adamw", lr=3e-3, weight_decay=0.0, epochs=60, batch_size=26, schedule="cosine", clip=1.0)
    return ur.Scenario(name="golden-clip", summary="", task=ur.tasks.Contrastive(words, classes=tuple(COLOURS), prompt="{}"),
        request=ur.Request(red[:12], red[12:16] + rest[:36], red[16:26], red[26:30] + rest[36:52], kind="samples"),
        build=build, recipe=recipe, references=2)
'''

DIGITS = "digits:train=500,epochs=12,references=3,forget="
OTHERS = (
    "rea_sample grad_norm attribution residual_knowledge:perturbation=fgsm,points=2,draws=8,batch_size=64 "
    "residual_knowledge:perturbation=pgd,points=2,draws=4,batch_size=64,pgd_steps=2 "
    "prototypical:metric=l2 relearn:share=0.1 relearn:data=benign linear_probe quantise uma remind cka:most=50"
)
RUNS: dict[str, tuple[str, ...]] = {
    "samples-tuned": (DIGITS + "share:0.2", "rurk", "standard", "--tune"),
    "samples": (DIGITS + "share:0.2", "scrub", "standard"),
    "half": (DIGITS + "half:3", "neggrad_plus", "standard"),
    "class": (DIGITS + "class:3", "spotter(salun)", "standard"),
    "class-others": (DIGITS + "class:3", "grad_ascent:lr=0.001,epochs=5", OTHERS),
    "llama": ("cases.py:llama", "npo:lr=1e-3", "standard"),
    "clip": ("cases.py:clip", "grad_diff:lr=1e-3", "standard"),
    "indirect": (
        DIGITS + "share:0.1",
        "grad_ascent:lr=0.001,epochs=10,batchnorm=frozen",
        "indirect:victim=3,wished=8,sizes=10+20,controls=2,retrain=1,known=50",
    ),
}
"""Each a scenario, a method, a suite and further options."""


def keep(folder: Path) -> None:
    """Runs all eight below `folder`, by the unrecall that Python finds."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cases.py").write_text(CASES, encoding="utf-8")
    place = {**os.environ, "UNRECALL_CACHE": str(folder.resolve() / "cache"), "OMP_NUM_THREADS": "1"}
    unrecall = [sys.executable, "-m", "unrecall"]
    shown = subprocess.run([*unrecall, "run", "--help"], cwd=folder, env=place, capture_output=True, text=True, check=True)
    suite_option = "--suite" if "--suite" in shown.stdout else "--audit"
    for name, (scenario, method, suite, *more) in RUNS.items():
        named = ["--scenario", scenario, "--method", method, suite_option, suite, "--device", "cpu", "--out", name]
        subprocess.run([*unrecall, "run", *named, *more], cwd=folder, env=place, check=True)


def numbers(record: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Every number of a record, and every label that follows from numbers, by a path that says which it is."""
    for row in record["measurements"]:
        if row["name"] in ("cost_time", "cost_memory"):
            continue
        for role in ("unlearned", "original", "null"):
            yield f"{row['name']}/{role}", [row[role][key] for key in ("value", "low", "high", "n")]
        for i, one in enumerate(row["references"]):
            yield f"{row['name']}/retrained {i}", [one[key] for key in ("value", "low", "high", "n")]
        for key in ("reference", "leak", "margin", "judged", "verdict", "bound_low", "bound_high", "group"):
            yield f"{row['name']}/{key}", row[key]
    for attack in record["attacks"]:
        for key in ("positive_holds", "negative_holds"):
            yield f"{attack['name']}/{key}", attack[key]
        for curve in attack["curves"]:
            for line in curve["series"]:
                for axis in ("x", "y", "low", "high"):
                    yield f"{attack['name']}/{curve['name']}/{line['role']}/{axis}", line[axis]
    for matrix in record["matrices"]:
        for key in ("labels", "forgotten", "values", "paid", "gained"):
            yield f"{matrix['name']}/{key}", matrix[key]
    yield "readings", [[one["pieces"], one["written"]] for one in record["readings"]]
    yield "exhibits", [[one["content"], one["caption"]] for one in record["exhibits"]]
    yield "tuning", record["tuning"] and [record["tuning"]["chosen"], record["tuning"]["trials"]]
    yield "doubts", sorted(one["id"] for one in record["doubts"])
    yield "verdict", [record["verdict"][key] for key in ("label", "counts", "alpha", "judged")]
    yield "fingerprint", record["provenance"]["fingerprint"]
    yield "weights", record["provenance"]["weights"]


def differences(old: Path, new: Path) -> Iterator[str]:
    """What is not the same to the last digit in two folders that `keep` filled."""
    for name in RUNS:
        before, after = (
            dict(numbers(json.loads((folder / name / "seed-0" / "record.json").read_text(encoding="utf-8"))))
            for folder in (old, new)
        )
        for path in sorted(before.keys() | after.keys()):
            if before.get(path) != after.get(path):
                yield f"{name}: {path}: {str(before.get(path))[:100]} -> {str(after.get(path))[:100]}"


def main(words: list[str]) -> int:
    """The command line of this file."""
    if words[:1] == ["keep"] and len(words) == 2:
        keep(Path(words[1]))
        return 0
    if words[:1] == ["compare"] and len(words) == 3:
        found = list(differences(Path(words[1]), Path(words[2])))
        print("\n".join(found) or "every number is the same")
        return bool(found)
    print(__doc__)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
