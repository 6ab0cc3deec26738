"""What a request refuses, and what it is known by."""

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import Subset

from tests.worlds import CPU, blobs, network
from unrecall.data.digests import digest
from unrecall.data.examples import Joined, Selection, iterate
from unrecall.data.request import SPLITS, Request, Split
from unrecall.errors import BadInput, MissingReference
from unrecall.record.possible_verdicts import Sizes
from unrecall.scenarios.choice import choose, read_indices
from unrecall.spec.lines import parse
from unrecall.tasks import Classification
from unrecall.tasks.base import check_inputs
from unrecall.training.job import Job
from unrecall.training.randomness import seeded

DATA = blobs(40, 4, 1)
FORGET, RETAIN, HOLDOUT, TEST, SPARE = DATA[:4], DATA[4:20], DATA[20:28], DATA[28:36], DATA[36:]


def request_with(**changed: Any) -> Request:
    return Request(**{"forget": FORGET, "retain": RETAIN, "holdout": HOLDOUT, "test": TEST, **changed})


HINTS = {
    "forget": "Name at least",
    "retain": "delete the model",
    "holdout": "never trained on",
    "test": "Use is judged",
}


@pytest.mark.parametrize("split", SPLITS)
def test_an_empty_set_is_refused_with_advice(split: Split) -> None:
    with pytest.raises(BadInput, match=f"non-empty {split} set, got 0 examples.*{HINTS[split]}"):
        request_with(**{split: []})


@pytest.mark.parametrize(
    ("first", "second"),
    [("forget", "retain"), ("forget", "holdout"), ("forget", "test"), ("retain", "holdout"), ("retain", "test"),
     ("forget", "validation"), ("retain", "validation"), ("validation", "holdout"), ("validation", "test")],
)  # fmt: skip
def test_sets_may_not_share_an_example(first: str, second: str) -> None:
    sets = {"forget": FORGET, "retain": RETAIN, "holdout": HOLDOUT, "test": TEST, "validation": SPARE}
    shared = sets[first][2]
    copy = (shared[0].clone(), shared[1])
    with pytest.raises(BadInput, match=rf"{first} and {second} to share nothing, got 1 .*{first}\[2\] equals {second}"):
        request_with(**{"validation": SPARE, second: [*sets[second], copy]})


def test_holdout_and_test_share_nothing() -> None:
    with pytest.raises(BadInput, match="holdout and test to share nothing"):
        request_with(test=[*TEST, HOLDOUT[0]])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda x, y: (x.double(), y),
            r"float64 of 3 dimensions in forget\[0\]\[0\] and float32 of 3 dimensions in",
        ),
        (
            lambda x, y: (x[0].numpy(), y),
            r"float32 of 2 dimensions in forget\[0\]\[0\] and float32 of 3 dimensions in",
        ),
        (lambda x, y: (x, float(y)), r"float in forget\[0\]\[1\] and int in retain\[0\]\[1\]"),
        (lambda x, y: (x, torch.tensor(float(y))), r"float in forget\[0\]\[1\] and int in retain\[0\]\[1\]"),
    ],
)
def test_a_forgotten_example_in_another_number_form_is_no_other(change: Callable[..., Any], said: str) -> None:
    with pytest.raises(BadInput, match=f"numbers in one form in all sets, got {said}"):
        request_with(forget=[change(*item) for item in FORGET], retain=[*RETAIN, *FORGET])


def test_numbers_that_are_alike_are_in_one_form() -> None:
    """NumPy's and Python's numbers, arrays and tensors; of fractions, texts and lengths nothing is asked."""
    mixed = [(x.numpy(), np.int64(y)) for x, y in RETAIN]
    assert request_with(retain=mixed).fingerprint == request_with().fingerprint
    Request(*([{"age": age, "ids": torch.ones(age), "text": age}] for age in (3, 4)), [{"age": 2.5, "ids": "none"}])


