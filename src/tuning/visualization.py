"""All figures in the order of the report, and their files: PNG, SVG and interactive HTML.

What each shows is in `figures/`: for each a pure `*_data` function, and a `draw_*` that only draws.
One chart definition gives the files and the interactive picture of the report.
"""

from __future__ import annotations

import functools
import html
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tuning import files
from tuning.figures.costs import COST, FRONT
from tuning.figures.curves import CURVES
from tuning.figures.figure import Figure
from tuning.figures.gains import GAINS, SEEDS
from tuning.figures.parameters import INFLUENCE, PARALLEL
from tuning.figures.relations import RUNS
from tuning.figures.strata import CONFUSION, POSITIONS, STRATA_FIGURE
from tuning.figures.vocabularies import VOCABULARIES
from tuning.transfer_analysis import StudyAnalysis

__all__ = [
    "FIGURES",
    "Figure",
    "figures",
    "javascript",
    "save_chart",
    "save_figures",
    "specification",
]

FIGURES: Mapping[str, Figure] = {
    figure.name: figure
    for figure in (
        GAINS,
        RUNS,
        FRONT,
        CURVES,
        PARALLEL,
        INFLUENCE,
        STRATA_FIGURE,
        CONFUSION,
        POSITIONS,
        VOCABULARIES,
        COST,
        SEEDS,
    )
}
"""Every figure by its name, in the order of the report."""


def figures(analysis: StudyAnalysis) -> dict[str, Any]:
    """Return the chart of every figure that the analysis has data for."""
    return {
        name: figure.draw(analysis) for name, figure in FIGURES.items() if figure.has_data(analysis)
    }


def specification(chart: Any) -> str:
    """Return a chart as JSON that may stand inside an HTML script element."""
    return _json(chart.to_dict())


def _json(specified: Mapping[str, Any]) -> str:
    text = json.dumps(specified, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


@functools.cache
def javascript() -> str:
    """Return the program that draws charts in a page, for use without a network."""
    import vl_convert

    bundle: str = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")
    return bundle.replace("</script", "<\\/script")


def save_figures(charts: Mapping[str, Any], folder: Path, study: str) -> list[Path]:
    """Write each chart of a study as PNG, SVG and interactive HTML, and return the paths.

    Raises:
        ResultsError: The disk refuses.
    """
    paths = []
    for name, chart in charts.items():
        title = f"{study}: {FIGURES[name].title if name in FIGURES else name}"
        paths += save_chart(chart, folder, f"{study}_{name}", title)
    return paths


def save_chart(chart: Any, folder: Path, stem: str, title: str) -> list[Path]:
    """Write a chart as `stem`.png, .svg and .html, the last interactive and for use offline.

    Args:
        chart: Of altair.
        folder: Where to.
        stem: Name of the files.
        title: Of the page.

    Raises:
        ResultsError: The disk refuses.
    """
    import vl_convert

    specified = chart.to_dict()
    vega = vl_convert.vegalite_to_vega(specified)
    svg = vl_convert.vega_to_svg(vega)
    contents: dict[str, str | bytes] = {
        "png": vl_convert.svg_to_png(svg, scale=2),
        "svg": svg,
        "html": _page(title, _json(specified)),
    }
    paths = []
    for ending, content in contents.items():
        path = folder / f"{stem}.{ending}"
        files.write_atomic(path, content)
        paths.append(path)
    return paths


_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval'; style-src 'unsafe-inline'; "
    "img-src data: blob:"
)
"""With it a browser refuses every request of the page, whatever is in it."""


def _page(title: str, drawing: str) -> str:
    """Return a page of its own with one chart."""
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{html.escape(title)}</title><link rel="icon" href="data:,">
</head><body><div id="chart"></div>
<script>{javascript()}</script>
<script>
vegaEmbed("#chart", {drawing}, {{
  mode: "vega-lite", renderer: "svg",
  actions: {{export: true, source: false, compiled: false, editor: false}}
}});
</script></body></html>
"""
