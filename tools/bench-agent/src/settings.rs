//! Files of the host that hold something else for a while.

use std::fs;

use anyhow::{Context, Result};

/// What was in them before; put back when this is dropped.
pub struct Settings(Vec<(String, String)>);

impl Settings {
    /// Writes each value into its file.
    pub fn apply(settings: &[(String, String)]) -> Result<Self> {
        let mut before = Self(Vec::new());
        for (path, value) in settings {
            let old = fs::read_to_string(path).with_context(|| format!("cannot read {path}"))?;
            before.0.push((path.clone(), old.trim().to_owned()));
            fs::write(path, value).with_context(|| format!("cannot set {path} to {value}"))?;
        }
        Ok(before)
    }
}

impl Drop for Settings {
    fn drop(&mut self) {
        for (path, value) in self.0.drain(..).rev() {
            // The next subject sets its own; a value that cannot be put back shows when it cannot be set.
            let _ = fs::write(path, value);
        }
    }
}