GREY, RGB = [torch.full((8, 8), i / 9) for i in range(9)], [torch.full((8, 8, 3), i / 9) for i in range(9)]


@pytest.mark.parametrize(
    "mixed",
    [
        [item for pair in zip(GREY, RGB, strict=True) for item in pair],
        [torch.full((2, 9) if i % 2 else (1, 9), float(i)) for i in range(18)],
        [torch.full((8, 8), float(i), dtype=(torch.uint8, torch.int32)[i % 2]) for i in range(18)],
        [(float(i) if i % 2 else i, f"{i}") for i in range(18)],
        [(i > 8 if i % 2 else int(i > 8), f"{i}") for i in range(18)],
    ],
    ids=["grey and colour", "mono and stereo", "8 and 16 bits", "whole floats", "truth values"],
)
def test_data_of_mixed_forms_are_taken_in_any_order(mixed: list[Any]) -> None:
    for data in (mixed, mixed[::-1]):
        Request(data[:1], data[1:9], data[9:12], data[12:])


def test_two_forms_show_though_the_first_examples_do_not_tell() -> None:
    ages = [2.5, 3.0], [3, 4]
    with pytest.raises(BadInput, match=r"got float in forget\[1\]\['age'\] and int in retain\[0\]\['age'\]"):
        Request(*([{"age": age} for age in part] for part in ages))
    with pytest.raises(BadInput, match=r"got int64 of 1 dimensions in forget\[0\]\[1\] and int in retain\[0\]\[1\]"):
        request_with(forget=[(x, torch.tensor([y])) for x, y in FORGET])


def test_a_forget_example_named_twice_is_refused() -> None:
    with pytest.raises(BadInput, match="each forget example once, got example 4 equal to 1"):
        request_with(forget=[*FORGET, FORGET[1]])


def test_a_holdout_of_few_examples_many_times_is_refused() -> None:
    """Intervals would count 40 where there are 8; a few that repeat others by chance do no harm."""
    with pytest.raises(BadInput, match="holdout of different examples, got 32 of 40 that are there already"):
        request_with(holdout=HOLDOUT * 5)
    many = blobs(40, 4, 2)
    request = request_with(holdout=[*many, many[0], many[1]])
    assert (len(request.holdout), Sizes.of(request, 0).holdout) == (42, 40)


def test_examples_of_one_person_may_repeat_and_those_of_several_may_not() -> None:
    twice, forgotten = [*HOLDOUT, *HOLDOUT], ["ann"] * len(FORGET)
    own = [f"p{i}" for i in range(len(HOLDOUT))]
    assert request_with(holdout=twice, groups={"forget": forgotten, "holdout": own * 2}).groups
    others = [f"q{i}" for i in range(len(HOLDOUT))]
    with pytest.raises(BadInput, match="each one person's, got 8 of 16"):
        request_with(holdout=twice, groups={"forget": forgotten, "holdout": [*own, *others]})


def test_a_part_of_a_request_is_no_worse_than_the_whole() -> None:
    """One person's repeats stay right where nobody's names are known any more, and a method reads no holdout at all."""
    twice, names = [*HOLDOUT, *HOLDOUT], [f"p{i}" for i in range(len(HOLDOUT))] * 2
    whole = request_with(holdout=twice, groups={"forget": ["ann"] * len(FORGET), "holdout": names})
    assert len(whole.with_own(holdout=Selection(twice, range(0, 16, 2))).holdout) == 8
    job = Job(whole, Classification(), seeded(0), CPU)
    assert parse("finetune:epochs=1", "methods").unlearn(network(), job) is not None


@pytest.mark.parametrize(("first", "second"), [("ann", "ann "), ("Zo\u00eb", "Zoe\u0308")])
def test_a_person_has_one_spelling(first: str, second: str) -> None:
    names = {"forget": [first] * len(FORGET), "holdout": [second, *(f"p{i}" for i in range(1, len(HOLDOUT)))]}
    with pytest.raises(BadInput, match="one spelling of each name"):
        request_with(groups=names)


