"""A line of text and the object it stands for are the same thing."""

import math
import sys
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unrecall.attacks import Recalibration, Relearn, ResidualKnowledge
from unrecall.errors import BadInput
from unrecall.methods.random_label import RandomLabel
from unrecall.methods.rurk import RURK
from unrecall.methods.salun import SalUn
from unrecall.methods.spotter import SpotterAround
from unrecall.scenarios import Digits, SmallCifar5
from unrecall.spec.catalog import entries
from unrecall.spec.lines import parse, paths, show, taken_apart
from unrecall.spec.parameters import Count, Parameters, Positive, Share

METHOD_FILE = """
from dataclasses import dataclass
from typing import ClassVar
from unrecall.methods.base import Fit, GradientMethod, Method, Phase
from unrecall.spec.parameters import Positive

@dataclass(frozen=True)
class Mine(GradientMethod):
    title: ClassVar[str] = "Mine"
    tau: Positive = 0.5
    fit: Fit = Fit(lr=0.25)

    def phases(self, student, original, request, task, generator):
        return []

class NotOne:
    pass

def make():
    return None
"""


def test_a_module_beside_the_file_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "beside_mine.py").write_text("WEIGHT = 0.125")
    mine = METHOD_FILE.replace("import ClassVar", "import ClassVar\nfrom beside_mine import WEIGHT")
    (tmp_path / "mine.py").write_text(mine.replace("0.5", "WEIGHT"))
    assert parse(f"{tmp_path}/mine.py:Mine", "methods").tau == 0.125  # type: ignore[attr-defined]


def test_modules_of_one_name_beside_two_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "beside_two.py").write_text("WEIGHT = 0.125")
        (tmp_path / name / f"helper_of_{name}.py").write_text("from beside_two import WEIGHT")
        mine = METHOD_FILE.replace("import ClassVar", f"import ClassVar\nfrom helper_of_{name} import WEIGHT")
        (tmp_path / name / "mine.py").write_text(mine)
    parse(f"{tmp_path}/first/mine.py:Mine", "methods")
    with pytest.raises(BadInput, match="expected modules of different names"):
        parse(f"{tmp_path}/second/mine.py:Mine", "methods")
    parse(f"{tmp_path}/first/mine.py:Mine", "methods")


@pytest.fixture
def case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = Path("case.py")
    path.write_text(METHOD_FILE)
    return path


@pytest.mark.parametrize(
    ("text", "kind", "expected"),
    [
        ("rurk", "methods", RURK()),
        (" RURK ", "methods", RURK()),
        ("rurk:tau=0.05,lambda_a=0,v=3", "methods", RURK(tau=0.05, lambda_a=0.0, v=3)),
        ("rurk:attack=pgd,lr=1e-3,epochs=4", "methods", RURK(attack="pgd", fit=RURK().fit.__class__(
            lr=1e-3, weight_decay=5e-4, clip=1.0, schedule="cosine", period=200, epochs=4))),
        ("rurk:clip=none", "methods", RURK(fit=RURK().fit.__class__(
            lr=1e-2, weight_decay=5e-4, schedule="cosine", period=200, epochs=2))),
        ("spotter(salun)", "methods", SpotterAround(base=SalUn())),
        ("spotter(salun(rurk:tau=0.1):share=0.3):lambda_1=0.5", "methods",
         SpotterAround(lambda_1=0.5, base=SalUn(share=0.3, base=RURK(tau=0.1)))),
        ("salun(random_label:lr=0.01):share=0.3", "methods",
         SalUn(share=0.3, base=RandomLabel(fit=RandomLabel().fit.__class__(lr=0.01, weight_decay=5e-4, epochs=10)))),
        ("recalibration:counts=8+16", "attacks", Recalibration(counts=(8, 16))),
        ("residual-knowledge", "attacks", ResidualKnowledge()),
        ("relearn:data=benign", "attacks", Relearn(data="benign")),
        ("digits:forget=class:3,train=300", "scenarios", Digits(forget="class:3", train=300)),
        ("small-cifar5:data=/a:b/c,forget=half:0", "scenarios", SmallCifar5(data="/a:b/c")),
    ],
)  # fmt: skip
def test_parse_and_back(text: str, kind: Any, expected: Parameters) -> None:
    found = parse(text, kind)
    assert found == expected
    assert parse(show(found), kind) == expected


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (RURK(), "rurk"),
        (RURK(tau=0.05), "rurk:tau=0.05"),
        (SpotterAround(base=SalUn()), "spotter(salun(random_label))"),
        (SalUn(share=0.3, base=RandomLabel(retain_weight=0.0)), "salun(random_label:retain_weight=0):share=0.3"),
        (Recalibration(counts=(8, 16)), "recalibration:counts=8+16"),
    ],
)
def test_show_says_what_differs_from_the_defaults(value: Parameters, text: str) -> None:
    assert show(value) == text


