//! The one normaliser of hosts and paths: the corpus, and properties against a slow reference that
//! shares no code with it (docs/paths.md).

pub mod corpus;
mod reference;

use std::{collections::BTreeSet, fs, path::Path as File};

use clerk_authz::policy::{
    Ambiguities, Ambiguity, AmbiguousHost, Host, MAX_HOST_BYTES, MAX_PATH_BYTES, Path, Segments,
};
use proptest::prelude::*;

use self::corpus::{Expected, Line};

fn owned(segments: Segments<'_>) -> Vec<String> {
    segments.map(str::to_owned).collect()
}

/// What the normaliser says, in the corpus' terms; the first reading is among the readings.
fn of_path(target: &[u8]) -> Expected {
    match Path::parse(target) {
        Err(refused) => Expected::Refused(names(refused.ambiguities())),
        Ok(path) => {
            let mut readings = BTreeSet::from([owned(path.segments())]);
            readings.extend(path.other_readings().map(|other| owned(other.segments())));
            Expected::Path {
                ambiguities: names(path.ambiguities()),
                text: path.text().into_owned(),
                segments: owned(path.segments()),
                readings,
            }
        }
    }
}

fn of_host(authority: &[u8]) -> Expected {
    match Host::parse(authority) {
        Ok(host) => Expected::Host(host.to_string()),
        Err(refused) => Expected::Refused(BTreeSet::from([refused.name().to_owned()])),
    }
}

fn names(ambiguities: Ambiguities) -> BTreeSet<String> {
    ambiguities.iter().map(|each| each.name().into()).collect()
}

#[test]
fn the_corpus_is_read_as_it_says() {
    let lines = corpus::lines();
    assert!(lines.len() >= 200, "{} lines", lines.len());
    let wrong: Vec<String> = lines
        .iter()
        .filter_map(|line| {
            let said = match line {
                Line { is_host: true, .. } => of_host(&line.input),
                Line { is_host: false, .. } => of_path(&line.input),
            };
            let shown = line.input.escape_ascii();
            (said != line.expected).then(|| {
                format!(
                    "line {}: {shown}: {said:?}, not {:?}",
                    line.number, line.expected
                )
            })
        })
        .collect();
    assert!(wrong.is_empty(), "corpus.txt:\n{}", wrong.join("\n"));
    println!("{} hosts and paths", lines.len());
}

/// Each kind stands in the corpus, so that every door meets it.
#[test]
fn the_corpus_has_every_ambiguity() {
    // Generated, not written down: it is 8 KiB long.
    let too_long = format!("/{}", "a".repeat(MAX_PATH_BYTES));
    let refused = Path::parse(too_long.as_bytes()).expect_err("too long");
    assert_eq!(names(refused.ambiguities()), ["too_long".into()].into());
    assert!(refused.text().len() <= 203, "{}", refused.text().len());
    assert!(Path::parse(&too_long.as_bytes()[1..]).is_err());
    let longest = &too_long.as_bytes()[..MAX_PATH_BYTES];
    assert!(Path::parse(longest).is_ok());
    let with_query = [longest, b"?", longest].concat();
    assert!(Path::parse(&with_query).is_ok(), "the query is not counted");

    let label = "a".repeat(63);
    let longest = [&label[..61], &label, &label, &label].join(".");
    assert_eq!(longest.len(), MAX_HOST_BYTES);
    for (text, refused) in [
        (longest.clone(), None),
        (format!("{longest}.:443"), None),
        (format!("a{longest}"), Some(AmbiguousHost::TooLong)),
        (format!("{label}.a"), None),
        (format!("a{label}.a"), Some(AmbiguousHost::LabelTooLong)),
    ] {
        assert_eq!(Host::parse(text.as_bytes()).err(), refused, "{text}");
    }

    let (mut of_paths, mut of_hosts) = (BTreeSet::new(), BTreeSet::new());
    for line in corpus::lines() {
        match &line.expected {
            Expected::Refused(names) if line.is_host => of_hosts.extend(names.clone()),
            Expected::Refused(names) => of_paths.extend(names.clone()),
            Expected::Path { ambiguities, .. } => of_paths.extend(ambiguities.clone()),
            Expected::Host(_) => {}
        }
    }
    for ambiguity in Ambiguity::ALL
        .iter()
        .filter(|&&each| each != Ambiguity::TooLong)
    {
        assert!(of_paths.contains(ambiguity.name()), "{ambiguity:?}");
    }
    for refused in AmbiguousHost::ALL {
        let is_of_length = matches!(
            refused,
            AmbiguousHost::TooLong | AmbiguousHost::LabelTooLong
        );
        assert!(
            is_of_length || of_hosts.contains(refused.name()),
            "{refused:?}"
        );
    }
}

