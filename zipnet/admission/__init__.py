"""Judging what a peer shows before it is let in; pure."""

from zipnet.admission.evidence import (
    MAX_COLLATERAL_BYTES,
    ChallengeView,
    Evidence,
    EvidenceView,
    Judgement,
    bind,
    boot_id_of,
    decode_evidence,
    encode_evidence,
    evidence_due,
    gate_of,
    is_lasting_refusal,
    judge_evidence,
    kem_key_view,
)

__all__ = [
    "MAX_COLLATERAL_BYTES",
    "ChallengeView",
    "Evidence",
    "EvidenceView",
    "Judgement",
    "bind",
    "boot_id_of",
    "decode_evidence",
    "encode_evidence",
    "evidence_due",
    "gate_of",
    "is_lasting_refusal",
    "judge_evidence",
    "kem_key_view",
]
