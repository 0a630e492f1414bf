"""Small documents over HTTP: their names, their ETags, and when one may take another's place."""

from __future__ import annotations

import hashlib
import re

from starlette.responses import Response

from .. import wire
from ..errors import InvalidEntry
from ..line import from_document, to_document
from ..store import Document
from . import routes
from .faults import Refusal
from .lines import check_json


def document_name(name: str) -> str:
    """A name that is one; raises Refusal bad_parameter."""
    if not re.fullmatch(routes.NAME.schema["pattern"], name):
        raise Refusal("bad_parameter", "name must be small letters, digits, _ or -, at most 64", "name")
    return name


def etag(document: Document) -> str:
    """Changes with the document."""
    return f'"{hashlib.sha256(to_document(document)).hexdigest()[:32]}"'


def answer(document: Document) -> Response:
    """The document with its ETag."""
    headers = {"ETag": etag(document), "Cache-Control": "no-store"}
    return Response(to_document(document), media_type=wire.JSON, headers=headers)


def parsed(body: bytes) -> Document:
    """The document of a body that can be written again; raises Refusal bad_body."""
    try:
        found = from_document(body)
        if found is not None:
            check_json(body)
            to_document(found)
            return found
    except InvalidEntry as error:
        raise Refusal("bad_body", str(error), "body") from None
    except (ValueError, RecursionError):
        pass
    raise Refusal("bad_body", "the body is no JSON object, or nested too deeply", "body")


def replaced(new: Document, match: str | None, none_match: str | None, known: Document | None) -> Document:
    """The document that comes in place of the known one; raises Refusal changed."""
    if none_match == "*" and known is not None:
        raise Refusal("changed", "the document exists already", "If-None-Match")
    if match is not None and (known is None or match != etag(known)):
        raise Refusal("changed", "the document was changed meanwhile: read it again", "If-Match")
    return new
