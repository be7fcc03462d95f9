"""Keys, signatures and the envelope around a signed document; nothing here reads a file.

The envelope is DSSE's: the signature covers the exact bytes of the payload and their type, so that whoever verifies it never writes
JSON anew, and no two programs need to agree on how a number is written. An envelope has one spelling. It is read by a pattern, not by a
parser, and what would be written for it must be what was read, or base64's unused bits and JSON's spaces would be free to change.

Source: https://github.com/secure-systems-lab/dsse, protocol.md and envelope.md.
"""

from __future__ import annotations

import hashlib
import re
from base64 import b64decode, b64encode
from dataclasses import dataclass
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from e2urec_core.errors import BadKey, BadReceipt

ALGORITHM: Final = "Ed25519"
KEY_ID = r"^[0-9a-f]{16}$"
_SIGNATURE = rb'\{"keyid":"([0-9a-f]{16})","sig":"([A-Za-z0-9+/]{86}==)"\}'
_LAYOUT = re.compile(
    rb'\{"payload":"([A-Za-z0-9+/]+={0,2})","payloadType":"([a-z0-9./+-]+)","signatures":\[%b(?:,%b)?\]\}\n' % (_SIGNATURE, _SIGNATURE)
)


@dataclass(frozen=True)
class PublicKey:
    """The public half of a signing key.

    Args:
        raw: Its 32 bytes.
    """

    raw: bytes

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the raw key, 64 hex digits."""
        return hashlib.sha256(self.raw).hexdigest()

    @property
    def id(self) -> str:
        """What documents call the key: the first 16 digits of its fingerprint."""
        return self.fingerprint[:16]

    @property
    def text(self) -> str:
        """What its `.pub` file holds: the raw key in hex, and the same as PEM, in which other tools read it."""
        pem = Ed25519PublicKey.from_public_bytes(self.raw).public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        return f"{self.raw.hex()}\n{pem.decode()}"

    @classmethod
    def from_text(cls, text: str) -> PublicKey:
        """The key of a `.pub` file.

        Raises:
            BadKey: It is none.
        """
        first = text.split("\n", 1)[0]
        if not re.fullmatch("[0-9a-f]{64}", first) or (key := cls(bytes.fromhex(first))).text != text:
            raise BadKey("a public key is not what `e2urec` writes: 64 hex digits and the same key as PEM", hint="fetch it again")
        return key

    def signed(self, message: bytes, signature: bytes) -> bool:
        """Whether this key has signed `message`."""
        try:
            Ed25519PublicKey.from_public_bytes(self.raw).verify(signature, message)
        except InvalidSignature:
            return False
        return True


class Signer:
    """Signs with one key."""

    def __init__(self, seed: bytes) -> None:
        """Sign with the Ed25519 key of `seed`, 32 bytes.

        >>> Signer(bytes(32)).public.id
        '139e3940e64b5491'
        """
        self._key = Ed25519PrivateKey.from_private_bytes(seed)
        self.public = PublicKey(self._key.public_key().public_bytes_raw())

    def sign(self, message: bytes) -> bytes:
        """The signature, 64 bytes; the same message always gets the same."""
        return self._key.sign(message)


@dataclass(frozen=True)
class Envelope:
    """A payload with one signature or two.

    Args:
        kind: DSSE's payload type.
        payload: The bytes that were signed.
        signatures: Id of the key and signature, in the order of the file.
    """

    kind: str
    payload: bytes
    signatures: tuple[tuple[str, bytes], ...]

    @classmethod
    def sealed(cls, kind: str, payload: bytes, *signers: Signer) -> Envelope:
        """The payload, signed by all `signers`."""
        message = signed_bytes(kind, payload)
        return cls(kind, payload, tuple((signer.public.id, signer.sign(message)) for signer in signers))

    @classmethod
    def from_bytes(cls, data: bytes) -> Envelope:
        """The envelope in a file's bytes; its signatures are not verified.

        Raises:
            BadReceipt: The bytes are not exactly those that would be written for it.
        """
        found = _LAYOUT.fullmatch(data)
        if found is not None:
            payload, kind, *signatures = found.groups()
            pairs = zip(signatures[::2], signatures[1::2], strict=True)
            signed = tuple((key.decode(), b64decode(signature)) for key, signature in pairs if key is not None)
            if len(payload) % 4 == 0 and (envelope := cls(kind.decode(), b64decode(payload), signed)).to_bytes() == data:
                return envelope
        raise BadReceipt("is no signed document, or was altered", hint="ask its issuer for it again")

    def to_bytes(self) -> bytes:
        """What its file holds."""
        signatures = ",".join(f'{{"keyid":"{key}","sig":"{b64encode(signature).decode()}"}}' for key, signature in self.signatures)
        return f'{{"payload":"{b64encode(self.payload).decode()}","payloadType":"{self.kind}","signatures":[{signatures}]}}\n'.encode()

    def is_signed_by(self, *keys: PublicKey) -> bool:
        """Whether its signatures are those of these keys, in this order, and nobody else's."""
        message = signed_bytes(self.kind, self.payload)
        return [key.id for key in keys] == [key for key, _ in self.signatures] and all(
            key.signed(message, signature) for key, (_, signature) in zip(keys, self.signatures, strict=True)
        )


def signed_bytes(kind: str, payload: bytes) -> bytes:
    """What a signature covers: type and payload, each behind its length.

    >>> signed_bytes("text/plain", b"hello")
    b'DSSEv1 10 text/plain 5 hello'
    """
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind.encode(), len(payload), payload)
