//! Runs the commands of a document as its reader would: in one bash session, in an empty directory.

use std::{
    collections::HashMap,
    env, fs,
    os::unix::{fs::symlink, process::CommandExt},
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
    sync::{Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process_group};
use tempfile::TempDir;

use super::{
    common::{ADMIN_TOKEN, Gateway, GatewayCommand, free_port, gateway_binary, wait_past_midnight},
    document::{Block, Directive, Document, ROOT},
    transcript::{self, matches},
};

/// How long the commands between two `fresh` may take; with cargo among them.
const SESSION_TIMEOUT: Duration = Duration::from_secs(120);
const CLONE_TIMEOUT: Duration = Duration::from_secs(900);

/// Ports that documents name. Each session has ports of its own in their place.
const PORTS: [&str; 3] = ["8787", "8788", "8789"];

/// Hosts that stand for the reader's own, with what may stand before the path.
const PLACEHOLDER_HOSTS: [&str; 9] = [
    "你的服务器IP",
    "服务器IP",
    "quota.example.com",
    "api.yourdomain.com",
    "quota-proxy.yourdomain.com",
    "quota-proxy-service.default.svc.cluster.local",
    "quota-proxy",
    "192.168.1.100",
    "YOUR_SERVER",
];

/// The upstream that documents name; commands meet the one of `--demo` instead.
const UPSTREAM: &str = "https://api.deepseek.com/v1";

/// Shell functions for the steps of a session.
const PRELUDE: &str = include_str!("prelude.sh");

/// One command of a transcript, or one block.
struct Step {
    line: usize,
    commands: String,
    background: bool,
    stopped: bool,
    /// What it is to print, and where that is said.
    printed: Option<(usize, String, bool)>,
    /// Whether its status does not matter, as what it prints is compared.
    may_fail: bool,
}

/// Blocks from one `fresh` to the next.
#[derive(Default)]
struct Session {
    steps: Vec<Step>,
    in_clone: bool,
}

/// What all sessions share, and what ends with them.
pub(crate) struct Shell {
    /// A folder with the program under test in it, of its own: cargo may replace the one that it has built.
    programs: TempDir,
    /// Its upstream stands for the real one.
    _demo: Gateway,
    upstream: String,
}

impl Shell {
    pub(crate) fn start() -> Self {
        let programs = TempDir::new().unwrap();
        fs::copy(gateway_binary(), programs.path().join("gateway")).unwrap();
        let demo = GatewayCommand::new().env("RUST_LOG", "off").arg("--demo").start();
        Self { programs, upstream: upstream_of(&demo), _demo: demo }
    }

    /// Runs all blocks of a document that are to be run, and returns what went wrong.
    pub(crate) fn run(&self, document: &Document) -> Vec<String> {
        let sessions = sessions(document);
        sessions.iter().filter_map(|session| session.run(&document.path, self).err()).collect()
    }
}

fn sessions(document: &Document) -> Vec<Session> {
    let mut sessions = vec![Session::default()];
    for block in &document.blocks {
        if block.is(&Directive::Prints) {
            let session = sessions.last_mut().unwrap();
            if let Some(step) = session.steps.last_mut() {
                step.printed = Some((block.line, block.text.clone(), block.language == "json"));
            }
            continue;
        }
        if !block.is_run() {
            continue;
        }
        let in_clone = block.is(&Directive::Clone);
        if block.is(&Directive::Fresh) || in_clone {
            sessions.push(Session { in_clone, ..Session::default() });
        }
        sessions.last_mut().unwrap().steps.extend(steps(block));
    }
    sessions.retain(|session| !session.steps.is_empty());
    sessions
}

fn steps(block: &Block) -> Vec<Step> {
    let background = block.is(&Directive::Background);
    let stopped = block.is(&Directive::Stopped);
    if block.language == "sh" {
        let commands = block.text.clone();
        let (printed, may_fail) = (None, false);
        return vec![Step { line: block.line, commands, background, stopped, printed, may_fail }];
    }
    let entries = transcript::entries(&block.text).into_iter().enumerate();
    let steps = entries.map(|(at, entry)| Step {
        line: block.line + entry.line,
        commands: entry.command,
        background: background && at == 0,
        stopped: stopped && at == 0,
        may_fail: !entry.printed.is_empty(),
        printed: Some((block.line + entry.line + 1, entry.printed, false)),
    });
    steps.collect()
}

impl Session {
    fn run(&self, document: &str, shell: &Shell) -> Result<(), String> {
        let _one_at_a_time =
            self.in_clone.then(|| CLONE.lock().unwrap_or_else(PoisonError::into_inner));
        // What a document counts is of one day.
        wait_past_midnight(SESSION_TIMEOUT);
        let state = TempDir::new().unwrap();
        let ports = [(); 3].map(|()| free_port());
        let starts_one = self.steps.iter().any(|step| step.background);
        let requests_one = self.steps.iter().any(|step| requests_gateway(&step.commands));
        let gateway = (requests_one && !starts_one).then(|| {
            GatewayCommand::new()
                .env("PORT", ports[0].to_string())
                .env("QUOTA_TIMEZONE", "UTC")
                .env("RUST_LOG", "off")
                .arg("--demo")
                .start()
        });
        let directory = match &gateway {
            Some(gateway) => gateway.dir().to_owned(),
            None if self.in_clone => fresh_clone(),
            None => {
                let directory = state.path().join("work");
                fs::create_dir(&directory).unwrap();
                directory
            }
        };
        let driver = self.driver(document, state.path(), ports, &shell.upstream);
        fs::write(state.path().join("driver"), driver).unwrap();
        let programs = shell.programs.path();
        let ended = self.bash(state.path(), &directory, programs, ports, gateway.as_ref());
        self.judge(document, state.path(), ports, ended)
    }

    /// The script that runs each step with the line numbers of the document.
    fn driver(&self, document: &str, state: &Path, ports: [u16; 3], upstream: &str) -> String {
        let mut driver = PRELUDE.to_owned();
        let name = document.rsplit('/').next().unwrap();
        for (number, step) in self.steps.iter().enumerate() {
            let folder = state.join(format!("{number:03}"));
            fs::create_dir(&folder).unwrap();
            let mut commands = fill_in(&step.commands, ports, upstream);
            let address =
                PORTS.iter().position(|port| step.commands.contains(&format!("PORT={port}")));
            if step.background {
                commands = in_background(&commands);
            }
            fs::write(folder.join(name), "\n".repeat(step.line - 1) + &commands).unwrap();
            let source = format!("source \"$DOCS_STATE/{number:03}/{name}\"");
            let output = format!(">\"$DOCS_STATE/{number:03}/out\"");
            driver += &format!("echo {number} >\"$DOCS_STATE/step\"\n");
            if step.stopped {
                driver += "docs_stop\n";
            }
            driver += &match step {
                Step { background: true, .. } => format!(
                    "{source} {output} 2>\"$DOCS_STATE/{number:03}/err\"\ndocs_started $! {}\n",
                    ports[address.unwrap_or(0)]
                ),
                Step { may_fail: true, .. } => format!("{source} {output} 2>&1 || true\n"),
                _ => format!("{source} {output} 2>&1\n"),
            };
        }
        driver + "echo end >\"$DOCS_STATE/step\"\n"
    }

    fn bash(
        &self,
        state: &Path,
        directory: &Path,
        programs: &Path,
        ports: [u16; 3],
        beside: Option<&Gateway>,
    ) -> Option<ExitStatus> {
        let home = state.join("home");
        fs::create_dir(&home).unwrap();
        // As on a terminal: no progress bar, but errors. And nothing waits for ever.
        fs::write(home.join(".curlrc"), "silent\nshow-error\nmax-time = 60\n").unwrap();
        let mut bash = Command::new("bash");
        bash.arg(state.join("driver"))
            .current_dir(directory)
            .env_clear()
            .envs(env::vars().filter(|(name, _)| is_of_the_build(name)))
            .envs(homes())
            .env("PATH", format!("{}:{}", programs.display(), env::var("PATH").unwrap()))
            .env("HOME", &home)
            .env("CURL_HOME", &home)
            .env("LANG", "C.UTF-8")
            .env("PORT", ports[0].to_string())
            .env("DOCS_STATE", state)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(state.join("errors")).unwrap())
            .process_group(0);
        if let Some(gateway) = beside {
            bash.env("ADMIN_TOKEN", ADMIN_TOKEN).env("DOCS_GATEWAY", gateway.id().to_string());
        }
        if self.in_clone {
            bash.env("CARGO_TARGET_DIR", target());
        }
        let mut child = bash.spawn().unwrap();
        let limit = if self.in_clone { CLONE_TIMEOUT } else { SESSION_TIMEOUT };
        let until = Instant::now() + limit;
        let ended = loop {
            match child.try_wait().unwrap() {
                None if Instant::now() < until => thread::sleep(Duration::from_millis(10)),
                ended => break ended,
            }
        };
        let _ = kill_process_group(Pid::from_child(&child), Signal::KILL);
        let _ = child.wait();
        ended
    }

    fn judge(
        &self,
        document: &str,
        state: &Path,
        ports: [u16; 3],
        ended: Option<ExitStatus>,
    ) -> Result<(), String> {
        let read = |file: &str| {
            as_written(&fs::read_to_string(state.join(file)).unwrap_or_default(), ports)
        };
        let reached = match read("step").trim() {
            "end" => self.steps.len(),
            // Before the first step there is none yet.
            number => number.parse().unwrap_or(0),
        };
        for (number, step) in self.steps.iter().enumerate().take(reached) {
            let Some((line, expected, is_json)) = &step.printed else { continue };
            let printed = read(&format!("{number:03}/out"));
            if !matches(expected, &printed, *is_json) {
                return Err(format!(
                    "{document}:{line}: this is not what the command of line {} prints.\n--- the document\n{}\n--- printed\n{}",
                    step.line,
                    expected.trim_end(),
                    printed.trim_end()
                ));
            }
        }
        let Some(step) = self.steps.get(reached) else { return Ok(()) };
        let how = match ended {
            Some(status) => format!("failed ({status})"),
            None => "did not end in time".to_owned(),
        };
        let failed = read("failed");
        let (line, command) = failed
            .lines()
            .next()
            .and_then(|line| line.split_once(": "))
            .unwrap_or(("", step.commands.trim_end()));
        let line = line.parse().unwrap_or(step.line);
        let output = read(&format!("{reached:03}/out")) + &read(&format!("{reached:03}/err"));
        let output = format!("{}{}", output, read("errors"));
        Err(format!("{document}:{line}: {how}: {command}\n--- printed\n{}", output.trim_end()))
    }
}

