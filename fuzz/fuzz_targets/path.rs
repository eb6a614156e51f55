//! Any bytes as a request target and as an authority: whatever is accepted is the same again in its
//! canonical text, and leads nowhere else in any reading.
#![no_main]

use clerk_authz::policy::{Host, Path};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(host) = Host::parse(bytes) {
        assert_eq!(Host::parse(host.as_str().as_bytes()).as_ref(), Ok(&host));
        assert!(host.labels().all(|label| !label.is_empty()));
    }
    let path = match Path::parse(bytes) {
        Ok(path) => path,
        Err(refused) => {
            assert!(!refused.ambiguities().iter().all(|each| each.can_be_permitted()));
            assert!(refused.text().bytes().all(|byte| byte.is_ascii_graphic()));
            return;
        }
    };
    let text = path.text();
    let again = Path::parse(text.as_bytes()).expect("it was a path");
    assert_eq!(again.text(), text);
    assert!(again.segments().eq(path.segments()));
    assert_eq!(again.ambiguities(), path.ambiguities());
    assert!(path.ambiguities().iter().all(|each| each.can_be_permitted()));
    check(path.segments());
    let mut others = 0;
    for other in path.other_readings() {
        check(other.segments());
        others += 1;
    }
    assert_eq!(others == 0, path.ambiguities().is_empty());
});

fn check<'a>(segments: impl Iterator<Item = &'a str>) {
    for (index, segment) in segments.enumerate() {
        assert!(!matches!(segment, "." | ".."));
        assert!(!segment.contains(['/', '\\']) && !segment.chars().any(char::is_control));
        assert!(index > 0 || !segment.is_empty(), "a path that begins with two slashes");
    }
}
