//! The text format of Prometheus (version 0.0.4), read strictly: what the server would only warn of is an error here.

use std::collections::BTreeMap;

/// All that is told of one name.
#[derive(Debug, Clone, Default)]
pub(crate) struct Family {
    pub(crate) help: String,
    pub(crate) kind: String,
    pub(crate) samples: Vec<Sample>,
}

/// One line.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Sample {
    /// With the suffix that parts of histograms have.
    pub(crate) name: String,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) value: f64,
}

impl Family {
    /// The only sample with these labels, among others perhaps.
    #[track_caller]
    pub(crate) fn value(&self, labels: &[(&str, &str)]) -> f64 {
        self.find(labels).unwrap_or_else(|| panic!("no {labels:?} in {self:?}"))
    }

    /// The same, if there is one.
    #[track_caller]
    pub(crate) fn find(&self, labels: &[(&str, &str)]) -> Option<f64> {
        let found: Vec<_> = self.samples.iter().filter(|sample| sample.has(labels)).collect();
        assert!(found.len() <= 1, "{labels:?} in {self:?}");
        found.first().map(|sample| sample.value)
    }
}

impl Sample {
    pub(crate) fn has(&self, labels: &[(&str, &str)]) -> bool {
        labels.iter().all(|(name, value)| self.labels.get(*name).is_some_and(|found| found == value))
    }
}

/// Reads the text; panics with the line that isn't what it should be.
#[track_caller]
pub(crate) fn parse(text: &str) -> BTreeMap<String, Family> {
    assert!(text.is_empty() || text.ends_with('\n'), "the last line isn't ended");
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    // Lines of one family stand together.
    let mut current = String::new();
    for line in text.lines().filter(|line| !line.is_empty()) {
        let family = match line.strip_prefix("# ") {
            Some(comment) => {
                let mut words = comment.splitn(3, ' ');
                let (word, name, rest) = (words.next(), words.next().expect(line), words.next().expect(line));
                check_name(name, line);
                let family = families.entry(name.to_owned()).or_default();
                assert!(family.samples.is_empty(), "behind a sample: {line}");
                let slot = match word {
                    Some("HELP") => &mut family.help,
                    Some("TYPE") => &mut family.kind,
                    _ => panic!("neither HELP nor TYPE: {line}"),
                };
                assert!(slot.is_empty() && !rest.is_empty(), "twice, or empty: {line}");
                *slot = rest.to_owned();
                name.to_owned()
            }
            None => {
                let sample = parse_sample(line);
                let name = family_of(&sample.name, &families).unwrap_or_else(|| panic!("no TYPE before {line}"));
                let family = families.get_mut(&name).unwrap();
                assert!(
                    !family.samples.iter().any(|it| it.name == sample.name && it.labels == sample.labels),
                    "{line}"
                );
                family.samples.push(sample);
                name
            }
        };
        assert!(family == current || families[&family].samples.len() <= 1, "apart from the others of its name: {line}");
        current = family;
    }
    families.iter().for_each(|(name, family)| check_family(name, family));
    families
}

fn check_name(name: &str, line: &str) {
    let mut characters = name.chars();
    let first = characters.next().is_some_and(|it| it.is_ascii_alphabetic() || it == '_');
    assert!(first && characters.all(|it| it.is_ascii_alphanumeric() || it == '_'), "{name:?} in {line}");
}

/// The family that a sample belongs to: one of its name, or the histogram that it is a part of.
fn family_of(name: &str, families: &BTreeMap<String, Family>) -> Option<String> {
    if families.get(name).is_some_and(|family| family.kind != "histogram") {
        return Some(name.to_owned());
    }
    let bare = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| name.strip_suffix(suffix))?;
    families.get(bare).is_some_and(|family| family.kind == "histogram").then(|| bare.to_owned())
}

fn parse_sample(line: &str) -> Sample {
    let (series, value) = line.rsplit_once(' ').expect(line);
    let value = match value {
        "+Inf" => f64::INFINITY,
        "-Inf" => f64::NEG_INFINITY,
        "NaN" => f64::NAN,
        number => number.parse().expect(line),
    };
    let (name, labels) = match series.split_once('{') {
        Some((name, labels)) => (name, parse_labels(labels.strip_suffix('}').expect(line), line)),
        None => (series, BTreeMap::new()),
    };
    check_name(name, line);
    Sample { name: name.to_owned(), labels, value }
}

fn parse_labels(mut rest: &str, line: &str) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::new();
    while !rest.is_empty() {
        let (name, behind) = rest.split_once("=\"").expect(line);
        check_name(name, line);
        let (mut value, mut characters) = (String::new(), behind.char_indices());
        let end = loop {
            match characters.next().expect(line) {
                (at, '"') => break at,
                (_, '\\') => value.push(match characters.next().expect(line).1 {
                    'n' => '\n',
                    escaped @ ('"' | '\\') => escaped,
                    other => panic!("\\{other} in {line}"),
                }),
                (_, character) => value.push(character),
            }
        };
        assert!(labels.insert(name.to_owned(), value).is_none(), "a label twice: {line}");
        rest = &behind[end + 1..];
        assert!(rest.is_empty() || rest.starts_with(','), "{line}");
        rest = rest.trim_start_matches(',');
    }
    labels
}

/// What a linter would say.
fn check_family(name: &str, family: &Family) {
    assert!(!family.help.is_empty() && !family.kind.is_empty() && !family.samples.is_empty(), "{name}: {family:?}");
    match &*family.kind {
        "counter" => {
            assert!(name.ends_with("_total"), "{name}");
            assert!(family.samples.iter().all(|sample| sample.value.is_finite() && sample.value >= 0.0), "{name}");
        }
        "gauge" => assert!(!name.ends_with("_total") && family.samples.iter().all(|it| it.value.is_finite()), "{name}"),
        "histogram" => check_histogram(name, family),
        other => panic!("{name} is of type {other}"),
    }
    for unit in ["milliseconds", "_ms", "micros", "kilobytes", "_kib", "minutes"] {
        assert!(!name.contains(unit), "{name} isn't in base units");
    }
}

fn check_histogram(name: &str, family: &Family) {
    let mut series: BTreeMap<BTreeMap<String, String>, Vec<(f64, f64)>> = BTreeMap::new();
    let (bucket, count, sum) = (format!("{name}_bucket"), format!("{name}_count"), format!("{name}_sum"));
    for sample in family.samples.iter().filter(|sample| sample.name == bucket) {
        let mut labels = sample.labels.clone();
        let bound = labels.remove("le").expect("a bucket has a bound");
        let bound = if bound == "+Inf" { f64::INFINITY } else { bound.parse().unwrap() };
        series.entry(labels).or_default().push((bound, sample.value));
    }
    assert!(!series.is_empty(), "{name} has no buckets");
    for (labels, buckets) in series {
        let grows = buckets.windows(2).all(|pair| pair[0].0 < pair[1].0 && pair[0].1 <= pair[1].1);
        let &(last, all) = buckets.last().unwrap();
        let of =
            |part: &str| family.samples.iter().find(|it| it.name == part && it.labels == labels).map(|it| it.value);
        assert!(grows && last == f64::INFINITY && of(&count) == Some(all), "{name} {labels:?}");
        assert!(of(&sum).is_some_and(f64::is_finite), "{name} {labels:?}");
    }
}