def test_a_class_request_names_its_classes() -> None:
    with pytest.raises(BadInput, match="masked to name the forgotten classes"):
        request_with(kind="class")
    assert request_with(kind="class", masked=(0,)).masked == (0,)


def test_a_misspelt_kind_is_refused() -> None:
    with pytest.raises(BadInput, match=r"one of samples, class, concept, backdoor, got kind='klass'\. .*by groups"):
        request_with(kind="klass")


@pytest.mark.parametrize("index", [40, -1, 10_000])
def test_a_part_refuses_an_index_out_of_range(index: int) -> None:
    with pytest.raises(BadInput, match=rf"indices in 0\.\.39, got {index}"):
        Selection(DATA, [0, index])
    part = Selection(DATA, [7, 3])
    assert [part[0][1], part[1][1], len(part)] == [3, 3, 2]


def test_truth_values_are_no_indices() -> None:
    mask = np.arange(40) < 4
    for given in (mask, mask.tolist(), torch.from_numpy(mask)):
        with pytest.raises(BadInput, match=r"Selection: expected indices, got .*True.* enumerate\(mask\) if chosen"):
            Selection(DATA, given)
    for part in (Subset(DATA, mask), Subset(Subset(DATA, mask), [0, 1])):  # type: ignore[arg-type]
        with pytest.raises(BadInput, match=r"forget: Subset: expected indices, got .*True"):
            request_with(forget=part)
    with pytest.raises(BadInput, match=r"expected indices, got 1\.0\. Give whole numbers: \[3, 17"):
        Selection(DATA, [1.0])  # type: ignore[list-item]


@pytest.mark.parametrize("given", [[np.uint64(7), np.int64(3)], [torch.tensor(7), 3], np.array([7, 3], np.uint64)])
def test_indices_may_be_of_any_whole_kind(given: Any) -> None:
    assert [y for _, y in iterate(Selection(DATA, given))] == [DATA[7][1], DATA[3][1]]


@pytest.mark.parametrize("given", [[[1], [2, 3]], [[1], [2]], np.array([[1], [2]]), [None], ["1"]])
def test_lists_and_texts_are_no_indices(given: Any) -> None:
    with pytest.raises(BadInput, match=r"Selection: expected indices, got .* Give whole numbers: \[3, 17"):
        Selection(DATA, given)


def test_what_has_labels_or_no_order_is_no_list_of_indices() -> None:
    """As a column of pandas, which gives its values by their labels; these are no places."""
    assert len(Selection(DATA, {5: 0, 6: 1}.values())) == 2  # type: ignore[arg-type]
    for column in ({5: 0, 6: 1}, {0, 1}):
        with pytest.raises(BadInput, match=r"forget: Subset: expected indices in a list, got .*Give list\(indices\)"):
            request_with(forget=Subset(DATA, column))  # type: ignore[arg-type]


def test_fingerprint_is_of_content_in_order_and_independent_of_containers() -> None:
    assert request_with().fingerprint == request_with(forget=Selection(DATA, range(4))).fingerprint
    arrays = [(x.numpy(), np.int64(y)) for x, y in FORGET]
    assert request_with(forget=arrays).fingerprint == request_with().fingerprint
    assert request_with(forget=FORGET[::-1]).fingerprint != request_with().fingerprint
    assert request_with(test=TEST[:-1]).fingerprint != request_with().fingerprint


def test_digest_tells_apart_what_is_not_the_same() -> None:
    zeros = torch.zeros(2, 2)
    different = [
        (1, 23), (12, 3), "ab", b"ab", ("a", "b"), ["a", ["b"]], 1, 1.0, True, None, {"a": 1}, {"a1": ""}, {"b": 1},
        zeros, torch.zeros(4), torch.zeros(2, 2, dtype=torch.float64), (zeros, 1), (zeros, 11), (zeros, 1, 1),
        np.array("x"), {"a": {"b": 1}},
    ]  # fmt: skip
    digests = [digest(item) for item in different]
    assert len(set(digests)) == len(digests)
    assert digest((zeros, 1)) == digest([zeros.numpy(), np.int64(1)]) == digest((zeros.clone(), torch.tensor(1)))
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})


