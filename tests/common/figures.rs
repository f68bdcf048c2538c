use std::collections::{BTreeMap, BTreeSet};

use super::{ADMIN_TOKEN, Client, Gateway};

/// The samples of `/metrics` at one time.
#[derive(Debug)]
pub(crate) struct Figures {
    samples: Vec<Sample>,
    pub(crate) text: String,
}

#[derive(Debug)]
struct Sample {
    name: String,
    labels: BTreeMap<String, String>,
    value: f64,
}

impl Figures {
    pub(crate) async fn of(gateway: &Gateway) -> Self {
        let response = Client::http1().get_as(ADMIN_TOKEN, &gateway.url("/metrics")).await;
        assert_eq!(response.status, 200, "{response:?}");
        assert_eq!(response.header("content-type"), "text/plain; version=0.0.4; charset=utf-8");
        Self::parse(response.text())
    }

    /// Reads the text format; every sample must be of a family that has a type and a help text.
    fn parse(text: String) -> Self {
        let mut declared = BTreeMap::<&str, BTreeSet<&str>>::new();
        let mut samples = Vec::new();
        for line in text.lines().filter(|line| !line.is_empty()) {
            if let Some(declaration) = line.strip_prefix("# ") {
                let mut words = declaration.splitn(3, ' ');
                let (what, name) = (words.next().unwrap(), words.next().unwrap());
                assert!(["HELP", "TYPE"].contains(&what) && words.next().is_some(), "{line}");
                assert!(declared.entry(name).or_default().insert(what), "twice: {line}");
                continue;
            }
            let sample = Sample::parse(line);
            let suffixes = ["_bucket", "_sum", "_count", ""];
            let family = suffixes.iter().find_map(|suffix| {
                declared.get(sample.name.strip_suffix(suffix)?).map(BTreeSet::len)
            });
            assert_eq!(family, Some(2), "{line}");
            samples.push(sample);
        }
        Self { samples, text }
    }

    /// The sum of all samples of this name with these labels.
    pub(crate) fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let mut samples = self.samples.iter().filter(|sample| sample.is(name, labels)).peekable();
        assert!(samples.peek().is_some(), "no {name} {labels:?}");
        samples.map(|sample| sample.value).sum()
    }

    /// The samples of this name that are not 0, by the values of these labels.
    pub(crate) fn by(&self, name: &str, labels: [&str; 2]) -> BTreeMap<(String, String), f64> {
        let counted = self.samples.iter().filter(|sample| sample.name == name);
        counted
            .filter(|sample| sample.value != 0.0)
            .map(|sample| {
                let label = |label: &str| sample.labels[label].clone();
                ((label(labels[0]), label(labels[1])), sample.value)
            })
            .collect()
    }

    pub(crate) fn label_values(&self) -> impl Iterator<Item = &String> {
        self.samples.iter().flat_map(|sample| sample.labels.values())
    }
}

impl Sample {
    fn parse(line: &str) -> Self {
        let (series, value) = line.rsplit_once(' ').unwrap();
        let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
        let labels = labels.strip_suffix('}').unwrap();
        let labels = labels.split_terminator(',').map(|label| {
            let (name, value) = label.split_once('=').unwrap();
            (name.to_owned(), value.trim_matches('"').to_owned())
        });
        Self { name: name.to_owned(), labels: labels.collect(), value: value.parse().unwrap() }
    }

    fn is(&self, name: &str, labels: &[(&str, &str)]) -> bool {
        self.name == name
            && labels.iter().all(|(label, value)| {
                self.labels.get(*label).is_some_and(|reported| reported == value)
            })
    }
}
