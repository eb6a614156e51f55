//! The callers' file: its text, and the secrets that it names.

use std::{fmt::Write, fs, path::Path, sync::Arc};

use serde::Deserialize;
use toml::Spanned;

use super::{Problem, Problems, toml_text, value, variables::nearest};
use crate::callers::{
    Caller, GuardedRpc, Limits, MAX_BEARER_BYTES, MIN_BEARER_BYTES, Rights, RpcSet, Rules,
    SecretDigest,
};

const VARIABLE: &str = "CLERK_AUTHZ_CALLERS";
/// The largest file in bytes; a thousand callers with all that they may have are a tenth of it.
const MAX_FILE_BYTES: u64 = 4 * 1024 * 1024;
/// The most secrets of a caller: two are a rotation.
const MAX_BEARERS: usize = 8;
/// The most names of one kind that a caller's certificate may have here.
const MAX_NAMES: usize = 100;
const CONCURRENT_CALLS_BOUNDS: std::ops::RangeInclusive<u32> = 1..=100_000;
const CALLS_PER_SECOND_BOUNDS: std::ops::RangeInclusive<u32> = 1..=100_000;

/// The file as it stands.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    anyone: Option<AnyoneText>,
    #[serde(default)]
    caller: Vec<Spanned<CallerText>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AnyoneText {
    rpcs: Vec<Spanned<String>>,
    #[serde(default)]
    any_user: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CallerText {
    name: String,
    #[serde(default)]
    spiffe: Vec<Box<str>>,
    #[serde(default)]
    dns: Vec<Box<str>>,
    #[serde(default)]
    bearer_files: Vec<Spanned<String>>,
    rpcs: Vec<Spanned<String>>,
    #[serde(default)]
    any_user: bool,
    max_concurrent_calls: Option<Spanned<u32>>,
    max_calls_per_second: Option<Spanned<u32>>,
}

/// Reads a callers' file and the secrets that it names; all problems come back at once.
pub fn load_callers(path: &Path) -> Result<Rules, Problems> {
    let shown = path.display();
    let text = read_bounded(path, MAX_FILE_BYTES).map_err(|why| {
        let text = format!("is \"{shown}\"; the file {why}");
        Problems::new(vec![Problem::new(VARIABLE, text)])
    })?;
    let secret = |file: &str| {
        // Room for a line's end, and for an error that says how long it may be.
        read_bounded(Path::new(file), 2 * MAX_BEARER_BYTES as u64)
    };
    parse(&text, secret).map_err(|found| {
        let problem = |text: String| Problem::new(VARIABLE, format!("is \"{shown}\"; {text}"));
        Problems::new(found.into_iter().map(problem).collect())
    })
}

fn read_bounded(path: &Path, max_bytes: u64) -> Result<String, String> {
    let unreadable = |error| format!("cannot be read: {error}");
    if fs::metadata(path).map_err(unreadable)?.len() > max_bytes {
        return Err(format!("is longer than {max_bytes} bytes"));
    }
    fs::read_to_string(path).map_err(unreadable)
}

/// The rules of a text, with `secret` for what stands in a file; else everything that is wrong.
pub(super) fn parse(
    text: &str,
    secret: impl Fn(&str) -> Result<String, String>,
) -> Result<Rules, Vec<String>> {
    let file: File =
        toml::from_str(text).map_err(|error| vec![toml_text::unreadable(&error, text)])?;
    let mut reader = Reader {
        text,
        secret,
        wrong: Vec::new(),
    };
    if file.anyone.is_none() && file.caller.is_empty() {
        // A file that was cut off, most likely: nobody would be let in.
        reader.wrong.push(
            "it says of nobody what they may call; expected [[caller]], or [anyone]".to_owned(),
        );
    }
    let anyone = file.anyone.map_or_else(Rights::default, |anyone| Rights {
        rpcs: reader.rpcs(anyone.rpcs),
        any_user: anyone.any_user,
    });
    let places: Vec<String> = file
        .caller
        .iter()
        .map(|caller| toml_text::place(text, caller.span().start))
        .collect();
    let callers: Vec<Caller> = file
        .caller
        .into_iter()
        .map(|caller| reader.caller(caller.into_inner()))
        .collect();
    let mut wrong = reader.wrong;
    // What could not be read is left out of the rules, which have more to say then than is true.
    if wrong.is_empty() {
        let names: Vec<Arc<str>> = callers.iter().map(|caller| caller.name.clone()).collect();
        match Rules::new(anyone, callers) {
            Ok(rules) => return Ok(rules),
            Err(faults) => wrong.extend(faults.into_iter().map(|(of, fault)| match of {
                Some(index) => format!("{}: caller {:?}: {fault}", places[index], names[index]),
                None => fault.to_string(),
            })),
        }
    }
    Err(wrong)
}

struct Reader<'a, S> {
    text: &'a str,
    secret: S,
    wrong: Vec<String>,
}