/// docs/paths.md and the enums are one list, in one order.
#[test]
fn the_document_has_every_ambiguity() {
    let file = File::new(env!("CARGO_MANIFEST_DIR")).join("docs/paths.md");
    let document = fs::read_to_string(file).expect("docs/paths.md");
    let rows = |heading: &str| {
        let section = document.split(heading).nth(1).expect("the section");
        let section = section.split("\n## ").next().expect("its text").lines();
        let rows = section.filter(|line| line.starts_with("| `"));
        rows.map(|row| {
            let cells: Vec<&str> = row.split(" | ").map(str::trim).collect();
            let name = cells[0].trim_matches(['|', ' ', '`']).to_owned();
            (name, cells[1].trim_matches(['|', ' ']).to_owned())
        })
        .collect::<Vec<_>>()
    };
    let in_code: Vec<(String, String)> = Ambiguity::ALL
        .iter()
        .map(|each| {
            let may = if each.can_be_permitted() {
                "yes"
            } else {
                "never"
            };
            (each.name().to_owned(), may.to_owned())
        })
        .collect();
    assert_eq!(rows("\n## What is ambiguous"), in_code);
    let of_hosts: Vec<String> = rows("\n## Hosts")
        .into_iter()
        .map(|(name, _)| name)
        .collect();
    let in_code: Vec<&str> = AmbiguousHost::ALL.iter().map(|each| each.name()).collect();
    assert_eq!(of_hosts, in_code);
}

/// Advisory 15: of the same bytes behind the first `?`, none is ever path.
#[test]
fn a_query_never_changes_the_path() {
    for line in corpus::lines().iter().filter(|line| !line.is_host) {
        if line.input.iter().any(|byte| b"?".contains(byte)) {
            continue;
        }
        let longer = [&line.input, &b"?/../admin%2F;//%00"[..]].concat();
        match of_path(&longer) {
            Expected::Refused(names) => {
                assert_eq!(
                    line.expected,
                    Expected::Refused(names),
                    "line {}",
                    line.number
                );
            }
            read => assert_eq!(line.expected, read, "line {}", line.number),
        }
        if let Ok(path) = Path::parse(&longer) {
            assert_eq!(path.query(), Some(&b"/../admin%2F;//%00"[..]));
        }
    }
}

#[test]
fn a_refusal_is_shown_without_query_and_control_characters() {
    let refused = Path::parse(b"/a\x1b[0m\xff/..?token=secret").expect_err("dots");
    assert_eq!(refused.text(), "/a%1B[0m%FF/..");
    let said = refused.to_string();
    assert!(
        said.contains("/a%1B[0m%FF/..") && said.contains("control"),
        "{said}"
    );
    assert!(!said.contains("secret"), "{said}");
}

#[test]
fn an_address_has_no_labels_of_a_name() {
    let labels = |text: &'static str| {
        let host = Host::parse(text.as_bytes()).expect("a host");
        host.labels().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(labels("API.example.com:443"), ["api", "example", "com"]);
    assert_eq!(labels("localhost"), ["localhost"]);
    assert_eq!(labels("127.0.0.1:80"), ["127.0.0.1"]);
    assert_eq!(labels("[2001:db8::1]"), ["[2001:db8::1]"]);
}

