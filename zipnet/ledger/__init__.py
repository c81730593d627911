"""Logs that anybody can check: Merkle trees and the audit trail; pure."""
