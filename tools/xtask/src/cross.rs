//! Building for powerpc64le: `cede` and whatever else runs in the lab or on a POWER server.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::lab::fetch;
use crate::paths;

/// Rust's name of the target.
pub const TARGET: &str = "powerpc64le-unknown-linux-gnu";

/// A cargo that builds for POWER, without a subcommand yet. Its target directory is its own: another compiler
/// in the native one would rebuild everything at each turn.
pub fn cargo() -> Result<Command> {
    let image = fetch::image()?;
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command
        // Debian's, the minimum version, whatever else this machine has: what it builds, every later one does.
        .env("RUSTC", image.program("rustc"))
        .env_remove("RUSTUP_TOOLCHAIN")
        .current_dir(paths::root())
        .env("CARGO_TARGET_POWERPC64LE_UNKNOWN_LINUX_GNU_LINKER", image.program("powerpc64le-linux-gnu-gcc"))
        .env("CARGO_BUILD_TARGET", TARGET)
        .env("CARGO_TARGET_DIR", target_dir())
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .env_remove("RUSTC_WRAPPER")
        .env_remove("RUSTC_WORKSPACE_WRAPPER");
    Ok(command)
}

/// The C compiler for powerpc64le (with `-mbig -nostdlib` for big-endian payloads too).
pub fn gcc() -> Result<Command> {
    Ok(Command::new(fetch::image()?.program("powerpc64le-linux-gnu-gcc")))
}

/// Where the cross-built `cede` is, once it is built.
pub fn cede_path() -> PathBuf {
    target_dir().join(TARGET).join("release/cede")
}

/// Builds `cede`, one static binary, and tells where it is.
pub fn build_cede() -> Result<PathBuf> {
    build("cede")?;
    Ok(cede_path())
}

/// Builds the static binary of a package that has its name, and tells where it is.
pub fn build(package: &str) -> Result<PathBuf> {
    let status = cargo()?
        .args(["build", "--quiet", "--release", "--package", package])
        .status()
        .context("cannot run cargo")?;
    ensure!(status.success(), "{package} does not build for {TARGET}");
    Ok(target_dir().join(TARGET).join("release").join(package))
}

/// Builds an example of a package, and tells where it is.
pub fn build_example(package: &str, example: &str) -> Result<PathBuf> {
    let status = cargo()?
        .args(["build", "--quiet", "--release", "--package", package, "--example", example])
        .status()
        .context("cannot run cargo")?;
    ensure!(status.success(), "the example {example} of {package} does not build for {TARGET}");
    Ok(target_dir().join(TARGET).join("release/examples").join(example))
}

fn target_dir() -> PathBuf {
    paths::root().join("target/cross")
}
