//! The operator's questions.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{Method, Request, header::AUTHORIZATION};
use http_body_util::{BodyExt, Full};
use hyper_util::{
    client::legacy::{self, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde_json::Value;
use tower::BoxError;

use crate::{serve::TOKEN, stats::median};

pub(crate) struct Question {
    name: &'static str,
    method: Method,
    path: String,
    body: &'static str,
    /// Asked once: it takes long.
    once: bool,
}

/// What an operator asks of so many keys.
pub(crate) async fn questions(client: &Client, days: u32) -> Result<Vec<Question>, BoxError> {
    let today: Value = client.json("/admin/usage?limit=1").await?;
    let day = today["day"].as_str().ok_or("a report has no day")?.to_owned();
    let id = today["items"][0]["id"].as_str().ok_or("nobody used anything")?.to_owned();
    let first = |back: u32| -> Result<String, BoxError> {
        let day: jiff::civil::Date = day.parse()?;
        Ok(day.checked_sub(jiff::Span::new().days(back.min(days) - 1))?.to_string())
    };
    let (month, all) = (first(30)?, first(days)?);
    let get =
        |name, path: String| Question { name, method: Method::GET, path, body: "", once: false };
    Ok(vec![
        get("today", "/admin/usage".into()),
        get("a past day", format!("/admin/usage?day={month}")),
        get("a key's days", format!("/admin/usage?key={id}&from={all}&to={day}&group_by=day")),
        get("a month by model", format!("/admin/usage?from={month}&to={day}&group_by=model")),
        Question {
            once: true,
            ..get("a month as CSV", format!("/admin/usage?from={month}&to={day}&format=csv"))
        },
        get("first page of keys", "/admin/keys".into()),
        get("search by label", "/admin/keys?search=participant%2099999".into()),
        get("search that finds nothing", "/admin/keys?search=nobody".into()),
        get("one key", format!("/admin/keys/{id}")),
        Question {
            name: "1,000 new keys",
            method: Method::POST,
            path: "/admin/keys".into(),
            body: r#"{"label":"workshop","daily_limit":200,"count":1000}"#,
            once: false,
        },
    ])
}

pub(crate) struct Client {
    address: SocketAddr,
    client: legacy::Client<HttpConnector, Full<Bytes>>,
}

struct Taken {
    first_byte: Duration,
    whole: Duration,
    bytes: usize,
}

impl Client {
    pub(crate) fn new(address: SocketAddr) -> Self {
        let client = legacy::Client::builder(TokioExecutor::new()).build(HttpConnector::new());
        Self { address, client }
    }

    async fn json(&self, path: &str) -> Result<Value, BoxError> {
        let answer = self.client.request(self.request(&Method::GET, path, "")?).await?;
        Ok(serde_json::from_slice(&answer.into_body().collect().await?.to_bytes())?)
    }

    fn request(
        &self,
        method: &Method,
        path: &str,
        body: &'static str,
    ) -> Result<Request<Full<Bytes>>, BoxError> {
        Ok(Request::builder()
            .method(method)
            .uri(format!("http://{}{path}", self.address))
            .header(AUTHORIZATION, format!("Bearer {TOKEN}"))
            .body(body.into())?)
    }

    /// Asks a few times, and tells as a row of a table what it took.
    pub(crate) async fn ask(&self, question: &Question, times: usize) -> Result<String, BoxError> {
        let mut taken = Vec::new();
        for _ in 0..if question.once { 1 } else { times } {
            taken.push(self.ask_once(question).await?);
        }
        let millis = |time: Duration| time.as_secs_f64() * 1e3;
        let first = median(&mut taken.iter().map(|it| millis(it.first_byte)).collect::<Vec<_>>());
        let mut whole: Vec<_> = taken.iter().map(|it| millis(it.whole)).collect();
        let middle = median(&mut whole);
        let (slowest, bytes) = (whole[whole.len() - 1], taken[0].bytes);
        Ok(format!("| {} | {first:.1} | {middle:.1} | {slowest:.1} | {bytes} |", question.name))
    }

    async fn ask_once(&self, question: &Question) -> Result<Taken, BoxError> {
        let request = self.request(&question.method, &question.path, question.body)?;
        let asked = Instant::now();
        let answer = self.client.request(request).await?;
        if !answer.status().is_success() {
            return Err(format!("{}: {}", question.name, answer.status()).into());
        }
        let (mut body, mut first_byte, mut bytes) = (answer.into_body(), None, 0);
        while let Some(frame) = body.frame().await {
            first_byte.get_or_insert_with(|| asked.elapsed());
            bytes += frame?.data_ref().map_or(0, Bytes::len);
        }
        let whole = asked.elapsed();
        Ok(Taken { first_byte: first_byte.unwrap_or(whole), whole, bytes })
    }
}
