"""The block diagrams show the placements of conf/placement, and are drawn as committed."""

import xml.etree.ElementTree as ElementTree
from functools import cache

import pytest

from diagrams import (
    FOLDER,
    PLACEMENTS,
    check_drawable,
    draw_placement,
    resolve_by_name,
)

# Composing a configuration takes a third of a second.
resolve = cache(resolve_by_name)
draw = cache(draw_placement)
SVG = "{http://www.w3.org/2000/svg}"


@pytest.mark.parametrize("name", PLACEMENTS)
def test_the_committed_file_is_the_drawing(name: str) -> None:
    committed = (FOLDER / f"{name}.svg").read_text(encoding="utf-8")
    assert committed == draw(name), "run: python scripts/docs/diagrams.py"


@pytest.mark.parametrize("name", PLACEMENTS)
def test_it_shows_as_many_norms_as_a_block_and_the_ends_hold(name: str) -> None:
    root = ElementTree.fromstring(draw(name))
    boxes = [box for box in root.iter(f"{SVG}rect") if box.get("class") == "norm"]
    placement = resolve(name)
    in_block = [norm for part in placement.blocks[0].values() for norm in part.norms.values()]
    norms = [norm for norm in (*in_block, *placement.ends.values()) if norm is not None]
    assert len(boxes) == len(norms) > 0


@pytest.mark.parametrize("name", PLACEMENTS)
def test_shapes_stand_on_the_arrows_and_all_is_inside_the_picture(name: str) -> None:
    root = ElementTree.fromstring(draw(name))
    texts = [text.text or "" for text in root.iter(f"{SVG}text")]
    assert {"tokens (B, T)", "(B, T, d)", "logits (B, T, V)"} <= set(texts)
    width, height = (float(root.attrib[key]) for key in ("width", "height"))
    for box in root.iter(f"{SVG}rect"):
        if box.get("x"):
            assert float(box.attrib["x"]) + float(box.attrib["width"]) <= width
            assert float(box.attrib["y"]) + float(box.attrib["height"]) <= height
    assert root.find(f"{SVG}desc") is not None


@pytest.mark.parametrize("name", ["deepnorm", "mixln", "layerscale", "hybridnorm"])
def test_a_placement_that_would_be_drawn_wrongly_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="more than a diagram shows"):
        check_drawable(name, resolve(name))
