//! What a fetch shows while it goes on.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// A phase of the fetch: a bar on a terminal, a line otherwise.
pub(super) struct Phase {
    name: &'static str,
    bar: Option<ProgressBar>,
}

impl Phase {
    /// Begins it.
    pub fn new(name: &'static str) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template("lab: {msg:14} {bar:40} {percent:>3}% {elapsed}")
                .expect("the template is valid");
            let bar = ProgressBar::new(100).with_style(style).with_message(name);
            bar.enable_steady_tick(Duration::from_millis(200));
            bar
        });
        if bar.is_none() {
            eprintln!("lab: {name}");
        }
        Phase { name, bar }
    }

    /// How far it is.
    pub fn percent(&self, percent: f64) {
        if let Some(bar) = &self.bar {
            bar.set_position(percent as u64);
        }
    }

    /// Ends it.
    pub fn done(self) {
        if let Some(bar) = &self.bar {
            bar.set_position(100);
            bar.finish_with_message(self.name);
        }
    }
}
