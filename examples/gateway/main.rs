//! The trial-key gateway: holders of issued keys use a sponsor's OpenAI-compatible API within a daily
//! quota of requests.
//!
//! `cargo run --example gateway -- --demo` needs no account; `--help` lists the settings.

mod admin;
mod announce;
mod catch_panic;
mod client_addr;
mod commands;
mod connector;
mod cors;
mod demo;
mod edge;
mod file_system;
mod holder_errors;
mod home;
mod import;
mod late;
mod logging;
mod open_files;
mod ops;
mod rejections;
mod reload;
mod request_log;
mod route;
mod router;
mod settings;
mod shutdown;
mod store;
mod systemd;
mod telemetry;
mod upstream;

use std::{
    net::SocketAddr,
    num::NonZeroUsize,
    process::ExitCode,
    sync::{Arc, OnceLock},
    time::Duration,
};

use mimalloc::MiMalloc;
use tokio::{
    net::TcpListener,
    runtime::{self, Runtime},
};
use tower::{BoxError, Layer, ServiceBuilder};
use tower_quota::{
    admin::{AdminTokens, ClientAddrs, RejectionLog, admin_service, claim_service},
    auth::TrialKeyAuthLayer,
    openai::{OpenAiErrors, OpenAiRateHeaders, OpenAiUsage, stream_usage::StreamUsageLayer},
    proxy::{CredentialCooldown, UpstreamCredential},
    quota::{DailyQuotaLayer, FairShareLayer, InFlightLimitLayer, QuotaRule, RateLimitLayer},
    server::{self, Limits, Shutdown},
    usage::{UsageRecorderLayer, usage_service},
};

use announce::Announcement;
use commands::{backup, progress::Stopped};
use cors::ApiCorsLayer;
use edge::{EdgeOptions, edge};
use holder_errors::HolderErrors;
use home::Home;
use late::{LateService, Opening};
use logging::{BackgroundWriter, Log};
use ops::Ops;
use reload::{Hangup, Reload};
use request_log::Observers;
use router::{Router, SideRoutes, side};
use settings::{BadSetting, DatabaseSettings, Given, Settings, in_use, is_exposed};
use shutdown::ShutdownTimes;
use store::SharedStore;
use systemd::{InheritedSockets, ServiceManager};
use upstream::Upstream;

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// Maximum time that the process waits for its output to be read before it exits.
const OUTPUT_TIMEOUT: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    let sockets = InheritedSockets::take();
    let streams = BackgroundWriter::start("stdout", &std::io::stdout())
        .and_then(|stdout| Ok((stdout, BackgroundWriter::start("stderr", &std::io::stderr())?)));
    let Ok((stdout, stderr)) = streams else {
        return ExitCode::from(2);
    };
    let code = start(sockets, &stdout, &stderr).unwrap_or_else(|error| {
        stderr.push(format!("{error}\n").as_bytes());
        error.downcast_ref().map_or(ExitCode::from(2), Stopped::exit_code)
    });
    stdout.flush(OUTPUT_TIMEOUT);
    stderr.flush(OUTPUT_TIMEOUT);
    code
}

fn start(
    sockets: InheritedSockets,
    stdout: &BackgroundWriter,
    stderr: &BackgroundWriter,
) -> Result<ExitCode, BoxError> {
    open_files::raise_limit();
    let (given, command) = Given::load()?;
    if let Some(command) = command {
        return commands::run(command, &given, stderr);
    }
    let settings = Settings::check(&given)?;
    let runtime = runtime(settings.worker_threads)?;
    runtime.block_on(run(settings, sockets, stdout, stderr))?;
    Ok(ExitCode::SUCCESS)
}

fn runtime(threads: NonZeroUsize) -> std::io::Result<Runtime> {
    let mut runtime = match threads.get() {
        1 => runtime::Builder::new_current_thread(),
        _ => runtime::Builder::new_multi_thread(),
    };
    runtime.worker_threads(threads.get()).enable_all().build()
}

