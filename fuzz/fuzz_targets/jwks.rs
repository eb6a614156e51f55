//! Any bytes as a key-set document.
#![no_main]

use clerk_authz::keys::KeySet;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|document: &[u8]| {
    if let Ok(keys) = KeySet::parse(document) {
        assert!(!keys.is_empty());
    }
});