@pytest.mark.parametrize("kind", ["methods", "attacks", "scenarios"])
def test_everything_that_is_listed_can_be_parsed_shown_and_parsed_again(kind: Any) -> None:
    for entry in entries(kind):
        made = parse(entry.name, kind)
        assert parse(show(made), kind) == made
        assert entry.summary
        assert [p.name for p in entry.parameters] == [f.name for f in fields(made)]


@given(
    st.floats(0, 1e6), st.floats(1e-9, 1e3), st.integers(1, 10**6), st.sampled_from(["gaussian", "fgsm", "pgd"]),
    st.none() | st.floats(1e-9, 1e3), st.floats(0, 1),
)  # fmt: skip
def test_round_trip(tau: float, lr: float, v: int, attack: Any, clip: float | None, share: float) -> None:
    fit = RURK().fit.__class__(lr=lr, clip=clip)
    value = SalUn(share=share, base=RURK(tau=tau, v=v, attack=attack, fit=fit))
    text = show(value)
    again = parse(text, "methods")
    assert show(again) == text
    assert isinstance(again, SalUn)
    assert isinstance(again.base, RURK)
    assert (again.base.v, again.base.attack) == (v, attack)
    for ours, theirs in ((again.share, share), (again.base.tau, tau), (again.base.fit.lr, lr)):
        assert math.isclose(ours, theirs, rel_tol=1e-11)


@given(st.text(alphabet="rurk():,=.py salun01", max_size=30))
def test_no_text_is_more_than_a_bad_input(text: str) -> None:
    try:
        parse(text, "methods")
    except BadInput as error:
        assert str(error)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rurkk", "unknown method 'rurkk'. Did you mean 'rurk'"),
        ("zzzzzz", "unknown method 'zzzzzz'. Known: .*rurk"),
        ("rurk:tua=1", "RURK: unknown parameter 'tua'. Did you mean 'tau'"),
        ("rurk:lrr=1", "unknown parameter 'lrr'. Did you mean 'lr'"),
        ("rurk:tau=-1", "RURK: expected tau to be greater than or equal to 0, got '-1'"),
        ("rurk:tau=nan", "RURK: expected tau to be .*, got 'nan'"),
        ("rurk:tau=inf", "RURK: expected tau to be a finite number, got 'inf'"),
        ("rurk:v=1.5", "RURK: expected v to be a whole number, got '1.5'"),
        ("rurk:v=0", "RURK: expected v to be greater than or equal to 1, got '0'"),
        ("rurk:attack=fsgm", "RURK: expected attack to be 'gaussian', 'fgsm' or 'pgd', got 'fsgm'"),
        ("rurk:lr=-1", "RURK: expected fit.lr to be greater than or equal to 0, got '-1'"),
        ("rurk:fit.epochs=none", "RURK: expected fit.epochs to be a whole number, got None"),
        ("rurk:lr=fast", "RURK: expected fit.lr to be a number, got 'fast'"),
        ("our:destroy.optimizer=x", "OUR: expected destroy.optimizer to be 'sgd', 'adam' or 'adamw', got 'x'"),
        ("rurk:fit=1", "RURK: expected fit in brackets"),
        ("rurk:tau", "expected key=value, got 'tau'"),
        ("rurk(salun)", "expected a method that wraps another, got rurk"),
        ("spotter(salun):fit.lr=1", "SpotterAround: unknown parameter 'fit.lr'"),
        ("salun(rurk", "expected a closing bracket"),
        ("salun(rurk)x", "expected ':' and parameters after '\\)', got 'x'"),
        ("salun:base=rurk", "SalUn: expected base in brackets"),
        ("salun(ssd)", "SalUn: expected base to be GradientMethod, got SSD"),
        ("", "unknown method ''"),
        ("nowhere.py:Mine", "nowhere.py: expected a Python file, got none there"),
        ("case.py:Min", "case.py: expected it to define 'Min', got none. Did you mean 'Mine'"),
        ("case.py:NotOne", "'case.py:NotOne': expected a class made from Method, got <class 'case.py.NotOne'>"),
        ("case.py:make", "'case.py:make': expected a class made from Method, got <function make"),
        ("case.py:GradientMethod", "expected a class made from Method"),
        ("case.py:Mine:tau=0", "Mine: expected tau to be greater than 0, got '0'"),
        ("broken.py:Mine", "broken.py:1: expected code that runs to its end, got ZeroDivisionError"),
        ("wrong.py:Mine", "wrong.py:1: expected code that runs to its end, got SyntaxError"),
    ],
)
def test_bad_input_says_what_was_expected(text: str, message: str, case: Path) -> None:
    Path("broken.py").write_text("1 / 0\n")
    Path("wrong.py").write_text("def (\n")
    with pytest.raises(BadInput, match=message):
        parse(text, "methods")


