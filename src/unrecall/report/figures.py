"""The plots that compare models: how one forgot, utility against forgetting, and what tuning saw."""

from collections.abc import Sequence

from unrecall.record.schema import Estimate, Measurement, Record, Tuning
from unrecall.report.plot import GREY, Json, Plot, axis, faded, label, layout, lined, log_axis, marked, scatter
from unrecall.report.roles import STYLES, Style, by_method, style
from unrecall.report.sentences import span
from unrecall.report.strips import drawable, finite, minus


def forgetting(measurement: Measurement, recovered: dict[str, list[float]]) -> Plot:
    """Forget accuracy of every model as dots on one scale, each tied to the original by a thin line."""
    m = measurement
    rows = [("original", "original", [m.original]), ("null", STYLES["null"].name, [m.null])]
    rows += [("unlearned", "unlearned", [m.unlearned])]
    rows += [(role, f"{role}, recalibrated", [Estimate(value=v) for v in vs]) for role, vs in recovered.items()]
    rows += [("retrained", "retrained", [Estimate(value=m.reference)])]
    drawn = [(role, name, es) for role, name, es in rows if any(finite(e.value) is not None for e in es)]
    data = [trace for i, (role, _, es) in enumerate(drawn) for trace in dots(role, es, i, finite(m.original.value))]
    frame = layout(axis(m.title + (f" ({m.unit})" if m.unit else "")), axis(""), 70 + 44 * len(drawn))
    frame["yaxis"] = {"range": [len(drawn) - 0.5, -0.75], "visible": False}
    frame["margin"] |= {"l": 14}
    # Each name stands above its row: beside it, it would leave a phone no room for the dots.
    frame["annotations"] = [
        {"text": f"{label(name)} <b>{span([e.value for e in es])}</b>", "x": 0, "xref": "paper", "xanchor": "left"}
        | {"y": i, "yshift": 15, "showarrow": False, "align": "left"}
        for i, (_, name, es) in enumerate(drawn)
    ]
    return Plot(data, frame, [], f"{m.title} of each model")


def dots(role: str, estimates: Sequence[Estimate], row: int, start: float | None) -> list[Json]:
    """The values in one row with their intervals, and a line to the first of them from the original's value."""
    look = style(role)
    xs = [finite(e.value) for e in estimates]
    path: Json = {"type": "scatter", "mode": "lines", "x": [start, xs[0]], "y": [row, row], "hoverinfo": "skip"}
    whiskers: Json = {"type": "data", "symmetric": False, "color": look.colour, "thickness": 2, "width": 0}
    whiskers["array"] = [minus(e.high, e.value) for e in estimates]
    whiskers["arrayminus"] = [minus(e.value, e.low) for e in estimates]
    markers = scatter("markers", role, xs, [row] * len(xs), marker=marked(look, 12), error_x=whiskers)
    return [path | {"line": {"color": faded(look.colour, 0.45), "width": 1, "dash": "dot"}}, markers]


