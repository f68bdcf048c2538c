// Settings and health of the process, and the nodes of its database.
addTexts({
  settings: ["Settings", "设置"],
  health: ["Health", "运行状况"],
  store: ["Store", "存储"],
  version: ["Version", "版本"],
  started: ["Started", "启动时间"],
  startedAt: [(at, time) => `${at} (${time} ago)`, (at, time) => `${at}（${time}前）`],
  clockName: ["Clock", "时钟"],
  dayName: ["Day", "当前日期"],
  resetsName: ["Count starts again", "重新计数"],
  nodes: ["Nodes", "节点"],
  nodesHint: ["Processes that count in this database, each with a journal of its own", "在这个数据库里计数的进程，各有自己的 journal"],
  nodeName: [(name) => `Node ${name}`, (name) => `节点 ${name}`],
  thisNode: ["this process", "当前进程"],
  nodeStates: {
    in_use: ["In use", "使用中"],
    silent: ["Silent", "失联"],
    closed: ["Closed", "已关闭"],
    released: ["Released", "已释放"],
  },
  nodeLeases: [
    (units, keys) => `Leased and perhaps not used: ${units} (keys: ${keys})`,
    (units, keys) => `已租用、可能未用：${units} 次（密钥：${keys} 个）`,
  ],
  nodeRequests: [(count) => `Requests not ended: ${count}`, (count) => `未结束的请求：${count}`],
  nodeJournal: [(count) => `Journal waiting: ${count}`, (count) => `journal 待写入：${count}`],
  nodeJournalUnknown: ["Journal: not known here", "journal：此处未知"],
  nodeReleased: ["Its journal is not accepted any more", "它的 journal 不再被接受"],
  release: ["Release", "释放"],
  releaseTitle: ["Give up this node?", "释放这个节点？"],
  releaseText: [
    (units, requests) =>
      `Only if its journal is lost for good: otherwise start it again, and nothing is missing. Its leased units (${units}) count as used, its requests that have not ended (${requests}) as failed, and its journal is not accepted any more. Requests of its last half second may be missing.`,
    (units, requests) =>
      `仅用于 journal 确实找不回来的情况：否则请重新启动它，什么都不会少。它租用的次数（${units}）算作已用，未结束的请求（${requests}）算作失败，它的 journal 不再被接受。最后半秒的请求可能会缺失。`,
  ],
  releaseDone: ["The node was released.", "节点已释放。"],
  settingsRead: ["Settings", "设置"],
  settingsHint: ["As this process has read them; secrets are masked", "当前进程读取的值，机密内容已隐藏"],
  setting: ["Name", "名称"],
  value: ["Value", "值"],
  notSet: ["not set", "未设置"],
});

class SettingsView {
  async load() {
    const [status, nodes] = await Promise.all([api("GET", "/status"), catchProblem(api("GET", "/nodes"))]);
    Object.assign(this, { status, nodes });
  }

  show() {
    if (!this.status) return;
    const { store, version, started_at: started, now, day, timezone, resets_at: resets, settings } = this.status;
    $("health").replaceChildren(...pairs([
      ["store", make("span", { className: `lamp ${store.ok ? "good" : "bad"}`, textContent: text(store.ok ? "storeOk" : "storeBad") })],
      ["version", version],
      ["started", text("startedAt")(date(started), formatDuration(Date.now() - Date.parse(started)))],
      ["clockName", date(now)],
      ["dayName", `${longDay(day)} (${timezone})`],
      ["resetsName", date(resets)],
    ]));
    this.#showNodes();
    $("settings").replaceChildren(...settings.map(({ name, value }) =>
      make("tr", {}, make("th", { scope: "row" }, make("code", { textContent: name })), make("td", { className: "free" }, settingValue(value)))));
  }

  // Only databases that several processes may share have nodes.
  #showNodes() {
    const problem = this.nodes instanceof Problem ? this.nodes.describe() : null;
    const nodes = problem ? [] : this.nodes.nodes;
    $("nodes-card").hidden = !problem && nodes.length === 0;
    $("nodes").replaceChildren(...nodes.map((node) => nodeEntry(node, (lost) => this.#release(lost))));
    setText($("no-nodes"), problem);
  }

  async #release(node) {
    const isConfirmed = await confirmDialog({
      title: text("releaseTitle"), subject: text("nodeName")(node.number), yes: text("release"), danger: true,
      words: text("releaseText")(number(node.leased_units), number(node.open_requests)),
    });
    if (!isConfirmed) return;
    await reloadIfUnsure(() => api("POST", `/nodes/${node.number}/release`, { body: { accept_loss: true } }));
    await reload(this);
    if (this !== view) return;
    notify("status", text("releaseDone"));
    $("title").focus();
  }
}

function nodeEntry(node, onRelease) {
  const { number: name, state, this_process: isThis, id, leased_units: units, leased_keys: keys, open_requests: requests } = node;
  const kinds = { in_use: "good", silent: "bad", closed: "off", released: "off" };
  const release = make("button", { type: "button", className: "danger", textContent: text("release") });
  release.dataset.testid = "release-node";
  release.addEventListener("click", () => run(() => onRelease(node), release));
  return make("li", {},
    make("div", { className: "what" },
      make("span", { className: "chips" },
        make("span", { textContent: text("nodeName")(name) + (isThis ? ` (${text("thisNode")})` : "") }),
        make("span", { className: `chip ${kinds[state] ?? "off"}`, textContent: textIn("nodeStates", state) ?? state })),
      timeElement(node.seen_at, date)),
    make("ul", { className: "changes" },
      ...[text("nodeLeases")(number(units), number(keys)), text("nodeRequests")(number(requests)), nodeJournal(node)]
        .map((words) => make("li", { textContent: words }))),
    make("div", { className: "about" }, make("code", { textContent: id })),
    ...(state === "silent" ? [make("div", {}, release)] : []));
}

function nodeJournal({ state, pending_records: pending }) {
  if (state === "released") return text("nodeReleased");
  return pending === null ? text("nodeJournalUnknown") : text("nodeJournal")(number(pending));
}

function settingValue(value) {
  if (value === null || value === undefined || value === "") return make("span", { className: "unknown", textContent: text("notSet") });
  return make("code", { textContent: String(value), dir: "auto" });
}

addView("settings", SettingsView);
