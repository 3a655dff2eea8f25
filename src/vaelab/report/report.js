"use strict";
{
  const data = JSON.parse(document.getElementById("data").textContent);
  const { parameters, metrics, groups, runs } = data;
  const find = (selector) => document.querySelector(selector);
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const HUES = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9", "#8a8a8a"]; // Okabe and Ito
  const hue = (k) => HUES[dark.matches && k % 5 === 0 ? 5 - k : k] ?? HUES.at(-1); // the lighter blue on dark
  const RAMP = ["#440154", "#443983", "#31688e", "#21918c", "#35b779", "#90d743", "#fde725"]; // viridis
  const metricNumber = (name) => metrics.findIndex((metric) => metric.name === name);
  const curve = Math.max(0, parameters.findIndex((p) => p.numeric && p.short === "kl_weight"));
  let colour = parameters.length > 1 && curve === 0 ? 1 : 0;
  let visible = new Set(runs.keys());

  // Numbers

  const finite = (values) => values.filter((value) => value !== null && value !== undefined);
  const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;
  const deviation = (values) => {
    const centre = mean(values);
    return values.length < 2 ? 0 : Math.sqrt(values.reduce((sum, v) => sum + (v - centre) ** 2, 0) / (values.length - 1));
  };
  const digitsOf = (size, more) => Math.min(12, Math.max(0, more - Math.floor(Math.log10(size))));
  const format = (value, digits) => {
    const plain = value === 0 || (Math.abs(value) >= 10 ** -digits && Math.abs(value) < 1e9);
    return (plain ? value.toFixed(digits) : String(Number(value.toPrecision(4)))).replace("-", "\u2212");
  };
  const spread = (values, digits) => {
    if (!values.length) return "";
    if (values.length === 1) return format(values[0], digits);
    const size = deviation(values);
    if (size === 0 && digits === 0) return format(values[0], 0);
    const shown = size > 0 ? digitsOf(size, 1) : digits;
    return `${format(mean(values), shown)} ± ${format(size, shown)}`;
  };
  const numbersOf = (members, metric) => finite(members.map((run) => run.metrics[metric]));
  const valueOf = (group, i) => parameters[i].values[groups[group][i]];
  const valuesOf = (group) => parameters.map((p, i) => (valueOf(group, i) === "" ? "" : `${p.short}=${valueOf(group, i)}`))
    .filter(Boolean).join(", ");
  const counted = () => {
    const members = groups.map(() => []);
    runs.forEach((run, i) => run.counted && visible.has(i) && members[run.group].push(run));
    return members;
  };

  // Axes

  const niceStep = (extent, count) => {
    const rough = extent / count;
    const power = 10 ** Math.floor(Math.log10(rough));
    return power * [1, 2, 5, 10].find((step) => step * power >= rough * 0.999);
  };
  const linear = (values, count = 5) => {
    let low = Math.min(...values);
    let high = Math.max(...values);
    const padding = (high - low || Math.abs(high) * 0.1 || 1) * 0.06;
    [low, high] = [low - padding, high + padding];
    const step = niceStep(high - low, count);
    const ticks = [];
    for (let i = Math.ceil(low / step); i * step <= high; i += 1) ticks.push([i * step, format(i * step, digitsOf(step, 0))]);
    return { at: (value) => (value - low) / (high - low), ticks, low, high };
  };
  // A parameter's axis: of the numbers of its values in its list.
  const byParameter = (i) => {
    const { values, numeric } = parameters[i];
    const place = values.map(Number);
    const logarithmic = numeric && values.length > 2 && place[0] > 0 && place.at(-1) / place[0] >= 8;
    const scaled = !numeric ? values.map((_, k) => k) : logarithmic ? place.map(Math.log) : place;
    const [low, high] = [Math.min(...scaled), Math.max(...scaled)];
    const pad = numeric ? 0.06 : 0.5 / values.length;
    const at = (k) => pad + (1 - 2 * pad) * (high > low ? (scaled[k] - low) / (high - low) : 0.5);
    const every = numeric ? 1 : Math.ceil(values.length / 12);
    const ticks = values.map((value, k) => [k, value === "" ? "none" : String(value)]).filter((_, k) => k % every === 0);
    return { at, ticks, name: parameters[i].short + (logarithmic ? " (log scale)" : "") };
  };

  // Drawing

  const element = (name, attributes = {}, ...children) => {
    const made = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    made.append(...children);
    return made;
  };
  const tip = find("#tip");
  const tellings = new WeakMap(); // shape -> what its tip says, made up when it is asked for
  const told = (shape, telling) => {
    tellings.set(shape, telling);
    return shape;
  };
  document.addEventListener("pointermove", ({ target, clientX: x, clientY: y }) => {
    const telling = tellings.get(target);
    tip.hidden = !telling;
    if (!telling) return;
    tip.textContent = telling();
    const box = tip.getBoundingClientRect();
    tip.style.left = `${Math.max(4, Math.min(x + 14, innerWidth - box.width - 8))}px`;
    tip.style.top = `${y + 18 + box.height > innerHeight ? y - box.height - 10 : y + 18}px`;
  });
  const colourOf = (group, by = colour) => {
    if (!parameters.length || by < 0) return hue(0);
    const { values, numeric } = parameters[by];
    const k = groups[group][by];
    if (!numeric || values.length <= 3) return hue(k);
    const place = (dark.matches ? 1.2 : 0) + (k / (values.length - 1)) * 4.8; // away from the page's own
    const left = Math.min(5, Math.floor(place));
    const [from, to] = [left, left + 1].map((n) => [1, 3, 5].map((c) => parseInt(RAMP[n].slice(c, c + 2), 16)));
    return `rgb(${from.map((part, c) => Math.round(part + (to[c] - part) * (place - left))).join(" ")})`;
  };
  const legend = (by = colour) => {
    const box = document.createElement("div");
    box.className = "legend";
    if (!parameters.length || by < 0) return box;
    const { values, short } = parameters[by];
    box.append(short);
    const step = Math.ceil(values.length / 12);
    values.forEach((value, k) => {
      if (k % step) return;
      const group = groups.findIndex((of) => of[by] === k);
      const [entry, dot] = [document.createElement("span"), document.createElement("i")];
      dot.style.background = colourOf(group, by);
      entry.append(dot, value === "" ? "none" : String(value));
      box.append(entry);
    });
    return box;
  };
  // A plot's frame: ticks, names, and functions from values to pixels.
  const frame = (width, height, x, y, name, { left = 62, bottom = 44, top = 12, right = 14 } = {}) => {
    const svg = element("svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `${name} against ${x.name}` });
    const [w, h] = [width - left - right, height - top - bottom];
    const px = (value) => left + x.at(value) * w;
    const py = (value) => top + (1 - y.at(value)) * h;
    let end = -Infinity;
    for (const [value, text] of x.ticks) {
      const half = text.length * 3.3;
      if (px(value) - half < end) continue; // they would overlap
      end = px(value) + half + 5;
      svg.append(element("line", { class: "axis", x1: px(value), x2: px(value), y1: top + h, y2: top + h + 4 }));
      svg.append(element("text", { class: "tick", x: px(value), y: top + h + 17, "text-anchor": "middle" }, text));
    }
    for (const [value, text] of y.ticks) {
      svg.append(element("line", { class: "axis", x1: left, x2: left + w, y1: py(value), y2: py(value) }));
      svg.append(element("text", { class: "tick", x: left - 7, y: py(value) + 4, "text-anchor": "end" }, text));
    }
    svg.append(element("line", { class: "axis", x1: left, x2: left + w, y1: top + h, y2: top + h }));
    svg.append(element("text", { x: left + w / 2, y: height - 6, "text-anchor": "middle" }, x.name));
    if (y.name) {
      const middle = top + h / 2;
      svg.append(element("text", { x: 13, y: middle, "text-anchor": "middle", transform: `rotate(-90 13 ${middle})` }, y.name));
    }
    return { svg, px, py };
  };
  const describe = (group, members, numbers) => [
    valuesOf(group) || "all runs",
    ...numbers.map((m) => `${metrics[m].name}: ${spread(numbersOf(members, m), metrics[m].decimals)} ${metrics[m].unit}`),
    members.length > 1 ? `mean ± standard deviation, n = ${members.length}` : members[0].name,
  ].join("\n");
  const describeRun = (run) => [
    run.name,
    valuesOf(run.group),
    run.seed === null ? "" : `seed=${run.seed}`,
    ...metrics.map((m, i) => (run.metrics[i] === null ? "" : `${m.name}: ${format(run.metrics[i], m.decimals)}`)).slice(0, 6),
  ].filter(Boolean).join("\n");
  // Groups with a value along parameter i, in lines of those that are the same in all others.
  const lines = (i, present) => {
    const found = new Map();
    for (const group of present) {
      const key = groups[group].filter((_, k) => k !== i).join();
      found.set(key, [...(found.get(key) ?? []), group]);
    }
    return [...found.values()].map((line) => line.sort((one, other) => groups[one][i] - groups[other][i]));
  };

  const drawPlane = () => {
    const section = find("#plane");
    const [rate, distortion] = [metricNumber("test/kl"), metricNumber("test/reconstruction")];
    const members = counted().map((of) => of.filter((run) => run.metrics[rate] != null && run.metrics[distortion] != null));
    const present = [...groups.keys()].filter((group) => members[group].length);
    section.hidden = rate < 0 || distortion < 0 || !present.length;
    if (section.hidden) return;
    const plot = section.querySelector(".plot");
    const shown = members.flat();
    const x = { ...linear(shown.map((run) => run.metrics[rate]), 7), name: "rate: KL (nats per image)" };
    const y = { ...linear(shown.map((run) => run.metrics[distortion]), 6), name: "distortion: reconstruction (nats per image)" };
    const width = Math.min(940, plot.clientWidth || 900);
    const { svg, px, py } = frame(width, Math.min(480, Math.max(320, width * 0.6)), x, y, y.name);
    const [least, most] = [x.low + y.low, x.high + y.high];
    const step = niceStep(most - least, 8);
    for (let level = Math.ceil(least / step) * step; level < most; level += step) {
      const [x1, x2] = [Math.max(x.low, level - y.high), Math.min(x.high, level - y.low)];
      if (px(x2) - px(x1) < 75) continue;
      svg.append(element("line", { class: "level", x1: px(x1), y1: py(level - x1), x2: px(x2), y2: py(level - x2) }));
      svg.append(element("text", { class: "level-name", x: px(x1) + 6, y: py(level - x1) + 14 }, `ELBO ${format(-level, digitsOf(step, 0))}`));
    }
    if (parameters.length && parameters[curve].numeric) {
      for (const line of lines(curve, present)) {
        const points = line.map((group) => `${px(mean(numbersOf(members[group], rate)))},${py(mean(numbersOf(members[group], distortion)))}`);
        const own = colour === curve ? { class: "line plain" } : { class: "line", stroke: colourOf(line[0]) };
        svg.append(element("polyline", { ...own, points: points.join(" ") }));
      }
    }
    for (const group of present) {
      const fill = colourOf(group);
      for (const run of members[group].length > 1 ? members[group] : []) {
        svg.append(told(element("circle", { class: "run", cx: px(run.metrics[rate]), cy: py(run.metrics[distortion]), r: 3, fill }), () => describeRun(run)));
      }
      const [rates, distortions] = [numbersOf(members[group], rate), numbersOf(members[group], distortion)];
      const [cx, cy] = [px(mean(rates)), py(mean(distortions))];
      const [dx, dy] = [px(mean(rates) + deviation(rates)) - cx, py(mean(distortions) + deviation(distortions)) - cy];
      svg.append(element("line", { stroke: fill, x1: cx - dx, x2: cx + dx, y1: cy, y2: cy }));
      svg.append(element("line", { stroke: fill, x1: cx, x2: cx, y1: cy - dy, y2: cy + dy }));
      svg.append(told(element("circle", { class: "mean", cx, cy, r: present.length > 60 ? 4 : 6, fill }), () => describe(group, members[group], [rate, distortion])));
      if (present.length <= 24 && parameters.length) {
        svg.append(element("text", { class: "value", x: cx + 9, y: cy - 8 }, String(valueOf(group, curve))));
      }
    }
    plot.replaceChildren(legend(), svg);
    if (present.length <= 24 && parameters.length && curve !== colour) {
      const note = document.createElement("p");
      note.className = "quiet";
      note.textContent = `The numbers at the points are ${parameters[curve].short}.`;
      plot.append(note);
    }
  };

  const drawEffects = () => {
    const section = find("#effects");
    const members = counted();
    const chosen = metrics.map((metric, m) => m).filter((m) => metrics[m].name.includes("/"));
    section.hidden = !parameters.length || !chosen.length || !members.some((of) => of.length);
    if (section.hidden) return;
    const grid = section.querySelector(".grid");
    grid.replaceChildren();
    parameters.forEach((parameter, i) => {
      if (parameter.values.length < 2) return;
      const title = document.createElement("h3");
      title.textContent = `against ${parameter.name}`;
      const by = i === colour ? parameters.findIndex((_, k) => k !== i) : colour;
      grid.append(title, legend(by));
      for (const m of chosen) {
        const present = [...groups.keys()].filter((group) => numbersOf(members[group], m).length);
        if (!present.length) continue;
        const ends = present.flatMap((group) => {
          const numbers = numbersOf(members[group], m);
          return [mean(numbers) - deviation(numbers), mean(numbers) + deviation(numbers)];
        });
        const cell = document.createElement("div");
        grid.append(cell);
        const x = byParameter(i);
        const { svg, px, py } = frame(Math.max(220, cell.clientWidth), 210, x, linear(ends, 4), metrics[m].name, { top: 26 });
        const unit = metrics[m].unit ? ` (${metrics[m].unit})` : "";
        svg.append(element("text", { x: 4, y: 13, "font-weight": 600 }, metrics[m].name, element("tspan", { class: "tick", "font-weight": 400 }, unit)));
        for (const line of lines(i, present)) {
          const points = line.map((group) => `${px(groups[group][i])},${py(mean(numbersOf(members[group], m)))}`);
          if (parameter.numeric) svg.append(element("polyline", { class: "line", points: points.join(" "), stroke: colourOf(line[0], by) }));
        }
        for (const group of present) {
          const [numbers, fill, cx] = [numbersOf(members[group], m), colourOf(group, by), px(groups[group][i])];
          const [centre, size] = [mean(numbers), deviation(numbers)];
          if (size) svg.append(element("line", { stroke: fill, "stroke-width": 1.5, x1: cx, x2: cx, y1: py(centre - size), y2: py(centre + size) }));
          svg.append(told(element("circle", { class: "mean", cx, cy: py(centre), r: present.length > 60 ? 3 : 4.5, fill }), () => describe(group, members[group], [m])));
        }
        cell.append(svg);
      }
    });
  };

  const drawParallel = () => {
    const section = find("#parallel");
    const shown = [...visible].map((i) => runs[i]).filter((run) => run.counted);
    const chosen = metrics.map((_, m) => m).filter((m) => metrics[m].name.includes("/") && numbersOf(shown, m).length).slice(0, 8);
    section.hidden = shown.length < 2 || parameters.length + chosen.length < 2;
    if (section.hidden) return;
    const plot = section.querySelector(".plot");
    const axes = [
      ...parameters.map((p, i) => ({ ...byParameter(i), name: p.short, of: (run) => groups[run.group][i] })),
      ...chosen.map((m) => ({ ...linear(numbersOf(shown, m)), name: metrics[m].name, of: (run) => run.metrics[m] })),
    ];
    const width = Math.max(plot.clientWidth || 900, axes.length * 105);
    const [height, top, bottom, left, right] = [330, 34, 12, 56, 60];
    const svg = element("svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": "parallel coordinates" });
    const px = (n) => left + (n * (width - left - right)) / (axes.length - 1);
    const py = (axis, value) => top + (1 - axis.at(value)) * (height - top - bottom);
    for (const run of shown) {
      const points = axes.map((axis, n) => [axis, n, axis.of(run)]).filter(([, , value]) => value !== null);
      const path = element("polyline", {
        class: "path",
        points: points.map(([axis, n, value]) => `${px(n)},${py(axis, value)}`).join(" "),
        stroke: colourOf(run.group),
      });
      for (const [event, on] of [["pointerenter", true], ["pointerleave", false]]) {
        path.addEventListener(event, () => { svg.classList.toggle("following", on); path.classList.toggle("chosen", on); });
      }
      svg.append(told(path, () => describeRun(run)));
    }
    axes.forEach((axis, n) => {
      svg.append(element("line", { class: "axis", x1: px(n), x2: px(n), y1: top, y2: height - bottom }));
      svg.append(element("text", { x: px(n), y: 15, "text-anchor": "middle" }, axis.name));
      let last = Infinity;
      for (const [value, text] of axis.ticks) {
        if (last - py(axis, value) < 13) continue;
        last = py(axis, value);
        svg.append(element("text", { class: "level-name place", x: px(n) - 6, y: last + 4, "text-anchor": "end" }, text));
      }
    });
    plot.replaceChildren(legend(), svg);
  };

  const draw = () => { drawPlane(); drawEffects(); drawParallel(); };
  let waiting;
  const drawSoon = () => { // not at every letter that is typed
    clearTimeout(waiting);
    waiting = setTimeout(draw, 150);
  };

  // Tables

  const rows = all("#runs tbody tr");
  const texts = new Map(rows.map((row) => {
    const run = runs[row.dataset.run];
    const values = run.group === null ? "" : parameters.map((p, i) => `${p.name}=${valueOf(run.group, i)}`).join(" ");
    return [row, `${row.textContent} ${values} seed=${run.seed}`.replaceAll("\u2212", "-").toLowerCase()];
  }));
  const filter = () => {
    const words = find("#filter").value.toLowerCase().split(/\s+/).filter(Boolean);
    const state = find("#state").value;
    visible = new Set();
    for (const row of rows) {
      const tokens = texts.get(row).split(/\s+/);
      // A whole value: latent_dim=2 is not latent_dim=20.
      const fits = (word) => (/.=./.test(word) ? tokens.some((token) => token === word || token.endsWith(`.${word}`)) : texts.get(row).includes(word));
      row.hidden = !words.every(fits) || (state && row.querySelector(".state").textContent !== state);
      if (!row.hidden) visible.add(Number(row.dataset.run));
    }
    find("#shown").textContent = visible.size === runs.length ? "" : `${visible.size} of ${runs.length} runs`;
    const members = counted();
    for (const row of all("#groups tbody tr")) {
      const group = Number(row.dataset.group);
      row.hidden = !runs.some((run, i) => run.group === group && visible.has(i));
      const cells = [...row.cells].slice(parameters.length);
      cells[0].textContent = members[group].length;
      metrics.forEach((metric, m) => {
        const numbers = numbersOf(members[group], m);
        cells[m + 1].textContent = spread(numbers, metric.decimals);
        cells[m + 1].dataset.value = numbers.length ? mean(numbers) : "";
      });
    }
  };
  const sortable = (table) => {
    all("th", table.tHead).forEach((head, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(head.firstChild);
      head.prepend(button);
      button.addEventListener("click", () => {
        const down = head.getAttribute("aria-sort") === "ascending";
        all("th", table.tHead).forEach((other) => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
        const key = (row) => row.cells[column].dataset.value ?? row.cells[column].textContent;
        const body = table.tBodies[0];
        const number = (text) => (text.trim() === "" ? NaN : Number(text));
        const compare = (one, other) => {
          const [a, b] = [key(one), key(other)];
          if ((a === "") !== (b === "")) return a === "" ? 1 : -1; // what is missing comes last
          const [p, q] = [number(a), number(b)];
          const difference = Number.isNaN(p) || Number.isNaN(q) ? a.localeCompare(b) : p - q;
          return down ? -difference : difference;
        };
        body.append(...[...body.rows].sort(compare));
      });
    });
  };
  const copy = async (code, button) => {
    try {
      await navigator.clipboard.writeText(code.textContent);
      button.textContent = "copied";
    } catch {
      getSelection().selectAllChildren(code);
      button.textContent = "Ctrl-C";
    }
    setTimeout(() => { button.textContent = "copy"; }, 1500);
  };

  all("table.sortable").forEach(sortable);
  for (const code of all(".command code")) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = "copy";
    code.title = code.textContent;
    button.addEventListener("click", () => copy(code, button));
    code.after(button);
  }
  for (const cell of all("td.name, td.error")) cell.title = cell.textContent;
  for (const picture of all("button.picture")) {
    picture.addEventListener("click", () => {
      const [small, large] = [picture.firstElementChild, find("#large img")];
      [large.src, large.alt] = [small.src, small.alt];
      find("#large").showModal();
    });
  }
  parameters.forEach((parameter, i) => find("#colour").append(new Option(parameter.short, String(i), false, i === colour)));
  find("#colour").parentElement.hidden = parameters.length < 2;
  find("#colour").addEventListener("change", (event) => { colour = Number(event.target.value); draw(); });
  for (const control of ["#filter", "#state"]) {
    find(control).addEventListener("input", () => { filter(); drawSoon(); });
  }
  find("#controls").addEventListener("submit", (event) => event.preventDefault());
  dark.addEventListener("change", draw);
  let width = innerWidth;
  addEventListener("resize", () => { if (innerWidth !== width) { width = innerWidth; drawSoon(); } });
  find("#controls").hidden = false;
  filter();
  draw();
}
