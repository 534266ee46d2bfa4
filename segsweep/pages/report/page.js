"use strict";
// The decision of decision.py in the browser, tables that sort, tooltips. Nothing is fetched.
const page = JSON.parse(document.getElementById("data").textContent);
const mean = (v) => v.reduce((a, b) => a + b, 0) / v.length;
const variance = (v) => { const m = mean(v); return v.reduce((a, b) => a + (b - m) ** 2, 0) / (v.length - 1); };
const least = (items, key) => items.reduce((a, b) => (key(b) < key(a) ? b : a)); // of equals the first
const said = (key, values = {}) => page.words[key].replace(/\{(\w+)\}/g, (_, name) => values[name]);
const units = (what) => page.units[what] ?? "";
const known = (x) => x !== null && x !== undefined;

const measured = (one, what) =>
  what === "latency" ? one.latency : what === "size" ? one.size : one.measures[what] ?? null;
const met = (limit, one) => {
  const value = measured(one, limit.what);
  return known(value) && (limit.at_most ? value <= limit.bound : value >= limit.bound);
};
const text = (limit) => `${limit.what} ${limit.at_most ? "≤" : "≥"} ${limit.bound.toFixed(2)}${units(limit.what)}`;
const limitsOf = (wishes) => [
  ...["latency", "size"].filter((what) => known(wishes[what]))
    .map((what) => ({ what, at_most: true, bound: wishes[what] })),
  ...wishes.must];
const cost = (wishes, [, missed, wrong]) => wishes.miss_cost * missed + wishes.false_alarm_cost * wrong;
const cheapest = (wishes, points) => least(points, (point) => cost(wishes, point));
const gainsOf = (task, one, wishes) => wishes
  ? one.outcomes.map((points) => -cost(wishes, cheapest(wishes, points)))
  : one.values.map((value) => (task.higher ? value : -value));

function pooled(groups) { // sqrt(sum (n - 1) s^2 / sum (n - 1))
  const several = groups.filter((group) => group.length > 1);
  if (!several.length) return null;
  const freedom = several.reduce((n, group) => n + group.length - 1, 0);
  return Math.sqrt(several.reduce((sum, g) => sum + (g.length - 1) * variance(g), 0) / freedom);
}
function alike(gains, one, other) { // within two standard errors; null: no seeds tell
  const shared = pooled([...gains.values()]);
  let square = 0;
  for (const own of [gains.get(one.name), gains.get(other.name)]) {
    const sd = own.length >= page.enough ? Math.sqrt(variance(own)) : shared;
    if (sd === null) return null;
    square += sd ** 2 / Math.max(own.length, 1);
  }
  return Math.abs(mean(gains.get(one.name)) - mean(gains.get(other.name))) <= page.factor * Math.sqrt(square);
}
const mb = (size) => `${size.toFixed(2)} MB`;
function spread(values) {
  const n = values.length;
  return mean(values).toFixed(2) + (n > 1 ? ` ± ${Math.sqrt(variance(values)).toFixed(2)} (${n})` : "");
}
const value = (task, one) => `${task.metric} ${spread(one.values)}`;

