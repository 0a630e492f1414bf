"""Words of a command line without what opens doors: a run's record is read by everybody who may read the run.

A best effort, by the form of a secret and by the name before it. In doubt a word is hidden, and to its end where
nothing says that the secret ends before. Work grows no faster than a word's length; of one with more than `LONGEST`
characters all but the option's name is hidden. Patterns are compiled once a word hints at a secret (`re` keeps them).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

HIDDEN = "***"
LONGEST = 8192
_LONGEST_NAME = 128

_HINTS = ("token", "key", "pass", "secret", "auth", "pwd", "pw", "cred", "cookie", "jwt", "psk", "otp", "bearer", "sig")
"""One of these is part of every name that asks for a secret."""
_ALWAYS = ("password", "passwd", "passphrase", "passcode", "secret", "credential", "apikey", "accesskey", "privatekey")
"""A name with one of these is that of a secret, whatever else it says, unless it ends with a word of `_ABOUT`."""
_ABOUT = {"file", "path", "dir", "name", "length", "len", "size", "count", "type", "policy", "manager", "prompt"}
_FLAGS = {"no", "skip", "without", "disable", "ask"}
"""`--no-auth`: with one of these before it a name has no secret after it."""
_TAILS = {"id", "value", "str", "string", "text", "raw", "default", "prod", "dev"}
"""`AWS_ACCESS_KEY_ID`, `token_value`: words that do not change what the name is of."""

_OF_TOKENS = """
    pad eos bos unk mask sep cls stop start end special image video audio text action state think num max min new per
"""
_OF_KEYS = """
    sort order group primary foreign partition index join map cache hot public image video camera depth rgb obs
    observation action actions state reward target label feature input output metric monitor batch dataset row column
    field lookup shard time timestamp prng rng random stop start quit exit pause record reset toggle teleop trigger
"""
_OF_PASSES = "low high band all by first second last one two single multi forward backward full render"
_ENDINGS = {
    **dict.fromkeys(("token", "tokens"), _OF_TOKENS),
    **dict.fromkeys(("auth", "authorization", "authentication", "authkey", "pwd", "cookie", "cookies"), ""),
    **dict.fromkeys(("sshpass", "userpass", "dbpass"), ""),
}
"""How the last word of a secret's name may end, and what before that makes it harmless: `--pad-token`."""
_WORDS = {
    **dict.fromkeys(("key", "keys"), _OF_KEYS),
    "pass": _OF_PASSES,
    **dict.fromkeys(("pw", "jwt", "psk", "otp", "cred", "creds", "bearer", "sig", "signature"), ""),
}
"""The same of words that stand alone: `monkey`, `compass` and `design` are none of these."""
_MAY_COUNT = {"tokens", "auth", "pw", "sig"}
_NOTHING = {"", "true", "false", "none", "null"}
_SCHEMES = {"basic", "bearer", "digest", "token"}
"""What stands between `Authorization:` and the secret."""
_SIGNS = {"=", ":", "==", ":=", "=>"}
"""What stands between a name and the secret, also as a word of its own."""

_PART = r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])"
_NAME = r"[\w.+-]+:?"
_SETTING = r"""(?<![\w.-])(?P<name>[\w.-]++)(?P<closed>[\\"'\])]*+)(?:\s*+(?P<sign>[=:][=>]?)\s*+|[\s,]++)"""
"""`--token=...`, `password: ...`, `"api_key": ...`, `?key=...`, also inside a word; with no sign only of an option."""
_UNSAID = r"""(?P<name>[\w.-]+)[\\"'\])]*\s*(?P<sign>[=:])[=>]?\s*\Z"""
"""The end of `--header=Authorization:`: the value is the next word."""
_JSON = (
    r"""(?:"(?:[^"\\]|\\.)*+"|'(?:[^'\\]|\\.)*+'|-?\d[\d.eE+-]*+|true|false|null|None|True|False)"""
    r"""(?=\s*+(?:[,}\]]|\Z))"""
)
_BEARER = r"(?i)\b(bearer\s++)[^\s\"']+"
_ALONE = r"(?<![A-Za-z0-9])"
_FORMS = {
    "mld_": r"mld_[a-z0-9]{10}_[\w-]{43}",
    **{
        start: rf"{_ALONE}{start}[A-Za-z0-9]{{16,}}"
        for start in ("ghp_", "gho_", "ghs_", "ghu_", "ghr_", "hf_", "npm_")
    },
    **{start: rf"{_ALONE}{start}[\w-]{{16,}}" for start in ("github_pat_", "glpat-", "xapp-", "pypi-")},
    "xox": rf"{_ALONE}xox[a-z]-[\w-]{{10,}}",
    "sk-": rf"{_ALONE}sk-(?=[A-Za-z_-]{{0,64}}\d)[\w-]{{16,}}",  # with a digit: sk-learn-... is none
    "AKIA": rf"{_ALONE}AKIA[A-Z0-9]{{16}}",
    "ASIA": rf"{_ALONE}ASIA[A-Z0-9]{{16}}",
    "AIza": rf"{_ALONE}AIza[\w-]{{35}}",
    "eyJ": r"(?<![\w-])eyJ[\w-]{8,}+\.[\w.-]+",
    "PRIVATE KEY": r"(?s:-----BEGIN [A-Z ]{0,32}PRIVATE KEY.*)",
}
"""Secrets by their form: a token of ours, of GitHub, GitLab, Hugging Face, npm, PyPI, Slack, OpenAI, AWS, Google; a
JWT; a private key. Each with a part that tells cheaply that it is not there."""


