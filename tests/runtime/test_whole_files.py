"""Files that are written whole or not at all, whoever writes them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from latentrt.runtime.whole_files import remove_parts, write_whole


def test_threads_that_write_the_same_file(tmp_path: Path) -> None:
    target, contents = tmp_path / "a.png", [bytes([number]) * 100_000 for number in range(3)]
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda number: write_whole(target, contents[number % 3]), range(60)))
    assert target.read_bytes() in contents
    assert list(tmp_path.iterdir()) == [target]


def test_a_file_has_the_rights_that_any_other_new_one_has(tmp_path: Path) -> None:
    write_whole(tmp_path / "a", b"1")
    (tmp_path / "b").write_bytes(b"1")
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "b").stat().st_mode


def test_what_cannot_be_put_in_place_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    with pytest.raises(OSError, match="a"):
        write_whole(tmp_path / "a", b"1")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_what_a_killed_process_left_can_be_removed(tmp_path: Path) -> None:
    kept = {tmp_path / "engine[1].plan", tmp_path / ".engine1.plan.0.part"}
    for path in (*kept, tmp_path / ".engine[1].plan.12ab34cd.part"):
        path.touch()
    remove_parts(tmp_path / "engine[1].plan")
    assert set(tmp_path.iterdir()) == kept