def test_what_is_meant_in_a_file_is_what_it_defines_and_no_module(case: Path) -> None:
    case.write_text("from torch import nn\ndef make(): pass\n")
    with pytest.raises(BadInput, match=r"case.py: expected it to define 'nofn', got none\. Known: make\."):
        parse("case.py:nofn", "scenarios")


def test_an_attack_without_a_threat_is_told_how_it_is_written(case: Path) -> None:
    case.write_text(
        "from dataclasses import dataclass\nfrom unrecall.attacks.base import MembershipAttack\n"
        "@dataclass(frozen=True)\nclass Mine(MembershipAttack):\n    title = 'Mine'\n    judged = 'auc'\n"
        "    def score(self, evidence, split): return 0\n"
    )
    with pytest.raises(BadInput, match=r"its threat, got none\. Add threat: ClassVar\[ThreatModel\] = Threat"):
        parse("case.py:Mine", "attacks")


def test_own_file(case: Path) -> None:
    mine = parse("case.py:Mine:tau=0.75,lr=0.5", "methods")
    assert (mine.tau, mine.fit.lr) == (0.75, 0.5)
    assert show(mine) == "case.py:Mine:tau=0.75,lr=0.5"
    assert show(parse(show(mine), "methods")) == show(mine)
    wrapped = parse("spotter(salun(case.py:Mine:tau=0.25):share=0.1)", "methods")
    assert show(wrapped) == "spotter(salun(case.py:Mine:tau=0.25):share=0.1)"
    absolute = f"{Path.cwd()}/case.py:Mine"
    assert show(parse(absolute, "methods")) == absolute
    with pytest.raises(BadInput, match=r"expected key=value, got 'make'\. Did you mean 'case\.py:make'\?"):
        parse("case:make", "scenarios")
    with pytest.raises(BadInput, match=r"unknown scenario 'case'\. What case\.py defines goes by case\.py:NAME"):
        parse("case:make:x=1", "scenarios")
    function = parse("case.py:make", "scenarios")
    assert function() is None
    with pytest.raises(BadInput, match=r"make: unknown parameter 'x'\. It takes no parameters\."):
        parse("case.py:make:x=1", "scenarios")


MAKER = """
from typing import Literal
from unrecall.spec.parameters import Count
import torch

def make(person: Count = 7, share=0.5, which: Literal["a", "b"] = "a", *, path=None, whole=False,
         several: tuple[int, ...] = ()):
    return person, share, which, path, whole, several

def plain(rate=1, sizes=(1, 2)): return rate, sizes
def needs(person, net: torch.nn.Module = None): return person
def unknown(person: "Nobody" = 3): return person
"""


def test_a_function_of_a_file_takes_parameters_as_its_annotations_and_defaults_say(case: Path) -> None:
    Path("maker.py").write_text(MAKER)
    for line, made in (
        ("make", (7, 0.5, "a", None, False, ())),
        ("make:person=12,share=1", (12, 1.0, "a", None, False, ())),
        ("make:which=b,path=a/letter.txt,whole=true,several=1+2", (7, 0.5, "b", "a/letter.txt", True, (1, 2))),
        ("make:path=none", (7, 0.5, "a", None, False, ())),
        ("plain:rate=0.5,sizes=3", (0.5, (3,))),
        ("needs:person=Ann", "Ann"),
        ("unknown:person=4", 4),
    ):
        assert parse(f"maker.py:{line}", "scenarios")() == made
    assert list(paths("maker.py:make:path=a/letter.txt")) == ["maker.py", "a/letter.txt"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("make:persn=3", "make: unknown parameter 'persn'. Did you mean 'person'?"),
        ("make:person=x", "make: expected person to be a whole number, got 'x'"),
        ("make:person=0", "make: expected person to be greater than or equal to 1, got '0'"),
        ("make:share=much", "make: expected share to be .*number.*, got 'much'"),
        ("make:which=c", "make: expected which to be 'a' or 'b', got 'c'"),
        ("needs", r"expected a function that needs no arguments, got needs\(person.*\). Give each a default"),
        ("needs:person=Ann,net=x", "expected parameters that a line can say"),
    ],
)
def test_a_function_of_a_file_says_what_its_parameters_must_be(case: Path, line: str, message: str) -> None:
    Path("maker.py").write_text(MAKER)
    with pytest.raises(BadInput, match=message):
        parse(f"maker.py:{line}", "scenarios")


