//! What is wrong with a TOML file's text, and where, for the files of settings.

use super::variables::nearest;

/// Nothing of a value's own text is said: a secret may stand in it, though none belongs there.
pub(super) fn unreadable(error: &toml::de::Error, text: &str) -> String {
    let message = error.message().trim_end();
    // A value of a wrong type stands in the message, between quotes.
    let message = match (message.find('"'), message.rfind('"')) {
        (Some(first), Some(last)) if first < last => {
            format!("{}…{}", &message[..=first], &message[last..])
        }
        _ => message.to_owned(),
    };
    let message = unknown_key(&message).unwrap_or(message);
    match error.span() {
        Some(span) => format!("{}: {message}", place(text, span.start)),
        None => message,
    }
}

/// Where in a text a byte stands, for people.
pub(super) fn place(text: &str, at: usize) -> String {
    let before = text.get(..at).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or("").chars().count() + 1;
    format!("line {line}, column {column}")
}

/// Serde says: unknown field `rpc`, expected one of `name`, `rpcs`.
fn unknown_key(message: &str) -> Option<String> {
    let mut quoted = message
        .strip_prefix("unknown field ")?
        .split('`')
        .skip(1)
        .step_by(2);
    let key = quoted.next()?;
    // What is alike in letters only would not be found.
    let of_secrets = (key == "secret_key").then_some("secret_key_file");
    let known: Vec<&str> = quoted.collect();
    if let Some(file) = of_secrets.filter(|file| known.contains(file)) {
        return Some(format!(
            "unknown key `{key}`; did you mean `{file}`, which names a file that holds it?"
        ));
    }
    Some(match nearest(key, known.iter().copied()) {
        Some(nearest) => format!("unknown key `{key}`; did you mean `{nearest}`?"),
        None => format!("unknown key `{key}`; expected one of {}", known.join(", ")),
    })
}
