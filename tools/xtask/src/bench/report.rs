//! Records into a table and a JSON file.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use bench_agent::{Figure, Record, Unit};
use serde_json::{Value, json};

/// What a table compares.
pub struct Report<'a> {
    /// Under what the figures were taken, a line each.
    pub heading: Vec<String>,
    /// The same for the JSON file.
    pub conditions: Value,
    /// The columns. The first is the one that the others are compared with.
    pub subjects: Vec<&'a str>,
    /// Which way the ratios are.
    pub ratio: Ratio,
}

/// Which way a ratio of two subjects is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ratio {
    /// The first by the other: it is measured, and the others are what it is measured by.
    FirstToOther,
    /// The other by the first, which is what all are measured by.
    OtherToFirst,
}

/// The values of one figure and one subject.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Summary {
    min: f64,
    median: f64,
    max: f64,
}

impl Summary {
    fn of(values: &[f64]) -> Option<Self> {
        let mut sorted = values.to_vec();
        sorted.sort_unstable_by(f64::total_cmp);
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        let (below, above) = (sorted[(sorted.len() - 1) / 2], sorted[sorted.len() / 2]);
        Some(Self { min, median: (below + above) / 2.0, max })
    }
}

impl Ratio {
    /// Nothing where there is nothing to divide by.
    fn of(self, first: f64, other: f64) -> Option<f64> {
        let ratio = match self {
            Ratio::FirstToOther => first / other,
            Ratio::OtherToFirst => other / first,
        };
        ratio.is_finite().then_some(ratio)
    }

    /// The median of the ratios that each round gives by itself: what a busy machine does to one round it does to
    /// both sides.
    fn by_round(self, first: &[Vec<f64>], other: &[Vec<f64>]) -> Option<f64> {
        let pairs = first.iter().zip(other);
        let pairs = pairs.filter_map(|(first, other)| Some((Summary::of(first)?, Summary::of(other)?)));
        let ratios: Vec<f64> =
            pairs.filter_map(|(first, other)| self.of(first.median, other.median)).collect();
        Summary::of(&ratios).map(|ratios| ratios.median)
    }
}

impl Report<'_> {
    /// Prints the table, and writes all values to `path`.
    pub fn write(&self, records: &[Record], path: &Path) -> Result<()> {
        self.heading.iter().for_each(|line| println!("{line}"));
        println!("ratios: of the medians, and the median of each round's own\n");
        self.table(records).iter().for_each(|row| println!("{row}"));
        let mut json = self.conditions.clone();
        json["records"] = json!(records);
        fs::write(path, serde_json::to_vec_pretty(&json)?)
            .with_context(|| format!("cannot write {}", path.display()))?;
        eprintln!("bench: all values are in {}", path.display());
        Ok(())
    }

    /// The rows, the heads first. A figure without values for the first subject has a row all the same.
    fn table(&self, records: &[Record]) -> Vec<String> {
        let values = by_figure(records);
        let Some((first, others)) = self.subjects.split_first() else { return Vec::new() };
        let head = |other: &&str| match self.ratio {
            Ratio::FirstToOther => format!(" {other} | ratio to {other} | by round |"),
            Ratio::OtherToFirst => format!(" {other} | ratio to {first} | by round |"),
        };
        let heads: String = others.iter().map(head).collect();
        let mut rows = vec![format!("| | {first} |{heads}\n|---|---|{}", "---|".repeat(3 * others.len()))];
        for figure in figures(records) {
            let rounds = |subject| values.get(&(figure, subject)).map(Vec::as_slice);
            let of = |subject| rounds(subject).and_then(|rounds: &[Vec<f64>]| Summary::of(&rounds.concat()));
            let cell = |summary: Option<Summary>| summary.map(|summary| shown(summary, figure.unit));
            let ours = of(first);
            let mut row = format!("| {} | {} |", figure.title, or_dash(cell(ours)));
            for other in others {
                let theirs = of(other);
                let ratio =
                    ours.zip(theirs).and_then(|(ours, theirs)| self.ratio.of(ours.median, theirs.median));
                let by_round = rounds(first).zip(rounds(other));
                let by_round = by_round.and_then(|(ours, theirs)| self.ratio.by_round(ours, theirs));
                let number = |ratio: Option<f64>| or_dash(ratio.map(|ratio| format!("{ratio:.3}")));
                row += &format!(" {} | {} | {} |", or_dash(cell(theirs)), number(ratio), number(by_round));
            }
            rows.push(row);
        }
        rows
    }
}

