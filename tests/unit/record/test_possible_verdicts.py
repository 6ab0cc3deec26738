"""What can be concluded at all, by the rules of docs/verdict.md."""

import pytest

from unrecall.record.possible_verdicts import COUNTED, Sizes, possible, remembered


@pytest.mark.parametrize(
    ("sizes", "sentences"),
    [
        (Sizes("samples", 100, 400, 5), ["beside 5 retrained models"]),
        (Sizes("class", 12, 0, 2), ["beside 2 retrained models", "5 retrained models make"]),
        (Sizes("samples", 3, 9, 5), ["beside 5 retrained models", "with 3 forgotten, the original itself"]),
        (Sizes("class", 12, 40, 1), ["no verdict .* a whole class must go, which forget and holdout share"]),
        (Sizes("class", 12, 0, 1), ["no verdict .* a whole class must go, which a holdout would share"]),
        (Sizes("samples", 12, 3, 0), ["no verdict .* a holdout of 4 at least, got 3"]),
        # One against 18 can be dealt out in 19 ways: no p of 5 %. Of 20, 24 and 99 others p is 1/20, 1/25 and 1/100.
        (
            Sizes("samples", 1, 18, 0),
            ["1 against 18 .* in 19 ways, and 20 are needed. Name 19 records or more"],
        ),
        # Of 2 against 4 there are 15, against 5 there are 21.
        (
            Sizes("samples", 2, 4, 0),
            ["2 against 4 .* in 15 ways, and 20 are needed. Name 5 records or more"],
        ),
        (
            Sizes("samples", 1, 19, 0),
            ["19 records never trained on it can be: leaks .wrongly in at most 5 of 100., damaged", "fewer than 50"],
        ),
        (
            Sizes("samples", 1, 24, 0),
            ["24 records never trained on it can be: leaks .wrongly in at most 4 of 100., damaged", "fewer than 50"],
        ),
        (Sizes("samples", 1, 99, 0), ["leaks .*4 of 100., stands out, damaged", "fewer than 50"]),
        (Sizes("samples", 49, 200, 0), ["stands out, damaged", "fewer than 50 records, got 49"]),
        (Sizes("samples", 50, 200, 0), ["stands out, no more than 50 %, damaged"]),
        (Sizes("samples", 100, 100, 0), ["no more than 50 %, no more than 25 %, damaged", "up to 400 records"]),
        # Of 4 planted pairs 2^4 labellings, of 5 p is 1/32 at least, of 7 1/128.
        (Sizes("samples", 4, 4, 0, planted=True), ["4 against 4 can be dealt out in 16 ways, and 20 are needed"]),
        (Sizes("samples", 5, 5, 0, planted=True), ["leaks .*4 of 100., damaged", "fewer than 50", "up to 20 records"]),
        (
            Sizes("samples", 7, 7, 0, planted=True),
            ["leaks .*4 of 100., stands out", "fewer than 50", "up to 28 records"],
        ),
        (Sizes("samples", 20, 80, 0, grouped=True), ["80 persons .* no more than 50 %, damaged"]),
    ],
)
def test_sizes_decide_which_labels_there_are(sizes: Sizes, sentences: list[str]) -> None:
    import re

    said = list(possible(sizes))
    assert (COUNTED in said) == (not said[0].startswith("no verdict"))
    said = [text for text in said if text != COUNTED]
    assert len(said) == len(sentences), said
    assert all(re.search(pattern, text) for pattern, text in zip(sentences, said, strict=True)), said


def test_what_the_original_remembers_says_what_is_noticed() -> None:
    # 2.8 / z of the memory is noticed 4 times in 5; "no more than 50 %" needs z = 5 + .84, so (5.84 / 4)^2 as many.
    assert list(remembered(4.0, Sizes("samples", 100, 400, 0))) == [
        "the original knows forget beyond the holdout by z = 4.0 standard deviations, as it is: "
        "if 70% of that memory or more is left, it is noticed (4 times in 5); less may go unseen.",
        "for no more than 50 %, about 214 such records are needed.",
    ]
    assert list(remembered(0.2, Sizes("samples", 100, 400, 0))) == [
        "the original knows forget beyond the holdout by z = 0.2 standard deviations, as it is: so weakly that "
        "nobody could see whether it goes, though a leak may show after fine-tuning."
    ]
    assert len(list(remembered(12.0, Sizes("samples", 100, 400, 0)))) == 1
    # of one person 3 would do by z alone, but nothing is said to be gone of fewer than 20
    one = Sizes("samples", 1, 20, 0, grouped=True)
    assert list(remembered(3.5, one))[1:] == ["for no more than 50 %, about 20 such persons are needed."]
