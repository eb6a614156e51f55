//! Any bytes as the payload of a token whose header is good.
#![no_main]

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use clerk_authz::{explain::Steps, token};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|payload: &[u8]| {
    let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"RS256","kid":"ins_1"}"#);
    let text = format!("{header}.{}.AA", URL_SAFE_NO_PAD.encode(payload));
    let Ok(token) = token::parse(&text, &mut Steps::off()) else { return };
    if let Ok(claimed) = token.into_claimed(&mut Steps::off()) {
        // Whatever is accepted has ids of Clerk's form and times that can be written.
        assert!(claimed.session.user_id.as_str().starts_with("user_"));
        assert!(claimed.session.session_id.as_str().starts_with("sess_"));
        assert!(claimed.session.expires_at.unix_seconds() <= 253_402_300_799);
    }
});
