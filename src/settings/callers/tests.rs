use proptest::prelude::*;

use super::*;
use crate::callers::{Bearer, Callers, Refused, Shown};

const SECRET: &str = "0123456789abcdef0123456789abcdef";

/// A file is called by what is in it.
fn parse_with_secrets(text: &str) -> Result<Rules, Vec<String>> {
    parse(text, |file| match file {
        "/secret" => Ok(format!("{SECRET}\n")),
        "/short" => Ok("secretsecret".to_owned()),
        "/spaced" => Ok(format!("{SECRET} {SECRET}")),
        _ => Err("cannot be read: no such file".to_owned()),
    })
}

const GOOD: &str = r#"
[anyone]
rpcs = ["VerifySession", "Check"]

[[caller]]
name = "billing"
spiffe = ["spiffe://example.org/ns/prod/sa/billing"]
dns = ["Billing.internal"]
bearer_files = ["/secret"]
rpcs = ["CheckOrgPermission", "SyncUser"]
any_user = true
max_concurrent_calls = 100
max_calls_per_second = 500

[[caller]]
name = "operator"
dns = ["operator.internal"]
rpcs = ["*"]
"#;

#[test]
fn a_file_says_who_may_what() {
    let rules = parse_with_secrets(GOOD).expect("good");
    let set = |rpcs: &[GuardedRpc]| rpcs.iter().copied().collect::<RpcSet>();
    assert_eq!(
        rules.anyone(),
        Rights {
            rpcs: set(&[GuardedRpc::VerifySession, GuardedRpc::Check]),
            any_user: false
        }
    );
    let [billing, operator] = rules.callers() else {
        panic!("two callers");
    };
    assert_eq!(
        billing.rights,
        Rights {
            rpcs: set(&[GuardedRpc::CheckOrgPermission, GuardedRpc::SyncUser]),
            any_user: true
        }
    );
    assert_eq!(
        billing.limits,
        Limits {
            max_concurrent_calls: Some(100),
            max_calls_per_second: Some(500)
        }
    );
    assert_eq!(billing.secrets, [SecretDigest::of(SECRET.as_bytes())]);
    assert_eq!(operator.rights.rpcs, RpcSet::all());
    assert_eq!(operator.limits, Limits::default());
    let shown = shown(&rules);
    assert!(
        shown.contains("whom no rule names: VerifySession, Check\n"),
        "{shown}"
    );
    assert!(
        shown.contains("\"operator\": every RPC; recognized by 0 SPIFFE"),
        "{shown}"
    );
}

#[test]
fn without_a_word_about_anyone_those_may_nothing() {
    let rules = parse_with_secrets(&GOOD[GOOD.find("[[caller]]").expect("there")..]);
    let anyone = rules.expect("good").anyone();
    assert_eq!(anyone, Rights::default());
    assert!(anyone.rpcs.is_empty() && !anyone.any_user);
}

