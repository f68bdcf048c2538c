// Usage by model, and why a request failed.
function modelName(model, className) {
  return model
    ? make("span", { className, dir: "auto", textContent: model })
    : make("span", { className: `${className} unknown`, textContent: text("unknown") });
}

// Fills the table of models: each with its share of the most used, requests and tokens.
function showModels(models, shown = models) {
  $("no-models").hidden = models.length > 0;
  $("models-table").hidden = models.length === 0;
  const max = Math.max(1, ...shown.map((model) => model.requests));
  $("models").replaceChildren(...shown.map((model) =>
    make("tr", {},
      make("th", { scope: "row" }, modelName(model.model, "model"), track(model.requests / max)),
      numberCell(model.requests), tokensCell(model))));
}

function tokensCell({ tokens, tokens_unknown: unknown = 0 }) {
  const cell = numberCell(tokens);
  if (unknown > 0) cell.append(make("span", { className: "soft below", textContent: text("someUnknown")(number(unknown)) }));
  return cell;
}

function cause({ code, status }) {
  const known = Object.hasOwn(text("causes"), code ?? "") ? text("causes")[code] : null;
  return known ?? (status ? text("status")(status) : text("someError"));
}
