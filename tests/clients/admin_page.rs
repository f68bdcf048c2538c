//! Section 3.1 of `docs/trial-key-process.zh.md`: the operator's page, clicked through in Chromium.

use crate::common::{ADMIN_TOKEN, Gateway};

fn click_through(locale: &str) {
    let gateway = Gateway::demo();
    let output = crate::common::node("admin_page.cjs")
        .env("BASE_URL", gateway.url(""))
        .env("TOKEN", ADMIN_TOKEN)
        .env("LOCALE", locale)
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}\n{}", gateway.printed());
}

#[test]
#[ignore = "needs Chromium and Node with playwright-core"]
fn an_operator_issues_watches_resets_and_deletes_keys_in_chinese() {
    click_through("zh-CN");
}

#[test]
#[ignore = "needs Chromium and Node with playwright-core"]
fn an_operator_issues_watches_resets_and_deletes_keys_in_english() {
    click_through("en-US");
}
