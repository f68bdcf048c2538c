//! The documents keep what they say: each block runs or is validated, each link leads somewhere, twins
//! say the same. CONTRIBUTING.md has the convention.

mod api_review;
mod architecture;
mod benches;
#[path = "../common/mod.rs"]
mod common;
mod data;
mod document;
mod error_codes;
mod guarantees;
mod links;
mod names;
mod package;
mod pictures;
mod shell;
mod transcript;
mod twins;

use std::{
    env,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use document::{Document, all};
use shell::Shell;

/// How many documents run at once.
const AT_ONCE: usize = 4;

#[test]
fn each_block_names_its_language_and_is_run_or_validated() {
    let faults: Vec<String> = all().iter().flat_map(data::faults).collect();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// `DOCS=docs/guides/operating.md` runs those whose path has this in it.
#[test]
#[ignore = "needs bash, curl, jq, sqlite3 and git"]
fn the_commands_of_each_document_run() {
    let chosen = env::var("DOCS").unwrap_or_default();
    let documents: Vec<Document> =
        all().into_iter().filter(|document| document.path.contains(&chosen)).collect();
    assert!(!documents.is_empty(), "no document has {chosen:?} in its path");
    let shell = Shell::start();
    let (next, failures) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some(document) = documents.get(next.fetch_add(1, Ordering::Relaxed)) {
                    failures.lock().unwrap().extend(shell.run(document));
                }
            });
        }
    });
    let failures = failures.into_inner().unwrap();
    assert!(failures.is_empty(), "\n{}", failures.join("\n\n"));
}

/// What the harness would let pass if it were broken.
mod faults {
    use super::{
        Document, data, document::slug, links, names, shell::Shell, transcript::matches, twins,
    };

    fn of(text: &str, check: impl Fn(&Document) -> Vec<String>) -> Vec<String> {
        check(&Document::parse("docs/page.md", text))
    }

    #[test]
    fn form_faults_are_found() {
        for (text, fault) in [
            ("```\nls\n```", "docs/page.md:1: a block without a language"),
            ("text\n\n    ls\n", "docs/page.md:3: a block by indentation"),
            ("上游，\n所以", "docs/page.md:1: a line break between Chinese"),
            ("```json\n{\n```", "docs/page.md:1: no JSON"),
            ("```yaml\na: [\n```", "docs/page.md:1: no YAML"),
            ("```toml\na =\n```", "docs/page.md:1: no TOML"),
            ("```ini\nExecStart\n```", "docs/page.md:1: no INI"),
            ("```env\nport: 1\n```", "docs/page.md:1: no .env"),
            ("```nginx\nserver {}\n```", "docs/page.md:1: nobody runs or validates `nginx`"),
            (
                "<!-- docs: same as README.md -->\n```sh\nno such line\n```",
                "not found word for word",
            ),
            ("<!-- docs: run by tests/none.rs -->\n```sh\nls\n```", "there is no test"),
            ("<!-- docs: run by tests/engine/days.rs -->\n```sh\nls\n```", "never reads page.md"),
            ("<!-- docs: run by .ci/run -->\n```sh\nno-such-command\n```", "has no command"),
            ("<!-- docs: prints -->\n```text\nx\n```", "needs a block of sh before it"),
            ("<!-- docs: backgruond -->\n```sh\nls\n```", "docs/page.md:1: unknown directive"),
            ("<!-- docs: fresh -->\n\n```sh\nls\n```", "docs/page.md:1: a directive belongs"),
        ] {
            let faults = of(text, data::faults);
            assert!(faults.len() == 1 && faults[0].contains(fault), "{text}: {faults:?}");
        }
    }

