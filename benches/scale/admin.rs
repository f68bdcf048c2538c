//! The admin calls that are measured.

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

/// One call of the admin API.
pub(crate) struct Call {
    name: &'static str,
    method: Method,
    path: String,
    body: &'static str,
    /// Whether it is made only once, as it takes long.
    is_single: bool,
}

impl Call {
    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    /// Whether its time has a limit: it reads one page, without grouping several days of all keys.
    pub(crate) fn is_limited(&self) -> bool {
        self.method == Method::GET && !self.is_single && !self.path.contains("group_by=key")
    }
}

/// Returns the calls, for a database with `days` days.
pub(crate) async fn calls(client: &Client, days: u32) -> Result<Vec<Call>, BoxError> {
    let today: Value = client.json("/admin/usage?limit=1").await?;
    let day = today["day"].as_str().ok_or("a report has no day")?.to_owned();
    let id = today["items"][0]["id"].as_str().ok_or("the report is empty")?.to_owned();
    let first = |back: u32| -> Result<String, BoxError> {
        let day: jiff::civil::Date = day.parse()?;
        Ok(day.checked_sub(jiff::Span::new().days(back.min(days) - 1))?.to_string())
    };
    let (month, all) = (first(30)?, first(days)?);
    let get =
        |name, path: String| Call { name, method: Method::GET, path, body: "", is_single: false };
    Ok(vec![
        get("today", "/admin/usage".into()),
        get("a past day", format!("/admin/usage?day={month}")),
        get("a key's days", format!("/admin/usage?key={id}&from={all}&to={day}&group_by=day")),
        get("a month by model", format!("/admin/usage?from={month}&to={day}&group_by=model")),
        get("busiest keys of a month", format!("/admin/usage?from={month}&to={day}&group_by=key")),
        get("busiest keys of all days", format!("/admin/usage?from={all}&to={day}&group_by=key")),
        get(
            "busiest keys and models",
            format!("/admin/usage?from={all}&to={day}&group_by=key,model"),
        ),
        get("all days by key and day", format!("/admin/usage?from={all}&to={day}")),
        Call {
            is_single: true,
            ..get("a month as CSV", format!("/admin/usage?from={month}&to={day}&format=csv"))
        },
        get("first page of keys", "/admin/keys".into()),
        get("search by label", "/admin/keys?search=participant%2099999".into()),
        get("search that finds nothing", "/admin/keys?search=nobody".into()),
        get("one key", format!("/admin/keys/{id}")),
        Call {
            name: "1,000 new keys",
            method: Method::POST,
            path: "/admin/keys".into(),
            body: r#"{"label":"workshop","daily_limit":200,"count":1000}"#,
            is_single: false,
        },
    ])
}

pub(crate) struct Client {
    address: SocketAddr,
    client: legacy::Client<HttpConnector, Full<Bytes>>,
}

struct Measurement {
    first_byte: Duration,
    total: Duration,
    bytes: usize,
}

impl Client {
    pub(crate) fn new(address: SocketAddr) -> Self {
        let client = legacy::Client::builder(TokioExecutor::new()).build(HttpConnector::new());
        Self { address, client }
    }

    async fn json(&self, path: &str) -> Result<Value, BoxError> {
        let response = self.client.request(self.request(&Method::GET, path, "")?).await?;
        Ok(serde_json::from_slice(&response.into_body().collect().await?.to_bytes())?)
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

    /// Makes a call several times, and returns a row of a table and the median time in milliseconds.
    pub(crate) async fn measure(
        &self,
        call: &Call,
        times: usize,
    ) -> Result<(String, f64), BoxError> {
        let mut measurements = Vec::new();
        for _ in 0..if call.is_single { 1 } else { times } {
            measurements.push(self.measure_once(call).await?);
        }
        let millis = |time: fn(&Measurement) -> Duration| -> Vec<f64> {
            measurements.iter().map(|measurement| time(measurement).as_secs_f64() * 1e3).collect()
        };
        let first_byte = median(&mut millis(|measurement| measurement.first_byte));
        let mut totals = millis(|measurement| measurement.total);
        let total = median(&mut totals);
        let (slowest, bytes) = (totals[totals.len() - 1], measurements[0].bytes);
        let name = call.name;
        let row = format!("| {name} | {first_byte:.1} | {total:.1} | {slowest:.1} | {bytes} |");
        Ok((row, total))
    }

    async fn measure_once(&self, call: &Call) -> Result<Measurement, BoxError> {
        let request = self.request(&call.method, &call.path, call.body)?;
        let start = Instant::now();
        let response = self.client.request(request).await?;
        if !response.status().is_success() {
            return Err(format!("{}: {}", call.name, response.status()).into());
        }
        let (mut body, mut first_byte, mut bytes) = (response.into_body(), None, 0);
        while let Some(frame) = body.frame().await {
            first_byte.get_or_insert_with(|| start.elapsed());
            bytes += frame?.data_ref().map_or(0, Bytes::len);
        }
        let total = start.elapsed();
        Ok(Measurement { first_byte: first_byte.unwrap_or(total), total, bytes })
    }
}
