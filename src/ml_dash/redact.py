"""Words of a command line without what opens doors: a run's record is read by everybody who may read the run."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

HIDDEN = "***"

_OUR_TOKEN = re.compile(r"mld_[a-z0-9]{10}_[A-Za-z0-9_-]{43}")
_NAME = r"[\w.-]*(?:token|secret|passw(?:or)?d|passphrase|api[_-]?key|access[_-]?key|credentials?)"
_ASKS = re.compile(rf"--?{_NAME}", re.IGNORECASE)
"""An option whose value is the next word."""
_SETTING = re.compile(rf"((?:^|[\s?&;,{{\"']|--?){_NAME}[\"']?\s*[=:]\s*)[^\s&;,}}]+", re.IGNORECASE)
"""`--token=...`, `password: ...`, `?api_key=...`: also inside a longer word, such as one of a shell or a URL."""
_USER_OF_URL = re.compile(r"([a-z][a-z0-9+.-]*://)[^\s/@]+@", re.IGNORECASE)


def without_secrets(words: Sequence[str], known: Iterable[str] = ()) -> list[str]:
    """The words with `***` for every token, password and key that can be told by its form or the option before it.

    Args:
        known: secrets in use, hidden wherever they stand.
    """
    found = [_hidden(word, [one for one in known if len(one) >= 8]) for word in words]
    for place, word in enumerate(words[:-1]):
        if _ASKS.fullmatch(word) and not words[place + 1].startswith("--"):
            found[place + 1] = HIDDEN
    return found


def _hidden(word: str, known: Sequence[str]) -> str:
    for secret in known:
        word = word.replace(secret, HIDDEN)
    word = _OUR_TOKEN.sub(HIDDEN, word)
    word = _USER_OF_URL.sub(rf"\g<1>{HIDDEN}@", word)
    return _SETTING.sub(rf"\g<1>{HIDDEN}", word)