def without_secrets(words: Sequence[str], known: Iterable[str] = ()) -> list[str]:
    """The words with `***` for every token, password and key that can be told by its form or the name before it.

    Args:
        known: secrets in use, hidden wherever they stand.
    """
    secrets = [one for one in known if len(one) >= 8]
    found = []
    asked = False
    for place, word in enumerate(words):
        sign = asked and word in _SIGNS
        hide = asked and bool(word) and not sign
        asked = _asks(word, words[place + 1 : place + 3]) or sign or (asked and word.lower() in _SCHEMES)
        found.append(HIDDEN if hide else _hidden(word, secrets))
    return found


def _asks(word: str, after: Sequence[str]) -> bool:
    """Whether a word is an option, or ends in a name, whose value is the next word; that may begin with dashes."""
    end = word[-_LONGEST_NAME:]
    if not after or not _hints(end):
        return False
    following = after[1] if after[0] in _SIGNS and len(after) > 1 else after[0]
    option = word.startswith("-") or word.endswith(":") or word.lower() == "bearer" or after[0].startswith(("=", ":"))
    if option and len(word) <= _LONGEST_NAME and re.fullmatch(_NAME, word):
        return _is_secret(word, following)
    unsaid = re.search(_UNSAID, end)
    # `--token= --lr 3`: an empty value, as of a variable that is not set
    if not unsaid or (unsaid["sign"] == "=" and following.startswith("-")):
        return False
    return _is_secret(unsaid["name"], following)


def _hidden(word: str, known: Sequence[str]) -> str:
    if len(word) > LONGEST:
        option = re.match(rf"[\w.+-]{{1,{_LONGEST_NAME}}}=", word)
        return _hidden(option[0] if option else "", known) + HIDDEN
    for secret in known:
        word = word.replace(secret, HIDDEN)
    for start, form in _FORMS.items():
        if start in word:
            word = re.sub(form, HIDDEN, word)
    if "@" in word and "://" in word:
        word = _without_user(word)
    if _hints(word):
        word = _without_settings(word)
        word = re.sub(_BEARER, rf"\g<1>{HIDDEN}", word)
    return word


def _hints(word: str) -> bool:
    lower = word.lower()
    return any(hint in lower for hint in _HINTS)


def _without_user(word: str) -> str:
    """Without who asks, in the first URL that says it: to the last `@`, as passwords may hold `/` and `@`."""
    last = word.rfind("@")
    start = word.find("://") + 3
    while 3 <= start <= last:
        if _has_user(word, start):
            return f"{word[:start]}{HIDDEN}{word[last:]}"
        start = word.find("://", start) + 3
    return word


def _has_user(word: str, start: int) -> bool:
    """Whether the `@` after a URL's `://` ends a user: not that of `//host/a@b`, `//a.host:80/a@b`, `ssh://me@host`."""
    found = re.compile(r"[^\s/?#]*").match(word, start)
    host = found[0] if found else ""
    name, colon, port = host.rpartition(":") if host.startswith("[") else host.partition(":")
    if "@" in host:
        return ":" in host[: host.rfind("@")] or not word.endswith(("ssh://", "sftp://", "rsync://"), 0, start)
    after = word[start + len(host) : start + len(host) + 1]
    is_port = port.isdigit() and len(port) <= 5 and after in ("/", "?")
    return bool(colon) and not (is_port and ("." in name or name.startswith("[") or name == "localhost"))


def _without_settings(word: str) -> str:
    shown: list[str] = []
    done = 0
    for found in re.finditer(_SETTING, word):
        if found.start() < done or not _sets(word, found) or not _is_secret(found["name"]):
            continue
        end, hidden = _end_of_value(word, found)
        if _is_secret(found["name"], word[found.end() : end].strip("\"'")):
            shown += word[done : found.end()], hidden
            done = end
    return "".join((*shown, word[done:]))


def _sets(word: str, found: re.Match[str]) -> bool:
    """Whether a name with something after it is a setting: not the `/keys:/keys` of two paths."""
    if not found["sign"]:
        return found["name"].startswith("-")
    paths = word.endswith("/", 0, found.start()) and word.startswith("/", found.end())
    return not (paths and found["sign"].startswith(":"))


def _end_of_value(word: str, found: re.Match[str]) -> tuple[int, str]:
    """Where a value ends, and what is shown for it: at a query's next `&`, where JSON says, or with the word."""
    start = found.end()
    if word.endswith(("?", "&", "#"), 0, found.start()):
        end = re.compile("[&#]").search(word, start)
        return (end.start() if end else len(word)), HIDDEN
    value = re.compile(_JSON).match(word, start) if found["closed"] in ('"', "'") else None
    if value:
        return value.end(), f"{found['closed']}{HIDDEN}{found['closed']}"
    return len(word), HIDDEN


def _is_secret(name: str, value: str = HIDDEN) -> bool:
    """Whether a name is that of a secret and the value may be one: `--no-auth`, `token=none`, `tokens=512` are not."""
    parts = [part.lower() for part in re.findall(_PART, name[-_LONGEST_NAME:])]
    if not parts or parts[0] in _FLAGS or value.lower() in _NOTHING:
        return False
    if any(one in "".join(parts) for one in _ALWAYS):
        return parts[-1] not in _ABOUT
    while parts[-1] in _TAILS and len(parts) > 1:
        parts.pop()
    if parts[-1] in _MAY_COUNT and len(value) <= 8 and value.replace(".", "", 1).isdigit():
        return False
    return _ends_as_secret(parts)


def _ends_as_secret(parts: Sequence[str]) -> bool:
    last, before = parts[-1], "".join(parts[-2:-1])
    if last in _WORDS:
        return before not in _WORDS[last].split() and (last, before) != ("keys", "")
    ending = next((one for one in _ENDINGS if last.endswith(one)), None)
    return ending is not None and (last.removesuffix(ending) or before) not in _ENDINGS[ending].split()