function decide(task, wishes) {
  const limits = limitsOf(wishes);
  const tried = task.candidates.filter((one) => one.values.length);
  const broken = Object.fromEntries(
    tried.map((one) => [one.name, limits.filter((limit) => !met(limit, one)).map(text)]));
  const fit = tried.filter((one) => !broken[one.name].length);
  if (!fit.length) return { chosen: null, qualifying: [], broken, words: nothing(tried, limits) };
  const asked = wishes.miss_cost > 0 || wishes.false_alarm_cost > 0;
  const priced = asked ? fit.filter((one) => one.outcomes.length) : [];
  const costs = priced.length ? wishes : null;
  const ranked = priced.length ? priced : fit;
  const gains = new Map(ranked.map((one) => [one.name, gainsOf(task, one, costs)]));
  const best = least(ranked, (one) => -mean(gains.get(one.name)));
  const tied = ranked.filter((one) => one === best || alike(gains, one, best));
  const slow = (one) => one.latency ?? Infinity;
  const chosen = tied.reduce((a, b) => (b.size < a.size || (b.size === a.size && slow(b) < slow(a)) ? b : a));
  const there = costs ? said("worth", { cost: spread(gainsOf(task, best, costs).map((gain) => -gain)) })
    : value(task, best);
  const why = fit.length === 1 ? said("only")
    : chosen === best ? said("best", { n: fit.length })
    : said("tie", { best: best.name, there, size: mb(best.size) });
  const latency = known(chosen.latency) ? `${chosen.latency.toFixed(2)} ms an image` : said("not_measured");
  const choice = said("choice", { name: chosen.name, value: value(task, chosen), size: mb(chosen.size), latency });
  return { chosen: chosen.name, qualifying: fit.map((one) => one.name), broken,
           words: [choice, why, price(task, wishes, chosen, costs, asked), left(task, chosen)] };
}
function price(task, wishes, chosen, costs, asked) {
  if (!costs) return said(asked ? "unpriced" : "free", { metric: task.metric });
  const points = chosen.outcomes.map((own) => cheapest(wishes, own));
  const [score, missed, wrong] = [0, 1, 2].map((i) => mean(points.map((point) => point[i])));
  return said("cost", { cost: mean(points.map((point) => cost(wishes, point))).toFixed(2),
                        missed: missed.toFixed(1), false: wrong.toFixed(1), score: score.toFixed(2) });
}
function left(task, chosen) {
  const tried = task.candidates.filter((one) => one.values.length);
  const gains = new Map(tried.map((one) => [one.name, gainsOf(task, one, null)]));
  const best = (some) => least(some, (one) => -mean(gains.get(one.name)));
  const own = tried.filter((one) => one.model === chosen.model);
  const heads = own.filter((one) => one.method === page.reference);
  const others = own.filter((one) => one.method !== page.reference);
  if (heads.includes(chosen) && !others.length) return "";
  if (!heads.length) return said("no_reference", { model: chosen.model });
  const one = heads.includes(chosen) ? best(others) : chosen, head = best(heads);
  const above = mean(gains.get(one.name)) - mean(gains.get(head.name)), same = alike(gains, one, head);
  return said(above <= 0 ? "left" : "ahead", {
    name: one.name, gap: `${Math.abs(above).toFixed(2)} ${task.metric}`, value: value(task, head),
    noise: said(same === null ? "unknown" : same ? "noise" : "real") });
}
function nothing(tried, limits) {
  if (!tried.length) return [said("empty")];
  const words = [said("nothing")];
  for (const limit of limits) {
    const having = tried.filter((one) => known(measured(one, limit.what)));
    if (!having.length) {
      const cure = limit.what === "latency" ? said("bench") : "";
      words.push(said("unmeasured", { limit: text(limit), cure }));
      continue;
    }
    const far = (one) => {
      const here = measured(one, limit.what);
      return !known(here) ? Infinity : limit.at_most ? here - limit.bound : limit.bound - here;
    };
    const missed = tried.filter((one) => !met(limit, one));
    const free = missed.filter((one) => limits.every((other) => other === limit || met(other, one)));
    const nearest = least(free.length ? free : having, far);
    const here = measured(nearest, limit.what);
    const values = { limit: text(limit), name: nearest.name,
                     value: known(here) ? `${limit.what} ${here.toFixed(2)}${units(limit.what)}` : "" };
    if (free.length && known(here)) words.push(said("binding", values));
    else if (missed.length) words.push(said("conflict", { k: missed.length, n: tried.length, ...values }));
  }
  return words;
}

