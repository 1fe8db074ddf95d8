"""What an entry of the audit log has, what its hash is over, and that nobody changes one."""

import ast
import hashlib
from collections.abc import Iterator
from dataclasses import asdict, fields, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import mediad
from mediad.store.audit import (
    MAX_IP,
    MAX_REQUEST_ID,
    MAX_USER_AGENT,
    NO_HASH,
    Entry,
    hash_of,
)
from mediad.store.tables import audit_logs

ENTRY = Entry(
    id="1",
    customer_id="default",
    sequence=1,
    action="update",
    resource_type="agent",
    resource_id="2",
    actor_id="3",
    ip="192.0.2.7",
    user_agent="Zoë",
    request_id="4",
    duration_ms=5,
    error=None,
    before_state={"name": "Zoë", "rate": 1.5},
    after_state={"name": "Ann", "rate": 1.5},
    changed_fields=["name"],
    prev_hash=NO_HASH,
    hash=None,
    tm_create=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
)
SOURCES = Path(mediad.__file__).parent


def test_an_entry_is_its_row() -> None:
    assert {field.name for field in fields(Entry)} == set(audit_logs.c.keys())
    lengths = {"ip": MAX_IP, "request_id": MAX_REQUEST_ID, "user_agent": MAX_USER_AGENT}
    for name, length in lengths.items():
        assert str(audit_logs.c[name].type) == f"VARCHAR({length})"


def test_the_hash_is_that_of_the_form_that_is_told() -> None:
    """Who checks the log without mediad relies on it."""
    text = (
        '{"action":"update","actor_id":"3","after_state":{"name":"Ann","rate":1.5},'
        '"before_state":{"name":"Zo\\u00eb","rate":1.5},"changed_fields":["name"],'
        '"customer_id":"default","duration_ms":5,"error":null,"id":"1","ip":"192.0.2.7",'
        f'"prev_hash":"{NO_HASH}","request_id":"4","resource_id":"2","resource_type":"agent",'
        '"sequence":1,"tm_create":"2026-01-02T03:04:05.000000+00:00","user_agent":"Zo\\u00eb"}'
    )
    assert hash_of(asdict(ENTRY)) == hashlib.sha256(text.encode()).hexdigest()


@pytest.mark.parametrize("name", [f.name for f in fields(Entry) if f.name != "hash"])
def test_the_hash_is_over_all_that_it_has(name: str) -> None:
    before = getattr(ENTRY, name)
    changed: Any = "other"
    if isinstance(before, datetime):
        changed = before + timedelta(microseconds=1)
    assert hash_of(asdict(replace(ENTRY, **{name: changed}))) != hash_of(asdict(ENTRY))


def test_the_hash_is_not_over_itself() -> None:
    assert hash_of(asdict(replace(ENTRY, hash="x"))) == hash_of(asdict(ENTRY))


def changes_of_the_log(source: str) -> Iterator[str]:
    """Give the places that change entries: statements of SQLAlchemy, and SQL."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case (
                ast.Call(func=ast.Name(id="update" | "delete"), args=[table, *_])
                | ast.Call(func=ast.Attribute(value=table, attr="update" | "delete"))
            ) if ast.unparse(table).rpartition(".")[2] == "audit_logs":
                yield ast.unparse(node)
            case ast.Constant(value=str() as text) if any(
                f"{words} audit_logs" in " ".join(text.split()).lower()
                for words in ("update", "delete from", "replace into", "truncate")
            ):
                yield text


def imported_tables(source: str) -> set[str]:
    """Return the names that a module takes from the tables."""
    return {
        alias.name
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.ImportFrom) and node.module == "mediad.store.tables"
        for alias in node.names
    }


@pytest.mark.parametrize(
    "source",
    [
        "update(audit_logs).where(x)",
        "delete(tables.audit_logs)",
        "audit_logs.delete()",
        "tables.audit_logs.update().values(a=1)",
        'text("UPDATE  audit_logs SET a = 1")',
        'text("delete from audit_logs")',
    ],
)
def test_a_change_of_the_log_would_be_found(source: str) -> None:
    assert list(changes_of_the_log(source))


def test_nothing_changes_or_deletes_what_is_in_the_log() -> None:
    """The migration alone does, which gave numbers to what was there before it."""
    paths = [path for path in SOURCES.rglob("*.py") if path.name != "0004_audit_chains.py"]
    found = {path.name: list(changes_of_the_log(path.read_text())) for path in paths}
    assert {name: places for name, places in found.items() if places} == {}
    # Whoever is given the table does no more than these, which insert and select.
    users = {path.stem for path in paths if "audit_logs" in imported_tables(path.read_text())}
    assert users == {"audit", "audit_chain"}
