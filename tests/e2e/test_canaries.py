"""What must not be told is in nothing that real processes say, and a leak would be found."""

from __future__ import annotations

import json
import os
import signal
import socket
import ssl
from base64 import b64encode
from contextlib import suppress
from http.client import HTTPConnection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from tests.e2e.test_revocation import ISSUER, Guarded
from tests.harness.canaries import find_secrets, find_text, forms_of
from tests.harness.network import LiveNetwork, Node, run_zipnet, wait_for
from zipnet.access.capability import CapabilityRole
from zipnet.access.minting import issuer_key
from zipnet.errors import ZipnetError
from zipnet.observe.tracing import ALLOWED_ATTRIBUTES
from zipnet.protocol.params import RoundParams
from zipnet.protocol.secret import Secret
from zipnet.storage.custody import CUSTODY_NAMES
from zipnet.wire.admin import AdminRequest

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.timeout(300)

MESSAGE = "the canary's own words, seen by nobody but readers"
BY_GATEWAY = "the canary's other words, given to a gateway"
MALFORMED = "canary-of-malformed-input-0123456789"
ADMIN = "canary-of-an-admin-payload-0123456789"
OF_CLIENTS = {"register", "submit_envelope", "get_kem_keys"}
PAGES = ("/metrics", "/readyz", "/version", "/healthz")


def told_by(node: Node) -> Path:
    return node.folder / f"{node.name}.told"


def telling(node: Node, leak: str = "none") -> None:
    node.program = ("tests.harness.told", str(told_by(node)), leak)


def secrets_of(nodes: list[Node]) -> set[bytes]:
    lines = [line for node in nodes for line in told_by(node).read_text().split()]
    return {bytes.fromhex(line) for line in lines}


def outputs_of(nodes: list[Node]) -> dict[str, bytes]:
    """Everything a running node says: streams, pages, arguments, environment."""
    found: dict[str, bytes] = {}
    for node in nodes:
        for kind in ("*.out", "*.err", "traces"):
            for path in node.folder.glob(f"{node.name}.{kind}"):
                found[path.name] = path.read_bytes()
        if node.is_running():
            process = psutil.Process(node.pid)
            found[f"{node.name} ps"] = " ".join(process.cmdline()).encode()
            found[f"{node.name} environment"] = json.dumps(process.environ()).encode()
            if node.events("node_ready"):
                found |= {f"{node.name}{page}": node.http(page)[1].encode() for page in PAGES}
    return found


