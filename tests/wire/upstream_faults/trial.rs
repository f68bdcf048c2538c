use futures_util::future::join_all;
use serde_json::{Value, json};

use super::{
    common::{Gateway, GatewayCommand},
    holder::{Holder, Mode, Seen},
    rogue::{Rogue, Step, fill},
};

/// A kind of misbehaviour, and what is to come of it.
pub(crate) struct Kind {
    pub(crate) name: &'static str,
    pub(crate) method: &'static str,
    pub(crate) does: &'static [Step],
    pub(crate) outcome: Outcome,
    /// How many units the request costs.
    pub(crate) cost: u64,
    /// Headers of the response to the client; an empty one is missing.
    pub(crate) headers: &'static [(&'static str, &'static str)],
}

/// What the client gets.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Outcome {
    /// The gateway's own error, with this status and code.
    Error(u16, &'static str),
    /// The upstream's response: status and body, with `$BODY` filled in.
    Response(u16, &'static str),
    /// The upstream's response with these bytes.
    Raw(u16, &'static [u8]),
    /// The upstream's response with this body, which breaks off there.
    Cut(u16, &'static str),
}

/// What the rogue says where no client may read it.
pub(crate) const HUSH: &str = "between-us";
pub(crate) const SPONSOR: &str = "sk-sponsor-secret";

pub(crate) const fn kind(
    name: &'static str,
    does: &'static [Step],
    outcome: Outcome,
    cost: u64,
) -> Kind {
    Kind { name, method: "POST", does, outcome, cost, headers: &[] }
}

impl Kind {
    pub(crate) const fn showing(
        mut self,
        headers: &'static [(&'static str, &'static str)],
    ) -> Self {
        self.headers = headers;
        self
    }

    pub(crate) const fn with_method(mut self, method: &'static str) -> Self {
        self.method = method;
        self
    }
}

/// Tries every kind, in all modes at once and one after the other, before one gateway.
pub(crate) async fn try_all(kinds: &'static [Kind]) {
    let rogue = Rogue::start(kinds).await;
    let gateway = command(&rogue.base_url()).start();
    let mut failures = Vec::new();
    for number in 0..kinds.len() {
        let trials = Mode::ALL.map(|mode| fails(&gateway, &rogue, kinds, number, mode));
        failures.extend(join_all(trials).await.into_iter().flatten());
    }
    judge(&gateway, &failures);
}

/// Tries every kind in every mode, all at once, before a gateway that waits for `limit` and no
/// longer.
pub(crate) async fn try_all_at_once(kinds: &'static [Kind], limit: &str) {
    let rogue = Rogue::start(kinds).await;
    let command = command(&rogue.base_url());
    let gateway =
        command.env("UPSTREAM_HEAD_TIMEOUT", limit).env("UPSTREAM_IDLE_TIMEOUT", limit).start();
    let (gateway, rogue) = (&gateway, &rogue);
    let trials = (0..kinds.len()).flat_map(|number| {
        Mode::ALL.into_iter().map(move |mode| fails(gateway, rogue, kinds, number, mode))
    });
    let failures: Vec<_> = join_all(trials).await;
    judge(gateway, &failures.into_iter().flatten().collect::<Vec<_>>());
}

pub(crate) fn command(base_url: &str) -> GatewayCommand {
    GatewayCommand::new().env("UPSTREAM_BASE_URL", base_url).env("UPSTREAM_API_KEY", SPONSOR)
}

/// All kinds behaved, and the sponsor's key is in no log line.
#[track_caller]
pub(crate) fn judge(gateway: &Gateway, failures: &[String]) {
    let printed = gateway.printed();
    assert!(failures.is_empty(), "{:#?}\n{printed}", failures);
    assert!(!printed.contains(SPONSOR), "{printed}");
    assert!(!printed.contains("panicked"), "{printed}");
}

async fn fails(
    gateway: &Gateway,
    rogue: &Rogue,
    kinds: &'static [Kind],
    number: usize,
    mode: Mode,
) -> Option<String> {
    let kind = &kinds[number];
    let tried = try_one(gateway, rogue, kind, number, mode).await;
    tried.err().map(|failure| format!("{}, {mode:?}: {failure}", kind.name))
}

async fn try_one(
    gateway: &Gateway,
    rogue: &Rogue,
    kind: &Kind,
    number: usize,
    mode: Mode,
) -> Result<(), String> {
    let key = gateway.create_key(json!({"daily_limit": 10})).await;
    let mut holder = Holder::new(gateway.address(), key.clone(), mode);
    let path = format!("/v1/{number}/{mode:?}").to_lowercase();
    let request = json!({"model": "m", "stream": mode.is_streamed()}).to_string();
    let seen = holder.send(kind.method, &path, &request).await?;
    check(kind, &seen, mode)?;
    equal("units charged", used(gateway, &key).await, kind.cost)?;
    for number in 0..3 {
        serves(&mut holder, &format!("{path}, {number}")).await?;
    }
    equal("units charged later", used(gateway, &key).await, kind.cost + 3)?;
    equal("requests at the upstream", rogue.heads(&path), 1)
}

/// A request after all that succeeds, with its own body.
pub(crate) async fn serves(holder: &mut Holder, body: &str) -> Result<(), String> {
    let seen = holder.send("POST", "/v1/chat/completions", body).await?;
    match seen.status == 200 && seen.whole && seen.body == body.as_bytes() {
        true => Ok(()),
        false => Err(format!("the next request is harmed: {seen:?}")),
    }
}

pub(crate) async fn used(gateway: &Gateway, key: &str) -> u64 {
    let usage = crate::common::Client::http1().get_as(key, &gateway.url("/usage")).await;
    usage.json()["used"].as_u64().unwrap()
}

fn check(kind: &Kind, seen: &Seen, mode: Mode) -> Result<(), String> {
    let fits = match kind.outcome {
        Outcome::Error(status, code) => return check_error(kind, seen, status, code),
        Outcome::Raw(status, body) => seen.status == status && seen.whole && seen.body == body,
        Outcome::Response(status, body) | Outcome::Cut(status, body) => {
            let whole = matches!(kind.outcome, Outcome::Response(..));
            let body = fill(body, mode.is_streamed());
            seen.status == status && seen.whole == whole && seen.body == body.as_bytes()
        }
    };
    if !fits || seen.shows(SPONSOR) {
        return Err(format!("{:?} was to come, and not {seen:?}", kind.outcome));
    }
    check_headers(kind, seen)
}

fn check_error(kind: &Kind, seen: &Seen, status: u16, code: &str) -> Result<(), String> {
    check_own_error(seen, status, code)?;
    if seen.shows(HUSH) || seen.shows(SPONSOR) {
        return Err(format!("the upstream's own text: {seen:?}"));
    }
    equal(
        "units left",
        seen.header("x-ratelimit-remaining-requests"),
        &(10 - kind.cost).to_string(),
    )?;
    check_headers(kind, seen)
}

/// The gateway's own error, as OpenAI's clients read it.
pub(crate) fn check_own_error(seen: &Seen, status: u16, code: &str) -> Result<(), String> {
    let json: Value = serde_json::from_slice(&seen.body).unwrap_or_default();
    let error = &json["error"];
    let fits = (seen.status, seen.whole) == (status, true)
        && (&error["type"], &error["code"]) == (&json!("upstream_error"), &json!(code))
        && error["message"].as_str().is_some_and(|message| !message.is_empty())
        && error.as_object().is_some_and(|error| error.get("param") == Some(&Value::Null))
        && seen.header("content-type") == "application/json"
        && seen.header("cache-control") == "no-store"
        && !seen.header("x-request-id").is_empty();
    if fits { Ok(()) } else { Err(format!("{status} {code} was to come, and not {seen:?}")) }
}

fn check_headers(kind: &Kind, seen: &Seen) -> Result<(), String> {
    kind.headers.iter().try_for_each(|(name, value)| equal(name, seen.header(name), *value))
}

pub(crate) fn equal<T: PartialEq + std::fmt::Debug>(
    what: &str,
    seen: T,
    expected: T,
) -> Result<(), String> {
    match seen == expected {
        true => Ok(()),
        false => Err(format!("{what}: {seen:?}, and not {expected:?}")),
    }
}
