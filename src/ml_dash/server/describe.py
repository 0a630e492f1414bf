"""The OpenAPI 3.1 description, made of the table in `routes.py`."""

from __future__ import annotations

from typing import Any

from ..wire import ERRORS, JSON
from .routes import FAULT, OPERATIONS, Operation, Param

ALWAYS = ("bad_parameter", "unauthorized", "forbidden", "not_found", "too_busy", "unavailable", "disk_full", "internal")


def openapi(version: str) -> dict[str, Any]:
    """The description of every operation."""
    paths: dict[str, dict[str, Any]] = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _described(operation)
    return {
        "openapi": "3.1.0",
        "info": {"title": "ml-dash", "version": version, "description": "Timestamped multi-modal recordings."},
        "paths": paths,
        "components": {
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            "schemas": {"Fault": FAULT},
        },
    }


def _described(operation: Operation) -> dict[str, Any]:
    found: dict[str, Any] = {
        "operationId": operation.id,
        "summary": operation.about,
        "parameters": [_param(one, "query") for one in operation.params]
        + [_param(one, "header") for one in operation.headers],
        "responses": _responses(operation),
    }
    if operation.body:
        content = {media_type: {"schema": schema} for media_type, schema in operation.body.items()}
        found["requestBody"] = {"required": True, "content": content}
    if not operation.open:
        found["security"] = [{"token": []}]
    return found


def _param(param: Param, place: str) -> dict[str, Any]:
    schema = {"type": "array", "items": dict(param.schema)} if param.many else dict(param.schema)
    found = {"name": param.name, "in": place, "required": param.required, "description": param.about, "schema": schema}
    return {**found, "explode": True} if param.many else found


def _responses(operation: Operation) -> dict[str, Any]:
    content = {media_type: {"schema": schema} for media_type, schema in operation.answer.items()}
    success: dict[str, Any] = {"description": "Success"}
    if content:
        success["content"] = content
    codes: dict[int, list[str]] = {}
    for code in ("unavailable",) if operation.open else (*ALWAYS, *operation.errors):
        codes.setdefault(ERRORS[code], []).append(code)
    faults = {
        str(status): {
            "description": ", ".join(names),
            "content": {JSON: {"schema": {"$ref": "#/components/schemas/Fault"}}},
        }
        for status, names in sorted(codes.items())
    }
    return {str(operation.status): success, **faults}