#[test]
fn what_is_wrong_is_said_with_its_place_and_what_to_do() {
    let caller = |more: &str| format!("[[caller]]\nname = \"billing\"\ndns = [\"b\"]\n{more}");
    for (text, expected) in [
        (String::new(), "it says of nobody what they may call"),
        (
            caller("rpc = [\"*\"]"),
            "line 4, column 1: unknown key `rpc`; did you mean `rpcs`?",
        ),
        (caller(""), "missing field `rpcs`"),
        (
            caller("rpcs = [\"VerifySesion\"]"),
            "line 4, column 9: \"VerifySesion\" is no RPC that rules are about; did you mean \
             \"VerifySession\"?",
        ),
        (
            caller("rpcs = [\"Health\"]"),
            "expected \"*\", or some of VerifySession, ",
        ),
        (
            caller("rpcs = [\"Check\", \"*\"]"),
            "line 4, column 18: \"*\" is every RPC",
        ),
        (
            caller("rpcs = []"),
            "line 1, column 1: caller \"billing\": rpcs is empty",
        ),
        (
            caller("rpcs = [\"*\"]\nmax_calls_per_second = 0"),
            "line 5, column 24: max_calls_per_second is 0; expected a number from 1 to 100000",
        ),
        (
            caller("rpcs = [\"*\"]\nmax_concurrent_calls = 100001"),
            "max_concurrent_calls is 100001; expected a number from 1 to 100000",
        ),
        (
            caller("rpcs = [\"*\"]\nbearer_files = [\"/none\"]"),
            "line 5, column 17: bearer_files has \"/none\", which cannot be read",
        ),
        (
            caller("rpcs = [\"*\"]\nbearer_files = [\"/short\"]"),
            "expected one secret in it of 32 to 4096",
        ),
        (
            caller("rpcs = [\"*\"]\nbearer_files = [\"/spaced\"]"),
            "ASCII characters without spaces",
        ),
        (
            caller("rpcs = [\"*\"]\nspiffe = [\"spiffe://example.org/*\"]"),
            "caller \"billing\": spiffe has \"spiffe://example.org/*\"; expected a SPIFFE ID",
        ),
        (
            format!("{}\n{}", caller("rpcs = [\"*\"]"), caller("rpcs = [\"*\"]")),
            "line 5, column 1: caller \"billing\": name is \"billing\", as that of another",
        ),
        ("[anyone]\nrpcs = 1".to_owned(), "line 2, column 8: "),
    ] {
        let wrong = parse_with_secrets(&text).expect_err("wrong").join("\n");
        assert!(wrong.contains(expected), "{text}\n{wrong}\n{expected}");
    }
    // All at once.
    let several = caller("rpcs = [\"A\", \"B\"]\nmax_calls_per_second = 0");
    assert_eq!(parse_with_secrets(&several).expect_err("wrong").len(), 3);
}

#[test]
fn a_secret_where_its_file_belongs_is_not_said() {
    let text = format!("[[caller]]\nname = \"a\"\nrpcs = [\"*\"]\nbearer_files = [\"{SECRET}\"]");
    let wrong = parse_with_secrets(&text).expect_err("no file").join("\n");
    assert!(
        wrong.contains("line 4, column 17: bearer_files has \"…\""),
        "{wrong}"
    );
    for text in [
        format!("[[caller]]\nbearer_files = \"{SECRET}\""),
        format!("[[caller]]\nname = \"a\"\nbearer_files = [[\"{SECRET}\"]]\nrpcs = [\"*\"]"),
        format!("[[caller]]\nmax_calls_per_second = \"{SECRET}\""),
    ] {
        let wrong = parse_with_secrets(&text).expect_err("wrong").join("\n");
        assert!(!wrong.contains("0123456789"), "{wrong}");
    }
}

/// Text that is nearly a good file.
fn nearly() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("[anyone]\n".to_owned()),
        Just("[[caller]]\n".to_owned()),
        Just("name = \"a\"\n".to_owned()),
        Just("dns = [\"a\"]\n".to_owned()),
        Just("bearer_files = [\"/secret\"]\n".to_owned()),
        Just("rpcs = [\"GetUser\"]\n".to_owned()),
        Just("rpcs = [\"*\"]\n".to_owned()),
        Just("any_user = true\n".to_owned()),
        "[ -~]{0,12}\n",
        "\\PC{0,4}",
    ];
    prop::collection::vec(piece, 0..10).prop_map(|pieces| pieces.concat())
}

proptest! {
    /// Whatever a file says, it can be read or not, and who shows nothing gets what `[anyone]` says.
    #[test]
    fn strangers_get_what_is_said_of_anyone_and_no_more(text in nearly()) {
        match parse_with_secrets(&text) {
            Ok(rules) => {
                let anyone = rules.anyone();
                if !text.contains("[anyone]") {
                    prop_assert!(anyone.rpcs.is_empty() && !anyone.any_user);
                }
                let now = std::time::Instant::now();
                let callers = Callers::new(rules, now);
                let stranger = Shown { uris: &[], dns_names: &[], bearer: Bearer::Missing };
                for rpc in GuardedRpc::ALL {
                    let admitted = callers.admit(rpc, &stranger, now);
                    prop_assert_eq!(admitted.is_ok(), anyone.rpcs.has(rpc));
                    let wrong = Shown { bearer: Bearer::Secret(b"junk"), ..stranger };
                    let refused = callers.admit(rpc, &wrong, now);
                    let is_refused = matches!(refused, Err(Refused::NotAllowed { .. }));
                    prop_assert!(is_refused);
                }
            }
            Err(wrong) => prop_assert!(!wrong.is_empty() && !wrong.concat().contains(SECRET)),
        }
    }
}
