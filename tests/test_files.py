from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from teloi.files import json_text

SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner))


@given(VALUES)
def test_json_is_the_value_again(value: object) -> None:
    assert json.loads(json_text(value)) == value


def test_what_holds_no_other_stands_on_one_line() -> None:
    text = json_text({"a": [1, 2.5, None], "b": [{"c": "d"}, []], "e": {}})
    assert text.splitlines() == [
        "{",
        ' "a": [1, 2.5, null],',
        ' "b": [',
        '  {"c": "d"},',
        "  []",
        " ],",
        ' "e": {}',
        "}",
    ]