def test_with_validation_draws_half_of_the_holdout_where_there_is_none() -> None:
    halved = request_with().with_validation()
    assert halved.validation is not None
    assert (len(halved.holdout), len(halved.validation)) == (4, 4)
    assert {digest(halved.validation[i]) for i in range(4)}.isdisjoint(digest(halved.holdout[i]) for i in range(4))
    own = request_with(validation=SPARE)
    assert own.with_validation() is own
    assert len(replace(own, validation=[]).with_validation().holdout) == 4
    with pytest.raises(MissingReference, match="at least 4 holdout examples, got 3"):
        request_with(holdout=HOLDOUT[:3], test=TEST[:3]).with_validation()


def test_with_validation_draws_half_of_the_test_set_where_the_holdout_is_too_small() -> None:
    few = request_with(holdout=HOLDOUT[:3])
    halved = few.with_validation()
    assert halved.validation is not None
    assert len(halved.holdout) == 3
    assert (len(halved.validation), len(halved.test)) == ((len(TEST) + 1) // 2, len(TEST) // 2)
    assert {digest(x) for x in halved.validation} | {digest(x) for x in halved.test} == {digest(x) for x in TEST}


def test_with_validation_of_a_holdout_that_is_one_persons() -> None:
    groups = {"forget": ["a"] * len(FORGET), "holdout": ["b"] * len(HOLDOUT)}
    groups["forget"][0] = "c"
    with pytest.raises(MissingReference, match="a holdout of at least 2 persons, one of whom serves tuning, got 1"):
        request_with(groups=groups).with_validation()


def test_what_turns_up_in_turns_is_in_both_halves() -> None:
    """A holdout that goes through its classes in order leaves all of them to the audit."""
    turns = [(torch.full((1, 4, 4), float(i)), i % 10) for i in range(1000, 1200)]
    request = request_with(holdout=turns).with_validation()
    for half in (request.validation, request.holdout):
        counts = np.bincount([label for _, label in iterate(half or ())], minlength=10)
        assert counts.min() >= 5
    values = [float(x.max()) for x, _ in iterate(request.holdout)]
    assert values == sorted(values)


LABELS = [i % 3 for i in range(30)]


def test_choose_half_class_and_indices(tmp_path: Any) -> None:
    half, whole = choose("half:1", LABELS, 0, 3), choose("class:1", LABELS, 0, 3)
    assert len(half.indices) == 5
    assert {LABELS[i] for i in half.indices} == {1} == half.classes
    assert half.masked == ()
    assert whole.indices == [i for i in range(30) if LABELS[i] == 1]
    assert whole.masked == (1,)
    assert choose("half:1", LABELS, 1, 3).indices != half.indices
    path = tmp_path / "indices.txt"
    path.write_text("# the first two\n4\n\n 0 \n")
    assert choose(str(path), LABELS, 0, 3) == ([4, 0], {1, 0}, (), False)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("3\n30\n", r":2: expected an index in 0\.\.29, got 30"),
        ("3\n4\n3\n", r":3: expected each index once, got 3 again \(line 1\)"),
        ("-1\n", ":1: expected an index, got '-1'"),
        ("1.5\n", ":1: expected an index, got '1.5'"),
        ("²\n", ":1: expected an index, got '²'"),
        ("one\n", ":1: expected an index, got 'one'"),
    ],
)
def test_indices_are_checked_line_by_line(text: str, message: str, tmp_path: Any) -> None:
    path = tmp_path / "indices.txt"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(BadInput, match=message):
        read_indices(path, 30)


