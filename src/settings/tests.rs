use std::io::Write;

use proptest::prelude::*;

use super::*;

const WHSEC: &str = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYX";
const PK_TEST: &str = "pk_test_Y2xlcmsuY2xlcmsuZGV2JA"; // clerk.clerk.dev
const PK_LIVE: &str = "pk_live_Y2xlcmsuZXhhbXBsZS5jb20k"; // clerk.example.com

fn environment(variables: &[(&str, &str)]) -> EnvironmentVariables {
    variables
        .iter()
        .map(|(name, value)| ((*name).to_owned(), value.into()))
        .collect()
}

fn load(variables: &[(&str, &str)]) -> Result<Settings, String> {
    Settings::load(&SettingsArgs::default(), &environment(variables))
        .map_err(|problems| problems.to_string())
}

fn file(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    file.write_all(text.as_bytes()).expect("written");
    file
}

#[test]
fn a_publishable_key_is_enough() {
    let settings = load(&[("CLERK_PUBLISHABLE_KEY", PK_LIVE)]).expect("good");

    let instance = &settings.instances[0];
    assert_eq!(instance.name.as_str(), "default");
    assert_eq!(instance.issuer.as_str(), "https://clerk.example.com");
    let KeySource::Jwks {
        url,
        authorization: None,
    } = &instance.keys
    else {
        panic!("fetched")
    };
    assert_eq!(
        url.as_str(),
        "https://clerk.example.com/.well-known/jwks.json"
    );
    assert_eq!(settings.cache_bytes, 64 << 20);
    assert_eq!(settings.clock_skew, Duration::from_secs(5));
    assert_eq!(settings.grpc_addr.to_string(), "127.0.0.1:50051");
}

#[test]
fn zero_is_no_pause_and_no_age() {
    let read = |more: &[(&str, &str)]| {
        let variables = [&[("CLERK_PUBLISHABLE_KEY", PK_LIVE)], more].concat();
        load(&variables).expect("good").drain
    };
    let seconds = Duration::from_secs;
    assert_eq!(
        read(&[]),
        DrainSettings {
            pause: seconds(5),
            timeout: seconds(11),
            max_connection_age: Some(seconds(1_800)),
        }
    );
    let drain = read(&[
        ("CLERK_AUTHZ_DRAIN_PAUSE", "0s"),
        ("CLERK_AUTHZ_MAX_CONNECTION_AGE", "0s"),
    ]);
    assert_eq!(
        (drain.pause, drain.max_connection_age),
        (Duration::ZERO, None)
    );
}

#[test]
fn a_certificate_and_its_key_are_tls() {
    let of = |more: &[(&str, &str)]| {
        let variables = [&[("CLERK_PUBLISHABLE_KEY", PK_LIVE)], more].concat();
        load(&variables).expect("good").tls
    };
    assert_eq!(of(&[]), None);
    let pair = [
        ("CLERK_AUTHZ_TLS_CERT", "/cert.pem"),
        ("CLERK_AUTHZ_TLS_KEY", "/key.pem"),
    ];
    let tls = of(&pair).expect("TLS");
    assert_eq!((tls.certificate, tls.client_ca), ("/cert.pem".into(), None));
    let asking = of(&[pair[0], pair[1], ("CLERK_AUTHZ_TLS_CLIENT_CA", "/ca.pem")]);
    assert_eq!(asking.expect("TLS").client_ca, Some("/ca.pem".into()));
}

#[test]
fn grpc_is_answered_at_a_port_or_on_a_socket() {
    let read = |addr: &str| {
        let variables = [
            ("CLERK_PUBLISHABLE_KEY", PK_LIVE),
            ("CLERK_AUTHZ_GRPC_ADDR", addr),
        ];
        load(&variables).map(|settings| settings.grpc_addr)
    };
    let longest = format!("/{}", "a".repeat(106));
    for (text, path) in [
        ("unix:/run/authz.sock", "/run/authz.sock"),
        ("unix:authz.sock", "authz.sock"),
        ("unix:///run/authz.sock", "/run/authz.sock"),
        (&*format!("unix:{longest}"), &*longest),
    ] {
        let addr = read(text).expect(text);
        assert_eq!(addr, ListenAddr::Unix(path.into()), "{text}");
        assert_eq!(addr.to_string(), format!("unix:{path}"));
        assert_eq!(addr.to_string().parse(), Ok(addr));
    }
    let tcp = read("[::1]:50051").expect("an address");
    assert_eq!(
        tcp,
        ListenAddr::Tcp(([0, 0, 0, 0, 0, 0, 0, 1], 50_051).into())
    );
    for wrong in [
        "unix:",
        "unix://",
        "unix://host/authz.sock",
        "unix:/run/",
        "unix:/a\0b",
        "UNIX:/run/authz.sock",
        "/run/authz.sock",
        &format!("unix:{longest}a"),
    ] {
        let said = read(wrong).expect_err(wrong).to_string();
        assert!(
            said.contains("CLERK_AUTHZ_GRPC_ADDR is ") && said.contains("unix:/run/"),
            "{wrong}: {said}"
        );
    }
}

#[test]
fn the_nearest_source_of_keys_wins() {
    let source = |more: &[(&str, &str)]| {
        let mut variables = vec![("CLERK_PUBLISHABLE_KEY", PK_TEST)];
        variables.extend(more);
        match load(&variables).expect("good").instances.remove(0).keys {
            KeySource::Pinned(_) => "pinned".to_owned(),
            KeySource::Jwks { url, authorization } => {
                format!(
                    "{url} {}",
                    if authorization.is_some() {
                        "secret"
                    } else {
                        "open"
                    }
                )
            }
        }
    };
    let secret = ("CLERK_SECRET_KEY", "sk_test_abc");
    let jwks = ("CLERK_AUTHZ_JWKS_URL", "https://keys.example.com/jwks");
    let api = ("CLERK_API_URL", "http://127.0.0.1:9/");
    assert_eq!(
        source(&[]),
        "https://clerk.clerk.dev/.well-known/jwks.json open"
    );
    assert_eq!(source(&[secret]), "https://api.clerk.com/v1/jwks secret");
    assert_eq!(source(&[secret, api]), "http://127.0.0.1:9/v1/jwks secret");
    assert_eq!(
        source(&[secret, jwks]),
        "https://keys.example.com/jwks open"
    );
    assert_eq!(source(&[secret, jwks, ("CLERK_JWT_KEY", "PEM")]), "pinned");
}

