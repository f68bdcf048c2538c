// Thirty days as a bar chart, and as a table for whoever prefers one.
const DAY = 86400000;
const DAYS = 30;
const FOOT = 24;
const HEAD = 12;

let measure = "requests";
let month = [];
// The day that the keyboard is on.
let current = DAYS - 1;
let drawn = "";

// The days up to today, oldest first; those that the gateway does not tell of had no use.
function monthOf(usage) {
  const known = new Map(usage.history.map((past) => [past.day, past]));
  const { succeeded, failed } = usage.requests;
  known.set(usage.day, { requests: succeeded + failed, failed, tokens: usage.tokens.total });
  const today = Date.parse(usage.day);
  return Array.from({ length: DAYS }, (_, place) => {
    const name = new Date(today - (DAYS - 1 - place) * DAY).toISOString().slice(0, 10);
    const { requests = 0, failed: lost = 0, tokens = 0 } = known.get(name) ?? {};
    return { name, requests, failed: lost, tokens };
  });
}

function showMonth(usage) {
  month = monthOf(usage);
  const sum = (what) => month.reduce((all, one) => all + one[what], 0);
  $("month-sum").textContent = sum("requests") || sum("tokens")
    ? text("monthSum")(number(sum("requests")), number(sum("tokens")))
    : text("nothing");
  $("days").replaceChildren(...month.toReversed().map((one) =>
    make("tr", {},
      make("th", { scope: "row", textContent: day(one.name) }),
      ...[one.requests, one.failed, one.tokens].map(numberCell))));
  showChart();
}

// Draws at the size on screen, so that type keeps its size; not anew when nothing has changed.
function showChart() {
  const width = Math.floor($("chart").clientWidth);
  const signature = JSON.stringify([width, measure, locale(), language, month]);
  $("legend").hidden = measure !== "requests" || !month.some((one) => one.failed);
  if (!width || !month.length || signature === drawn) return;
  drawn = signature;
  const hadFocus = $("chart").querySelector("svg")?.contains(document.activeElement);
  $("chart").querySelector("svg")?.remove();
  const height = width < 480 ? 184 : 232;
  $("chart").prepend(chart(width, month.some((one) => one[measure]) ? height : 72));
  hideTip();
  if (hadFocus) bars()[current].focus();
}

const bars = () => [...$("chart").querySelectorAll("[data-place]")];

function chart(width, height) {
  const ticks = ticksUpTo(Math.max(...month.map((one) => one[measure])));
  const top = ticks.at(-1) || 1;
  const side = 10 + Math.max(...ticks.map((tick) => widthOf(roughly(tick))));
  const column = (width - side) / DAYS;
  const y = (value) => HEAD + (height - HEAD - FOOT) * (1 - value / top);
  const base = y(0);
  const svg = draw("svg", {
    viewBox: `0 0 ${width} ${height}`, height, role: "group",
    "aria-label": text("chartName")(text(measure)), "aria-describedby": "chart-hint",
  });
  for (const tick of ticks) {
    svg.append(
      draw("line", { class: "grid", x1: side, x2: width, y1: Math.round(y(tick)), y2: Math.round(y(tick)) }),
      draw("text", { x: side - 8, y: y(tick) + 4, "text-anchor": "end", "aria-hidden": "true" }, roughly(tick)));
  }
  const thick = Math.max(2, Math.min(22, Math.round(column * 0.7)));
  month.forEach((one, place) => {
    const left = side + place * column;
    const band = draw("rect", { class: "band", x: left, width: column, y: HEAD, height: base - HEAD, rx: 3 });
    const bar = draw("g", {
      role: "img", tabindex: place === current ? 0 : -1, "data-place": place,
      "aria-label": text("bar")(longDay(one.name), number(one.requests), number(one.failed), number(one.tokens)),
    }, band, ...pieces(one, left + (column - thick) / 2, thick, base, (value) => base - y(value)));
    svg.append(bar);
  });
  svg.append(...dayNames(side, column, height - 6));
  return svg;
}

// Han characters are as wide as they are high.
const widthOf = (words) => [...words].reduce((width, letter) => width + (letter > "\u2e7f" ? 12.5 : 7.5), 0);

