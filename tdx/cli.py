"""The ``tdx`` command: parse options, call, print, exit.

Exit codes: 0 accepted or done, 1 rejected, 2 usage. Data goes to stdout, words for people to
stderr. ``tdx verify`` knows Intel's root alone; no option changes that.
"""

from __future__ import annotations

import json
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, NoReturn

try:
    import typer
except ImportError:  # the core is installed without its command line
    sys.stderr.write("error: the tdx command needs more — pip install 'zipnet[node]'\n")
    raise SystemExit(2) from None

from tdx.collateral import Bundle, expiries
from tdx.errors import PolicyError, QuoteError, TdxError
from tdx.fetch import INTEL_PCS, fetch_bundle
from tdx.measure import Boot, measure
from tdx.policy import Policy, dump_policy, load_policy
from tdx.quote import Quote, parse_quote
from tdx.replay import compare_logs, explain, parse_ccel
from tdx.trust import TrustRoot
from tdx.verify import Verdict, verify, verify_twice

__all__ = ["app", "main"]

app = typer.Typer(
    name="tdx",
    help="Verify Intel TDX quotes, and look into them.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

_MAX_FILE_BYTES = 64 * 1024 * 1024

QuoteFile = Annotated[Path, typer.Argument(help="The quote, raw bytes; - reads stdin.")]
CollateralFile = Annotated[Path, typer.Option("--collateral", help="The bundle, nine-key JSON.")]
At = Annotated[
    str | None, typer.Option("--at", help="Judge at this time: ISO 8601 or Unix seconds.")
]
PolicyFile = Annotated[Path | None, typer.Option("--policy", help="The policy, TOML.")]
ReportData = Annotated[
    str | None, typer.Option("--report-data", help="The 64 bytes the quote must carry, hex.")
]
SecondOpinion = Annotated[
    bool,
    typer.Option("--second-opinion", help="Accept only what the dcap-qvl wheel accepts as well."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


@app.command("verify")
def verify_command(
    quote: QuoteFile,
    collateral: CollateralFile,
    at: At = None,
    policy: PolicyFile = None,
    report_data: ReportData = None,
    second_opinion: SecondOpinion = False,
    as_json: AsJson = False,
) -> None:
    """Verify a quote under Intel's root: exit 0 if accepted, 1 if rejected."""
    judge = verify_twice if second_opinion else verify
    _judge(
        lambda: judge(
            _read(quote),
            Bundle.from_json(_read(collateral)),
            root=TrustRoot.intel(),
            now=_instant(at),
            policy=_policy(policy),
            report_data=_report_data(report_data),
        ),
        as_json=as_json,
    )


@app.command("show")
def show_command(quote: QuoteFile, as_json: AsJson = False) -> None:
    """Print what a quote says, unverified."""
    fields = _describe(parse_quote(_read(quote)))
    if as_json:
        _print_json(fields)
        return
    typer.echo("UNVERIFIED: what the quote says of itself", err=True)
    for name, value in fields.items():
        values = value if isinstance(value, list) else [value]
        for position, item in enumerate(values):
            label = name if position == 0 else ""
            typer.echo(f"{label:<20} {item}")


@app.command("fetch")
def fetch_command(
    quote: QuoteFile,
    out: Annotated[Path, typer.Option("--out", help="The bundle to write.")],
    url: Annotated[str, typer.Option("--url", help="A PCS, or a PCCS near you.")] = INTEL_PCS,
    as_json: AsJson = False,
) -> None:
    """Fetch the collateral of a quote; nothing is verified here."""
    bundle = fetch_bundle(parse_quote(_read(quote)), url=url)
    try:
        out.write_text(bundle.to_json())
    except OSError as error:
        raise PolicyError(f"{out} cannot be written: {error.strerror}") from error
    _print_expiries(bundle, as_json=as_json)


@app.command("expiry")
def expiry_command(
    collateral: Annotated[Path, typer.Argument(help="The bundle; - reads stdin.")],
    as_json: AsJson = False,
) -> None:
    """Print when each part of a bundle lapses, the first first; nothing is verified here."""
    _print_expiries(Bundle.from_json(_read(collateral)), as_json=as_json)


@app.command("measure")
def measure_command(
    firmware: Annotated[Path, typer.Argument(metavar="OVMF", help="The combined TDVF image.")],
    kernel: Annotated[Path | None, typer.Option("--kernel", help="A kernel to boot.")] = None,
    initrd: Annotated[Path | None, typer.Option("--initrd", help="Its initrd.")] = None,
    cmdline: Annotated[str, typer.Option("--cmdline", help="Its command line.")] = "",
    memory_mib: Annotated[
        int, typer.Option("--memory-mib", min=256, help="The TD's memory.")
    ] = 4096,
    policy: Annotated[bool, typer.Option("--policy", help="Print a policy file.")] = False,
    as_json: AsJson = False,
) -> None:
    """Compute MRTD of a firmware image, and RTMR1 and RTMR2 of what it boots."""
    boot = None
    if kernel is not None:
        disk = None if initrd is None else _read(initrd)
        boot = Boot(_read(kernel), cmdline, disk, memory_mib * 1024 * 1024)
    elif initrd is not None or cmdline:
        raise PolicyError("--initrd and --cmdline go with --kernel")
    manifest = measure(_read(firmware), boot)
    if policy:
        typer.echo(dump_policy(manifest.policy()), nl=False)
        return
    values: dict[str, object] = {
        "mrtd.single_pass": manifest.mrtd.single_pass.hex(),
        "mrtd.two_pass": manifest.mrtd.two_pass.hex(),
    }
    for name, (first, second) in manifest.boots.items():
        values |= {f"{name}.rtmr1": first.hex(), f"{name}.rtmr2": second.hex()}
    if as_json:
        _print_json(values)
        return
    for name, value in values.items():
        typer.echo(f"{name:<22} {value}")


@app.command("replay")
def replay_command(
    ccel: Annotated[Path, typer.Argument(help="The event log's data; - reads stdin.")],
    quote: Annotated[Path | None, typer.Option("--quote", help="A quote to compare with.")] = None,
    reference: Annotated[
        Path | None, typer.Option("--reference", help="An event log to compare with.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Replay a boot event log; exit 1 if it differs from a quote or a reference log."""
    log = parse_ccel(_read(ccel))
    rtmr = log.replay()
    found = [
        f"{event.describe()} does not carry the digest of its data" for event in log.misdescribed()
    ]
    if quote is not None:
        found += [one.text for one in explain(log, parse_quote(_read(quote)).report.rtmr)]
    if reference is not None:
        found += [one.text for one in compare_logs(log, parse_ccel(_read(reference)))]
    if as_json:
        fields = {"rtmr": [value.hex() for value in rtmr], "events": len(log.events)}
        _print_json(fields | {"differences": found})
    else:
        for index, value in enumerate(rtmr):
            typer.echo(f"rtmr{index}  {value.hex()}  {len(log.of(index))} events")
    for line in found:
        typer.echo(f"differs: {line}", err=True)
    if found:
        raise typer.Exit(1)


emulate = typer.Typer(
    help="Emulate TDX where there is none. Nothing here is ever accepted by tdx verify.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(emulate, name="emulate")

Folder = Annotated[
    Path, typer.Option("--out", help="Where root.der and collateral.json are written.")
]
QuoteVersion = Annotated[int, typer.Option("--quote-version", min=4, max=5, help="4 or 5.")]


@emulate.command("serve")
def emulate_serve(
    socket: Annotated[Path, typer.Option("--socket", help="The Unix socket to answer on.")],
    out: Folder,
    quote_version: QuoteVersion = 4,
) -> None:
    """Answer quote requests on a Unix socket until interrupted, with keys made for this run."""
    from tdx.emulator import Emulator, QuoteService

    emulator = Emulator(now=int(time.time()))
    _make_folder(out)
    try:
        service = QuoteService(emulator, socket, version=quote_version)
    except OSError as error:
        raise PolicyError(
            f"{socket} cannot be bound: {error.strerror}",
            hint="remove it where no other emulator answers on it, or name another",
        ) from error
    signal.signal(signal.SIGTERM, _interrupt)
    with service:
        # Not before: where another emulator has the socket, its files stay as they are.
        _write_authority(out, emulator.root_der, emulator.bundle())
        typer.echo(f"EMULATED, NOT INTEL: quoting on {socket}", err=True)
        with suppress(KeyboardInterrupt):
            service.serve_forever()


@emulate.command("quote")
def emulate_quote(
    out: Folder,
    report_data: Annotated[str, typer.Option("--report-data", help="64 bytes, hex.")] = "00" * 64,
    quote_version: QuoteVersion = 4,
) -> None:
    """Write one emulated quote (quote.bin) with the root and collateral it verifies by."""
    from tdx.emulator import Emulator

    data = _report_data(report_data) or b""
    if len(data) != 64:  # noqa: PLR2004 - the size of report data
        raise PolicyError(f"--report-data has 64 bytes, not {len(data)}")
    emulator = Emulator(now=int(time.time()))
    _write_authority(out, emulator.root_der, emulator.bundle())
    (out / "quote.bin").write_bytes(emulator.quote(data, version=quote_version))
    typer.echo(f"EMULATED, NOT INTEL: written to {out}", err=True)


@emulate.command("verify")
def emulate_verify(
    quote: QuoteFile,
    collateral: CollateralFile,
    root: Annotated[Path, typer.Option("--root", help="The emulator's root.der.")],
    at: At = None,
    policy: PolicyFile = None,
    report_data: ReportData = None,
    as_json: AsJson = False,
) -> None:
    """Verify an emulated quote under an emulator's root; a policy file must allow_emulated."""
    _judge(
        lambda: verify(
            _read(quote),
            Bundle.from_json(_read(collateral)),
            root=TrustRoot.emulated(_read(root)),
            now=_instant(at),
            policy=Policy(allow_emulated=True) if policy is None else _policy(policy),
            report_data=_report_data(report_data),
        ),
        as_json=as_json,
    )


def main() -> None:
    """Run the command; errors become one line and an exit code."""
    try:
        app()
    except TdxError as error:
        _fail(error)


def _print_expiries(bundle: Bundle, *, as_json: bool) -> None:
    lapses = dict(sorted(expiries(bundle).items(), key=lambda item: item[1]))
    if as_json:
        _print_json(dict(lapses))
        return
    for name, moment in lapses.items():
        typer.echo(f"{datetime.fromtimestamp(moment, UTC):%Y-%m-%dT%H:%M:%SZ}  {name}")


def _judge(act: Callable[[], Verdict], *, as_json: bool) -> None:
    try:
        verdict = act()
    except QuoteError as error:
        if as_json:
            _print_json(_rejected(error))
        typer.echo(f"rejected: {error}", err=True)
        raise typer.Exit(error.exit_code) from None
    if as_json:
        _print_json(_accepted(verdict))
        return
    kind = "EMULATED, NOT INTEL: " if verdict.assessment.emulated else ""
    typer.echo(f"accepted: {kind}{verdict.assessment.status}")
    typer.echo(f"advisories  {', '.join(verdict.assessment.advisories) or 'none'}")
    typer.echo(f"mrtd        {verdict.report.mrtd.hex()}")
    for index, value in enumerate(verdict.report.rtmr):
        typer.echo(f"rtmr{index}       {value.hex()}")
    typer.echo(f"expires     {datetime.fromtimestamp(verdict.expires_at, UTC):%Y-%m-%dT%H:%M:%SZ}")


def _accepted(verdict: Verdict) -> dict[str, object]:
    return {
        "verdict": "accepted",
        "status": str(verdict.assessment.status),
        "advisories": list(verdict.assessment.advisories),
        "mrtd": verdict.report.mrtd.hex(),
        "rtmr": [value.hex() for value in verdict.report.rtmr],
        "check": None,
    }


def _rejected(error: QuoteError) -> dict[str, object]:
    # No measurement of a rejected quote is repeated: a script that forgets to look at the verdict
    # must not find one.
    return {
        "verdict": "rejected",
        "status": None if error.status is None else str(error.status),
        "advisories": list(error.advisories),
        "mrtd": None,
        "rtmr": [],
        "check": str(error.check),
    }


def _describe(quote: Quote) -> dict[str, object]:
    report = quote.report
    fields: dict[str, object] = {
        "version": quote.header.version,
        "body": report.kind.name,
        "user_data": quote.header.user_data.hex(),
        "tee_tcb_svn": report.tee_tcb_svn.hex(),
        "mrseam": report.mrseam.hex(),
        "mrsignerseam": report.mrsignerseam.hex(),
        "seam_attributes": report.seam_attributes.hex(),
        "td_attributes": f"{report.td_attributes:#018x}",
        "xfam": f"{report.xfam:#018x}",
        "mrtd": report.mrtd.hex(),
        "mrconfigid": report.mrconfigid.hex(),
        "mrowner": report.mrowner.hex(),
        "mrownerconfig": report.mrownerconfig.hex(),
        "rtmr": [value.hex() for value in report.rtmr],
        "report_data": report.report_data.hex(),
        "qe_mrsigner": quote.qe_report.mrsigner.hex(),
        "qe_isvsvn": quote.qe_report.isvsvn,
        "certification_type": quote.certification_type,
        "padding_bytes": quote.padding_bytes,
        "identity": quote.identity.hex(),
    }
    if report.tee_tcb_svn2 is not None and report.mrservicetd is not None:
        fields["tee_tcb_svn2"] = report.tee_tcb_svn2.hex()
        fields["mrservicetd"] = report.mrservicetd.hex()
    return fields


def _make_folder(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise PolicyError(f"{out} cannot be written: {error.strerror}") from error


def _write_authority(out: Path, root_der: bytes, bundle: Bundle) -> None:
    _make_folder(out)
    try:
        (out / "root.der").write_bytes(root_der)
        (out / "collateral.json").write_text(bundle.to_json())
    except OSError as error:
        raise PolicyError(f"{out} cannot be written: {error.strerror}") from error


def _interrupt(_number: int, _frame: object) -> NoReturn:
    raise KeyboardInterrupt


def _read(path: Path) -> bytes:
    try:
        if str(path) == "-":
            return sys.stdin.buffer.read(_MAX_FILE_BYTES)
        with path.open("rb") as file:
            return file.read(_MAX_FILE_BYTES)
    except OSError as error:
        raise PolicyError(f"{path} cannot be read: {error.strerror}") from error


def _policy(path: Path | None) -> Policy:
    if path is None:
        return Policy()
    try:
        return load_policy(_read(path).decode())
    except UnicodeDecodeError as error:
        raise PolicyError(f"{path} is not UTF-8") from error


def _instant(text: str | None) -> int:
    if text is None:
        return int(time.time())
    if text.isascii() and text.isdigit():
        return int(text)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise PolicyError(f"--at {text} is no time", hint="2026-01-27T09:50:59Z") from None
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())


def _report_data(text: str | None) -> bytes | None:
    try:
        return None if text is None else bytes.fromhex(text)
    except ValueError:
        raise PolicyError("--report-data is not hexadecimal") from None


def _print_json(fields: dict[str, object]) -> None:
    typer.echo(json.dumps(fields))


def _fail(error: TdxError) -> NoReturn:
    hint = f" — {error.hint}" if error.hint else ""
    typer.echo(f"error: {error}{hint}", err=True)
    sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
