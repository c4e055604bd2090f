"""NATS operators, accounts and users for tests: their nkeys, JWTs and credentials files."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import time
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

_SEED = 18 << 3
_PREFIXES = {"operator": 14 << 3, "account": 0, "user": 20 << 3}
_UNLIMITED = dict.fromkeys(("subs", "data", "payload"), -1)
_ACCOUNT_LIMITS = {
    **_UNLIMITED,
    **dict.fromkeys(("imports", "exports", "conn", "leaf"), -1),
    "wildcards": True,
}
_JETSTREAM_LIMITS = dict.fromkeys(("mem_storage", "disk_storage", "streams", "consumer"), -1)


class Key:
    """A pair of keys, as NATS writes them."""

    def __init__(self, kind: str) -> None:
        self._private = Ed25519PrivateKey.generate()
        prefix = _PREFIXES[kind]
        raw = self._private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        self.public = _encode(bytes([prefix]) + raw)
        head = bytes([_SEED | prefix >> 5, (prefix & 31) << 3])
        self.seed = _encode(head + self._private.private_bytes_raw())

    def token(self, subject: str, **nats: Any) -> str:
        """A JWT about the subject, signed with this key."""
        claims = {
            "iat": int(time.time()),
            "iss": self.public,
            "name": "testing",
            "sub": subject,
            "nats": {"version": 2, **nats},
        }
        claims["jti"] = base64.b32encode(hashlib.sha256(_json(claims)).digest()).decode()
        parts = [_json({"typ": "JWT", "alg": "ed25519-nkey"}), _json(claims)]
        text = ".".join(map(_unpadded, parts))
        return f"{text}.{_unpadded(self._private.sign(text.encode()))}"


class Operator:
    """An operator with one account and one user.

    Attributes:
        config: what lets a server know them.
        token: the user's JWT.
        seed: the user's seed.
        credentials: the contents of the user's credentials file.
    """

    def __init__(self) -> None:
        operator, system, account, user = map(Key, ("operator", "account", "account", "user"))
        accounts = {
            system.public: operator.token(system.public, type="account", limits=_ACCOUNT_LIMITS),
            account.public: operator.token(
                account.public, type="account", limits={**_ACCOUNT_LIMITS, **_JETSTREAM_LIMITS}
            ),
        }
        own = operator.token(operator.public, type="operator", system_account=system.public)
        preload = "\n".join(f"  {name}: {token}" for name, token in accounts.items())
        self.config = (
            f"operator: {own}\nsystem_account: {system.public}\n"
            f"resolver: MEMORY\nresolver_preload: {{\n{preload}\n}}\n"
        )
        self.token = account.token(user.public, type="user", **_UNLIMITED)
        self.seed = user.seed
        self.credentials = (
            f"-----BEGIN NATS USER JWT-----\n{self.token}\n------END NATS USER JWT------\n\n"
            f"-----BEGIN USER NKEY SEED-----\n{self.seed}\n------END USER NKEY SEED------\n"
        )


def _encode(raw: bytes) -> str:
    checked = raw + binascii.crc_hqx(raw, 0).to_bytes(2, "little")
    return base64.b32encode(checked).decode().rstrip("=")


def _json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _unpadded(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")
