//! A second opinion on webhook signatures: Svix's own libraries in Python and JavaScript, and Clerk's
//! SDK. What they sign we accept; what they refuse we refuse; where we are stricter it is listed.

mod cases;

use std::{
    collections::BTreeSet,
    io::Write,
    path::Path,
    process::{Command, Stdio},
    time::SystemTime,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use clerk_authz::{
    identity::Timestamp,
    webhook::{SigningSecret, verify},
};
use serde_json::{Value, json};

use self::cases::{A, B, BY_CHANCE, Case, case, chosen, random, random_body, right};

const PYTHON: &str = "svix in Python";
const NODE: &str = "svix in JavaScript";
const CLERK: &str = "Clerk's SDK";

/// Where we refuse what a judge accepts, by the names of the cases.
const STRICTER: &[(&str, &[&str])] = &[
    // They read a number out of the text and write it anew; we want the text that was signed.
    ("time +", &[PYTHON, NODE, CLERK]),
    ("time 0", &[PYTHON, NODE, CLERK]),
    ("time .0", &[PYTHON, NODE, CLERK]),
    ("time .5", &[PYTHON, NODE, CLERK]),
    ("time abc", &[NODE, CLERK]),
    // Python takes base64 that is none.
    ("signature padded twice", &[PYTHON]),
    ("signature longer", &[PYTHON]),
    ("signature twice in one", &[PYTHON]),
    ("signature with bits behind", &[PYTHON]),
    ("signature with other characters", &[PYTHON]),
    (BY_CHANCE, &[PYTHON]),
    // JavaScript looks at the first two parts.
    ("signature with a comma behind", &[NODE, CLERK]),
    // Ids are visible ASCII of 255 bytes at most.
    ("id with a space", &[PYTHON, NODE, CLERK]),
    ("id with an accent", &[PYTHON, NODE, CLERK]),
    ("id too long", &[PYTHON, NODE, CLERK]),
    // The signature holds and the body is no envelope.
    ("body empty object", &[PYTHON, NODE, CLERK]),
    ("body a member twice", &[PYTHON, NODE, CLERK]),
    ("body no JSON", &[PYTHON]),
    ("body empty", &[PYTHON]),
];

/// Where we accept what a judge refuses, while the others accept it.
const REFUSED_BY_ONE: &[(&str, &[&str])] = &[
    // Python's library raises at an entry of another form; the others skip it.
    ("signature beside a text", &[PYTHON]),
    ("signature behind a space", &[PYTHON]),
    ("signature beside broken base64", &[PYTHON]),
    // Clerk's SDK reads Svix's names of the headers only.
    ("names webhook-", &[CLERK]),
    ("names of both kinds", &[CLERK]),
];

fn now() -> i64 {
    Timestamp::from(SystemTime::now()).unix_seconds()
}

/// Runs a judge over all questions; an answer for each.
fn ask(program: &Path, script: &str, questions: &[Value]) -> Vec<Value> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut judge = Command::new(program)
        .arg(root.join("conformance").join(script))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{}: {error}: run `make setup`", program.display()));
    let mut stdin = judge.stdin.take().expect("an input");
    let lines: Vec<String> = questions.iter().map(Value::to_string).collect();
    let writer = std::thread::spawn(move || stdin.write_all((lines.join("\n") + "\n").as_bytes()));
    let output = judge.wait_with_output().expect("it ends");
    writer.join().expect("no panic").expect("it reads all");
    assert!(
        output.status.success(),
        "{script} ended with {}: is it installed? run `make setup`",
        output.status
    );
    let text = String::from_utf8(output.stdout).expect("text");
    let answers: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    assert_eq!(
        answers.len(),
        questions.len(),
        "an answer for each question"
    );
    answers
}

fn ask_python(questions: &[Value]) -> Vec<Value> {
    let python = Path::new(env!("CARGO_MANIFEST_DIR")).join(".venv/bin/python");
    ask(&python, "webhooks.py", questions)
}

