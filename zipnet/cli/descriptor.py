"""``zipnet descriptor``: create, sign, show and verify instance descriptors (row Z3)."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import typer

from zipnet.cli import output, versions
from zipnet.cli.app import new_app
from zipnet.cli.lines import printable, time_of
from zipnet.errors import ConfigError
from zipnet.protocol.attestation import AttestationMode, AttestationTerms, Gate
from zipnet.protocol.descriptor import (
    MAX_DESCRIPTOR_BYTES,
    Descriptor,
    NodeEntry,
    parse_descriptor,
    sign_descriptor,
)
from zipnet.protocol.ids import DEFAULT_UNIVERSE, format_peer_id, parse_peer_id
from zipnet.protocol.params import Cadence, RoundParams
from zipnet.settings import read_descriptor
from zipnet.settings.attestationfile import draft_attestation
from zipnet.settings.bounded import read_bounded
from zipnet.settings.descriptorfile import (
    NodeDraft,
    compose_descriptor,
    parse_node_draft,
    with_entities,
)
from zipnet.settings.keycustody import signer
from zipnet.settings.keyfiles import write_new, write_over
from zipnet.settings.publicfile import read_public_file
from zipnet.settings.secretfiles import read_secret_file
from zipnet.settings.values import parse_duration_ms

app = new_app("Create, sign, show and verify instance descriptors.")
app.command()(versions.replace)
app.command()(versions.renew)

_PARAMS = RoundParams()
_CADENCE = Cadence()
_File = Annotated[Path, typer.Argument(help="Descriptor file.", show_default=False)]
_Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


@app.command()
def create(
    name: Annotated[str, typer.Option(help="Name of the instance, such as acme.mainnet.")],
    committee_secret_file: Annotated[
        Path, typer.Option(help="The committee's secret; only its fingerprint goes in.")
    ],
    operator: Annotated[Path, typer.Option(help="Public file of the operator who will sign.")],
    server: Annotated[
        list[str],
        typer.Option(help="NAME=HOST:PORT=PUBFILE[,fault-domain=WORD]; 3, 5 or 7 of them."),
    ],
    aggregator: Annotated[
        list[str], typer.Option(help="NAME=HOST:PORT=PUBFILE[,parent=NAME]; without parent a root.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="File to write; must not exist.")],
    entity: Annotated[
        list[str] | None, typer.Option(help="NAME=TEXT: who answers for a node before the law.")
    ] = None,
    universe: Annotated[str, typer.Option(help="Universe of the instance.")] = DEFAULT_UNIVERSE,
    descriptor_version: Annotated[
        int, typer.Option(help="Number of this edition; clients prefer higher ones.")
    ] = 1,
    days: Annotated[int, typer.Option(help="Days of validity from now.", min=1, max=3650)] = 90,
    num_slots: Annotated[int, typer.Option(help="Slots of a round.")] = _PARAMS.num_slots,
    slot_bytes: Annotated[int, typer.Option(help="Width of a slot.")] = _PARAMS.slot_bytes,
    min_participants: Annotated[
        int, typer.Option(help="Fewest clients a round is unblinded for.")
    ] = _PARAMS.min_participants,
    kem_epoch: Annotated[str, typer.Option(help="Life of a server's KEM key.")] = "1h",
    max_skip_rounds: Annotated[
        int, typer.Option(help="Most rounds a client may have been away.")
    ] = _PARAMS.max_skip_rounds,
    round_period: Annotated[
        str, typer.Option(help="From one round's opening to the next.")
    ] = f"{_CADENCE.round_period_ms}ms",
    fold_deadline: Annotated[
        str, typer.Option(help="From opening until aggregators stop folding.")
    ] = f"{_CADENCE.fold_deadline_ms}ms",
    round_deadline: Annotated[
        str, typer.Option(help="From opening until an unfinished round is aborted.")
    ] = f"{_CADENCE.round_deadline_ms}ms",
    max_absent: Annotated[
        int, typer.Option(help="Servers a round may do without; weakens trust.", min=0)
    ] = 0,
    tdx: Annotated[
        AttestationMode, typer.Option(help="Whether platforms are attested, and under which root.")
    ] = AttestationMode.OFF,
    tdx_committee: Annotated[
        Path | None, typer.Option(help="Policy file for the servers' platforms.")
    ] = None,
    tdx_aggregator: Annotated[
        Path | None, typer.Option(help="Policy file for aggregators; none leaves them ungated.")
    ] = None,
    tdx_client: Annotated[
        Path | None, typer.Option(help="Policy file for clients; none leaves them ungated.")
    ] = None,
    tdx_root: Annotated[
        Path | None, typer.Option(help="An emulator's root.der, with --tdx emulated.")
    ] = None,
    tdx_lifetime: Annotated[str, typer.Option(help="Longest window of evidence.")] = "10m",
) -> None:
    """Write an unsigned descriptor; `zipnet descriptor sign` makes it usable."""
    now = datetime.now(UTC).replace(microsecond=0)
    drafts = [*_drafts("--server", server), *_drafts("--aggregator", aggregator)]
    nodes = with_entities(drafts, entity or ())
    secret, _ = read_secret_file(committee_secret_file, what="--committee-secret-file")
    with secret:
        composed = compose_descriptor(
            name=name,
            universe=universe,
            version=descriptor_version,
            not_before=now,
            not_after=now + timedelta(days=days),
            max_absent=max_absent,
            committee_secret=secret,
            operator=read_public_file(operator, kind="operator").identity,
            params=RoundParams(
                num_slots=num_slots,
                slot_bytes=slot_bytes,
                min_participants=min_participants,
                kem_epoch_s=_whole_seconds("--kem-epoch", kem_epoch),
                max_skip_rounds=max_skip_rounds,
            ),
            cadence=Cadence(
                round_period_ms=_duration_ms("--round-period", round_period),
                fold_deadline_ms=_duration_ms("--fold-deadline", fold_deadline),
                round_deadline_ms=_duration_ms("--round-deadline", round_deadline),
            ),
            servers=nodes[: len(server)],
            aggregators=nodes[len(server) :],
            attestation=draft_attestation(
                tdx,
                root=tdx_root,
                policies={
                    Gate.COMMITTEE: tdx_committee,
                    Gate.AGGREGATOR: tdx_aggregator,
                    Gate.CLIENT: tdx_client,
                },
                lifetime_s=_whole_seconds("--tdx-lifetime", tdx_lifetime),
            ),
        )
    write_new(out, composed.decode(), mode=0o644)
    output.note(f"wrote {out}, not signed yet: zipnet descriptor sign {out} --key FILE")


@app.command()
def sign(
    file: _File,
    key: Annotated[Path, typer.Option(help="The operator's key file.", show_default=False)],
) -> None:
    """Sign a descriptor in place; an old signature is replaced."""
    data = read_bounded(file, MAX_DESCRIPTOR_BYTES, what="descriptor")
    with signer(key, what="--key", ask_pin=output.ask_pin) as operator:
        try:
            signed = sign_descriptor(data, operator)
        except ConfigError as error:
            raise ConfigError(f"{file}: {error}", hint=error.hint) from error
    write_over(file, signed.decode())
    output.note(f"signed {file}")
    output.data(format_peer_id(operator.peer_id))


@app.command()
def show(file: _File, as_json: _Json = False) -> None:
    """Print what a descriptor says, whether or not it can be trusted."""
    data = read_bounded(file, MAX_DESCRIPTOR_BYTES, what="descriptor")
    try:
        descriptor = parse_descriptor(data)
    except ConfigError as error:
        raise ConfigError(f"{file}: {error}", hint=error.hint) from error
    facts = _facts(descriptor)
    if as_json:
        output.json_line(facts)
        return
    nodes: list[tuple[str, NodeEntry, str | None]]
    nodes = [("server", entry, None) for entry in descriptor.servers]
    nodes += [("aggregator", entry.node, entry.parent) for entry in descriptor.aggregators]
    output.table((key, _words(value)) for key, value in facts.items() if key not in _NODE_LISTS)
    output.table(
        (
            *(kind, node.name, f"{node.host}:{node.port}", format_peer_id(node.peer_id)),
            *(_parent(parent), _domain(node), printable(node.entity)),
        )
        for kind, node, parent in nodes
    )
    output.note("shown as written: zipnet descriptor verify says whether it can be trusted")


@app.command()
def verify(
    file: _File,
    operator: Annotated[
        str | None, typer.Option(help="Peer id of the operator who must have signed.")
    ] = None,
    at: Annotated[
        str | None, typer.Option(help="Time to judge validity at, such as 2026-01-31T12:00:00Z.")
    ] = None,
    as_json: _Json = False,
) -> None:
    """Check signature and validity; exit code 2 when the descriptor cannot be trusted."""
    expected = None if operator is None else parse_peer_id(operator)
    trusted = read_descriptor(file, now=time_of(at), operator=expected)
    descriptor = trusted.descriptor
    signer = format_peer_id(descriptor.operator.peer_id)
    if as_json:
        output.json_line(
            {"verified": True, "operator_pinned": expected is not None} | _facts(descriptor)
        )
        return
    until = descriptor.not_after.isoformat()
    output.data(f"descriptor ok: {descriptor.name} group={trusted.group.hex()} until={until}")
    if expected is None:
        output.note(f"signed by {signer}: pin it with --operator once you know it is theirs")


_NODE_LISTS = ("servers", "aggregators")


def _duration_ms(option: str, text: str) -> int:
    try:
        return parse_duration_ms(text)
    except ValueError as error:
        raise ConfigError(f"{option}: {error}", hint="write 2s, 500ms or 1h") from None


def _whole_seconds(option: str, text: str) -> int:
    seconds, rest = divmod(_duration_ms(option, text), 1000)
    if rest:
        raise ConfigError(f"{option}: not whole seconds", hint="write 3600s or 1h")
    return seconds


def _drafts(option: str, texts: list[str]) -> list[NodeDraft]:
    return [
        parse_node_draft(text, what=option, with_parent=option == "--aggregator") for text in texts
    ]


def _parent(parent: str | None) -> str:
    return f"parent={parent}" if parent else ""


def _domain(node: NodeEntry) -> str:
    return f"fault-domain={printable(node.fault_domain)}" if node.fault_domain else ""


def _words(value: object) -> str:
    return json.dumps(value) if isinstance(value, dict) else str(value)


def _facts(descriptor: Descriptor) -> dict[str, Any]:
    params, cadence = descriptor.params, descriptor.cadence
    return {
        "name": descriptor.name,
        "universe": descriptor.universe,
        "version": int(descriptor.version),
        "previous": None if descriptor.previous is None else descriptor.previous.hex(),
        "group": descriptor.group.hex(),
        "not_before": descriptor.not_before.isoformat(),
        "not_after": descriptor.not_after.isoformat(),
        "signed": descriptor.signature is not None,
        "operator": format_peer_id(descriptor.operator.peer_id),
        "max_absent": descriptor.max_absent,
        "committee_fingerprint": descriptor.committee_fingerprint.hex(),
        "params": {
            "num_slots": params.num_slots,
            "slot_bytes": params.slot_bytes,
            "min_participants": params.min_participants,
            "kem_epoch_s": params.kem_epoch_s,
            "max_skip_rounds": params.max_skip_rounds,
        },
        "cadence": {
            "round_period_ms": cadence.round_period_ms,
            "fold_deadline_ms": cadence.fold_deadline_ms,
            "round_deadline_ms": cadence.round_deadline_ms,
        },
        "tdx": _attestation_facts(descriptor.attestation),
        "servers": [_node_facts(node) for node in descriptor.servers],
        "aggregators": [
            {**_node_facts(entry.node), "parent": entry.parent} for entry in descriptor.aggregators
        ],
    }


def _attestation_facts(terms: AttestationTerms) -> dict[str, object]:
    facts: dict[str, object] = {"mode": terms.mode.value}
    if terms.mode is not AttestationMode.OFF:
        facts["lifetime_s"] = terms.lifetime_s
        facts["ungated"] = [gate.value for gate in terms.ungated]
        facts |= {
            gate.value: {
                name: [v.hex() for v in values] for name, values in policy.baseline.required
            }
            for gate, policy in terms.policies.items()
        }
    return facts


def _node_facts(node: NodeEntry) -> dict[str, object]:
    peer = format_peer_id(node.peer_id)
    facts: dict[str, object] = {"name": node.name, "host": node.host, "port": node.port}
    facts["peer_id"] = peer
    if node.fault_domain:
        facts["fault_domain"] = node.fault_domain
    return facts | ({"entity": node.entity} if node.entity else {})
