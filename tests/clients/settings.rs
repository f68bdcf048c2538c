//! What docs/guides/clients.md and docs/guides/clients.zh.md have holders set works as it stands there, and
//! each client shows what the tables there say.

use std::{
    fs,
    os::unix::fs::symlink,
    path::Path,
    process::{Command, Output},
};

use crate::common::{
    Client, CollectedResponse, Gateway, GatewayCommand, PROVIDER_SAYS, Upstream, eventually,
};
use http::Method;
use serde_json::json;
use tempfile::TempDir;

/// Each guide with what stands in it for the gateway's address, and for the key.
const GUIDES: [(&str, &str, &str); 2] = [
    ("clients.md", "http://YOUR_SERVER:8787", "YOUR_TRIAL_KEY"),
    ("clients.zh.md", "http://你的服务器IP:8787", "你的TRIAL_KEY"),
];

/// A guide with an address and a key filled in.
struct Guide(String);

impl Guide {
    fn all(address: &str, key: &str) -> [Self; 2] {
        GUIDES.map(|(name, address_there, key_there)| {
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/guides").join(name);
            let text = fs::read_to_string(path).unwrap();
            Self(text.replace(address_there, address).replace(key_there, key))
        })
    }

    /// The section of this name, which is the same in both languages.
    fn named(&self, name: &str) -> &str {
        let mut sections = self.0.split("\n## ");
        sections.find(|section| section.lines().next() == Some(name)).expect(name)
    }
}

/// The blocks of this language in a section.
fn blocks<'a>(section: &'a str, language: &str) -> Vec<&'a str> {
    let fence = format!("\n```{language}\n");
    let behind = section.split(fence.as_str()).skip(1);
    behind.map(|text| text.split("\n```").next().unwrap()).collect()
}

/// The cells of a section's first table, less its head, and without the backticks.
fn rows(section: &str) -> Vec<Vec<String>> {
    let lines = section.lines().skip_while(|line| !line.starts_with("|-"));
    let lines = lines.skip(1).take_while(|line| line.starts_with('|'));
    let cell = |cell: &str| cell.trim().replace('`', "");
    lines.map(|line| line.trim_matches('|').split('|').map(cell).collect()).collect()
}

/// The keys that holders come with.
struct Keys {
    good: String,
    wrong: String,
    disabled: String,
    used_up: String,
}

impl Keys {
    async fn of(gateway: &Gateway) -> Self {
        let disabled = gateway.create_key(json!({})).await;
        let path = format!("/admin/keys/{disabled}");
        gateway.admin(Method::PATCH, &path, &json!({"disabled": true})).await;
        let used_up = gateway.create_key(json!({"daily_limit": 1})).await;
        let url = gateway.url("/v1/chat/completions");
        let response = Client::http1().post_as(&used_up, &url, &json!({})).await;
        assert_eq!(response.status, 200);
        Self {
            good: gateway.create_key(json!({})).await,
            wrong: "trial-nobody".to_owned(),
            disabled,
            used_up,
        }
    }
}

/// How a snippet is run.
#[derive(Clone, Copy)]
enum Language {
    Shell,
    Python,
    Node,
}

impl Language {
    fn fence(self) -> &'static str {
        match self {
            Self::Shell => "sh",
            Self::Python => "python",
            Self::Node => "js",
        }
    }

    /// Runs a snippet to its end, in a home of its own.
    async fn run(self, snippet: &str) -> Output {
        let home = TempDir::new().unwrap();
        let file = home.path().join(match self {
            Self::Shell => "chat.sh",
            Self::Python => "chat.py",
            Self::Node => "chat.mjs",
        });
        fs::write(&file, snippet).unwrap();
        let mut command = match self {
            Self::Shell => Command::new("bash"),
            Self::Python => Command::new(
                crate::common::installed("python/bin/python").unwrap_or_else(|| "python3".into()),
            ),
            Self::Node => {
                let modules =
                    crate::common::installed("node/node_modules").expect("the packages of npm");
                symlink(modules, home.path().join("node_modules")).unwrap();
                Command::new("node")
            }
        };
        command.arg(file).env_clear().env("PATH", std::env::var_os("PATH").unwrap());
        command.env("HOME", home.path()).env("LANG", "C.UTF-8").current_dir(home.path());
        tokio::task::spawn_blocking(move || {
            let output = command.output().unwrap();
            drop(home);
            output
        })
        .await
        .unwrap()
    }
}

