"""Every route and frame kind of every service passes the wall, and none can be added beside it."""

from __future__ import annotations

import ast
import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from starlette.responses import PlainTextResponse

import zipnet
from tests.harness.fake_server import new_metrics
from zipnet.access.policy import POLICIES, RoutePolicy, Service
from zipnet.access.principal import Principal, PrincipalKind
from zipnet.access.shedding import Rank
from zipnet.access.terms import GATED
from zipnet.errors import AdmissionError, LocalProtocolError
from zipnet.node.wall import Wall, WallParts
from zipnet.node.wall_http import walled_application
from zipnet.wire.messages import Kind, Message

if TYPE_CHECKING:
    from collections.abc import Iterator

    from starlette.requests import Request

    from zipnet.transport.session import Session

SOURCE = Path(zipnet.__file__).parent
LISTENING = (SOURCE / "node", SOURCE / "gateway", SOURCE / "host")
UNKNOWN_KIND = 99

# Where a table of each service is handed to its wall.
REGISTERED = {
    Service.SERVER: "node/server_routes.py",
    Service.SAFE_MODE: "node/safe_mode.py",
    Service.AGGREGATOR: "node/aggregator_routes.py",
    Service.UPSTREAM: "node/upstream.py",
    Service.HTTP: "node/http.py",
    Service.GATEWAY: "gateway/app.py",
}


def _wall(service: Service) -> Wall:
    return Wall(service, WallParts(new_metrics()))


def _modules() -> Iterator[tuple[str, ast.Module]]:
    for folder in LISTENING:
        for path in sorted(folder.rglob("*.py")):
            yield path.relative_to(SOURCE).as_posix(), ast.parse(path.read_text())


def _keys_of_tables(module: ast.Module) -> set[int | str]:
    """Routes written down in a module: ``Kind.X`` or ``"METHOD /path"`` as keys or elements."""
    found: set[int | str] = set()
    for node in ast.walk(module):
        keys: list[ast.expr] = []
        if isinstance(node, ast.Dict):
            keys = [key for key in node.keys if key is not None]
        elif isinstance(node, ast.Assign) and isinstance(node.value, ast.Tuple):
            keys = node.value.elts
            keys = [key for key in keys if _is_kind(key)]
        elif isinstance(node, ast.Assign):
            keys = [t.slice for t in node.targets if isinstance(t, ast.Subscript)]
        for key in keys:
            if isinstance(key, ast.Attribute) and _is_kind(key):
                found.add(Kind[key.attr])
            elif isinstance(key, ast.Constant) and isinstance(key.value, str) and " /" in key.value:
                found.add(key.value)
    return found


def _is_kind(node: ast.expr) -> bool:
    return (
        isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == "Kind"
    )


@pytest.mark.parametrize("service", REGISTERED, ids=str)
def test_routes_and_policies_are_the_same(service: Service) -> None:
    found = _keys_of_tables(ast.parse((SOURCE / REGISTERED[service]).read_text()))
    assert found == set(POLICIES[service])


def test_each_service_is_walled_somewhere() -> None:
    # The admin socket's table is that of the verbs themselves, and is checked when it is made.
    assert set(REGISTERED) | {Service.ADMIN} == set(Service) == set(POLICIES)


def test_each_frame_kind_of_the_wire_is_served_somewhere_behind_a_wall() -> None:
    served = {route for table in POLICIES.values() for route in table if not isinstance(route, str)}
    assert served == set(Kind)


async def _nothing(_session: Session, _payload: bytes) -> Message | None:
    return None


async def _page(_request: Request) -> PlainTextResponse:
    return PlainTextResponse("secret")


@pytest.mark.requirement("A5")
def test_a_frame_kind_without_a_policy_cannot_be_registered() -> None:
    wall = _wall(Service.AGGREGATOR)
    wall.routes({Kind.SUBMIT_ENVELOPE: _nothing})
    with pytest.raises(LocalProtocolError, match="no policy"):
        wall.routes({Kind.SUBMIT_ENVELOPE: _nothing, UNKNOWN_KIND: _nothing})
    with pytest.raises(LocalProtocolError, match=r"consensus.*no policy"):
        wall.routes({Kind.CONSENSUS: _nothing})


def test_a_path_without_a_policy_cannot_be_registered() -> None:
    wall = _wall(Service.HTTP)
    walled_application(wall, {"GET /healthz": _page})
    with pytest.raises(LocalProtocolError, match=r"/debug.*no policy"):
        walled_application(wall, {"GET /healthz": _page, "GET /debug": _page})
    with pytest.raises(LocalProtocolError, match="no policy"):
        walled_application(wall, {"POST /healthz": _page})