def files_of(folder: Path) -> dict[str, bytes]:
    """Every file of the state folders but key custody, which is there to hold secrets."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for state in folder.glob("*.state")
        for path in state.rglob("*")
        if path.is_file() and path.name not in CUSTODY_NAMES
    }


@pytest.fixture
def network(tmp_path: Path) -> Iterator[Guarded]:
    with Secret(bytearray(ISSUER)) as secret:
        key = "issuer1" + issuer_key(secret).hex()
    asked = {"ZIPNET_TOKEN_ISSUERS": key, "ZIPNET_TOKEN_ROLES": "publish,aggregate"}
    asked["ZIPNET_LOG_LEVEL"] = "debug"
    made = Guarded(
        tmp_path,
        params=RoundParams(num_slots=16, slot_bytes=256, min_participants=2),
        platform={"server": asked, "aggregator": {**asked, "ZIPNET_TOKEN": "tree.token"}},
    )
    made.mint("tree", CapabilityRole.AGGREGATE)
    made.mint("p", CapabilityRole.PUBLISH)
    made.mint("op1", CapabilityRole.ADMIN_WRITE)
    made.mint("op2", CapabilityRole.ADMIN_WRITE)
    for node in made.nodes.values():
        telling(node)
        traces = {"ZIPNET_TRACE_FILE": f"{node.name}.traces"}
        node.environment = {**node.environment, **traces}
    try:
        made.start()
        yield made
    finally:
        made.close()


def talk_rubbish(network: Guarded) -> None:
    """Put the canary where a careless program would quote it."""
    server = network.nodes["s0"]
    port, http = network.ports["s0"], server.wait_ready()["metrics_port"]
    with socket.create_connection(("127.0.0.1", port), timeout=10) as link:
        link.sendall(MALFORMED.encode() * 20)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
        datagrams.sendto(MALFORMED.encode() * 30, ("127.0.0.1", port))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols([MALFORMED])
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=10) as link:
        context.wrap_socket(link, server_hostname=MALFORMED).close()
    for method, target in (
        ("GET", f"/{MALFORMED}"),
        ("GET", f"/readyz?{MALFORMED}={MALFORMED}"),
        ("POST", "/metrics"),
        (MALFORMED, "/metrics"),
    ):
        web = HTTPConnection("127.0.0.1", int(str(http)), timeout=10)
        web.request(method, target, body=MALFORMED * 100, headers={"X-Canary": MALFORMED})
        web.getresponse().read()
        web.close()
    for request_ in (
        AdminRequest(verb=ADMIN),
        AdminRequest(verb="revoke", statement=ADMIN.encode(), tokens=network.operators()),
        AdminRequest(verb="revoke", statement=b"x", tokens=[ADMIN.encode()]),
    ):
        with suppress(ZipnetError):
            network.call("s0", request_)


def post_to(gateway: Node) -> None:
    """Publish by a gateway, and ask it for what it does not understand."""
    wait_for(lambda: gateway.out.read_text().startswith("http://"), "the gateway to listen")
    port = int(gateway.out.read_text().split()[0].rpartition(":")[2])

    def post(path: str, body: str) -> int:
        web = HTTPConnection("127.0.0.1", port, timeout=90)
        web.request("POST", path, body=body, headers={"Content-Type": "application/json"})
        status = web.getresponse().status
        web.close()
        return status

    assert post("/v1/publish", json.dumps({"text": BY_GATEWAY})) == 200
    assert post("/v1/publish", MALFORMED) >= 400
    assert post("/v1/publish", json.dumps({MALFORMED: MALFORMED})) >= 400
    assert post(f"/{MALFORMED}", MALFORMED) >= 400


def refuse_settings(folder: Path) -> dict[str, bytes]:
    """Start programs whose settings hold a canary in the wrong place; return what they say."""
    (folder / "bad.token").write_text(f"zipnet-capability {MALFORMED}\n")
    (folder / "bad.toml").write_text(f'secret = "{MALFORMED}"\n')
    server = ("server", "--descriptor", "d.toml", "--instance", "harness.test")
    tried = {
        "secret": ((*server,), {"ZIPNET_SECRET": MALFORMED}),
        "committee": (
            (*server, "--secret-file", "s0.secret"),
            {"ZIPNET_COMMITTEE_SECRET": MALFORMED},
        ),
        "token": (("publish", "--descriptor", "d.toml", "--token", "bad.token", "--cover"), {}),
        "file": ((*server, "--config", "bad.toml"), {}),
    }
    said: dict[str, bytes] = {}
    for name, (words, environment) in tried.items():
        done = run_zipnet(*words, cwd=folder, environment=environment)
        assert done.returncode == 2, (name, done.stderr)
        said[f"refused {name}"] = (done.stdout + done.stderr).encode()
    return said


def spans_of(node: Node) -> list[dict[str, Any]]:
    lines = (node.folder / f"{node.name}.traces").read_text().splitlines()
    requests = [json.loads(line)["resourceSpans"][0] for line in lines]
    return [span for request in requests for span in request["scopeSpans"][0]["spans"]]


def look_at_traces(spans: dict[str, list[dict[str, Any]]]) -> None:
    """A final round is one trace at every node, each with its phases; nobody's requests are in."""
    final = {
        name: {
            span["traceId"]
            for span in found
            if span["name"] == "round" and '"final"' in json.dumps(span)
        }
        for name, found in spans.items()
        if name.startswith("s")
    }
    shared = set.intersection(*final.values())
    assert shared
    names = {span["name"] for span in spans["s0"] if span["traceId"] in shared}
    assert names == {"round", "fold", "unblind", "collect", "assemble", "store"}
    relayed = {span["name"] for span in spans["root"] if span["traceId"] in shared}
    assert relayed == {"round", "fold", "deliver"}
    text = json.dumps(spans)
    for route in OF_CLIENTS:
        assert route not in text
    for found in spans.values():
        keys = {item["key"] for span in found for item in span["attributes"]}
        assert keys <= ALLOWED_ATTRIBUTES


