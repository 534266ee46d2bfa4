"use strict";
// Chooses among what results/grounds.py prepared, sorts tables, shows tooltips. Nothing is fetched.
const page = JSON.parse(document.getElementById("data").textContent);
const known = (x) => x !== null && x !== undefined;
const mean = (values) => values.reduce((a, b) => a + b, 0) / values.length;
const least = (items, key) => items.reduce((a, b) => (key(b) < key(a) ? b : a)); // of equals the first
const said = (key, values = {}) => page.words[key].replace(/\{(\w+)\}/g, (_, name) => values[name]);
const fixed = (x, digits = 2) => { // of the two ends of an exact tie the even one, as Python has it
  const steps = x * 2 ** (digits + 1), tie = Number.isInteger(steps) && steps % 2 !== 0;
  return (tie ? 2 * Math.round(x * 10 ** digits / 2) / 10 ** digits : x).toFixed(digits);
};
const text = (what, value, sign = "") => `${what} ${sign}${fixed(value)}${page.units[what] ?? ""}`;

// What is wished for.
const bound = (limit) => text(limit.what, limit.bound, limit.at_most ? "≤ " : "≥ ");
const distance = (limit, one) => {
  const value = one.measured[limit.what];
  return !known(value) ? Infinity : limit.at_most ? value - limit.bound : limit.bound - value;
};
const met = (limit, one) => distance(limit, one) <= 0;
const limitsOf = (wishes) => [
  ...["latency", "size"].filter((what) => known(wishes[what]))
    .map((what) => ({ what, at_most: true, bound: wishes[what] })),
  ...wishes.must];
const priced = (wishes) => wishes.miss_cost > 0 || wishes.false_alarm_cost > 0;
const cost = (wishes, [, missed, wrong]) => wishes.miss_cost * missed + wishes.false_alarm_cost * wrong;
const cheapest = (wishes, one) => one.outcomes.map((points) => least(points, (point) => cost(wishes, point)));
const costs = (wishes, one) => cheapest(wishes, one).map((point) => cost(wishes, point));

const price = (wishes, one) => one.outcomes.length
  ? mean(cheapest(wishes, one).map((point) => cost(wishes, point))) : Infinity;