#[test]
fn a_flag_beats_a_variable_and_a_message_names_the_one_that_counts() {
    let mut args = SettingsArgs::default();
    args.set("CLERK_AUTHZ_CLOCK_SKEW", "3s");
    let variables = environment(&[
        ("CLERK_PUBLISHABLE_KEY", PK_TEST),
        ("CLERK_AUTHZ_CLOCK_SKEW", "junk"),
    ]);
    let settings = Settings::load(&args, &variables).expect("the flag is good");
    assert_eq!(settings.clock_skew, Duration::from_secs(3));

    args.set("CLERK_AUTHZ_CLOCK_SKEW", "5");
    let problems = Settings::load(&args, &variables)
        .expect_err("the flag is bad")
        .to_string();
    assert_eq!(
        problems,
        "--clock-skew is \"5\"; expected a duration with a unit, such as \"5s\""
    );
}

/// Each wrong setting says what was found, what is expected, and so how to mend it.
#[test]
#[expect(clippy::type_complexity, reason = "a table")]
fn every_wrong_setting_says_how_to_mend_it() {
    let empty = file("  \n");
    let empty = empty.path().to_str().expect("UTF-8");
    let pk = ("CLERK_PUBLISHABLE_KEY", PK_TEST);
    let database = ("CLERK_AUTHZ_DATABASE_URL", "sqlite://x.db");
    let cases: &[(&str, &[(&str, &str)], &str)] = &[
        (
            "nothing",
            &[],
            "CLERK_PUBLISHABLE_KEY is not set; set it (Clerk dashboard, \"API keys\"), or CLERK_AUTHZ_ISSUER to the Frontend API address",
        ),
        (
            "a secret key for a publishable one",
            &[("CLERK_PUBLISHABLE_KEY", "sk_test_abc")],
            "CLERK_PUBLISHABLE_KEY is \"sk_test_…\": does not start with \"pk_test_\" or \"pk_live_\"",
        ),
        (
            "a cut publishable key",
            &[("CLERK_PUBLISHABLE_KEY", "pk_test_Y2xl")],
            "CLERK_PUBLISHABLE_KEY is \"pk_test_Y2xl\": does not hold a Frontend API host in base64 after the prefix",
        ),
        (
            "kinds differ",
            &[pk, ("CLERK_SECRET_KEY", "sk_live_abc")],
            "CLERK_SECRET_KEY is a production key, but CLERK_PUBLISHABLE_KEY is a development key; take both from one instance",
        ),
        (
            "a publishable key for a secret one",
            &[pk, ("CLERK_SECRET_KEY", "pk_test_abcdef")],
            "CLERK_SECRET_KEY is \"…\"; expected a key that starts with sk_test_ or sk_live_",
        ),
        (
            "secret twice",
            &[
                pk,
                ("CLERK_SECRET_KEY", "sk_test_a"),
                ("CLERK_SECRET_KEY_FILE", "/x"),
            ],
            "CLERK_SECRET_KEY is set beside CLERK_SECRET_KEY_FILE; set one of them",
        ),
        (
            "secret file missing",
            &[pk, ("CLERK_SECRET_KEY_FILE", "/nowhere/key")],
            "CLERK_SECRET_KEY_FILE is \"/nowhere/key\"; the file cannot be read: No such file or directory (os error 2)",
        ),
        (
            "secret file empty",
            &[pk, ("CLERK_SECRET_KEY_FILE", empty)],
            "the file is empty",
        ),
        (
            "issuer with a slash",
            &[("CLERK_AUTHZ_ISSUER", "https://clerk.example.com/")],
            "CLERK_AUTHZ_ISSUER is \"https://clerk.example.com/\"; expected an address such as \"https://clerk.example.com\", without a path or a slash at the end",
        ),
        (
            "issuer of another instance",
            &[pk, ("CLERK_AUTHZ_ISSUER", "https://clerk.example.com")],
            "CLERK_AUTHZ_ISSUER is \"https://clerk.example.com\", but CLERK_PUBLISHABLE_KEY is of \"clerk.clerk.dev\"; take both from one instance",
        ),
        (
            "issuer without TLS",
            &[("CLERK_AUTHZ_ISSUER", "http://clerk.example.com")],
            "CLERK_AUTHZ_ISSUER is \"http://clerk.example.com\"; expected https, but for a host of this machine",
        ),
        (
            "keys without TLS",
            &[pk, ("CLERK_AUTHZ_JWKS_URL", "http://keys.example.com/")],
            "CLERK_AUTHZ_JWKS_URL leads to \"http://keys.example.com/\"; expected https, but for a host of this machine",
        ),
        (
            "keys at no address",
            &[pk, ("CLERK_AUTHZ_JWKS_URL", "keys.json")],
            "CLERK_AUTHZ_JWKS_URL leads to \"keys.json\"; expected an address: relative URL without a base",
        ),
        (
            "API without TLS",
            &[
                pk,
                ("CLERK_SECRET_KEY", "sk_test_a"),
                ("CLERK_API_URL", "http://api.clerk.com"),
            ],
            "CLERK_API_URL is \"http://api.clerk.com\"; expected https, but for a host of this machine",
        ),
        (
            "API at no address, though the keys are pinned",
            &[
                pk,
                ("CLERK_SECRET_KEY", "sk_test_a"),
                ("CLERK_JWT_KEY", "PEM"),
                ("CLERK_API_URL", "api.clerk.com"),
            ],
            "CLERK_API_URL is \"api.clerk.com\"; expected an address: relative URL without a base",
        ),
        (
            "API with parameters",
            &[
                pk,
                ("CLERK_SECRET_KEY", "sk_test_a"),
                ("CLERK_API_URL", "https://api.clerk.com/?a=b"),
            ],
            "CLERK_API_URL is \"https://api.clerk.com/?a=b\"; expected an address without parameters",
        ),
        (
            "budget too small",
            &[pk, ("CLERK_AUTHZ_API_BUDGET", "9")],
            "CLERK_AUTHZ_API_BUDGET is \"9\"; expected a number from 10 to 100000",
        ),
        (
            "budget with a unit",
            &[pk, ("CLERK_AUTHZ_API_BUDGET", "90/s")],
            "CLERK_AUTHZ_API_BUDGET is \"90/s\"; expected a number from 10 to 100000",
        ),
        (
            "a password in the address of the keys",
            &[
                pk,
                (
                    "CLERK_AUTHZ_JWKS_URL",
                    "https://someone:hushhush@keys.example.com/jwks",
                ),
            ],
            "CLERK_AUTHZ_JWKS_URL is \"https://…@keys.example.com/jwks\"; expected an address without a name or password before its host",
        ),
        (
            "a password in an address that is not safe either",
            &[
                pk,
                (
                    "CLERK_AUTHZ_JWKS_URL",
                    "http://someone:hushhush@keys.example.com",
                ),
            ],
            "CLERK_AUTHZ_JWKS_URL leads to \"http://…@keys.example.com\"; expected https, but for a host of this machine",
        ),
        (
            "a password in an address that cannot be read",
            &[
                pk,
                ("CLERK_AUTHZ_JWKS_URL", "https//someone:hush@hush@keys"),
            ],
            "CLERK_AUTHZ_JWKS_URL leads to \"…@keys\"; expected an address",
        ),
        (
            "a name in the API's address, which nobody is asked at without a secret key",
            &[pk, ("CLERK_API_URL", "https://hushhush@api.example.com")],
            "CLERK_API_URL is \"https://…@api.example.com\"; expected an address without a name or password before its host",
        ),
        (
            "a password in the issuer",
            &[(
                "CLERK_AUTHZ_ISSUER",
                "https://someone:hushhush@clerk.example.com",
            )],
            "CLERK_AUTHZ_ISSUER is \"https://…@clerk.example.com\"; expected an address",
        ),
        (
            "a password in a party",
            &[
                pk,
                (
                    "CLERK_AUTHORIZED_PARTIES",
                    "https://someone:hushhush@app.example.com",
                ),
            ],
            "CLERK_AUTHORIZED_PARTIES has \"https://…@app.example.com\"; expected an origin",
        ),
        (
            "API timeout too short",
            &[pk, ("CLERK_AUTHZ_API_TIMEOUT", "99ms")],
            "CLERK_AUTHZ_API_TIMEOUT is \"99ms\"; expected from 100ms to 30s",
        ),
        (
            "API timeout too long",
            &[pk, ("CLERK_AUTHZ_API_TIMEOUT", "31s")],
            "CLERK_AUTHZ_API_TIMEOUT is \"31s\"; expected from 100ms to 30s",
        ),
        (
            "budget beside several instances",
            &[
                ("CLERK_AUTHZ_INSTANCES", "/nowhere.toml"),
                ("CLERK_AUTHZ_API_BUDGET", "100"),
            ],
            "CLERK_AUTHZ_API_BUDGET is set beside CLERK_AUTHZ_INSTANCES; say it in that file, or leave the file out",
        ),
        (
            "party with a slash",
            &[
                pk,
                (
                    "CLERK_AUTHORIZED_PARTIES",
                    "https://a.example, https://b.example/",
                ),
            ],
            "CLERK_AUTHORIZED_PARTIES has \"https://b.example/\"; expected an origin such as \"https://app.example.com\": scheme, host and port in lower case, without a path, a slash at the end or a wildcard",
        ),
        (
            "party with a wildcard",
            &[pk, ("CLERK_AUTHORIZED_PARTIES", "https://*.example.com")],
            "CLERK_AUTHORIZED_PARTIES has \"https://*.example.com\"; expected an origin",
        ),
        (
            "party without a scheme",
            &[pk, ("CLERK_AUTHORIZED_PARTIES", "app.example.com")],
            "CLERK_AUTHORIZED_PARTIES has \"app.example.com\"; expected an origin",
        ),
        (
            "webhook secret without a database",
            &[pk, ("CLERK_WEBHOOK_SIGNING_SECRET", WHSEC)],
            "CLERK_AUTHZ_DATABASE_URL is not set, but instance \"default\" has a webhook signing secret; set it to where messages are kept until they are applied, such as \"sqlite:///var/lib/clerk-authz/clerk-authz.db\"",
        ),
        (
            "webhook secret that is none",
            &[
                pk,
                database,
                ("CLERK_WEBHOOK_SIGNING_SECRET", "sk_test_hushhush"),
            ],
            "CLERK_WEBHOOK_SIGNING_SECRET is not a webhook signing secret; expected \"whsec_\", then a key that is not empty, in base64 with its padding",
        ),
        (
            "second webhook secret that is none",
            &[
                pk,
                database,
                (
                    "CLERK_WEBHOOK_SIGNING_SECRET",
                    "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYX, whsec_",
                ),
            ],
            "CLERK_WEBHOOK_SIGNING_SECRET number 2 is not a webhook signing secret; expected",
        ),
        (
            "message ids forgotten too soon",
            &[pk, ("CLERK_AUTHZ_INBOX_RETENTION", "1h")],
            "CLERK_AUTHZ_INBOX_RETENTION is \"1h\"; expected from 1day to",
        ),
        (
            "duration without a unit",
            &[pk, ("CLERK_AUTHZ_CLOCK_SKEW", "5")],
            "CLERK_AUTHZ_CLOCK_SKEW is \"5\"; expected a duration with a unit, such as \"5s\"",
        ),
        (
            "no time to end",
            &[pk, ("CLERK_AUTHZ_DRAIN_TIMEOUT", "0s")],
            "CLERK_AUTHZ_DRAIN_TIMEOUT is \"0s\"; expected from 1s to 10m",
        ),
        (
            "a certificate without its key",
            &[pk, ("CLERK_AUTHZ_TLS_CERT", "/cert.pem")],
            "CLERK_AUTHZ_TLS_CERT is set without CLERK_AUTHZ_TLS_KEY, the certificate's private \
             key; set both",
        ),
        (
            "a key without its certificate",
            &[pk, ("CLERK_AUTHZ_TLS_KEY", "/key.pem")],
            "CLERK_AUTHZ_TLS_KEY is set without CLERK_AUTHZ_TLS_CERT, the key's certificate; set \
             both",
        ),
        (
            "an authority of clients without TLS",
            &[pk, ("CLERK_AUTHZ_TLS_CLIENT_CA", "/ca.pem")],
            "CLERK_AUTHZ_TLS_CLIENT_CA is set without CLERK_AUTHZ_TLS_CERT, a certificate of its \
             own; set both",
        ),
        (
            "assertions without a policy",
            &[
                pk,
                ("CLERK_AUTHZ_UPSTREAM_ASSERTIONS", "orders"),
                ("CLERK_AUTHZ_DATABASE_URL", "sqlite://a.db"),
            ],
            "CLERK_AUTHZ_UPSTREAM_ASSERTIONS is set without CLERK_AUTHZ_POLICY, by which requests \
             are let through; set both",
        ),
        (
            "assertions without a database",
            &[
                pk,
                ("CLERK_AUTHZ_UPSTREAM_ASSERTIONS", "orders"),
                ("CLERK_AUTHZ_POLICY", "policy.yaml"),
            ],
            "CLERK_AUTHZ_UPSTREAM_ASSERTIONS is set without CLERK_AUTHZ_DATABASE_URL, where the \
             keys are kept; set both",
        ),
        (
            "a word that names no upstream",
            &[
                pk,
                ("CLERK_AUTHZ_UPSTREAM_ASSERTIONS", "none"),
                ("CLERK_AUTHZ_POLICY", "policy.yaml"),
                ("CLERK_AUTHZ_DATABASE_URL", "sqlite://a.db"),
            ],
            "CLERK_AUTHZ_UPSTREAM_ASSERTIONS is \"none\"; expected 1 to 255 letters, digits, and any \
             of \"-._~:/\", and not \"none\"",
        ),
        (
            "an issuer with a space",
            &[pk, ("CLERK_AUTHZ_UPSTREAM_ISSUER", "my authorizer")],
            "CLERK_AUTHZ_UPSTREAM_ISSUER is \"my authorizer\"; expected 1 to 255 letters",
        ),
        (
            "a rotation within the overlap",
            &[pk, ("CLERK_AUTHZ_UPSTREAM_KEY_ROTATION", "1h")],
            "CLERK_AUTHZ_UPSTREAM_KEY_ROTATION is \"1h\"; expected from 1day to",
        ),
        (
            "skew too long",
            &[pk, ("CLERK_AUTHZ_CLOCK_SKEW", "1h")],
            "CLERK_AUTHZ_CLOCK_SKEW is \"1h\"; expected from 0s to 1m",
        ),
        (
            "refresh too short",
            &[pk, ("CLERK_AUTHZ_KEYS_REFRESH", "0s")],
            "CLERK_AUTHZ_KEYS_REFRESH is \"0s\"; expected from 1s to 1day",
        ),
        (
            "cooldown beyond refresh",
            &[pk, ("CLERK_AUTHZ_KEYS_COOLDOWN", "2m")],
            "CLERK_AUTHZ_KEYS_COOLDOWN is longer than CLERK_AUTHZ_KEYS_REFRESH; expected at most 1m",
        ),
        (
            "refresh beyond staleness",
            &[
                pk,
                ("CLERK_AUTHZ_KEYS_MAX_STALENESS", "1m"),
                ("CLERK_AUTHZ_KEYS_REFRESH", "2m"),
            ],
            "CLERK_AUTHZ_KEYS_REFRESH is longer than CLERK_AUTHZ_KEYS_MAX_STALENESS; expected at most 1m",
        ),
        (
            "size without a unit",
            &[pk, ("CLERK_AUTHZ_CACHE_BYTES", "1000")],
            "CLERK_AUTHZ_CACHE_BYTES is \"1000\"; expected a size with a unit, such as \"64MiB\", or 0",
        ),
        (
            "size that overflows",
            &[pk, ("CLERK_AUTHZ_CACHE_BYTES", "99999999999999GiB")],
            "CLERK_AUTHZ_CACHE_BYTES is \"99999999999999GiB\"; expected a size",
        ),
        (
            "address without a port",
            &[pk, ("CLERK_AUTHZ_GRPC_ADDR", "127.0.0.1")],
            "CLERK_AUTHZ_GRPC_ADDR is \"127.0.0.1\"; expected an IP address and a port, such as \"127.0.0.1:50051\"",
        ),
        (
            "one address twice",
            &[pk, ("CLERK_AUTHZ_HTTP_ADDR", "127.0.0.1:50051")],
            "CLERK_AUTHZ_HTTP_ADDR is 127.0.0.1:50051, as CLERK_AUTHZ_GRPC_ADDR; expected another port",
        ),
        (
            "one socket twice",
            &[
                pk,
                ("CLERK_AUTHZ_GRPC_ADDR", "unix:/run/a.sock"),
                ("CLERK_AUTHZ_POLICY", "policy.yaml"),
                ("CLERK_AUTHZ_FORWARD_AUTH_SOCKET", "/run/a.sock"),
            ],
            "CLERK_AUTHZ_FORWARD_AUTH_SOCKET is the socket of CLERK_AUTHZ_GRPC_ADDR; expected another path",
        ),
        (
            "log format",
            &[pk, ("CLERK_AUTHZ_LOG_FORMAT", "xml")],
            "CLERK_AUTHZ_LOG_FORMAT is \"xml\"; expected \"text\" or \"json\"",
        ),
        (
            "log filter",
            &[pk, ("CLERK_AUTHZ_LOG", "clerk_authz=loud")],
            "CLERK_AUTHZ_LOG is \"clerk_authz=loud\"; expected error, warn, info, debug, trace, or a filter such as \"clerk_authz=debug\"",
        ),
        (
            "misspelt",
            &[pk, ("CLERK_AUTHZ_CLOCKSKEW", "5s")],
            "CLERK_AUTHZ_CLOCKSKEW is not a setting; did you mean CLERK_AUTHZ_CLOCK_SKEW?",
        ),
        (
            "of a later version",
            &[pk, ("CLERK_AUTHZ_GREETING", "cert.pem")],
            "CLERK_AUTHZ_GREETING is not a setting of this version; see docs/settings.md",
        ),
        (
            "a database of another kind",
            &[
                pk,
                ("CLERK_AUTHZ_DATABASE_URL", "mysql://user:hushhush@db/name"),
            ],
            "CLERK_AUTHZ_DATABASE_URL is not a database's address; expected one that starts with \"sqlite://\" or \"postgres://\", such as \"sqlite:///PATH\" or \"postgres://USER:PASSWORD@HOST/NAME\"",
        ),
        (
            "a database without a scheme",
            &[pk, ("CLERK_AUTHZ_DATABASE_URL", "/var/lib/clerk-authz.db")],
            "CLERK_AUTHZ_DATABASE_URL is not a database's address; expected \"sqlite:///PATH\" or \"postgres://USER:PASSWORD@HOST/NAME\"",
        ),
        (
            "a SQLite database without a file",
            &[pk, ("CLERK_AUTHZ_DATABASE_URL", "sqlite:///var/lib/")],
            "CLERK_AUTHZ_DATABASE_URL is not a database's address; expected a file behind \"sqlite://\", such as \"sqlite:///var/lib/clerk-authz/clerk-authz.db\"",
        ),
        (
            "a SQLite database that forgets",
            &[pk, ("CLERK_AUTHZ_DATABASE_URL", "sqlite://:memory:")],
            "expected a file: a database in memory would forget everything at a restart; leave the setting out to have none",
        ),
        (
            "a SQLite database with options",
            &[pk, ("CLERK_AUTHZ_DATABASE_URL", "sqlite://a.db?mode=rwc")],
            "expected a path without \"?\", \"#\" and \"%\": it takes no options and is not decoded",
        ),
        (
            "a PostgreSQL database without a host",
            &[pk, ("CLERK_AUTHZ_DATABASE_URL", "postgres:///name")],
            "expected a host, as in \"sqlite:///PATH\" or \"postgres://USER:PASSWORD@HOST/NAME\"",
        ),
        (
            "a PostgreSQL database without a name",
            &[
                pk,
                ("CLERK_AUTHZ_DATABASE_URL", "postgres://user:hushhush@db"),
            ],
            "expected the name of a database behind the host, as in \"sqlite:///PATH\" or \"postgres://USER:PASSWORD@HOST/NAME\"",
        ),
        (
            "both one and several",
            &[pk, ("CLERK_AUTHZ_INSTANCES", "/nowhere.toml")],
            "CLERK_PUBLISHABLE_KEY is set beside CLERK_AUTHZ_INSTANCES; say it in that file, or leave the file out",
        ),
        (
            "no such file",
            &[("CLERK_AUTHZ_INSTANCES", "/nowhere.toml")],
            "CLERK_AUTHZ_INSTANCES is \"/nowhere.toml\"; the file cannot be read: No such file or directory (os error 2)",
        ),
    ];
    for (name, variables, expected) in cases {
        let problems = load(variables).expect_err(name);
        assert!(
            problems.contains(expected),
            "{name}:\n  found    {problems}\n  expected {expected}"
        );
        assert!(!problems.contains("hush"), "{name}: {problems}");
    }
    assert!(load(&[pk]).is_ok(), "the nearest good settings");
}

