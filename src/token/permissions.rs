//! Features × masks → permissions, as Clerk's SDK decodes a version-2 token
//! (`@clerk/shared`, `jwtPayloadParser.ts`).

use crate::identity::{Scope, ScopedSlug, ScopedSlugs, Texts, TextsBuilder};

/// Splits `fea` or `pla` into its elements; `None` when an element has no scope.
///
/// A feature of both scopes (`ou:`, `uo:`) stands twice, the organization's first. A scope that we
/// do not know puts the element in neither list, as in the SDK.
pub(super) fn scoped_slugs(list: &str) -> Option<ScopedSlugs> {
    if list.is_empty() {
        return Some(ScopedSlugs::default());
    }
    let mut slugs = Vec::with_capacity(list.bytes().filter(|&b| b == b',').count() + 1);
    for element in list.split(',') {
        let (scope, slug) = trim(element).split_once(':')?;
        if scope.contains('o') && is_scope(scope) {
            slugs.push(ScopedSlug {
                scope: Scope::Organization,
                slug,
            });
        }
        if scope.contains('u') && is_scope(scope) {
            slugs.push(ScopedSlug {
                scope: Scope::User,
                slug,
            });
        }
    }
    Some(slugs.into_iter().collect())
}

fn is_scope(scope: &str) -> bool {
    matches!(scope, "o" | "u" | "ou" | "uo")
}

/// Whether a feature of the user alone stands before one of the organization.
pub(super) fn user_before_organization(features: &ScopedSlugs) -> bool {
    // The second entry of a feature of both scopes follows its own first entry, so it is skipped
    // only when the feature before it is the same.
    let (mut user_seen, mut before) = (false, None::<ScopedSlug<'_>>);
    for feature in features.iter() {
        match feature.scope {
            Scope::Organization if user_seen => return true,
            Scope::Organization => {}
            Scope::User => {
                let of_both = before.is_some_and(|before| {
                    before.scope == Scope::Organization && before.slug == feature.slug
                });
                user_seen |= !of_both;
            }
        }
        before = Some(feature);
    }
    false
}

/// The permissions `org:<feature>:<name>`.
///
/// Bit `j` of the `i`-th mask grants the `j`-th name for the `i`-th feature **of the organization**.
/// Clerk counts positions over organization features only; its documentation counts all
/// (docs/differences.md). A mask that is not a decimal number grants nothing and keeps its place.
pub(super) fn decode(features: &ScopedSlugs, names: &str, masks: &str) -> Texts {
    if names.is_empty() || masks.is_empty() {
        return Texts::default();
    }
    let names: Vec<&str> = names.split(',').map(trim).collect();
    let organization = features
        .iter()
        .filter(|feature| feature.scope == Scope::Organization);
    let mut permissions = TextsBuilder::default();
    for (feature, mask) in organization.zip(masks.split(',').map(trim)) {
        let bits = Bits::from_decimal(mask, names.len());
        for (position, name) in names.iter().enumerate() {
            if bits.is_set(position) {
                permissions.push(&["org:", feature.slug, ":", name]);
            }
        }
    }
    permissions.finish()
}

/// The low bits of a decimal number of any length.
struct Bits(Vec<u32>);

impl Bits {
    /// The lowest `width` bits (rounded up to whole limbs) of `text`; none when it is not a decimal
    /// number. Higher bits are dropped as they arise, so the cost is bounded by
    /// digits × width.
    fn from_decimal(text: &str, width: usize) -> Self {
        if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
            return Self(Vec::new());
        }
        let mut limbs = vec![0_u32; width.div_ceil(32)];
        // Nine decimal digits at a time fit a limb.
        for chunk in text.as_bytes().chunks(9) {
            let (mut carry, mut scale) = (0_u64, 1_u64);
            for digit in chunk {
                carry = carry * 10 + u64::from(digit - b'0');
                scale *= 10;
            }
            for limb in &mut limbs {
                let value = u64::from(*limb) * scale + carry;
                *limb = value as u32;
                carry = value >> 32;
            }
        }
        Self(limbs)
    }

    fn is_set(&self, position: usize) -> bool {
        self.0
            .get(position / 32)
            .is_some_and(|limb| limb >> (position % 32) & 1 == 1)
    }
}