def test_split_takes_a_line_apart() -> None:
    assert taken_apart("a(b(c:x=1)):y=2,z=half:0") == taken_apart(" a(b(c:x=1)):y=2,z=half:0 ")
    parts = taken_apart("a(b(c:x=1)):y=2,z=half:0")
    assert (parts.name, parts.base, dict(parts.values)) == ("a", "b(c:x=1)", {"y": "2", "z": "half:0"})
    assert taken_apart("d/case.py:make").name == "d/case.py:make"


@dataclass(frozen=True)
class Knobs(Parameters):
    """Parameters that check themselves."""

    size: Positive = 1.0
    count: Count = 2
    share: Share = 0.5
    several: tuple[Count, ...] = (1, 2)


def test_parameters_check_themselves_in_python_too() -> None:
    assert Knobs(size=2).size == 2.0
    assert Knobs().as_dict() == {"size": 1.0, "count": 2, "share": 0.5, "several": [1, 2]}
    for wrong in ({"size": 0}, {"size": math.nan}, {"count": "2"}, {"count": True}, {"share": 1.1}, {"several": (0,)}):
        with pytest.raises(BadInput, match=f"Knobs: expected {next(iter(wrong))} to be "):
            Knobs(**wrong)  # type: ignore[arg-type]
    assert RURK().as_dict()["fit"]["name"] == "Fit"


def test_where_there_are_several_recipes_each_has_its_name_and_the_bare_one_is_fits() -> None:
    ubt = parse("ubt:lr=0.5,overfit.lr=0.25", "methods")
    assert (ubt.fit.lr, ubt.overfit.lr) == (0.5, 0.25)
    assert show(ubt) == "ubt:overfit.lr=0.25,lr=0.5"
    our = parse("our:replay.lr=0.5", "methods")
    assert (our.replay.lr, our.destroy.lr) == (0.5, our.destroy.__class__(lr=0.0012).lr)
    assert parse(show(our), "methods") == our
    assert parse("rurk:fit.lr=0.5", "methods") == parse("rurk:lr=0.5", "methods")
    with pytest.raises(BadInput, match="unknown parameter 'lr'"):
        parse("our:lr=0.5", "methods")


def test_the_files_that_lines_name_come_from_the_parsed_line() -> None:
    named = list(paths("digits:forget=my idx.txt,train=300", "spotter(d/case.py:Mine:tau=1):share=0.1", "rurk"))
    assert named[:2] == ["my idx.txt", "300"]
    assert {"d/case.py", "1", "0.1"} == set(named[2:])
    assert set(paths("texts:forget=a+b")) == {"a+b", "a", "b"}


def test_a_function_that_needs_arguments_and_a_file_that_is_no_text_are_refused(tmp_path: Path) -> None:
    (tmp_path / "case.py").write_text("def make(x): pass\n")
    with pytest.raises(BadInput, match=r"expected a function that needs no arguments, got make\(x\)\. Give each"):
        parse(f"{tmp_path}/case.py:make", "scenarios")
    (tmp_path / "case.py").write_bytes("def make(): pass\n".encode("utf-16"))
    with pytest.raises(BadInput, match=r"case\.py: expected a Python file, got one with NUL bytes"):
        parse(f"{tmp_path}/case.py:make", "scenarios")


def test_a_space_that_ends_a_template_is_part_of_it() -> None:
    """What a model was asked in training ends so; other values have none around them."""
    spec = taken_apart(" texts: model = m ,template=Q: {prompt}\\nA: ")
    assert spec.values == {"model": "m", "template": "Q: {prompt}\\nA: "}