#[test]
fn all_problems_come_at_once() {
    let problems = load(&[
        ("CLERK_AUTHZ_CLOCK_SKEW", "5"),
        ("CLERK_AUTHZ_CACHE_BYTES", "x"),
        ("CLERK_AUTHZ_LOG_FORMAT", "x"),
    ])
    .expect_err("four problems");
    assert_eq!(problems.lines().count(), 4, "{problems}");
}

#[test]
fn an_empty_variable_counts_as_not_set() {
    let settings = load(&[
        ("CLERK_PUBLISHABLE_KEY", PK_TEST),
        ("CLERK_SECRET_KEY", ""),
        ("CLERK_AUTHZ_CLOCK_SKEW", ""),
    ]);
    assert_eq!(settings.expect("good").clock_skew, Duration::from_secs(5));
}

#[test]
fn a_secret_key_opens_the_backend_api_whatever_the_keys_come_from() {
    let api = |more: &[(&str, &str)]| {
        let mut variables = vec![("CLERK_PUBLISHABLE_KEY", PK_TEST)];
        variables.extend(more);
        load(&variables).expect("good").instances.remove(0).api
    };
    assert!(api(&[("CLERK_AUTHZ_API_BUDGET", "50")]).is_none());

    let secret = ("CLERK_SECRET_KEY", "sk_test_abc");
    for more in [vec![], vec![("CLERK_JWT_KEY", "PEM")]] {
        let api = api(&[&[secret], &*more].concat()).expect("a key");
        assert_eq!(api.url.as_str(), "https://api.clerk.com/");
        assert_eq!(api.budget, 90, "a development key");
    }
    let own = api(&[secret, ("CLERK_AUTHZ_API_BUDGET", "50")]);
    assert_eq!(own.expect("a key").budget, 50);
}