/// Whether these commands talk to a gateway.
fn requests_gateway(commands: &str) -> bool {
    commands.contains(PORTS[0])
        || commands.contains("ADMIN_TOKEN")
        || PLACEHOLDER_HOSTS.iter().any(|host| commands.contains(&format!("//{host}")))
}

/// The commands with the session's ports, its gateway for hosts that are the reader's own, and some
/// upstream key for `sk-…`. A value `…` is what an earlier command has printed under that name.
fn fill_in(commands: &str, ports: [u16; 3], upstream: &str) -> String {
    let mut filled = commands.replace(UPSTREAM, upstream).replace("sk-…", "sk-sponsor-secret");
    for host in PLACEHOLDER_HOSTS {
        for scheme in ["https", "http"] {
            for port in [":8787", ""] {
                let address = format!("{scheme}://{host}{port}");
                for end in ["/", "\"", "'", " ", "\n"] {
                    filled = filled.replace(
                        &format!("{address}{end}"),
                        &format!("http://127.0.0.1:{}{end}", PORTS[0]),
                    );
                }
            }
        }
    }
    for (name, port) in PORTS.iter().zip(ports) {
        filled = filled.replace(name, &port.to_string());
    }
    let lines = filled.lines().map(|line| match line.split_once("=…") {
        Some((name, rest)) => {
            let variable = name.rsplit([' ', '\t']).next().unwrap();
            format!("{name}=$(docs_pasted {variable}){rest}\n")
        }
        None => format!("{line}\n"),
    });
    lines.collect()
}

