"""The scores of judged attacks, kept beside the record and hashed in it, so that every figure can be made again."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from unrecall.disk.files import file_key, writing
from unrecall.harness.finding import Finding
from unrecall.record.schema import SCORES


def write_scores(findings: Sequence[Finding], folder: Path | None) -> dict[str, str]:
    """Writes each judged attack's scores below `folder`, and gives the sha256 of each file by the attack's name.

    A file holds, for each model and arm, `role/arm` [points, examples] in float32, `role/budgets` [points], and for
    each arm `arm/examples` [examples], which examples they are. Without a folder nothing is written.
    """
    if folder is None:
        return {}
    digests: dict[str, str] = {}
    for finding in findings:
        if finding.scores:
            path = folder / SCORES / f"{finding.report.name}.safetensors"
            with writing(path) as temporary:
                # safetensors writes memory as it lies, whatever the strides.
                save_file({name: np.ascontiguousarray(array) for name, array in finding.scores.items()}, temporary)
            digests[finding.report.name] = file_key(path)
    return digests
