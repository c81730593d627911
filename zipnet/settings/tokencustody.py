"""The key-custody port over PKCS#11: the Ed25519 key never leaves its token.

What a token of today can do is half of a hybrid signature. Ed25519 (``CKM_EDDSA``) is made and used
in the token, from which it cannot be taken out. ML-DSA-65 is younger than the tokens; its half is
derived from a secret file beside the key file, and used in this process. Both halves must verify,
so whoever steals the file alone signs nothing, and neither does who borrows the token alone.

The key file, which holds no secret::

    module = "/usr/lib/softhsm/libsofthsm2.so"
    token = "operators"
    object = "acme.mainnet"
    ed25519 = "…"                        # base64; the key in the token must be this one
    mldsa_file = "operator.key.mldsa"    # a secret file of `zipnet keygen`
    pin_file = "operator.pin"            # left out: the PIN is asked for

Rules:

1. A PIN is tried once: tokens count wrong ones and lock.
2. The library is loaded by full path and nothing looks for it.
"""

from __future__ import annotations

import base64
import binascii
import copy
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from tdx.policy import load_document
from zipnet.errors import ConfigError, LocalProtocolError
from zipnet.protocol.identity import Identity, mldsa65_key
from zipnet.settings.secretsources import read_secret_file

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["TokenCustody", "TokenPlace", "format_key_file", "make_token_key", "read_pin"]

_ED25519: Final = bytes.fromhex("06032b6570")
"""The OID 1.3.101.112 (RFC 8410 §3), DER."""

_ED25519_BYTES: Final = 32
_KEYS: Final = frozenset({"module", "token", "object", "ed25519", "mldsa_file"})
_MAX_PIN_BYTES: Final = 256
_HINT: Final = "write it with `zipnet keygen operator --token-module …`"


@dataclass(frozen=True, slots=True)
class TokenPlace:
    """Where a key is in a token.

    Attributes:
        module: The PKCS#11 library, by full path.
        token: Label of the token.
        name: Label of the key pair.
    """

    module: Path
    token: str
    name: str

    @property
    def described(self) -> str:
        """Name token and key."""
        return f"token {self.token!r}, key {self.name!r}"


class TokenCustody:
    """An identity whose Ed25519 key is in a token.

    Args:
        place: Where the key is.
        expected: Its public key, 32 bytes.
        mldsa_file: Secret file the other half is derived from.
        pin: Gives the PIN when the token is opened.
    """

    def __init__(
        self, place: TokenPlace, expected: bytes, mldsa_file: Path, pin: Callable[[], str]
    ) -> None:
        self._place = place
        self._expected = expected
        self._mldsa_file = mldsa_file
        self._pin = pin
        self._session: Any = None  # the package has no name for it that works without it
        self._lent: Identity | None = None

    @classmethod
    def from_file(
        cls, path: Path, data: bytes, *, what: str, ask_pin: Callable[[str], str] | None
    ) -> TokenCustody:
        """Read a key file; arguments as for :func:`zipnet.settings.keycustody.custody_of`.

        Raises:
            ConfigError: When it is incomplete, or there is no way to get the PIN.
        """
        try:
            table = load_document(data.decode("utf-8"))
            if not _KEYS <= set(table) <= _KEYS | {"kind", "pin_file"}:
                raise ValueError("not these keys")
            if not all(isinstance(text, str) and text.isprintable() for text in table.values()):
                raise ValueError("not text")
            expected = base64.b64decode(table["ed25519"], validate=True)
            if len(expected) != _ED25519_BYTES:
                raise ValueError("not the size of a key")
            place = TokenPlace(Path(table["module"]), table["token"], table["object"])
            mldsa_file = path.parent / table["mldsa_file"]
            pin_file = table.get("pin_file")
        except (ValueError, TypeError, binascii.Error):
            raise ConfigError(f"{what}: file {path} holds no key", hint=_HINT) from None

        def pin() -> str:
            if pin_file is not None:
                return read_pin(path.parent / pin_file)
            if ask_pin is None:
                raise ConfigError(
                    f"{what}: nobody is there to ask for the PIN of {place.described}",
                    hint="name a file of mode 0600 as pin_file",
                )
            return ask_pin(f"PIN of {place.described}: ")

        return cls(place, expected, mldsa_file, pin)

    @property
    def described(self) -> str:
        """Name the token, and where the half is that is not in it."""
        return f"in {self._place.described}; the ML-DSA half in file {self._mldsa_file}"

    def open(self) -> Identity:
        """Log in to the token and lend the identity.

        Raises:
            ConfigError: When the token, the key or the file is not there, or the PIN is wrong.
        """
        if self._lent is None:
            secret, _ = read_secret_file(self._mldsa_file, what="the ML-DSA half")
            with secret:
                half = mldsa65_key(secret)
            self._session = _open_session(self._place, self._pin(), writing=False)
            try:
                key = _find(self._session, self._place)
                if key.public_key().public_bytes_raw() != self._expected:
                    raise ConfigError(f"{self._place.described} is another key than its file says")
            except ConfigError:
                self.close()
                raise
            self._lent = Identity(key, half)
        return self._lent

    def close(self) -> None:
        """Log out."""
        lent, self._lent = self._lent, None
        if lent is not None:
            lent.close()
        session, self._session = self._session, None
        if session is not None:
            session.close()


