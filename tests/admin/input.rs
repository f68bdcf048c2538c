//! The admin API accepts the values that the schemas of its OpenAPI document allow, and no others.

use std::collections::{BTreeSet, HashMap};

use http::HeaderValue;
use jiff::civil::Date;
use regex_automata::meta::Regex;
use serde_json::{Map, Value, json};

use crate::common::admin::{Admin, text};

/// A member that no request has. Members are read in order, so a response that names this one has
/// accepted the others, and the call does nothing.
const UNKNOWN: &str = "zz";

const DATE: &str = "^[0-9]{4}-[0-9]{2}-[0-9]{2}$";
const TIME: &str = r"^([01][0-9]|2[0-3]):[0-5][0-9]:([0-5][0-9]|60)(\.[0-9]+)?([Zz]|[+-]([01][0-9]|2[0-3]):[0-5][0-9])$";

type Patterns = HashMap<String, Regex>;

/// A query parameter, a header or a member of a JSON body.
struct Input {
    method: String,
    path: String,
    place: Place,
    name: String,
    schema: Value,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Place {
    Query,
    Header,
    Body,
}

#[tokio::test]
async fn each_reader_accepts_exactly_what_its_schema_allows() {
    let admin = Admin::new();
    let document = admin.get("/admin/openapi.json").await.json();
    let inputs = inputs(&document);
    let count = |place| inputs.iter().filter(|input| input.place == place).count();
    assert!(count(Place::Query) > 20 && count(Place::Header) > 4 && count(Place::Body) > 10);
    let (texts, numbers) = (texts(&document), numbers(&document));
    let patterns = patterns(&document);
    let mut differences = Vec::new();
    for input in &inputs {
        for value in input.values(&texts, &numbers) {
            let is_allowed = input.allows(&value, &patterns);
            if input.accepts(&admin, &value).await != is_allowed {
                let Input { method, path, name, .. } = input;
                let verb = if is_allowed { "rejects" } else { "accepts" };
                differences.push(format!("{method} {path} {verb} {name}: {value}"));
            }
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

/// Returns all inputs that the document describes, but for the key in a path: the service accepts
/// more there than the document, which is about keys that no server on the way rewrites.
fn inputs(document: &Value) -> Vec<Input> {
    let mut inputs = Vec::new();
    for (path, calls) in document["paths"].as_object().unwrap() {
        for (method, call) in calls.as_object().unwrap() {
            let mut add = |place, name: &str, schema: &Value| {
                let path = path.replace("{ref}", "key_0123456789abcdef").replace("{number}", "1");
                let (method, name) = (method.to_uppercase(), name.to_owned());
                inputs.push(Input { method, path, place, name, schema: schema.clone() });
            };
            for parameter in call["parameters"].as_array().unwrap() {
                let place = match text(&parameter["in"]).as_str() {
                    "query" => Place::Query,
                    "header" => Place::Header,
                    "path" => continue,
                    other => panic!("{other}"),
                };
                add(place, &text(&parameter["name"]), &parameter["schema"]);
            }
            let body = &call["requestBody"]["content"]["application/json"]["schema"];
            let body = match body["$ref"].as_str() {
                Some(reference) => document.pointer(reference.trim_start_matches('#')).unwrap(),
                None => body,
            };
            for (name, schema) in body["properties"].as_object().unwrap_or(&Map::new()) {
                add(Place::Body, name, schema);
            }
        }
    }
    inputs
}

impl Input {
    fn values(&self, texts: &BTreeSet<String>, numbers: &[Value]) -> Vec<Value> {
        let is_sent = |text: &&String| match self.place {
            // Whitespace around a value is not part of it (RFC 9110, section 5.5).
            Place::Header => text.trim() == *text && HeaderValue::from_str(text).is_ok(),
            Place::Query | Place::Body => true,
        };
        let mut values: Vec<Value> = texts.iter().filter(is_sent).map(|text| json!(text)).collect();
        if self.place == Place::Body {
            values.extend_from_slice(numbers);
            values.extend([json!(true), json!(false), json!(null), json!([]), json!({})]);
            values.extend([json!(["a"]), json!([1])]);
        }
        values
    }

    /// Whether the schema allows the value. In a query, a number is a text.
    fn allows(&self, value: &Value, patterns: &Patterns) -> bool {
        let number = value.as_str().filter(|_| self.place == Place::Query).and_then(|text| {
            let number = serde_json::from_str::<i64>(text).ok();
            number.filter(|number| number.to_string() == text)
        });
        let allows = |value: &Value| allows(&self.schema, value, patterns);
        allows(value) || number.is_some_and(|number| allows(&json!(number)))
    }

    /// Whether the API accepts the value.
    async fn accepts(&self, admin: &Admin, value: &Value) -> bool {
        let Self { method, path, place, name, .. } = self;
        let unknown = json!({ UNKNOWN: 0 }).to_string();
        let response = match place {
            Place::Query => {
                let value = escaped(value.as_str().unwrap());
                let path = format!("{path}?{name}={value}&{UNKNOWN}=0");
                admin.call(method, &path, "").await
            }
            Place::Header => {
                admin.call_with((name, value.as_str().unwrap()), method, path, &unknown).await
            }
            Place::Body => {
                let body = format!("{{{}:{value},{}", json!(name), &unknown[1..]);
                admin.call(method, path, &body).await
            }
        };
        let error = response.json();
        match error["code"].as_str().unwrap() {
            "invalid_field" => {
                assert!(response.text.contains(&format!("`{name}`")), "{}", response.text);
                false
            }
            "unknown_field" => {
                assert!(response.text.contains(&format!("`{UNKNOWN}`")), "{}", response.text);
                true
            }
            // A deletion has no body, and there is no key and no node.
            "key_not_found" | "node_not_found" => true,
            _ => panic!("{method} {path} {name} {value}: {}", response.text),
        }
    }
}

/// Whether the schema allows the value. An integer has no fraction and no exponent: JSON Schema allows
/// `1.0`, too, and the API does not (docs/decisions/0006-openapi.md).
fn allows(schema: &Value, value: &Value, patterns: &Patterns) -> bool {
    schema.as_object().unwrap().iter().all(|(keyword, rule)| match keyword.as_str() {
        "description" | "example" | "examples" | "default" => true,
        "anyOf" => rule.as_array().unwrap().iter().any(|schema| allows(schema, value, patterns)),
        "const" => value == rule,
        "enum" => rule.as_array().unwrap().contains(value),
        "type" => match rule {
            Value::Array(types) => types.iter().any(|rule| is_type(value, rule)),
            rule => is_type(value, rule),
        },
        "minimum" => integer(value).is_none_or(|number| number >= integer(rule).unwrap()),
        "maximum" => integer(value).is_none_or(|number| number <= integer(rule).unwrap()),
        "minLength" => length(value).is_none_or(|length| length >= rule.as_u64().unwrap()),
        "maxLength" => length(value).is_none_or(|length| length <= rule.as_u64().unwrap()),
        "pattern" => value.as_str().is_none_or(|value| patterns[&text(rule)].is_match(value)),
        "format" => value.as_str().is_none_or(|value| match text(rule).as_str() {
            "date" => is_date(value, patterns),
            "date-time" => is_date_time(value, patterns),
            other => panic!("{other}"),
        }),
        other => panic!("{other}"),
    })
}

fn is_type(value: &Value, name: &Value) -> bool {
    match text(name).as_str() {
        "string" => value.is_string(),
        "integer" => value.is_i64() || value.is_u64(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        other => panic!("{other}"),
    }
}

fn integer(value: &Value) -> Option<i128> {
    value.as_i64().map(i128::from).or(value.as_u64().map(i128::from))
}

fn length(value: &Value) -> Option<u64> {
    value.as_str().map(|text| text.chars().count() as u64)
}

/// Compiles all patterns of the document, and those of formats.
fn patterns(document: &Value) -> Patterns {
    let mut patterns = Patterns::new();
    let mut add = |pattern: &str| {
        patterns.insert(pattern.to_owned(), Regex::new(pattern).unwrap());
    };
    add(DATE);
    add(TIME);
    each(document, &mut |member, value| {
        if member == "pattern" {
            add(value.as_str().unwrap());
        }
    });
    patterns
}

/// `full-date` of RFC 3339.
fn is_date(text: &str, patterns: &Patterns) -> bool {
    patterns[DATE].is_match(text) && {
        let parts: Vec<i16> = text.split('-').map(|part| part.parse().unwrap()).collect();
        Date::new(parts[0], parts[1] as i8, parts[2] as i8).is_ok()
    }
}

/// `date-time` of RFC 3339.
fn is_date_time(text: &str, patterns: &Patterns) -> bool {
    text.split_once(['T', 't'])
        .is_some_and(|(date, time)| is_date(date, patterns) && patterns[TIME].is_match(time))
}

/// Numbers at and beyond all bounds of the document, and other forms of them.
fn numbers(document: &Value) -> Vec<Value> {
    let mut bounds = BTreeSet::from([0, 1, -1, 1 << 53, 20_145_489_850_859_496]);
    each(document, &mut |member, value| {
        if member == "minimum" || member == "maximum" {
            bounds.extend(value.as_i64());
        }
    });
    let near = |bound: &i64| [bound.checked_sub(1), Some(*bound), bound.checked_add(1)];
    let mut numbers: Vec<Value> =
        bounds.iter().flat_map(near).flatten().map(|number| json!(number)).collect();
    numbers.extend(bounds.iter().map(|bound| json!(*bound as f64)));
    numbers.extend([json!(u64::MAX), json!(-0.0), json!(1.5), json!(1e300)]);
    numbers
}

/// Texts that some inputs accept, and variants of them that look like them.
fn texts(document: &Value) -> BTreeSet<String> {
    let tag = "0123456789abcdef0123456789abcdef";
    let mut seeds: BTreeSet<String> = [
        // Numbers.
        "0",
        "1",
        "60",
        "200",
        "1000",
        "1001",
        "1e3",
        "999999999999999999",
        "1000000000000000000",
        "9223372036854775807",
        "9223372036854775808",
        "１",
        // Times.
        "2026-11-22",
        "2026-02-30",
        "0000-01-01",
        "1969-12-31",
        "1970-01-01",
        "8999-12-31",
        "9000-01-01",
        "2026-326",
        "2026-W47-7",
        "20261122",
        "2026/11/22",
        "2026-11-22T08",
        "2026-11-22T08:30",
        "2026-11-22T08:30Z",
        "2026-11-22 08:30:00",
        "2026-11-22T08:30:00",
        "2026-11-22 08:30:00Z",
        "2026-11-22_08:30:00Z",
        "2026-11-22T08:30:00Z",
        "2026-11-22t08:30:00z",
        "2026-11-22T08:30:60Z",
        "2026-11-22T24:00:00Z",
        "2026-02-30T08:30:00Z",
        "2026-11-22T08:30:00.25Z",
        "2026-11-22T08:30:00,25Z",
        "2026-11-22T08:30:00.Z",
        "2026-11-22T08:30:00.12345678901234567890Z",
        "2026-11-22T08:30:00.1+8:00",
        "2026-11-22T08:30:00密Z",
        "2026-11-22T08:30:00+08:00",
        "2026-11-22T08:30:00-23:59",
        "2026-11-22T08:30:00+24:00",
        "2026-11-22T08:30:00+08",
        "2026-11-22T08:30:00+0800",
        "2026-11-22T08:30:00+08:00:30",
        "2026-11-22T08:30:00Z[UTC]",
        "20261122T083000Z",
        "+002026-11-22T08:30:00Z",
        "1739200800",
        "1739200800.25",
        "1739200800000",
        "1739200800000000",
        // Words of queries.
        "key",
        "key,day,model",
        "day,day",
        "key.delete",
        "a_b.c",
        "true",
        // Cursors.
        "n7",
        "n",
        "l7.",
        "l7.616263",
        "l7.61626",
        "l7.6A",
        "l.61",
        "s7.3fc0000000000000",
        "s7.3FC0000000000000",
        "s7.7ff0000000000000",
        "s7.7fe0000000000000",
        "s7.bfc0000000000000",
        "s7.6fffffffffffffff",
        // Names and labels.
        "",
        "a",
        "alice",
        "用户A",
        "a b",
        "a\u{85}b",
        "a\u{7f}",
        "a\0",
        "workshop-{n}",
        "mint-1:x",
        "key_0123456789abcdef",
        "trial-alice-20261122-x7Qp",
        "*",
        "**",
        "~",
        "!",
    ]
    .map(str::to_owned)
    .into();
    seeds.extend([32, 33, 64, 65, 128, 129, 200, 201, 300].map(|length| "x".repeat(length)));
    seeds.extend(["密".repeat(200), "密".repeat(201), "{n}".repeat(200), "{n}".repeat(201)]);
    let quoted =
        [format!("\"{tag}\""), format!("W/\"{tag}\""), format!("\"{}\"", tag.to_uppercase())];
    seeds.extend(quoted);
    seeds.extend([tag.to_owned(), format!("\"{tag}\",W/\"{tag}\""), format!("*, \"{tag}\"")]);
    each(document, &mut |member, value| {
        if member == "enum" {
            seeds.extend(
                value.as_array().unwrap().iter().filter_map(Value::as_str).map(str::to_owned),
            );
        }
    });
    let variants = |text: &String| {
        [
            text.clone(),
            text.to_uppercase(),
            text.to_lowercase(),
            format!(" {text}"),
            format!("{text} "),
            format!("\t{text}"),
            format!("{text}\n"),
            format!("\u{a0}{text}"),
            format!("\u{feff}{text}"),
            format!("\"{text}\""),
            format!("\"{text}"),
            format!("'{text}'"),
            format!("+{text}"),
            format!("-{text}"),
            format!("0{text}"),
            format!("{text}.0"),
            format!("{text},"),
            format!("{text},{text}"),
            format!("{text}, {text}"),
            format!("{text}\t,{text}"),
        ]
    };
    seeds.iter().flat_map(variants).collect()
}

/// Calls the function with each member of each object in the value.
fn each<'a>(value: &'a Value, visit: &mut impl FnMut(&'a str, &'a Value)) {
    match value {
        Value::Object(members) => {
            for (name, value) in members {
                visit(name, value);
                each(value, visit);
            }
        }
        Value::Array(values) => values.iter().for_each(|value| each(value, visit)),
        _ => {}
    }
}

/// Percent-encodes every byte.
fn escaped(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}
