"""The scores of judged attacks, kept beside the record and hashed in it, so that every figure can be made again."""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from unrecall.disk.files import file_key, writing
from unrecall.harness.finding import Finding
from unrecall.record.schema import NEVER_TRAINED, SCORES


def write_scores(
    findings: Sequence[Finding], folder: Path | None, never_trained: Mapping[str, np.ndarray] | None = None
) -> dict[str, str]:
    """Writes each judged attack's scores below `folder`, and gives the sha256 of each file by the attack's name.

    `never_trained`: the scores of that verdict, which are written as they are.

    A file holds, for each model and arm, `role/arm` [points, examples] in float32, `role/budgets` [points], and for
    each arm `arm/examples` [examples], which examples they are. Without a folder nothing is written; where another
    audit's scores lay there, a warning says that its record can no longer be checked.
    """
    if folder is None:
        return {}
    scores: dict[str, Mapping[str, np.ndarray]] = {finding.report.name: finding.scores for finding in findings}
    scores[NEVER_TRAINED] = never_trained or {}
    digests, replaced = dict[str, str](), list[str]()
    for attack, arrays in scores.items():
        if arrays:
            path = folder / SCORES / f"{attack}.safetensors"
            before = file_key(path) if path.is_file() else ""
            with writing(path, private=True) as temporary:
                # safetensors writes memory as it lies, whatever the strides.
                save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, temporary)
            digests[attack] = file_key(path)
            replaced += [attack] if before not in ("", digests[attack]) else []
    if replaced:
        warnings.warn(
            f"{folder / SCORES}: replaced the scores of another audit ({', '.join(replaced)}), whose record no longer "
            "agrees with this folder. Give each audit a folder of its own.",
            stacklevel=2,
        )
    return digests