class _TokenKey(Ed25519PrivateKey):
    """An Ed25519 key that signs in its token; there is no other way to use it."""

    def __init__(self, private: Any, public: bytes) -> None:  # noqa: ANN401 - see above
        self._private = private
        self._public = public

    def public_key(self) -> Ed25519PublicKey:
        return Ed25519PublicKey.from_public_bytes(self._public)

    def sign(self, data: Any) -> bytes:  # noqa: ANN401 - the base class's own signature
        import pkcs11  # noqa: PLC0415 - an optional package

        try:
            made: bytes = self._private.sign(bytes(data), mechanism=pkcs11.Mechanism.EDDSA)
        except pkcs11.PKCS11Error as error:
            raise LocalProtocolError(
                f"the token did not sign: {type(error).__name__}", hint="is it still there?"
            ) from error
        return made

    def private_bytes(self, encoding: Any, format: Any, encryption_algorithm: Any) -> NoReturn:  # noqa: A002, ANN401
        del encoding, format, encryption_algorithm
        raise LocalProtocolError("a key in a token does not leave it")

    def private_bytes_raw(self) -> NoReturn:
        raise LocalProtocolError("a key in a token does not leave it")

    def __copy__(self) -> _TokenKey:
        return self

    def __deepcopy__(self, memo: dict[int, object]) -> _TokenKey:
        del memo
        return copy.copy(self)


def make_token_key(place: TokenPlace, pin: str) -> bytes:
    """Make a key pair in a token, for good and not to be taken out; returns its public key.

    Raises:
        ConfigError: When the token is not there, has a key of that name, or makes no such keys.
    """
    import pkcs11  # noqa: PLC0415 - _open_session says what to do where it is not installed

    session = _open_session(place, pin, writing=True)
    try:
        if list(session.get_objects({pkcs11.Attribute.LABEL: place.name})):
            raise ConfigError(f"{place.described} exists", hint="choose another name")
        domain = session.create_domain_parameters(
            pkcs11.KeyType.EC_EDWARDS, {pkcs11.Attribute.EC_PARAMS: _ED25519}, local=True
        )
        domain.generate_keypair(
            mechanism=pkcs11.Mechanism.EC_EDWARDS_KEY_PAIR_GEN,
            store=True,
            label=place.name,
            private_template={
                pkcs11.Attribute.SENSITIVE: True,
                pkcs11.Attribute.EXTRACTABLE: False,
            },
        )
        return _find(session, place).public_key().public_bytes_raw()
    except pkcs11.PKCS11Error as error:
        raise ConfigError(
            f"token {place.token!r} makes no Ed25519 key: {type(error).__name__}",
            hint="it must know CKM_EC_EDWARDS_KEY_PAIR_GEN and CKM_EDDSA",
        ) from error
    finally:
        session.close()