/// Bytes of the kinds that matter, so that most inputs are near a border.
fn targets() -> impl Strategy<Value = Vec<u8>> {
    let parts = prop::sample::select(
        &[
            "/", "/", "/", "a", "admin", "b.c", ".", "..", "%2F", "%2f", "%5C", "%2e", "%2E",
            "%25", "%25", "%", "2", "5", "F", "f", "2F", "41", "u002F", ";", "%3B", ";x=1", "?",
            "%3F", "#", "%23", "\\", "//", "%00", "\0", "%20", " ", "%41", "%61", "%C3%BC", "ü",
            "%C3", "%BC", "%C2%85", "%0A", "\n", "|", ":", "http://", "é", "*",
        ][..],
    )
    .prop_map(|part| part.as_bytes().to_vec());
    let part = prop_oneof![30 => parts, 1 => prop::collection::vec(any::<u8>(), 1..4)];
    let path = prop::collection::vec(part, 0..10).prop_map(|parts| parts.concat());
    prop_oneof![
        8 => path.clone().prop_map(|path| [&b"/"[..], &path].concat()),
        1 => path,
        1 => prop::collection::vec(any::<u8>(), 0..40),
    ]
}

fn authorities() -> impl Strategy<Value = Vec<u8>> {
    let parts = prop::sample::select(
        &[
            "a",
            "A",
            "example",
            "com",
            ".",
            ".",
            ":",
            "80",
            "443",
            "0",
            "127.0.0.1",
            "0x",
            "xn--a",
            "[",
            "]",
            "::1",
            "DB8",
            "@",
            "%",
            ",",
            " ",
            "-",
            "_",
            "ü",
            "/",
            "\0",
            "99999",
            "+1",
        ][..],
    )
    .prop_map(|part| part.as_bytes().to_vec());
    prop_oneof![
        6 => prop::collection::vec(parts, 0..8).prop_map(|parts| parts.concat()),
        1 => prop::collection::vec(any::<u8>(), 0..20),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    #[test]
    fn paths_are_read_as_the_reference_reads_them(target in targets()) {
        let said = of_path(&target);
        prop_assert_eq!(said, reference::path(&target), "{}", target.escape_ascii());
    }

    #[test]
    fn hosts_are_read_as_the_reference_reads_them(authority in authorities()) {
        let said = Host::parse(&authority).ok().map(|host| host.to_string());
        prop_assert_eq!(said, reference::host(&authority), "{}", authority.escape_ascii());
    }

    #[test]
    fn the_canonical_text_is_the_same_path(target in targets()) {
        let Ok(path) = Path::parse(&target) else { return Ok(()) };
        let text = path.text();
        prop_assert!(text.bytes().all(|byte| byte.is_ascii_graphic()), "{text}");

        let again = Path::parse(text.as_bytes());

        let again = again.expect("it was a path");
        prop_assert_eq!(&again.text(), &text);
        prop_assert_eq!(owned(again.segments()), owned(path.segments()));
        prop_assert_eq!(again.ambiguities(), path.ambiguities());
        prop_assert_eq!(again.query(), None);
    }

    /// What no route permits is in no reading, and what is not ambiguous has no second reading.
    #[test]
    fn no_reading_leads_elsewhere(target in targets()) {
        let Ok(path) = Path::parse(&target) else { return Ok(()) };
        let mut readings = vec![owned(path.segments())];
        readings.extend(path.other_readings().map(|other| owned(other.segments())));
        prop_assert_eq!(readings.len() == 1, path.ambiguities().is_empty());
        for reading in &readings {
            prop_assert!(reading.first().is_none_or(|first| !first.is_empty()), "{reading:?}");
            for segment in reading {
                prop_assert!(!matches!(segment.as_str(), "." | ".."), "{reading:?}");
                prop_assert!(!segment.contains(['/', '\\']), "{reading:?}");
                prop_assert!(!segment.chars().any(char::is_control), "{reading:?}");
                if path.ambiguities().is_empty() {
                    prop_assert!(!segment.contains([';', '?', '#']), "{reading:?}");
                    prop_assert!(!segment.is_empty(), "{reading:?}");
                }
            }
        }
    }

    #[test]
    fn a_host_is_the_same_host_again(authority in authorities()) {
        let Ok(host) = Host::parse(&authority) else { return Ok(()) };
        let text = host.as_str();
        prop_assert!(!text.bytes().any(|byte| byte.is_ascii_uppercase()));
        prop_assert!(host.labels().all(|label| !label.is_empty()));
        prop_assert_eq!(host.labels().collect::<Vec<_>>().join("."), text);
        for suffix in ["", ":443"] {
            let again = format!("{text}{suffix}");
            prop_assert_eq!(&Host::parse(again.as_bytes()).expect("it was a host"), &host);
        }
    }
}
