"""The observatory's markup, style and script, as text. ``page`` fills them in."""

from __future__ import annotations

from typing import Final

__all__ = ["PAGE", "SCRIPT", "STYLE"]

STYLE: Final = """
:root { --ink: #1b1f24; --paper: #ffffff; --soft: #f2f4f7; --line: #c5ccd4; --quiet: #4d5763;
  --bar: #22577a; --link: #0b4f8a; color-scheme: light dark; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e8ebef; --paper: #14181d; --soft: #1d232a; --line: #3c4753; --quiet: #a9b3be;
    --bar: #6fb3d6; --link: #8ec5f0; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 72rem; padding: 1.5rem; color: var(--ink);
  background: var(--paper); font: 1rem/1.5 system-ui, sans-serif; }
a { color: var(--link); }
a:focus-visible { outline: 3px solid var(--bar); outline-offset: 2px; }
.skip { position: absolute; left: -999rem; }
.skip:focus { left: 1rem; top: 1rem; background: var(--paper); padding: .5rem; }
header { border-bottom: 1px solid var(--line); margin-bottom: 1.5rem; }
h1 { font-size: 1.6rem; margin: 0; }
h2 { font-size: 1.1rem; margin: 2rem 0 .6rem; }
header p { margin: .2rem 0 1rem; color: var(--quiet); }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(9rem, 1fr)); gap: .8rem;
  margin: 0; }
.tiles div { background: var(--soft); border: 1px solid var(--line); border-radius: .4rem;
  padding: .7rem .9rem; }
.tiles dt { color: var(--quiet); font-size: .85rem; }
.tiles dd { margin: 0; font-size: 1.5rem; font-variant-numeric: tabular-nums; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(18rem, 1fr)); gap: 1.2rem; }
figure { margin: 0; }
figcaption { color: var(--quiet); font-size: .85rem; }
svg { width: 100%; height: 7rem; background: var(--soft); border: 1px solid var(--line);
  border-radius: .4rem; }
rect { fill: var(--bar); }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
caption { text-align: left; color: var(--quiet); font-size: .85rem; padding-bottom: .3rem; }
th, td { text-align: left; padding: .35rem .7rem .35rem 0; border-bottom: 1px solid var(--line);
  font-weight: 400; white-space: nowrap; }
thead th { color: var(--quiet); font-size: .85rem; }
ol { list-style: none; margin: 0; padding: 0; }
li { padding: .45rem 0; border-bottom: 1px solid var(--line); overflow-wrap: anywhere; }
q { quotes: none; white-space: pre-wrap; }
.where { color: var(--quiet); font-size: .85rem; display: inline-block; min-width: 13rem; }
footer { margin-top: 2.5rem; color: var(--quiet); font-size: .9rem; }
"""

SCRIPT: Final = """
"use strict";
(() => {
  const BARS = 40, KEPT = 40, WIDTH = 640, HEIGHT = 120;
  const at = (id) => document.getElementById(id);
  const make = (name, text) => {
    const node = document.createElement(name);
    if (text !== undefined) node.textContent = String(text);
    return node;
  };
  const seconds = (ms) => ms === null ? "not seen live" : (ms / 1000).toFixed(1) + " s";
  let rounds = [], messages = Number(at("messages").textContent);
  let voids = Number(at("voids").textContent);

  const chart = (id, value) => {
    const svg = at(id), shown = rounds.slice(-BARS), width = WIDTH / BARS;
    const top = Math.max(1, ...shown.map(value));
    svg.querySelectorAll("rect").forEach((old) => old.remove());
    shown.forEach((made, place) => {
      const bar = document.createElementNS("http://www.w3.org/2000/svg", "rect");
      const height = value(made) / top * HEIGHT;
      bar.setAttribute("x", (place * width).toFixed(1));
      bar.setAttribute("y", (HEIGHT - height).toFixed(1));
      bar.setAttribute("width", (width - 2).toFixed(1));
      bar.setAttribute("height", height.toFixed(1));
      svg.append(bar);
    });
  };
  const charts = () => {
    chart("crowd", (made) => made.participants);
    chart("slots", (made) => made.valid + made.void);
    chart("times", (made) => made.latency_ms || 0);
  };
  const row = (made) => {
    const line = make("tr"), head = make("th", made.round), when = make("td");
    const opened = new Date(made.opened_at_ms), time = make("time");
    head.scope = "row";
    time.dateTime = opened.toISOString();
    time.textContent = opened.toISOString().slice(11, 19);
    when.append(time);
    line.append(head, when);
    for (const cell of [made.participants, made.valid, made.void, made.skipped,
                        seconds(made.latency_ms)]) line.append(make("td", cell));
    at("rows").prepend(line);
    while (at("rows").children.length > KEPT) at("rows").lastElementChild.remove();
  };
  const message = (one, made) => {
    const item = make("li");
    const where = make("span", `round ${one.round}, one of ${made.participants}`);
    const text = one.text === null ? `${atob(one.data).length} bytes that are no text` : one.text;
    where.className = "where";
    item.append(where, " ", make("q", text.slice(0, 2000)));
    at("list").prepend(item);
    while (at("list").children.length > 5 * KEPT) at("list").lastElementChild.remove();
  };
  const show = (made) => {
    rounds.push(made);
    rounds = rounds.slice(-BARS);
    at("round").textContent = made.round;
    at("participants").textContent = made.participants;
    at("latency").textContent = seconds(made.latency_ms);
    at("messages").textContent = (messages += made.broadcasts.length);
    at("voids").textContent = (voids += made.void);
    row(made);
    made.broadcasts.forEach((one) => message(one, made));
    charts();
  };
  const state = (text) => { if (at("state").textContent !== text) at("state").textContent = text; };
  const follow = (next) => {
    const source = new EventSource(`/v1/rounds?from=${next}`);
    source.addEventListener("open", () => state("live"));
    source.addEventListener("round", (event) => { state("live"); show(JSON.parse(event.data)); });
    source.addEventListener("error", () => state("connection lost, trying again"));
  };
  const next = Number(document.body.dataset.next);
  const from = Math.max(0, next - BARS);
  fetch(`/v1/rounds?from=${from}&limit=${BARS}`)
    .then((answer) => answer.json())
    .then((page) => {
      rounds = page.rounds.filter((made) => made.sequence < next);
      charts();
    })
    .catch(() => undefined)
    .finally(() => follow(next));
})();
"""

