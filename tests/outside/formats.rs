//! The usage format of an API that the crate does not know.

use std::convert::Infallible;

use axum::body::Body;
use http::{Method, Request, Response, response::Parts};
use http_body_util::BodyExt;
use tower::{ServiceBuilder, ServiceExt, service_fn};
use tower_quota::{
    store::Tokens,
    usage::{ReportedUsage, UsageFormat, UsageParser, UsageRecorderLayer},
};

use super::Events;

/// `tokens=PROMPT+COMPLETION` in the last line.
struct LastLine;

#[derive(Default)]
struct LastLineParser(String);

impl UsageFormat for LastLine {
    fn parser(&self, _: &Method, head: &Parts) -> Option<Box<dyn UsageParser>> {
        head.status.is_success().then(|| Box::new(LastLineParser::default()) as _)
    }
}

impl UsageParser for LastLineParser {
    fn read(&mut self, text: &[u8]) {
        self.0.push_str(&String::from_utf8_lossy(text));
    }

    fn finish(self: Box<Self>, is_whole: bool) -> ReportedUsage {
        let tokens = || {
            let (_, figures) = self.0.rsplit_once("tokens=")?;
            let (prompt, completion) = figures.split_once('+')?;
            let (prompt, completion) = (prompt.parse().ok()?, completion.parse().ok()?);
            Some(Tokens::new(prompt, completion, prompt + completion))
        };
        let mut usage = ReportedUsage::default();
        usage.tokens = tokens().filter(|_| is_whole);
        usage
    }
}

#[tokio::test]
async fn tokens_are_read_in_the_format_of_the_application() {
    let events = Events::default();
    let service = ServiceBuilder::new()
        .layer(UsageRecorderLayer::new(events.clone()).format(LastLine))
        .service(service_fn(async |_| {
            Ok::<_, Infallible>(Response::new(Body::from("hello\ntokens=2+3")))
        }));
    let response = service.oneshot(Request::new(Body::empty())).await.unwrap();
    response.into_body().collect().await.unwrap();
    assert_eq!(events.0.lock().unwrap()[0].tokens, Some(Tokens::new(2, 3, 5)));
}