// What the form says, shown in every task.
const field = (id) => document.getElementById(id);
const amount = (input) => (input.value.trim() === "" || !input.validity.valid ? null : Number(input.value));
const wished = () => ({
  latency: amount(field("latency")), size: amount(field("size")),
  miss_cost: amount(field("miss")) ?? 0, false_alarm_cost: amount(field("false")) ?? 0,
  must: [...document.querySelectorAll(".must")]
    .map((row) => [...row.children])
    .filter(([what, , bound]) => what.value && amount(bound) !== null)
    .map(([what, sign, bound]) => ({ what: what.value, at_most: sign.value === "most", bound: amount(bound) })),
});
function show() {
  const wishes = wished();
  for (const article of document.querySelectorAll(".task")) {
    const task = page.tasks[article.dataset.task], decision = decide(task, wishes);
    article.querySelector(".decision").replaceChildren(...decision.words.filter(Boolean).map((words) => {
      const line = document.createElement("p");
      line.textContent = words;
      return line;
    }));
    for (const row of article.querySelectorAll("tbody tr")) {
      const one = task.candidates.find((candidate) => candidate.name === row.dataset.name);
      const fits = decision.qualifying.includes(one.name), price = row.querySelector(".cost");
      row.classList.toggle("chosen", one.name === decision.chosen);
      row.querySelector(".fits").textContent = fits ? "yes" : (decision.broken[one.name] ?? ["no metric"]).join("; ");
      const known = one.outcomes.length && (wishes.miss_cost > 0 || wishes.false_alarm_cost > 0);
      const value = known ? mean(one.outcomes.map((points) => cost(wishes, cheapest(wishes, points)))) : "";
      price.textContent = known ? value.toFixed(2) : "—";
      price.dataset.sort = value;
    }
  }
}
field("wishes").addEventListener("input", show);
field("wishes").addEventListener("submit", (event) => event.preventDefault());
field("more").addEventListener("click", () => {
  const row = field("must").lastElementChild.cloneNode(true);
  row.querySelector("input").value = "";
  row.querySelector("select").value = "";
  field("must").append(row);
  row.querySelector("select").focus();
});
if (page.wishes.miss_cost > 0 || page.wishes.false_alarm_cost > 0) show();

// Headings sort their column: numbers by size, words by letter, gaps last.
for (const table of document.querySelectorAll("table")) {
  const heads = [...table.tHead.rows[table.tHead.rows.length - 1].cells];
  heads.forEach((head, column) => head.querySelector("button")?.addEventListener("click", () => {
    const up = head.getAttribute("aria-sort") === "descending" || (!head.ariaSort && column === 0);
    heads.forEach((other) => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
    const key = (row) => row.cells[column].dataset.sort ?? row.cells[column].textContent;
    const order = (a, b) => {
      if (a === "" || b === "") return (a === "") - (b === "");
      const numbers = Number(a) - Number(b);
      return (up ? 1 : -1) * (Number.isNaN(numbers) ? a.localeCompare(b, "en", { numeric: true }) : numbers);
    };
    table.tBodies[0].append(...[...table.tBodies[0].rows].sort((a, b) => order(key(a), key(b))));
  }));
}

// One tooltip for all: of what the pointer is on, else the keyboard; Escape hides it.
const tip = field("tip");
let target = null;
function place() {
  tip.hidden = !target;
  if (!target) return;
  const box = target.getBoundingClientRect(), own = tip.getBoundingClientRect();
  const below = box.bottom + own.height + 8 < innerHeight;
  tip.style.left = `${Math.max(6, Math.min(box.left, innerWidth - own.width - 6))}px`;
  tip.style.top = `${below ? box.bottom + 6 : Math.max(6, box.top - own.height - 6)}px`;
}
function point(element) {
  target = element?.closest?.("[data-tip]") ?? document.activeElement?.closest("[data-tip]:focus-visible") ?? null;
  tip.textContent = target?.dataset.tip ?? "";
  place();
}
for (const kind of ["mouseover", "focusin"]) document.addEventListener(kind, (event) => point(event.target));
document.addEventListener("focusout", () => point(null));
document.addEventListener("keydown", (event) => { if (event.key === "Escape") tip.hidden = true; });
document.addEventListener("scroll", () => { if (!tip.hidden) place(); }, true);

// A number that leads to its run opens the list.
function reveal() {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  const list = target?.closest("details");
  if (list && !list.open) { list.open = true; target.scrollIntoView(); }
}
addEventListener("hashchange", reveal);
reveal();