PAGE: Final = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$instance · observatory</title>
<style>$style</style>
<noscript><meta http-equiv="refresh" content="15"></noscript>
</head>
<body data-next="$next">
<a class="skip" href="#log">Skip to the messages</a>
<header>
<h1>$instance</h1>
<p>Anonymous broadcast, every record verified by this gateway. State: <span id="state"
role="status">$state</span></p>
</header>
<main>
<section aria-labelledby="now">
<h2 id="now">Now</h2>
<dl class="tiles">
<div><dt>Newest round</dt><dd id="round">$round</dd></div>
<div><dt>Participants in it</dt><dd id="participants">$participants</dd></div>
<div><dt>Opening to record</dt><dd id="latency">$latency</dd></div>
<div><dt>Messages shown</dt><dd id="messages">$messages</dd></div>
<div><dt>Void slots shown</dt><dd id="voids">$voids</dd></div>
</dl>
<p>Each author is hidden among the participants of the round. This group unblinds nothing for fewer
than $minimum.</p>
</section>
<section aria-labelledby="charts">
<h2 id="charts">The last rounds</h2>
<div class="charts">
<figure><svg id="crowd" viewBox="0 0 640 120" preserveAspectRatio="none" role="img"
aria-label="Participants of each of the last rounds; the numbers are in the table of rounds"
>$crowd</svg><figcaption>Participants</figcaption></figure>
<figure><svg id="slots" viewBox="0 0 640 120" preserveAspectRatio="none" role="img"
aria-label="Slots in use in each of the last rounds; the numbers are in the table of rounds"
>$slots</svg><figcaption>Slots in use, void ones included</figcaption></figure>
<figure><svg id="times" viewBox="0 0 640 120" preserveAspectRatio="none" role="img"
aria-label="Time from opening to record of the last rounds; the numbers are in the table of rounds"
>$times</svg><figcaption>Opening to record</figcaption></figure>
</div>
</section>
<section aria-labelledby="log">
<h2 id="log">Messages</h2>
<ol id="list">$log</ol>
</section>
<section aria-labelledby="committee">
<h2 id="committee">Committee</h2>
<p>Attestation is $attestation.</p>
<div class="scroll" tabindex="0" role="region" aria-label="Table of the committee">
<table>
<caption>Servers, and how many of the last rounds each was part of</caption>
<thead><tr><th scope="col">Server</th><th scope="col">Index</th><th scope="col">Rounds</th></tr>
</thead>
<tbody>$committee</tbody>
</table>
</div>
</section>
<section aria-labelledby="rounds">
<h2 id="rounds">Rounds</h2>
<div class="scroll" tabindex="0" role="region" aria-label="Table of rounds">
<table>
<caption>Newest first; times are UTC by the opener's clock</caption>
<thead><tr><th scope="col">Round</th><th scope="col">Opened</th><th scope="col">Participants</th>
<th scope="col">Messages' slots</th><th scope="col">Void</th><th scope="col">Given up before</th>
<th scope="col">Opening to record</th></tr></thead>
<tbody id="rows">$rows</tbody>
</table>
</div>
</section>
</main>
<footer>
<p>$publishing The same as data: <a href="/v1/rounds?from=-10">rounds</a>,
<a href="/v1/broadcasts?from=-10">broadcasts</a>, <a href="/openapi.json">description</a>.</p>
<noscript><p>Without scripts this page renews itself every 15 seconds.</p></noscript>
</footer>
<script>$script</script>
</body>
</html>
"""
