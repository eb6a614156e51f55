//! Any text as a token: parsed, hinted at, and read as if its signature had held.
#![no_main]

use clerk_authz::{explain::{Rule, Steps}, identity::{TokenType, TokenTypes}, token};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let _ = token::hint(text);
    if let Ok(token) = token::parse(text, &mut Steps::on(Rule::OF_VERIFICATION)) {
        let parts = token.signature_parts(text);
        assert!(parts.signing_input.len() < text.len());
        let all: TokenTypes = TokenType::ALL.into_iter().collect();
        let _ = token.into_said(all, &mut Steps::on(Rule::OF_VERIFICATION));
        // No JWT has the prefix of an opaque token.
        assert_eq!(token::opaque_type(text), None);
    }
});