def test_the_comparison_of_the_tables_sees_a_route_that_was_added() -> None:
    """The negative of :func:`test_routes_and_policies_are_the_same`."""
    source = (SOURCE / REGISTERED[Service.SERVER]).read_text()
    added = source.replace(
        "Kind.SEAT: self._seat,", "Kind.SEAT: self._seat, Kind.SUBMIT_ENVELOPE: self._seat,"
    )
    assert added != source
    assert _keys_of_tables(ast.parse(added)) - set(POLICIES[Service.SERVER]) == {
        Kind.SUBMIT_ENVELOPE
    }
    page = (SOURCE / REGISTERED[Service.HTTP]).read_text()
    added = page.replace('"GET /healthz": healthz,', '"GET /healthz": healthz, "GET /x": healthz,')
    assert _keys_of_tables(ast.parse(added)) - set(POLICIES[Service.HTTP]) == {"GET /x"}


# Ways past the wall, and the only modules that may use each.
WAYS_PAST = {
    # Serving a session with a handler of one's own.
    "session.serve": {"node/feed.py", "node/server_routes.py"},
    "feed.serve": {"node/aggregator_routes.py", "node/safe_mode.py", "node/server_routes.py"},
    # Making HTTP applications.
    "Starlette": {"node/wall_http.py"},
    "Route": {"node/wall_http.py"},
    "Mount": set(),
    "asyncio.start_server": set(),
    "asyncio.start_unix_server": {"node/admin.py"},
}


def _uses(module: ast.Module) -> set[str]:
    found = set()
    for node in ast.walk(module):
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func).removeprefix("self._").removeprefix("self.")
        found |= {way for way in WAYS_PAST if name == way or name.endswith(f".{way}")}
    return found


@pytest.mark.requirement("A5")
def test_no_module_that_listens_has_a_way_past_the_wall() -> None:
    used: dict[str, set[str]] = {way: set() for way in WAYS_PAST}
    for name, module in _modules():
        for way in _uses(module):
            used[way].add(name)
    assert used == WAYS_PAST


def test_what_is_handed_to_a_session_came_from_a_wall() -> None:
    for name in ("node/server_routes.py", "node/aggregator_routes.py", "node/safe_mode.py"):
        source = (SOURCE / name).read_text()
        assert "self._routes.handler(session)" in source, name
        assert "async def handle" not in source, name
    assert "frame.kind" not in (SOURCE / "node/feed.py").read_text(), "the feed takes no frames"


def test_a_planted_way_past_the_wall_is_seen() -> None:
    planted = ast.parse("async def f(session):\n    await session.serve(mine)\n    Starlette()")
    assert _uses(planted) == {"session.serve", "Starlette"}


@pytest.mark.parametrize("service", Service, ids=str)
def test_what_is_not_in_the_table_is_refused_to_everybody(service: Service) -> None:
    wall = _wall(service)

    async def never() -> None:
        raise AssertionError("the handler was reached")

    async def ask() -> None:
        for kind in PrincipalKind:
            for route in (UNKNOWN_KIND, "GET /../secret", ""):
                with pytest.raises(AdmissionError) as refused:
                    await wall.pass_through(Principal(kind, "k"), route, 0, never)
                assert refused.value.code == "not_allowed"

    asyncio.run(ask())


@pytest.mark.parametrize(
    ("service", "route", "policy"),
    [(s, r, p) for s, table in POLICIES.items() for r, p in table.items()],
    ids=lambda value: "" if isinstance(value, RoutePolicy) else getattr(value, "name", str(value)),
)
def test_each_route_turns_away_callers_and_forms_it_does_not_name(
    service: Service, route: int | str, policy: RoutePolicy
) -> None:
    async def run() -> str:
        return "reached"

    async def ask() -> None:
        for kind in PrincipalKind:
            for push in (False, True):
                wall = _wall(service)
                request = wall.pass_through(Principal(kind, "k"), route, 0, run, push=push)
                if kind in policy.kinds and push is policy.push:
                    assert await request == "reached"
                else:
                    with pytest.raises(AdmissionError, match="not served to this caller"):
                        await request

    asyncio.run(ask())


def test_what_capabilities_gate_is_in_the_tables_and_control_is_last() -> None:
    for kind in GATED:
        assert any(kind in POLICIES[s] for s in (Service.SERVER, Service.AGGREGATOR))
    for route, policy in POLICIES[Service.SERVER].items():
        among_servers = policy.kinds == {PrincipalKind.SERVER}
        assert (policy.rank is Rank.CONTROL) == among_servers, route
    assert all(p.rank is Rank.CONTROL for p in POLICIES[Service.ADMIN].values())
    assert all(p.rank is Rank.CONTROL for p in POLICIES[Service.HTTP].values())
    # What is not metered is what cannot be refused.
    for table in POLICIES.values():
        assert all(policy.push for policy in table.values() if policy.cost == 0)
