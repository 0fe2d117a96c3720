//! The half of a bench that runs in the lab host: how it is told what to do, and what it answers.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use bench_agent::Record;
use serde::Serialize;

use super::qemu;
use crate::lab::{Event, Session, Stream};

/// The lab's command that makes `/lab/bench-agent` do `plan`.
pub fn command(what: &str, plan: &impl Serialize) -> Result<Vec<String>> {
    command_after("true", what, plan)
}

/// The same once the shell command `prepare` has succeeded.
pub fn command_after(prepare: &str, what: &str, plan: &impl Serialize) -> Result<Vec<String>> {
    let script = format!("{} && {prepare} && exec /lab/bench-agent {what} \"$1\"", qemu::PREPARE);
    Ok(super::words(&["sh", "-c", &script, "sh", &serde_json::to_string(plan)?]))
}

/// Reads the agent's records as they come, to its end.
pub fn records(mut session: Session, rounds: u32) -> Result<Vec<Record>> {
    let mut records: Vec<Record> = Vec::new();
    let mut text = Vec::new();
    loop {
        match session.event()? {
            Event::Output(Stream::Out, bytes) => {
                text.extend_from_slice(&bytes);
                while let Some(end) = text.iter().position(|byte| *byte == b'\n') {
                    let line: Vec<u8> = text.drain(..=end).collect();
                    let record: Record =
                        serde_json::from_slice(&line).context("the agent said something else")?;
                    if records.last().is_none_or(|last| last.round != record.round) {
                        eprintln!("bench: round {} of {rounds}: {}", record.round, record.figure.title);
                    }
                    records.push(record);
                }
            }
            Event::Output(Stream::Err, bytes) => eprint!("{}", String::from_utf8_lossy(&bytes)),
            Event::Output(Stream::Console, _) => {}
            Event::Exit(code) => {
                ensure!(code == 0, "the agent failed in the lab host");
                return Ok(records);
            }
        }
    }
}

/// As Debian names it in the file's name.
pub fn kernel_version(vmlinux: &Path) -> Result<String> {
    let path = fs::canonicalize(vmlinux)?;
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    Ok(name.strip_prefix("vmlinux-").unwrap_or(&name).to_owned())
}
