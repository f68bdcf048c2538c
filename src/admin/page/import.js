// Bringing keys in from a file: first what would happen, then the import itself.
const ROWS_SHOWN = 200;
const LARGEST_FILE = 32 * 1024 * 1024;

// As it is: the gateway says so if it is no UTF-8.
let importBytes = null;

function openImport() {
  $("import-file").value = "";
  forgetImport();
  $("import-dialog").showModal();
}

function forgetImport() {
  importBytes = null;
  say($("import-problem"), null);
  $("import-plan").hidden = true;
  $("import-yes").hidden = true;
  $("import-rows").replaceChildren();
}

const sendImport = (isDry) =>
  api("POST", `/keys/import?${query({ dry_run: isDry })}`, { body: importBytes, headers: { "content-type": "text/csv" }, patience: 120000 });

const refuseImport = (words) => say($("import-problem"), words);

function readImport() {
  forgetImport();
  const file = $("import-file").files[0];
  if (!file) return undefined;
  return run(async () => {
    if (file.size > LARGEST_FILE) throw new Problem("tooLarge");
    importBytes = await file.arrayBuffer();
    showPlan(await sendImport(true));
  }, $("import-yes"), refuseImport);
}

function showPlan(plan) {
  const fresh = plan.new;
  $("import-sum").textContent = text("importSum")(number(fresh), number(plan.unchanged), number(plan.conflicts));
  $("import-sum").className = `notice${plan.conflicts ? " warn" : ""}`;
  $("import-rows").replaceChildren(...plan.rows.slice(0, ROWS_SHOWN).map((row) =>
    make("tr", {},
      make("td", { className: "number", textContent: number(row.line) }),
      make("td", { className: "free", dir: "auto", textContent: row.label || text("noLabel") }),
      make("td", {}, outcomeWords(row)))));
  say($("import-more"), plan.rows.length > ROWS_SHOWN ? text("importMore")(number(plan.rows.length - ROWS_SHOWN)) : null);
  $("import-yes").textContent = text("importYes")(number(fresh));
  $("import-yes").hidden = fresh === 0;
  $("import-plan").hidden = false;
  $("import-plan").focus();
}

function outcomeWords({ outcome, reason }) {
  const known = Object.hasOwn(text("outcomes"), outcome) ? text("outcomes")[outcome] : outcome;
  return reason ? `${known}: ${reason}` : known;
}

function commitImport() {
  return run(async () => {
    const done = await sendImport(false);
    $("import-dialog").close();
    await load();
    notify("status", text("importDone")(number(done.new), number(done.unchanged), number(done.conflicts)));
  }, $("import-yes"), refuseImport);
}

function startImport() {
  $("import-file").addEventListener("change", readImport);
  $("import-yes").addEventListener("click", commitImport);
  $("import-close").addEventListener("click", () => $("import-dialog").close());
  $("import-dialog").addEventListener("close", forgetImport);
}

// Hands a text to the reader as a file, with the mark by which spreadsheets know UTF-8.
function download(name, content) {
  const address = URL.createObjectURL(new Blob(["\ufeff", content], { type: "text/csv;charset=utf-8" }));
  const link = make("a", { href: address, download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(address), 10000);
}
