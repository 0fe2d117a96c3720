//! Whose turn it is, and what is said of it.

use anyhow::{Context, Result};
use bench_agent::{Figure, Record};

/// Measures each subject in turn, and all again in reverse order, and so on; says what comes as it comes. Round 0
/// warms up.
pub fn run<S>(
    rounds: u32,
    subjects: &[S],
    name: impl Fn(&S) -> String,
    measure: impl Fn(&S) -> Result<Vec<(Figure, f64)>>,
) -> Result<()> {
    let mut subjects: Vec<&S> = subjects.iter().collect();
    for round in 0..=rounds {
        for subject in &subjects {
            let figures = measure(subject).with_context(|| format!("{} failed", name(subject)))?;
            for (figure, value) in figures {
                let record = Record { subject: name(subject), round, figure, value };
                println!("{}", serde_json::to_string(&record)?);
            }
        }
        subjects.reverse();
    }
    Ok(())
}