    #[test]
    fn dead_links_are_found() {
        let text = "# A `b`, C!\n[1](#a-b-c) [2](guarantees.md#the-ledger) [3](../README.md) <a href=\"gone\">4</a>\n\
                    [5](#a-b) [6](gone.md) [7](guarantees.md#gone) [8](../../x) [9](ftp://x) ![10](gone.png)";
        assert_eq!(of(text, links::dead_links).len(), 7);
        assert_eq!(slug("3.2 方式二：通过 `curl` 命令行（推荐）"), "32-方式二通过-curl-命令行推荐");
    }

    #[test]
    fn unknown_names_are_found() {
        let text = "`tests/docs` `tests/docs/gone.rs` `tests/{a,b}.rs` `PORT` `PORT_X=1` `QUOTA_TIMEZONE=UTC`";
        let unknown = of(text, |page| names::unknown_names(page, "QUOTA_TIMEZONE"));
        assert_eq!(unknown.len(), 2, "{unknown:?}");
        let text = "`gateway bakcup F` `gateway backup --replcae F` `gateway --demo` `gateway backup F --replace`";
        let unknown = of(text, |page| names::unknown_commands(page, &mut Default::default()));
        assert_eq!(unknown.len(), 2, "{unknown:?}");
    }

    #[test]
    fn differing_twins_are_found() {
        let english = Document::parse("docs/page.md", "# A\n```sh\ncurl 'a' # x\nls\n```");
        let setting = Document::parse("docs/page.md", "`MAX_BODY`");
        for (chinese, same) in [("`MAX_BODY`、`MAX_TIME`", true), ("`MAX_TIME`", false)] {
            let twin = Document::parse("docs/page.zh.md", chinese);
            assert_eq!(twins::differences(&twin, &setting).is_empty(), same, "{chinese}");
        }
        for (chinese, same) in [
            ("# 甲\n```sh\ncurl 'a' # 乙\nls\n```", true),
            ("# 甲\n```sh\ncurl '乙'\nls\n```", true),
            ("# 甲\n```sh\ncurl 'b'\nls\n```", false),
            ("# 甲\n```sh\ncurl 'a'\n```", false),
            ("# 甲\n```console\ncurl 'a'\nls\n```", false),
            ("# 甲\n## 乙\n```sh\ncurl 'a'\nls\n```", false),
        ] {
            let twin = Document::parse("docs/page.zh.md", chinese);
            assert_eq!(twins::differences(&twin, &english).is_empty(), same, "{chinese}");
        }
    }

    #[test]
    fn wrong_output_is_found() {
        assert!(matches("a … c", "a b\nb c\n", false));
        assert!(!matches("a … c", "a b", false));
        assert!(!matches("a", "a b", false));
        assert!(matches("{\"a\": \"…\"}", "{\n \"a\":\"b\" }", true));
    }

    #[test]
    #[ignore = "needs bash, curl, jq, sqlite3 and git"]
    fn failing_commands_are_found() {
        let shell = Shell::start();
        for (text, fault) in [
            ("text\n```sh\ntrue\nfalse\n```", "docs/page.md:4: failed (exit status: 1): false"),
            ("```sh\necho $none\n```", "none: unbound variable"),
            ("```console\n$ echo b\na\n```", "docs/page.md:3: this is not what"),
            (
                "```sh\necho b\n```\n<!-- docs: prints -->\n```text\na\n```",
                "docs/page.md:6: this is not",
            ),
            ("<!-- docs: background -->\n```sh\nfalse\n```", "the server has ended"),
            ("```sh\nKEY=…\n```", "nothing printed before can be pasted for KEY"),
            ("```sh\nx=1\n```\n<!-- docs: fresh -->\n```sh\necho $x\n```", "docs/page.md:6:"),
        ] {
            let failures = of(text, |document| shell.run(document));
            assert!(failures.len() == 1 && failures[0].contains(fault), "{text}: {failures:?}");
        }
        let runs = "```sh\ncurl http://localhost:8787/healthz\n```\n<!-- docs: prints -->\n```json\n{\"ok\": true…}\n```";
        assert_eq!(of(runs, |document| shell.run(document)), [""; 0]);
    }
}
