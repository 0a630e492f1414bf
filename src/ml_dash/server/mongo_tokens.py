"""Tokens in the database, one for all server processes."""

from __future__ import annotations

import time
from typing import Any

from ..stores.mongo_driver import answering
from .auth import Token, token_of

REMEMBER_S = 2.0
"""A revoked token is refused by every process after this time."""


class MongoTokens:
    """Tokens in the collection `tokens` of a database."""

    def __init__(self, database: Any) -> None:
        self._tokens = database["tokens"]
        self._seen: dict[str, tuple[float, Token | None]] = {}

    def get(self, token_id: str) -> Token | None:
        """One token, as it was two seconds ago at most."""
        seen = self._seen.get(token_id)
        if seen is not None and time.monotonic() - seen[0] < REMEMBER_S:
            return seen[1]
        with answering():
            found = self._tokens.find_one({"_id": token_id})
        token = None if found is None else _token(found)
        if len(self._seen) > 10_000:
            self._seen.clear()  # ids that somebody guesses do not fill the memory
        self._seen[token_id] = (time.monotonic(), token)
        return token

    def all(self) -> list[Token]:
        """Every token, oldest first."""
        with answering():
            found = list(self._tokens.find({}))
        return sorted(map(_token, found), key=lambda token: token.created_at)

    def put(self, token: Token) -> None:
        """Keep a token; durable on return."""
        # Objects, not pairs: some servers of MongoDB's protocol take no arrays inside arrays.
        value = {**token.to_dict(), "grants": [grant._asdict() for grant in token.grants]}
        token_id = value.pop("id")
        with answering():
            self._tokens.replace_one({"_id": token_id}, value, upsert=True)
        self._seen.pop(token_id, None)


def _token(found: dict[str, Any]) -> Token:
    grants = [(grant["owner"], grant["write"]) for grant in found["grants"]]
    return token_of({**found, "id": found["_id"], "grants": grants})
