use std::{
    fs,
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
};

use tempfile::TempDir;

/// Fake programs that come first on the `PATH` of scripts.
pub(crate) struct StandIns {
    dir: TempDir,
}

impl StandIns {
    pub(crate) fn new() -> Self {
        Self { dir: TempDir::new().unwrap() }
    }

    /// Adds a bash script.
    pub(crate) fn add(&self, name: &str, script: &str) {
        let path = self.dir.path().join(name);
        fs::write(&path, format!("#!/bin/bash\nset -eu\n{script}\n")).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// Runs `script` with bash in `cwd`, and returns what it has printed. What the program `name` is called
    /// with goes to `response`, one line a call, which returns what it prints, or why it fails. It does
    /// itself what `locally` does before.
    ///
    /// # Panics
    ///
    /// When the script fails.
    pub(crate) fn run(
        &self,
        script: &str,
        cwd: &Path,
        name: &str,
        locally: &str,
        mut response: impl FnMut(&str) -> Result<String, String>,
    ) -> String {
        let calls = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = calls.local_addr().unwrap();
        let ask = format!(
            "{locally}\nexec 3<>/dev/tcp/127.0.0.1/{}\nprintf '%s\\n' \"$*\" >&3\nresponse=$(cat <&3)\n\
             [ -z \"${{response:1}}\" ] || printf '%s\\n' \"${{response:1}}\"\nexit \"${{response:0:1}}\"",
            address.port()
        );
        self.add(name, &ask);
        let path = format!("{}:{}", self.dir.path().display(), std::env::var("PATH").unwrap());
        let mut bash = Command::new("bash")
            .args(["-euo", "pipefail", "-c", script])
            .env("PATH", path)
            .current_dir(cwd)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stdout = lines_of(bash.stdout.take().unwrap());
        let stderr = lines_of(bash.stderr.take().unwrap());
        let printed = thread::spawn(move || {
            let printed = stdout.join().unwrap();
            // Ends the loop that waits for calls.
            drop(TcpStream::connect(address));
            printed
        });
        loop {
            let (mut call, _) = calls.accept().unwrap();
            let mut line = String::new();
            BufReader::new(call.try_clone().unwrap()).read_line(&mut line).unwrap();
            if line.is_empty() {
                break;
            }
            let (code, text) = match response(line.trim_end()) {
                Ok(text) => (0, text),
                Err(text) => (1, text),
            };
            write!(call, "{code}{text}").unwrap();
        }
        let (printed, errors) = (printed.join().unwrap(), stderr.join().unwrap());
        let status = bash.wait().unwrap();
        assert!(status.success(), "{printed}\n{errors}");
        printed
    }

    /// Where they are.
    pub(crate) fn dir(&self) -> PathBuf {
        self.dir.path().to_owned()
    }
}

fn lines_of(stream: impl std::io::Read + Send + 'static) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let lines = BufReader::new(stream).lines().map_while(Result::ok);
        lines.collect::<Vec<String>>().join("\n")
    })
}
