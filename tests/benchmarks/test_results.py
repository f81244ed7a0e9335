"""results.json: what is written is what is read, and nothing else is read."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from latentrt.benchmarks.results import Build, Picture, Results, Run, encode_results, read_results, write_results
from latentrt.runtime.errors import RequestError


def test_results_come_back_as_they_were_written(results: Results, tmp_path: Path) -> None:
    (tmp_path / "results.json").write_bytes(encode_results(results))
    assert read_results(tmp_path) == results
    assert read_results(tmp_path / "results.json") == results


def test_results_of_the_first_schema_are_read(results: Results, tmp_path: Path) -> None:
    old = msgspec.json.decode(encode_results(results))
    old["schema_version"] = 1
    old["records"] = [record for record in old["records"] if record["type"] != "Failure"]
    for record in old["records"]:
        for name in ("image", "stages", "precision", "device", "device_loaded_bytes", "device_peak_bytes"):
            record.pop(name, None) if record["type"] != "Run" else None
    (tmp_path / "results.json").write_bytes(msgspec.json.encode(old))
    read = read_results(tmp_path)
    assert read.of(Run) == results.of(Run)
    assert read.of(Picture) == results.of(Picture)
    assert read.of(Build)[0].stages == {}


def test_a_reader_finds_the_old_results_or_the_new_ones(results: Results, tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    write_results(results, path)
    write_results(msgspec.structs.replace(results, partial="latency"), path)
    assert read_results(path).partial == "latency"
    assert list(tmp_path.iterdir()) == [path]


def test_no_run_is_left_out(results: Results) -> None:
    phases = [run.phase for run in results.of(Run) if (run.side, run.case) == ("latentrt", results.workload.label)]
    assert phases == ["first", "warm-up", *["measured"] * 6, "switch"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"schema_version": 99}', "another schema | received: version 99"),
        ("not JSON", "not a result"),
        ('{"schema_version": 1}', "not a result"),
        ('{"schema_version": 2}', "not a result"),
        ('{"workload": {}}', "not a result"),
    ],
)
def test_other_files_are_refused(content: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(RequestError) as error:
        read_results(path)
    assert message in str(error.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(RequestError) as error:
        read_results(tmp_path / "none.json")
    assert "none.json: cannot be read" in str(error.value)
