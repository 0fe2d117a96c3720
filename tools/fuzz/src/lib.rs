//! What a hostile guest does to each device, made of arbitrary bytes. A target takes bytes and plays them: whatever they say, nothing
//! may panic, go on for ever, or do what a guest cannot ask for.
//!
//! `cargo test -p cede-fuzz` plays random inputs for some seconds; `cargo xtask fuzz block --minutes 10` has libFuzzer look
//! for better ones.

#![forbid(unsafe_code)]

mod block;
mod pci;
mod script;
mod virtio;

use script::Random;
use std::time::{Duration, Instant};

/// Plays the story that bytes tell. It panics when something is wrong.
pub type Play = fn(&[u8]);

/// The targets, by name. Whoever adds a device adds a row.
pub const TARGETS: &[(&str, Play)] = &[
    ("block", block::play),
    ("net", virtio::net),
    ("vsock", virtio::vsock),
    ("console", virtio::console),
    ("entropy", virtio::entropy),
    ("balloon", virtio::balloon),
    ("pci", pci::play),
];

/// The target with this name.
#[must_use]
pub fn target(name: &str) -> Option<Play> {
    TARGETS.iter().find(|(known, _)| *known == name).map(|(_, play)| *play)
}

/// Plays random inputs for `time`, each made of `seed` and its number, and says how many.
pub fn random(play: Play, seed: u64, time: Duration) -> u64 {
    let begin = Instant::now();
    let mut played = 0;
    while begin.elapsed() < time {
        play(&Random::new(seed.wrapping_add(played)).input());
        played += 1;
    }
    played
}
