//! What goes over the socket: one line of JSON each way, then the connection ends.
//!
//! ```text
//! {"version":1,"command":"set","tunables":{"halt_poll_ns":50000}}
//! {"version":1,"ok":{"tunables":{"halt_poll_ns":50000,…},"notes":[]}}
//! {"version":1,"error":"tunable halt_poll_ns is too large, …"}
//! ```
//!
//! A new field in an answer is no new version; a client leaves alone what it does not know.

use super::VcpuStats;
use crate::config::TunableChanges;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// The protocol's version, which both sides say.
pub const VERSION: u64 = 1;

/// A request's bytes at most, the line feed counted.
pub const MAX_REQUEST: usize = 4096;

/// An answer's bytes at most: the figures of 2048 vCPUs have a tenth of that.
pub const MAX_ANSWER: usize = 64 << 20;

/// What a client wants.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case")]
pub enum Command {
    /// Who is there: [`Info`].
    Info,
    /// Everything that can be seen: [`Stat`].
    Stat,
    /// Change tunables: [`Tuned`].
    Set {
        /// Their names and values.
        tunables: Map<String, Value>,
    },
    /// Read the configuration again: [`Tuned`].
    Reload,
    /// Stop the vCPUs: [`Paused`].
    Pause,
    /// Let them go on: [`Paused`].
    Resume,
    /// Ask the guest for memory, or only what was asked for and given: [`Ballooned`].
    Balloon {
        /// How much it is to give in all; `None` leaves that as it is.
        bytes: Option<u64>,
    },
}

/// Tunables by name.
pub type Named = BTreeMap<String, u32>;

/// Who is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Info {
    /// The VM's name.
    pub name: String,
    /// Its process.
    pub pid: u32,
    /// `kernel` or `vmm`.
    pub plane: String,
    /// How many vCPUs it has.
    pub vcpu_count: usize,
    /// Whether it is paused.
    pub paused: bool,
}

/// Everything that can be seen of a VM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stat {
    /// Who it is.
    #[serde(flatten)]
    pub info: Info,
    /// How long it has been there, in nanoseconds of CLOCK_MONOTONIC.
    pub uptime_ns: u64,
    /// The present tunables, where the host shows them.
    pub tunables: Option<Named>,
    /// Its vCPUs.
    pub vcpus: Vec<Vcpu>,
    /// Its devices, as far as they count.
    #[serde(default)]
    pub devices: Vec<Device>,
    /// Loads and stores of the guest's where nothing is.
    #[serde(default)]
    pub unclaimed_accesses: u64,
}

/// A device's figures.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// What it is, as `net tap0`.
    pub device: String,
    /// Counters, since the VM started.
    pub counters: BTreeMap<String, u64>,
}

/// A vCPU's figures. The names are KVM's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vcpu {
    /// Its number.
    pub vcpu: u32,
    /// Its vcore's number.
    pub vcore: u32,
    /// Its thread's number in the vcore.
    pub thread: u32,
    /// What it does.
    pub state: String,
    /// Its vcore's polling interval in nanoseconds, where it can be seen.
    pub halt_poll_ns: Option<u32>,
    /// Counters.
    pub stats: BTreeMap<String, u64>,
    /// Histograms of nanoseconds: bucket 0 counts zeros, bucket n the values from 2^(n-1) to 2^n - 1.
    pub histograms: BTreeMap<String, Vec<u64>>,
}

impl From<&VcpuStats> for Vcpu {
    fn from(of: &VcpuStats) -> Self {
        let named = of.stats.named().into_iter();
        let histograms = of.stats.histograms().into_iter();
        Self {
            vcpu: of.vcpu,
            vcore: of.vcore,
            thread: of.thread,
            state: of.state.clone(),
            halt_poll_ns: of.halt_poll_ns,
            stats: named.map(|(name, value)| (name.to_owned(), value)).collect(),
            histograms: histograms.map(|(name, buckets)| (name.to_owned(), buckets.to_vec())).collect(),
        }
    }
}

/// What became of a wish for other tunables.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tuned {
    /// What they are now, where the host shows them.
    pub tunables: Option<Named>,
    /// What else one should know, a line each.
    pub notes: Vec<String>,
}

/// What became of a wish to pause or go on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Paused {
    /// Whether the VM is paused now.
    pub paused: bool,
}

/// What the guest is asked to give back, and what it has given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ballooned {
    /// Bytes that it is asked for.
    pub target: u64,
    /// Bytes that it says it has given.
    pub actual: u64,
}

/// The tunables as the wire has them.
#[must_use]
pub fn named(tunables: vcore::Tunables) -> Named {
    tunables.named().into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// Tunables that a request names, checked.
///
/// # Errors
/// What is wrong with the first that is.
pub fn changes(tunables: &Map<String, Value>) -> Result<TunableChanges, String> {
    let text: Vec<String> = tunables.iter().map(|(name, value)| format!("{name}={value}")).collect();
    text.join(" ").parse()
}

/// The request's line.
#[must_use]
pub fn request(command: &Command) -> String {
    line(serde_json::to_value(command))
}

/// The line of an answer.
#[must_use]
pub fn answer<T: Serialize>(result: Result<T, String>) -> String {
    line(match result {
        Ok(value) => serde_json::to_value(value).map(|value| serde_json::json!({ "ok": value })),
        Err(error) => Ok(serde_json::json!({ "error": error })),
    })
}

fn line(value: serde_json::Result<Value>) -> String {
    // Every key is a string and every number an integer, so nothing here cannot be JSON.
    let mut value = value.unwrap_or_default();
    if let Value::Object(fields) = &mut value {
        fields.insert("version".into(), VERSION.into());
    }
    format!("{value}\n")
}

/// The command of a request's line.
///
/// # Errors
/// What is wrong with it.
pub fn parse_request(line: &[u8]) -> Result<Command, String> {
    let value: Value = serde_json::from_slice(line).map_err(|error| format!("this is no JSON: {error}"))?;
    match value.get("version").map(Value::as_u64) {
        Some(Some(VERSION)) => {}
        Some(Some(other)) => {
            return Err(format!("the VM speaks version {VERSION} of the protocol, not {other}"));
        }
        _ => return Err(format!("the request has no version; this VM speaks {VERSION}")),
    }
    serde_json::from_value(value).map_err(|error| error.to_string())
}

/// An answer that cannot be used.
#[derive(Debug, PartialEq, Eq)]
pub enum Refused {
    /// The VM said no, and why.
    Error(String),
    /// It speaks another version of the protocol.
    Version(u64),
    /// It is no answer.
    Garbage(String),
}

/// The content of an answer's line.
///
/// # Errors
/// [`Refused`].
pub fn parse_answer<T: DeserializeOwned>(line: &[u8]) -> Result<T, Refused> {
    let garbage = |error: &dyn std::fmt::Display| Refused::Garbage(error.to_string());
    let mut value: Value = serde_json::from_slice(line).map_err(|error| garbage(&error))?;
    match value.get("version").and_then(Value::as_u64) {
        Some(VERSION) => {}
        Some(other) => return Err(Refused::Version(other)),
        None => return Err(garbage(&"it has no version")),
    }
    if let Some(error) = value.get("error").and_then(Value::as_str) {
        return Err(Refused::Error(error.to_owned()));
    }
    let content =
        value.get_mut("ok").map(Value::take).ok_or_else(|| garbage(&"it says neither ok nor error"))?;
    serde_json::from_value(content).map_err(|error| garbage(&error))
}
