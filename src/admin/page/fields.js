// Fields of the forms that create and edit keys.
addTexts({
  labelField: ["Label (optional)", "标签（可选）"],
  limitField: ["Requests a day", "请求限制（次/日）"],
  presets: ["Usual limits", "常用限制"],
  expiryField: ["Expires (optional)", "有效期至（可选）"],
});

addProblems({
  badLimit: ["Requests a day must be a whole number from 0 (unlimited) to 1,000,000,000.", "请求限制必须是 0（无限制）到 1000000000 的整数。"],
  badCount: ["The number of keys must be a whole number from 1 to 1,000.", "密钥数量必须是 1 到 1000 的整数。"],
  badExpiry: ["The expiry is not complete: it needs day and time.", "有效期不完整，请填写日期和时间。"],
  pastExpiry: ["The expiry must lie in the future.", "有效期必须晚于现在。"],
});

const LIMIT = { min: 0, max: 1e9, problem: "badLimit" };
const COUNT = { min: 1, max: 1000, problem: "badCount" };

// Marks the field as invalid, until its next input.
function setInvalid(field, isBad) {
  field.ariaInvalid = isBad ? "true" : null;
  if (!isBad) {
    field.removeAttribute("aria-errormessage");
    return;
  }
  field.setAttribute("aria-errormessage", "error");
  field.addEventListener("input", () => setInvalid(field, false), { once: true });
}

function wholeNumber(field, { min, max, problem }) {
  const typed = field.value.trim().replaceAll(/[,_\s]/g, "");
  const value = /^[0-9]{1,10}$/.test(typed) ? Number(typed) : Number.NaN;
  const fits = value >= min && value <= max;
  setInvalid(field, !fits);
  if (fits) return value;
  field.focus();
  throw new Problem(problem);
}

// The daily limit, or undefined if the field is empty.
function limitIn(field) {
  if (!field.value.trim()) {
    setInvalid(field, false);
    return undefined;
  }
  return wholeNumber(field, LIMIT);
}

// The expiry in UTC, or null if the field is empty. The field is in the browser's time zone.
function expiryIn(field) {
  const bad = field.validity.badInput;
  setInvalid(field, bad);
  if (bad) {
    field.focus();
    throw new Problem("badExpiry");
  }
  return field.value ? new Date(field.value).toISOString().replace(/\.\d+Z$/, "Z") : null;
}

// The expiry, which must be in the future.
function futureIn(field) {
  const at = expiryIn(field);
  if (!at || Date.parse(at) > Date.now()) return at;
  setInvalid(field, true);
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

// Buttons that fill in a common limit. The current one is marked.
function addPresets(field, root) {
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

// Calls `done` shortly after the last keystroke in a search field, and at once for other changes.
function onFilterChange(form, done) {
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
