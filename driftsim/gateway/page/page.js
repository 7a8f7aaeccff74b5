// The page of a gateway. Everything that is shown is set as text, never as markup; nothing is fetched from elsewhere.
"use strict";

const SVG = "http://www.w3.org/2000/svg";
const byId = (id) => document.getElementById(id);

function element(name, text, className) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
}

function drawn(name, attributes, text) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

const known = (value) => typeof value === "number" && Number.isFinite(value);
const fixed = (value, digits) => (known(value) ? value.toFixed(digits) : "–");
const seconds = (value) => (known(value) ? (value < 1 ? `${(1000 * value).toFixed(0)} ms` : `${value.toFixed(1)} s`) : "–");
const percent = (value) => (known(value) ? `${(100 * value).toFixed(0)} %` : "–");
const signed = (value) => (known(value) ? `${value > 0 ? "+" : ""}${(100 * value).toFixed(0)}` : "?");
const change = (value, low, high) =>
  known(value) ? signed(value) + (known(low) && known(high) ? ` [${signed(low)}, ${signed(high)}]` : "") : "–";
const ago = (value) => (value < 90 ? `${value.toFixed(0)} s ago` : `${(value / 60).toFixed(0)} min ago`);

// headings: [text, isText]; rows of [text, className] or text.
function table(place, headings, rows, caption) {
  const made = element("table");
  if (caption) made.append(element("caption", caption, "note"));
  const head = element("tr");
  for (const [text, isText] of headings) {
    const cell = element("th", text, isText ? "text" : "");
    cell.scope = "col";
    head.append(cell);
  }
  const top = element("thead");
  top.append(head);
  const body = element("tbody");
  for (const row of rows) {
    const line = element("tr");
    row.forEach((cell, place) => {
      const [text, className] = Array.isArray(cell) ? cell : [cell, ""];
      line.append(element("td", text, `${className} ${headings[place][1] ? "text" : ""}`.trim()));
    });
    body.append(line);
  }
  made.append(top, body);
  place.replaceChildren(rows.length ? made : element("p", "Nothing yet.", "note"));
}

function tiles(state) {
  const shown = [
    ["waiting", state.waiting], ["in flight", state.limit === null ? state.inside : `${state.inside} / ${state.limit}`],
    ["requests/s", fixed(state.throughput.requests, 1)], ["tokens/s", fixed(state.throughput.tokens, 0)],
    ["finished", state.ends.finished], ["refused", state.ends.refused], ["aborted", state.ends.aborted],
    ["errors", state.ends.errors],
  ];
  byId("tiles").replaceChildren(...shown.map(([name, value]) => {
    const tile = element("div");
    tile.append(element("dt", name), element("dd", String(value)));
    return tile;
  }));
}

function legend(names, ofDots) {
  const list = element("ul", undefined, "legend");
  names.forEach((name, place) => {
    const item = element("li");
    item.append(element("i", undefined, `s${place % 6} ${ofDots ? "dot" : `d${place % 3}`}`), document.createTextNode(name));
    list.append(item);
  });
  return list;
}

function depth(state) {
  const width = Math.max(320, byId("depth").clientWidth || 800), height = 200, left = 40, bottom = 22;
  const points = state.depth;
  const names = [...new Set([...state.tiers, ...points.flatMap((point) => Object.keys(point[1]))])];
  const most = Math.max(1, ...points.flatMap((point) => Object.values(point[1])));
  const begin = points.length ? points[0][0] : 0, end = points.length ? points[points.length - 1][0] : 1;
  const x = (at) => left + ((at - begin) / Math.max(1e-9, end - begin)) * (width - left - 8);
  const y = (count) => height - bottom - (count / most) * (height - bottom - 10);
  const label = `Waiting requests by tier over the last ${Math.round(end - begin)} s; the most is ${most}.`;
  const picture = drawn("svg", {viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label});
  for (const count of [0, most / 2, most]) {
    picture.append(drawn("line", {class: "axis", x1: left, x2: width - 8, y1: y(count), y2: y(count)}));
    picture.append(drawn("text", {x: left - 6, y: y(count) + 4, "text-anchor": "end"}, fixed(count, most < 4 && count % 1 ? 1 : 0)));
  }
  picture.append(drawn("text", {x: left, y: height - 5}, `${Math.round(end - begin)} s ago`));
  picture.append(drawn("text", {x: width - 8, y: height - 5, "text-anchor": "end"}, "now"));
  names.forEach((name, place) => {
    const line = points.map((point) => `${x(point[0]).toFixed(1)},${y(point[1][name] || 0).toFixed(1)}`).join(" ");
    picture.append(drawn("polyline", {class: `s${place % 6} d${place % 3}`, points: line}));
  });
  byId("depth").replaceChildren(picture, legend(names));
}

