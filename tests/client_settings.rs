//! What docs/guides/clients.md and docs/guides/clients.zh.md tell holders to set works as it stands there, and
//! each client shows what the tables there say.

mod common;

use std::{
    fs,
    os::unix::fs::symlink,
    path::Path,
    process::{Command, Output},
};

use common::{Client, Gateway, GatewayCommand, PROVIDER_SAYS, Upstream};
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
        let answer = Client::http1().post_as(&used_up, &url, &json!({})).await;
        assert_eq!(answer.status, 200);
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
                common::installed("python/bin/python").unwrap_or_else(|| "python3".into()),
            ),
            Self::Node => {
                let modules = common::installed("node/node_modules").expect("the packages of npm");
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
    let gateway = GatewayCommand::at_noon(upstream.base_url()).env("RUST_LOG", "info").start();
    let keys = Keys::of(&gateway).await;
    for guide in Guide::all(&gateway.url(""), &keys.good) {
        let text = printed(&language.run(blocks(guide.named(section), language.fence())[0]).await);
        assert!(text.contains(PROVIDER_SAYS), "{client}: {text}");
    }
    let [row, in_chinese] = Guide::all("", "").map(|guide| guide.row(client));
    assert_eq!(row[1..], in_chinese[1..]);
    for (key, shown) in [&keys.wrong, &keys.disabled, &keys.used_up].into_iter().zip(&row[1..]) {
        let before = requests(&gateway).len();
        let [guide, _] = Guide::all(&gateway.url(""), key);
        let text = printed(&language.run(blocks(guide.named(section), language.fence())[0]).await);
        assert!(text.contains(shown.as_str()), "{client} shows no {shown}:\n{text}");
        let asked =
            requests(&gateway)[before..].iter().filter(|line| line.contains(" status=4")).count();
        assert_eq!(asked, 1, "requests of {client}");
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

/// The log's lines about requests that would cost a unit.
fn requests(gateway: &Gateway) -> Vec<String> {
    let printed = gateway.printed();
    let is_one = |line: &&str| line.contains(" request id=") && line.contains("method=\"POST\"");
    printed.lines().filter(is_one).map(str::to_owned).collect()
}

/// What the guide's table of base URLs says: of each its address, what the SDK meets, and what others do.
fn base_urls(guide: &Guide) -> Vec<Vec<String>> {
    let tables = guide.0.split("\n## ").map(rows);
    tables.flatten().filter(|row| row.len() == 3 && row[0].starts_with("http")).collect()
}

#[tokio::test]
async fn base_urls_work_or_are_rejected_as_the_guide_says() {
    let upstream = Upstream::provider().await;
    let gateway = GatewayCommand::at_noon(upstream.base_url()).start();
    let key = gateway.create_key(json!({})).await;
    let body = json!({"model": "deepseek-chat", "messages": []});
    for guide in Guide::all(&gateway.url(""), &key) {
        let rows = base_urls(&guide);
        assert_eq!(rows.len(), 7);
        for row in rows {
            let before = gateway.used(&key).await;
            let url = format!("{}/chat/completions", row[0]);
            let answer = Client::http1().post_as(&key, &url, &body).await;
            let shown = match answer.status.as_u16() {
                200 => ["works", "可用"].contains(&row[2].as_str()),
                status => row[2] == format!("{status} {}", answer.code()),
            };
            assert!(shown, "{row:?}: {answer:?}");
            let charged = gateway.used(&key).await - before;
            assert_eq!(charged, u64::from(answer.status == 200), "{row:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Python with openai"]
async fn base_urls_work_or_are_rejected_by_the_sdk_as_the_guide_says() {
    let upstream = Upstream::provider().await;
    let gateway = GatewayCommand::at_noon(upstream.base_url()).start();
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
    let gateway = GatewayCommand::at_noon(upstream.base_url()).start();
    let key = gateway.create_key(json!({})).await;
    let python = common::installed("python/bin/python").unwrap_or_else(|| "python3".into());
    for guide in Guide::all(&gateway.url(""), &key) {
        let settings = blocks(guide.named("OpenAI SDK"), "sh")[0];
        let program = "import openai; print([model.id for model in openai.OpenAI().models.list()])";
        let script = format!("{settings}\n{} -c '{program}'", python.display());
        assert!(printed(&Language::Shell.run(&script).await).contains("deepseek-chat"));
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs curl"]
async fn curl() {
    holds_what_the_guide_says("curl", Language::Shell, "curl").await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Python with openai"]
async fn openai_sdk_of_python() {
    holds_what_the_guide_says("OpenAI SDK", Language::Python, "OpenAI SDK, Python").await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Node with openai"]
async fn openai_sdk_of_node() {
    holds_what_the_guide_says("OpenAI SDK", Language::Node, "OpenAI SDK, Node").await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Python with anthropic"]
async fn anthropic_sdk_of_python() {
    holds_what_the_guide_says("Anthropic SDK", Language::Python, "Anthropic SDK, Python").await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Node with @anthropic-ai/sdk"]
async fn anthropic_sdk_of_node() {
    holds_what_the_guide_says("Anthropic SDK", Language::Node, "Anthropic SDK, Node").await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Python with langchain-openai"]
async fn langchain_of_python() {
    holds_what_the_guide_says("LangChain", Language::Python, "LangChain, Python").await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Node with @langchain/openai"]
async fn langchain_of_node() {
    holds_what_the_guide_says("LangChain", Language::Node, "LangChain, Node").await;
}