#[test]
fn an_instance_whose_api_differs_is_another() {
    let instance = |more: &[(&str, &str)]| {
        let mut variables = vec![("CLERK_PUBLISHABLE_KEY", PK_TEST), ("CLERK_JWT_KEY", "PEM")];
        variables.extend(more);
        load(&variables).expect("good").instances.remove(0)
    };
    let secret = ("CLERK_SECRET_KEY", "sk_test_abc");
    assert!(instance(&[secret]).same_as(&instance(&[secret])));
    for other in [
        vec![],
        vec![("CLERK_SECRET_KEY", "sk_test_abd")],
        vec![secret, ("CLERK_AUTHZ_API_BUDGET", "50")],
        vec![secret, ("CLERK_API_URL", "https://clerk.example.com")],
    ] {
        assert!(!instance(&[secret]).same_as(&instance(&other)), "{other:?}");
    }
}

#[test]
fn several_instances_come_from_a_file() {
    let secret = file("sk_live_abc\n");
    let text = format!(
        "[[instance]]\nname = \"shop\"\npublishable_key = \"{PK_LIVE}\"\nsecret_key_file = {:?}\n\
         authorized_parties = [\"https://shop.example.com\"]\n\n\
         [[instance]]\nname = \"lab\"\nissuer = \"https://lab.example.com\"\n",
        secret.path()
    );
    let instances = load_instances(file(&text).path()).expect("good");
    assert_eq!(instances.len(), 2);
    assert_eq!(instances[0].name.as_str(), "shop");
    assert!(matches!(
        instances[0].keys,
        KeySource::Jwks {
            authorization: Some(_),
            ..
        }
    ));
    let api = instances[0].api.as_ref().expect("a secret key");
    assert_eq!(api.budget, 900, "a production key");
    assert!(instances[1].api.is_none());
    assert_eq!(instances[1].issuer.as_str(), "https://lab.example.com");
}

