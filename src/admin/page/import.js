// Imports keys from a file, after a dry run.
const ROWS_SHOWN = 200;
const MAX_FILE_LEN = 32 * 1024 * 1024;

// The bytes of the file. The gateway checks their encoding.
let importBytes = null;

function openImport() {
  $("import-file").value = "";
  discardImport();
  $("import-dialog").showModal();
}

function discardImport() {
  importBytes = null;
  setText($("import-problem"), null);
  $("import-plan").hidden = true;
  $("import-yes").hidden = true;
  $("import-rows").replaceChildren();
}

const sendImport = (isDry) =>
  api("POST", `/keys/import?${query({ dry_run: isDry })}`, { body: importBytes, headers: { "content-type": "text/csv" }, timeout: 120000 });

const showImportProblem = (words) => setText($("import-problem"), words);

function readImport() {
  discardImport();
  const file = $("import-file").files[0];
  if (!file) return undefined;
  return run(async () => {
    if (file.size > MAX_FILE_LEN) throw new Problem("tooLarge");
    importBytes = await file.arrayBuffer();
    showPlan(await sendImport(true));
  }, $("import-yes"), showImportProblem);
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
  setText($("import-more"), plan.rows.length > ROWS_SHOWN ? text("importMore")(number(plan.rows.length - ROWS_SHOWN)) : null);
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
  }, $("import-yes"), showImportProblem);
}

function startImport() {
  $("import-file").addEventListener("change", readImport);
  $("import-yes").addEventListener("click", commitImport);
  $("import-close").addEventListener("click", () => $("import-dialog").close());
  $("import-dialog").addEventListener("close", discardImport);
}

// Downloads a text as a file, with the byte order mark by which spreadsheets recognise UTF-8.
function download(name, content) {
  const address = URL.createObjectURL(new Blob(["\ufeff", content], { type: "text/csv;charset=utf-8" }));
  const link = make("a", { href: address, download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(address), 10000);
}
