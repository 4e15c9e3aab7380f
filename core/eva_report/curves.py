"""Plots of curves: what the page draws as SVG, which is small and sharp."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from eva_report.content import Curve, Curves

COLORS = 8  # of the style sheet; further curves repeat them, dashed
MOST_CURVES, MOST_POINTS = 24, 500
_WIDTH, _HEIGHT = 560, 300
_FRAME = 72, _WIDTH - 16, 38, _HEIGHT - 54  # left, right, top and bottom of the axes
_TICKS = 5
_LEAST = 1e-300  # below, numbers have few digits

Point = tuple[float, float]


class Axis(NamedTuple):
    """An axis: its ends, its ticks, and whether it is logarithmic."""

    low: float
    high: float
    ticks: tuple[float, ...]
    logarithmic: bool = False

    def place(self, value: float) -> float:
        """Return where a value lies: 0 at the low end, 1 at the high one."""
        if self.logarithmic:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)


class PlotView(NamedTuple):
    """What the page draws of a plot, in pixels of an SVG of `width` x `height`."""

    lines: list[dict[str, Any]]  # class of the style sheet, path, and place of a single point
    legend: list[tuple[str, str, str]]  # class, name and last value of each curve
    x_ticks: list[tuple[float, str]]  # place and text
    y_ticks: list[tuple[float, str]]
    frame: tuple[int, int, int, int]  # left, right, top and bottom of the axes
    left_out: int  # number of curves that are not drawn
    width: int = _WIDTH
    height: int = _HEIGHT


def plot_log(
    title: str,
    entries: Iterable[Mapping[str, Any]],
    names: Mapping[str, str],
    *,
    step: Callable[[Mapping[str, Any]], float],
    x_label: str,
    y_label: str,
    factor: float = 1.0,
    logarithmic: bool = False,
    text: str = "",
) -> Curves:
    """Plot numbers that a training has logged, times a factor.

    Args:
        title: Title of the plot.
        entries: Lines of the log; a curve has those with its number.
        names: Name of a number in the log -> name of its curve.
        step: Function that reads the steps that are done off a line.
        x_label: What these are, such as "iteration".
        y_label: What the numbers are.
        factor: Factor of the numbers.
        logarithmic: Whether the axis of the numbers is.
        text: What to look for.
    """
    points: dict[str, list[Point]] = {name: [] for name in names}
    for entry in entries:
        for name in names.keys() & entry.keys():
            if isinstance(entry[name], int | float):
                points[name].append((float(step(entry)), factor * float(entry[name])))
    return Curves(
        title=title,
        x_label=x_label,
        y_label=y_label,
        curves=[Curve(name=names[name], points=points[name]) for name in names],
        logarithmic=logarithmic,
        text=text,
    )


def has_points(content: Curves) -> bool:
    """Return whether there is something to draw."""
    return any(_finite(curve.points) for curve in content.curves)


def plot_view(content: Curves) -> PlotView:
    """Compute a plot of curves, one of which has a point that is finite."""
    named_points = [(curve.name, _finite(curve.points)) for curve in content.curves]
    drawn = [(name, points) for name, points in named_points if points]
    left_out = max(0, len(drawn) - MOST_CURVES)
    drawn = drawn[:MOST_CURVES]
    xs, values = zip(*(point for _, points in drawn for point in points), strict=True)
    x_axis = linear_axis(xs, padded=False)
    if all(x.is_integer() for x in xs):  # of steps there is no half
        x_axis = x_axis._replace(ticks=tuple(tick for tick in x_axis.ticks if tick % 1 == 0))
    logarithmic = content.logarithmic and min(values) > _LEAST
    y_axis = logarithmic_axis(values) if logarithmic else linear_axis(values)
    over_time = x_axis.high > 1  # the end of a curve over a share says nothing
    left, right, top, bottom = _FRAME

    def place(x: float, y: float) -> Point:
        across, down = x_axis.place(x), 1 - y_axis.place(y)
        return left + across * (right - left), top + down * (bottom - top)

    lines, legend = [], []
    for number, (name, points) in enumerate(drawn):
        dashed = " dashed" if number // COLORS % 2 else ""
        kind = f"c{number % COLORS}{dashed}"
        places = [place(*point) for point in thin(points)]
        path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
        point = places[0] if len(places) == 1 else None
        lines.append({"kind": kind, "path": path, "point": point})
        legend.append((kind, name, f"last {short(points[-1][1])}" if over_time else ""))
    return PlotView(
        lines=lines,
        legend=legend,
        x_ticks=[(round(place(tick, y_axis.low)[0], 1), short(tick)) for tick in x_axis.ticks],
        y_ticks=[(round(place(x_axis.low, tick)[1], 1), short(tick)) for tick in y_axis.ticks],
        frame=_FRAME,
        left_out=left_out,
    )


def thin(points: Sequence[Point], most: int = MOST_POINTS) -> list[Point]:
    """Leave out points that cannot be seen: of each part of the curve two stay, low and high."""
    if len(points) <= most:
        return list(points)
    parts = (most - 2) // 2
    kept_points = [points[0]]
    for part in range(parts):
        start = 1 + part * (len(points) - 2) // parts
        end = 1 + (part + 1) * (len(points) - 2) // parts
        order = range(start, end)
        pair = {min(order, key=lambda i: points[i][1]), max(order, key=lambda i: points[i][1])}
        kept_points += [points[index] for index in sorted(pair)]
    return [*kept_points, points[-1]]


def linear_axis(values: Sequence[float], *, padded: bool = True) -> Axis:
    """Make an axis with ticks at round numbers; a `padded` one ends at ticks, with some room."""
    low, high = min(values), max(values)
    if high - low <= max(1e-9 * max(abs(low), abs(high)), _LEAST):  # one value
        spread = abs(high) / 2 if abs(high) > _LEAST else 1.0
        low, high = low - spread, high + spread
    rough = high / _TICKS - low / _TICKS
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= rough * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    if padded:
        first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
        low, high = first * step, last * step
    return Axis(low, high, tuple(number * step for number in range(first, last + 1)))


def logarithmic_axis(values: Sequence[float]) -> Axis:
    """Make a logarithmic axis with ticks at powers of ten, and between them where they are few."""
    first, last = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    last = max(last, first + 1)
    factors = (1, 2, 5) if last - first <= 2 else (1,)
    every = max(1, math.ceil((last - first) / _TICKS))
    ticks = [factor * 10.0**power for power in range(first, last + 1, every) for factor in factors]
    low, high = 10.0**first, 10.0**last
    if len(factors) > 1:
        low = max(tick for tick in ticks if tick <= min(values) * (1 + 1e-9))
        high = min(tick for tick in ticks if tick >= max(values) * (1 - 1e-9) and tick > low)
    return Axis(low, high, tuple(tick for tick in ticks if low <= tick <= high), True)


def short(value: float) -> str:
    """Write a number with few digits: "0.0012", "12,000", "1.2e-07"."""
    if value == 0:
        return "0"
    if 1e-4 <= abs(value) < 1e7:
        digits = max(0, 3 - math.floor(math.log10(abs(value))))
        number = f"{value:,.{digits}f}"
        return number.rstrip("0").rstrip(".") if "." in number else number
    mantissa, _, exponent = f"{value:.2e}".partition("e")
    return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"


def _finite(points: Sequence[Point]) -> list[Point]:
    return [
        (float(x), float(y))
        for x, y in points
        if abs(x) < 1e300 and abs(y) < 1e300  # neither for infinity nor for NaN
    ]
