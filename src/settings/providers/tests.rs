use super::*;

const GOOD: &str = r#"
name = "acme"
issuer = "https://idp.example.com/tenant"
client_ids = ["client-1"]
match = "verified_email"
email_domains = ["example.com"]
mfa = "required"
amr = ["mfa"]
"#;

fn read_text(text: &str) -> Result<Vec<ProviderSettings>, Vec<String>> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct File {
        provider: Vec<ProviderText>,
    }
    let whole = format!("[[provider]]{text}");
    let file: File =
        toml::from_str(&whole).map_err(|error| vec![toml_text::unreadable(&error, &whole)])?;
    let mut problems = Vec::new();
    let read = read(
        file.provider,
        &whole,
        "file: instance \"a\":",
        &mut problems,
    );
    match problems.is_empty() {
        true => Ok(read),
        false => Err(problems.iter().map(ToString::to_string).collect()),
    }
}

#[test]
fn a_provider_is_read_whole_and_what_is_left_out_is_strict() {
    let read = read_text(GOOD).expect("good");
    let [ProviderSettings { rules, keys }] = &read[..] else {
        panic!("{read:?}")
    };
    assert_eq!(rules.name.as_str(), "acme");
    assert_eq!(&*rules.issuer, "https://idp.example.com/tenant");
    assert_eq!(rules.nonce, Nonce::Required);
    assert_eq!(rules.second_factor, SecondFactor::Required);
    assert_eq!(
        rules.algorithms,
        SigningAlgorithms::only(SigningAlgorithm::Rs256)
    );
    assert_eq!((rules.max_sign_in_age, rules.create_users), (None, false));
    let ProviderKeys::Discovery(url) = keys else {
        panic!("{keys:?}")
    };
    assert_eq!(
        url.as_str(),
        "https://idp.example.com/tenant/.well-known/openid-configuration"
    );
}

#[test]
fn everything_else_can_be_said() {
    let text = r#"
name = "acme"
issuer = "http://127.0.0.1:9/"
client_ids = ["a", "b"]
jwks_url = "https://idp.example.com/keys"
algorithms = ["ES256", "RS256"]
match = "external_account"
external_account = "oauth_custom_acme"
mfa = "if_enrolled"
acr = ["urn:strong"]
max_auth_age = "12h"
nonce = "optional"
create_users = false
"#;
    let read = read_text(text).expect("good");
    let rules = &read[0].rules;
    assert_eq!(
        rules.find_by,
        FindBy::ExternalAccount("oauth_custom_acme".into())
    );
    assert_eq!(rules.second_factor, SecondFactor::IfEnrolled);
    assert_eq!(rules.max_sign_in_age, Some(Duration::from_secs(43_200)));
    assert_eq!(rules.nonce, Nonce::Optional);
    assert!(
        SigningAlgorithm::ALL
            .iter()
            .all(|each| rules.algorithms.has(*each))
    );
    assert!(matches!(&read[0].keys, ProviderKeys::Jwks(_)));
}