// A day's bar: what failed stands on what succeeded, apart from it, so that it is told by more
// than its colour.
function pieces(one, x, width, base, size) {
  const failed = measure === "requests" ? Math.min(one.failed, one.requests) : 0;
  const good = one[measure] - failed;
  if (!good && !failed) return [draw("rect", { class: "none", x, width, y: base - 1, height: 1 })];
  const goodSize = good && Math.max(2, size(good));
  const failedSize = failed && Math.max(2, size(failed) - (good ? 2 : 0));
  const piece = (name, from, height) =>
    draw("rect", { class: name, x, width, y: base - from - height, height, rx: Math.min(2, height / 2) });
  return [
    ...(good ? [piece("good", 0, goodSize)] : []),
    ...(failed ? [piece("failed", good ? goodSize + 2 : 0, failedSize)] : []),
  ];
}

// Names so few days that they never touch; the last is today.
function dayNames(side, column, y) {
  const every = [5, 7, 10, 14].find((days) => days * column >= 76) ?? 14;
  const named = [];
  for (let place = DAYS - 1 - every; place >= 0; place -= every) named.push(place);
  const name = (place, words, anchor) =>
    draw("text", { x: side + (place + (anchor === "end" ? 1 : 0.5)) * column, y, "text-anchor": anchor, "aria-hidden": "true" }, words);
  return [name(DAYS - 1, text("dayToday"), "end"), ...named.map((place) => name(place, day(month[place].name), "middle"))];
}

// Round whole numbers from 0 to at least `most`.
function ticksUpTo(most) {
  if (!most) return [0];
  const rough = most / 4;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = Math.max(1, [1, 2, 5, 10].find((factor) => factor * power >= rough) * power);
  return Array.from({ length: Math.ceil(most / step) + 1 }, (_, place) => place * step);
}

function showTip(place) {
  const one = month[place];
  const line = (name, value) => make("span", {}, make("span", { textContent: text(name) }), number(value));
  const failed = one.failed ? [line("failed", one.failed)] : [];
  const today = place === DAYS - 1 ? ` (${text("dayToday")})` : "";
  $("tip").replaceChildren(
    make("strong", { textContent: longDay(one.name) + today }),
    line("requests", one.requests), ...failed, line("tokens", one.tokens));
  $("tip").hidden = false;
  for (const bar of bars()) bar.classList.toggle("shown", Number(bar.dataset.place) === place);
  // Beside the bar, on the side with more room: neither the bar nor the heading is covered.
  const frame = $("chart").getBoundingClientRect();
  const band = bars()[place].querySelector(".band").getBoundingClientRect();
  const left = place < DAYS / 2
    ? band.right + 6 - frame.left
    : band.left - 6 - frame.left - $("tip").offsetWidth;
  $("tip").style.left = `${Math.max(0, Math.min(left, frame.width - $("tip").offsetWidth))}px`;
}

function hideTip() {
  $("tip").hidden = true;
  for (const bar of bars()) bar.classList.remove("shown");
}

function moveTo(place) {
  bars()[current].setAttribute("tabindex", -1);
  current = Math.max(0, Math.min(DAYS - 1, place));
  bars()[current].setAttribute("tabindex", 0);
  bars()[current].focus();
}

// The whole column is the target, and on a touch screen the finger may slide.
function placeUnder(event) {
  const place = bars().findIndex((bar) => event.clientX < bar.querySelector(".band").getBoundingClientRect().right);
  const first = bars()[0]?.querySelector(".band").getBoundingClientRect();
  return first && event.clientX >= first.left ? place : -1;
}

function startChart() {
  const moved = (event) => {
    const place = placeUnder(event);
    if (place < 0) hideTip();
    else showTip(place);
  };
  $("chart").addEventListener("pointermove", moved);
  $("chart").addEventListener("pointerdown", moved);
  $("chart").addEventListener("pointerleave", (event) => {
    if (event.pointerType !== "touch") hideTip();
  });
  $("chart").addEventListener("focusin", (event) => {
    if (event.target.matches(":focus-visible")) showTip(Number(event.target.dataset.place));
  });
  $("chart").addEventListener("focusout", hideTip);
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") hideTip();
  });
  $("chart").addEventListener("keydown", (event) => {
    const to = { ArrowLeft: current - 1, ArrowRight: current + 1, Home: 0, End: DAYS - 1 }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    moveTo(to);
  });
  for (const choice of document.getElementsByName("measure")) {
    choice.addEventListener("change", () => {
      measure = choice.value;
      showChart();
    });
  }
  new ResizeObserver(showChart).observe($("chart"));
}
