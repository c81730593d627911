"""The pad benchmark runs, prints every size, and reads openssl's output rightly."""

from __future__ import annotations

import json
import shutil

import pytest

from benchmarks import pads


def test_quick_run_prints_every_size_with_its_ratios(capsys: pytest.CaptureFixture[str]) -> None:
    assert pads.main(["--quick", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert [row["kib"] for row in report["rows"]] == [1, 16, 64, 176, 1024]
    for row in report["rows"]:
        assert row["shipped_us"] > 0
        assert row["naive_us"] > 0
        assert (row["openssl_us"] is not None) == (shutil.which("openssl") is not None)


def test_without_openssl_a_line_says_so(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert pads.main(["--quick"]) == 0
    printed = capsys.readouterr().out
    assert "openssl is not installed: its column is skipped" in printed
    assert "naive/shipped" in printed


def test_naive_and_shipped_paths_use_the_same_cipher() -> None:
    body = bytearray(1000)
    pads.naive_client(bytes(32), body)
    assert any(body)
    again = bytearray(body)
    pads.naive_client(bytes(32), again)
    assert not any(again)


def test_openssl_speed_is_bytes_a_second() -> None:
    output = "+H:1024\n+F:25:AES-256-CTR:2048000000.00\n"
    assert pads.parse_openssl(output, 1024) == pytest.approx(0.5)
    assert pads.parse_openssl("nothing of use", 1024) is None
