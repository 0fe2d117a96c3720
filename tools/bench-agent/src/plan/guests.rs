//! What benches have in common that let the same guests run under several monitors.

use serde::{Deserialize, Serialize};

/// What to run and how often.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Plan {
    /// Rounds after the warm-up, which is round 0.
    pub rounds: u32,
    /// In the order of the first round; each round reverses it.
    pub subjects: Vec<Subject>,
}

/// A monitor, and how it and the host are set.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Subject {
    /// Its name in the results.
    pub name: String,
    /// Run the guests, one each.
    pub guests: Vec<Vec<String>>,
    /// Set in their environment.
    pub environment: Vec<(String, String)>,
    /// Files of the host and what is written into them before; put back afterwards.
    pub settings: Vec<(String, String)>,
    /// What is set while the guests run.
    pub tunables: Option<Tunables>,
}

/// Tunables of VMs of cede.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Tunables {
    /// The VMs' names.
    pub vms: Vec<String>,
    /// As `cede set` takes them.
    pub values: String,
}
