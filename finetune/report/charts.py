"""Numbers as text, tables and tiny SVG charts: bars, lines, histograms and intervals."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 720, 260
LEFT, RIGHT, TOP, BOTTOM = 52, 10, 8, 44


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """One line of a chart."""

    label: str
    """Name in the legend; empty for a line that is not named."""
    css: str
    """CSS class of the line."""
    points: tuple[tuple[float, float], ...]
    """`(x, y)`, ascending in `x`; every value is finite."""
    dots: bool = False
    """Whether each point gets a dot."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Axis:
    """Maps the values `low` to `high` onto the pixels `start` to `end`."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def place(self, value: float) -> float:
        low, high = self.low, self.high
        if self.log:
            low, high, value = math.log(low), math.log(high), math.log(value)
        return self.start + (value - low) / (high - low) * (self.end - self.start)

    def ticks(self) -> list[float]:
        return _log_ticks(self.low, self.high) if self.log else _ticks(self.low, self.high)


def is_number(value: object) -> bool:
    """Whether `value` is a finite number."""
    return isinstance(value, int | float) and math.isfinite(value)


def count(value: object) -> str:
    """Format a whole number with thousands separators; a dash for what is no number."""
    return f"{value:,.0f}" if is_number(value) else "&ndash;"


def significant(value: object) -> str:
    """Format with 3 significant digits, from 1,000 on as a whole number; a dash for no number."""
    if not is_number(value):
        return "&ndash;"
    text = f"{value:,.0f}" if abs(value) >= 999.5 else f"{value:#.3g}".rstrip(".")
    return text.replace("-", "&minus;", 1) if text.startswith("-") else text


def signed(value: object, like: float) -> str:
    """Format a difference with its sign, with the decimals that give `like` 3 digits."""
    if not is_number(value):
        return "&ndash;"
    decimals = 2 - math.floor(math.log10(abs(like))) if like else 2
    text = f"{abs(value):,.{min(max(decimals, 0), 9)}f}"
    sign = "" if not text.strip("0.,") else "&minus;" if value < 0 else "+"
    return sign + text


def percent(share: object) -> str:
    """Format a share of 1 as percent."""
    return f"{significant(100 * share)}&nbsp;%" if is_number(share) else "&ndash;"


def size(num_bytes: object) -> str:
    """Format bytes in decimal units."""
    if not is_number(num_bytes):
        return "&ndash;"
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if num_bytes >= scale:
            return f"{significant(num_bytes / scale)}&nbsp;{unit}"
    return f"{num_bytes:.0f}&nbsp;B"


def duration(seconds: object) -> str:
    """Format seconds as its two largest units."""
    if not is_number(seconds):
        return "&ndash;"
    if seconds < 60:
        return f"{significant(seconds)}&nbsp;s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}&nbsp;min {rest}&nbsp;s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours:,}&nbsp;h {minutes}&nbsp;min"


def absent(what: str, command: str) -> str:
    """Say in one line what is missing and which command makes it."""
    return f'<p class="absent">No {what} yet: <code>{escape(command)}</code> makes it.</p>'


def table(head: Sequence[str], rows: Sequence[str]) -> str:
    """Return a table that scrolls by itself on a narrow screen; `rows` are `<tr>` elements."""
    cells = "".join(f'<th scope="col">{cell}</th>' for cell in head)
    return (
        f'<div class="scroll"><table><thead><tr>{cells}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def bar(label: str, value: float, whole: float, shown: str) -> str:
    """Draw one row: label, a bar of `value / whole`, and `shown` (HTML) behind it."""
    width = 100 * value / whole if whole else 0
    return (
        f'<span class="label">{escape(label) or "&ndash;"}</span>'
        '<svg class="bar" viewBox="0 0 100 8" preserveAspectRatio="none" aria-hidden="true">'
        f'<rect class="track" width="100" height="8"/><rect width="{width:.2f}" height="8"/></svg>'
        f'<span class="value">{shown}</span>'
    )


def bars(values: Mapping[str, float], limit: int = 20) -> str:
    """Draw one bar per name, largest first, each with its count and share.

    Args:
        values: name to count.
        limit: names shown; the others are summed in a last line.
    """
    total, rows = sum(values.values()), ranked(values)
    largest = rows[0][1] if rows else 0
    drawn = [bar(name, value, largest, _counted(value, total)) for name, value in rows[:limit]]
    if rows[limit:]:
        rest = sum(value for _, value in rows[limit:])
        drawn.append(bar(f"{len(rows) - limit} others", rest, largest, _counted(rest, total)))
    return (
        '<div class="bars">' + "".join(f'<div class="row">{row}</div>' for row in drawn) + "</div>"
    )


def ranked(values: Mapping[str, float]) -> list[tuple[str, float]]:
    """Return the items, largest first, equal ones by name."""
    return sorted(values.items(), key=lambda item: (-item[1], item[0]))


def _counted(value: float, total: float) -> str:
    return f"{count(value)} <small>{percent(value / total if total else 0)}</small>"


def lines(series: Sequence[Series], x_label: str, y_label: str) -> str:
    """Draw lines over one pair of axes; `y` is logarithmic where its values span a factor of 8."""
    xs = [x for one in series for x, _ in one.points]
    ys = [y for one in series for _, y in one.points]
    log = min(ys) > 0 and max(ys) / min(ys) > 8
    margin = 0 if log else 0.06 * (max(ys) - min(ys)) or 0.5 * abs(max(ys)) or 1
    x_axis = _Axis(low=min(xs), high=max(max(xs), min(xs) + 1), start=LEFT, end=WIDTH - RIGHT)
    y_axis = _Axis(
        low=min(ys) / 1.1 if log else min(ys) - margin,
        high=max(ys) * 1.1 if log else max(ys) + margin,
        start=HEIGHT - BOTTOM,
        end=TOP,
        log=log,
    )
    drawn = "".join(_line(one, x_axis, y_axis) for one in series)
    legend = "".join(
        f'<span class="key {one.css}">{escape(one.label)}</span>' for one in series if one.label
    )
    figure = _frame(x_axis, y_axis, x_label, y_label + (" (log scale)" if log else ""), drawn)
    return f'<figure>{figure}<figcaption class="legend">{legend}</figcaption></figure>'


def spark(values: Sequence[float]) -> str:
    """Draw values as a small line without axes, from the lowest to the highest."""
    low, high = min(values), max(values)
    x_axis = _Axis(low=0, high=max(1, len(values) - 1), start=3, end=117)
    y_axis = _Axis(low=low, high=high if high > low else low + 1, start=17, end=3)
    path = " ".join(f"{x_axis.place(i):.1f},{y_axis.place(y):.1f}" for i, y in enumerate(values))
    return (
        '<svg class="spark" viewBox="0 0 120 20" aria-hidden="true">'
        f'<g class="train"><polyline points="{path}"/></g></svg>'
    )


def _line(one: Series, x_axis: _Axis, y_axis: _Axis) -> str:
    places = [(x_axis.place(x), y_axis.place(y)) for x, y in one.points]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    dots = "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5"/>' for x, y in places)
    return f'<g class="line {one.css}"><polyline points="{path}"/>{dots if one.dots else ""}</g>'


def histogram(values: Sequence[int], x_label: str, y_label: str) -> str:
    """Draw how many values fall in each power-of-two bin: 0, 1, 2-3, 4-7, ..."""
    bins = [0] * (max(values).bit_length() + 1)
    for value in values:
        bins[value.bit_length()] += 1
    step = (WIDTH - LEFT - RIGHT) / len(bins)
    y_axis = _Axis(low=0, high=max(bins) * 1.05, start=HEIGHT - BOTTOM, end=TOP)
    drawn = []
    for place, number in enumerate(bins):
        x, y = LEFT + place * step, y_axis.place(number)
        low = 2 ** (place - 1) if place else 0
        drawn.append(
            f'<rect class="fill" x="{x + 1:.1f}" y="{y:.1f}" width="{step - 2:.1f}" '
            f'height="{HEIGHT - BOTTOM - y:.1f}"/>'
            f'<text class="tick{" odd" if place % 2 else ""}" text-anchor="middle" '
            f'x="{x + step / 2:.1f}" y="{HEIGHT - BOTTOM + 18}">{count(low)}</text>'
        )
    return f"<figure>{_frame(None, y_axis, x_label, y_label, ''.join(drawn))}</figure>"


def _frame(x_axis: _Axis | None, y_axis: _Axis, x_label: str, y_label: str, inner: str) -> str:
    grid = []
    for tick in y_axis.ticks():
        y = y_axis.place(tick)
        grid.append(
            f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
            f'<text class="tick" text-anchor="end" x="{LEFT - 6}" y="{y + 4:.1f}">{tick:,g}</text>'
        )
    for tick in x_axis.ticks() if x_axis else ():
        grid.append(
            f'<text class="tick" text-anchor="middle" x="{x_axis.place(tick):.1f}" '
            f'y="{HEIGHT - BOTTOM + 18}">{tick:,.10g}</text>'
        )
    return (
        f'<p class="note">{escape(y_label)}</p>'
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{escape(y_label)} over {escape(x_label)}">{"".join(grid)}{inner}'
        f'<text class="axis" text-anchor="middle" x="{(LEFT + WIDTH - RIGHT) / 2}" '
        f'y="{HEIGHT - 6}">{escape(x_label)}</text>'
        "</svg>"
    )


def _ticks(low: float, high: float) -> list[float]:
    """Return 3 to 7 round values between `low` and `high`."""
    raw = (high - low) / 5
    power = 10 ** math.floor(math.log10(raw))
    step = next(s * power for s in (1, 2, 5, 10) if s * power >= raw)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
    """Return the values 1, 2 and 5 times a power of ten between `low` and `high`."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    return [s * 10.0**p for p in powers for s in (1, 2, 5) if low <= s * 10.0**p <= high]


def interval(difference: float, low: float, high: float, reach: float, css: str) -> str:
    """Draw a dot with its 95 % whisker around a line at zero.

    Args:
        difference: place of the dot.
        low: lower end of the whisker.
        high: upper end of the whisker.
        reach: largest absolute value the scale shows; equal in rows that are compared.
        css: `"better"`, `"worse"` or `"undecided"`.
    """
    axis = _Axis(low=-(reach or 1), high=reach or 1, start=6, end=174)
    left, dot, right = axis.place(low), axis.place(difference), axis.place(high)
    return (
        f'<svg class="interval {css}" viewBox="0 0 180 20" role="img" aria-label="{css}">'
        '<line class="track" x1="6" x2="174" y1="10" y2="10"/>'
        '<line class="zero" x1="90" x2="90" y1="1" y2="19"/>'
        f'<line class="whisker" x1="{left:.1f}" x2="{right:.1f}" y1="10" y2="10"/>'
        f'<circle cx="{dot:.1f}" cy="10" r="4.5"/></svg>'
    )
