"""How far an exact Newton step gives away which of the digits it deleted: AUC against pictures that stay.

python recipes/update_inversion.py

Prints a Markdown row for each number of deleted pictures, with the AUC of five random sets of them.
"""

from dataclasses import replace

import torch

from unrecall.attacks.update_inversion import UpdateInversion
from unrecall.data.examples import Selection
from unrecall.evidence.setting import Models, Setting
from unrecall.scenarios.digits import Digits
from unrecall.training.session import Session

COUNTS, SETS = (1, 2, 5, 20), 5


def main() -> None:
    """Deletes so many pictures of the quarter that the scenario would forget, and asks which they were."""
    torch.set_num_threads(1)
    digits, session, attack = Digits().make(), Session(device="cpu"), UpdateInversion()
    original = digits.train_original(0, session).model
    print("| deleted | AUC |\n|---|---|")
    for count in COUNTS:
        values = []
        for i in range(SETS):
            forget = Selection(digits.request.forget, range(i * count, (i + 1) * count))
            request = replace(digits.request, forget=forget)
            setting = Setting(Models(original, original, ()), request, digits.task, session=session)
            deleted = attack.disguise(setting)
            assert deleted is not None
            values.append(attack.inspect(deleted, setting).value.value or 0.0)
        print(f"| {count} | {', '.join(f'{value:.2f}' for value in values)} |", flush=True)


if __name__ == "__main__":
    main()