#[test]
fn webhook_secrets_come_from_files_and_need_a_database() {
    let [old, new] = ["whsec_b2xk\n", "whsec_bmV3\n"].map(file);
    let text = format!(
        "[[instance]]\nname = \"shop\"\npublishable_key = \"{PK_LIVE}\"\n\
         webhook_signing_secret_files = [{:?}, {:?}]\n",
        old.path(),
        new.path()
    );
    let instances = load_instances(file(&text).path()).expect("good");
    assert_eq!(instances[0].webhook_secrets.len(), 2);

    let mut rotated = instances[0].clone();
    rotated.webhook_secrets.remove(0);
    assert!(!instances[0].same_as(&rotated), "a rotation takes effect");

    let problems = lacking_database(&instances);
    assert_eq!(problems.len(), 1);
    rotated.webhook_secrets.clear();
    assert!(lacking_database(&[rotated]).is_empty());
}

#[test]
fn identity_providers_need_a_secret_key_and_a_database() {
    let secret = file("sk_live_abc\n");
    let text = |secret_key: &str| {
        format!(
            "[[instance]]\nname = \"shop\"\npublishable_key = \"{PK_LIVE}\"\n{secret_key}\
             [[instance.provider]]\nname = \"acme\"\nissuer = \"https://idp.example.com\"\n\
             client_ids = [\"a\"]\nmatch = \"external_id\"\nmfa = \"off\"\n"
        )
    };
    let said = load_instances(file(&text("")).path()).expect_err("no secret key");
    let said = said.to_string();
    assert!(
        said.contains("secret_key_file is not set, but the instance has an identity provider"),
        "{said}"
    );
    let with_secret = text(&format!("secret_key_file = {:?}\n", secret.path()));
    let instances = load_instances(file(&with_secret).path()).expect("good");
    assert_eq!(instances[0].providers.len(), 1);

    let mut without = instances[0].clone();
    without.providers.clear();
    assert!(!instances[0].same_as(&without), "a change takes effect");
    let problems = lacking_database(&instances);
    assert_eq!(problems.len(), 1);
    assert!(problems[0].to_string().contains("has an identity provider"));
    assert!(lacking_database(&[without]).is_empty());

    let wrong = with_secret.replace("\"off\"", "\"of\"");
    let said = load_instances(file(&wrong).path()).expect_err("a slip");
    let said = said.to_string();
    let expected = "instance \"shop\": provider.mfa line 10, column 7: is \"of\"; expected one of \"required\"";
    assert!(said.contains(expected), "{said}");
}

