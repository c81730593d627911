"""The pad engine proves itself before use and falls back where a library will not work in place."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

import pytest
from cryptography.hazmat.primitives.ciphers import modes

from zipnet.errors import GuardError, LocalProtocolError
from zipnet.protocol import pads as module
from zipnet.protocol.pads import MAX_PAD_BYTES, PadEngine, PadMode

KEY = bytes(range(32))
ENGINES = [(mode, in_place) for mode in PadMode for in_place in (True, False)]


def ticking() -> Iterator[float]:
    yield from count(0.0, 1.0)


@pytest.mark.parametrize(("mode", "in_place"), ENGINES)
def test_all_engines_make_the_same_bytes(mode: PadMode, in_place: bool) -> None:
    expected = bytearray(b"abc" * 1000)
    PadEngine().apply(expected, KEY)
    buffer = bytearray(b"abc" * 1000)
    engine = PadEngine(mode, in_place=in_place)
    engine.apply(buffer, KEY)
    assert buffer == expected
    assert mode.value in engine.name


@pytest.mark.parametrize(("mode", "in_place"), ENGINES)
def test_the_callers_buffer_itself_changes(mode: PadMode, in_place: bool) -> None:
    buffer = bytearray(64)
    with memoryview(buffer) as view:
        PadEngine(mode, in_place=in_place).apply(buffer, KEY)
        assert any(view)


@pytest.mark.parametrize("favourite", list(PadMode))
def test_calibration_takes_the_engine_the_stopwatch_favours(
    favourite: PadMode, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    real = PadEngine.apply

    def apply(engine: PadEngine, buffer: bytearray, key: bytes) -> None:
        real(engine, buffer, key)
        clock[0] += 1.0 if engine.mode is favourite else 2.0

    monkeypatch.setattr(PadEngine, "apply", apply)
    assert PadEngine.calibrate(lambda: clock[0], body_bytes=100).mode is favourite


def test_calibration_works_with_any_stopwatch() -> None:
    ticks = ticking()
    engine = PadEngine.calibrate(lambda: next(ticks))
    buffer = bytearray(10)
    assert engine.apply_many(buffer, [KEY, KEY]) == 2
    assert buffer == bytes(10)


def test_library_that_refuses_to_work_in_place_gets_a_scratch_buffer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = PadEngine.apply

    def refusing(engine: PadEngine, buffer: bytearray, key: bytes) -> None:
        if "in place" in engine.name:
            raise ValueError("buffers overlap")
        real(engine, buffer, key)

    monkeypatch.setattr(PadEngine, "apply", refusing)
    ticks = ticking()
    assert PadEngine.calibrate(lambda: next(ticks)).name.endswith("by scratch buffer")


def test_mutant_with_another_first_counter_is_caught_by_the_self_test(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def shifted(mode: PadMode) -> modes.CTR:
        return modes.CTR(bytes(15) + b"\1")

    monkeypatch.setattr(module, "_cipher_mode", shifted)
    with pytest.raises(GuardError, match="differs from the reference"):
        PadEngine()
    with pytest.raises(GuardError, match="no pad cipher"):
        PadEngine.calibrate(lambda: 0.0)


def test_wrong_key_and_oversize_buffer_are_refused() -> None:
    engine = PadEngine()
    for key in (b"", KEY[:31], KEY[:16], KEY + b"\0"):
        with pytest.raises(LocalProtocolError):
            engine.apply(bytearray(8), key)

    class Long(bytearray):
        def __len__(self) -> int:
            return MAX_PAD_BYTES + 1

    with pytest.raises(LocalProtocolError):
        engine.apply(Long(), KEY)
