"""The whole error tree of zipnet: what went wrong, in words, as a code, and as an exit status.

Every error carries three stable class constants:

* ``reason`` (snake_case) is the metric label, the log field and the refusal that crosses the wire;
* ``exit_code`` is what a command line program returns;
* ``retryable`` says whether the same act may succeed later without anybody changing anything.

Rules:

1. Foreign exceptions are translated at the adapter that met them, with ``raise ... from``.
2. No secret, token, message body or peer list is ever put into ``args``.
3. ``hint`` tells a person what to do next; the message tells what is wrong.
4. Any bytes from outside end in a value or in :class:`RemoteProtocolError`, never in anything else.
"""

from __future__ import annotations

from typing import ClassVar

__all__ = [
    "AdmissionError",
    "AnonymityWarning",
    "ConfigError",
    "ConsensusError",
    "DuplicateIdentityError",
    "EgressError",
    "EquivocationError",
    "GuardError",
    "LocalProtocolError",
    "NotSent",
    "PeerClosedError",
    "PolicyMismatchError",
    "ProtocolError",
    "PublishError",
    "Refused",
    "RemoteProtocolError",
    "SafeMode",
    "SlowPeerError",
    "StorageError",
    "TransportError",
    "TrustPolicyError",
    "Unknown",
    "UnknownInstanceError",
    "VerificationError",
    "ZipnetError",
]


class ZipnetError(Exception):
    """Something zipnet did could not be done.

    Args:
        message: One line that names what is wrong. Never holds a secret or a message body.
        hint: One line that says what to do about it.
    """

    reason: ClassVar[str] = "internal"
    exit_code: ClassVar[int] = 1
    retryable: ClassVar[bool] = False

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint

    @property
    def message_line(self) -> str:
        """The error as one line for a person: what is wrong, then what to do."""
        text = str(self)
        return f"{text} — {self.hint}" if self.hint else text


class ConfigError(ZipnetError):
    """A setting, a file or a descriptor cannot be used as it is."""

    reason = "config"
    exit_code = 2


class DuplicateIdentityError(ConfigError):
    """Another live node already uses this identity."""

    reason = "duplicate_identity"


class UnknownInstanceError(ConfigError):
    """The peer does not serve the instance that was asked for."""

    reason = "unknown_instance"


class PolicyMismatchError(ConfigError):
    """The instance name is the same but secret, parameters or attestation policy differ."""

    reason = "policy_mismatch"


class ProtocolError(ZipnetError):
    """Bytes or values break the protocol's rules (abstract: one of the two children is raised)."""

    reason = "protocol"


class LocalProtocolError(ProtocolError):
    """The caller in this process asked for something the protocol does not allow."""

    reason = "local_protocol"


class RemoteProtocolError(ProtocolError):
    """Bytes from outside do not parse or break a rule; ``code`` is what the link closes with."""

    reason = "remote_protocol"

    def __init__(self, message: str, *, code: int = 0x01, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.code = code


class VerificationError(ZipnetError):
    """A signature, digest, chain or proof does not verify."""

    reason = "verification"


class TrustPolicyError(VerificationError):
    """What the network shows is genuine, and not what this client's trust policy asks for."""

    reason = "trust_policy"


class EquivocationError(VerificationError):
    """The committee signed two different records for one place in the log; ``proof`` shows both.

    Args:
        message: What was found, in one line.
        proof: The two encoded records; anyone checks them with the descriptor alone.
    """

    reason = "equivocation"

    def __init__(
        self, message: str, *, proof: tuple[bytes, bytes] = (b"", b""), hint: str | None = None
    ) -> None:
        super().__init__(message, hint=hint)
        self.proof = proof


class GuardError(ZipnetError):
    """A guard on which privacy rests refused; never caught to go on."""

    reason = "guard"


class AdmissionError(ZipnetError):
    """A peer or a request was refused at the door."""

    reason = "admission"

    def __init__(
        self,
        message: str,
        *,
        code: str = "refused",
        retry_after: float | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(message, hint=hint)
        self.code = code
        self.retry_after = retry_after


class StorageError(ZipnetError):
    """A file could not be read, written or made durable."""

    reason = "storage"


class SafeMode(StorageError):  # noqa: N818 - names a state the node is in, not a mishap
    """The node no longer signs or releases: a durable write failed, or an operator said so.

    Args:
        message: As for every error.
        hint: As for every error.
        cause: Why, as a snake_case word, where it is no failed write, which has its own.
    """

    reason = "safe_mode"

    def __init__(self, message: str, *, hint: str | None = None, cause: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.cause = cause


class TransportError(ZipnetError):
    """A connection could not be made, broke, or missed its deadline."""

    reason = "transport"
    retryable = True


class SlowPeerError(TransportError):
    """The other side of a link took longer than it may."""

    reason = "slow_peer"


class PeerClosedError(TransportError):
    """The other side ended a link and said why.

    Args:
        text: What happened, in one line.
        said: The other side's word for it, such as ``not_registered``; nobody vouches for it.
    """

    reason = "peer_closed"

    def __init__(self, text: str, *, said: str) -> None:
        super().__init__(text)
        self.said = said


class EgressError(TransportError):
    """This process may not connect there: neither descriptor nor settings name it."""

    reason = "egress_refused"
    retryable = False


class ConsensusError(ZipnetError):
    """A command could not be put into the committee's log right now."""

    reason = "consensus"
    retryable = True


class PublishError(ZipnetError):
    """A message was not confirmed; the class says what is known, ``message`` hands the work back.

    Args:
        text: What is known about the message, in one line.
        message_id: The random id of the message (16 bytes), or ``b""`` before one was drawn.
        message: The unsent work. Kept outside ``args`` and ``repr`` on purpose.
        salt: The message's salt: published again with it, it is the same message (same id).
    """

    reason = "publish"

    def __init__(
        self,
        text: str,
        *,
        message_id: bytes = b"",
        message: bytes = b"",
        salt: bytes = b"",
        hint: str | None = None,
    ) -> None:
        super().__init__(text, hint=hint)
        self.message_id = message_id
        self.message = message
        self.salt = salt


class NotSent(PublishError):  # noqa: N818 - an outcome
    """No part of the message ever left this process."""

    reason = "not_sent"
    retryable = True


class Unknown(PublishError):  # noqa: N818 - an outcome
    """The message left this process, but no verified record says whether it was broadcast."""

    reason = "unknown"


class Refused(PublishError):  # noqa: N818 - an outcome
    """The network refused the message or this publisher."""

    reason = "refused"


class AnonymityWarning(UserWarning):
    """What was asked for makes the author easier to guess; turn it into an error to refuse it."""
