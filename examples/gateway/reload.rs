//! Reloads the files of tokens and keys on SIGHUP. `.env` is not reloaded.

use std::{convert::Infallible, io};

use http::HeaderValue;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    task::spawn_blocking,
};
use tower_quota::{
    admin::AdminTokens,
    proxy::{CredentialCooldown, UpstreamCredential},
};

use crate::{settings::SecretFile, systemd::ServiceManager};

/// Receives SIGHUP, which does not end the process from then on.
pub(crate) struct Hangup(Signal);

/// The files to read on SIGHUP, each with what it replaces.
pub(crate) struct Reload {
    pub(crate) admin_tokens: Option<(SecretFile<AdminTokens>, AdminTokens)>,
    pub(crate) upstream_credential: Option<(SecretFile<HeaderValue>, UpstreamCredential)>,
    /// Cleared when the credential is replaced.
    pub(crate) credential_cooldown: CredentialCooldown,
}

impl Hangup {
    pub(crate) fn catch() -> io::Result<Self> {
        signal(SignalKind::hangup()).map(Self)
    }

    /// Reads the files on each signal, and never completes.
    pub(crate) async fn reload(mut self, reload: Reload, manager: &ServiceManager) -> Infallible {
        let Reload { admin_tokens, upstream_credential, credential_cooldown } = reload;
        loop {
            self.0.recv().await;
            tracing::info!("SIGHUP received: reading token and key files");
            manager.reloading().await;
            let mut problems = Vec::new();
            if let Some((file, tokens)) = &admin_tokens {
                problems.extend(read(file, |new| tokens.replace(&new)).await);
            }
            if let Some((file, credential)) = &upstream_credential {
                let replace = |new| {
                    credential.replace(new);
                    credential_cooldown.clear();
                };
                problems.extend(read(file, replace).await);
            }
            manager.reloaded(&problems).await;
        }
    }
}

/// Reads one file and applies its value, or returns why not.
async fn read<T: Clone + Send + 'static>(
    file: &SecretFile<T>,
    replace: impl FnOnce(T),
) -> Option<String> {
    let name = &file.name;
    // Not on a worker thread: a hanging file system must not delay requests.
    let file = file.clone();
    match spawn_blocking(move || file.read_again()).await {
        Ok(Ok(new)) => {
            replace(new);
            tracing::info!(file = name, "file read again: using the new value");
            None
        }
        Ok(Err(error)) => {
            tracing::error!(%error, "reading the file again failed: keeping the old value");
            Some(error.to_string())
        }
        Err(error) => {
            tracing::error!(%error, file = name, "reading the file again failed: keeping the old value");
            Some(format!("{name}: {error}"))
        }
    }
}
