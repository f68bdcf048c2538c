//! What reading tokens and models costs, beside the same requests in whose bodies nothing is read.
//! `cargo bench --bench scan`

#[path = "../common/stats.rs"]
#[allow(dead_code)]
mod stats;

use std::{
    collections::VecDeque,
    convert::Infallible,
    env,
    pin::{Pin, pin},
    task::{Context, Poll, Waker},
    time::Instant,
};

use bytes::Bytes;
use http::{Request, Response, header::CONTENT_TYPE};
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use tower::{Layer, Service, service_fn};
use tower_quota::usage::{RequestBody, UsageEvent, UsageRecorderLayer, UsageSink};

const ROUNDS: usize = 60;
const REQUESTS: usize = 2000;

/// A request and its answer, in the pieces in which they come.
struct Case {
    name: &'static str,
    request: Vec<Bytes>,
    kind: &'static str,
    answer: Vec<Bytes>,
}

/// A body that is there.
struct Pieces(VecDeque<Bytes>);

impl Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.pop_front().map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_empty()
    }
}

#[derive(Clone)]
struct Nowhere;

impl UsageSink for Nowhere {
    fn record(&self, event: UsageEvent) {
        std::hint::black_box(event);
    }
}

/// Nanoseconds a request. Nothing is read of bodies that are said to be something else.
fn time(case: &Case, reads_request: bool, reads_answer: bool) -> f64 {
    let other = "application/octet-stream";
    let kind = if reads_answer { case.kind } else { other };
    let inner = service_fn(|request: Request<RequestBody<Pieces>>| {
        let answer = Pieces(case.answer.clone().into());
        async move {
            request.into_body().collect().await?;
            let response = Response::builder().header(CONTENT_TYPE, kind).body(answer);
            Ok::<_, Infallible>(response.expect("a valid head"))
        }
    });
    let mut service = UsageRecorderLayer::new(Nowhere).layer(inner);
    let begun = Instant::now();
    for _ in 0..REQUESTS {
        let kind = if reads_request { "application/json" } else { other };
        let request = Request::post("/v1/chat/completions").header(CONTENT_TYPE, kind);
        let request = request.body(Pieces(case.request.clone().into())).expect("a valid head");
        let call = async {
            let Ok(response) = service.call(request).await;
            response.into_body().collect().await
        };
        let Poll::Ready(Ok(_)) = pin!(call).poll(&mut Context::from_waker(Waker::noop())) else {
            unreachable!("nothing in it waits");
        };
    }
    begun.elapsed().as_nanos() as f64 / REQUESTS as f64
}

fn cases() -> [Case; 5] {
    let prompt = |length: usize| {
        let text = "All work and no play makes Jack a dull boy.\\n".repeat(length / 45 + 1);
        let body = format!(r#"{{"messages":[{{"role":"user","content":"{text}"}}],"model":"m"}}"#);
        vec![Bytes::from(body)]
    };
    let named_first = || {
        let [prompt] = &prompt(100_000)[..] else { unreachable!("it is one piece") };
        let rest = str::from_utf8(&prompt[1..]).expect("JSON");
        vec![Bytes::from(format!(r#"{{"model":"m",{rest}"#))]
    };
    let json = r#"{"id":"chatcmpl-1","object":"chat.completion","created":1,"model":"deepseek-chat","choices":[{"index":0,"message":{"role":"assistant","content":"Something of medium length, which is what was asked for, and a little more."},"logprobs":null,"finish_reason":"stop"}],"usage":{"prompt_tokens":24,"completion_tokens":17,"total_tokens":41,"prompt_tokens_details":{"cached_tokens":0},"prompt_cache_hit_tokens":0,"prompt_cache_miss_tokens":24},"system_fingerprint":"fp_0"}"#;
    let event = |number: usize| {
        format!(
            "data: {{\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"deepseek-chat\",\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"word {number} \"}},\"finish_reason\":null}}]}}\n\n"
        )
    };
    let last = "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":24,\"completion_tokens\":20,\"total_tokens\":44}}\n\ndata: [DONE]\n\n";
    let stream = |events: usize| -> Vec<Bytes> {
        (0..events).map(|number| event(number).into()).chain([last.into()]).collect()
    };
    let case = |name, request, kind, answer| Case { name, request, kind, answer };
    let (is_json, is_stream) = ("application/json", "text/event-stream");
    [
        case("JSON of 0.5 KB", prompt(150), is_json, vec![json.into()]),
        case("a stream of 20 events", prompt(150), is_stream, stream(20)),
        case("a stream of 1,000 events", prompt(150), is_stream, stream(1000)),
        case("a prompt of 100 KB", prompt(100_000), is_json, vec![json.into()]),
        case("a prompt of 100 KB after its model", named_first(), is_json, vec![json.into()]),
    ]
}

fn main() {
    // `cargo test --all-targets` comes without.
    if !env::args().any(|argument| argument == "--bench") {
        println!("nothing is measured without --bench");
        return;
    }
    println!("| | nothing read, ns | request read | answer read |\n|---|--:|--:|--:|");
    for case in cases() {
        let (mut bare, mut request, mut answer) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            let base = time(&case, false, false);
            request.push(time(&case, true, false) - base);
            answer.push(time(&case, false, true) - base);
            bare.push(base);
        }
        let [bare, request, answer] =
            [&mut bare, &mut request, &mut answer].map(|all| stats::median(all));
        println!("| {} | {bare:.0} | {request:+.0} | {answer:+.0} |", case.name);
    }
}
