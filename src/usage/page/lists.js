// Models and last errors. Each list is shown if the response contains it.
const MODELS_SHOWN = 6;
let showsAll = false;

function showLists(usage) {
  const hasModels = Array.isArray(usage.models);
  const hasErrors = Array.isArray(usage.errors);
  $("models-card").hidden = !hasModels;
  $("errors-card").hidden = !hasErrors;
  $("lists").hidden = !hasModels && !hasErrors;
  $("lists").classList.toggle("single", hasModels !== hasErrors);
  if (hasModels) showModelList(usage.models);
  if (hasErrors) showErrors(usage.errors);
}

function showModelList(models) {
  showModels(models, showsAll ? models : models.slice(0, MODELS_SHOWN));
  $("all-models").hidden = models.length <= MODELS_SHOWN;
  $("all-models").textContent = showsAll ? text("fewModels") : text("allModels")(number(models.length));
  $("all-models").ariaExpanded = showsAll;
}

function showErrors(errors) {
  $("no-errors").hidden = errors.length > 0;
  $("errors").hidden = errors.length === 0;
  $("errors").replaceChildren(...errors.slice(0, 10).map((error) => make("li", {},
    make("div", { className: "what" },
      make("span", { textContent: cause(error) }),
      ...(error.refunded ? [make("span", { className: "tag", textContent: text("refunded") })] : [])),
    make("div", { className: "about" }, ...circumstances(error)))));
}

function circumstances({ at, status, code, model }) {
  const parts = [];
  if (!Number.isNaN(Date.parse(at))) parts.push(make("time", { dateTime: at, textContent: shortMoment(at) }));
  if (model) parts.push(modelName(model, "of"));
  const technical = [status, code].filter(Boolean).join(" ");
  if (technical) parts.push(make("code", { textContent: technical }));
  return parts;
}

function startLists(onChange) {
  $("all-models").addEventListener("click", () => {
    showsAll = !showsAll;
    onChange();
  });
}
