//! What the judges are asked about.

use aws_lc_rs::hmac;
use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::Value;

/// A row that one run may see and another not.
pub const BY_CHANCE: &str = "signature mutated";

pub const A: &str = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYX";
pub const B: &str = "whsec_YW5vdGhlci1zZWNyZXQtb2YtMzItYnl0ZXMtbG9uZyE=";

/// A question to the judges.
#[derive(Clone, Debug)]
pub struct Case {
    pub name: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

pub fn hmac_of(secret: &str, signed: &[u8]) -> String {
    let key = secret.strip_prefix("whsec_").expect("a secret");
    let key = STANDARD.decode(key).expect("base64");
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &key), signed);
    STANDARD.encode(tag.as_ref())
}

pub fn right(id: &str, seconds: i64, body: &[u8]) -> String {
    hmac_of(A, &[format!("{id}.{seconds}.").as_bytes(), body].concat())
}

pub fn case(name: &str, id: &str, seconds: &str, signature: &str, body: &[u8]) -> Case {
    let named = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
    let headers = [
        ("svix-id", id),
        ("svix-timestamp", seconds),
        ("svix-signature", signature),
    ];
    Case {
        name: name.to_owned(),
        headers: headers.map(named).to_vec(),
        body: body.to_vec(),
    }
}

/// A JSON object of an event, with what is hard to carry unchanged.
pub fn random_body(chance: &mut fastrand::Rng) -> String {
    let texts = [
        "é",
        "\\u00e9",
        "\u{1f980}",
        " ",
        "\\n",
        "1.0",
        "<>&",
        "\u{2028}",
        "a",
    ];
    let text: String = (0..chance.usize(0..12))
        .map(|_| texts[chance.usize(0..texts.len())])
        .collect();
    let space = ["", " ", "\n", "\t"][chance.usize(0..4)];
    format!(
        r#"{{{space}"data":{{"id":"user_1","name":"{text}","n":{}e0}},{space}"type":"user.updated"}}"#,
        chance.i32(..)
    )
}