/// Each with one thing wrong: where it stands, and what to do.
#[test]
fn what_is_wrong_is_said_with_its_place_and_what_to_do() {
    let replaced = |old: &str, new: &str| {
        assert!(GOOD.contains(old), "{old}");
        GOOD.replace(old, new)
    };
    let added = |line: &str| format!("{GOOD}{line}\n");
    for (text, expected) in [
        (
            replaced("\"acme\"", "\"Acme\""),
            "provider.name line 2, column 8: is \"Acme\"",
        ),
        (
            replaced("https://idp", "http://idp"),
            "provider.issuer line 3, column 10: is \"http://idp.example.com/tenant\"; expected https",
        ),
        (
            replaced("/tenant", "/?x=1"),
            "provider.issuer line 3, column 10: has parameters",
        ),
        (
            replaced("https://idp", "https://a:b@idp"),
            "without a name or password",
        ),
        (
            replaced("[\"client-1\"]", "[]"),
            "provider.client_ids line 4, column 14: has 0 values",
        ),
        (replaced("[\"client-1\"]", "[\"\"]"), "none empty"),
        (
            replaced("verified_email", "verified_emial"),
            "did you mean \"verified_email\"?",
        ),
        (
            replaced("verified_email", "name"),
            "expected one of \"external_account\", \"external_id\", \"verified_email\"",
        ),
        (
            replaced("email_domains = [\"example.com\"]\n", ""),
            "set email_domains",
        ),
        (
            replaced("[\"example.com\"]", "[\"@example.com\"]"),
            "without \"@\" or a wildcard",
        ),
        (
            replaced("[\"example.com\"]", "[\"Example.com\"]"),
            "in lower case",
        ),
        (
            replaced("[\"example.com\"]", "[\"caf\u{e9}.example\"]"),
            "and ASCII",
        ),
        (
            replaced("[\"example.com\"]", "[\"com\"]"),
            "expected a domain",
        ),
        (
            replaced(
                "\"verified_email\"\nemail_domains = [\"example.com\"]",
                "\"external_account\"",
            ),
            "set external_account to Clerk's name",
        ),
        (
            replaced("\"verified_email\"", "\"external_id\""),
            "goes with match = \"verified_email\" only",
        ),
        (
            replaced("amr = [\"mfa\"]", ""),
            "nothing says what shows a second factor",
        ),
        (
            replaced("\"required\"", "\"off\""),
            "does nothing while mfa is \"off\"",
        ),
        (
            replaced("\"required\"", "\"maybe\""),
            "expected one of \"required\", \"if_enrolled\", \"off\"",
        ),
        (
            added("algorithms = [\"HS256\"]"),
            "has \"HS256\"; expected \"RS256\" or \"ES256\"",
        ),
        (added("algorithms = [\"none\"]"), "has \"none\""),
        (added("algorithms = []"), "is empty"),
        (
            added("max_auth_age = \"12\""),
            "expected a duration with a unit",
        ),
        (added("max_auth_age = \"0s\""), "from 1s to 365days"),
        (
            added("nonce = \"no\""),
            "expected one of \"required\", \"optional\"",
        ),
        (
            added("external_account = \"oauth_x\""),
            "goes with match = \"external_account\" only",
        ),
        (
            added(
                "discovery = \"https://a.example.com/d\"\njwks_url = \"https://a.example.com/k\"",
            ),
            "leave one of them out",
        ),
        (
            added("jwks_url = \"http://idp.example.com/k\""),
            "provider.jwks_url line 9, column 12: is",
        ),
        (
            added("client_secret = \"x\""),
            "unknown key `client_secret`",
        ),
        (
            format!("{GOOD}[[provider]]{GOOD}"),
            "is the name of another",
        ),
        (
            GOOD.replace("verified_email", "external_account").replace(
                "email_domains = [\"example.com\"]",
                "external_account = \"oauth_x\"\ncreate_users = true",
            ),
            "Clerk lets nobody make a user with one",
        ),
        (
            GOOD.replace("verified_email", "external_account").replace(
                "email_domains = [\"example.com\"]",
                "external_account = \"google\"",
            ),
            "such as \"oauth_google\"",
        ),
    ] {
        let said = read_text(&text).expect_err(expected).join("\n");
        assert!(said.contains(expected), "{said}\nlacks {expected}");
    }
}

/// Each issuer vouches for its own users, and must not be able to speak of another's.
#[test]
fn two_issuers_of_one_instance_share_no_users() {
    let provider = |name: &str, issuer: &str, found: &str| {
        format!(
            "[[provider]]\nname = \"{name}\"\nissuer = \"https://{issuer}\"\n\
             client_ids = [\"c\"]\nmfa = \"off\"\n{found}\n"
        )
    };
    let id = "match = \"external_id\"";
    let account = |name| format!("match = \"external_account\"\nexternal_account = \"{name}\"");
    let emails =
        |domains: &[&str]| format!("match = \"verified_email\"\nemail_domains = {domains:?}");
    let two = |issuer: &str, one: &str, other: &str| {
        let whole = provider("one", "a.example", one) + &provider("two", issuer, other);
        read_text(whole.strip_prefix("[[provider]]").expect("a table"))
    };
    for (one, other, expected) in [
        (
            id.to_owned(),
            id.to_owned(),
            "provider.match line 12, column 9: \"external_id\" is of provider \"two\", and of \
             provider \"one\" of another issuer",
        ),
        (
            account("oauth_x"),
            account("oauth_x"),
            "provider.external_account line 14, column 20: \"oauth_x\" is of provider \"two\"",
        ),
        (
            emails(&["a.example", "b.example"]),
            emails(&["c.example", "b.example"]),
            "provider.email_domains line 14, column 17: \"b.example\" is of provider \"two\"",
        ),
    ] {
        let said = two("b.example", &one, &other)
            .expect_err(expected)
            .join("\n");
        assert!(said.contains(expected), "{said}\nlacks {expected}");
        assert!(said.contains("leave it to one of them"), "{said}");
        let same_issuer = two("a.example", &one, &other);
        assert!(same_issuer.is_ok(), "{same_issuer:?}");
    }
    for (one, other) in [
        (account("oauth_x"), account("oauth_y")),
        (emails(&["a.example"]), emails(&["b.example"])),
        (id.to_owned(), account("oauth_x")),
    ] {
        let apart = two("b.example", &one, &other);
        assert!(apart.is_ok(), "{apart:?}");
    }
}
