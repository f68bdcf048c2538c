// What was used of each model, and why a request failed.
function modelName(model, className) {
  return model
    ? make("span", { className, dir: "auto", textContent: model })
    : make("span", { className: `${className} unknown`, textContent: text("unknown") });
}

// Rows of a table: the model with its share of the most used, requests and tokens.
function modelRows(models) {
  const most = Math.max(1, ...models.map((model) => model.requests));
  return models.map((model) =>
    make("tr", {},
      make("th", { scope: "row" }, modelName(model.model, "model"), track(model.requests / most)),
      numberCell(model.requests), tokensCell(model)));
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
