//! The settings as operators may see them, on the admin page and from `gateway print-config`.

use std::fmt;

use clap::{Arg, CommandFactory};
use tower_quota::admin::AdminTokens;

use super::{
    Settings,
    given::{GivenText, variable},
};

/// Replaces a secret.
const MASK: &str = "••••";

/// One setting.
#[derive(Clone)]
pub(crate) struct ShownSetting {
    /// The name of the variable.
    pub(crate) name: String,
    /// The value or the default, masked if it is a secret.
    pub(crate) value: Option<String>,
    pub(crate) source: SettingSource,
}

/// Where a setting comes from.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum SettingSource {
    Default,
    /// A flag, with its dashes.
    Flag(String),
    /// An environment variable.
    Environment(String),
    /// A line of `.env`, by its name.
    EnvFile(String),
}

impl SettingSource {
    /// Returns the flag or the variable.
    pub(crate) fn name(&self) -> Option<&str> {
        match self {
            Self::Default => None,
            Self::Flag(name) | Self::Environment(name) | Self::EnvFile(name) => Some(name),
        }
    }

    /// Returns the kind of the source in one word.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Flag(_) => "flag",
            Self::Environment(_) => "environment",
            Self::EnvFile(_) => ".env",
        }
    }
}

impl fmt::Display for SettingSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind())?;
        self.name().map_or(Ok(()), |name| write!(f, " {name}"))
    }
}

impl ShownSetting {
    /// Shows that a secret was taken from another environment variable.
    pub(super) fn set_from_environment(&mut self, variable: &str) {
        self.value = Some(MASK.to_owned());
        self.source = SettingSource::Environment(variable.to_owned());
    }
}

/// Returns all settings, with the defaults that their help names. Those that are declared with
/// `hide_env_values` are secrets.
pub(super) fn shown<'a>(given: impl Fn(&str) -> Option<&'a GivenText>) -> Vec<ShownSetting> {
    let given = |name: &str| given(name).filter(|given| !given.text.is_empty());
    let declared = Settings::command();
    let visible = declared.get_arguments().filter(|argument| !argument.is_hide_set());
    visible
        .filter_map(|argument| {
            let name = variable(argument)?;
            let is_secret = argument.is_hide_env_values_set();
            let (value, source) = match given(&name) {
                Some(given) if is_secret => (Some(MASK.to_owned()), given.source.clone()),
                Some(given) => (Some(without_password(&given.text)), given.source.clone()),
                None if is_secret && given(&format!("{name}_FILE")).is_some() => {
                    (None, SettingSource::Default)
                }
                None => (default(argument), SettingSource::Default),
            };
            Some(ShownSetting { name, value, source })
        })
        .collect()
}

/// Adds to the settings what the process makes of them: the ids of tokens and the upstream in use.
pub(crate) fn in_use(
    mut shown: Vec<ShownSetting>,
    tokens: Option<&AdminTokens>,
    base_url: &str,
) -> Vec<ShownSetting> {
    for ShownSetting { name, value, .. } in &mut shown {
        match (&**name, tokens) {
            ("ADMIN_TOKEN", Some(tokens)) => {
                *value = Some(format!("{MASK} ({})", tokens.ids().join(", ")));
            }
            ("UPSTREAM_BASE_URL", _) => *value = Some(base_url.to_owned()),
            _ => {}
        }
    }
    shown
}

/// Returns the default value, or what the help says of it.
fn default(argument: &Arg) -> Option<String> {
    let value = argument.get_default_values().first().and_then(|value| value.to_str());
    if let Some(value) = value.filter(|value| !value.is_empty()) {
        return Some(value.to_owned());
    }
    let help = argument.get_help()?.to_string();
    let (_, default) = help.rsplit_once("[default: ")?;
    default.strip_suffix(']').map(str::to_owned)
}

/// Masks the user and password in a URL.
pub(super) fn without_password(value: &str) -> String {
    let masked = match value.split_once("://").zip(value.rsplit_once('@')) {
        Some(((scheme, _), (_, host))) => format!("{scheme}://{MASK}@{host}"),
        None => value.to_owned(),
    };
    let Some((address, parameters)) = masked.split_once("?") else { return masked };
    let parameters = parameters.split('&').map(|parameter| match parameter.split_once('=') {
        Some((name @ ("user" | "password"), _)) => format!("{name}={MASK}"),
        _ => parameter.to_owned(),
    });
    format!("{address}?{}", parameters.collect::<Vec<_>>().join("&"))
}

#[cfg(test)]
mod tests {
    use std::error::Error;

    use super::*;

    #[test]
    fn user_and_password_of_a_url_are_masked_wherever_they_are() {
        for (url, shown) in [
            (
                "postgres://alice:secret@db/q?sslmode=require",
                "postgres://••••@db/q?sslmode=require",
            ),
            (
                "postgres://db/q?user=alice&password=secret",
                "postgres://db/q?user=••••&password=••••",
            ),
            ("postgres://alice:sec?ret@db/q", "postgres://••••@db/q"),
            ("postgres://db/q", "postgres://db/q"),
            ("quota.db", "quota.db"),
        ] {
            assert_eq!(without_password(url), shown);
        }
    }

    #[test]
    fn a_setting_whose_errors_hide_its_value_is_declared_secret() {
        // They may hold a password, which is masked.
        const URLS: [&str; 2] = ["UPSTREAM_BASE_URL", "DATABASE_URL"];
        let command = Settings::command();
        let mut rejected = Vec::new();
        for argument in command.get_arguments().filter(|argument| !argument.is_hide_set()) {
            let Some(name) = variable(argument) else { continue };
            let value = format!("--{}=canary\u{7f}?", argument.get_long().unwrap());
            // Any text is a value of some, and none of those that take no value.
            let Err(error) = command.clone().try_get_matches_from(["gateway", &value]) else {
                continue;
            };
            let Some(source) = error.source() else { continue };
            let is_shown = source.to_string().contains("canary");
            assert_ne!(
                is_shown,
                argument.is_hide_env_values_set() || URLS.contains(&&*name),
                "{name}"
            );
            rejected.push(name);
        }
        for secret in ["ADMIN_TOKEN", "METRICS_TOKEN", "UPSTREAM_API_KEY", "DATABASE_PASSWORD"] {
            assert!(rejected.iter().any(|name| name == secret), "{rejected:?}");
        }
    }
}
