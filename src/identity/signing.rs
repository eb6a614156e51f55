//! What signs tokens and assertions.

use std::fmt;

/// An algorithm of a signature (RFC 7518 §3.1). There is no other here: neither `none`, nor one whose
/// key both sides have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SigningAlgorithm {
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    Rs256,
    /// ECDSA with P-256 and SHA-256.
    Es256,
}

impl SigningAlgorithm {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Rs256, Self::Es256];

    /// As `alg` has it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Rs256 => "RS256",
            Self::Es256 => "ES256",
        }
    }

    /// By its name, exactly.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|each| each.name() == name)
    }
}

impl fmt::Display for SigningAlgorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Some of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SigningAlgorithms(u8);

impl SigningAlgorithms {
    /// That of Clerk's tokens.
    pub const CLERKS: Self = Self::only(SigningAlgorithm::Rs256);

    /// This one.
    pub const fn only(algorithm: SigningAlgorithm) -> Self {
        Self(1 << algorithm as u8)
    }

    /// Whether it is one of them.
    pub const fn has(self, algorithm: SigningAlgorithm) -> bool {
        self.0 & (1 << algorithm as u8) != 0
    }

    /// Whether there is none.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

impl FromIterator<SigningAlgorithm> for SigningAlgorithms {
    fn from_iter<T: IntoIterator<Item = SigningAlgorithm>>(algorithms: T) -> Self {
        let bits = algorithms.into_iter();
        Self(bits.fold(0, |set, algorithm| set | 1 << algorithm as u8))
    }
}

impl fmt::Display for SigningAlgorithms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = SigningAlgorithm::ALL.into_iter();
        let names = names.filter(|each| self.has(*each));
        let names: Vec<_> = names.map(SigningAlgorithm::name).collect();
        f.write_str(&names.join(" or "))
    }
}
