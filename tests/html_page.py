"""A report's HTML read strictly: every element closed, ids once, nothing loaded from elsewhere."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path

_VOID = {"meta", "link", "input", "img", "br", "hr"}
_LOADS = {"src", "href", "xlink:href", "srcset", "data", "action", "poster", "background"}


@dataclass
class Element:
    """An element with its attributes and everything in it, text and elements."""

    tag: str
    attributes: dict[str, str]
    content: list["Element | str"] = field(default_factory=list)

    @property
    def text(self) -> str:
        return "".join(one if isinstance(one, str) else one.text for one in self.content)

    def all(self, tag: str) -> Iterator["Element"]:
        for one in self.content:
            if isinstance(one, Element):
                if one.tag == tag:
                    yield one
                yield from one.all(tag)


class Page(HTMLParser):
    """A parsed page; raises AssertionError where it is not well-formed."""

    def __init__(self, path: Path) -> None:
        super().__init__(convert_charrefs=True)
        self.root = Element("", {})
        self.open = [self.root]
        self.ids: list[str] = []
        self.loads: list[str] = []
        self.handlers: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))
        self.close()
        assert self.open == [self.root], [one.tag for one in self.open]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = {name: value or "" for name, value in attrs}
        assert len(attributes) == len(attrs), (tag, attrs)
        element = Element(tag, attributes)
        self.open[-1].content.append(element)
        if tag not in _VOID:
            self.open.append(element)
        self.ids += [attributes["id"]] if "id" in attributes else []
        self.loads += [value for name, value in attributes.items() if name in _LOADS]
        self.handlers += [name for name in attributes if name.startswith("on")]

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in _VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop().tag == tag, tag

    def handle_data(self, data: str) -> None:
        self.open[-1].content.append(data)

    def all(self, tag: str) -> list[Element]:
        return list(self.root.all(tag))

    def rows(self, table: str) -> list[list[str]]:
        """The texts of the cells of a table's body."""
        (found,) = [one for one in self.all("table") if one.attributes.get("id") == table]
        (body,) = found.all("tbody")
        return [
            [cell.text for cell in row.content if isinstance(cell, Element)]
            for row in body.all("tr")
        ]
