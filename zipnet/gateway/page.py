"""The observatory: one page that shows the rounds as they become final.

Rules:

1. Everything is in the page: no font, script, image or style comes from anywhere else, and the
   content security policy lets none in.
2. The log is there without JavaScript and renews itself; the script only saves the waiting.
3. Strangers' words are text and nothing else, on the server and in the script alike.
4. Whatever a colour says is said in words or numbers too.
"""

from __future__ import annotations

import base64
import hashlib
from datetime import UTC, datetime
from html import escape
from string import Template
from typing import TYPE_CHECKING, Final

from zipnet.gateway.page_assets import PAGE, SCRIPT, STYLE

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from zipnet.gateway.views import Broadcast, Round, Status

__all__ = ["CONTENT_SECURITY_POLICY", "render_page"]

_BARS = 40
_CHART_WIDTH = 640
_CHART_HEIGHT = 120
_MAX_SHOWN_TEXT = 2000


def _hash(text: str) -> str:
    return "'sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() + "'"


CONTENT_SECURITY_POLICY: Final = (
    f"default-src 'none'; style-src {_hash(STYLE)}; script-src {_hash(SCRIPT)}; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def render_page(status: Status, rounds: Sequence[Round], talk: Sequence[Round]) -> str:
    """Return the page as it stands now.

    Args:
        status: The instance and the gateway.
        rounds: The newest rounds, oldest first.
        talk: The rounds whose messages are shown, oldest first.
    """
    newest = rounds[-1] if rounds else None
    return Template(PAGE).substitute(
        style=STYLE,
        script=SCRIPT,
        instance=escape(status.instance),
        state="following the committee" if status.following else "waiting for the committee",
        next=status.newest + 1,
        minimum=status.min_participants,
        round=_shown(None if newest is None else newest.round),
        participants=_shown(None if newest is None else newest.participants),
        messages=sum(len(made.broadcasts) for made in talk),
        voids=sum(made.void for made in rounds),
        latency=_latency(newest),
        crowd=_chart(rounds, lambda made: made.participants),
        slots=_chart(rounds, lambda made: made.valid + made.void),
        times=_chart(rounds, lambda made: made.latency_ms or 0),
        attestation=escape(_attestation(status.attestation)),
        committee="".join(_member(status, index) for index in range(len(status.committee))),
        log="".join(_message(b, made) for made in reversed(talk) for b in made.broadcasts),
        rows="".join(_row(made) for made in reversed(rounds)),
        publishing=_publishing(allowed=status.publishing),
    )


def _shown(number: int | None) -> str:
    return "none yet" if number is None else str(number)


def _latency(made: Round | None) -> str:
    if made is None or made.latency_ms is None:
        return "not seen live"
    return f"{made.latency_ms / 1000:.1f} s"


def _attestation(mode: str) -> str:
    if mode == "off":
        return "off: nothing vouches for the software of these servers"
    return f"{mode}: every server showed evidence for its software when it joined"


def _publishing(*, allowed: bool) -> str:
    if not allowed:
        return "This gateway does not publish."
    return "This gateway publishes for its own machine, and knows what it publishes."


def _member(status: Status, index: int) -> str:
    member = status.committee[index]
    share = f"{member.recent_rounds} of {member.of_rounds}"
    head = f'<th scope="row">{escape(member.name)}</th>'
    return f"<tr>{head}<td>{member.index}</td><td>{share}</td></tr>"


def _clock(made: Round) -> str:
    at = datetime.fromtimestamp(made.opened_at_ms / 1000, UTC)
    return f'<time datetime="{at:%Y-%m-%dT%H:%M:%SZ}">{at:%H:%M:%S}</time>'


def _message(broadcast: Broadcast, made: Round) -> str:
    if broadcast.text is None:
        size = len(base64.b64decode(broadcast.data))
        text = f"{size} bytes that are no text"
    else:
        text = broadcast.text[:_MAX_SHOWN_TEXT]
    where = f"round {broadcast.round}, one of {made.participants}"
    return f'<li><span class="where">{where}</span> <q>{escape(text)}</q></li>'


def _row(made: Round) -> str:
    cells = (made.participants, made.valid, made.void, made.skipped, _latency(made))
    return (
        f'<tr><th scope="row">{made.round}</th><td>{_clock(made)}</td>'
        + "".join(f"<td>{cell}</td>" for cell in cells)
        + "</tr>"
    )


def _chart(rounds: Sequence[Round], value: Callable[[Round], int]) -> str:
    """Bars for the newest rounds; the script draws the same ones."""
    shown = list(rounds)[-_BARS:]
    top = max([value(made) for made in shown] + [1])
    width = _CHART_WIDTH / _BARS
    bars: list[str] = []
    for at, made in enumerate(shown):
        height = value(made) / top * _CHART_HEIGHT
        place = f'x="{at * width:.1f}" y="{_CHART_HEIGHT - height:.1f}"'
        bars.append(f'<rect {place} width="{width - 2:.1f}" height="{height:.1f}"/>')
    return "".join(bars)
