//! The response of one `GET` is fetched once, serves many, and outlives the upstream's failures.

use std::{convert::Infallible, time::Duration};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use tokio::sync::{mpsc, oneshot};
use tower::service_fn;
use tower_quota::proxy::CachedGet;

#[tokio::test]
async fn one_response_is_shared_by_concurrent_callers() {
    let (requests, mut received) = mpsc::unbounded_channel::<oneshot::Sender<u16>>();
    let models = service_fn(move |_: Request<Full<Bytes>>| {
        let (response, status) = oneshot::channel();
        requests.send(response).unwrap();
        async move {
            let status = status.await.unwrap();
            let body = Full::<Bytes>::from(format!("models {status}"));
            Ok::<_, Infallible>(Response::builder().status(status).body(body).unwrap())
        }
    });
    let cached =
        CachedGet::new(models, || Request::new(Full::default())).time_to_live(Duration::ZERO);
    let responding = |response: oneshot::Sender<u16>, status| response.send(status).unwrap();

    let mut leaver = Box::pin(cached.get());
    let others = futures_util::future::join_all((0..8).map(|_| cached.get()));
    let first = tokio::select! {
        biased;
        _ = &mut leaver => unreachable!(),
        response = received.recv() => response.unwrap(),
    };
    let mut others = Box::pin(others);
    tokio::select! {
        biased;
        _ = &mut others => unreachable!(),
        () = std::future::ready(()) => {}
    }
    drop(leaver);
    responding(first, 500);
    let failed = others.await;
    assert!(failed.iter().all(|response| response.status() == 500));
    assert!(received.try_recv().is_err());

    let fetch = async |status| {
        let response = async { responding(received.recv().await.unwrap(), status) };
        tokio::join!(cached.get(), response).0
    };
    let mut fetch = fetch;
    assert_eq!(fetch(200).await.body(), "models 200");
    let stale = fetch(503).await;
    assert_eq!((stale.status().as_u16(), &stale.body()[..]), (200, &b"models 200"[..]));

    let cached = cached.time_to_live(Duration::from_secs(600));
    let response = async { responding(received.recv().await.unwrap(), 200) };
    tokio::join!(cached.get(), response);
    assert_eq!(cached.get().await.body(), "models 200");
}
