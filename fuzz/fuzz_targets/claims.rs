//! Any bytes as the payload of a token whose header is good.
#![no_main]

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use clerk_authz::{
    explain::Steps,
    identity::{Machine, MachineSubject, MachineType, TokenType, TokenTypes},
    token::{self, Said},
};
use libfuzzer_sys::fuzz_target;

const LAST_SECOND: i64 = 253_402_300_799;

fn is_well_formed(machine: &Machine) {
    match &machine.subject {
        MachineSubject::Machine(id) => assert!(id.starts_with("mch_")),
        MachineSubject::User(id) => assert!(id.as_str().starts_with("user_")),
        MachineSubject::Organization(_) => panic!("no JWT stands for an organization"),
    }
    let expires_at = machine.expires_at.expect("a JWT says when it expires");
    assert!(expires_at.unix_seconds() <= LAST_SECOND);
    assert!(machine.scopes.iter().all(|scope| !scope.is_empty()));
}

fuzz_target!(|payload: &[u8]| {
    let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"RS256","kid":"ins_1"}"#);
    let text = format!("{header}.{}.AA", URL_SAFE_NO_PAD.encode(payload));
    let Ok(token) = token::parse(&text, &mut Steps::off()) else { return };
    let all: TokenTypes = TokenType::ALL.into_iter().collect();
    // Whatever is accepted has ids of Clerk's form and times that can be written.
    match token.into_said(all, &mut Steps::off()) {
        Ok(Said::Session(claimed)) => {
            assert!(claimed.session.user_id.as_str().starts_with("user_"));
            assert!(claimed.session.session_id.as_str().starts_with("sess_"));
            assert!(claimed.session.expires_at.unix_seconds() <= LAST_SECOND);
        }
        Ok(Said::Machine(machine)) => {
            // The header says nothing of OAuth here.
            assert_eq!(machine.machine_type, MachineType::M2m);
            is_well_formed(&machine);
        }
        Err(_) => {}
    }
    // The same claims in a token of an OAuth client.
    let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"RS256","kid":"ins_1","typ":"at+jwt"}"#);
    let text = format!("{header}.{}.AA", URL_SAFE_NO_PAD.encode(payload));
    let Ok(token) = token::parse(&text, &mut Steps::off()) else { return };
    match token.into_said(all, &mut Steps::off()) {
        Ok(Said::Session(_)) => panic!("its header says that it is none"),
        Ok(Said::Machine(machine)) => {
            assert_eq!(machine.machine_type, MachineType::Oauth);
            is_well_formed(&machine);
        }
        Err(_) => {}
    }
});
