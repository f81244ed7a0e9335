"""Keys say which part of them changed."""

from __future__ import annotations

from latentrt.export.keys import changed_parts


def test_changed_parts_are_named_with_both_values() -> None:
    old = {"weights": "a" * 64, "precision": "fp32", "gone": "1"}
    new = {"weights": "b" * 64, "precision": "fp32", "opset": "23"}
    assert changed_parts(old, new) == [
        f"weights changed {'a' * 12} -> {'b' * 12}",
        "opset changed none -> 23",
        "gone changed 1 -> none",
    ]
    assert changed_parts(new, new) == []