// The steps of decide and _pick in decision.py, over the numbers and sentences of grounds.py.
function decide(task, wishes) {
  const limits = limitsOf(wishes), tried = task.candidates;
  const stable = tried.filter((one) => !one.unstable);
  const unstable = tried.map((one) => one.unstable).filter(Boolean);
  const broken = Object.fromEntries(tried.map((one) => [one.name,
    [...limits.filter((limit) => !met(limit, one)).map(bound), ...(one.unstable ? [said("out")] : [])]]));
  const fit = tried.filter((one) => !broken[one.name].length);
  if (task.stop || !fit.length) {
    const words = task.stop ? [task.stop] : nothing(stable, limits);
    return { chosen: null, broken, worse: {}, words: [...words, ...unstable] };
  }
  const best = least(fit, (one) => -one.mean), row = task.loss[tried.indexOf(best)];
  const loss = (one) => row[tried.indexOf(one)], pick = choose(wishes, fit, best, loss);
  const worse = Object.fromEntries(fit.map((one) => [one.name, loss(one)]));
  if (!pick) {
    const terms = { name: best.name, value: best.value, margin: fixed(wishes.margin), metric: task.metric };
    return { chosen: null, broken, worse, words: [said("doubted", terms), ...unstable] };
  }
  const words = [pick.chosen.choice, why(task, wishes, pick), task.noise > wishes.margin ? task.hidden : "",
                 errors(wishes, pick.chosen), pick.chosen.left, ...unstable, ...unsettled(task, wishes, pick)];
  return { chosen: pick.chosen.name, broken, worse, words: words.filter(Boolean) };
}
function choose(wishes, fit, best, loss) { // the cheapest that is good enough, none if that is doubtful
  const worst = (one) => loss(one) ?? Infinity;
  const rank = (one) => priced(wishes) ? Number(fixed(price(wishes, one))) : fit.indexOf(one);
  const enough = fit.filter((one) => (one === best || worst(one) <= wishes.margin) && !one.doubtful);
  if (!enough.length) return null;
  const chosen = least(enough, rank);
  const cheaper = fit.filter((one) => rank(one) < rank(chosen)).sort((a, b) => worst(a) - worst(b) || 0);
  return { fit, best, enough, chosen, cheaper, loss };
}
function why(task, wishes, { fit, best, enough, chosen, cheaper, loss }) {
  const terms = { margin: fixed(wishes.margin), metric: task.metric };
  if (fit.length === 1) return said("only");
  if (!known(task.noise)) return said("blind");
  if (chosen === best) return said("best", { n: fit.length, held: cheaper.length ? said("held", terms) : "" });
  const merit = said(priced(wishes) && chosen.outcomes.length ? "priced" : "smallest");
  return said("enough", { ...terms, merit, n: enough.length, loss: fixed(loss(chosen)),
                          best: best.name, there: best.value, size: best.size });
}
function errors(wishes, chosen) {
  if (!priced(wishes)) return "";
  if (!chosen.outcomes.length) return said("unpriced");
  const points = cheapest(wishes, chosen);
  const [score, missed, wrong] = [0, 1, 2].map((i) => mean(points.map((point) => point[i])));
  return said("cost", { cost: fixed(price(wishes, chosen)), missed: fixed(missed, 1),
                        false: fixed(wrong, 1), score: fixed(score) });
}
function unsettled(task, wishes, { best, cheaper, loss }) { // what might be good enough, and would cost less
  const lost = (one) => best.mean - one.mean;
  return cheaper.filter((one) => known(loss(one)) && 2 * lost(one) - loss(one) <= wishes.margin)
    .slice(0, page.named).map((one) => {
      const about = { name: one.name, size: one.size, metric: task.metric, best: best.name, loss: fixed(loss(one)) };
      if (one.doubtful && loss(one) <= wishes.margin) return said("doubtful", { ...about, value: one.value });
      const seeds = Math.min(one.seeds, best.seeds);
      return said("open", { ...about, settle: settle(task, wishes.margin - lost(one), seeds) });
    });
}
function settle(task, distance, seeds) {
  if (Math.abs(distance) < page.small) return "";
  const place = task.reaches.findIndex((reach) => reach <= Math.abs(distance)), more = place + 2 - seeds;
  if (place < 0) return said("never");
  return more > 0 ? said("settle", { n: more, s: more > 1 ? "s" : "" }) : said("others");
}
function nothing(tried, limits) { // which limit binds, else what each rules out
  if (!tried.length) return [said("empty")];
  const words = [said("nothing")];
  for (const limit of limits) {
    const having = tried.filter((one) => known(one.measured[limit.what]));
    if (!having.length) {
      const cure = limit.what === "latency" ? said("bench") : "";
      words.push(said("unmeasured", { limit: bound(limit), cure }));
      continue;
    }
    const missed = tried.filter((one) => !met(limit, one));
    const free = missed.filter((one) => limits.every((other) => other === limit || met(other, one)));
    const nearest = least(free.length ? free : having, (one) => distance(limit, one));
    const here = nearest.measured[limit.what];
    const values = { limit: bound(limit), name: nearest.name, value: known(here) ? text(limit.what, here) : "" };
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
  margin: amount(field("margin")) ?? page.wishes.margin,
  must: [...document.querySelectorAll(".must")]
    .map((row) => [...row.children])
    .filter(([what, , bound]) => what.value && amount(bound) !== null)
    .map(([what, sign, bound]) => ({ what: what.value, at_most: sign.value === "most", bound: amount(bound) })),
});
function show() {
  const wishes = wished();
  for (const article of document.querySelectorAll(".task")) {
    const task = page.tasks[article.dataset.task], decision = decide(task, wishes);
    article.querySelector(".decision").classList.toggle("undecided", !decision.chosen);
    article.querySelector(".decision").replaceChildren(...decision.words.map((words) => {
      const line = document.createElement("p");
      line.textContent = words;
      return line;
    }));
    for (const row of article.querySelectorAll("tbody tr")) {
      const one = task.candidates.find((candidate) => candidate.name === row.dataset.name);
      if (!one) continue; // no run of it is done
      row.classList.toggle("chosen", one.name === decision.chosen);
      row.querySelector(".fits").textContent = decision.broken[one.name].join("; ")
        || said(task.stop ? "none_chosen" : one.doubtful ? "doubt" : "yes");
      write(row.querySelector(".worse"), decision.worse[one.name]);
      write(row.querySelector(".cost"), priced(wishes) && one.outcomes.length ? price(wishes, one) : null);
    }
  }
}
function write(cell, value) {
  cell.textContent = known(value) ? fixed(value) : "—";
  cell.dataset.sort = value ?? "";
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
if (priced(page.wishes)) show();

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
