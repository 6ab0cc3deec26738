"""The verdict beside records that were never trained on, in words."""

from unrecall.record.schema import AttackTest, Label, NeverTrained

UNCHANGED = "Unchanged: the unlearned model's weights are the original's; nothing was removed."
SHARES_LEFT = ("no more than 25 %", "no more than 50 %")
SURE = 5.0
"""The original's own statistic from which on an attack can vouch that less than half is left; twice that, a quarter."""
FEWEST = {"record": 50, "group": 20}
"""Units of forget below which nothing is said to be gone."""
DIFFERS = "But the holdout differs from forget before any model is asked; scores are adjusted for that, no more."
BLIND = 0.05
"""The p of the blind test up to which the holdout is said to differ."""
PLACEBO = 0.01
"""The p below which two halves of the holdout are said to differ."""


def line(label: Label, tested: NeverTrained, unsafe: list[str]) -> str:
    """One or two sentences: what was found, how sure that is, and what would decide it."""
    records = "persons" if tested.unit == "group" else "records"
    counted = sum(test.p is not None for test in tested.attacks)
    over = f" over {counted} attacks" if counted != 1 else ""
    if label == "leaks":
        return _leaks(tested, over, records)
    if label == "inconclusive":
        return _inconclusive(tested, records, unsafe)
    if label in SHARES_LEFT:
        return _gone(label, tested, f"these {counted} attacks" if counted != 1 else "this attack", records)
    lost = [f"{-100 * (d.difference.value or 0):.0f} points on {d.split}" for d in tested.damage if d.damaged]
    return {
        "unchanged": UNCHANGED,
        "not judged": (
            f"Not judged: the original itself knows the {records} that it was never trained on better than the "
            f"forgotten ones (z = {tested.attacks[0].z_original:.1f}): forget and holdout may be swapped, or the "
            "holdout was trained on."
        ),
        "stands out": (
            f"Stands out: the forgotten {records} are recognised worse than {records} never trained on "
            f"(p = {p(tested.strange)}{over}); whoever looks for them finds them by that."
            + (f" {DIFFERS}" if differs(tested) else "")
        ),
        "damaged": (
            f"Damaged: accuracy fell by {', '.join(lost)}. Nothing was recognised (p = {p(tested.leak)}{over}), "
            "which says little of a model that knows so much less."
        ),
        "can't be told": (
            f"Can't be told: these {records} left no trace in the original that this audit sees "
            f"(p = {p(tested.original)}{over}), so none can be said to be gone."
        ),
    }[label]


def _gone(label: Label, tested: NeverTrained, attacks: str, records: str) -> str:
    bound = max(test.bound for test in tested.attacks if test.bound is not None and test.z_original >= SURE)
    return (
        f"{label.capitalize()} of the original's memory of these {records} was found by {attacks} "
        f"(bound {bound:.0%}). It is no proof that none is left."
    )


def _leaks(tested: NeverTrained, over: str, records: str) -> str:
    strongest = min(tested.attacks, key=strength)
    whose = "records" if tested.unit == "record" else "person's records" if tested.forget == 1 else "persons' records"
    others = "records" if tested.unit == "record" else f"those of {records}"
    return (
        f"Leaks: {after(strongest)}, the forgotten {whose} are recognised better than {others} never trained on "
        f"(p = {p(tested.leak)}{over}). {left(strongest)}{promise(tested)}"
    )


def strength(test: AttackTest) -> tuple[float, float]:
    """By which attacks are put in order, the strongest first."""
    return (2.0 if test.p is None else test.p, -test.z)


def differs(tested: NeverTrained) -> bool:
    """Whether the arms can be told apart before any model is asked."""
    return tested.blind is not None and tested.blind <= BLIND


def uneven(tested: NeverTrained) -> bool:
    """Whether two random halves of the holdout differ under the unlearned model, which nothing explains."""
    return tested.placebo is not None and tested.placebo < PLACEBO


def broken(tested: NeverTrained) -> list[AttackTest]:
    """The attacks after which the loss on retain is beyond 10 x that of the first attack + 1: they can find nothing."""
    plain = tested.attacks[0].losses.get("retain", 0.0) if tested.attacks else 0.0
    return [test for test in tested.attacks if test.losses.get("retain", 0.0) > 10 * plain + 1]


def idle(tested: NeverTrained) -> list[AttackTest]:
    """The attacks whose fine-tuning diverged or moved no weight, so that they looked at the model as it is.

    None in records from before all of them said how many steps they took.
    """
    complete = any(test.steps for test in tested.attacks if test.name != "symmetric")
    return [test for test in tested.attacks if complete and 0 in test.steps]


def swapped(tested: NeverTrained) -> bool:
    """Whether the original itself knows the holdout far better than forget, so that nothing can be held beside it."""
    return bool(tested.attacks) and tested.attacks[0].z_original <= -SURE


def promise(tested: NeverTrained) -> str:
    """How often a model that never saw the records is accused, and on what that rests."""
    if differs(tested):
        return DIFFERS
    never = f"A model that never saw them does this in at most {100 * tested.level:.0f} of 100 audits"
    return (
        f"{never}." if tested.grade in ("A", "B") else f"{never}, if the holdout is like them (grade {tested.grade})."
    )


def after(test: AttackTest) -> str:
    """When an attack found something: as the model is, or after what was done to it."""
    title = test.title if "Norm" in test.title else test.title[0].lower() + test.title[1:]
    return "as it is" if test.name == "as_it_is" else f"after {title}"


def left(test: AttackTest) -> str:
    """The share of memory that is left, in a sentence; empty where it can't be given."""
    if test.rho is None or test.rho_low is None or test.rho_high is None:
        return ""
    return (
        f"Of what the original shows of them {test.rho:.0%} is left (95 %: {test.rho_low:.0%} to {test.rho_high:.0%}). "
    )


def _inconclusive(tested: NeverTrained, records: str, unsafe: list[str]) -> str:
    """What is missing: labellings, records, a trace that is strong enough, or a holdout that is like forget."""
    if not tested.level:
        return (
            f"Inconclusive: {tested.forget} forgotten and {tested.holdout} never-trained {records} are too few to tell "
            "anything; name at least 19 others for one."
        )
    fewest, reasons = FEWEST[tested.unit], list(unsafe)
    noticed = tested.attacks[0].smallest
    if differs(tested):
        reasons.append(f"the holdout differs from forget before any model is asked (p = {p(tested.blind)})")
    if tested.forget < fewest:
        reasons.append(f"fewer than {fewest} {records} can be shown to leak, but not to be gone")
    elif noticed is None:
        reasons.append("as it is, the original itself shows too little of them to say how much is left")
    else:
        reasons.append(f"as the model is, a share of the original's memory below {noticed:.0%} would go unseen")
    if tested.needed and tested.needed > tested.forget:
        wanted = max(tested.needed, fewest)
        reasons.append(f"about {wanted:,} {records} like these could show that no more than half is left")
    return f"Inconclusive: nothing was found, which proves little: {'; '.join(reasons)}."


def p(value: float | None) -> str:
    """A p in a sentence."""
    if value is None:
        return "unknown"
    return f"{value:.4f}" if value < 0.001 else f"{value:.3f}" if value < 0.1 else f"{value:.2f}"