/// Cases that are about one thing each.
pub fn chosen(at: i64) -> Vec<Case> {
    let id = "msg_2hFirst";
    let body = r#"{"data":{"id":"user_é","n":1.0},"object":"event","type":"user.updated"}"#;
    let bytes = body.as_bytes();
    let value = right(id, at, bytes);
    let (time, good) = (at.to_string(), format!("v1,{value}"));
    let mut cases = vec![case("right", id, &time, &good, bytes)];

    let last = value.as_bytes()[value.len() - 2];
    let neighbour = char::from(last + 1);
    let bits_behind = format!("{}{neighbour}=", &value[..value.len() - 2]);
    for (name, signature) in [
        ("among others", format!("v1,AAAA v1a,xx {good}")),
        ("beside an empty one", format!("v1, {good} v1,")),
        ("beside a text", format!("text {good}")),
        ("beside broken base64", format!("v1,A {good}")),
        ("behind a space", format!(" {good}")),
        ("empty", String::new()),
        ("of the version alone", "v1,".to_owned()),
        ("without a version", value.clone()),
        ("of another version", format!("v2,{value}")),
        ("of scheme v1a", format!("v1a,{value}")),
        ("in capitals", format!("V1,{value}")),
        ("cut", format!("v1,{}", &value[..20])),
        (
            "cut by its padding",
            format!("v1,{}", value.trim_end_matches('=')),
        ),
        ("padded twice", format!("v1,{value}=")),
        ("longer", format!("v1,{value}A")),
        ("twice in one", format!("v1,{value}{value}")),
        ("with bits behind", format!("v1,{bits_behind}")),
        (
            "with other characters",
            format!("v1,{}!{}", &value[..4], &value[4..]),
        ),
        ("with a comma behind", format!("v1,{value},")),
        (
            "of another secret",
            format!(
                "v1,{}",
                hmac_of(B, &[format!("{id}.{at}.").as_bytes(), bytes].concat())
            ),
        ),
    ] {
        cases.push(case(
            &format!("signature {name}"),
            id,
            &time,
            &signature,
            bytes,
        ));
    }

    for (name, text) in [
        ("+", format!("+{at}")),
        ("-", format!("-{at}")),
        ("0", format!("0{at}")),
        (".0", format!("{at}.0")),
        (".5", format!("{at}.5")),
        ("abc", format!("{at}abc")),
        ("empty", String::new()),
        ("in milliseconds", format!("{at}000")),
        ("of a second later", (at + 1).to_string()),
        ("of none", "NaN".to_owned()),
    ] {
        cases.push(case(&format!("time {name}"), id, &text, &good, bytes));
    }
    for (name, seconds) in [
        ("old", -400),
        ("ahead", 400),
        ("rather old", -200),
        ("rather ahead", 200),
    ] {
        let seconds = at + seconds;
        let signature = format!("v1,{}", right(id, seconds, bytes));
        cases.push(case(
            &format!("time {name}"),
            id,
            &seconds.to_string(),
            &signature,
            bytes,
        ));
    }

    let long = "m".repeat(256);
    for (name, id) in [
        ("with a space", "msg 1"),
        ("with an accent", "msg_é"),
        ("too long", &*long),
        ("empty", ""),
    ] {
        let signature = format!("v1,{}", right(id, at, bytes));
        cases.push(case(&format!("id {name}"), id, &time, &signature, bytes));
    }
    cases.push(case("id of another", "msg_2hSecond", &time, &good, bytes));

    let again = serde_json::from_str::<Value>(body)
        .expect("JSON")
        .to_string();
    cases.push(case(
        "body written anew",
        id,
        &time,
        &good,
        again.as_bytes(),
    ));
    for (name, body) in [
        ("empty object", &b"{}"[..]),
        (
            "a member twice",
            br#"{"type":"user.updated","type":"user.deleted","data":{}}"#,
        ),
        ("no JSON", b"{'type'"),
        ("empty", b""),
        (
            "no UTF-8",
            b"{\"type\":\"user.updated\",\"data\":{\"n\":\"\xff\"}}",
        ),
    ] {
        let signature = format!("v1,{}", right(id, at, body));
        cases.push(case(&format!("body {name}"), id, &time, &signature, body));
    }

    let named = |name: &str, names: [&str; 3], more: &[(&str, &str)]| {
        let mut case = case(&format!("names {name}"), id, &time, &good, bytes);
        for (header, name) in case.headers.iter_mut().zip(names) {
            name.clone_into(&mut header.0);
        }
        let more = more
            .iter()
            .map(|&(name, value)| (name.to_owned(), value.to_owned()));
        case.headers.extend(more);
        case.headers.retain(|(name, _)| !name.is_empty());
        case
    };
    let svix = ["svix-id", "svix-timestamp", "svix-signature"];
    cases.extend([
        named("without an id", ["", svix[1], svix[2]], &[]),
        named("without a time", [svix[0], "", svix[2]], &[]),
        named("without a signature", [svix[0], svix[1], ""], &[]),
        named(
            "webhook-",
            ["webhook-id", "webhook-timestamp", "webhook-signature"],
            &[],
        ),
        named(
            "of both kinds",
            [svix[0], "webhook-timestamp", svix[2]],
            &[],
        ),
        named(
            "in capitals",
            ["Svix-Id", "SVIX-TIMESTAMP", "Svix-Signature"],
            &[],
        ),
        named("twice, ours wrong", svix, &[("webhook-id", "msg_other")]),
        named(
            "twice, theirs empty",
            ["webhook-id", svix[1], svix[2]],
            &[("svix-id", "")],
        ),
    ]);
    cases
}

/// Right messages, and the same with one character of another kind.
pub fn random(at: i64, chance: &mut fastrand::Rng) -> Vec<Case> {
    let mut cases = Vec::new();
    for number in 0..250 {
        let (id, body) = (format!("msg_{number}"), random_body(chance));
        let seconds = at + chance.i64(-200..=200);
        let signature = format!("v1,{}", right(&id, seconds, body.as_bytes()));
        let good = case(
            "random",
            &id,
            &seconds.to_string(),
            &signature,
            body.as_bytes(),
        );
        let mut mutated = good.clone();
        let part = chance.usize(0..4);
        if part == 3 {
            "body mutated".clone_into(&mut mutated.name);
            let place = chance.usize(0..mutated.body.len());
            mutated.body[place] ^= 1 << chance.u32(0..8);
        } else {
            ["id mutated", "time mutated", BY_CHANCE][part].clone_into(&mut mutated.name);
            let text = &mut mutated.headers[part].1;
            let place = chance.usize(0..text.len());
            let kinds = match part {
                1 => "0123456789",
                _ => "AZaz09+/=_",
            };
            let kind = chance.usize(0..kinds.len());
            text.replace_range(place..=place, &kinds[kind..=kind]);
        }
        // What is as it was is no mutation.
        if mutated.headers == good.headers && mutated.body == good.body {
            mutated.name.clone_from(&good.name);
        }
        cases.extend([good, mutated]);
    }
    cases
}