def format_key_file(place: TokenPlace, public: bytes, mldsa_file: str, pin_file: str | None) -> str:
    """Write the text of a key file; it holds no secret.

    Raises:
        ConfigError: When a name cannot stand in one line.
    """
    values = {
        "module": str(place.module),
        "token": place.token,
        "object": place.name,
        "ed25519": base64.b64encode(public).decode(),
        "mldsa_file": mldsa_file,
    }
    if pin_file is not None:
        values["pin_file"] = pin_file
    if not all(text.isprintable() and not set(text) & set('"\\') for text in values.values()):
        raise ConfigError("a name of token, key or file has quotes or control characters")
    lines = [f'{key} = "{text}"' for key, text in values.items()]
    head = "# A signing key in a token (PKCS#11): this file says where. It holds no secret.\n"
    return head + 'kind = "operator"\n' + "\n".join(lines) + "\n"


def read_pin(path: Path) -> str:
    """Read a PIN from a file only its owner can read.

    Raises:
        ConfigError: When it cannot be read, others can read it, or it holds no PIN.
    """
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(path.stat().st_mode)
            text = file.read(_MAX_PIN_BYTES + 1).decode("utf-8").strip("\r\n")
    except OSError as error:
        raise ConfigError(f"PIN file {path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError:
        raise ConfigError(f"PIN file {path} does not hold text") from None
    if mode & 0o077:
        raise ConfigError(f"PIN file {path} is open to others", hint=f"run: chmod 600 {path}")
    if not text or len(text) > _MAX_PIN_BYTES:
        raise ConfigError(f"PIN file {path} holds no PIN")
    return text


def _open_session(place: TokenPlace, pin: str, *, writing: bool) -> Any:  # noqa: ANN401 - see above
    try:
        import pkcs11  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise ConfigError(
            "a key in a token needs the package python-pkcs11", hint="pip install 'zipnet[hsm]'"
        ) from error
    if not place.module.is_absolute():
        raise ConfigError(
            f"{place.module} is not a full path", hint="write the library's full path"
        )
    try:
        token = pkcs11.lib(str(place.module)).get_token(token_label=place.token)
        try:
            return token.open(rw=writing, user_pin=pin)
        except pkcs11.UserAlreadyLoggedIn:
            return token.open(rw=writing)  # a login is the whole process's (PKCS#11 §5.6)
    except (pkcs11.PKCS11Error, RuntimeError) as error:
        # Its text may name more than the place: the kind of error says enough.
        raise ConfigError(
            f"{place.described} cannot be opened: {type(error).__name__}",
            hint=f"see that {place.module} knows the token, and that the PIN is right",
        ) from error


def _find(session: Any, place: TokenPlace) -> _TokenKey:  # noqa: ANN401 - see above
    import pkcs11  # noqa: PLC0415

    try:
        private = session.get_key(
            object_class=pkcs11.ObjectClass.PRIVATE_KEY,
            key_type=pkcs11.KeyType.EC_EDWARDS,
            label=place.name,
        )
        public = session.get_key(
            object_class=pkcs11.ObjectClass.PUBLIC_KEY,
            key_type=pkcs11.KeyType.EC_EDWARDS,
            label=place.name,
        )
        # An octet string around the point (PKCS#11 v3.0 §2.3.5), or the point alone.
        point: bytes = public[pkcs11.Attribute.EC_POINT][-_ED25519_BYTES:]
        exportable = private[pkcs11.Attribute.EXTRACTABLE]
    except pkcs11.PKCS11Error as error:
        raise ConfigError(
            f"{place.described} is not there: {type(error).__name__}", hint=_HINT
        ) from error
    if exportable:
        raise ConfigError(f"{place.described} could be taken out of its token", hint=_HINT)
    return _TokenKey(private, point)
