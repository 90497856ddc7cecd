"""The description of the REST interface (OpenAPI 3.1), made of the types that validate it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Any

import msgspec

import relaycore
from roomserver.edge.endpoints import Endpoint
from roomserver.edge.problems import CONTENT_TYPE, STATUS, ProblemCode, ProblemDocument

JSON = "application/json"
PATH_NAME = re.compile(r"{(\w+)}")
BEARER = "accessToken"

# What may go wrong for reasons that the types give.
ALWAYS = (ProblemCode.REQUEST_TIMEOUT, ProblemCode.HEAD_TOO_LARGE, ProblemCode.SHUTTING_DOWN)
WITH_BODY = (
    ProblemCode.INVALID_REQUEST,
    ProblemCode.BODY_TOO_LARGE,
    ProblemCode.UNSUPPORTED_MEDIA_TYPE,
)
WITH_QUERY = (ProblemCode.INVALID_REQUEST,)
WITH_ACCOUNT = (
    ProblemCode.UNAUTHORIZED,
    ProblemCode.TOKEN_INVALID,
    ProblemCode.TOKEN_EXPIRED,
)
# Whether they still are administrators is not taken on trust while the database is away.
FOR_ADMIN = (ProblemCode.NOT_ALLOWED, ProblemCode.DATABASE_AWAY)


def describe(endpoints: Sequence[Endpoint]) -> dict[str, Any]:
    """The whole document."""
    kinds: set[type[msgspec.Struct]] = {ProblemDocument}
    for endpoint in endpoints:
        kinds |= {kind for kind in (endpoint.body, endpoint.query, endpoint.answer) if kind}
    ordered = sorted(kinds, key=lambda kind: kind.__name__)
    references, schemas = msgspec.json.schema_components(
        ordered, ref_template="#/components/schemas/{name}"
    )
    schema_of = dict(zip(ordered, references, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for endpoint in endpoints:
        operation = _operation(endpoint, schema_of, schemas)
        paths.setdefault(endpoint.path, {})[endpoint.method.lower()] = operation
    for kind in {endpoint.query for endpoint in endpoints if endpoint.query}:
        del schemas[kind.__name__]  # their fields stand at the operations
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "roomserver",
            "version": relaycore.__version__,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                BEARER: {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}
            },
        },
    }


def problems_of(endpoint: Endpoint) -> set[ProblemCode]:
    """Everything that a call of it may be refused with."""
    codes = {*ALWAYS, *endpoint.problems}
    if endpoint.body is not None:
        codes.update(WITH_BODY)
    if endpoint.query is not None:
        codes.update(WITH_QUERY)
    if endpoint.wants_account:
        codes.update(WITH_ACCOUNT)
    if endpoint.admin:
        codes.update(FOR_ADMIN)
    return codes


def _operation(
    endpoint: Endpoint, schema_of: dict[type[msgspec.Struct], Any], schemas: dict[str, Any]
) -> dict[str, Any]:
    part = endpoint.handler.__module__.rpartition(".")[2]
    operation: dict[str, Any] = {
        "operationId": f"{part}_{endpoint.handler.__name__}",
        "summary": endpoint.summary,
        "tags": [part],
        "responses": _responses(endpoint, schema_of),
    }
    parameters: list[dict[str, Any]] = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
        for name in PATH_NAME.findall(endpoint.path)
    ]
    if endpoint.query is not None:
        schema = schemas[endpoint.query.__name__]
        parameters += [
            {
                "name": name,
                "in": "query",
                "required": name in schema.get("required", ()),
                "schema": field,
            }
            for name, field in schema["properties"].items()
        ]
    if parameters:
        operation["parameters"] = parameters
    if endpoint.body is not None:
        operation["requestBody"] = {
            "required": True,
            "content": {JSON: {"schema": schema_of[endpoint.body]}},
        }
    if endpoint.wants_account:
        nobody: list[dict[str, list[str]]] = [{}] if endpoint.account_optional else []
        operation["security"] = [*nobody, {BEARER: []}]
    return operation


def _responses(
    endpoint: Endpoint, schema_of: dict[type[msgspec.Struct], Any]
) -> dict[str, dict[str, Any]]:
    success: dict[str, Any] = {"description": endpoint.summary}
    if endpoint.answer is not None:
        success["content"] = {JSON: {"schema": schema_of[endpoint.answer]}}
    responses = {str(endpoint.status): success}
    for status, codes in groupby(_by_status(problems_of(endpoint)), key=STATUS.__getitem__):
        responses[str(status)] = {
            "description": ", ".join(f"`{code}`" for code in codes),
            "content": {CONTENT_TYPE: {"schema": schema_of[ProblemDocument]}},
        }
    return responses


def _by_status(codes: Iterable[ProblemCode]) -> list[ProblemCode]:
    return sorted(codes, key=lambda code: (STATUS[code], code))
