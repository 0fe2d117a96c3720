//! Whose turn it is, and what is said of it.

use anyhow::{Context, Result};
use bench_agent::{Figure, Plan, Record, Subject};

use crate::settings::Settings;

/// What was found of a subject in a round.
pub type Values = Vec<(Figure, f64)>;

/// Measures each subject in turn, and all again in reverse order, and so on; says what comes as it comes. Round 0
/// warms up.
pub fn run<'a, S>(
    rounds: u32,
    subjects: &'a [S],
    name: impl Fn(&'a S) -> &'a str,
    mut measure: impl FnMut(&'a S) -> Result<Values>,
) -> Result<()> {
    let mut subjects: Vec<&'a S> = subjects.iter().collect();
    for round in 0..=rounds {
        for &subject in &subjects {
            let figures = measure(subject).with_context(|| format!("{} failed", name(subject)))?;
            for (figure, value) in figures {
                let record = Record { subject: name(subject).to_owned(), round, figure, value };
                println!("{}", serde_json::to_string(&record)?);
            }
        }
        subjects.reverse();
    }
    Ok(())
}

/// The same for the subjects of a plan, each with the host as it wants it.
pub fn guests<'a>(plan: &'a Plan, mut measure: impl FnMut(&'a Subject) -> Result<Values>) -> Result<()> {
    let name = |subject: &'a Subject| subject.name.as_str();
    run(plan.rounds, &plan.subjects, name, |subject| {
        eprintln!("bench: {}", subject.name);
        let _settings = Settings::apply(&subject.settings)?;
        measure(subject)
    })
}
