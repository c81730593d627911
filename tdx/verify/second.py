"""A second opinion: the ``dcap-qvl`` wheel must agree before a verdict counts.

Two verifiers written apart rarely share a mistake. The wheel is optional (it is not pure Python);
a caller that demands two opinions is refused where it is missing, never served with one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tdx.collateral import split_pem
from tdx.errors import Check, PolicyError, QuoteError
from tdx.quote import parse_quote
from tdx.verify.verify import verify

if TYPE_CHECKING:
    from tdx.collateral import Bundle
    from tdx.policy import Policy
    from tdx.trust import TrustRoot
    from tdx.verify.memo import Memo
    from tdx.verify.memory import RollbackMemory
    from tdx.verify.verdict import Verdict

__all__ = ["verify_twice"]


def verify_twice(
    quote: bytes,
    bundle: Bundle,
    *,
    root: TrustRoot,
    now: int,
    policy: Policy | None = None,
    report_data: bytes | None = None,
    seen: RollbackMemory | None = None,
    memo: Memo | None = None,
) -> Verdict:
    """Verify as ``verify`` does, and demand the same TCB status of the wheel.

    Args:
        quote: The quote.
        bundle: Its collateral.
        root: The trusted root.
        now: Unix seconds.
        policy: What is accepted; judged by this package alone.
        report_data: The 64 bytes the quote must carry; compared by this package alone.
        seen: Numbers of earlier collateral.
        memo: What was read before, for this package alone.

    Raises:
        QuoteError: Any check of ``verify``, or ``second_verifier`` if the wheel refuses or reaches
            another status.
        PolicyError: The wheel is not installed.
    """
    try:
        import dcap_qvl  # noqa: PLC0415 - optional
    except ImportError as error:
        raise PolicyError(
            "two opinions are demanded, and dcap-qvl is not installed",
            hint="pip install 'zipnet[second-opinion]'",
        ) from error
    verdict = verify(
        quote,
        bundle,
        root=root,
        now=now,
        policy=policy,
        report_data=report_data,
        seen=seen,
        memo=memo,
    )
    # The last certificate of the chain is the pinned root: the first opinion has made sure.
    root_der = split_pem(parse_quote(quote).certification, Check.CHAIN_SHAPE)[-1]
    try:
        collateral = dcap_qvl.QuoteCollateralV3.from_json(bundle.to_json())
        status = str(dcap_qvl.verify_with_root_ca(quote, collateral, root_der, now).status)
    except Exception as error:
        raise _dissent(error) from error
    except BaseException as error:
        # A panic of the wheel is no Exception, and no verdict either.
        if type(error).__name__ != "PanicException":
            raise
        raise _dissent(error) from error
    if status != verdict.assessment.status:
        raise QuoteError(
            Check.SECOND_VERIFIER,
            f"the second verifier also finds {verdict.assessment.status}",
            value=status,
        )
    return verdict


def _dissent(error: BaseException) -> QuoteError:
    first_line = str(error).partition("\n")[0]
    return QuoteError(Check.SECOND_VERIFIER, "the second verifier accepts", value=first_line)
