"""The HTTP gateway over real sockets: what it serves, what it refuses, what it says."""

from __future__ import annotations

import asyncio
import base64
import json
import re
from contextlib import AsyncExitStack, aclosing
from typing import TYPE_CHECKING, Self

import pytest
from starlette.requests import Request
from starlette.responses import StreamingResponse

import zipnet
from tests.harness.http_client import fetch, follow
from tests.interaction.gateway.conftest import options
from zipnet.errors import ConfigError, TransportError
from zipnet.gateway import Gateway
from zipnet.gateway.app import ALLOW_PUBLIC_BIND, ALLOW_PUBLISHING_FOR_OTHERS, GatewayOptions
from zipnet.gateway.history import History
from zipnet.gateway.page import CONTENT_SECURITY_POLICY
from zipnet.gateway.views import Round
from zipnet.settings import Endpoint

if TYPE_CHECKING:
    from tests.harness.fake_network import FakeNetwork

ANYWHERE = "0.0.0.0"  # noqa: S104 - nothing is bound to it
EVIL = "<script>alert(1)</script><img src=x onerror=alert(2)>\u202e$instance"


async def _until_ready(gateway: Gateway) -> None:
    async with asyncio.timeout(20):
        while (await fetch(gateway.url + "/readyz")).status != 200:  # noqa: ASYNC110 - it is asked
            await asyncio.sleep(0.05)


async def _until_newest(gateway: Gateway, sequence: int) -> None:
    async with asyncio.timeout(20):
        newest = -1
        while newest < sequence:
            newest = (await fetch(gateway.url + "/v1/status")).json["newest"]


