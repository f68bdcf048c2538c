//! Keys go out as a file by their hashes, and come in from one, once.

use crate::common::admin::{Admin, CollectedResponse, TOKEN, text};
use http::Request;
use http_body_util::Full;
use serde_json::{Value, json};
use tower_quota::{
    key::SecretKey,
    store::{Demand, KeyStore, QuotaStore, ReserveOutcome},
};

async fn import(admin: &Admin, file: &str, dry_run: bool) -> CollectedResponse {
    admin.call("POST", &format!("/admin/keys/import?dry_run={dry_run}"), file).await
}

fn counts(report: &Value) -> [&Value; 3] {
    [&report["new"], &report["unchanged"], &report["conflicts"]]
}

async fn find(admin: &Admin, key: &str) -> Option<String> {
    let found = admin.store.find(&SecretKey::parse(key).unwrap()).await.unwrap();
    found.map(|record| record.id.to_string())
}

#[tokio::test]
async fn exported_keys_are_imported_once() {
    let (from, to) = (Admin::new(), Admin::new());
    let (_, plain) = from.create(r#"{"label":"Alice","daily_limit":5}"#).await;
    let (odd, _) = from.create(r#"{"label":"=1+1, \"quoted\" 密","daily_limit":0}"#).await;
    from.call(
        "PATCH",
        &format!("/admin/keys/{odd}"),
        r#"{"disabled":true,"expires_at":"2999-01-01","monthly_limit":7,"max_in_flight":2}"#,
    )
    .await;
    let file = from.get("/admin/keys/export?format=csv").await;
    assert_eq!(file.header("content-type"), "text/csv; charset=utf-8");
    assert!(file.text.starts_with("\u{feff}id,key,"), "spreadsheets know UTF-8 by the mark");
    assert!(!file.text.contains(&plain), "hashes only");

    let tried = import(&to, &file.text, true).await.json();
    assert_eq!(counts(&tried), [&json!(2), &json!(0), &json!(0)], "{tried}");
    assert_eq!(to.get("/admin/keys").await.json()["count"], 0, "a dry run changes nothing");
    let done = import(&to, &file.text, false).await.json();
    assert_eq!(counts(&done), [&json!(2), &json!(0), &json!(0)], "{done}");
    let again = import(&to, &file.text, false).await.json();
    assert_eq!(counts(&again), [&json!(0), &json!(2), &json!(0)], "{again}");

    assert_eq!(find(&to, &plain).await, find(&from, &plain).await);
    let path = format!("/admin/keys/{odd}");
    let (mut here, mut there) = (to.get(&path).await.json(), from.get(&path).await.json());
    for key in [&mut here, &mut there] {
        key["created_at"] = Value::Null;
    }
    assert_eq!(here, there);
    assert_eq!([&here["monthly_limit"], &here["minute_limit"], &here["max_in_flight"]], [7, 0, 2]);
    let trail = to.get("/admin/audit?action=key.import").await.json();
    assert_eq!(trail["entries"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn invalid_lines_are_reported_and_all_others_imported() {
    let admin = Admin::new();
    let (id, _) = admin.create("").await;
    let file = format!(
        "\u{feff}Key,Label,Daily_Limit,id,disabled\n\
         trial-key-manual-123,手动创建的密钥,200,,\n\
         trial-key-other-1234,bad limit,-1,,\n\
         two words,bad key,5,,\n\
         trial-key-third-1234,bad flag,5,,maybe\n\
         trial-key-fourth-123,taken,5,{id},\n\
         trial-key-manual-123,twice,9,,\n"
    );
    let report = import(&admin, &file, false).await.json();
    let reported: Vec<_> = report["rows"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| (row["line"].as_u64().unwrap(), text(&row["outcome"]), row["reason"].clone()))
        .collect();
    let outcomes: Vec<_> = reported.iter().map(|(line, outcome, _)| (*line, &**outcome)).collect();
    assert_eq!(
        outcomes,
        [
            (2, "new"),
            (3, "conflict"),
            (4, "conflict"),
            (5, "conflict"),
            (6, "conflict"),
            (7, "unchanged")
        ]
    );
    for (at, word) in [(1, "`daily_limit`"), (2, "`key`"), (3, "`disabled`"), (4, "id")] {
        assert!(text(&reported[at].2).contains(word), "{}", reported[at].2);
    }
    assert!(find(&admin, "trial-key-manual-123").await.is_some());
    let listed = admin.get("/admin/keys?search=手动").await.json();
    assert_eq!(listed["keys"][0]["daily_limit"], 200, "{listed}");

    for (file, word) in [
        ("label,daily_limit\nx,5\n", "key_sha256"),
        ("key,limit\nx,5\n", "`limit`"),
        ("key,key,daily_limit\na,b,5\n", "twice"),
    ] {
        let rejected = import(&admin, file, false).await;
        assert_eq!(rejected.status(), 400, "{file}");
        assert!(rejected.text.contains(word), "{}", rejected.text);
    }
}

#[tokio::test]
async fn an_imported_key_counts_from_its_first_request() {
    let admin = Admin::new();
    import(&admin, "key,daily_limit\ntrial-key-manual-123,1\n", false).await;
    let key = SecretKey::parse("trial-key-manual-123").unwrap();
    let record = admin.store.find(&key).await.unwrap().unwrap();
    let now = std::time::SystemTime::now();
    for admitted in [true, false] {
        let outcome = admin
            .store
            .reserve(&Demand::new(record.id.clone(), record.daily_limit, now))
            .await
            .unwrap();
        assert_eq!(matches!(outcome, ReserveOutcome::Admitted { .. }), admitted);
    }
}

#[tokio::test]
async fn files_saved_by_spreadsheets_and_editors_are_imported() {
    let admin = Admin::new();
    let file = [
        &b"\xef\xbb\xbfkey, Label ,daily_limit,disabled\r\n"[..],
        b"trial-key-capitals-1,a,5,FALSE\r\n",
        b"trial-key-capitals-2,\"b\nc\",5,True\r\n",
        b"trial-key-too-many-1,d,5,false,,x\r\n",
        b"\r\n",
        b"trial-key-too-few-01,e\r\n",
        b"trial-key-latin1-001,caf\xe9,5,false\r\n",
        b" trial-key-blanks-01 , \xe3\x80\x80wide ,5,\r\n",
    ]
    .concat();
    let request = Request::post("/admin/keys/import").header("x-admin-token", TOKEN);
    let report = admin.send(request.body(Full::from(file)).unwrap()).await.json();
    let rows = report["rows"].as_array().unwrap().iter();
    let reported: Vec<_> = rows
        .map(|row| (row["line"].as_u64().unwrap(), text(&row["outcome"]), row["reason"].clone()))
        .collect();
    let lines: Vec<_> = reported.iter().map(|(line, outcome, _)| (*line, &**outcome)).collect();
    assert_eq!(
        lines,
        [
            (2, "new"),
            (3, "conflict"),
            (5, "conflict"),
            (7, "conflict"),
            (8, "conflict"),
            (9, "new")
        ],
        "{report}"
    );
    for (row, word) in [(1, "`label`"), (2, "6 cells"), (3, "2 cells"), (4, "UTF-8")] {
        assert!(text(&reported[row].2).contains(word), "{}", reported[row].2);
    }
    let listed = admin.get("/admin/keys").await.json();
    assert_eq!(listed["keys"][1]["label"], " \u{3000}wide ");
    assert!(find(&admin, "trial-key-blanks-01").await.is_some());
}

#[tokio::test]
async fn labels_survive_export_and_import() {
    let (from, to) = (Admin::new(), Admin::new());
    let labels = [
        " lead",
        "trail ",
        "\u{a0}nbsp\u{a0}",
        "'=1",
        "' =1",
        "''",
        "=1",
        "@x",
        "－1",
        "a,b",
        "\"",
        "",
    ];
    for label in labels {
        from.create(&json!({"label": label}).to_string()).await;
    }
    let file = from.get("/admin/keys/export").await.text;
    let report = import(&to, &file, false).await.json();
    assert_eq!(counts(&report), [&json!(labels.len()), &json!(0), &json!(0)], "{report}");
    let listed = to.get("/admin/keys").await.json();
    let came: Vec<_> =
        listed["keys"].as_array().unwrap().iter().map(|key| text(&key["label"])).collect();
    assert_eq!(came, labels);
}

#[tokio::test]
async fn revoked_keys_and_invalid_ids_are_conflicts() {
    let admin = Admin::new();
    let (rotated, key) = admin.create("").await;
    let (deleted, other) = admin.create("").await;
    admin.call("POST", &format!("/admin/keys/{rotated}/rotate"), "").await;
    admin.call("DELETE", &format!("/admin/keys/{deleted}"), "").await;
    let ids = ["export", "import", "..", "a/b", "a b", &"x".repeat(129)];
    let rows = ids.iter().enumerate().map(|(n, id)| format!("{id},trial-key-number-{n}00,5\n"));
    let file = format!("id,key,daily_limit\n,{key},5\n,{other},5\n{}", rows.collect::<String>());
    let report = import(&admin, &file, false).await.json();
    assert_eq!(counts(&report), [&json!(0), &json!(0), &json!(2 + ids.len())], "{report}");
    for (row, id) in [(0, &rotated), (1, &deleted)] {
        let reason = text(&report["rows"][row]["reason"]);
        assert!(reason.contains("rotated or deleted") && reason.contains(id.as_str()), "{reason}");
    }
    assert!(find(&admin, &key).await.is_none() && find(&admin, &other).await.is_none());
}

#[tokio::test]
async fn a_dry_run_of_a_large_file_reports_what_the_import_does() {
    let mut file = "id,key,daily_limit\n".to_owned();
    for n in 0..1200 {
        file += &format!("k{},trial-key-number-{:05},5\n", n % 1100, n % 700);
    }
    let admin = Admin::new();
    let tried = import(&admin, &file, true).await.json();
    let done = import(&admin, &file, false).await.json();
    for (tried, done) in
        tried["rows"].as_array().unwrap().iter().zip(done["rows"].as_array().unwrap())
    {
        assert_eq!(tried, done);
    }
    assert_eq!(counts(&done), [&json!(700), &json!(500), &json!(0)]);
}

#[tokio::test]
async fn every_separator_of_spreadsheets_is_accepted() {
    for (file, labels) in [
        ("sep=,\r\nkey,label,daily_limit\r\ntrial-key-sep-000001,A,5\r\n", vec!["A"]),
        ("\u{feff}sep=;\nkey;label;daily_limit\ntrial-key-sep-000001;A, B;5\n", vec!["A, B"]),
        ("key;label;daily_limit\ntrial-key-sep-000001;用户;5\n", vec!["用户"]),
        ("key\tlabel\tdaily_limit\ntrial-key-sep-000001\tA\t5\n", vec!["A"]),
        (
            "key,label,daily_limit,,\ntrial-key-sep-000001,A,5,,\ntrial-key-sep-000002,B,5,,,\n",
            vec!["A", "B"],
        ),
    ] {
        let admin = Admin::new();
        let report = import(&admin, file, false).await.json();
        assert_eq!(
            counts(&report),
            [&json!(labels.len()), &json!(0), &json!(0)],
            "{file}: {report}"
        );
        let listed = admin.get("/admin/keys").await.json();
        let keys = listed["keys"].as_array().unwrap();
        let reported: Vec<_> = keys.iter().map(|key| text(&key["label"])).collect();
        assert_eq!(reported, labels);
        assert!(keys.iter().all(|key| key["daily_limit"] == 5), "{listed}");
    }
    let admin = Admin::new();
    let file = "sep=;\nkey;label\nbad key;A\n\ntrial-key-sep-000001;B\n";
    let report = import(&admin, file, true).await.json();
    let lines: Vec<_> = report["rows"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row["line"].as_u64().unwrap())
        .collect();
    assert_eq!(lines, [3, 5], "{report}");
}

#[tokio::test]
async fn a_key_without_a_limit_gets_the_default_one() {
    for file in [
        "key,label\ntrial-key-default-01,A\n",
        "key,label,daily_limit\ntrial-key-default-01,A,\n",
        "user,key\nA,trial-key-default-01\n",
        // What the script of the procedure notes: `echo "$user,$key" >> keys.csv`.
        "A,trial-key-default-01\n",
    ] {
        let admin = Admin::new();
        let report = import(&admin, file, false).await.json();
        assert_eq!(counts(&report), [&json!(1), &json!(0), &json!(0)], "{file}: {report}");
        let listed = admin.get("/admin/keys").await.json();
        let key = &listed["keys"][0];
        assert_eq!((&key["label"], &key["daily_limit"]), (&json!("A"), &json!(200)), "{file}");
        assert!(find(&admin, "trial-key-default-01").await.is_some());
        let again = import(&admin, file, false).await.json();
        assert_eq!(counts(&again), [&json!(0), &json!(1), &json!(0)]);
    }
    // A header that is mistyped is no key.
    let admin = Admin::new();
    for file in ["name,secret\nA,trial-key-default-01\n", "A,no-key-of-ours\n"] {
        assert_eq!(import(&admin, file, false).await.status(), 400, "{file}");
    }
}

#[tokio::test]
async fn a_file_that_is_not_utf_8_is_reported() {
    let admin = Admin::new();
    for (file, status) in [
        (&b"key,label\ntrial-key-gbk-000001,\xd3\xc3\xbb\xa7\n"[..], 200),
        (b"key,\xb1\xea\xc7\xa9\ntrial-key-gbk-000001,a\n", 400),
        (b"\xff\xfek\0e\0y\0", 400),
    ] {
        let request = Request::post("/admin/keys/import").header("x-admin-token", TOKEN);
        let response = admin.send(request.body(Full::from(file)).unwrap()).await;
        assert_eq!(response.status(), status);
        assert!(
            response.text.contains("UTF-8") && response.text.contains("GBK"),
            "{}",
            response.text
        );
    }
}