def plane(records: Sequence[Record], scenario: str) -> Plot | None:
    """Utility against forgetting in one scenario: each record a marker with its row number in the whole summary.

    Utility is accuracy on retain, or on test where no record has that on retain.
    """
    useful = "retain_accuracy" if any(r.measurement("retain_accuracy") for r in records) else "test_accuracy"
    styles = by_method(records)
    data: list[Json] = []
    others: dict[tuple[str, float, float], Json] = {}
    texts: list[tuple[float, float, str]] = []
    titles = ("", "")
    for row, record in enumerate(records, 1):
        x, y = record.measurement(useful), record.measurement("forget_accuracy")
        if x is None or y is None or record.scenario != scenario:
            continue
        titles = x.title, y.title
        means = {"original": (x.original.value, y.original.value), "retrained": (x.reference, y.reference)}
        for role, values in means.items():
            a, b = map(finite, values)
            if a is not None and b is not None:
                others[role, a, b] = marker(STYLES[role], role, a, b, 15)
        a, b = finite(x.unlearned.value), finite(y.unlearned.value)
        if a is not None and b is not None:
            name, text = f"{record.method}, seed {record.seed}", str(row) if len(records) > 1 else record.method
            data.append(marker(styles[record.method], name, a, b, 11))
            texts.append((a, b, text))
    methods = {record.method: styles[record.method] for record in records if record.scenario == scenario}
    entries = [STYLES["original"], STYLES["retrained"], *methods.values()]
    if not data:
        return None
    traces = [*others.values(), *data]
    across, up = (window([value for trace in traces for value in trace[key]]) for key in "xy")
    for trace, text, (a, _, _) in zip(data, gathered(texts, across, up), texts, strict=True):
        trace["text"], trace["textposition"] = [label(text)], "top left" if a > sum(across) / 2 else "top right"
    frame = layout(axis(titles[0]) | {"range": across}, axis(titles[1]) | {"range": up}, 400)
    return Plot(traces, frame, entries, "Utility against forgetting")


def window(values: Sequence[float]) -> list[float]:
    """The ends of an axis of shares: around the values, within [0, 1], never narrower than 0.05, with a little room."""
    low, high = min(values), max(values)
    floor, top = min(low, 0.0), max(high, 1.0)
    width = max(high - low, 0.05 * top)
    start = min(max((low + high - width) / 2, floor), top - width)
    return [start - 0.1 * width, start + 1.1 * width]


def gathered(markers: Sequence[tuple[float, float, str]], across: list[float], up: list[float]) -> list[str]:
    """The text of each marker; where markers lie so close that texts would overprint, the first has all their texts."""
    near_x, near_y = (0.05 * (high - low) for low, high in (across, up))
    texts: dict[int, list[str]] = {}
    for i, (x, y, text) in enumerate(markers):
        close = (j for j in texts if abs(markers[j][0] - x) <= near_x and abs(markers[j][1] - y) <= near_y)
        texts.setdefault(next(close, i), []).append(text)
    return [", ".join(texts.get(i, [])) for i in range(len(markers))]


def marker(look: Style, name: str, x: float, y: float, size: int) -> Json:
    """One marker on the plane, without a text yet."""
    framed = marked(look, size) | {"line": {"width": 1, "color": "white"}}
    return scatter("markers+text", name, [x], [y], text=[""], marker=framed, cliponaxis=False)


def tuning(tuning: Tuning) -> Plot:
    """What tuning saw: the gap between forget and validation, and the drop on retain, over the strength."""
    trials = sorted((t for t in tuning.trials if finite(t.strength) is not None), key=lambda trial: trial.strength)
    wide = bool(trials) and trials[0].strength > 0 and trials[-1].strength > 20 * trials[0].strength
    strengths = [trial.strength for trial in trials]
    x = log_axis(tuning.parameter, strengths, tick_each=True) if wide else axis(tuning.parameter)
    gap, drop = Style("gap", "#0072B2", "solid", "circle"), Style("retain drop", "#D55E00", "dash", "square")
    curves = {gap: [finite(t.gap) for t in trials], drop: [finite(t.retain_drop) for t in trials]}
    data = [
        scatter("lines+markers", look.name, strengths, ys, line=lined(look), marker=marked(look, 8))
        for look, ys in curves.items()
    ]
    frame = layout(x, axis("gap, retain drop"), 280)
    if (chosen := drawable(tuning.chosen, wide)) is not None:
        across = {"type": "line", "x0": chosen, "x1": chosen, "y0": 0, "y1": 1, "yref": "paper"}
        frame["shapes"] = [across | {"line": {"color": GREY, "dash": "dot", "width": 1.5}}]
    return Plot(data, frame, [gap, drop, Style("chosen", GREY, "dot", "")], f"Tuning {tuning.parameter}")