async fn run(
    settings: Settings,
    sockets: InheritedSockets,
    stdout: &BackgroundWriter,
    stderr: &BackgroundWriter,
) -> Result<(), BoxError> {
    let log = Log::start(settings.log, stderr.clone());
    let hangup = Hangup::catch()?;
    let metrics = telemetry::start()?;
    let options = settings
        .database
        .options()?
        .durability(settings.durability)
        .retention_days(settings.usage_retention_days);
    let opening = Opening::start(options).await?;
    let default_limits = settings.database.default_limits();
    let DatabaseSettings { database, default_daily_limit, calendar, .. } = settings.database;

    let (admin_tokens, generated_token) = match settings.admin_token {
        Some(tokens) => (tokens, None),
        None => {
            let (tokens, token) = AdminTokens::generate();
            (tokens, Some(token))
        }
    };
    let base_url = if settings.demo {
        format!("http://{}/v1", demo::start().await?).parse()?
    } else {
        settings.upstream.base_url.clone()
    };
    let credential = settings.upstream.api_key.clone().map(UpstreamCredential::new);
    let cooldown = CredentialCooldown::new(upstream::CREDENTIAL_COOLDOWN);
    let reload = Reload {
        admin_tokens: settings.admin_token_file.map(|file| (file, admin_tokens.clone())),
        upstream_credential: settings.upstream.api_key_file.clone().zip(credential.clone()),
        credential_cooldown: cooldown.clone(),
    };
    let has_upstream_key = settings.demo || credential.is_some();
    let shutdown = Shutdown::new();
    let observers = Arc::new(Observers {
        log,
        rejections: RejectionLog::new(),
        client_addrs: settings.log_client_addr.then(ClientAddrs::new),
    });
    let upstream_url = base_url.to_string();
    let routes = |store: SharedStore| -> Result<_, BoxError> {
        let errors =
            HolderErrors::new(settings.contact.as_deref(), settings.quota_exhausted_status);
        let upstream = Upstream {
            base: base_url.clone(),
            settings: &settings.upstream,
            errors: errors.clone(),
            credential,
            cooldown,
        };

        let auth = TrialKeyAuthLayer::new(store.clone()).reject(errors.clone());
        let usage = usage_service(store.clone(), calendar.clone())
            .headers(OpenAiRateHeaders)
            .reject(errors.clone());
        let claim = claim_service(store.clone()).reject(errors.clone());
        let shown = in_use(settings.shown, Some(&admin_tokens), &base_url.to_string());
        let admin = admin_service(store.clone(), admin_tokens.clone())
            .reject(OpenAiErrors)
            .default_daily_limit(default_daily_limit)
            .default_limits(default_limits)
            .claim_url(&format!("{}/claim", settings.public_url.as_deref().unwrap_or_default()))
            .calendar(calendar.clone())
            .retention_days(settings.usage_retention_days)
            .audit_reads(settings.audit_reads)
            .rejections(observers.rejections.clone())
            .settings(shown.into_iter().map(|setting| (setting.name, setting.value)));
        let admin = match &observers.client_addrs {
            Some(addrs) => admin.client_addrs(addrs.clone()),
            None => admin,
        };
        let admin = match settings.admin_allow {
            allow if allow.is_empty() => admin,
            allow => admin.allow(move |ip| allow.iter().any(|network| network.contains(&ip))),
        };
        let (admin, claim) = match &settings.public_url {
            Some(url) => {
                let base_url = format!("{url}/v1");
                (admin.base_url(&base_url), claim.base_url(&base_url))
            }
            None => (admin, claim),
        };
        let in_flight = InFlightLimitLayer::per_key().reject(errors.clone());
        let rate = RateLimitLayer::per_key().reject(errors.clone());
        let quota = DailyQuotaLayer::new(store.clone())
            .and(QuotaRule::monthly())
            .headers(OpenAiRateHeaders)
            .reject(errors.clone());
        let fair_share = FairShareLayer::new(settings.upstream.max_in_flight)
            .max_wait(settings.upstream.wait_timeout)
            .reject(errors);
        let stream_usage = match settings.stream_usage {
            true => StreamUsageLayer::new(),
            false => StreamUsageLayer::new().applies_to(|_| false),
        };
        // Split, as the recorder must see the usage, and the bodies of rejected requests are not read.
        let (hide_usage, include_usage) = stream_usage.split();
        Ok(Router {
            upstream: ServiceBuilder::new()
                .layer(hide_usage)
                .layer(settings.on_client_gone.clone())
                // Outside of auth, so that its rejections are recorded, too.
                .layer(UsageRecorderLayer::new(store.clone()).format(OpenAiUsage).watch_requests())
                .layer(auth.clone())
                // Outside of the quota, so that what it rejects costs nothing.
                .layer(rate)
                .layer(in_flight)
                .layer(quota)
                // Outside of what reads bodies into memory: those of waiting requests stay with their clients.
                .layer(fair_share.clone())
                .layer(include_usage)
                .service(upstream.proxy()?),
            side: Arc::new(SideRoutes {
                free: side(auth.layer(fair_share.layer(upstream.free_proxy()?))),
                usage: side(auth.layer(usage)),
                home: Home::new(
                    settings.gateway_name.as_deref(),
                    settings.contact.as_deref(),
                    settings.notice.as_deref(),
                ),
                attempts: admin.clone(),
                admin: admin::guarded(
                    admin,
                    settings.max_body_bytes,
                    settings.public_url.as_deref(),
                )?,
                claim: side(claim),
                models: side(upstream.models()?),
                ops: Ops::new(store.clone(), shutdown.clone(), metrics.clone(), stderr.clone()),
                metrics_tokens: settings.metrics_token.into_iter().chain([admin_tokens]).collect(),
                max_body_bytes: settings.max_body_bytes,
            }),
        })
    };

    let inherited = sockets.listener()?;
    let is_inherited = inherited.is_some();
    let listener = match inherited {
        Some(listener) => listener,
        None => listen(settings.listen.address()).await?,
    };
    let address = listener.local_addr()?;
    Announcement {
        listen: address,
        is_inherited,
        upstream: &upstream_url,
        database: &database.to_string(),
        time_zone: calendar.time_zone(),
        admin_token: generated_token.as_deref(),
        has_upstream_key,
        is_exposed: is_exposed(address, &settings.trusted_proxies),
    }
    .print(stdout);

    let options = EdgeOptions {
        cors: ApiCorsLayer::new(settings.cors_allow_origins),
        trusted_proxies: settings.trusted_proxies.clone(),
        observers: observers.clone(),
    };
    let late = LateService::new(shutdown.clone());
    let service = edge(late.clone(), options, || router::own(rejections::panicked()));
    let proxies = settings.trusted_proxies;
    let limits = Limits::new()
        .connections(settings.max_connections)
        .client_timeout(settings.client_timeout)
        .idle_timeout(settings.client_idle_timeout)
        .proxies(move |peer| proxies.iter().any(|network| network.contains(&peer)));
    let server =
        server::serve(listener, service, limits).shutdown(shutdown.clone()).pass_rejected_heads();
    let times = ShutdownTimes { delay: settings.shutdown_delay, grace: settings.shutdown_grace };
    let manager = ServiceManager::from_env(address);
    let store = OnceLock::new();
    let grace_left = tokio::select! {
        biased;
        never = opening.provide(&late, &store, routes, &manager) => match never? {},
        served = shutdown::serve(server, &shutdown, times, &manager) => served?,
        never = telemetry::run_upkeep(metrics.clone()) => match never {},
        never = hangup.reload(reload, &manager) => match never {},
        never = manager.keep_alive(|| store.get().is_none_or(|store| store.is_alive())) => match never {},
    };
    settings.on_client_gone.finish(grace_left).await;
    match store.into_inner() {
        Some(store) => Ok(store.close().await?),
        None => Ok(()),
    }
}

async fn listen(address: SocketAddr) -> Result<TcpListener, BadSetting> {
    TcpListener::bind(address).await.map_err(|error| {
        let is_foreign = error.kind() == std::io::ErrorKind::AddrNotAvailable;
        let variable = if is_foreign { "HOST" } else { "PORT" };
        BadSetting::new(variable, format!("cannot listen on {address}: {error}"))
    })
}