@pytest.mark.parametrize(
    ("forget", "message"),
    [
        ("class:3", r"expected a class in 0\.\.2, got '3'"),
        ("half:x", "got 'x'"),
        ("half:²", "got '²'"),
        ("class:-1", "got '-1'"),
        ("no-such-file", "no-such-file: expected a readable file, got: No such file"),
        ("half:", "half:: expected a readable file"),
        (".", "expected a readable file, got: Is a directory"),
    ],
)
def test_unknown_class_and_missing_file(forget: str, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        choose(forget, LABELS, 0, 3)


def test_indices_that_are_no_text(tmp_path: Any) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\xfe1")
    with pytest.raises(BadInput, match="expected UTF-8 text, got other bytes at position 0"):
        read_indices(tmp_path / "binary", 30)


def test_joined_gives_one_set_after_another() -> None:
    both = Joined((FORGET, RETAIN))
    assert len(both) == 20
    assert [digest(both[i]) for i in range(20)] == [digest(item) for item in DATA[:20]]
    with pytest.raises(IndexError):
        both[20]


class Augmented:
    """Pictures with noise that is drawn anew whenever one is read, but those that `kept` names."""

    def __init__(self, examples: list[Any], kept: tuple[int, ...] = ()) -> None:
        self.examples, self.kept, self.generator = examples, kept, torch.Generator().manual_seed(0)

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int, /) -> tuple[torch.Tensor, int]:
        picture, label = self.examples[index]
        if index in self.kept:
            return picture, label
        return (picture + 0.01 * torch.rand(picture.shape, generator=self.generator)).clamp(0, 1), label


SETS = {"forget": FORGET, "retain": RETAIN, "holdout": HOLDOUT, "test": TEST, "validation": SPARE}


@pytest.mark.parametrize("split", [*SPLITS, "validation"])
def test_data_that_change_each_time_they_are_read_are_refused(split: str) -> None:
    changing = Augmented(SETS[split])
    with pytest.raises(BadInput, match=rf"{split}\[\d+\] to be the same whenever it is read.*augmentation.*freeze"):
        request_with(**{split: changing})
    frozen = [changing[i] for i in range(len(changing))]
    assert len(request_with(**{split: frozen}).forget) == 4


def test_an_example_that_changes_now_and_then_is_found_by_whoever_reads_them_all() -> None:
    request = request_with(retain=Augmented([*RETAIN, *SPARE], kept=tuple(i for i in range(20) if i != 2)))
    with pytest.raises(BadInput, match=r"retain\[2\] to be the same whenever it is read"):
        check_inputs(Classification(), network(), request)


class Filled:
    """An example that keeps what was made of it, and would rather leave it out."""

    def __init__(self, number: int) -> None:
        self.number, self.made = number, dict[str, torch.Tensor]()

    def read(self) -> tuple[torch.Tensor, int]:
        return self.made.setdefault("image", torch.full((1, 4, 4), self.number / 40)), 0


def test_an_example_that_fills_itself_in_is_told_to_leave_that_out() -> None:
    sets = [[Filled(i) for i in range(first, first + 4)] for first in range(0, 16, 4)]
    with pytest.raises(BadInput, match=r"filled in on first reading\. .*leave such attributes out in __getstate__"):
        check_inputs(Classification(read=Filled.read), network(), Request(*sets))


@pytest.mark.parametrize("masked", [3, None, ("a",), "3"])
def test_masked_classes_are_numbers_in_a_tuple(masked: Any) -> None:
    with pytest.raises(BadInput, match="Request: expected masked to hold the classes that are forgotten whole, got"):
        Request(["a"], ["b"], ["c"], ["d"], kind="class", masked=masked)