#[test]
fn a_wrong_instances_file_says_where() {
    let entry = |more: &str| format!("[[instance]]\nname = \"a\"\n{more}\n");
    let issuer = "issuer = \"https://a.example.com\"";
    for (text, expected) in [
        (String::new(), "with 0 instances; expected 1 to 1000"),
        (
            entry("isuer = \"https://a.example.com\""),
            "unknown key `isuer`; did you mean `issuer`?",
        ),
        (entry("issuer = 1"), "line 3, column 10"),
        (
            entry(issuer).replace("\"a\"", "\"A b\""),
            "instance \"A b\": name: expected lower-case",
        ),
        (entry(issuer) + &entry(issuer), "has the name of another"),
        (
            entry(issuer) + &entry(issuer).replace("\"a\"", "\"b\""),
            "has the issuer of instance \"a\"",
        ),
        (entry(""), "publishable_key is not set"),
        (
            entry(&format!("{issuer}\napi_budget = 5")),
            "instance \"a\": api_budget is 5; expected a number from 10 to 100000",
        ),
        (
            entry(&format!("{issuer}\nsecret_key_file = \"/nowhere\"")),
            "secret_key_file is \"/nowhere\"",
        ),
        (
            entry(&format!(
                "{issuer}\nwebhook_signing_secret_files = [\"/nowhere\"]"
            )),
            "instance \"a\": webhook_signing_secret_files is \"/nowhere\"; it cannot be read",
        ),
        (
            entry(&format!(
                "{issuer}\nwebhook_signing_secret_files = [\"{WHSEC}\"]"
            )),
            "webhook_signing_secret_files is \"whsec_…\"",
        ),
    ] {
        let problems = load_instances(file(&text).path())
            .expect_err(expected)
            .to_string();
        assert!(
            problems.contains(expected),
            "found {problems}\nexpected {expected}"
        );
    }
}

#[test]
fn a_database_is_a_file_or_a_server_and_is_shown_without_its_password() {
    let long = file("postgres://user:hushhush@db.example.com:6432/name\n");
    let long = long.path().to_str().expect("UTF-8");
    for (variable, value, shown) in [
        ("", "sqlite:///var/lib/x.db", "sqlite:///var/lib/x.db"),
        ("", "sqlite://x.db", "sqlite://x.db"),
        ("", "postgres://db/name", "postgres://db/name"),
        (
            "",
            "postgresql://user:hushhush@db/name?sslmode=verify-full&password=hushhush",
            "postgresql://user:…@db/name?…",
        ),
        (
            "",
            "postgres:///name?host=/run/postgresql&user=someone",
            "postgres:///name?…",
        ),
        ("_FILE", long, "postgres://user:…@db.example.com:6432/name"),
    ] {
        let variable = format!("CLERK_AUTHZ_DATABASE_URL{variable}");
        let settings = load(&[("CLERK_PUBLISHABLE_KEY", PK_TEST), (&variable, value)]);
        let settings = settings.unwrap_or_else(|problems| panic!("{value}: {problems}"));
        let database = settings.database.as_ref().expect("a database");
        assert_eq!(database.to_string(), shown);
        let config = settings.print_config();
        let line = format!("CLERK_AUTHZ_DATABASE_URL={shown}  # ");
        assert!(config.contains(&line), "{config}");
        assert!(!format!("{config}{settings:?}").contains("hushhush"));
    }
    let none = load(&[("CLERK_PUBLISHABLE_KEY", PK_TEST)]).expect("good");
    assert!(none.database.is_none());
}

