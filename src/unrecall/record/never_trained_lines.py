"""The verdict beside records that were never trained on, in words."""

from unrecall.record.schema import AttackTest, Label, NeverTrained

UNCHANGED = "Unchanged: the unlearned model's weights are the original's; nothing was removed."
SHARES_LEFT = ("no more than 25 %", "no more than 50 %")
SURE = 5.0
"""The original's own statistic from which on an attack can vouch that less than half is left; twice that, a quarter."""
BLIND = 0.05
"""The p of the blind test up to which the holdout is said to differ."""


def line(label: Label, tested: NeverTrained, unsafe: list[str]) -> str:
    """One or two sentences: what was found, how sure that is, and what would decide it."""
    records = "persons" if tested.unit == "group" else "records"
    count = f"{len(tested.attacks)} attacks" if len(tested.attacks) != 1 else "1 attack"
    if label == "leaks":
        return _leaks(tested, count, records)
    if label == "inconclusive":
        return _inconclusive(tested, records, unsafe)
    if label in SHARES_LEFT:
        return _gone(label, tested, count, records)
    lost = next((damage for damage in tested.damage if damage.damaged), None)
    fallen = "" if lost is None else f"{lost.split} fell by {-(lost.difference.value or 0):.1%}"
    return {
        "unchanged": UNCHANGED,
        "stands out": (
            f"Stands out: the forgotten {records} are recognised worse than {records} never trained on "
            f"(p = {p(tested.strange)} over {count}); whoever looks for them finds them by that."
        ),
        "damaged": f"Damaged: accuracy on {fallen} against the original's.",
        "can't be told": (
            f"Can't be told: these {records} left no trace in the original that this audit sees "
            f"(p = {p(tested.original)} over {count}), so none can be said to be gone."
        ),
    }[label]


def _gone(label: Label, tested: NeverTrained, count: str, records: str) -> str:
    bound = max(test.bound for test in tested.attacks if test.bound is not None and test.z_original >= SURE)
    return (
        f"{label.capitalize()} of the original's memory of these {records} was found by these {count} "
        f"(bound {bound:.0%}). It is no proof that none is left."
    )


def _leaks(tested: NeverTrained, count: str, records: str) -> str:
    strongest = min(tested.attacks, key=lambda test: (test.p, -test.z))
    rest = f"A model that never saw them does this in at most {100 * tested.level:.0f} of 100 audits."
    if tested.blind is not None and tested.blind <= BLIND:
        rest = "But the holdout differs from forget before any model is asked; scores are adjusted for that, no more."
    whose = "records" if tested.unit == "record" else "person's records" if tested.forget == 1 else "persons' records"
    return (
        f"Leaks: {after(strongest)}, the forgotten {whose} are recognised better than {records} never trained on "
        f"(p = {p(tested.leak)} over {count}{left(strongest)}). {rest}"
    )


def after(test: AttackTest) -> str:
    """When an attack found something: as the model is, or after what was done to it."""
    title = test.title if test.title[1].isupper() or "Norm" in test.title else test.title[0].lower() + test.title[1:]
    return "as it is" if test.name == "as_it_is" else f"after {title}"


def left(test: AttackTest) -> str:
    """The share of memory that is left, in a bracket's words; empty where it can't be given."""
    if test.rho is None or test.rho_low is None or test.rho_high is None:
        return ""
    return f"; {test.rho:.0%}, {test.rho_low:.0%} to {test.rho_high:.0%}, of the original's memory"


def _inconclusive(tested: NeverTrained, records: str, unsafe: list[str]) -> str:
    """What is missing: labellings, records, a trace that is strong enough, or a holdout that is like forget."""
    if not tested.level:
        return (
            f"Inconclusive: {tested.forget} forgotten and {tested.holdout} never-trained {records} are too few to tell "
            "anything; name at least 19 others for one."
        )
    found = [test.smallest for test in tested.attacks if test.smallest is not None]
    reasons = list(unsafe)
    if tested.blind is not None and tested.blind <= BLIND:
        reasons.append(f"the holdout differs from forget before any model is asked (p = {p(tested.blind)})")
    if tested.forget < 50:
        reasons.append(f"fewer than 50 {records} can be shown to leak, but not to be gone")
    elif found:
        reasons.append(f"a share of the original's memory below {min(found):.0%} would go unseen")
    if tested.needed and tested.needed > tested.forget:
        reasons.append(
            f"about {max(tested.needed, 50):,} {records} like these could show that no more than half is left"
        )
    return f"Inconclusive: nothing was found, which proves little: {'; '.join(reasons)}."


def p(value: float | None) -> str:
    """A p in a sentence."""
    if value is None:
        return "unknown"
    return f"{value:.4f}" if value < 0.001 else f"{value:.3f}" if value < 0.1 else f"{value:.2f}"
