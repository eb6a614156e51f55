//! Compiles the protos to Rust with a compiler that is itself a Rust crate, so that a fresh machine
//! needs no `protoc`; and says what is being built, for `--version`.

use std::{
    env,
    error::Error,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use prost::Message;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let descriptors = protox::compile(["clerkauthz/v1/authz_service.proto"], ["proto"])?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("clerkauthz.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure()
        .build_client(true)
        .extern_path(".google.rpc", "::tonic_types::pb")
        .compile_fds(descriptors)?;

    let compiler = answer(&env::var("RUSTC")?, &["--version"]);
    tell("BUILD_COMPILER", compiler.as_deref());
    tell("BUILD_TARGET", env::var("TARGET").ok().as_deref());
    tell("BUILD_REVISION", revision().as_deref());
    Ok(())
}

/// The commit: as whoever builds says it (`GIT_REVISION`, for builds without the repository), as it
/// stands in a package of the registry, or of the repository itself. Of a release only: a build for
/// development would be made anew at each commit.
fn revision() -> Option<String> {
    println!("cargo:rerun-if-env-changed=GIT_REVISION");
    let given = env::var("GIT_REVISION")
        .ok()
        .filter(|text| !text.is_empty());
    given.or_else(packaged).or_else(|| {
        let is_release = env::var("PROFILE").is_ok_and(|profile| profile == "release");
        is_release.then(committed).flatten()
    })
}

/// Of the file that `cargo package` writes.
fn packaged() -> Option<String> {
    let text = fs::read_to_string(".cargo_vcs_info.json").ok()?;
    let (_, rest) = text.split_once("\"sha1\"")?;
    Some(rest.split('"').nth(1)?.to_owned())
}

/// Of the repository, with `-dirty` where something is not committed.
fn committed() -> Option<String> {
    let log = answer("git", &["rev-parse", "--git-path", "logs/HEAD"])?;
    if Path::new(&log).exists() {
        println!("cargo:rerun-if-changed={log}");
    }
    for sources in ["src", "Cargo.toml", "Cargo.lock", "build.rs"] {
        println!("cargo:rerun-if-changed={sources}");
    }
    let no_tag = ["--always", "--dirty", "--abbrev=40", "--exclude=*"];
    answer("git", &[&["describe"], &no_tag[..]].concat())
}

/// What a program prints, if it ends well and prints something.
fn answer(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (output.status.success() && !text.is_empty()).then_some(text)
}

fn tell(name: &str, value: Option<&str>) {
    println!("cargo:rustc-env={name}={}", value.unwrap_or("unknown"));
}