@pytest.mark.requirement("L8")
@pytest.mark.requirement("L3")
def test_no_canary_is_in_anything_that_real_processes_say(network: Guarded) -> None:
    nodes = list(network.nodes.values())
    publish = ("publish", "--descriptor", "d.toml", "--token", "p.token")
    for index in range(2):
        network.spawn(f"cover-{index}", *publish, "--cover", "--quiet")
    talk_rubbish(network)
    gateway = network.spawn(
        *("gateway", "gateway", "--descriptor", "d.toml", "--token", "p.token"),
        *("--listen", "127.0.0.1:0", "--transport", "tls"),
    )
    post_to(gateway)
    words = (*publish, "--lines", "--timeout", "60s")
    done = run_zipnet(*words, cwd=network.folder, stdin=f"{MESSAGE}\n")
    assert done.returncode == 0, done.stderr
    said = {"publish": (done.stdout + done.stderr).encode()} | refuse_settings(network.folder)
    outputs = outputs_of([*nodes, *network.others]) | said
    # A process that dies of a signal leaves no memory behind.
    dying = network.nodes["s2"]
    limits = Path(f"/proc/{dying.pid}/limits").read_text()
    bounds = [line.split()[4:6] for line in limits.splitlines() if "core file" in line]
    assert bounds == [["0", "0"]]
    os.kill(dying.pid, signal.SIGABRT)
    assert dying.process is not None
    dying.process.wait(20)
    assert not [*network.folder.rglob("core*")]
    network.close()
    outputs |= outputs_of([*nodes, *network.others])
    state = files_of(network.folder)

    look_at_traces({node.name: spans_of(node) for node in nodes if node is not dying})
    routes = {str(line["route"]) for node in nodes for line in node.events("request_handled")}
    assert "server/get_clock" in routes
    assert not {route.partition("/")[2] for route in routes} & OF_CLIENTS

    secrets = secrets_of(nodes)
    named = {
        bytes.fromhex(path.read_text().strip().split(":")[1])
        for path in network.folder.glob("*.secret")
    }
    size = sum(map(len, [*outputs.values(), *state.values()]))
    print(f"secrets={len(secrets | named)} outputs={len(outputs)} files={len(state)} bytes={size}")
    assert len(secrets) > 50
    assert named & secrets, "the wrapper sees what it should"
    assert find_secrets(secrets | named | {ISSUER}, outputs | state) == set()
    tokens = [path.read_text().split()[-1] for path in network.folder.glob("*.token")]
    for text in (MESSAGE, BY_GATEWAY, MALFORMED, ADMIN, *(token[-60:] for token in tokens)):
        assert find_text(text, outputs) == set(), text
    audit = {name: data for name, data in state.items() if "audit" in name}
    assert audit
    for text in (MESSAGE, BY_GATEWAY, MALFORMED, ADMIN):
        assert find_text(text, audit) == set()


@pytest.mark.parametrize(
    ("leak", "place", "form"),
    [("log", "s0.1.out", "hex"), ("metric", "s0/metrics", "hex"), ("error", "s0.1.err", "plain")],
)
def test_a_secret_given_away_on_purpose_is_found(
    tmp_path: Path, leak: str, place: str, form: str
) -> None:
    network = LiveNetwork(tmp_path)
    node = network.nodes["s0"]
    telling(node, leak)
    try:
        node.start()
        node.wait_ready()
        wait_for(lambda: find_secrets(secrets_of([node]), outputs_of([node])), "the leak")
        assert find_secrets(secrets_of([node]), outputs_of([node])) == {(place, form)}
    finally:
        network.close()


def test_every_form_of_a_secret_is_found() -> None:
    secret = bytes(range(7, 250, 8))[:32]
    assert len(secret) >= 16
    half = secret[:16]
    shown = {
        "hex": half.hex().upper().encode(),
        "base64": b"data: " + b64encode(b"ab" + secret + b"tail"),
        "plain": repr(secret).encode(),
    }
    for kind, data in shown.items():
        assert (kind, kind) in find_secrets([secret], {kind: data}), kind
    assert find_secrets([secret], {"nothing": b"0" * 1000}) == set()
    assert forms_of(half)["plain"] >= {half}