/// The output as the document would have it, with the ports that it names.
fn as_written(output: &str, ports: [u16; 3]) -> String {
    let mut written = output.to_owned();
    for (name, port) in PORTS.iter().zip(ports) {
        written = written.replace(&port.to_string(), name);
    }
    written
}

/// The block with its last command, which may have several lines, in the background.
fn in_background(block: &str) -> String {
    let block = block.trim_end();
    let (before, last) = block.rsplit_once('\n').unwrap_or(("", block));
    let last = last.split(" #").next().unwrap().trim_end();
    format!("{before}\n{last} &\n")
}

/// The address of the built-in upstream of a gateway.
fn upstream_of(demo: &Gateway) -> String {
    let until = Instant::now() + SESSION_TIMEOUT;
    loop {
        let printed = demo.printed();
        if let Some(line) = printed.lines().find_map(|line| line.strip_prefix("upstream")) {
            return line.trim().to_owned();
        }
        assert!(Instant::now() < until, "no upstream in {printed}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Cargo's and rustup's own, as `HOME` is another.
fn homes() -> HashMap<&'static str, PathBuf> {
    let home = PathBuf::from(env::var_os("HOME").unwrap_or_default());
    [("CARGO_HOME", ".cargo"), ("RUSTUP_HOME", ".rustup"), ("PYENV_ROOT", ".pyenv")]
        .map(|(name, folder)| {
            (name, env::var_os(name).map_or_else(|| home.join(folder), PathBuf::from))
        })
        .into()
}

fn is_of_the_build(variable: &str) -> bool {
    ["RUSTFLAGS", "RUSTUP_TOOLCHAIN", "CARGO_INCREMENTAL", "CARGO_BUILD_JOBS", "CC", "CFLAGS"]
        .contains(&variable)
}

/// Where cargo has built this test.
fn target() -> PathBuf {
    let test = env::current_exe().unwrap();
    test.ancestors().nth(3).unwrap().to_owned()
}

/// The clone is made at one place, so that what was built for it before is not built again.
static CLONE: Mutex<()> = Mutex::new(());

/// The working tree without what git ignores, as a clone would be.
fn fresh_clone() -> PathBuf {
    let clone = target().join("clone/tower-quota");
    let _ = fs::remove_dir_all(&clone);
    let listed = Command::new("git")
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(ROOT)
        .output()
        .unwrap();
    assert!(listed.status.success(), "{listed:?}");
    for path in String::from_utf8(listed.stdout).unwrap().split_terminator('\0') {
        let (from, to) = (Path::new(ROOT).join(path), clone.join(path));
        let Ok(about) = fs::symlink_metadata(&from) else { continue };
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        if about.is_symlink() {
            symlink(fs::read_link(&from).unwrap(), &to).unwrap();
            continue;
        }
        fs::copy(&from, &to).unwrap();
        let file = fs::File::options().append(true).open(&to).unwrap();
        file.set_modified(about.modified().unwrap()).unwrap();
    }
    clone
}