#[test]
fn secrets_are_never_shown() {
    let settings = load(&[
        ("CLERK_PUBLISHABLE_KEY", PK_TEST),
        ("CLERK_SECRET_KEY", "sk_test_hushhush"),
        ("CLERK_AUTHORIZED_PARTIES", "https://app.example.com"),
    ])
    .expect("good");
    let shown = settings.print_config();
    for text in [&shown, &format!("{settings:?}")] {
        assert!(!text.contains("hushhush"), "{text}");
    }
    assert!(
        shown.contains("CLERK_SECRET_KEY=sk_test_…  # environment"),
        "{shown}"
    );
    assert!(
        shown.contains("CLERK_AUTHZ_CLOCK_SKEW=5s  # default"),
        "{shown}"
    );
    assert!(shown.contains("# CLERK_JWT_KEY is not set"), "{shown}");

    // Secrets where none belongs: what is wrong is said with the place, never with the text there.
    for (line, expected) in [
        (
            "secret_key = \"sk_live_hushhush\"",
            "line 3, column 1: unknown key `secret_key`; did you mean `secret_key_file`",
        ),
        (
            "api_budget = \"sk_live_hushhush\"",
            "line 3, column 14: invalid type: string \"…\", expected u32",
        ),
        ("secret_key_file = \"sk_live_hushhush", "line 3, column "),
        (
            "secret_key_file = \"sk_live_hushhush\"",
            "secret_key_file is \"sk_live_…\"; it cannot be read",
        ),
    ] {
        let text = format!("[[instance]]\nname = \"a\"\n{line}\n");
        let problems = load_instances(file(&text).path()).expect_err(line);
        let problems = problems.to_string();
        assert!(
            problems.contains(expected),
            "found {problems}\nexpected {expected}"
        );
        assert!(!problems.contains("hushhush"), "{problems}");
    }
    for (variable, value) in [
        ("CLERK_SECRET_KEY_FILE", "sk_live_hushhush"),
        (
            "CLERK_AUTHZ_DATABASE_URL_FILE",
            "postgres://u:hushhush@db/name",
        ),
        (
            "OTEL_EXPORTER_OTLP_HEADERS_FILE",
            "authorization=Bearer%20hushhush",
        ),
        ("OTEL_EXPORTER_OTLP_HEADERS_FILE", "Bearer hushhush"),
    ] {
        let problems = load(&[("CLERK_PUBLISHABLE_KEY", PK_TEST), (variable, value)]);
        let problems = problems.expect_err(variable);
        assert!(problems.contains("cannot be read"), "{problems}");
        assert!(!problems.contains("hushhush"), "{problems}");
    }
}

#[test]
fn a_collectors_credential_is_read_from_a_file_or_the_environment() {
    const HEADERS: &str = "OTEL_EXPORTER_OTLP_HEADERS";
    let fixed = [
        ("CLERK_PUBLISHABLE_KEY", PK_TEST),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4317"),
    ];
    let with = |more: &[(&str, &str)]| load(&[&fixed[..], more].concat());
    let text = "Authorization = Bearer%20hush%2Chush , x-tenant=shop=1";
    let held = file(&format!("{text}\n"));
    let path = held.path().to_str().expect("UTF-8");
    let file_variable = format!("{HEADERS}_FILE");
    for given in [(HEADERS, text), (&*file_variable, path)] {
        let settings = with(&[given]).expect("good");
        let read = settings.otlp.as_ref().expect("a collector");
        let headers: Vec<(&str, &str)> = read
            .headers
            .iter()
            .map(|(name, value)| (&**name, value.expose_secret()))
            .collect();
        assert_eq!(
            headers,
            [
                ("authorization", "Bearer hush,hush"),
                ("x-tenant", "shop=1")
            ]
        );
        let config = settings.print_config();
        assert!(config.contains(&format!("{HEADERS}=…  # ")), "{config}");
        assert!(!format!("{config}{settings:?}").contains("hush"));
    }
    let none = with(&[]).expect("good").otlp.expect("a collector");
    assert!(none.headers.is_empty());

    let missing = with(&[(&*file_variable, "/nowhere/headers")]).expect_err("no such file");
    assert!(
        missing.starts_with(&format!(
            "{file_variable} is \"/nowhere/headers\"; the file cannot be read: "
        )),
        "{missing}"
    );
    let both = with(&[(&*file_variable, path), (HEADERS, text)]).expect_err("both");
    assert_eq!(
        both,
        format!("{HEADERS} is set beside {file_variable}; set one of them")
    );
    let mut flag = SettingsArgs::default();
    flag.set(HEADERS, path);
    let by_flag = |more: &[(&str, &str)]| {
        let variables = environment(&[&fixed[..], more].concat());
        Settings::load(&flag, &variables).map_err(|problems| problems.to_string())
    };
    let read = by_flag(&[]).expect("good").otlp.expect("a collector");
    assert_eq!(read.headers.len(), 2);
    assert_eq!(
        by_flag(&[(HEADERS, text)]).expect_err("both"),
        format!("{HEADERS} is set beside --otel-exporter-otlp-headers-file; set one of them")
    );
    for bad in [
        "Bearer hush",
        "=hush",
        "authorization=",
        "authori zation=hush",
        "authorization:=hush",
        "authorization=hush%2",
        "authorization=hush%zz",
        "authorization=hush%0Ahush",
        "authorization=hush%FF",
        "authorization=hüsh",
        "authorization=hush,,x=hush",
        "authorization=hush,Authorization=hush",
        "authorization=hush\nx=hush",
    ] {
        let said = with(&[(HEADERS, bad)]).expect_err(bad);
        assert!(
            said.starts_with(&format!("{HEADERS} is no list of headers; expected ")),
            "{bad}: {said}"
        );
        assert!(!said.contains("hush") && !said.contains("hüsh"), "{said}");
    }
}

#[test]
fn what_kubernetes_says_of_a_service_is_no_setting() {
    let of_kubernetes = [
        ("CLERK_AUTHZ_PORT", "tcp://10.0.0.1:50051"),
        ("CLERK_AUTHZ_SERVICE_HOST", "10.0.0.1"),
        ("CLERK_AUTHZ_SERVICE_PORT", "50051"),
        ("CLERK_AUTHZ_SERVICE_PORT_GRPC", "50051"),
        ("CLERK_AUTHZ_SERVICE_PORT_GRPC_WEB", "50051"),
        ("CLERK_AUTHZ_PORT_50051_TCP", "tcp://10.0.0.1:50051"),
        ("CLERK_AUTHZ_PORT_50051_TCP_PROTO", "tcp"),
        ("CLERK_AUTHZ_PORT_50051_TCP_PORT", "50051"),
        ("CLERK_AUTHZ_PORT_50051_TCP_ADDR", "10.0.0.1"),
        ("CLERK_AUTHZ_PORT_53_UDP_ADDR", "10.0.0.1"),
    ];
    let pk = [("CLERK_PUBLISHABLE_KEY", PK_TEST)];
    load(&[&pk[..], &of_kubernetes].concat()).expect("ignored");

    for (name, value) in [
        // The forms are these, and nothing near them.
        ("CLERK_AUTHZ_PORT", "50051"),
        ("CLERK_AUTHZ_SERVICE_PORTS", "50051"),
        ("CLERK_AUTHZ_SERVICE_PORT_", "50051"),
        ("CLERK_AUTHZ_SERVICE_PORT_GRPC", "grpc"),
        ("CLERK_AUTHZ_SERVICE_HOSTNAME", "10.0.0.1"),
        ("CLERK_AUTHZ_PORT_GRPC_TCP", "tcp://10.0.0.1:50051"),
        ("CLERK_AUTHZ_PORT_50051_TCP_HOST", "10.0.0.1"),
        ("CLERK_AUTHZ_PORT_50051", "tcp://10.0.0.1:50051"),
    ] {
        let problems = load(&[&pk[..], &[(name, value)]].concat()).expect_err(name);
        assert!(
            problems.starts_with(&format!("{name} is not a setting")),
            "{problems}"
        );
    }
}

