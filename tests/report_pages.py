"""Pages of the report as tests read them: HTML5 parsed strictly, tables as rows of texts."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple
from xml.etree.ElementTree import Element

import html5lib

NONE = "\N{EN DASH}"


class Cell(NamedTuple):
    """A cell's text, and the interval that stands in it."""

    text: str
    interval: tuple[float, float] | None

    @property
    def number(self) -> float:
        """The first number of the text; percents and points as printed."""
        found = re.search(r"-?\d[\d,]*(?:\.\d+)?", self.text.replace("\N{MINUS SIGN}", "-"))
        assert found, self.text
        return float(found[0].replace(",", ""))


@dataclass(frozen=True)
class Table:
    """A table by the id that it has in the page."""

    caption: str
    heads: list[str]
    rows: list[list[Cell]]

    def column(self, head: str) -> list[Cell]:
        place = self.heads.index(head)
        return [row[place] for row in self.rows]

    def by_first(self) -> dict[str, list[Cell]]:
        return {row[0].text: row for row in self.rows}


class Page:
    """A page; anything that is not HTML5 raises."""

    def __init__(self, text: str) -> None:
        parser = html5lib.HTMLParser(strict=True, namespaceHTMLElements=False)
        self.root: Element = parser.parse(text)
        self.tables = {
            node.get("id", "").removeprefix("table-"): _table(node) for node in self.all("table")
        }

    def all(self, tag: str) -> list[Element]:
        return list(self.root.iter(tag))

    def by_id(self, name: str) -> Element:
        (found,) = [node for node in self.root.iter() if node.get("id") == name]
        return found

    @property
    def text(self) -> str:
        return " ".join(_words(self.root))


def text_of(node: Element) -> str:
    return " ".join(" ".join(node.itertext()).split())


def _words(node: Element) -> Iterator[str]:
    if node.tag in ("script", "style") or not isinstance(node.tag, str):
        return
    yield from (node.text or "").split()
    for child in node:
        yield from _words(child)
        yield from (child.tail or "").split()


def _table(node: Element) -> Table:
    caption = node.find("caption")
    assert caption is not None, "a table needs a caption"
    head = node.find("thead")
    body = node.find("tbody")
    assert head is not None
    assert body is not None
    return Table(
        caption=text_of(caption),
        heads=[text_of(th) for th in head.iter("th")],
        rows=[list(_cells(row)) for row in body.iter("tr")],
    )


def _cells(row: Element) -> Iterator[Cell]:
    for cell in row:
        interval = None
        for span in cell.iter("span"):
            if span.get("class") == "ci" and (span.text or "").startswith("["):
                low, high = (span.text or "").strip("[]").replace("\N{MINUS SIGN}", "-").split(",")
                interval = (float(low), float(high))
        own = "".join(_without_intervals(cell))
        yield from [Cell(" ".join(own.split()), interval)] * int(cell.get("colspan", "1"))


def _without_intervals(node: Element) -> Iterator[str]:
    yield node.text or ""
    for child in node:
        if child.get("class") != "ci":
            yield from _without_intervals(child)
        yield child.tail or ""


def near(cell: Any, expected: float, places: int) -> bool:
    """Whether a number is printed right: within half a unit of its last place."""
    printed = cell.number if isinstance(cell, Cell) else cell
    return bool(abs(printed - expected) <= 0.5 * 10**-places + 1e-6)
