//! What `clerk-authz --version` says of the build. No date is in it, so that a build can be repeated
//! to the byte.

macro_rules! build {
    ($emulator:literal) => {
        concat!(
            env!("CARGO_PKG_VERSION"),
            "\nrevision: ",
            env!("BUILD_REVISION"),
            "\ncompiler: ",
            env!("BUILD_COMPILER"),
            "\ntarget: ",
            env!("BUILD_TARGET"),
            "\nemulator: ",
            $emulator,
        )
    };
}

/// The package's version, and from what and by what it was built.
#[cfg(feature = "emulator")]
pub(super) const BUILD: &str = build!("yes");
/// The package's version, and from what and by what it was built.
#[cfg(not(feature = "emulator"))]
pub(super) const BUILD: &str = build!("no");
