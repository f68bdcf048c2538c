// Thirty days as a bar chart and as a table.
addTexts({
  month: ["Last 30 days", "最近 30 天"],
  measure: ["Show in the chart", "图表内容"],
  day: ["Day", "日期"],
  dayToday: ["Today", "今天"],
  chartHint: ["One bar a day. The arrow keys, Home and End move from day to day.", "每天一根柱，可用方向键、Home 和 End 键切换日期。"],
  chartName: [(what) => `${what}, last 30 days`, (what) => `最近 30 天：${what}`],
  asTable: ["Show as a table", "以表格显示"],
  monthSum: [(requests, tokens) => `Requests: ${requests}, tokens: ${tokens}`, (requests, tokens) => `${requests} 次请求，${tokens} 个 Token`],
  nothing: ["No usage yet.", "尚无用量。"],
  bar: [
    (day, requests, failed, tokens) => `${day}. Requests: ${requests}, failed: ${failed}, tokens: ${tokens}`,
    (day, requests, failed, tokens) => `${day}：请求 ${requests} 次，失败 ${failed} 次，Token ${tokens} 个`,
  ],
});

const DAY = 86400000;
const DAYS = 30;
const CHART_MARGIN_TOP = 12;
const CHART_MARGIN_BOTTOM = 24;

// The days up to `today`, oldest first. Days that are not in `known` have no requests.
function daysUpTo(today, known) {
  const last = Date.parse(today);
  return Array.from({ length: DAYS }, (_, index) => {
    const name = new Date(last - (DAYS - 1 - index) * DAY).toISOString().slice(0, 10);
    const { requests = 0, failed = 0, tokens = 0, tokens_unknown = 0 } = known.get(name) ?? {};
    return { name, requests, failed, succeeded: requests - failed, tokens, tokens_unknown };
  });
}

class MonthChart {
  #month = [];
  #measure = "requests";
  // Index of the day that has the keyboard focus.
  #current = DAYS - 1;
  #drawn = "";

