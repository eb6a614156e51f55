use super::*;

fn environment(variables: &[(&str, &str)]) -> EnvironmentVariables {
    variables
        .iter()
        .map(|(name, value)| ((*name).to_owned(), value.into()))
        .collect()
}

#[test]
fn only_a_key_that_is_not_the_offline_clerks_is_for_the_real_one() {
    const KEY: &str = "CLERK_SECRET_KEY";
    const FILE: &str = "CLERK_SECRET_KEY_FILE";
    let mut args = SettingsArgs::default();
    for (variables, real) in [
        (&[][..], false),
        (&[(KEY, "")], false),
        // What `dev` says to export.
        (&[(KEY, "sk_test_emulatordefault")], false),
        (&[(KEY, " sk_test_emulatordefault\n")], false),
        (&[(KEY, "sk_test_2abcdefghijk")], true),
        (&[(KEY, "sk_live_emulatordefault")], false),
        (&[(KEY, "sk_live_2abcdefghijk")], true),
        (&[(FILE, "/run/secrets/clerk")], true),
    ] {
        let found = is_for_the_real_clerk(&args, &environment(variables));
        assert_eq!(found, real, "{variables:?}");
    }

    args.set(KEY, "/run/secrets/clerk");
    assert!(is_for_the_real_clerk(&args, &environment(&[])));
}