fn or_dash(cell: Option<String>) -> String {
    cell.unwrap_or_else(|| "-".to_owned())
}

/// The figures of the rounds that count, in the order in which they came first.
fn figures(records: &[Record]) -> Vec<&Figure> {
    let mut figures = Vec::new();
    for record in records.iter().filter(|record| record.round > 0) {
        if !figures.contains(&&record.figure) {
            figures.push(&record.figure);
        }
    }
    figures
}

/// The values of each round, the warm-up left out.
fn by_figure(records: &[Record]) -> BTreeMap<(&Figure, &str), Vec<Vec<f64>>> {
    let mut values: BTreeMap<_, Vec<Vec<f64>>> = BTreeMap::new();
    for record in records.iter().filter(|record| record.round > 0) {
        let rounds = values.entry((&record.figure, record.subject.as_str())).or_default();
        rounds.resize((record.round as usize).max(rounds.len()), Vec::new());
        rounds[record.round as usize - 1].push(record.value);
    }
    values
}

fn shown(summary: Summary, unit: Unit) -> String {
    let Summary { min, median, max } = summary;
    let number = |value: f64| match unit {
        Unit::Milliseconds => format!("{:.1}", value / 1e6),
        Unit::Microseconds => format!("{:.1}", value / 1e3),
        Unit::Count => format!("{value:.0}"),
        Unit::Number => format!("{value:.2}"),
        Unit::Bytes => format!("{:.2}", value / f64::from(1 << 20)),
    };
    let unit = match unit {
        Unit::Milliseconds => " ms",
        Unit::Microseconds => " us",
        Unit::Count | Unit::Number => "",
        Unit::Bytes => " MiB",
    };
    format!("{}{unit} ({} to {})", number(median), number(min), number(max))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TURN: Figure = Figure::new("turn", Unit::Microseconds);

    fn record(subject: &str, round: u32, value: f64) -> Record {
        Record { subject: subject.to_owned(), round, figure: TURN, value }
    }

    #[test]
    fn the_median_is_the_middle() {
        let summary = |min, median, max| Some(Summary { min, median, max });
        assert_eq!(Summary::of(&[5.0, 1.0, 9.0]), summary(1.0, 5.0, 9.0));
        assert_eq!(Summary::of(&[4.0, 1.0, 2.0, 9.0]), summary(1.0, 3.0, 9.0));
        assert_eq!(Summary::of(&[]), None);
    }

    #[test]
    fn a_slow_round_does_not_shift_the_ratio() {
        let ours = [vec![10.0], vec![100.0, 90.0, 110.0], vec![12.0]];
        let other = [vec![100.0], vec![1000.0], vec![100.0]];
        assert_eq!(Ratio::FirstToOther.by_round(&ours, &other), Some(0.1));
        assert_eq!(Ratio::OtherToFirst.by_round(&ours, &other), Some(10.0));
        assert_eq!(Ratio::OtherToFirst.by_round(&ours, &[]), None);
        assert_eq!(Ratio::OtherToFirst.by_round(&[vec![0.0]], &[vec![0.0]]), None);
    }

    #[test]
    fn the_warm_up_does_not_count() {
        let records = [record("kernel", 0, 100.0), record("kernel", 1, 7.0)];
        assert_eq!(by_figure(&records)[&(&TURN, "kernel")], [vec![7.0]]);
    }

    #[test]
    fn a_missing_value_leaves_a_dash() {
        let report = Report {
            heading: Vec::new(),
            conditions: json!({}),
            subjects: vec!["kernel", "vmm"],
            ratio: Ratio::OtherToFirst,
        };
        let rows = report.table(&[record("vmm", 1, 2000.0)]);
        assert_eq!(rows[0], "| | kernel | vmm | ratio to kernel | by round |\n|---|---|---|---|---|");
        assert_eq!(rows[1], "| turn | - | 2.0 us (2.0 to 2.0) | - | - |");
        let rows = report.table(&[record("vmm", 1, 2000.0), record("kernel", 1, 1000.0)]);
        assert_eq!(rows[1], "| turn | 1.0 us (1.0 to 1.0) | 2.0 us (2.0 to 2.0) | 2.000 | 2.000 |");
    }
}