fn ask_node(questions: &[Value]) -> Vec<Value> {
    ask(Path::new("node"), "webhooks.mjs", questions)
}

fn we_accept(case: &Case, now: i64) -> bool {
    let secrets = [SigningSecret::parse(&A.into()).expect("a secret")];
    let headers = case.headers.iter();
    let headers = headers.map(|(name, value)| (&**name, value.as_bytes()));
    let now = Timestamp::from_unix_seconds(now);
    verify(&secrets, headers, &case.body, now).is_ok()
}

#[test]
fn what_svix_signs_is_accepted_and_is_signed_alike() {
    let mut chance = fastrand::Rng::with_seed(1);
    let at = now();
    let messages: Vec<(String, String)> = (0..300)
        .map(|number| (format!("msg_{number}"), random_body(&mut chance)))
        .collect();
    let mut questions = Vec::new();
    for (id, body) in &messages {
        for secret in [A, B] {
            questions
                .push(json!({"sign": {"secret": secret, "id": id, "seconds": at, "body": body}}));
        }
    }
    // The emulator and the unit tests compute HMAC as here; so these are the same to the letter.
    for answers in [ask_python(&questions), ask_node(&questions)] {
        for ((id, body), signed) in messages.iter().zip(answers.chunks(2)) {
            let signature = signed[0]["signature"].as_str().expect("a signature");
            let expected = format!("v1,{}", right(id, at, body.as_bytes()));
            assert_eq!(signature, expected);
            let case = case("signed", id, &at.to_string(), signature, body.as_bytes());
            assert!(we_accept(&case, at), "{case:?}");
            let other = signed[1]["signature"].as_str().expect("a signature");
            let wrong = self::case("signed", id, &at.to_string(), other, body.as_bytes());
            assert!(!we_accept(&wrong, at), "of another secret: {wrong:?}");
        }
    }
}

#[test]
fn what_svix_refuses_is_refused_and_where_we_are_stricter_is_listed() {
    let at = now();
    let mut cases = chosen(at);
    cases.extend(random(at, &mut fastrand::Rng::with_seed(2)));
    let questions: Vec<Value> = cases
        .iter()
        .map(|case| {
            let headers: serde_json::Map<String, Value> = case
                .headers
                .iter()
                .map(|(name, value)| (name.clone(), json!(value)))
                .collect();
            json!({"verify": {
                "secret": A, "headers": headers, "body_base64": STANDARD.encode(&case.body),
            }})
        })
        .collect();
    let (python, node) = (ask_python(&questions), ask_node(&questions));

    let mut seen = BTreeSet::new();
    let mut wrong = Vec::new();
    let mut accepted = 0;
    for ((case, python), node) in cases.iter().zip(&python).zip(&node) {
        let we = we_accept(case, at);
        accepted += usize::from(we);
        for (judge, answer) in [
            (PYTHON, &python["svix"]),
            (NODE, &node["svix"]),
            (CLERK, &node["clerk"]),
        ] {
            let they = answer.as_bool().expect("an answer");
            let rows = match (we, they) {
                (true, true) | (false, false) => continue,
                (false, true) => STRICTER,
                (true, false) => REFUSED_BY_ONE,
            };
            let row = rows.iter().find(|(name, _)| *name == case.name);
            if row.is_some_and(|(_, judges)| judges.contains(&judge)) {
                seen.insert((case.name.clone(), judge));
            } else {
                wrong.push(format!("{judge}: {they}, we: {we}: {case:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    for (name, judges) in STRICTER.iter().chain(REFUSED_BY_ONE) {
        for judge in *judges {
            assert!(
                *name == BY_CHANCE || seen.contains(&((*name).to_owned(), judge)),
                "{judge} and we agree about {name:?} now: take it off the list"
            );
        }
    }
    assert!(accepted > 250, "{accepted}");
    println!(
        "covered: {} webhooks by {PYTHON}, {NODE} and {CLERK}, {accepted} of them accepted",
        cases.len()
    );
}
