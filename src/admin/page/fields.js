// Fields of the forms that create and edit keys.
const LIMIT = { least: 0, most: 1e9, problem: "badLimit" };
const COUNT = { least: 1, most: 1000, problem: "badCount" };

// The page's message is about this field, until something else is typed.
function markBad(field, isBad) {
  field.ariaInvalid = isBad ? "true" : null;
  if (!isBad) {
    field.removeAttribute("aria-errormessage");
    return;
  }
  field.setAttribute("aria-errormessage", "error");
  field.addEventListener("input", () => markBad(field, false), { once: true });
}

function wholeNumber(field, { least, most, problem }) {
  const typed = field.value.trim().replaceAll(/[,_\s]/g, "");
  const value = /^[0-9]{1,10}$/.test(typed) ? Number(typed) : Number.NaN;
  const fits = value >= least && value <= most;
  markBad(field, !fits);
  if (fits) return value;
  field.focus();
  throw new Problem(problem);
}

// The daily limit, or nothing where the field is empty.
function limitIn(field) {
  if (!field.value.trim()) {
    markBad(field, false);
    return undefined;
  }
  return wholeNumber(field, LIMIT);
}

// The expiry as an instant, or null where the field is empty. It is typed in the reader's zone.
function expiryIn(field) {
  const bad = field.validity.badInput;
  markBad(field, bad);
  if (bad) {
    field.focus();
    throw new Problem("badExpiry");
  }
  return field.value ? new Date(field.value).toISOString().replace(/\.\d+Z$/, "Z") : null;
}

// The same for a key that is to work.
function futureIn(field) {
  const at = expiryIn(field);
  if (!at || Date.parse(at) > Date.now()) return at;
  markBad(field, true);
  field.focus();
  throw new Problem("pastExpiry");
}

function writeExpiry(field, at) {
  if (!at) {
    field.value = "";
    return;
  }
  const moment = new Date(at);
  const local = new Date(moment.getTime() - moment.getTimezoneOffset() * 60000);
  field.value = local.toISOString().slice(0, 16);
}

// Buttons that fill in a usual limit; the one that is filled in is marked.
function startPresets(field, root) {
  const presets = [...root.querySelectorAll("[data-limit]")];
  const mark = () => {
    for (const preset of presets) preset.ariaPressed = String(preset.dataset.limit === field.value.trim());
  };
  for (const preset of presets) {
    preset.addEventListener("click", () => {
      field.value = preset.dataset.limit;
      field.dispatchEvent(new Event("input", { bubbles: true }));
    });
  }
  field.addEventListener("input", mark);
  mark();
  return mark;
}

// Calls `done` a moment after the last keystroke, and at once when the field is left.
function whenTyped(form, done) {
  let waiting;
  const now = () => {
    clearTimeout(waiting);
    done();
  };
  form.addEventListener("input", (event) => {
    clearTimeout(waiting);
    if (event.target.type === "search") waiting = setTimeout(done, 250);
    else now();
  });
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    now();
  });
}