impl<S: Fn(&str) -> Result<String, String>> Reader<'_, S> {
    fn refuse<T>(&mut self, at: &Spanned<T>, why: &str) {
        let place = toml_text::place(self.text, at.span().start);
        self.wrong.push(format!("{place}: {why}"));
    }

    fn caller(&mut self, text: CallerText) -> Caller {
        for (key, count, max) in [
            ("spiffe", text.spiffe.len(), MAX_NAMES),
            ("dns", text.dns.len(), MAX_NAMES),
            ("bearer_files", text.bearer_files.len(), MAX_BEARERS),
        ] {
            if count > max {
                let name = &text.name;
                self.wrong.push(format!(
                    "caller {name:?}: {key} has {count}; expected at most {max}"
                ));
            }
        }
        let files = text.bearer_files.iter().take(MAX_BEARERS);
        let secrets = files.filter_map(|file| self.secret(file)).collect();
        Caller {
            name: text.name.into(),
            spiffe: text.spiffe,
            dns: text.dns,
            secrets,
            rights: Rights {
                rpcs: self.rpcs(text.rpcs),
                any_user: text.any_user,
            },
            limits: Limits {
                max_concurrent_calls: self.count(
                    "max_concurrent_calls",
                    text.max_concurrent_calls,
                    &CONCURRENT_CALLS_BOUNDS,
                ),
                max_calls_per_second: self.count(
                    "max_calls_per_second",
                    text.max_calls_per_second,
                    &CALLS_PER_SECOND_BOUNDS,
                ),
            },
        }
    }

    fn rpcs(&mut self, names: Vec<Spanned<String>>) -> RpcSet {
        if names.len() == 1 && names[0].get_ref() == "*" {
            return RpcSet::all();
        }
        let mut rpcs = Vec::with_capacity(names.len());
        for name in &names {
            let written = name.get_ref();
            match GuardedRpc::named(written) {
                Some(rpc) => rpcs.push(rpc),
                None if written == "*" => {
                    self.refuse(name, "\"*\" is every RPC; leave the others out");
                }
                None => {
                    let known = GuardedRpc::ALL.map(GuardedRpc::name);
                    let expected = match nearest(written, known.into_iter()) {
                        Some(nearest) => format!("did you mean {nearest:?}?"),
                        None => format!("expected \"*\", or some of {}", known.join(", ")),
                    };
                    self.refuse(
                        name,
                        &format!("{written:?} is no RPC that rules are about; {expected}"),
                    );
                }
            }
        }
        rpcs.into_iter().collect()
    }

    /// Nothing of what stands in the file is said.
    fn secret(&mut self, file: &Spanned<String>) -> Option<SecretDigest> {
        let shown = shown_path(file.get_ref());
        match (self.secret)(file.get_ref()) {
            Ok(text) => {
                let secret = text.trim();
                let is_graphic = secret.bytes().all(|byte| byte.is_ascii_graphic());
                if (MIN_BEARER_BYTES..=MAX_BEARER_BYTES).contains(&secret.len()) && is_graphic {
                    return Some(SecretDigest::of(secret.as_bytes()));
                }
                let why = format!(
                    "bearer_files has {shown:?}; expected one secret in it of {MIN_BEARER_BYTES} to \
                     {MAX_BEARER_BYTES} ASCII characters without spaces, such as `openssl rand -hex \
                     32` makes"
                );
                self.refuse(file, &why);
            }
            Err(why) => self.refuse(file, &format!("bearer_files has {shown:?}, which {why}")),
        }
        None
    }

    fn count(
        &mut self,
        key: &str,
        given: Option<Spanned<u32>>,
        bounds: &std::ops::RangeInclusive<u32>,
    ) -> Option<u32> {
        let given = given?;
        let count = *given.get_ref();
        if !bounds.contains(&count) {
            let expected = value::shown_bounds(bounds);
            self.refuse(&given, &format!("{key} is {count}; expected {expected}"));
        }
        Some(count)
    }
}

/// Whoever put the secret itself where its file belongs must not find it in a log; the place in the
/// text says which it is.
fn shown_path(file: &str) -> &str {
    if file.starts_with(['/', '.']) {
        file
    } else {
        "…"
    }
}

/// The rules as `--print-config` shows them.
pub(super) fn shown(rules: &Rules) -> String {
    let mut text = String::new();
    let by_id = |rights: Rights| match rights.any_user {
        true => ", about any user",
        false => "",
    };
    let anyone = rules.anyone();
    // Writing to a string does not fail.
    let _ = writeln!(
        text,
        "# callers whom no rule names: {}{}",
        anyone.rpcs,
        by_id(anyone)
    );
    for caller in rules.callers() {
        let _ = writeln!(
            text,
            "# caller \"{}\": {}{}; recognized by {} SPIFFE IDs, {} DNS names, {} secrets",
            caller.name,
            caller.rights.rpcs,
            by_id(caller.rights),
            caller.spiffe.len(),
            caller.dns.len(),
            caller.secrets.len()
        );
    }
    text
}

#[cfg(test)]
mod tests;
