//! Project tasks: `cargo xtask --help`.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use xtask::{bench, cross, demo, fuzz, idle, lab, test};

/// Tasks of the project
#[derive(Parser, Debug)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand, Debug)]
enum Task {
    /// Build cede for POWER: one static binary
    #[command(alias = "cross")]
    Build,
    /// Boot a Debian guest under cede: right here on POWER, else on an emulated POWER host
    Demo {
        /// The emulated host's kind
        #[arg(long, value_enum, default_value = "powernv9")]
        host: lab::Host,
    },
    /// Run every check: format, lints, unit tests, model checks, and guests in the lab
    Test {
        /// Leave out what boots hosts in the lab
        #[arg(long)]
        quick: bool,
    },
    /// Run the payload `idle` under QEMU's own hypervisor, QEMU/KVM and both planes of cede, and compare
    Idle(idle::Options),
    Fuzz(fuzz::Options),
    #[command(subcommand)]
    Lab(lab::cli::Lab),
    #[command(subcommand)]
    Bench(bench::Bench),
}

fn main() -> ExitCode {
    let result = match Cli::parse().task {
        Task::Build => cross::build_cede().map(|path| {
            println!("{}", path.display());
            ExitCode::SUCCESS
        }),
        Task::Demo { host } => demo::run(host),
        Task::Test { quick } => test::run(quick).map(|()| ExitCode::SUCCESS),
        Task::Idle(options) => idle::run(&options),
        Task::Fuzz(options) => fuzz::run(&options).map(|()| ExitCode::SUCCESS),
        Task::Lab(lab) => lab::cli::main(lab),
        Task::Bench(bench) => bench::main(bench),
    };
    result.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::from(125)
    })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
