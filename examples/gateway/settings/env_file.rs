//! Reads `.env`.

use std::{env, fs, io};

use super::BadSetting;

const NAME: &str = ".env";
/// The byte order mark, which editors on Windows write in front of UTF-8.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";
/// Similarity of an unknown name to that of a setting from which on it counts as misspelt, from 0 to 1.
const MIN_SIMILARITY: f64 = 0.8;

/// Sets the variables of `.env` in the working directory that the environment does not set, and returns
/// their names.
///
/// Also returns an error if a line is invalid, or if a name is a misspelt setting, which would have no
/// effect. Other names may belong to other programs. The valid lines are applied even then.
pub(super) fn load(settings: &[String]) -> (Vec<String>, Result<(), BadSetting>) {
    let text = match fs::read(NAME) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return (Vec::new(), Ok(())),
        Err(error) => return (Vec::new(), Err(unreadable(&dotenvy::Error::Io(error), &[]))),
    };
    let text = text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(&text);
    let mut names = Vec::new();
    let mut read = || {
        for line in dotenvy::from_read_iter(text) {
            names.push(line?.0);
        }
        Ok(())
    };
    let read: Result<(), dotenvy::Error> = read();
    let misspelt = names.iter().find_map(|name| Some((name, misspelt_setting(name, settings)?)));
    let checked = match (read, misspelt) {
        (Err(error), _) => Err(unreadable(&error, text)),
        (_, Some((name, setting))) => {
            let problem = format!("{name} is no setting; did you mean {setting}?");
            Err(BadSetting::new(NAME, problem))
        }
        _ => Ok(()),
    };
    names.retain(|name| env::var_os(name).is_none());
    // Errors were reported above.
    let _ = dotenvy::from_read(text);
    (names, checked)
}

/// Describes an error without showing text of the file, which contains secrets.
fn unreadable(error: &dotenvy::Error, text: &[u8]) -> BadSetting {
    match error {
        dotenvy::Error::Io(error) => BadSetting::new(NAME, format!("cannot be read: {error}")),
        dotenvy::Error::LineParse(..) => {
            let number = invalid_line(text);
            let problem = format!(
                "line {number}: expected NAME=value; put a value with a space, a # or a $ in single \
                 quotes"
            );
            BadSetting::new(NAME, problem)
        }
        _ => BadSetting::new(NAME, "expected lines of the form NAME=value"),
    }
}

/// Returns the number of the first invalid line: the lines before it are valid on their own.
fn invalid_line(text: &[u8]) -> usize {
    let lines: Vec<&[u8]> = text.split_inclusive(|byte| *byte == b'\n').collect();
    let is_valid = |count: &usize| {
        dotenvy::from_read_iter(&*lines[..*count].concat()).all(|line| line.is_ok())
    };
    (0..lines.len()).rev().find(is_valid).unwrap_or(0) + 1
}

/// Returns the setting of which `name` is probably a misspelling.
fn misspelt_setting<'a>(name: &str, settings: &'a [String]) -> Option<&'a String> {
    if settings.iter().any(|setting| setting == name) {
        return None;
    }
    let name = name.to_ascii_uppercase().replace('-', "_");
    let similarity = |setting: &&String| strsim::normalized_damerau_levenshtein(&name, setting);
    let nearest = settings.iter().max_by(|a, b| similarity(a).total_cmp(&similarity(b)))?;
    (similarity(&nearest) >= MIN_SIMILARITY).then_some(nearest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn misspelt_settings_are_recognized_and_other_names_are_not() {
        let settings = ["ADMIN_TOKEN", "ADMIN_TOKEN_FILE", "HOST", "PORT", "UPSTREAM_API_KEY"];
        let settings = settings.map(str::to_owned);
        let misspelt_setting = |name| misspelt_setting(name, &settings).map(String::as_str);
        for (name, setting) in [
            ("ADMIN_TOKENS", "ADMIN_TOKEN"),
            ("ADMIN-TOKEN", "ADMIN_TOKEN"),
            ("admin_token", "ADMIN_TOKEN"),
            ("AMDIN_TOKEN", "ADMIN_TOKEN"),
            ("UPSTREAM_APIKEY", "UPSTREAM_API_KEY"),
            ("HOSTS", "HOST"),
        ] {
            assert_eq!(misspelt_setting(name), Some(setting), "{name}");
        }
        for name in
            ["ADMIN_TOKEN", "OPENAI_API_KEY", "HOME", "COMPOSE_PROJECT_NAME", "POSTGRES_HOST"]
        {
            assert_eq!(misspelt_setting(name), None, "{name}");
        }
    }
}
