"use strict";
// The views of a comparison: every control changes all of them. Data: see driftsim/comparison/views.py.
(() => {
  const began = performance.now();
  const data = JSON.parse(document.getElementById("data").textContent);
  const escaped = (name) => name.replace(/[&<>"']/g, (sign) => `&#${sign.charCodeAt(0)};`); // where ECharts takes HTML
  const element = (id) => document.getElementById(id);
  const colours = ["#CC79A7", "#009E73", "#E69F00", "#56B4E9", "#D55E00", "#8c8c8c"];
  const known = { stock: "#8c8c8c", fifo: "#D55E00", sjf: "#2f8fcc", priority: "#CC79A7", weighted: "#009E73", aging: "#E69F00" };
  const dashes = ["solid", "dashed", "dotted", [10, 3, 2, 3]];
  const symbols = ["circle", "rect", "triangle", "diamond", "emptyCircle", "emptyRect", "emptyTriangle"];
  const decode = (text) => new Float32Array(Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer);
  const rows = data.settings.map((one) => Object.fromEntries(Object.entries(one.rows).map(([name, text]) => [name, decode(text)])));
  const tenantOf = decode(data.tenant);
  const policies = [...new Set(data.settings.map((one) => one.policy))];
  const estimators = [...new Set(data.settings.map((one) => one.estimator))];
  const look = data.settings.map((one) => ({
    color: known[one.policy] ?? colours[policies.indexOf(one.policy) % colours.length],
    dash: dashes[(policies.indexOf(one.policy) + estimators.indexOf(one.estimator)) % dashes.length],
    symbol: symbols[policies.indexOf(one.policy) % symbols.length],
  }));
  const number = (value) => (Number.isFinite(value) ? Number(value.toPrecision(4)).toString() : "-");
  const quantile = (sorted, share) => {
    if (!sorted.length) return NaN;
    const place = (sorted.length - 1) * share, low = Math.floor(place);
    const high = Math.min(low + 1, sorted.length - 1);
    return sorted[low] + (place - low) * (sorted[high] - sorted[low]);
  };

  // The controls
  const fill = (select, names) => names.forEach((name, place) => select.add(new Option(name, place)));
  fill(element("tenant"), ["all tenants", ...data.tenants]);
  data.settings.forEach((one, place) => {
    const box = Object.assign(document.createElement("input"), { type: "checkbox", value: place, checked: one.shown });
    const label = document.createElement("label");
    label.append(box, " " + one.name);
    element("shown").append(label);
  });
  const span = { from: 0, to: data.end };
  const whole = () => span.from <= 0 && span.to >= data.end;
  const shown = () => [...element("shown").querySelectorAll("input:checked")].map((box) => Number(box.value));
  if (data.thinned) {
    element("sample").textContent = `The views draw ${data.thinned[0].toLocaleString()} of ${data.thinned[1].toLocaleString()} requests, evenly chosen, the same for all; queue, in flight and the numbers of the whole run are of all.`;
  }

  const chosen = (place) => {
    const own = rows[place], tenant = Number(element("tenant").value) - 1, kept = [];
    for (let i = 0; i < own.arrival.length; i++) {
      if (own.arrival[i] >= span.from && own.arrival[i] <= span.to && (tenant < 0 || tenantOf[i] === tenant)) kept.push(i);
    }
    return kept;
  };
  const latencies = (place, kept) => {
    const values = rows[place][element("metric").value];
    return kept.map((i) => values[i]).filter(Number.isFinite);
  };

  // The numbers: exact for the whole run, of the drawn requests for a stretch of it
  const statistics = (place, values) => {
    const tenant = Number(element("tenant").value) - 1, metric = element("metric").value;
    if (whole()) return data.settings[place].exact[metric][tenant + 1];
    const sorted = Float64Array.from(values).sort();
    const mean = sorted.length ? sorted.reduce((sum, value) => sum + value, 0) / sorted.length : NaN;
    return [sorted.length, mean, ...[0.5, 0.9, 0.95, 0.99].map((share) => quantile(sorted, share))];
  };

  // The views
  const style = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const charts = {};
  const draw = (name, option) => {
    charts[name] ??= echarts.init(element(name), null, { renderer: "svg" });
    const ink = style("--ink"), line = style("--line");
    const axis = (one) => ({
      nameLocation: "middle", nameGap: 28, axisLabel: { color: ink, hideOverlap: true, formatter: (value) => Number(value.toPrecision(6)).toString(), showMinLabel: true, showMaxLabel: false }, nameTextStyle: { color: ink },
      axisLine: { lineStyle: { color: ink } }, splitLine: { lineStyle: { color: line } }, ...one,
    });
    charts[name].setOption({
      animation: false, textStyle: { color: ink, fontFamily: "system-ui, sans-serif" }, aria: { enabled: true },
      grid: { left: 58, right: 16, top: 34, bottom: option.dataZoom ? 84 : 46 },
      legend: { top: 0, left: 0, type: "scroll", textStyle: { color: ink }, itemWidth: 34, itemGap: 22, pageTextStyle: { color: ink } },
      tooltip: { trigger: "axis", confine: true, backgroundColor: style("--ground"), textStyle: { color: ink }, valueFormatter: number },
      ...option, xAxis: axis(option.xAxis), yAxis: axis({ nameGap: 42, ...option.yAxis }),
    }, true);
  };
  const lineOf = (place, points, more) => ({
    name: data.settings[place].name, type: "line", data: points, showSymbol: false, symbol: look[place].symbol,
    itemStyle: { color: look[place].color }, lineStyle: { color: look[place].color, type: look[place].dash, width: 2 },
    ...more,
  });
  const bins = (kept, place, values, of) => {
    const width = (span.to - span.from) / 24 || 1, groups = Array.from({ length: 24 }, () => []);
    kept.forEach((i) => {
      if (Number.isFinite(values[i])) groups[Math.min(23, Math.floor((rows[place].arrival[i] - span.from) / width))].push(values[i]);
    });
    return groups.map((group, i) => [span.from + (i + 0.5) * width, group.length ? of(Float64Array.from(group).sort()) : null]);
  };
  const unit = () => (element("metric").value === "tpot" ? "s a token" : "s");

  let zooming = false;
  const update = () => {
    const places = shown(), percentile = Number(element("percentile").value) / 100;
    const kept = new Map(places.map((place) => [place, chosen(place)]));
    const body = element("numbers").tBodies[0];
    body.replaceChildren();
    const metric = element("metric").selectedOptions[0].text, tenant = element("tenant").selectedOptions[0].text;
    element("numbers").caption.textContent = `Latency ${metric} (${unit()}), ${tenant}, arrivals from ${number(span.from)} to ${number(span.to)} s`;
    for (const place of places) {
      const row = body.insertRow();
      const name = document.createElement("th");
      name.scope = "row";
      name.textContent = data.settings[place].name;
      row.append(name);
      statistics(place, latencies(place, kept.get(place))).forEach((value, i) => {
        const cell = row.insertCell();
        cell.textContent = i ? number(value) : value;
        cell.dataset.value = value;
      });
    }
    draw("distribution", {
      xAxis: { type: "log", name: `latency ${metric} (${unit()})` },
      yAxis: { type: "value", name: "share of requests within it", min: 0, max: 1 },
      series: places.map((place, first) => {
        const sorted = Float64Array.from(latencies(place, kept.get(place))).sort();
        const steps = Math.min(200, sorted.length);
        const points = Array.from({ length: steps }, (_, i) => {
          const share = steps > 1 ? i / (steps - 1) : 1;
          return [Math.max(quantile(sorted, share), 1e-6), share];
        });
        const mark = first ? {} : { markLine: { silent: true, symbol: "none", label: { position: "insideStartBottom", formatter: element("percentile").selectedOptions[0].text, color: style("--ink") }, lineStyle: { color: style("--soft") }, data: [{ yAxis: percentile }] } };
        return lineOf(place, points, mark);
      }),
    });
    draw("latency", {
      xAxis: { type: "value", name: "arrival (s)", min: span.from, max: span.to },
      yAxis: { type: "value", name: `${element("percentile").selectedOptions[0].text} of the latency (${unit()})` },
      series: places.map((place) => lineOf(place, bins(kept.get(place), place, rows[place][element("metric").value], (sorted) => quantile(sorted, percentile)), { showSymbol: true, symbolSize: 6 })),
    });
    for (const [name, title] of [["waiting", "requests waiting"], ["inflight", "requests in the engine"]]) {
      draw(name, {
        xAxis: { type: "value", name: "time (s)", min: 0, max: data.last },
        yAxis: { type: "value", name: title },
        dataZoom: [{ type: "slider", startValue: span.from, endValue: Math.min(span.to, data.last), filterMode: "none", textStyle: { color: style("--ink") }, height: 22, bottom: 8, labelFormatter: (value) => number(value) }],
        series: places.map((place) => {
          const series = data.settings[place][name][Number(element("tenant").value)];
          return lineOf(place, series.map((value, i) => [(i * data.last) / series.length, value]), { step: "end" });
        }),
      });
    }
    const thin = (list) => list.filter((_, i) => i % Math.ceil(list.length / 1500) === 0);
    const pairs = (place) => thin(kept.get(place)).map((i) => [rows[place].observed[i], rows[place].estimate[i]]).filter(([a, b]) => a > 0 && b > 0);
    const clouds = [...new Map(places.map((place) => [data.settings[place].estimator, place])).values()];
    draw("estimates", {
      tooltip: { trigger: "item", confine: true, backgroundColor: style("--ground"), textStyle: { color: style("--ink") }, formatter: (point) => `${escaped(point.seriesName)}<br>observed ${number(point.value[0])}, estimated ${number(point.value[1])}` },
      xAxis: { type: "log", name: `observed output (${data.word})` },
      yAxis: { type: "log", name: `estimated output (${data.word})` },
      series: clouds.map((place, i) => ({
        name: data.settings[place].name, type: "scatter", symbol: symbols[i % symbols.length], symbolSize: 5, data: pairs(place),
        itemStyle: { color: colours[i % colours.length], opacity: 0.55 },
        markLine: i ? undefined : { silent: true, symbol: "none", label: { show: false }, lineStyle: { color: style("--soft") }, data: [[{ coord: [1, 1] }, { coord: [100000, 100000] }]] },
      })),
    });
    draw("drift", {
      xAxis: { type: "value", name: "arrival (s)", min: span.from, max: span.to },
      yAxis: { type: "value", name: "observed over estimated, median" },
      series: clouds.map((place) => {
        const ratio = rows[place].observed.map((value, i) => value / rows[place].estimate[i]);
        return lineOf(place, bins(kept.get(place), place, ratio, (sorted) => quantile(sorted, 0.5)), { showSymbol: true, symbolSize: 6 });
      }),
    });
    // Each request as a bar from its arrival: it waits, is read until its first token, and is answered
    const lives = [], starts = new Set();
    for (const place of places.slice(0, 2)) {
      const own = rows[place], list = kept.get(place).filter((i) => Number.isFinite(own.e2e[i]));
      const every = Math.ceil(list.length / 60);
      starts.add(lives.length);
      for (const i of list.filter((_, at) => at % every === 0)) {
        const first = Number.isFinite(own.ttft[i]) ? own.ttft[i] : own.e2e[i], wait = Math.min(own.wait[i] || 0, first);
        lives.push([`${data.settings[place].name} ${lives.length}`, own.arrival[i], wait, first - wait, own.e2e[i] - first]);
      }
    }
    const grey = style("--soft");
    const parts = [
      ["before", 1, { color: "transparent" }],
      ["waiting", 2, { color: "transparent", borderColor: grey, borderWidth: 1 }],
      ["until the first token", 3, { color: "#E69F00" }],
      ["answer", 4, { color: "#2f8fcc" }],
    ];
    draw("requests", {
      legend: { top: 0, left: 0, textStyle: { color: style("--ink") }, data: parts.slice(1).map(([name]) => name) },
      tooltip: {
        trigger: "axis", axisPointer: { type: "shadow" }, confine: true, backgroundColor: style("--ground"), textStyle: { color: style("--ink") },
        formatter: (points) => `${escaped(points[0].name.replace(/ \d+$/, ""))}<br>arrives at ${number(points[0].value)} s<br>` + points.slice(1).map((point) => `${point.seriesName} ${number(point.value)} s`).join("<br>"),
      },
      grid: { left: 120, right: 16, top: 34, bottom: 46 },
      xAxis: { type: "value", name: "time (s)", min: Math.floor(span.from) },
      yAxis: { type: "category", inverse: true, data: lives.map(([name]) => name), axisLabel: { interval: (at) => starts.has(at), color: style("--ink"), hideOverlap: false, formatter: (name) => name.replace(/ \d+$/, "") }, axisTick: { show: false } },
      series: parts.map(([name, place, itemStyle]) => ({ name, type: "bar", stack: "life", barCategoryGap: "15%", itemStyle, data: lives.map((life) => life[place]) })),
    });
    for (const name of ["waiting", "inflight"]) {
      charts[name].off("datazoom");
      charts[name].on("datazoom", () => {
        if (zooming) return;
        const zoom = charts[name].getOption().dataZoom[0];
        stretch(zoom.startValue, zoom.endValue >= data.last * 0.999 ? data.end : zoom.endValue, name);
      });
    }
  };
  let pending = 0;
  const soon = () => { clearTimeout(pending); pending = setTimeout(() => { zooming = true; update(); zooming = false; }, 60); };
  const stretch = (from, to) => {
    span.from = Math.max(0, Math.min(from, to));
    span.to = Math.min(data.end, Math.max(from, to));
    element("from").value = number(span.from);
    element("to").value = number(span.to);
    soon();
  };
  for (const id of ["tenant", "metric", "percentile", "shown"]) element(id).addEventListener("change", soon);
  for (const id of ["from", "to"]) {
    element(id).addEventListener("change", () => stretch(Number(element("from").value), Number(element("to").value)));
  }
  element("whole").addEventListener("click", () => stretch(0, data.end));
  document.querySelector("form").addEventListener("submit", (event) => event.preventDefault());
  element("whose").addEventListener("change", (event) => {
    [...element("tenants").tBodies].forEach((body, place) => { body.hidden = place !== Number(event.target.value); });
  });

  // The table: a click on a heading sorts by its column
  const table = element("schedulers");
  table.querySelectorAll("thead button").forEach((button, column) => button.addEventListener("click", () => {
    const heading = button.parentElement, up = heading.getAttribute("aria-sort") !== "ascending";
    table.querySelectorAll("thead th").forEach((one) => one.removeAttribute("aria-sort"));
    heading.setAttribute("aria-sort", up ? "ascending" : "descending");
    const value = (row) => {
      const cell = row.cells[column];
      return cell.dataset.value === undefined ? cell.textContent : Number(cell.dataset.value);
    };
    const order = [...table.tBodies[0].rows].sort((a, b) => {
      const [x, y] = [value(a), value(b)];
      return (typeof x === "number" && typeof y === "number" ? x - y : String(x).localeCompare(String(y))) * (up ? 1 : -1);
    });
    table.tBodies[0].append(...order);
  }));

  const redraw = () => { if (Object.keys(charts).length) update(); };
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  addEventListener("resize", () => Object.values(charts).forEach((chart) => chart.resize()));
  element("from").value = 0;
  element("to").value = number(span.to);
  update();
  document.documentElement.dataset.ready = Math.round(performance.now() - began);
})();
