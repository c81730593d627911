"""Policies: what a relying party accepts, as values with a digest and as TOML files."""

from tdx.policy.assessment import Assessment
from tdx.policy.bits import DEFAULT_TD_ATTRIBUTES, DEFAULT_XFAM, BitRule
from tdx.policy.document import load_document
from tdx.policy.measurements import REGISTERS, Measurements
from tdx.policy.policy import Policy
from tdx.policy.toml import dump_policy, load_policy, policy_from_table

__all__ = [
    "DEFAULT_TD_ATTRIBUTES",
    "DEFAULT_XFAM",
    "REGISTERS",
    "Assessment",
    "BitRule",
    "Measurements",
    "Policy",
    "dump_policy",
    "load_document",
    "load_policy",
    "policy_from_table",
]
