"""A memo spares reading the same bytes twice, and nothing else."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from tdx.collateral import Bundle
from tdx.emulator import Emulator
from tdx.emulator.authority import PckValues
from tdx.errors import Check, PolicyError, QuoteError
from tdx.trust import TrustRoot
from tdx.verify import Memo, verify
from tests.tdx import vectors
from tests.tdx.forged import NOW, POLICY, emulator, honest_quote, judge
from tests.tdx.test_vectors import PAIRS

DAY_S = 86_400
SORTS = ("chain", "certificate", "root_crl", "pck_crl", "tcb_info", "qe_identity")


def refusal(*, root: TrustRoot | None = None, now: int = NOW, memo: Memo | None) -> Check:
    with pytest.raises(QuoteError) as caught:
        judge(honest_quote(), root=root, now=now, memo=memo)
    return caught.value.check


@pytest.mark.parametrize("title", [title for title, pair in PAIRS.items() if pair.check is None])
def test_real_verdicts_are_the_same(title: str) -> None:
    pair, memo = PAIRS[title], Memo()
    raw, text = vectors.quote(pair.quote), vectors.collateral(pair.collateral)

    def verdict(kept: Memo | None) -> object:
        bundle = Bundle.from_json(text)
        return verify(raw, bundle, root=TrustRoot.intel(), now=pair.now, memo=kept)

    assert verdict(None) == verdict(memo) == verdict(memo)


def test_the_second_time_nothing_is_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    memo = Memo()
    first = judge(honest_quote(4), memo=memo)
    kept = [getattr(memo, sort) for sort in SORTS]
    # Leaf, PCK CA, root and TCB signer; of the chains, the two documents share one.
    assert [len(one) for one in kept] == [3, 4, 1, 1, 1, 1]

    def read(_: object) -> object:
        raise AssertionError("read again")

    for one in kept:
        monkeypatch.setattr(one, "_read", read)
    assert judge(honest_quote(4), memo=memo) == first
    bundle = emulator().bundle()
    spaced = replace(bundle, pck_crl_issuer_chain=bundle.pck_crl_issuer_chain + "\n")
    with pytest.raises(AssertionError, match="read again"):
        judge(honest_quote(4), spaced, memo=memo)


def test_time_is_judged_anew() -> None:
    memo = Memo()
    judge(honest_quote(), memo=memo)
    for now in (NOW + 40 * DAY_S, NOW - 40 * DAY_S):
        assert refusal(now=now, memo=memo) is refusal(now=now, memo=None)
    judge(honest_quote(), memo=memo)


def test_the_root_is_judged_anew() -> None:
    memo = Memo()
    judge(honest_quote(), memo=memo)
    assert refusal(root=TrustRoot.intel(), memo=memo) is Check.ROOT_PIN
    assert refusal(root=Emulator(now=NOW).trust_root, memo=memo) is Check.ROOT_PIN


def test_the_policy_is_judged_anew() -> None:
    memo = Memo()
    judge(honest_quote(), memo=memo)
    with pytest.raises(QuoteError) as caught:
        judge(honest_quote(), memo=memo, policy=replace(POLICY, allow_emulated=False))
    assert caught.value.check is Check.EMULATED_MARKER


def test_signatures_over_remembered_bytes_are_judged_anew() -> None:
    memo, bundle = Memo(), emulator().bundle()
    judge(honest_quote(), memo=memo)
    swapped = replace(bundle, tcb_info_signature=bundle.qe_identity_signature)
    with pytest.raises(QuoteError) as caught:
        judge(honest_quote(), swapped, memo=memo)
    assert caught.value.check is Check.TCB_INFO_SIGNATURE


def test_it_is_bounded_and_keeps_what_is_used() -> None:
    memo = Memo(limit=4)
    base = emulator()
    issuers = [base.hierarchy.pck_ca.der, base.hierarchy.root.der, base.hierarchy.tcb_signer.der]
    for number in range(8):
        platform = base.another_platform(PckValues(ppid=bytes([number]) * 16))
        judge(platform.quote(bytes(64)), base.bundle(), memo=memo)
        # Whoever shows new leaves for ever pushes out old leaves, not the issuers in use.
        assert all(der in memo.certificate for der in issuers)
    assert len(memo.certificate) == 4
    assert len(memo.chain) == 4


def test_long_texts_are_read_and_not_kept() -> None:
    memo = Memo()
    bundle = emulator().bundle()
    long = replace(bundle, pck_crl_issuer_chain=bundle.pck_crl_issuer_chain + "\n" * 70_000)
    judge(honest_quote(), long, memo=memo)
    assert len(memo.chain) == 2


def test_what_does_not_parse_is_not_kept() -> None:
    memo = Memo()
    for _ in range(2):
        with pytest.raises(QuoteError) as caught:
            judge(honest_quote(), replace(emulator().bundle(), root_ca_crl=b"\x30\x00"), memo=memo)
        assert caught.value.check is Check.ROOT_CRL
    assert len(memo.root_crl) == 0


def test_threads_may_share_one() -> None:
    memo = Memo(limit=2)
    quotes = [honest_quote(4), honest_quote(5)] * 40
    with ThreadPoolExecutor(4) as pool:
        verdicts = list(pool.map(lambda quote: judge(quote, memo=memo), quotes))
    assert {verdict.report.kind.name for verdict in verdicts} == {"TD10", "TD15"}


def test_a_memo_of_nothing_is_refused() -> None:
    with pytest.raises(PolicyError, match="at least one"):
        Memo(0)