/// What JavaScript's `trim` removes: Unicode white space and the byte-order mark, but not NEL.
fn trim(text: &str) -> &str {
    text.trim_matches(|c: char| (c.is_whitespace() && c != '\u{85}') || c == '\u{feff}')
}

#[cfg(test)]
mod tests {
    use num_bigint::BigUint;
    use proptest::prelude::*;

    use super::*;

    fn permissions(features: &str, names: &str, masks: &str) -> Vec<String> {
        let features = scoped_slugs(features).expect("well-formed");
        decode(&features, names, masks)
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    #[test]
    fn masks_grant_as_the_sdk_does() {
        // The vectors were computed with Clerk's SDK.
        for (features, names, masks, expected) in [
            (
                "o:invoices,o:reports",
                "create,read,export",
                "5,6",
                "org:invoices:create org:invoices:export org:reports:read org:reports:export",
            ),
            (
                "o:invoices,uo:reports,o:audit,u:beta",
                "read,manage,purge",
                "1,,12",
                "org:invoices:read org:audit:purge",
            ),
            (
                "u:beta,o:invoices,o:reports",
                "read,manage",
                "3,1",
                "org:invoices:read org:invoices:manage org:reports:read",
            ),
            (
                "u:beta,o:invoices,o:reports",
                "read,manage",
                "0,3,1",
                "org:reports:read org:reports:manage",
            ),
            ("o:a,o:b", "x", "1", "org:a:x"),
            ("o:a", "x", "1,1", "org:a:x"),
            ("o:a", "x", "-1", ""),
            ("o:a", "x", "0x1", ""),
            ("o:a", "x", "1.5", ""),
            ("o:a", "x", "007", "org:a:x"),
            ("o:a", "", "1", ""),
        ] {
            assert_eq!(
                permissions(features, names, masks).join(" "),
                expected,
                "{features} {masks}"
            );
        }
    }

    #[test]
    fn a_mask_above_2_to_the_53_is_exact() {
        let names: Vec<String> = (0..54).map(|i| format!("p{i}")).collect();
        assert_eq!(
            permissions("o:big", &names.join(","), "9007199254740993"),
            ["org:big:p0", "org:big:p53"]
        );
        assert!(permissions("o:big", &names.join(","), "18014398509481984").is_empty());
    }

    #[test]
    fn an_element_without_a_scope_is_refused() {
        for bad in ["a", "o:a,", ",o:a", "o:a,b"] {
            assert!(scoped_slugs(bad).is_none(), "{bad}");
        }
        assert_eq!(
            scoped_slugs("x:a")
                .expect("an unknown scope is in neither list")
                .len(),
            0
        );
        assert_eq!(scoped_slugs("ou:a").expect("both").len(), 2);
    }

    #[test]
    fn user_features_before_organization_features_are_noticed() {
        for (features, expected) in [
            ("o:a,u:b", false),
            ("u:b,o:a", true),
            ("uo:a,o:b", false),
            ("ou:a,u:b,o:c", true),
            ("u:a", false),
        ] {
            let features = scoped_slugs(features).expect("well-formed");
            assert_eq!(
                user_before_organization(&features),
                expected,
                "{features:?}"
            );
        }
    }

    proptest! {
        #[test]
        fn masks_of_any_length_equal_a_big_integer(
            digits in "[0-9]{1,120}",
            width in 1_usize..400,
        ) {
            let number: BigUint = digits.parse().expect("digits");
            let bits = Bits::from_decimal(&digits, width);
            for position in 0..width {
                prop_assert_eq!(bits.is_set(position), number.bit(position as u64));
            }
        }

        #[test]
        fn decoding_never_panics(features in ".*", names in ".*", masks in ".*") {
            if let Some(features) = scoped_slugs(&features) {
                decode(&features, &names, &masks);
            }
        }
    }
}
