"""Verify receipts without e2urec: python verify_receipt.py ISSUER.pub RECEIPT.json [NEXT.json ...]; needs only `cryptography`."""

import base64
import hashlib
import json
import sys
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

KINDS = ("application/vnd.e2urec.receipt+json", "application/vnd.e2urec.key-rotation+json")


def verify(key: bytes, files: list[bytes]) -> list[dict]:
    """The documents in `files`, which follow one another and the first of which `key` has signed; anything else raises."""
    documents, before = [], None
    for data in files:
        envelope = json.loads(data)
        payload, kind = base64.b64decode(envelope["payload"]), envelope["payloadType"]
        signatures = [base64.b64decode(each["sig"]) for each in envelope["signatures"]]
        message, document = b"DSSEv1 %d %b %d %b" % (len(kind), kind.encode(), len(payload), payload), json.loads(payload)
        keys = [key, bytes.fromhex(document["successor"])] if kind == KINDS[1] else [key]
        for public, signature in zip(keys, signatures, strict=True):
            Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
        signed = [{"keyid": hashlib.sha256(k).hexdigest()[:16], "sig": base64.b64encode(s).decode()} for k, s in zip(keys, signatures)]
        same = {"payload": base64.b64encode(payload).decode(), "payloadType": kind, "signatures": signed}
        if kind not in KINDS or (json.dumps(same, separators=(",", ":")) + "\n").encode() != data:
            raise ValueError("a file is not as it was written")
        if before not in (None, document["previous"]):
            raise ValueError(f"link {document['number']} does not follow the one before it")
        before, key, documents = hashlib.sha256(data).hexdigest(), keys[-1], [*documents, document]
    return documents


if __name__ == "__main__":
    for told in verify(bytes.fromhex(Path(sys.argv[1]).read_text()[:64]), [Path(name).read_bytes() for name in sys.argv[2:]]):
        print(json.dumps(told, indent=2))
