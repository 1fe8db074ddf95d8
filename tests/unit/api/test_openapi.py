"""What the OpenAPI says of each endpoint, and of access keys: which endpoints need one, how it is
given, and what is answered to who may not. That the endpoints do so is tested over HTTP.
"""

from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from mediad.api.audit_logs import AuditLog
from mediad.api.http import make_app

ERROR = {"application/json": {"schema": {"$ref": "#/components/schemas/ErrorBody"}}}
EITHER_WAY: list[dict[str, list[str]]] = [{"AccessKey": []}, {"Bearer": []}]

Operations = dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def openapi() -> dict[str, Any]:
    """All that is served."""
    return make_app(CollectorRegistry(), dict, dict).openapi()


@pytest.fixture(scope="module")
def operations(openapi: dict[str, Any]) -> Operations:
    """By method and path."""
    return {
        f"{method.upper()} {path}": operation
        for path, methods in openapi["paths"].items()
        for method, operation in methods.items()
    }


def test_a_key_has_a_header_of_its_own_or_is_a_bearer_token(openapi: dict[str, Any]) -> None:
    schemes = openapi["components"]["securitySchemes"]
    ways = {name: dict(scheme) for name, scheme in schemes.items()}
    assert all(way.pop("description") for way in ways.values())
    assert ways == {
        "AccessKey": {"type": "apiKey", "in": "header", "name": "AccessKey"},
        "Bearer": {"type": "http", "scheme": "bearer"},
    }


def test_all_of_v1_needs_a_key_and_nothing_else_does(operations: Operations) -> None:
    needs = {name: operation.get("security") for name, operation in operations.items()}
    open_ = {name for name, security in needs.items() if security is None}
    assert open_ == {"GET /healthz", "GET /readyz", "GET /metrics"}
    for name in needs.keys() - open_:
        assert " /v1/" in name
        assert needs[name] == EITHER_WAY, name


def test_who_may_not_is_answered_as_it_says(operations: Operations) -> None:
    for name, operation in operations.items():
        if " /v1/" not in name or " /v1/dialplan/" in name:
            continue
        answers = operation["responses"]
        assert all(answers[status]["content"] == ERROR for status in ("401", "403", "429")), name
        assert "WWW-Authenticate" in answers["401"]["headers"]
        assert "Retry-After" in answers["429"]["headers"]


def test_the_dialplan_is_told_what_is_wrong_in_a_header(operations: Operations) -> None:
    for name, operation in operations.items():
        if " /v1/dialplan/" in name:
            assert operation["responses"].keys() == {"200", "default"}
            assert "X-Mediad-Reason" in operation["responses"]["200"]["headers"]


def test_no_id_ends_with_a_space(operations: Operations) -> None:
    """MariaDB would find what has the same id without it."""
    for name, operation in operations.items():
        for parameter in operation.get("parameters", ()):
            if parameter["in"] == "path":
                assert parameter["schema"]["pattern"] == "[^ ]$", name


def test_every_operation_says_what_it_does(operations: Operations) -> None:
    for name, operation in operations.items():
        text = str(operation.get("description") or operation["summary"])
        assert len(text.split()) > 4, f"{name}: {text}"


def test_every_body_has_an_example(openapi: dict[str, Any], operations: Operations) -> None:
    schemas = openapi["components"]["schemas"]
    kinds: set[str] = set()
    for name, operation in operations.items():
        content: dict[str, Any] = operation.get("requestBody", {}).get("content", {})
        for kind, body in content.items():
            kinds.add(kind)
            schema = body["schema"]
            schema = schemas[schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema
            if kind != "audio/wav":  # nobody reads one
                assert "example" in body or schema.get("examples"), name
    assert kinds == {"application/json", "application/x-www-form-urlencoded", "audio/wav"}


def test_the_example_of_the_audit_log_is_one(openapi: dict[str, Any]) -> None:
    (example,) = openapi["components"]["schemas"]["AuditLog"]["examples"]
    whole = {"error": None} | example  # FastAPI leaves nulls out of examples
    assert AuditLog.model_validate(whole).model_dump().keys() == whole.keys()


def test_how_large_a_body_may_be_is_said(operations: Operations) -> None:
    told = operations["POST /v1/flows"]["responses"]["413"]["description"]
    assert "128 KiB" in told
    assert "2 MiB" in told
