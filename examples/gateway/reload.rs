//! SIGHUP: the files of tokens and keys are read again. `.env` is not.

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

/// SIGHUP, which ends the process no more once this was made.
pub(crate) struct Hangup(Signal);

/// What is replaced when its file is read again.
pub(crate) struct Reload {
    pub(crate) admin_tokens: Option<(SecretFile<AdminTokens>, AdminTokens)>,
    pub(crate) upstream_credential: Option<(SecretFile<HeaderValue>, UpstreamCredential)>,
    /// What is known of the credential before.
    pub(crate) credential_cooldown: CredentialCooldown,
}

impl Hangup {
    pub(crate) fn catch() -> io::Result<Self> {
        signal(SignalKind::hangup()).map(Self)
    }

    /// Reads the files at each signal, for ever.
    pub(crate) async fn reload(mut self, reload: Reload, manager: &ServiceManager) -> Infallible {
        let Reload { admin_tokens, upstream_credential, credential_cooldown } = reload;
        loop {
            self.0.recv().await;
            tracing::info!("SIGHUP: reading token and key files");
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

/// Reads one file and puts what it holds in force, or says why not.
async fn read<T: Clone + Send + 'static>(
    file: &SecretFile<T>,
    replace: impl FnOnce(T),
) -> Option<String> {
    let (name, file) = (file.name, file.clone());
    // A file system that does not answer holds up no request.
    match spawn_blocking(move || file.read_again()).await {
        Ok(Ok(new)) => {
            replace(new);
            tracing::info!(file = name, "read again");
            None
        }
        Ok(Err(error)) => {
            tracing::error!(%error, "file not read again: the old value stays in force");
            Some(error.to_string())
        }
        Err(error) => {
            tracing::error!(%error, file = name, "file not read again");
            Some(format!("{name}: {error}"))
        }
    }
}