  // Fills an empty card, with a heading of this level.
  constructor(card, heading) {
    this.sum = make("p", { className: "soft", id: "month-sum" });
    this.legend = make("p", { className: "legend", id: "legend", ariaHidden: "true" },
      translated("span", "succeeded", { className: "good" }), translated("span", "failed", { className: "failed" }));
    this.tip = make("div", { className: "tip", id: "tip", ariaHidden: "true", hidden: true });
    this.frame = make("div", { className: "chart", id: "chart" },
      translated("p", "chartHint", { className: "unseen", id: "chart-hint" }), this.tip);
    this.rows = make("tbody", { id: "days" });
    const title = translated(heading, "month", { id: "chart-title" });
    card.append(make("div", { className: "head" }, make("div", {}, title, this.sum), this.#choice()),
      this.legend, this.frame, this.#table());
    card.setAttribute("aria-labelledby", title.id);
    for (const part of [this.sum, this.tip, this.frame]) part.dataset.testid = part.id;
    this.#listen();
  }

  // Shows the days that `daysUpTo` returns.
  show(month) {
    this.#month = month;
    const sum = (what) => month.reduce((all, one) => all + one[what], 0);
    const unknown = tokensUnknown({ tokens_unknown: sum("tokens_unknown"), succeeded: sum("succeeded") });
    this.sum.textContent = sum("requests") || sum("tokens")
      ? [text("monthSum")(number(sum("requests")), number(sum("tokens"))), unknown].filter(Boolean).join(" · ")
      : text("nothing");
    this.rows.replaceChildren(...month.toReversed().map((one) =>
      make("tr", {},
        make("th", { scope: "row", textContent: day(one.name) }),
        ...[one.requests, one.failed, one.tokens].map(numberCell))));
    this.#draw();
  }

  #choice() {
    const one = (value) => {
      const radio = make("input", { type: "radio", name: "measure", value, checked: value === this.#measure });
      radio.dataset.testid = `measure-${value}`;
      radio.addEventListener("change", () => {
        this.#measure = value;
        this.#draw();
      });
      return make("label", {}, radio, translated("span", value));
    };
    return make("fieldset", { className: "switch" },
      translated("legend", "measure", { className: "unseen" }), one("requests"), one("tokens"));
  }

  #table() {
    const heading = (name, className = "") => translated("th", name, { scope: "col", className });
    const summary = translated("summary", "asTable");
    summary.dataset.testid = "as-table";
    const table = make("table", {},
      translated("caption", "month", { className: "unseen" }),
      make("thead", {}, make("tr", {},
        heading("day"), ...["requests", "failed", "tokens"].map((name) => heading(name, "number")))),
      this.rows);
    table.dataset.testid = "days";
    return make("details", {}, summary, table);
  }

  // Draws at the size on screen, so that text keeps its size. Does nothing if nothing has changed.
  #draw() {
    const width = Math.floor(this.frame.clientWidth);
    const signature = JSON.stringify([width, this.#measure, locale(), language, this.#month]);
    this.legend.hidden = this.#measure !== "requests" || !this.#month.some((one) => one.failed);
    if (!width || !this.#month.length || signature === this.#drawn) return;
    this.#drawn = signature;
    const old = this.frame.querySelector("svg");
    const hadFocus = old?.contains(document.activeElement);
    old?.remove();
    const height = width < 480 ? 184 : 232;
    this.frame.prepend(this.#picture(width, this.#month.some((one) => one[this.#measure]) ? height : 72));
    this.#hideTip();
    if (hadFocus) this.#bars()[this.#current].focus();
  }

  #bars() {
    return [...this.frame.querySelectorAll("[data-place]")];
  }

  #picture(width, height) {
    const ticks = ticksUpTo(Math.max(...this.#month.map((one) => one[this.#measure])));
    const top = ticks.at(-1) || 1;
    const side = 10 + Math.max(...ticks.map((tick) => widthOf(compactNumber(tick))));
    const column = (width - side) / DAYS;
    const y = (value) => CHART_MARGIN_TOP + (height - CHART_MARGIN_TOP - CHART_MARGIN_BOTTOM) * (1 - value / top);
    const base = y(0);
    const svg = draw("svg", {
      viewBox: `0 0 ${width} ${height}`, height, role: "group",
      "aria-label": text("chartName")(text(this.#measure)), "aria-describedby": "chart-hint",
    });
    for (const tick of ticks) {
      svg.append(
        draw("line", { class: "grid", x1: side, x2: width, y1: Math.round(y(tick)), y2: Math.round(y(tick)) }),
        draw("text", { x: side - 8, y: y(tick) + 4, "text-anchor": "end", "aria-hidden": "true" }, compactNumber(tick)));
    }
    const thick = Math.max(2, Math.min(22, Math.round(column * 0.7)));
    this.#month.forEach((one, place) => {
      const left = side + place * column;
      const band = draw("rect", { class: "band", x: left, width: column, y: CHART_MARGIN_TOP, height: base - CHART_MARGIN_TOP, rx: 3 });
      svg.append(draw("g", {
        role: "img", tabindex: place === this.#current ? 0 : -1, "data-place": place,
        "aria-label": [
          text("bar")(longDay(one.name), number(one.requests), number(one.failed), number(one.tokens)), tokensUnknown(one),
        ].filter(Boolean).join(" · "),
      }, band, ...this.#pieces(one, left + (column - thick) / 2, thick, base, (value) => base - y(value))));
    });
    svg.append(...this.#dayNames(side, column, height - 6));
    return svg;
  }

  // A day's bar: failed requests above succeeded ones with a gap, so that colour is not the only
  // difference.
  #pieces(one, x, width, base, size) {
    const failed = this.#measure === "requests" ? Math.min(one.failed, one.requests) : 0;
    const good = one[this.#measure] - failed;
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

  // Labels few enough days that the labels never touch. The last one is today.
  #dayNames(side, column, y) {
    const every = [5, 7, 10, 14].find((days) => days * column >= 76) ?? 14;
    const named = [];
    for (let place = DAYS - 1 - every; place >= 0; place -= every) named.push(place);
    const name = (place, words, anchor) =>
      draw("text", { x: side + (place + (anchor === "end" ? 1 : 0.5)) * column, y, "text-anchor": anchor, "aria-hidden": "true" }, words);
    return [
      name(DAYS - 1, text("dayToday"), "end"),
      ...named.map((place) => name(place, day(this.#month[place].name), "middle")),
    ];
  }

  #showTip(place) {
    const one = this.#month[place];
    const line = (name, value) => make("span", {}, make("span", { textContent: text(name) }), number(value));
    const failed = one.failed ? [line("failed", one.failed)] : [];
    const today = place === DAYS - 1 ? ` (${text("dayToday")})` : "";
    this.tip.replaceChildren(
      make("strong", { textContent: longDay(one.name) + today }),
      line("requests", one.requests), ...failed, line("tokens", one.tokens),
      ...(one.tokens_unknown ? [make("span", { textContent: tokensUnknown(one) })] : []));
    this.tip.hidden = false;
    for (const bar of this.#bars()) bar.classList.toggle("shown", Number(bar.dataset.place) === place);
    // Beside the bar, on the wider side, so that it covers neither the bar nor the heading.
    const frame = this.frame.getBoundingClientRect();
    const band = this.#bars()[place].querySelector(".band").getBoundingClientRect();
    const left = place < DAYS / 2
      ? band.right + 6 - frame.left
      : band.left - 6 - frame.left - this.tip.offsetWidth;
    this.tip.style.left = `${Math.max(0, Math.min(left, frame.width - this.tip.offsetWidth))}px`;
  }

  #hideTip() {
    this.tip.hidden = true;
    for (const bar of this.#bars()) bar.classList.remove("shown");
  }

  #moveTo(place) {
    this.#bars()[this.#current].setAttribute("tabindex", -1);
    this.#current = Math.max(0, Math.min(DAYS - 1, place));
    this.#bars()[this.#current].setAttribute("tabindex", 0);
    this.#bars()[this.#current].focus();
  }

  // The whole column is the pointer's target; on a touch screen the finger may slide.
  #placeUnder(event) {
    const edges = this.#bars().map((bar) => bar.querySelector(".band").getBoundingClientRect());
    return edges.length && event.clientX >= edges[0].left ? edges.findIndex((edge) => event.clientX < edge.right) : -1;
  }

  #listen() {
    const moved = (event) => {
      const place = this.#placeUnder(event);
      if (place < 0) this.#hideTip();
      else this.#showTip(place);
    };
    this.frame.addEventListener("pointermove", moved);
    this.frame.addEventListener("pointerdown", moved);
    this.frame.addEventListener("pointerleave", (event) => {
      if (event.pointerType !== "touch") this.#hideTip();
    });
    this.frame.addEventListener("focusin", (event) => {
      if (event.target.matches(":focus-visible")) this.#showTip(Number(event.target.dataset.place));
    });
    this.frame.addEventListener("focusout", () => this.#hideTip());
    this.frame.addEventListener("keydown", (event) => {
      if (event.key === "Escape") this.#hideTip();
      const to = { ArrowLeft: this.#current - 1, ArrowRight: this.#current + 1, Home: 0, End: DAYS - 1 }[event.key];
      if (to === undefined) return;
      event.preventDefault();
      this.#moveTo(to);
    });
    new ResizeObserver(() => this.#draw()).observe(this.frame);
  }
}

// Estimated width in pixels; Han characters are wider.
const widthOf = (words) => [...words].reduce((width, letter) => width + (letter > "\u2e7f" ? 12.5 : 7.5), 0);

// Round numbers from 0 to at least `max`.
function ticksUpTo(max) {
  if (!max) return [0];
  const rough = max / 4;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = Math.max(1, [1, 2, 5, 10].find((factor) => factor * power >= rough) * power);
  return Array.from({ length: Math.ceil(max / step) + 1 }, (_, index) => index * step);
}
