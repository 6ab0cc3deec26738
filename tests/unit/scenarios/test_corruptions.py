"""Corruptions by hand and on generated pictures: worse from severity to severity, and the same when read again."""

from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch

from unrecall.data.digests import digest
from unrecall.data.examples import iterate
from unrecall.errors import BadInput
from unrecall.scenarios import cifar10, small_cifar5
from unrecall.scenarios.cifar_data import Cifar, Pictures
from unrecall.scenarios.corruptions import STRENGTHS, Corruption, Kind, corrupted

PICTURES = torch.rand(12, 3, 16, 16, generator=torch.Generator().manual_seed(3))
KINDS = get_args(Kind)


@pytest.mark.parametrize("kind", KINDS)
def test_each_severity_changes_more_and_stays_in_range(kind: Kind) -> None:
    changes = []
    for severity in range(1, 6):
        changed = torch.stack([Corruption(kind, severity)(x, i) for i, x in enumerate(PICTURES)])
        assert changed.shape == PICTURES.shape and changed.dtype == torch.float32
        assert float(changed.min()) >= 0 and float(changed.max()) <= 1
        changes.append(float((changed - PICTURES).abs().mean()))
    assert changes[0] > 0 and changes == sorted(changes) and len(set(changes)) == 5


def test_contrast_by_hand() -> None:
    picture = torch.tensor([[[0.0, 1.0]], [[0.2, 0.4]]])
    changed = Corruption("contrast", 2)(picture, 0)
    torch.testing.assert_close(changed, torch.tensor([[[0.25, 0.75]], [[0.25, 0.35]]]))


def test_noise_has_its_deviation_and_hangs_on_the_seed() -> None:
    grey = torch.full((3, 64, 64), 0.5)
    noise = Corruption("noise", 5)(grey, 1) - grey
    assert float(noise.std()) == pytest.approx(0.1, rel=0.03)
    assert not torch.equal(noise, Corruption("noise", 5)(grey, 2) - grey)


def test_blur_spreads_a_point_as_a_gaussian_and_keeps_channels_apart() -> None:
    picture = torch.zeros(2, 9, 9)
    picture[0, 4, 4] = 1.0
    changed = Corruption("blur", 5)(picture, 0)
    assert float(changed.sum()) == pytest.approx(1.0, abs=1e-3) and float(changed[1].sum()) == 0
    assert float(changed[0, 4, 5] / changed[0, 4, 4]) == pytest.approx(np.exp(-1 / 2), rel=1e-3)


def test_a_set_is_the_same_when_it_is_read_again_and_plain_without_a_line() -> None:
    data = [(x, i % 10) for i, x in enumerate(PICTURES)]
    changed = corrupted(data, "noise:3")
    assert len(changed) == 12 and [digest(x) for x in iterate(changed)] == [digest(x) for x in iterate(changed)]
    assert [label for _, label in iterate(changed)] == [label for _, label in data]
    assert len({digest(x - y) for (x, _), (y, _) in zip(iterate(changed), data, strict=True)}) == 12
    assert corrupted(data, "") is data


@pytest.mark.parametrize("line", ["blur", "blur:0", "blur:6", "fog:1", "noise:x", "noise:", ":3", "blur:" + "9" * 5000])
def test_a_line_that_names_no_corruption_is_refused(line: str) -> None:
    with pytest.raises(BadInput, match="expected KIND:SEVERITY with KIND of noise, blur, contrast and SEVERITY 1 to 5"):
        corrupted([], line)


def test_of_cifar_the_test_set_alone_is_corrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = np.random.default_rng(0)
    train, test = (
        Pictures(draw.integers(0, 256, (n, 3, 32, 32), dtype=np.uint8), np.arange(n) % 10) for n in (50_000, 10_000)
    )

    def read(_: Path) -> Cifar:
        return Cifar(train, test)

    monkeypatch.setattr(small_cifar5, "read_cifar10", read)
    monkeypatch.setattr(cifar10, "read_cifar10", read)
    for kind, counts in ((small_cifar5.SmallCifar5, 1000), (cifar10.Cifar10, 10_000)):
        monkeypatch.setattr("unrecall.data.request.Request.check_apart", lambda *_: None)
        monkeypatch.setattr("unrecall.data.request.Request.digests", {})
        plain, changed = kind().make().request, kind(corruption="contrast:5").make().request
        assert len(plain.test) == len(changed.test) == counts
        for split in ("forget", "retain", "holdout"):
            assert digest(plain[split][3]) == digest(changed[split][3])
        torch.testing.assert_close(changed.test[3][0], Corruption("contrast", 5)(plain.test[3][0], 3))


def test_there_are_five_severities() -> None:
    assert {len(strengths) for strengths in STRENGTHS.values()} == {5}
