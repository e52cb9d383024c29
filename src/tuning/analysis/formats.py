"""Numbers as people read them: the same in the report, its Markdown and on the terminal.

A rate is printed in percent, a difference of rates in points (hundredths), a score as it is; none
of them without its interval where it has one.
"""

from __future__ import annotations

from tuning.analysis.configurations import Quantity
from tuning.analysis.resources import Ratio, Spread
from tuning.analysis.verdict import bound, points
from tuning.mixed_effects import Estimate

NONE = "\N{EN DASH}"
"""What stands for a number that there is none of."""


def task_title(task: str) -> str:
    """Return a task's name as headings have it, such as ``Last letter``."""
    return task.replace("_", " ").capitalize()


def percent(rate: float | None) -> str:
    """Return a rate in percent, one decimal."""
    return NONE if rate is None else f"{100 * rate:.1f} %"


def signed_points(rate: float | None) -> str:
    """Return a difference of rates in points, with a true minus sign."""
    return NONE if rate is None else _minus(points(rate))


def decimals(value: float | None, places: int = 3) -> str:
    """Return a number with so many decimals; minus 0 has no sign."""
    if value is None:
        return NONE
    text = f"{value:.{places}f}"
    return _minus(text[1:] if text.strip("-0.") == "" and text.startswith("-") else text)


def signed(value: float | None, places: int = 3) -> str:
    """Return a difference with its sign, such as ``+0.021``."""
    if value is None:
        return NONE
    text = decimals(value, places)
    return text if text[0] == "\N{MINUS SIGN}" or not text.strip("0.") else f"+{text}"


def p_value(p: float | None) -> str:
    """Return a p value, three decimals: below that ``<0.001``."""
    if p is None:
        return NONE
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def points_interval(low: float, high: float) -> str:
    """Return an interval of a difference of rates, in points: ``[+1.5, +5.7]``."""
    return f"[{_minus(bound(low))}, {_minus(bound(high))}]"


def percent_interval(low: float, high: float) -> str:
    """Return an interval of a rate, in percent, cut at 0 and 100: ``[94.1, 100.0]``."""
    return f"[{100 * max(0.0, low):.1f}, {100 * min(1.0, high):.1f}]"


def interval(low: float | None, high: float | None, places: int = 3) -> str:
    """Return an interval of a score; nothing where there is none."""
    if low is None or high is None:
        return ""
    return f"[{decimals(low, places)}, {decimals(high, places)}]"


def signed_interval(low: float, high: float, places: int = 3) -> str:
    """Return an interval of a difference of scores: ``[-0.010, +0.021]``."""
    return f"[{signed(low, places)}, {signed(high, places)}]"


def points_with_interval(found: Estimate | None) -> str:
    """Return a difference of rates with its interval, such as ``+3.6 [+1.5, +5.7]``."""
    if found is None:
        return NONE
    return f"{signed_points(found.value)} {points_interval(found.low, found.high)}"


def score_with_interval(found: Estimate | None) -> str:
    """Return a score with its interval, such as ``0.693 [0.653, 0.732]``."""
    return NONE if found is None else f"{decimals(found.value)} {interval(found.low, found.high)}"


def signed_with_interval(found: Estimate | None) -> str:
    """Return a difference of scores with its interval."""
    if found is None:
        return NONE
    return f"{signed(found.value)} {signed_interval(found.low, found.high)}"


def quantity(found: Quantity | None) -> str:
    """Return a ratio with its interval, or why it is undefined."""
    if found is None:
        return NONE
    if found.value is None:
        return f"undefined: {found.reason}"
    text = decimals(found.value, 2)
    if found.low is None or found.high is None:
        return text
    return f"{text} {interval(found.low, found.high, 2)}"


def rate_with_interval(found: Estimate) -> str:
    """Return a rate in percent with its interval: ``97.8 [94.1, 100.0]``."""
    return f"{100 * found.value:.1f} {percent_interval(found.low, found.high)}"


def spread(found: Spread | None, unit: float = 1.0) -> str:
    """Return what runs took, and the least and most of them: ``1,066 (939 to 1,139)``.

    Args:
        found: Of one configuration.
        unit: What the number is divided by, such as `MEBIBYTE`.
    """
    if found is None:
        return NONE
    least, mean, most = (_size(x / unit) for x in (found.low, found.mean, found.high))
    return mean if least == most else f"{mean} ({least} to {most})"


MEBIBYTE = 2.0**20


def _size(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def ratio(found: Ratio | None) -> str:
    """Return a ratio with its spread: in brackets an interval, in parentheses smallest, largest."""
    if found is None:
        return NONE
    if found.is_interval:
        return f"{found.value:.2f} [{found.low:.2f}, {found.high:.2f}]"
    return f"{found.value:.2f} ({found.low:.2f} to {found.high:.2f})"


def _minus(text: str) -> str:
    return text.replace("-", "\N{MINUS SIGN}")
