"use strict";
// Draws the charts of the status page, and keeps its numbers and tables up to date. Text is set as text, never as
// markup; tables come from the server, which has escaped them.

const NUMBERS = 5000;
const TABLES = 15000;
const SPAN = 15 * 60;
const NAMES = ["t-issuers", "t-identities", "t-key-counts", "t-keys", "t-tenants", "t-errors"];

const count = (value) => (value >= 100 ? value.toFixed(0) : value.toFixed(value >= 10 ? 1 : 2).replace(/\.?0+$/, ""));
const time = (millis) => (millis >= 1000 ? `${count(millis / 1000)} s` : `${count(millis)} ms`);
const bytes = (value) => {
  for (const unit of ["B", "KiB", "MiB", "GiB"]) {
    if (value < 1024) return `${count(value)} ${unit}`;
    value /= 1024;
  }
  return `${count(value)} TiB`;
};

const CHARTS = {
  "c-requests": { show: count, base: 10, lines: ["requests", "client_errors", "server_errors"] },
  "c-latency": { show: time, base: 10, lines: ["p50", "p99", "upstream_p50"] },
  "c-bytes": { show: bytes, base: 1024, lines: ["received", "sent"] },
};

function element(name, attributes, text) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

// The next larger round number: 1, 2 or 5 with zeros, of a unit where there are units.
function ceiling(value, base) {
  if (!(value > 0)) return 1;
  const power = base ** Math.floor(Math.log(value) / Math.log(base));
  const steps = [1, 2, 4, 5, 8, 10, 20, 40, 50, 80, 100, 200, 400, 500, 800, 1024];
  return (steps.find((step) => step * power >= value) ?? 2048) * power;
}

function draw(id, { show, base, lines }, samples, now) {
  const svg = document.getElementById(id);
  const [width, height, left, top, bottom] = [svg.clientWidth || 360, 170, 58, 8, 20];
  const values = samples.flatMap((sample) => lines.map((line) => sample[line] ?? 0));
  const most = ceiling(Math.max(0, ...values), base);
  const x = (at) => left + ((at - now + SPAN) / SPAN) * (width - left - 6);
  const y = (value) => top + (1 - value / most) * (height - top - bottom);
  const parts = [];
  for (const step of [0, 0.5, 1]) {
    const at = y(most * step);
    parts.push(element("line", { class: "grid", x1: left, x2: width - 6, y1: at, y2: at }));
    parts.push(element("text", { x: left - 8, y: at + 4, "text-anchor": "end" }, show(most * step)));
  }
  for (const minutes of width < 300 ? [15, 0] : [15, 10, 5, 0]) {
    const anchor = minutes === 0 ? "end" : minutes === 15 ? "start" : "middle";
    const text = minutes === 0 ? "now" : `−${minutes} min`;
    parts.push(element("text", { x: x(now - minutes * 60), y: height - 5, "text-anchor": anchor }, text));
  }
  lines.forEach((line, colour) => {
    let path = "";
    let before;
    samples.forEach((sample, index) => {
      const value = sample[line];
      if (value === null || value === undefined) return;
      const at = [x(sample.time), y(value)];
      const after = samples[index + 1]?.[line];
      const joins = before === index - 1;
      path += `${joins ? "L" : "M"}${at[0].toFixed(1)} ${at[1].toFixed(1)}`;
      if (!joins && (after === null || after === undefined)) parts.push(element("circle", { class: `c${colour}`, cx: at[0], cy: at[1], r: 1.6 }));
      before = index;
    });
    parts.push(element("path", { class: `c${colour}`, d: path }));
  });
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  svg.replaceChildren(...parts);
}

let last;

function show() {
  if (!last) return;
  const samples = last.samples.filter((sample) => sample.time > last.time - SPAN);
  for (const [id, chart] of Object.entries(CHARTS)) draw(id, chart, samples, last.time);
  const newest = last.samples.at(-1);
  const set = (id, text) => {
    document.getElementById(`n-${id}`).textContent = text;
  };
  set("in_flight", last.requests_in_flight);
  set("connections", last.connections);
  set("upstream", last.upstream_connections);
  set("keys_live", last.keys.live + last.keys.permanent);
  if (!newest) return;
  set("requests", count(newest.requests));
  set("server_errors", count(newest.server_errors));
  document.getElementById("n-server_errors").classList.toggle("bad", newest.server_errors > 0);
  set("p50", newest.p50 === null ? "–" : time(newest.p50));
  set("p99", newest.p99 === null ? "–" : time(newest.p99));
  set("received", `${bytes(newest.received)}/s`);
  set("sent", `${bytes(newest.sent)}/s`);
}

async function numbers() {
  const live = document.getElementById("live");
  try {
    const response = await fetch("/status.json", { cache: "no-store" });
    if (!response.ok) throw new Error(response.status);
    last = await response.json();
    show();
    live.textContent = `live, ${new Date(last.time * 1000).toLocaleTimeString()}`;
    live.classList.remove("bad");
  } catch {
    live.textContent = "cosgate does not respond";
    live.classList.add("bad");
  }
}

async function tables() {
  try {
    const response = await fetch(location.pathname + location.search, { cache: "no-store" });
    if (!response.ok) return;
    const page = new DOMParser().parseFromString(await response.text(), "text/html");
    for (const name of [...NAMES, "state"]) {
      const [old, next] = [document.getElementById(name), page.getElementById(name)];
      if (old && next) old.replaceWith(next);
    }
  } catch {
    // The numbers say that cosgate does not respond.
  }
}

function every(pause, look) {
  setInterval(() => {
    if (!document.hidden) look();
  }, pause);
}

numbers();
every(NUMBERS, numbers);
every(TABLES, tables);
addEventListener("resize", show);
document.addEventListener("visibilitychange", () => {
  if (document.hidden) return;
  numbers();
  tables();
});
