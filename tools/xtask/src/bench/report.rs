//! Records into a table and a JSON file.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use bench_agent::{Figure, Record, Unit};
use serde_json::json;

/// The monitor that is measured.
pub const OURS: &str = "cede";
/// The one that it is compared with.
pub const REFERENCE: &str = "qemu";
/// Another version of ours, if there is one.
pub const AGAINST: &str = "other cede";

/// Under what the figures were taken.
pub struct Conditions {
    /// Debian's version of QEMU.
    pub qemu: String,
    /// The host's and the guest's kernel.
    pub kernel: String,
    /// Rounds that count.
    pub runs: u32,
    /// The guest's memory.
    pub memory_mib: u32,
    /// The guest's vCPUs.
    pub cpus: u32,
}

/// The values of one figure and one monitor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Summary {
    min: u64,
    median: u64,
    max: u64,
}

impl Summary {
    fn of(values: &[u64]) -> Option<Self> {
        let mut sorted = values.to_vec();
        sorted.sort_unstable();
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        let (below, above) = (sorted[(sorted.len() - 1) / 2], sorted[sorted.len() / 2]);
        Some(Self { min, median: below.midpoint(above), max })
    }
}

/// Prints the table, and writes all values to `path`.
pub fn write(conditions: &Conditions, records: &[Record], path: &Path) -> Result<()> {
    let values = by_figure(records);
    let Conditions { qemu, kernel, runs, memory_mib, cpus } = conditions;
    println!(
        "powernv9 lab host and guest: Linux {kernel}; guest: {memory_mib} MiB, {cpus} vCPUs; QEMU {qemu}"
    );
    println!("{runs} rounds after a warm-up, cede and QEMU in turn: median (min to max)");
    println!("ratios: of the medians, and the median of each round's own\n");
    let others: &[&str] = if records.iter().any(|record| record.subject == AGAINST) {
        &[REFERENCE, AGAINST]
    } else {
        &[REFERENCE]
    };
    let heads: String =
        others.iter().map(|other| format!(" {other} | ratio to {other} | by round |")).collect();
    println!("| | {OURS} |{heads}\n|---|---|{}", "---|".repeat(3 * others.len()));
    for figure in Figure::ALL {
        let of = |subject| values.get(&(figure, subject)).and_then(|rounds| Summary::of(&rounds.concat()));
        let Some(ours) = of(OURS) else { continue };
        let mut row = format!("| {} | {} |", figure.title(), shown(ours, figure.unit()));
        for other in others {
            let Some(summary) = of(other) else { continue };
            let ratio = ours.median as f64 / summary.median as f64;
            let by_round = ratio_by_round(&values[&(figure, OURS)], &values[&(figure, *other)]);
            row += &format!(" {} | {ratio:.3} | {by_round:.3} |", shown(summary, figure.unit()));
        }
        println!("{row}");
    }
    let json = json!({
        "qemu": qemu, "kernel": kernel, "runs": runs, "memory_mib": memory_mib, "cpus": cpus, "records": records,
    });
    fs::write(path, serde_json::to_vec_pretty(&json)?)
        .with_context(|| format!("cannot write {}", path.display()))?;
    eprintln!("bench: all values are in {}", path.display());
    Ok(())
}

/// The values of each round, the warm-up left out.
fn by_figure(records: &[Record]) -> BTreeMap<(Figure, &str), Vec<Vec<u64>>> {
    let mut values: BTreeMap<_, Vec<Vec<u64>>> = BTreeMap::new();
    for record in records.iter().filter(|record| record.round > 0) {
        let rounds = values.entry((record.figure, record.subject.as_str())).or_default();
        rounds.resize((record.round as usize).max(rounds.len()), Vec::new());
        rounds[record.round as usize - 1].push(record.value);
    }
    values
}

/// The median of the ratios that each round gives by itself: what a busy machine does to one round it does to
/// both sides.
fn ratio_by_round(ours: &[Vec<u64>], other: &[Vec<u64>]) -> f64 {
    let pairs =
        ours.iter().zip(other).filter_map(|(ours, other)| Some((Summary::of(ours)?, Summary::of(other)?)));
    let mut ratios: Vec<f64> = pairs.map(|(ours, other)| ours.median as f64 / other.median as f64).collect();
    ratios.sort_unstable_by(f64::total_cmp);
    match ratios.as_slice() {
        [] => f64::NAN,
        sorted => (sorted[(sorted.len() - 1) / 2] + sorted[sorted.len() / 2]) / 2.0,
    }
}

fn shown(summary: Summary, unit: Unit) -> String {
    let Summary { min, median, max } = summary;
    let number = |value: u64| match unit {
        Unit::Time => format!("{:.1}", value as f64 / 1e6),
        Unit::Count => value.to_string(),
        Unit::Bytes => format!("{:.2}", value as f64 / f64::from(1 << 20)),
    };
    let unit = match unit {
        Unit::Time => " ms",
        Unit::Count => "",
        Unit::Bytes => " MiB",
    };
    format!("{}{unit} ({} to {})", number(median), number(min), number(max))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(Summary::of(&[5, 1, 9]), Some(Summary { min: 1, median: 5, max: 9 }));
        assert_eq!(Summary::of(&[4, 1, 2, 9]), Some(Summary { min: 1, median: 3, max: 9 }));
        assert_eq!(Summary::of(&[]), None);
    }

    #[test]
    fn a_slow_round_does_not_shift_the_ratio() {
        let ours = [vec![10], vec![100, 90, 110], vec![12]];
        let other = [vec![100], vec![1000], vec![100]];
        assert!((ratio_by_round(&ours, &other) - 0.1).abs() < 1e-9);
    }

    #[test]
    fn the_warm_up_does_not_count() {
        let record =
            |round, value| Record { subject: OURS.to_owned(), round, figure: Figure::MemoryRss, value };
        let records = [record(0, 100), record(1, 7)];
        assert_eq!(by_figure(&records)[&(Figure::MemoryRss, OURS)], [vec![7]]);
    }
}