function dots(state) {
  const width = Math.max(300, byId("dots").clientWidth || 500), height = 260, left = 44, bottom = 34;
  const points = state.dots.filter(([estimate, length]) => estimate > 0 && length > 0);
  if (!points.length) {
    byId("dots").replaceChildren(element("p", "Nothing yet.", "note"));
    return;
  }
  const logs = points.flatMap(([estimate, length]) => [Math.log10(estimate), Math.log10(length)]);
  const low = Math.floor(Math.min(...logs)), high = Math.max(low + 1, Math.ceil(Math.max(...logs)));
  const x = (value) => left + ((Math.log10(value) - low) / (high - low)) * (width - left - 22);
  const y = (value) => height - bottom - ((Math.log10(value) - low) / (high - low)) * (height - bottom - 10);
  const names = [...new Set(points.map((point) => point[2]))].sort();
  const label = `Estimates and output lengths of the last ${points.length} finished requests, both axes logarithmic.`;
  const picture = drawn("svg", {viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label});
  for (let power = low; power <= high; power += 1) {
    const value = 10 ** power;
    picture.append(drawn("line", {class: "axis", x1: x(value), x2: x(value), y1: 10, y2: height - bottom}));
    picture.append(drawn("line", {class: "axis", x1: left, x2: width - 22, y1: y(value), y2: y(value)}));
    picture.append(drawn("text", {x: x(value), y: height - bottom + 14, "text-anchor": "middle"}, String(value)));
    picture.append(drawn("text", {x: left - 5, y: y(value) + 4, "text-anchor": "end"}, String(value)));
  }
  picture.append(drawn("line", {class: "axis", x1: x(10 ** low), y1: y(10 ** low), x2: x(10 ** high), y2: y(10 ** high), "stroke-width": 2}));
  for (const [estimate, length, category] of points) {
    picture.append(drawn("circle", {class: `s${names.indexOf(category) % 6}`, cx: x(estimate), cy: y(length), r: 3, "fill-opacity": 0.45, stroke: "none"}));
  }
  picture.append(drawn("text", {x: width - 10, y: height - 4, "text-anchor": "end"}, "estimate, tokens or words (length upwards)"));
  byId("dots").replaceChildren(picture, legend(names, true));
}

function tenants(state) {
  const headings = [["tenant", true], ["requests"], ["finished"], ["TTFT P50"], ["E2E P50"], ["E2E P99"], ["SLO kept"]];
  table(byId("tenants"), headings, state.tenants.map((row) => [
    [row.tenant, "name"], String(row.requests), String(row.finished), seconds(row.ttft_p50), seconds(row.e2e_p50),
    seconds(row.e2e_p99), percent(row.attainment),
  ]));
}

function categories(state) {
  const headings = [["category", true], ["finished"], ["factor"], ["length / estimate"], ["middle 80 %"], ["in interval"]];
  table(byId("categories"), headings, state.categories.map((row) => [
    [row.category, "name"], String(row.requests), fixed(row.bias, 2), fixed(row.ratio, 2),
    `${fixed(row.low, 2)} – ${fixed(row.high, 2)}`, percent(row.coverage),
  ]));
}

function upstreams(state) {
  const shown = {up: "up", trial: "is tried", down: "down"};
  table(byId("upstreams"), [["server", true], ["state", true], ["requests"]], state.upstreams.map((one) => [
    String(one.number), [shown[one.state] || "?", one.state === "up" ? "good" : "bad"], String(one.requests),
  ]));
}

function advice(state) {
  const place = byId("advice"), found = state.advice, shown = [];
  if (state.advice_problem) shown.push(element("p", `The last look did not succeed: ${state.advice_problem}`, "note"));
  if (found) {
    for (const line of found.lines || []) shown.push(element("p", line));
    const tiers = Object.keys((found.rows[0] || {tiers: {}}).tiers);
    const headings = [["policy", true], ["estimator", true], ["mean, %"], ["P99, %"], ["mean TTFT, %"], ...tiers.map((name) => [`P99 of ${name}, %`])];
    const box = element("div", undefined, "scroll");
    box.tabIndex = 0;
    box.setAttribute("role", "region");
    box.setAttribute("aria-label", "Simulated changes");
    table(box, headings, found.rows.map((row) => [
      [row.policy, "name"], row.estimator,
      [change(row.e2e_mean_change, row.e2e_mean_low, row.e2e_mean_high), row.beyond_doubt ? (row.e2e_mean_change < 0 ? "good" : "bad") : ""],
      change(row.e2e_p99_change, row.e2e_p99_low, row.e2e_p99_high),
      change(row.ttft_mean_change, row.ttft_mean_low, row.ttft_mean_high),
      ...tiers.map((name) => change(row.tiers[name].value, row.tiers[name].low, row.tiers[name].high)),
    ]));
    shown.push(box);
  }
  if (!shown.length) shown.push(element("p", "No look yet.", "note"));
  else if (known(state.advice_ago)) shown.push(element("p", `Looked ${ago(state.advice_ago)}.`, "note"));
  place.replaceChildren(...shown);
}

function alarms(state) {
  byId("alarms").hidden = !state.alarms.length;
  byId("alarms").firstElementChild.replaceChildren(...state.alarms.map((one) => element("li", `${one.text} (since ${ago(one.ago)})`)));
}

let shownAdvice, shownAlarms;
function show(state) {
  byId("about").textContent = `${state.state}; ${state.policy}, ${state.estimator}; model ${state.model}`;
  for (const draw of [tiles, depth, tenants, categories, dots, upstreams]) draw(state);
  const told = JSON.stringify([state.advice, state.advice_problem]), raised = JSON.stringify(state.alarms.map((one) => one.text));
  if (told !== shownAdvice) advice(state);  // else a reader would lose the place
  if (raised !== shownAlarms) alarms(state);
  [shownAdvice, shownAlarms] = [told, raised];
}

const source = new EventSource("/ui/events");
source.onmessage = (event) => show(JSON.parse(event.data));
source.onerror = () => { byId("about").textContent = "no connection to the gateway; trying again …"; };
