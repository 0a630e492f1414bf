"""Expressions such as "norm(`sensors/force`.f) > 20 and not gripper.open": read into a tree, never run as Python.

    or:         and ("or" and)*
    and:        not ("and" not)*
    not:        "not" not | comparison
    comparison: sum (("<" | "<=" | ">" | ">=" | "==" | "!=") sum)*      1 < x < 2 means both
    sum:        product (("+" | "-") product)*
    product:    unary (("*" | "/" | "%") unary)*
    unary:      ("-" | "+") unary | power
    power:      operand ("**" unary)?
    operand:    number | 'text' | true | false | function "(" or ("," or)* ")" | "(" or ")" | reference
    reference:  (name | `any name`) ("." name | "." `any name` | "[" integer "]")*

A name with other characters than letters, digits and "_" stands in backticks, such as a topic with a slash.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

from ..errors import InvalidQuery

MAX_DEPTH = 50  # a level takes up to a dozen calls here, and Python's stack has a thousand
MAX_TOKENS = 500

_TOKEN = re.compile(
    r"""\s*(?:
        (?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)
      | (?P<text>'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")
      | (?P<quoted>`[^`]+`)
      | (?P<name>[^\W\d]\w*)
      | (?P<sign>\*\*|<=|>=|==|!=|[-+*/%<>()\[\],.])
      | (?P<end>$)
    )""",
    re.VERBOSE,
)
_COMPARISONS = ("<", "<=", ">", ">=", "==", "!=")
_WORDS = ("and", "or", "not", "true", "false")


@dataclass(frozen=True, slots=True)
class Literal:
    """A number, a text, true or false."""

    value: float | str | bool


@dataclass(frozen=True, slots=True)
class Reference:
    """A topic, a column or a part of one: its names and item numbers, and where it stands in the text."""

    steps: tuple[str | int, ...]
    at: int


@dataclass(frozen=True, slots=True)
class Call:
    """A function or an operator of its arguments."""

    name: str
    arguments: tuple[Node, ...]
    at: int


Node = Literal | Reference | Call


class _Token(NamedTuple):
    kind: str
    text: str
    at: int


def parse(text: object) -> Node:
    """The tree of an expression; raises InvalidQuery pointing at the place that cannot be read."""
    if not isinstance(text, str) or not text.strip():
        raise InvalidQuery(f"an expression is text such as 'norm(f) > 20', got {text!r}")
    return _Parser(text).whole()


def references(node: Node) -> Iterator[Reference]:
    """Every topic and column that an expression names."""
    if isinstance(node, Reference):
        yield node
    elif isinstance(node, Call):
        for argument in node.arguments:
            yield from references(argument)


def complaint(text: str, at: int, what: str) -> InvalidQuery:
    """An error that shows the expression and points at the place."""
    return InvalidQuery(f"{what}\n  {text}\n  {' ' * at}^")


def _tokens(text: str) -> Iterator[_Token]:
    at = 0
    while True:
        found = _TOKEN.match(text, at)
        if found is None or found.lastgroup is None:
            at += len(text[at:]) - len(text[at:].lstrip())
            raise complaint(text, at, f"cannot read {text[at : at + 10]!r}")
        yield _Token(found.lastgroup, found[found.lastgroup], found.start(found.lastgroup))
        if found.lastgroup == "end":
            return
        at = found.end()


class _Parser:
    """One expression, read from left to right with one token of view."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = list(islice(_tokens(text), MAX_TOKENS + 1))
        if len(self._tokens) > MAX_TOKENS:
            raise complaint(text, self._tokens[-1].at, f"longer than {MAX_TOKENS} words and signs")
        self._place = 0
        self._depth = 0

    def whole(self) -> Node:
        """The tree; everything must be used up."""
        node = self._any()
        if self._next.kind != "end":
            raise self._wrong(f"did not expect {self._next.text!r} here")
        return node

    @property
    def _next(self) -> _Token:
        return self._tokens[self._place]

    def _take(self, *texts: str) -> _Token | None:
        token = self._next
        if token.kind in ("sign", "name") and token.text in texts:
            self._place += 1
            return token
        return None

    def _need(self, text: str) -> None:
        if self._take(text) is None:
            raise self._wrong(f"expected {text!r}")

    def _wrong(self, what: str) -> InvalidQuery:
        return complaint(self._text, self._next.at, what)

    # -------------------------------------------------------------- one method for each line of the grammar

    def _deeper(self) -> None:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise self._wrong("nested too deeply")

    def _any(self) -> Node:
        self._deeper()
        node = self._all()
        while token := self._take("or"):
            node = Call("or", (node, self._all()), token.at)
        self._depth -= 1
        return node

    def _all(self) -> Node:
        node = self._not()
        while token := self._take("and"):
            node = Call("and", (node, self._not()), token.at)
        return node

    def _not(self) -> Node:
        taken = []
        while token := self._take("not"):
            taken.append(token)
            self._deeper()
        node = self._comparison()
        self._depth -= len(taken)
        for token in reversed(taken):
            node = Call("not", (node,), token.at)
        return node

    def _comparison(self) -> Node:
        left = self._sum()
        node: Node | None = None
        while token := self._take(*_COMPARISONS):
            right = self._sum()
            one = Call(token.text, (left, right), token.at)
            node = one if node is None else Call("and", (node, one), token.at)
            left = right
        return left if node is None else node

    def _sum(self) -> Node:
        node = self._product()
        while token := self._take("+", "-"):
            node = Call(token.text, (node, self._product()), token.at)
        return node

    def _product(self) -> Node:
        node = self._unary()
        while token := self._take("*", "/", "%"):
            node = Call(token.text, (node, self._unary()), token.at)
        return node

    def _unary(self) -> Node:
        if token := self._take("-", "+"):
            self._deeper()
            node = self._unary()
            self._depth -= 1
            return Call("negative", (node,), token.at) if token.text == "-" else node
        return self._power()

    def _power(self) -> Node:
        node = self._operand()
        if token := self._take("**"):
            self._deeper()
            node = Call("**", (node, self._unary()), token.at)
            self._depth -= 1
        return node

    def _operand(self) -> Node:
        token = self._next
        if self._take("("):
            node = self._any()
            self._need(")")
            return node
        if token.kind in ("number", "text"):
            self._place += 1
            return Literal(float(token.text) if token.kind == "number" else _unescaped(token.text))
        if self._take("true", "false"):
            return Literal(token.text == "true")
        if token.kind not in ("name", "quoted") or token.text in _WORDS:
            raise self._wrong(f"expected a value, got {token.text!r}" if token.text else "expected a value at the end")
        return self._named()

    def _named(self) -> Node:
        token = self._next
        self._place += 1
        if token.kind == "name" and self._take("("):
            return Call(token.text, self._arguments(), token.at)
        steps: list[str | int] = [token.text.strip("`")]
        while True:
            if self._take("."):
                steps.append(self._name())
            elif self._take("["):
                steps.append(self._integer())
                self._need("]")
            else:
                return Reference(tuple(steps), token.at)

    def _arguments(self) -> tuple[Node, ...]:
        arguments = [self._any()]
        while self._take(","):
            arguments.append(self._any())
        self._need(")")
        return tuple(arguments)

    def _name(self) -> str:
        token = self._next
        if token.kind not in ("name", "quoted"):
            raise self._wrong("expected the name of a column or part")
        self._place += 1
        return token.text.strip("`")

    def _integer(self) -> int:
        sign = -1 if self._take("-") else 1
        token = self._next
        if token.kind != "number" or not token.text.isdigit():
            raise self._wrong("expected the number of an item, such as q[0]")
        self._place += 1
        return sign * int(token.text)


def _unescaped(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text[1:-1])
