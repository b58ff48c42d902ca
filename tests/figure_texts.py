"""The words of a figure, and which of them lie on top of each other."""

from matplotlib.figure import Figure
from matplotlib.text import Text


def visible_words(sheet: Figure) -> list[Text]:
    return [one for one in sheet.findobj(Text) if one.get_visible() and one.get_text().strip()]


def overlapping_words(sheet: Figure) -> list[tuple[str, str]]:
    boxes = [(one.get_text(), one.get_window_extent()) for one in visible_words(sheet)]
    found = []
    for at, (name, box) in enumerate(boxes):
        for other, beside in boxes[at + 1 :]:
            width = min(box.x1, beside.x1) - max(box.x0, beside.x0)
            height = min(box.y1, beside.y1) - max(box.y0, beside.y0)
            if width > 2 and height > 2:
                found.append((name, other))
    return found


def words_outside(sheet: Figure) -> list[str]:
    """What reaches beyond the page, by more than a pixel."""
    page = sheet.bbox
    boxes = [(one.get_text(), one.get_window_extent()) for one in visible_words(sheet)]
    return [
        name
        for name, box in boxes
        if box.x0 < -1 or box.y0 < -1 or box.x1 > page.x1 + 1 or box.y1 > page.y1 + 1
    ]