def test_tensors_that_hold_no_values_are_refused_and_half_widths_are_read() -> None:
    for tensor in (torch.ones(2, device="meta"), torch.eye(2).to_sparse()):
        with pytest.raises(BadInput, match="example: expected tensors that hold every value, got one of "):
            Request([(tensor, 0)], ["b"], ["c"], ["d"])
    one, other = torch.rand(2, 3).bfloat16(), torch.rand(2, 3).bfloat16()
    assert digest(one) == digest(one.clone()) != digest(other)
    assert digest(one[0, 0]) == digest(one[0, 0].clone()) != digest(other[0, 0])


def persons(count: int, first: int) -> list[tuple[torch.Tensor, int]]:
    return [(torch.full((2,), float(first + i)), 0) for i in range(count)]


def owned(**changes: Any) -> Request:
    groups = {"forget": ["Ann"] * 2, "holdout": ["Ben", "Ben", "Cy", "Cy", "Di", "Di", "Ed", "Ed"]}
    sets = {"forget": persons(2, 0), "retain": persons(3, 10), "holdout": persons(8, 20), "test": persons(2, 40)}
    return Request(**{**sets, "groups": groups, **changes})


def test_groups_enter_the_fingerprint_and_control_does_not() -> None:
    assert owned().fingerprint != owned(groups=None).fingerprint
    assert owned().fingerprint == owned(control="random split").fingerprint