/// Who puts an example's variables beside the service's, in one file for both, must not keep the
/// service from starting.
#[test]
fn the_examples_own_variables_are_not_refused() {
    for (file, text) in [
        ("README.md", include_str!("../../examples/README.md")),
        ("verify.py", include_str!("../../examples/python/verify.py")),
        ("app.py", include_str!("../../examples/python/app.py")),
        ("app.mjs", include_str!("../../examples/node/app.mjs")),
        (
            "clerk-authz.mjs",
            include_str!("../../examples/node/clerk-authz.mjs"),
        ),
        ("main.go", include_str!("../../examples/go/main.go")),
        (
            "App.java",
            include_str!("../../examples/java/src/main/java/example/App.java"),
        ),
        ("guide.rs", include_str!("../cli/dev/guide.rs")),
    ] {
        for (at, _) in text.match_indices("CLERK_AUTHZ_") {
            let is_of_name = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
            let name: String = text[at..].chars().take_while(|&c| is_of_name(c)).collect();
            assert!(
                VARIABLES.iter().any(|variable| variable.name == name),
                "{file} names {name}, which is no setting; call it AUTHZ_…"
            );
        }
    }
}

/// docs/settings.md and the table in variables.rs are one list.
#[test]
fn the_document_has_every_setting_with_its_flag_and_default() {
    let document = include_str!("../../docs/settings.md");
    has_a_row_for_each("docs/settings.md", document, |variable, default| {
        format!(
            "| `{}` | `--{}` | {default} |",
            variable.name, variable.flag
        )
    });
}

/// So is the table of docs/operations.md, which says when to change each.
#[test]
fn whoever_runs_it_is_told_of_every_setting_when_to_change_it() {
    let document = include_str!("../../docs/operations.md");
    has_a_row_for_each("docs/operations.md", document, |variable, default| {
        format!("| `{}` | {default} | ", variable.name)
    });
}

fn has_a_row_for_each(
    name: &str,
    document: &str,
    row: impl Fn(&crate::settings::Variable, &str) -> String,
) {
    for variable in VARIABLES {
        let default = variable
            .default
            .map_or("–".to_owned(), |text| format!("`{text}`"));
        let row = row(variable, &default);
        assert!(document.contains(&row), "{name} lacks the row {row}");
    }
    let rows = document
        .lines()
        .filter(|line| line.starts_with("| `CLERK_") || line.starts_with("| `OTEL_"))
        .count();
    assert_eq!(rows, VARIABLES.len(), "{name} has a setting that is none");
}

proptest! {
    #[test]
    fn reading_never_panics(
        name in prop::sample::select(VARIABLES.iter().map(|v| v.name).collect::<Vec<_>>()),
        value in ".{0,60}",
    ) {
        let _ = load(&[("CLERK_PUBLISHABLE_KEY", PK_TEST), (name, &value)]);
    }
}

#[test]
fn the_handshake_says_what_it_needs() {
    const KEY: (&str, &str) = ("CLERK_PUBLISHABLE_KEY", "pk_test_Y2xlcmsuY2xlcmsuZGV2JA");
    const SECRET: (&str, &str) = ("CLERK_SECRET_KEY", "sk_test_x");
    const PARTIES: (&str, &str) = ("CLERK_AUTHORIZED_PARTIES", "https://app.example.com");
    const POLICY: (&str, &str) = ("CLERK_AUTHZ_POLICY", "policy.yaml");
    const ON: (&str, &str) = ("CLERK_AUTHZ_HANDSHAKE", "on");

    let all = load(&[KEY, SECRET, PARTIES, POLICY, ON]).expect("good");
    assert!(all.handshake);
    assert!(!load(&[KEY]).expect("good").handshake, "off by default");

    for (given, expected) in [
        (
            &[KEY, SECRET, PARTIES, ON][..],
            "is on without CLERK_AUTHZ_POLICY",
        ),
        (
            &[KEY, SECRET, POLICY, ON],
            "needs CLERK_AUTHORIZED_PARTIES:",
        ),
        (&[KEY, PARTIES, POLICY, ON], "needs CLERK_SECRET_KEY:"),
        (
            &[KEY, POLICY, ON],
            "needs CLERK_SECRET_KEY and CLERK_AUTHORIZED_PARTIES:",
        ),
        (
            &[
                ("CLERK_AUTHZ_ISSUER", "https://clerk.example.com"),
                SECRET,
                PARTIES,
                POLICY,
                ON,
            ],
            "needs CLERK_PUBLISHABLE_KEY:",
        ),
        (
            &[KEY, ("CLERK_AUTHZ_HANDSHAKE", "yes")],
            "expected \"on\" or \"off\"",
        ),
    ] {
        let said = load(given).expect_err(expected);
        assert!(said.contains("CLERK_AUTHZ_HANDSHAKE"), "{said}");
        assert!(said.contains(expected), "{said}");
    }

    let entry = |name: &str, more: &str| {
        format!(
            "[[instance]]\nname = \"{name}\"\npublishable_key = \"{}\"\n{more}\n",
            if name == "a" {
                KEY.1
            } else {
                "pk_live_Y2xlcmsuZXhhbXBsZS5jb20k"
            }
        )
    };
    let secret = file("sk_test_x");
    let whole = format!(
        "secret_key_file = {:?}\nauthorized_parties = [\"https://app.example.com\"]",
        secret.path()
    );
    for (text, is_good) in [
        (entry("a", "") + &entry("b", ""), false),
        (entry("a", &whole) + &entry("b", ""), true),
    ] {
        let instances = file(&text);
        let path = instances.path().to_str().expect("text").to_owned();
        let loaded = load(&[("CLERK_AUTHZ_INSTANCES", &path), POLICY, ON]);
        assert_eq!(loaded.is_ok(), is_good, "{text}");
        if let Err(said) = loaded {
            assert!(said.contains("of instance \"a\", or of another"), "{said}");
        }
    }
}
