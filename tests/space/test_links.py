"""What an address opens the page with, and that what isn't there opens it as usual."""

import pytest
from starlette.datastructures import QueryParams

from space.kinds import Kind
from space.links import Opening
from space.pictures import Examples


@pytest.fixture
def kinds(example_folder):
    """Two kinds: one with the examples a and b, one without."""
    return {
        "street": Kind("street", "Streets", (), Examples.from_folder(example_folder)),
        "rooms": Kind("rooms", "Rooms", (), Examples()),
    }


@pytest.mark.parametrize(
    ("query", "kind", "stem", "pixel"),
    [
        ("kind=street&example=2&x=63&y=47", "street", "b", (63, 47)),
        ("example=2", "street", "b", None),
        ("class=sky&kind=street", "street", "a", None),
        ("x=0&y=0", "street", "a", (0, 0)),
        ("kind=rooms&x=1&y=1", "rooms", None, None),
        ("example=2&x=64&y=0", "street", "b", None),
        ("example=2&x=NaN&y=0", "street", "b", None),
        ("example=2&x=-1&y=%C2%B2", "street", "b", None),
        ("example=2&x=1&x=2&y=0", "street", "b", None),
    ],
)
def test_an_address_names_kind_example_and_pixel(kinds, query, kind, stem, pixel):
    opening = Opening.from_query(QueryParams(query), kinds)
    assert (opening.kind, opening.path and opening.path.stem, opening.pixel) == (kind, stem, pixel)


@pytest.mark.parametrize(
    "query",
    [
        "",
        "class=sky&tab=why",
        "kind=none",
        "kind=",
        "example=0",
        "example=3",
        "example=999",
        "example=-1",
        "example=1.5",
    ],
)
def test_what_is_not_there_is_not_opened(kinds, query):
    assert Opening.from_query(QueryParams(query), kinds) is None
