//! The example `gateway`, as it is shipped.

use std::{
    env,
    fs::File,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use tower::BoxError;

use crate::{
    forward::CREDENTIAL,
    process::{Server, ending_with_us},
    proxy::Variant,
};

/// Returns the gateway at this path, or else the one that it builds of this checkout.
pub(crate) fn program(path: Option<&Path>) -> Result<PathBuf, BoxError> {
    let built = path.is_none();
    let path = match path {
        Some(path) => path.to_owned(),
        None => build()?,
    };
    let path = path.canonicalize().map_err(|error| format!("{}: {error}", path.display()))?;
    eprintln!("gateway: {}{}", path.display(), if built { ", of this checkout" } else { "" });
    Ok(path)
}

/// Builds the gateway as it is shipped, in the target directory of this program.
fn build() -> Result<PathBuf, BoxError> {
    let this = env::current_exe()?;
    // `TARGET/release/deps/stack-…`
    let release = this.parent().and_then(Path::parent).ok_or("this program has no directory")?;
    let target = release.parent().ok_or("this program has no target directory")?;
    let status = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["build", "--locked", "--profile", "dist", "--example", "gateway", "--target-dir"])
        .arg(target)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .status()?;
    match status.success() {
        true => Ok(target.join("dist/examples/gateway")),
        false => Err("the gateway cannot be built".into()),
    }
}

/// Starts it with `command`, which runs the program, on this SQLite file, which has the keys. Its log is
/// beside that file.
pub(crate) fn start(
    command: &Command,
    variant: Variant,
    upstream: SocketAddr,
    threads: usize,
    database: &Path,
) -> Result<Server, BoxError> {
    let directory = database.parent().ok_or("the database is in no directory")?;
    let mut command = ending_with_us(command);
    command
        .current_dir(directory)
        .env_clear()
        .env("PATH", env::var_os("PATH").unwrap_or_default())
        .env("PORT", "0")
        .env("DATABASE_URL", database)
        .env("UPSTREAM_BASE_URL", format!("http://{upstream}/v1"))
        .env("UPSTREAM_API_KEY", CREDENTIAL.trim_start_matches("Bearer "))
        .env("WORKER_THREADS", threads.to_string())
        .stderr(Stdio::from(File::create(directory.join("log"))?));
    if variant == Variant::Gateway {
        command.env("RUST_LOG", "warn");
    }
    Server::start_gateway(&mut command)
}
