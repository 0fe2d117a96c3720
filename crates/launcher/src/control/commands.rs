//! The commands that steer a running VM.

use super::client::{Client, ClientError, list};
use super::protocol::{Command, Paused, Stat, Tuned};
use super::{bases, show};
use crate::cli::{BalloonSize, VmRef};
use crate::config::TunableChanges;
use crate::exit_code::Outcome;
use crate::report;
use serde_json::Value;
use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::thread;
use std::time::Duration;

/// `cede set`.
#[must_use]
pub fn set(vm: &VmRef, changes: &[TunableChanges]) -> Outcome {
    // A later one wins.
    let changes = changes.iter().fold(TunableChanges::default(), |all, next| next.or(all));
    let tunables = changes.said().map(|(name, value)| (name.to_owned(), value.into())).collect();
    tuned(vm, &Command::Set { tunables })
}

/// `cede reload`.
#[must_use]
pub fn reload(vm: &VmRef) -> Outcome {
    tuned(vm, &Command::Reload)
}

fn tuned(vm: &VmRef, command: &Command) -> Outcome {
    finish(client(vm).ask(command).map(|Tuned { tunables, notes }| {
        notes.iter().for_each(|note| eprintln!("cede: {note}"));
        show::tunables(tunables.as_ref())
    }))
}

/// `cede pause`.
#[must_use]
pub fn pause(vm: &VmRef) -> Outcome {
    paused(vm, &Command::Pause)
}

/// `cede resume`.
#[must_use]
pub fn resume(vm: &VmRef) -> Outcome {
    paused(vm, &Command::Resume)
}

fn paused(vm: &VmRef, command: &Command) -> Outcome {
    let state = |Paused { paused }| if paused { "paused" } else { "running" }.to_owned();
    finish(client(vm).ask(command).map(state))
}

/// `cede balloon`.
#[must_use]
pub fn balloon(vm: &VmRef, size: Option<BalloonSize>) -> Outcome {
    let command = Command::Balloon { bytes: size.map(|BalloonSize(bytes)| bytes) };
    finish(client(vm).ask(&command).map(|given| show::balloon(&given)))
}

/// `cede list`.
#[must_use]
pub fn running(run_dir: Option<&Path>, json: bool) -> Outcome {
    let infos = list(&bases(run_dir));
    if json {
        return match serde_json::to_string_pretty(&infos) {
            Ok(text) => print(&text),
            Err(error) => report::failure(Outcome::Internal, &error),
        };
    }
    if infos.is_empty() {
        eprintln!("cede: no VM of this user runs");
        return Outcome::Success;
    }
    print(&show::list(&infos))
}

/// `cede stat` without `--watch`.
#[must_use]
pub fn stat(vm: &VmRef, json: bool) -> Outcome {
    let client = client(vm);
    if json {
        return finish(client.ask(&Command::Stat).map(|stat: Value| stat.to_string()));
    }
    finish(client.ask(&Command::Stat).map(|stat: Stat| show::totals(&stat)))
}

/// `cede stat --watch`: until the VM ends, or the reader does.
#[must_use]
pub fn watch(vm: &VmRef, json: bool, interval: Duration) -> Outcome {
    let client = client(vm);
    let ended = if json { watch_json(&client, interval) } else { watch_rates(&client, interval) };
    match ended {
        Watched::Asked(ClientError::NoVm { .. } | ClientError::NoSocket { .. }) => {
            eprintln!("cede: the VM has ended");
            Outcome::Success
        }
        Watched::Asked(error) | Watched::NotFound(error) => report::failure(error.outcome(), &error),
        Watched::Reader(error) if error.kind() == io::ErrorKind::BrokenPipe => Outcome::Success,
        Watched::Reader(error) => report::failure(Outcome::Internal, &error),
    }
}

/// Why watching ended.
enum Watched {
    /// There was nothing to watch.
    NotFound(ClientError),
    /// The VM did not answer again.
    Asked(ClientError),
    /// Nobody reads any more.
    Reader(io::Error),
}

fn watch_json(client: &Client, interval: Duration) -> Watched {
    let mut stat: Value = match client.ask(&Command::Stat) {
        Ok(stat) => stat,
        Err(error) => return Watched::NotFound(error),
    };
    loop {
        if let Err(error) = writeln!(io::stdout(), "{stat}") {
            return Watched::Reader(error);
        }
        thread::sleep(interval);
        stat = match client.ask(&Command::Stat) {
            Ok(stat) => stat,
            Err(error) => return Watched::Asked(error),
        };
    }
}

fn watch_rates(client: &Client, interval: Duration) -> Watched {
    // As watch(1) does: home, and clear what is below.
    let clear = if io::stdout().is_terminal() { "\x1b[H\x1b[2J" } else { "" };
    let mut before: Stat = match client.ask(&Command::Stat) {
        Ok(stat) => stat,
        Err(error) => return Watched::NotFound(error),
    };
    loop {
        thread::sleep(interval);
        let after = match client.ask(&Command::Stat) {
            Ok(stat) => stat,
            Err(error) => return Watched::Asked(error),
        };
        if let Some(rates) = show::rates(&before, &after) {
            if let Err(error) = writeln!(io::stdout(), "{clear}{rates}\n") {
                return Watched::Reader(error);
            }
        }
        before = after;
    }
}

fn client(vm: &VmRef) -> Client {
    Client::new(&vm.vm, vm.run_dir.as_deref())
}

fn finish(result: Result<String, ClientError>) -> Outcome {
    match result {
        Ok(text) => print(&text),
        Err(error) => report::failure(error.outcome(), &error),
    }
}

fn print(text: &str) -> Outcome {
    match writeln!(io::stdout(), "{text}") {
        Ok(()) => Outcome::Success,
        // Whoever reads has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Outcome::Success,
        Err(error) => report::failure(Outcome::Internal, &error),
    }
}
