//! `cargo xtask fuzz`: libFuzzer looks for what a hostile guest could do to a device.
//!
//! Everything is made by the stable compiler, whose code says by itself where it comes along; libFuzzer comes with its crate and needs
//! a C++ compiler. What it finds out about inputs stays in `target/fuzz/corpus` for the next run.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;

use crate::paths;

/// What libFuzzer reads: counters for each edge, and where comparisons differ.
const COVERAGE: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares -Cdebug-assertions -Coverflow-checks -Ccodegen-units=1";

/// Let libFuzzer look for inputs that break a device
#[derive(Args, Debug)]
pub struct Options {
    /// What to fuzz, as `block`; every target, one after the other, if none is named
    targets: Vec<String>,
    /// How long, each
    #[arg(long, default_value_t = 10)]
    minutes: u64,
    /// Processes that share what they find out
    #[arg(long, default_value_t = 1)]
    jobs: u64,
}

/// Fuzzes. The first finding is an error that names the input.
pub fn run(options: &Options) -> Result<()> {
    let directory = paths::root().join("target/fuzz");
    let triple = host_triple()?;
    let mut build = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    build.current_dir(paths::root()).args(["build", "--release", "--package", "cede-fuzz"]);
    // With a target, only what runs in it has the counters, and no build script.
    build.args(["--features", "libfuzzer", "--bin", "libfuzzer", "--target", &triple]);
    build.env("RUSTFLAGS", COVERAGE).env("CARGO_TARGET_DIR", &directory);
    build.env("CARGO_PROFILE_RELEASE_LTO", "off").env("CARGO_PROFILE_RELEASE_STRIP", "none");
    ensure!(build.status().context("cannot run cargo")?.success(), "the targets do not build");

    let program = directory.join(triple).join("release/libfuzzer");
    let known = names(&program)?;
    if let Some(unknown) = options.targets.iter().find(|name| !known.contains(name)) {
        bail!("{unknown} is no target; there are {}", known.join(", "));
    }
    for name in if options.targets.is_empty() { &known } else { &options.targets } {
        let corpus = directory.join("corpus").join(name);
        std::fs::create_dir_all(&corpus).context("no room for the corpus")?;
        let mut command = Command::new(&program);
        command.env("CEDE_FUZZ_TARGET", name).current_dir(&directory).arg(&corpus);
        command.arg(format!("-max_total_time={}", options.minutes * 60));
        command.arg(format!("-artifact_prefix={}/{name}-", directory.display()));
        command.args(["-max_len=4096", "-timeout=20", "-print_final_stats=1"]);
        if options.jobs > 1 {
            command.arg(format!("-fork={}", options.jobs));
        }
        let status = command.status().with_context(|| format!("cannot run {}", program.display()))?;
        ensure!(status.success(), "{name}: libFuzzer found something; the last lines name the input");
    }
    Ok(())
}

/// Without a target's name the program says which there are.
fn names(program: &Path) -> Result<Vec<String>> {
    let output = Command::new(program).env_remove("CEDE_FUZZ_TARGET").output();
    let output = output.with_context(|| format!("cannot run {}", program.display()))?;
    Ok(String::from_utf8_lossy(&output.stdout).split_whitespace().map(str::to_owned).collect())
}

fn host_triple() -> Result<String> {
    let output = Command::new("rustc").arg("-vV").output().context("cannot run rustc")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let triple = text.lines().find_map(|line| line.strip_prefix("host: "));
    triple.map(str::to_owned).context("rustc does not say what machine this is")
}