/// All that a program has printed.
fn printed(output: &Output) -> String {
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    text += &String::from_utf8_lossy(&output.stderr);
    text
}

/// The first snippet of this section and language works with a good key, and with others shows what the
/// table says of this client.
async fn holds_what_the_guide_says(section: &str, language: Language, client: &str) {
    let upstream = Upstream::provider().await;
    let gateway = GatewayCommand::before(upstream.base_url()).env("RUST_LOG", "info").start();
    let keys = Keys::of(&gateway).await;
    for guide in Guide::all(&gateway.url(""), &keys.good) {
        let text = printed(&language.run(blocks(guide.named(section), language.fence())[0]).await);
        assert!(text.contains(PROVIDER_SAYS), "{client}: {text}");
    }
    let [row, in_chinese] = Guide::all("", "").map(|guide| guide.row(client));
    assert_eq!(row[1..], in_chinese[1..]);
    for (key, shown) in [&keys.wrong, &keys.disabled, &keys.used_up].into_iter().zip(&row[1..]) {
        let before = rejected(&gateway).await;
        let [guide, _] = Guide::all(&gateway.url(""), key);
        let text = printed(&language.run(blocks(guide.named(section), language.fence())[0]).await);
        assert!(text.contains(shown.as_str()), "{client} shows no {shown}:\n{text}");
        let requests = rejected(&gateway).await - before;
        assert_eq!(requests, 1, "requests of {client}");
    }
}

impl Guide {
    /// What the table of rejected keys says of this client.
    fn row(&self, client: &str) -> Vec<String> {
        let of_client = |row: &Vec<String>| row[0] == client && row.len() == 4;
        let sections = self.0.split("\n## ");
        sections.flat_map(rows).find(of_client).unwrap_or_else(|| panic!("no row of {client}"))
    }
}

/// How many requests that would cost a unit have been rejected so far.
async fn rejected(gateway: &Gateway) -> usize {
    let lines = |marked: bool| {
        let printed = gateway.printed();
        let is_one = |line: &&str| {
            let costs = line.contains("method=\"POST\"") && line.contains(" status=4");
            (costs || marked) && line.contains("method=\"PUT\"") == marked
        };
        printed.lines().filter(is_one).count()
    };
    // Once the log has a later request it has all that came before.
    let marks = lines(true);
    Client::http1().send(Method::PUT, &gateway.url("/v1/mark"), &[], "").await;
    eventually("the log", || async { lines(true) > marks }).await;
    lines(false)
}

/// What the guide's table of base URLs says: of each its address, what the SDK meets, and what others do.
fn base_urls(guide: &Guide) -> Vec<Vec<String>> {
    let tables = guide.0.split("\n## ").map(rows);
    let is_one = |row: &Vec<String>| row[0].starts_with("http") && !row[1].starts_with("http");
    tables.flatten().filter(is_one).collect()
}

/// Whether the guide says in its last column what this response is.
fn is_as_said(response: &CollectedResponse, row: &[String]) -> bool {
    let said = row.last().unwrap().as_str();
    match response.status.as_u16() {
        200 => ["works", "可用"].contains(&said),
        status => said == format!("{status} {}", response.code()),
    }
}