def test_whole_persons_go_to_validation() -> None:
    request = owned().with_validation()
    assert request.groups is not None
    left = list(dict.fromkeys(request.groups["holdout"]))
    assert len(left) == 2 and list(request.groups["holdout"]) == [name for name in left for _ in range(2)]
    tuned_on = {float(x[0]) for x, _ in iterate(request.validation or ())}
    audited = {float(x[0]) for x, _ in iterate(request.holdout)}
    assert len(tuned_on) == 4 and not tuned_on & audited
    assert {int(x) // 2 for x in tuned_on}.isdisjoint(int(x) // 2 for x in audited), "a person's records stay together"


def test_examples_that_change_lose_their_owners() -> None:
    assert owned().with_own(holdout=persons(3, 60)).groups is None
    assert owned().with_own(retain=persons(3, 60)).groups is not None


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"groups": {"forget": "AB", "holdout": ["Ben"] * 8}}, "each of 2 forget examples is, got 0 names"),
        ({"groups": {"forget": ["Ann"], "holdout": ["Ben"] * 8}}, "each of 2 forget examples is, got 1 names"),
        ({"groups": {"forget": ["Ann"] * 2}}, "each of 8 holdout examples is, got 0 names"),
        ({"groups": {"forget": ["Ann"] * 2, "holdout": ["Ann"] * 8}}, "got 'Ann' in both"),
        ({"control": "luck"}, "control to be one of planted, random split, matched, synthetic, got 'luck'"),
    ],
)
def test_groups_and_control_that_cannot_be(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(BadInput, match=re.escape(said)):
        owned(**changes)


def test_holdout_and_test_may_be_left_out_and_say_what_that_costs() -> None:
    request = Request(FORGET, RETAIN)
    assert [len(request[name]) for name in ("holdout", "test")] == [0, 0]
    assert "whether somebody can tell" in request.holdout.reason  # type: ignore[attr-defined]
    assert "what else is lost" in request.test.reason  # type: ignore[attr-defined]
    with pytest.raises(BadInput, match=r"leave it out, or say why: holdout=ur\.Absent"):
        request_with(holdout=None)


def test_samples_are_not_tuned_without_a_holdout_and_a_class_is() -> None:
    with pytest.raises(MissingReference, match="at least 4 holdout examples, got 0"):
        Request(FORGET, RETAIN).with_validation()
    first, rest = [item for item in DATA if item[1] == 0], [item for item in DATA if item[1] != 0]
    tuned = Request(first, rest, kind="class", masked=(0,)).with_validation()
    assert tuned.validation is not None
    assert len(tuned.validation) == 0
    assert tuned.with_validation() is tuned


def test_what_was_tuned_on_is_taken_out_of_holdout_and_test() -> None:
    data = [(torch.tensor([float(i)]), 0) for i in range(12)]
    groups = {"forget": ["a", "a"], "holdout": ["b", "c", "d", "d"]}
    request = Request(data[:2], data[2:4], data[4:8], data[8:], groups=groups)
    assert request.unseen(set()) is request
    less = request.unseen({digest(data[4]), digest(data[9])})
    assert [digest(item) for item in less.holdout] == [digest(item) for item in data[5:8]]
    assert [digest(item) for item in less.test] == [digest(item) for item in (data[8], *data[10:])]
    assert less.groups == {"forget": ["a", "a"], "holdout": ["c", "d", "d"]}
    assert request.unseen({digest(data[9])}).groups == groups


@pytest.mark.parametrize("given", [tuple, np.array, torch.tensor, iter, lambda places: map(np.int64, places)])
def test_pairs_may_be_given_in_any_form(given: Callable[[list[int]], Any]) -> None:
    swapped = [*range(1, len(FORGET)), 0]
    sets = {"holdout": HOLDOUT[: len(FORGET)], "control": "planted"}
    request = request_with(pairs=given(swapped), **sets)
    assert request.pairs == swapped
    assert request.fingerprint == request_with(pairs=swapped, **sets).fingerprint


@pytest.mark.parametrize("given", [tuple, np.array, iter, lambda names: [*map(np.str_, names)]])
def test_groups_may_be_given_in_any_form(given: Callable[[list[str]], Any]) -> None:
    named = {"forget": ["Ann", "Ann"], "holdout": [*"BBCCDDEE"]}
    request = owned(groups={arm: given(names) for arm, names in named.items()})
    assert request.groups == named
    assert request.fingerprint == owned(groups=named).fingerprint


@pytest.mark.parametrize("masked", [[0, 1], np.array([0, 1]), (np.int64(0), torch.tensor(1)), range(2)])
def test_masked_classes_may_be_given_in_any_form(masked: Any) -> None:
    request = request_with(kind="class", masked=masked)
    assert request.masked == (0, 1)
    assert request.fingerprint == request_with(kind="class", masked=(0, 1)).fingerprint


def test_fingerprints_of_owners_and_pairs_are_what_they_were() -> None:
    """Records are kept under them."""
    data = [([i], i % 2) for i in range(12)]
    groups = {"forget": ["a", "a"], "holdout": ["b", "c"]}
    fingerprints = [
        Request(data[:2], data[2:4], data[4:6], data[6:], groups=groups).fingerprint,
        Request(data[:2], data[2:4], data[4:6], data[6:], pairs=[1, 0], control="planted").fingerprint,
        Request(data[0:4:2], data[1:5:2], data[6:8], data[8:], kind="class", masked=(0,)).fingerprint,
    ]
    assert [text[:8] for text in fingerprints] == ["9bcf81b8", "e2efe53a", "7049f56f"]


def test_nan_is_called_so_where_it_makes_examples_alike() -> None:
    nothing = [(x * torch.nan, y) for x, y in blobs(40, 4, 2)]
    with pytest.raises(BadInput, match=r"^holdout\[1\]: expected finite inputs"):
        request_with(holdout=[HOLDOUT[0], *nothing])
    with pytest.raises(BadInput, match=r"^forget\[0\]: expected finite inputs"):
        request_with(forget=[*nothing[:2], nothing[1]])


@pytest.mark.parametrize(
    "odd",
    [
        {"groups": {"forget": ["a"] * len(FORGET), "holdout": None}},
        {"groups": {"forget": 3, "holdout": ["b"] * len(HOLDOUT)}},
        {"pairs": 3, "control": "planted"},
        {"pairs": np.array("ab"), "control": "planted"},
        {"pairs": ["a", 0], "control": "planted"},
        {"pairs": [[0], [1]], "control": "planted"},
    ],
)
def test_owners_and_pairs_of_another_kind_are_refused(odd: Any) -> None:
    with pytest.raises(BadInput, match="Request: expected"):
        request_with(**odd)