class TestReading:
    async def test_broadcasts_come_as_json_by_range(
        self, gateway: Gateway, talker: zipnet.Publisher
    ) -> None:
        text = await talker.publish("öffentlich".encode())
        binary = await talker.publish(b"\xff\x00\xfe")
        await _until_newest(gateway, binary.sequence)
        page = (await fetch(f"{gateway.url}/v1/broadcasts?from=0&limit=256")).json
        found = {one["message_id"]: one for one in page["broadcasts"]}
        shown = found[text.message_id.hex()]
        assert shown["text"] == "öffentlich"
        assert base64.b64decode(shown["data"]) == "öffentlich".encode()
        assert (shown["round"], shown["sequence"]) == (text.round, text.sequence)
        assert shown["verified"] is True
        assert found[binary.message_id.hex()]["text"] is None
        only = (await fetch(f"{gateway.url}/v1/broadcasts?from={text.sequence}&limit=1")).json
        assert [one["message_id"] for one in only["broadcasts"]] == [text.message_id.hex()]
        assert only["next"] == text.sequence + 1
        beyond = (await fetch(f"{gateway.url}/v1/broadcasts?from=1000000")).json
        assert beyond["broadcasts"] == []
        assert beyond["next"] == 1000000
        last = (await fetch(f"{gateway.url}/v1/rounds?from=-1")).json
        assert len(last["rounds"]) >= 1
        assert last["rounds"][-1]["sequence"] == last["next"] - 1

    async def test_live_events_come_in_order_and_resume_where_they_broke_off(
        self, gateway: Gateway, talker: zipnet.Publisher
    ) -> None:
        await _until_ready(gateway)
        async with aclosing(follow(gateway.url + "/v1/rounds?from=0")) as events:
            first = [await anext(events) for _ in range(5)]
        assert [int(event["id"]) for event in first] == [0, 1, 2, 3, 4]
        assert {event["event"] for event in first} == {"round"}
        receipt = await talker.publish(b"heard live")
        resumed = follow(gateway.url + "/v1/broadcasts", headers={"Last-Event-ID": "2"})
        seen: list[dict[str, str]] = []
        async with aclosing(resumed) as events:
            while not seen or seen[-1]["event"] != "broadcast":
                seen.append(await anext(events))
        assert json.loads(seen[-1]["data"])["message_id"] == receipt.message_id.hex()
        assert int(seen[0].get("id", 3)) == 3

    @pytest.mark.requirement("A6")
    async def test_what_fell_out_of_memory_is_fetched_and_verified_again(
        self, network: FakeNetwork, talker: zipnet.Publisher
    ) -> None:
        receipt = await talker.publish(b"long ago " * 40)
        async with Gateway(network.committee.descriptor, options()) as gateway:
            small = History(gateway._reader, keep=2)
            gateway._history, kept = small, gateway._history
            following = asyncio.create_task(small.follow())
            try:
                await _until_newest(gateway, receipt.sequence + 3)
                page = (
                    await fetch(f"{gateway.url}/v1/rounds?from={receipt.sequence}&limit=1")
                ).json
                (made,) = page["rounds"]
                assert made["broadcasts"][0]["text"] == "long ago " * 40
                network.committee.records[0] = b"junk"
                small._rounds.clear()
                small._rounds.extend(kept.latest(1))
                refused = await fetch(f"{gateway.url}/v1/rounds?from=0&limit=1")
                assert refused.status == 502
                assert refused.json["error"] in {"remote_protocol", "verification"}
                assert (await fetch(gateway.url + "/v1/status")).json["integrity_failures"] >= 1
            finally:
                following.cancel()
                await asyncio.wait({following})

    @pytest.mark.requirement("A4")
    async def test_servers_that_do_not_answer_are_left_alone_for_a_while_and_callers_told_so(
        self, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked = 0
        failing = True

        async def page(_start: int, _limit: int) -> list[Round]:
            nonlocal asked
            asked += 1
            if failing:
                raise TransportError("nobody answers")
            return []

        monkeypatch.setattr(gateway._history, "page", page)
        monkeypatch.setattr(gateway._history, "holds", lambda _start: False)
        url = f"{gateway.url}/v1/rounds?from=0&limit=1"
        answers = [await fetch(url) for _ in range(7)]
        assert {answer.status for answer in answers} == {503}
        told = [answer.json["error"] for answer in answers]
        assert told[:5] == ["transport"] * 5
        assert told[5:] == ["breaker_open"] * 2
        assert answers[6].headers["retry-after"] == "1"
        assert answers[6].headers["cache-control"] == "no-store"
        assert asked == 5
        failing = False
        async with asyncio.timeout(20):
            while (await fetch(url)).status != 200:  # noqa: ASYNC110 - asking is the point
                await asyncio.sleep(0.05)
        assert (await fetch(url)).status == 200

    @pytest.mark.parametrize(
        "query", ["from=x", "limit=0", "limit=257", "from=99999999999999999999", "limit=1e3"]
    )
    async def test_a_malformed_range_is_named(self, gateway: Gateway, query: str) -> None:
        answer = await fetch(f"{gateway.url}/v1/broadcasts?{query}")
        assert answer.status == 400
        assert answer.json["error"] == "bad_request"

    async def test_the_openapi_document_describes_what_is_served(
        self, gateway: Gateway, talker: zipnet.Publisher
    ) -> None:
        await _until_ready(gateway)
        document = (await fetch(gateway.url + "/openapi.json")).json
        assert document["openapi"].startswith("3.1")
        schemas = document["components"]["schemas"]
        assert "/v1/publish" not in document["paths"], "this one only reads"
        for path, name in (
            ("/v1/broadcasts", "BroadcastPage"),
            ("/v1/rounds", "RoundPage"),
            ("/v1/status", "Status"),
        ):
            schema = document["paths"][path]["get"]["responses"]["200"]["content"]
            assert schema["application/json"]["schema"]["$ref"].endswith("/" + name)
            answer = (await fetch(gateway.url + path)).json
            assert set(answer) == set(schemas[name]["properties"])
        references = set(re.findall(r'"#/components/schemas/(\w+)"', json.dumps(document)))
        assert references <= set(schemas)


class TestThePage:
    async def test_the_log_is_there_without_scripts_and_strangers_words_are_text(
        self, gateway: Gateway, talker: zipnet.Publisher
    ) -> None:
        receipt = await talker.publish(EVIL.encode())
        await _until_newest(gateway, receipt.sequence)
        answer = await fetch(gateway.url + "/")
        page = answer.body.decode()
        assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
        assert "<img" not in page
        assert "$instance" in page, "what is filled in is not filled in again"
        assert f'<th scope="row">{receipt.round}</th>' in page
        assert answer.headers["content-security-policy"] == CONTENT_SECURITY_POLICY
        assert "unsafe" not in CONTENT_SECURITY_POLICY
        assert 'http-equiv="refresh"' in page

    async def test_nothing_is_asked_of_any_other_place(self, gateway: Gateway) -> None:
        page = (await fetch(gateway.url + "/")).body.decode()
        assert not re.findall(r'(?:src|href|action)="(?!/|#)', page)
        addresses = set(re.findall(r"https?://[^\s\"'<]+", page)) - {"http://www.w3.org/2000/svg"}
        assert addresses == set()


class TestRefusals:
    def test_a_public_bind_needs_the_sentence(self, network: FakeNetwork) -> None:
        descriptor = network.committee.descriptor
        for host in (ANYWHERE, "::", "192.0.2.7", "example.org"):
            for sentence in (None, "yes", ALLOW_PUBLIC_BIND.lower()):
                with pytest.raises(ConfigError, match="where others can reach it") as refused:
                    Gateway(descriptor, GatewayOptions(listen=Endpoint(host, 0), public=sentence))
                assert ALLOW_PUBLIC_BIND in (refused.value.hint or "")
        Gateway(descriptor, GatewayOptions(listen=Endpoint(ANYWHERE, 0), public=ALLOW_PUBLIC_BIND))
        with pytest.raises(ConfigError, match="in so many words"):
            Gateway(descriptor, GatewayOptions(publish_for_others="yes"))

    async def test_a_name_that_is_not_the_gateways_gets_nothing(self, gateway: Gateway) -> None:
        for host in ("evil.example", "evil.example:80", "127.0.0.1.evil.example"):
            answer = await fetch(gateway.url + "/v1/status", headers={"Host": host})
            assert answer.status == 421
        for host in ("localhost", "localhost:1234", "127.0.0.1", "[::1]:99"):
            answer = await fetch(gateway.url + "/v1/status", headers={"Host": host})
            assert answer.status == 200

    async def test_no_answer_lets_another_sites_script_read_it(self, gateway: Gateway) -> None:
        for path in ("/", "/v1/status", "/v1/broadcasts", "/openapi.json"):
            headers = (await fetch(gateway.url + path)).headers
            assert "access-control-allow-origin" not in headers
            assert headers["x-content-type-options"] == "nosniff"
            assert headers["cache-control"] == "no-store"

    async def test_a_reading_gateway_does_not_publish(self, gateway: Gateway) -> None:
        assert (await fetch(gateway.url + "/v1/publish", body={"text": "x"})).status == 404


class TestPublishing:
    async def test_a_message_is_published_with_a_receipt_and_a_plain_warning(
        self, network: FakeNetwork, talker: zipnet.Publisher
    ) -> None:
        descriptor = network.committee.descriptor
        async with Gateway(descriptor, options(publishing=True)) as gateway:
            asked = {"text": "by the gateway", "salt": "00112233445566ff"}
            answer = await fetch(gateway.url + "/v1/publish", body=asked)
            assert answer.status == 200, answer.body
            receipt = answer.json
            assert "knows that you asked" in receipt["notice"]
            proof = [base64.b64decode(record) for record in receipt["proof"]]
            message = zipnet.verify_proof(proof, bytes.fromhex(receipt["message_id"]), descriptor)
            assert message == b"by the gateway"
            again = (await fetch(gateway.url + "/v1/publish", body=asked)).json
            assert again["round"] == receipt["round"], "the same salt is the same message"
            binary = await fetch(
                gateway.url + "/v1/publish", body={"data": base64.b64encode(b"\xff").decode()}
            )
            assert binary.status == 200
            late = await fetch(
                gateway.url + "/v1/publish", body={"text": "no time", "timeout_s": 0.001}
            )
            assert late.status == 503
            assert late.json["error"] == "not_sent"
            assert late.json["hint"]
            assert len(late.json["salt"]) == 16
            assert "retry-after" in late.headers

    @pytest.mark.parametrize(
        ("body", "headers", "status"),
        [
            ({}, {}, 422),
            ({"text": "a", "data": "YQ=="}, {}, 422),
            ({"text": "a", "unknown": 1}, {}, 422),
            ({"data": "not base64!"}, {}, 422),
            ({"text": "a", "salt": "XX"}, {}, 422),
            ({"text": "a", "timeout_s": 0}, {}, 422),
            (b"not json", {}, 422),
            ({"text": ""}, {}, 413),
            ({"text": "a"}, {"Content-Type": "text/plain"}, 415),
            ({"text": "a"}, {"Content-Type": "application/x-www-form-urlencoded"}, 415),
            ({"text": "a"}, {"Origin": "https://evil.example"}, 403),
            ({"text": "a"}, {"Origin": "null"}, 403),
            (b" " * (3 * 1024 * 1024 + 1), {}, 413),
        ],
    )
    async def test_what_cannot_be_published_is_refused_by_name(
        self, network: FakeNetwork, body: object, headers: dict[str, str], status: int
    ) -> None:
        async with Gateway(network.committee.descriptor, options(publishing=True)) as gateway:
            answer = await fetch(gateway.url + "/v1/publish", body=body, headers=headers)
            assert answer.status == status, answer.body
            assert answer.json["text"]

    async def test_another_machine_may_not_publish_unless_told_so(
        self, network: FakeNetwork, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """There is one machine here, so the address the server sees is what is changed."""
        from zipnet.gateway import publishing

        monkeypatch.setattr(publishing, "_is_loopback", lambda _request: False)
        for_others = options(publishing=True, publish_for_others=ALLOW_PUBLISHING_FOR_OTHERS)
        for chosen, status in ((options(publishing=True), 403), (for_others, 503)):
            async with Gateway(network.committee.descriptor, chosen) as gateway:
                asked = {"text": "from afar", "timeout_s": 0.05}
                answer = await fetch(gateway.url + "/v1/publish", body=asked)
                assert answer.status == status


@pytest.mark.requirement("H4")
async def test_one_network_cannot_take_all_places_of_those_who_follow(
    network: FakeNetwork,
) -> None:
    """Callers of a gateway on loopback are its machine's; these come from two other networks."""

    def caller(host: str) -> Request:
        where = {"type": "http", "client": (host, 4242), "headers": [], "query_string": b""}
        return Request(where)

    async with (
        Gateway(network.committee.descriptor, options()) as gateway,
        AsyncExitStack() as stack,
    ):

        async def place(host: str) -> int:
            answer = gateway._events(caller(host), lambda _made: b"")
            if isinstance(answer, StreamingResponse):
                stream = answer.body_iterator
                begun = asyncio.ensure_future(anext(stream))  # type: ignore[call-overload]

                async def leave() -> None:
                    begun.cancel()
                    await asyncio.gather(begun, return_exceptions=True)

                stack.push_async_callback(leave)
                await asyncio.sleep(0)
            return answer.status_code

        crowd = [await place(f"198.51.100.{number}") for number in range(1, 40)]
        assert crowd == [200] * 32 + [429] * 7
        assert await place("203.0.113.9") == 200
        assert [await place("127.0.0.1") for _ in range(40)] == [200] * 40, (
            "a proxy's are anybody's"
        )
        await stack.aclose()
        assert not gateway._followers, "who left is forgotten"
        assert await place("198.51.100.1") == 200


class TestStopping:
    async def test_whoever_waits_is_answered_when_the_gateway_stops(
        self,
        network: FakeNetwork,
        caplog: pytest.LogCaptureFixture,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """No rounds run here, so nothing that is asked for ever comes."""
        from zipnet.gateway import publishing

        read_body = publishing._body
        asked = asyncio.Event()

        async def body(request: Request) -> bytes | None:
            found = await read_body(request)
            asked.set()  # nothing awaits between here and the publisher's queue
            return found

        monkeypatch.setattr(publishing, "_body", body)
        async with Gateway(network.committee.descriptor, options(publishing=True)) as gateway:
            sent = asyncio.create_task(fetch(gateway.url + "/v1/publish", body={"text": "late"}))
            heard = asyncio.create_task(_all_events(gateway.url + "/v1/rounds"))
            async with asyncio.timeout(20):
                await asked.wait()
                while not gateway._followers:  # noqa: ASYNC110 - nobody announces it
                    await asyncio.sleep(0.01)
        answer = await sent
        assert answer.status == 503, answer.body
        assert answer.json["error"] == "not_sent"
        assert len(answer.json["salt"]) == 16, "so it can be asked for again"
        assert await heard == []
        assert "Exception" not in caplog.text

    async def test_a_page_that_waits_for_a_server_ends_when_the_history_is_closed(self) -> None:
        entered = asyncio.Event()

        class Silent:
            async def __aenter__(self) -> Self:
                entered.set()
                await asyncio.Event().wait()
                return self

            async def __aexit__(self, *_: object) -> None:
                pass

        history = History(lambda _start, _follow: Silent())  # type: ignore[arg-type, return-value]
        history._rounds.append(_round(7))
        waiting = asyncio.create_task(history.page(0, 1))
        async with asyncio.timeout(15):  # shorter than what a page may take
            await entered.wait()
            await history.close()
            with pytest.raises(TimeoutError):
                await waiting
            with pytest.raises(TimeoutError):
                await history.page(0, 1)


async def _all_events(url: str) -> list[dict[str, str]]:
    return [event async for event in follow(url)]


def _round(sequence: int) -> Round:
    return Round(
        sequence=sequence,
        round=sequence,
        opened_at_ms=0,
        participants=3,
        roster=[0, 1, 2],
        valid=0,
        void=0,
        slots=4,
        skipped=0,
        record_hash="00",
        broadcasts=[],
    )