#[tokio::test]
async fn base_urls_work_or_are_rejected_as_the_guide_says() {
    let upstream = Upstream::provider().await;
    let gateway = GatewayCommand::before(upstream.base_url()).start();
    let key = gateway.create_key(json!({})).await;
    let body = json!({"model": "deepseek-chat", "messages": []});
    for guide in Guide::all(&gateway.url(""), &key) {
        let rows = base_urls(&guide);
        assert_eq!(rows.len(), 7);
        for row in rows {
            let before = gateway.used(&key).await;
            let url = format!("{}/chat/completions", row[0]);
            let response = Client::http1().post_as(&key, &url, &body).await;
            assert!(is_as_said(&response, &row), "{row:?}: {response:?}");
            let charged = gateway.used(&key).await - before;
            assert_eq!(charged, u64::from(response.status == 200), "{row:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Python with openai"]
async fn base_urls_work_or_are_rejected_by_the_sdk_as_the_guide_says() {
    let upstream = Upstream::provider().await;
    let gateway = GatewayCommand::before(upstream.base_url()).start();
    let key = gateway.create_key(json!({})).await;
    let [guide, _] = Guide::all(&gateway.url(""), &key);
    let rows = base_urls(&guide);
    let mut script = "import openai, os\n".to_owned();
    for row in &rows {
        script += &format!(
            "try:\n  openai.OpenAI(base_url='{}', api_key='{key}').chat.completions.create(model='m', messages=[])\n  \
             print('works')\nexcept openai.APIStatusError as error:\n  print(error.status_code, error.code)\n",
            row[0]
        );
    }
    let text = printed(&Language::Python.run(&script).await);
    let shown: Vec<&str> = rows.iter().map(|row| row[1].as_str()).collect();
    assert_eq!(text.lines().collect::<Vec<_>>(), shown);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Python with openai"]
async fn programs_of_the_sdk_read_the_two_variables() {
    let upstream = Upstream::provider().await;
    let gateway = GatewayCommand::before(upstream.base_url()).start();
    let key = gateway.create_key(json!({})).await;
    let python = crate::common::installed("python/bin/python").unwrap_or_else(|| "python3".into());
    for guide in Guide::all(&gateway.url(""), &key) {
        let settings = blocks(guide.named("OpenAI SDK"), "sh")[0];
        let program = "import openai; print([model.id for model in openai.OpenAI().models.list()])";
        let script = format!("{settings}\n{} -c '{program}'", python.display());
        assert!(printed(&Language::Shell.run(&script).await).contains("deepseek-chat"));
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs curl"]
async fn curl_works_as_the_guide_says() {
    holds_what_the_guide_says("curl", Language::Shell, "curl").await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Python with openai"]
async fn openai_sdk_for_python_works_as_the_guide_says() {
    holds_what_the_guide_says("OpenAI SDK", Language::Python, "OpenAI SDK, Python").await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Node with openai"]
async fn openai_sdk_for_node_works_as_the_guide_says() {
    holds_what_the_guide_says("OpenAI SDK", Language::Node, "OpenAI SDK, Node").await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Python with anthropic"]
async fn anthropic_sdk_for_python_works_as_the_guide_says() {
    holds_what_the_guide_says("Anthropic SDK", Language::Python, "Anthropic SDK, Python").await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Node with @anthropic-ai/sdk"]
async fn anthropic_sdk_for_node_works_as_the_guide_says() {
    holds_what_the_guide_says("Anthropic SDK", Language::Node, "Anthropic SDK, Node").await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Python with langchain-openai"]
async fn langchain_for_python_works_as_the_guide_says() {
    holds_what_the_guide_says("LangChain", Language::Python, "LangChain, Python").await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Node with @langchain/openai"]
async fn langchain_for_node_works_as_the_guide_says() {
    holds_what_the_guide_says("LangChain", Language::Node, "LangChain, Node").await;
}

#[tokio::test]
async fn yaml_of_the_users_own_procedure_works() {
    let upstream = Upstream::provider().await;
    let gateway = GatewayCommand::before(upstream.base_url()).start();
    let key = gateway.create_key(json!({})).await;
    let procedure = include_str!("../../docs/trial-key-process.zh.md");
    let [_, as_it_stands] = Guide::all(GUIDES[1].1, GUIDES[1].2);
    assert!(procedure.contains(blocks(as_it_stands.named("OpenClaw"), "yaml")[0]));
    for guide in Guide::all(&gateway.url(""), &key) {
        let yaml = blocks(guide.named("OpenClaw"), "yaml")[0];
        let value = |name: &str| {
            let line = yaml.lines().find_map(|line| line.trim().strip_prefix(name)).expect(name);
            line.trim().trim_matches('"')
        };
        let models = yaml.lines().filter_map(|line| line.strip_prefix("      - id: "));
        assert_eq!(models.clone().count(), 2);
        for model in models {
            let url = format!("{}/chat/completions", value("baseUrl:"));
            let body = json!({"model": model, "messages": [{"role": "user", "content": "你好"}]});
            let response = Client::http1().post_as(value("apiKey:"), &url, &body).await;
            assert_eq!(response.status, 200, "{response:?}");
        }
    }
}

/// What Cherry Studio makes of the address that is typed in: it adds `/v1` unless there is a version in
/// the path or a `#` at the end, and `chat/completions` unless that stands before the `#`.
fn requested_by_cherry_studio(entered: &str) -> String {
    let host = entered.trim().strip_suffix('/').unwrap_or(entered.trim());
    if let Some(exact) = host.strip_suffix('#') {
        let base = exact.strip_suffix("chat/completions").unwrap_or(exact);
        return format!("{}/chat/completions", base.trim_end_matches('/'));
    }
    let path = host.splitn(4, '/').nth(3).unwrap_or_default();
    let has_version = path.split('/').any(|part| {
        let number = part.strip_prefix('v').unwrap_or_default();
        !number.is_empty() && number.bytes().all(|digit| digit.is_ascii_digit())
    });
    let version = if has_version { "" } else { "/v1" };
    format!("{host}{version}/chat/completions")
}

#[tokio::test]
async fn addresses_of_cherry_studio_lead_where_the_guide_says() {
    let upstream = Upstream::provider().await;
    let gateway = GatewayCommand::before(upstream.base_url()).start();
    let key = gateway.create_key(json!({})).await;
    let authorization = format!("Bearer {key}");
    let headers = [
        ("authorization", authorization.as_str()),
        ("x-api-key", key.as_str()),
        ("http-referer", "https://cherry-ai.com"),
        ("x-title", "Cherry Studio"),
        ("content-type", "application/json"),
    ];
    let body = json!({
        "model": "deepseek-chat", "messages": [{"role": "user", "content": "你好"}],
        "stream": true, "stream_options": {"include_usage": true},
    });
    for guide in Guide::all(&gateway.url(""), &key) {
        let rows = rows(guide.named("Cherry Studio"));
        assert_eq!(rows.len(), 6);
        for row in rows {
            assert_eq!(requested_by_cherry_studio(&row[0]), row[1]);
            let client = Client::http1();
            let response = client.send(Method::POST, &row[1], &headers, body.to_string()).await;
            assert!(is_as_said(&response, &row), "{row:?}: {response:?}");
        }
    }
    let travelled = format!("{:?}", upstream.last().headers);
    assert!(!travelled.contains(&key), "{travelled}");
}

/// Without `ENABLE_PERSISTENT_CONFIG=False` it reads them at its first start only.
#[tokio::test]
async fn requests_of_open_webui_with_the_variables_of_the_guide_work() {
    let upstream = Upstream::provider().await;
    let gateway = GatewayCommand::before(upstream.base_url()).start();
    let key = gateway.create_key(json!({})).await;
    for guide in Guide::all(&gateway.url(""), &key) {
        let variables = blocks(guide.named("Open WebUI"), "env")[0];
        let value = |name: &str| {
            let mut variables = variables.lines().filter_map(|line| line.split_once('='));
            variables.find_map(|(set, value)| (set == name).then_some(value)).expect(name)
        };
        let (base, key) = (value("OPENAI_API_BASE_URL"), value("OPENAI_API_KEY"));
        let models = Client::http1().get_as(key, &format!("{base}/models")).await.json();
        let body = json!({
            "model": models["data"][0]["id"], "stream": true,
            "messages": [{"role": "user", "content": "你好"}],
        });
        let url = format!("{base}/chat/completions");
        let response = Client::http1().post_as(key, &url, &body).await;
        assert!(response.text().contains(PROVIDER_SAYS), "{response:?}");
    }
}

/// A program of the command line: its section, and the settings that it reads from a file.
struct Cli {
    name: &'static str,
    settings: Option<(&'static str, &'static str)>,
    /// What is installed to have it, as `.ci/nightly` names it up to the version.
    package: &'static str,
}

const CLIS: [Cli; 6] = [
    Cli {
        name: "OpenClaw",
        settings: Some(("json", ".openclaw/openclaw.json")),
        package: "openclaw@",
    },
    Cli {
        name: "Codex",
        settings: Some(("toml", ".codex/config.toml")),
        package: "@openai/codex@",
    },
    Cli { name: "Claude Code", settings: None, package: "@anthropic-ai/claude-code@" },
    Cli {
        name: "OpenCode",
        settings: Some(("json", ".config/opencode/opencode.json")),
        package: "opencode-ai@",
    },
    Cli { name: "Qwen Code", settings: None, package: "@qwen-code/qwen-code@" },
    Cli { name: "aider", settings: None, package: "aider-chat==" },
];

/// What the guide says of a CLI on a used-up day, by the position of the column.
const ON_429: usize = 3;
const ON_402: usize = 4;
const ON_WRONG_KEY: usize = 5;

impl Guide {
    /// What the table of used-up days says of this CLI.
    fn measured(&self, name: &str) -> Vec<String> {
        let mut rows = self.0.split("\n## ").flat_map(rows);
        rows.find(|row| row[0] == name && row.len() == 6).unwrap_or_else(|| panic!("no {name}"))
    }
}

#[test]
fn versions_of_the_guide_are_those_that_are_measured() {
    let nightly = include_str!("../../.ci/nightly");
    let [english, chinese] = Guide::all("", "");
    for cli in &CLIS {
        let row = english.measured(cli.name);
        assert!(nightly.contains(&format!("{}{}", cli.package, row[1])), "{row:?}");
        let digits =
            |row: Vec<String>| row.concat().replace(|letter: char| !letter.is_ascii_digit(), "");
        assert_eq!(digits(row), digits(chinese.measured(cli.name)), "{}", cli.name);
    }
}

/// What takes minutes, and large downloads. `.ci/nightly` installs it.
mod nightly {
    use std::{
        ffi::OsString,
        os::unix::process::CommandExt,
        process::Stdio,
        time::{Duration, Instant},
    };

    use rustix::process::{Pid, Signal, kill_process_group};

    use super::*;

    /// After this a CLI that has not given up is ended.
    const TIMEOUT: Duration = Duration::from_secs(300);

    impl Cli {
        /// Runs the snippets of its section in a new home: what it prints, and whether it came to an end.
        fn run(&self, guide: &Guide) -> (String, bool) {
            let section = guide.named(self.name);
            let home = TempDir::new().unwrap();
            if let Some((language, path)) = self.settings {
                let path = home.path().join(path);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, blocks(section, language)[0]).unwrap();
            }
            let log = home.path().join("printed");
            let file = fs::File::create(&log).unwrap();
            let mut command = Command::new("bash");
            command.args(["-c", blocks(section, "sh")[0]]).env_clear().env("PATH", path());
            command.env("HOME", home.path()).env("LANG", "C.UTF-8").env("NO_PROXY", "127.0.0.1");
            for telemetry in [
                ("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "1"),
                ("OPENCODE_DISABLE_AUTOUPDATE", "1"),
                ("AIDER_ANALYTICS_DISABLE", "true"),
                ("AIDER_CHECK_UPDATE", "false"),
            ] {
                command.env(telemetry.0, telemetry.1);
            }
            command.current_dir(home.path()).process_group(0).stdin(Stdio::null());
            command.stdout(file.try_clone().unwrap()).stderr(file);
            let mut child = command.spawn().unwrap();
            let until = Instant::now() + TIMEOUT;
            let ended = loop {
                if child.try_wait().unwrap().is_some() {
                    break true;
                }
                if Instant::now() > until {
                    break false;
                }
                std::thread::sleep(Duration::from_millis(50));
            };
            let _ = kill_process_group(Pid::from_child(&child), Signal::KILL);
            let _ = child.wait();
            let printed = fs::read(log).unwrap();
            (String::from_utf8_lossy(&printed).into_owned(), ended)
        }
    }

    fn path() -> OsString {
        let bins = ["cli/node_modules/.bin", "aider/bin"].map(|bin| {
            crate::common::installed(bin).expect("the programs that .ci/nightly installs")
        });
        let path = std::env::var_os("PATH").unwrap();
        std::env::join_paths(bins.into_iter().chain(std::env::split_paths(&path))).unwrap()
    }

    /// Whether a run was as a cell of the table says: `1`, `6 in 6 s`, `about 9 in 80 s`, or words for one
    /// without end.
    fn is_as_measured(cell: &str, requests: usize, ended: bool) -> bool {
        let number = cell.split(" in ").next().unwrap();
        let rough = number.strip_prefix("about ");
        match rough.unwrap_or(number).parse::<usize>() {
            Ok(said) if rough.is_some() => ended && requests.abs_diff(said) <= said / 3,
            Ok(said) => ended && requests == said,
            Err(_) => !ended,
        }
    }

    async fn does_what_the_guide_says(name: &str) {
        let cli = CLIS.iter().find(|cli| cli.name == name).unwrap();
        let check = |cell: &str, requests: usize, ended: bool, text: &str| {
            println!("{name}: {requests} requests, ended: {ended} (the guide: {cell})");
            assert!(is_as_measured(cell, requests, ended), "{text}");
        };
        let upstream = Upstream::provider().await;
        for (status, column) in [("429", ON_429), ("402", ON_402)] {
            let command = GatewayCommand::before(upstream.base_url()).env("RUST_LOG", "info");
            let gateway = command.env("QUOTA_EXHAUSTED_STATUS", status).start();
            let keys = Keys::of(&gateway).await;
            let filled_in = |key: &str| Guide::all(&gateway.url(""), key);
            let run = async |guide: Guide| {
                let before = rejected(&gateway).await;
                let (text, ended) =
                    tokio::task::spawn_blocking(move || cli.run(&guide)).await.unwrap();
                (text, ended, rejected(&gateway).await - before)
            };
            let [guide, _] = filled_in("");
            let (row, shown) = (guide.measured(name), guide.row(name));
            let [guide, _] = filled_in(&keys.used_up);
            let (text, ended, requests) = run(guide).await;
            check(&row[column], requests, ended, &text);
            if column == ON_402 {
                continue;
            }
            assert!(!ended || text.contains(&shown[3]), "{text}");
            let [guide, _] = filled_in(&keys.wrong);
            let (text, ended, requests) = run(guide).await;
            check(&row[ON_WRONG_KEY], requests, ended, &text);
            assert!(text.contains(&shown[1]), "{text}");
            let [guide, _] = filled_in(&keys.disabled);
            let (text, ..) = run(guide).await;
            assert!(text.contains(&shown[2]), "{text}");
            for guide in filled_in(&keys.good) {
                let (text, ..) = run(guide).await;
                assert!(text.contains(PROVIDER_SAYS), "{text}");
            }
        }
    }

    macro_rules! clis {
        ($($test:ident: $name:literal,)*) => {
            $(#[tokio::test(flavor = "multi_thread")]
            #[ignore = "needs OpenClaw, aider and coding CLIs of npm"]
            async fn $test() {
                does_what_the_guide_says($name).await;
            })*
        };
    }

    clis! {
        openclaw: "OpenClaw",
        codex: "Codex",
        claude_code: "Claude Code",
        opencode: "OpenCode",
        qwen_code: "Qwen Code",
        aider: "aider",
    }

    /// The demo's upstream has neither of the APIs that they need.
    #[tokio::test(flavor = "multi_thread")]
    #[ignore = "needs Codex and Claude Code"]
    async fn questions_cost_what_the_guide_says_where_the_upstream_lacks_the_api() {
        let gateway = GatewayCommand::new().arg("--demo").start();
        for (name, shown, units) in [
            ("Codex", "unexpected status 404 Not Found", 6),
            ("Claude Code", "There's an issue with the selected model", 2),
        ] {
            let key = gateway.create_key(json!({})).await;
            let [guide, _] = Guide::all(&gateway.url(""), &key);
            assert!(guide.named(name).contains(shown));
            let cli = CLIS.iter().find(|cli| cli.name == name).unwrap();
            let (text, _) = tokio::task::spawn_blocking(move || cli.run(&guide)).await.unwrap();
            assert!(text.contains(shown), "{text}");
            assert_eq!(gateway.used(&key).await, units, "{name}");
        }
    }
}
