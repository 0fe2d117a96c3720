//! `cargo xtask test`: everything that has to hold, cheapest first, stopping at the first step that fails.

use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, ensure};

use crate::lab::fetch;
use crate::{cross, paths};

/// One step: what it proves, and how.
struct Step {
    name: &'static str,
    command: fn() -> Result<Command>,
    /// It boots hosts in the lab.
    lab: bool,
}

const fn step(name: &'static str, command: fn() -> Result<Command>) -> Step {
    Step { name, command, lab: false }
}

/// All steps, in their order.
const STEPS: &[Step] = &[
    step("format", || Ok(cargo(&["fmt", "--all", "--check"]))),
    step("clippy", || Ok(cargo(&["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]))),
    step("unit tests", unit_tests),
    step("documentation", documentation),
    step("model check", model_check),
    step("cross build for POWER, with the minimum Rust", || {
        let mut cargo = cross::cargo()?;
        cargo.args(["build", "--release", "--package", "cede"]);
        Ok(cargo)
    }),
    Step { name: "guests in the lab", command: scenarios, lab: true },
];

/// Runs the steps; without the lab's if `quick`.
pub fn run(quick: bool) -> Result<()> {
    let begin = Instant::now();
    let steps: Vec<&Step> = STEPS.iter().filter(|step| !(quick && step.lab)).collect();
    for (n, step) in steps.iter().enumerate() {
        eprintln!("\n== {}/{} {}", n + 1, steps.len(), step.name);
        let begin = Instant::now();
        let mut command = (step.command)()?;
        let program = command.get_program().to_string_lossy().into_owned();
        let status = command.status().with_context(|| format!("cannot run {program}"))?;
        ensure!(status.success(), "{}: failed ({status})", step.name);
        eprintln!("== {} done in {} s", step.name, begin.elapsed().as_secs());
    }
    eprintln!("\nall {} steps passed in {} s", steps.len(), begin.elapsed().as_secs());
    Ok(())
}

fn cargo(arguments: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(paths::root()).args(arguments);
    command
}

/// The bindings are compared with the headers that the lab brings, by its compiler.
fn unit_tests() -> Result<Command> {
    let image = fetch::image()?;
    let mut command = cargo(&["test", "--workspace"]);
    command.env("CEDE_PPC64_CC", image.program("powerpc64le-linux-gnu-gcc"));
    command.env("CEDE_PPC64_UAPI", image.uapi());
    Ok(command)
}

fn documentation() -> Result<Command> {
    let mut command = cargo(&["doc", "--workspace", "--no-deps", "--document-private-items", "--quiet"]);
    command.env("RUSTDOCFLAGS", "-D warnings -A rustdoc::private-intra-doc-links");
    Ok(command)
}

/// loom replaces the atomics by a `cfg`, which would rebuild everything at each turn in the usual target directory.
fn model_check() -> Result<Command> {
    let packages = ["--package", "cede-vcore", "--package", "cede-irq", "--package", "cede-arch-ppc64"];
    let mut command = cargo(&["test", "--release"]);
    command.args(packages).args(["--test", "loom"]);
    command.env("RUSTFLAGS", "--cfg loom").env("CARGO_TARGET_DIR", paths::root().join("target/loom"));
    Ok(command)
}

fn scenarios() -> Result<Command> {
    Ok(cargo(&["test", "--package", "cede-tests", "--test", "lab"]))
}
