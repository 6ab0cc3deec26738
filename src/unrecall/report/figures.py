"""The plots that compare models: how one forgot, utility against forgetting, and what tuning saw."""

from __future__ import annotations

from collections.abc import Sequence

from unrecall.records import Estimate, Measurement, Record, Tuning
from unrecall.report.plot import GREY, Json, Plot, axis, faded, label, layout
from unrecall.report.roles import STYLES, Style, by_method, style
from unrecall.report.strips import drawable, finite


def forgetting(measurement: Measurement, recovered: dict[str, float]) -> Plot:
    """Forget accuracy of every model as dots on one scale, each tied to the original by a thin line."""
    rows = [("original", "original", measurement.original), ("null", "learning rate 0", measurement.null)]
    rows += [("unlearned", "unlearned", measurement.unlearned)]
    rows += [(role, f"{role}, recalibrated", Estimate(value=value)) for role, value in recovered.items()]
    rows += [("retrained", "retrained", Estimate(value=measurement.reference))]
    drawn = [(role, name, e) for role, name, e in rows if finite(e.value) is not None]
    start = finite(measurement.original.value)
    data = [dot(role, name, e, float(i), start) for i, (role, name, e) in enumerate(drawn)]
    y = axis("") | {
        "tickvals": list(range(len(drawn))),
        "ticktext": [label(name, 20) for _, name, _ in drawn],
        "range": [len(drawn) - 0.5, -0.5],
        "showgrid": False,
    }
    unit = f" ({measurement.unit})" if measurement.unit else ""
    about = f"{measurement.title} of each model"
    return Plot(data, layout(axis(measurement.title + unit), y, 86 + 30 * len(drawn)), [], about)


def dot(role: str, name: str, estimate: Estimate, row: float, start: float | None) -> Json:
    """One model's value with its interval, and the way from the original to it."""
    look, value = style(role), finite(estimate.value)
    low, high = finite(estimate.low), finite(estimate.high)
    whole = value is not None and low is not None and high is not None
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "name": label(name),
        "x": [value if start is None else start, value],
        "y": [row, row],
        "line": {"color": faded(look.colour, 0.5), "width": 2},
        "marker": {"symbol": look.symbol, "size": [0, 11], "color": look.colour},
        "error_x": {
            "type": "data",
            "symmetric": False,
            "array": [0, (high or 0) - (value or 0) if whole else 0],
            "arrayminus": [0, (value or 0) - (low or 0) if whole else 0],
            "color": look.colour,
            "thickness": 1.5,
            "visible": whole,
        },
    }


def plane(records: Sequence[Record]) -> Plot | None:
    """Utility against forgetting: each record a marker with its row number, original and retrained for reference."""
    useful, looks = utility(records), by_method(records)
    data: list[Json] = []
    spots: dict[tuple[str, float, float], Json] = {}
    titles = ("", "")
    for row, record in enumerate(records, 1):
        x, y = record.measurement(useful), record.measurement("forget_accuracy")
        if x is None or y is None:
            continue
        titles = x.title, y.title
        for role in ("original", "retrained"):
            a, b = central(x, role), central(y, role)
            if a is not None and b is not None:
                spots[role, a, b] = spot(STYLES[role], role, a, b, "", 15)
        a, b = finite(x.unlearned.value), finite(y.unlearned.value)
        if a is not None and b is not None:
            name, text = f"{record.method}, seed {record.seed}", str(row) if len(records) > 1 else record.method
            data.append(spot(looks[record.method], name, a, b, text, 11))
    shown = [STYLES["original"], STYLES["retrained"], *looks.values()]
    frame = layout(axis(titles[0]), axis(titles[1]), 400)
    return Plot([*spots.values(), *data], frame, shown, "Utility against forgetting") if data else None


def utility(records: Sequence[Record]) -> str:
    """The name of the measurement that stands for utility: retain accuracy, or test accuracy where there is none."""
    return "retain_accuracy" if any(r.measurement("retain_accuracy") for r in records) else "test_accuracy"


def central(measurement: Measurement, role: str) -> float | None:
    """The original model's value, or the mean of the retrained ones."""
    return finite(measurement.original.value if role == "original" else measurement.reference)


def spot(look: Style, name: str, x: float, y: float, text: str, size: int) -> Json:
    """One marker on the plane."""
    return {
        "type": "scatter",
        "mode": "markers+text",
        "name": label(name),
        "x": [x],
        "y": [y],
        "text": [label(text)],
        "textposition": "top right",
        "marker": {"symbol": look.symbol, "size": size, "color": look.colour, "line": {"width": 1, "color": "white"}},
        "cliponaxis": False,
    }


def tuning(tuning: Tuning) -> Plot:
    """What tuning saw: the gap between forget and validation, and the drop on retain, over the strength."""
    trials = sorted((t for t in tuning.trials if finite(t.strength) is not None), key=lambda trial: trial.strength)
    wide = bool(trials) and trials[0].strength > 0 and trials[-1].strength > 20 * trials[0].strength
    chosen = drawable(tuning.chosen, wide)
    looks = [Style("gap", "#0072B2", "solid", "circle"), Style("retain drop", "#D55E00", "dash", "square")]
    data = [trial_line([t.strength for t in trials], [finite(t.gap) for t in trials], looks[0])]
    data += [trial_line([t.strength for t in trials], [finite(t.retain_drop) for t in trials], looks[1])]
    page = layout(axis(tuning.parameter, wide), axis("gap, retain drop"), 280)
    if chosen is not None:
        page["shapes"] = [
            {"type": "line", "x0": chosen, "x1": chosen, "y0": 0, "y1": 1, "yref": "paper"}
            | {"line": {"color": GREY, "dash": "dot", "width": 1.5}}
        ]
    return Plot(data, page, [*looks, Style("chosen", GREY, "dot", "")], f"Tuning {tuning.parameter}")


def trial_line(xs: list[float], ys: list[float | None], look: Style) -> Json:
    """One of tuning's two lines."""
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "name": look.name,
        "x": xs,
        "y": ys,
        "line": {"color": look.colour, "dash": look.dash, "width": look.width},
        "marker": {"symbol": look.symbol, "size": 8, "color": look.colour},
    }
