"""Who may do what: opaque tokens, each good for some owners, to read or to write.

A token is `mld_<id>_<secret>`; the server keeps the id, the grants and the SHA-256 of the secret, which has 256 random
bits, so that no slow hash is needed. Everything outside a token's owners answers as if it did not exist.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import re
import secrets
import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from ..address import check_prefix
from ..errors import InvalidPrefix, InvalidQuery, StoreCorrupt
from ..files import FILES, Files

EVERY_OWNER = "*"
_FORM = re.compile(r"mld_([a-z0-9]{10})_([A-Za-z0-9_-]{43})")


class Grant(NamedTuple):
    """Access to one owner's experiments (`*`: everybody's); writing includes reading and deleting."""

    owner: str
    write: bool


@dataclass(frozen=True, slots=True)
class Token:
    """What is kept of a token: never its secret. Times are ISO 8601 in UTC; `expires_at` None is never."""

    id: str
    digest: str
    name: str
    grants: tuple[Grant, ...]
    created_at: str
    expires_at: str | None = None
    revoked_at: str | None = None

    def is_good(self, now: str) -> bool:
        """Whether it may be used at an ISO 8601 time."""
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)

    def to_dict(self) -> dict[str, Any]:
        """The same as plain values."""
        return {**asdict(self), "grants": [list(grant) for grant in self.grants]}


@dataclass(frozen=True, slots=True)
class Access:
    """What one request may do; `token_id` is for the log."""

    grants: tuple[Grant, ...]
    token_id: str = "-"

    def may_read(self, owner: str) -> bool:
        """Whether the owner's experiments can be seen."""
        return any(grant.owner in (owner, EVERY_OWNER) for grant in self.grants)

    def may_write(self, owner: str) -> bool:
        """Whether the owner's experiments can be recorded, changed and deleted."""
        return any(grant.write and grant.owner in (owner, EVERY_OWNER) for grant in self.grants)


EVERYTHING = Access((Grant(EVERY_OWNER, True),), "local")


class Tokens(Protocol):
    """Where tokens are kept."""

    def get(self, token_id: str) -> Token | None:
        """One token."""
        ...

    def all(self) -> list[Token]:
        """Every token, oldest first."""
        ...

    def put(self, token: Token) -> None:
        """Keep a token, in place of one with its id."""
        ...


# ---------------------------------------------------------------- making, checking


def now() -> str:
    """The time as tokens note it."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def create(tokens: Tokens, name: str, grants: Sequence[Grant], lifetime: timedelta | None = None) -> tuple[Token, str]:
    """A new token and its text, which is shown once and kept nowhere.

    Raises:
        InvalidQuery, InvalidPrefix: (ValueErrors) no grant, or an owner that cannot be one.
    """
    if not grants:
        raise InvalidQuery("a token needs at least one owner")
    for grant in grants:
        if grant.owner != EVERY_OWNER and check_prefix(f"{grant.owner}/project/name")[0] != grant.owner:
            raise InvalidPrefix(f"an owner is the first part of a prefix, got {grant.owner!r:.60}")
    token_id = "".join(secrets.choice("abcdefghijklmnopqrstuvwxyz0123456789") for _ in range(10))
    secret = secrets.token_urlsafe(32)
    end = None if lifetime is None else (datetime.now(UTC) + lifetime).isoformat(timespec="seconds")
    token = Token(token_id, _digest(secret), name, tuple(grants), now(), end)
    tokens.put(token)
    return token, f"mld_{token_id}_{secret}"


def revoke(tokens: Tokens, token_id: str) -> Token | None:
    """Make a token useless at once; None where there is none."""
    token = tokens.get(token_id)
    if token is not None and token.revoked_at is None:
        token = replace(token, revoked_at=now())
        tokens.put(token)
    return token


def check(tokens: Tokens, text: str, at: str | None = None) -> Access | None:
    """What the token's text allows; None for one that is unknown, damaged, revoked, or expired at a time (now)."""
    form = _FORM.fullmatch(text)
    token = tokens.get(form[1]) if form else None
    if form is None or token is None:
        return None
    matches = hmac.compare_digest(token.digest, _digest(form[2]))
    return Access(token.grants, token.id) if matches and token.is_good(at or now()) else None


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


# ---------------------------------------------------------------- keeping


class FileTokens:
    """Tokens in one file beside the experiments, readable for the server's user only.

    A change by another process counts from the next request on.
    """

    def __init__(self, path: Path, files: Files = FILES) -> None:
        self.path, self._files = path, files
        self._lock = threading.Lock()
        self._seen: tuple[int, int, int] | None = None
        self._tokens: dict[str, Token] = {}

    def get(self, token_id: str) -> Token | None:
        """One token."""
        return self._read().get(token_id)

    def all(self) -> list[Token]:
        """Every token, oldest first."""
        return sorted(self._read().values(), key=lambda token: token.created_at)

    def put(self, token: Token) -> None:
        """Keep a token; durable on return."""
        self._update(lambda known: known.update({token.id: token}))

    def _update(self, change: Callable[[dict[str, Token]], None]) -> None:
        self._files.make_folder(self.path.parent)
        fd = self._files.open(self.path.with_name(".lock"), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            self._files.lock(fd, wait=True)
            known = dict(self._read())
            change(known)
            body = json.dumps({"version": 1, "tokens": [token.to_dict() for token in known.values()]}, indent=2)
            self._replace(body.encode() + b"\n")
        finally:
            self._files.close(fd)

    def _replace(self, data: bytes) -> None:
        temporary = self.path.with_name(f".{self.path.name}.{os.getpid()}.tmp")
        self._files.remove(temporary)
        fd = self._files.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            self._files.write(fd, data)
            self._files.sync(fd)
        finally:
            self._files.close(fd)
        self._files.replace(temporary, self.path)
        self._files.sync_folder(self.path.parent)

    def _read(self) -> dict[str, Token]:
        with self._lock:
            try:
                stat = os.stat(self.path)
            except FileNotFoundError:
                self._seen, self._tokens = None, {}
                return self._tokens
            seen = (stat.st_ino, stat.st_mtime_ns, stat.st_size)
            if seen != self._seen:
                self._tokens, self._seen = self._parse(self._files.read(self.path)), seen
            return self._tokens

    def _parse(self, raw: bytes) -> dict[str, Token]:
        try:
            found = [token_of(one) for one in json.loads(raw)["tokens"]]
        except (ValueError, KeyError, TypeError) as error:
            raise StoreCorrupt(f"{self.path} is no list of tokens: {error}") from error
        return {token.id: token for token in found}


def token_of(found: dict[str, Any]) -> Token:
    """The token of `Token.to_dict`."""
    grants = tuple(Grant(str(owner), bool(write)) for owner, write in found["grants"])
    times = (found["created_at"], found.get("expires_at"), found.get("revoked_at"))
    return Token(found["id"], found["digest"], found["name"], grants, *times)
