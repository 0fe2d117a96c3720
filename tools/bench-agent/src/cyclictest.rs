//! What cyclictest printed, as figures.
//!
//! With `-h` it prints a histogram, a line per microsecond with a column per thread, and behind it lines with a column
//! per thread too: `# Min Latencies:`, `# Avg Latencies:`, `# Max Latencies:`.

use anyhow::{Context, Result, ensure};
use bench_agent::{Figure, Unit};

/// Minimum, average, 99th percentile and maximum for each thread; a thread is bound to the CPU of its number.
pub fn figures(lines: &[&str]) -> Result<Vec<(Figure, f64)>> {
    let row = |name: &str| -> Result<Vec<u64>> {
        let columns = lines.iter().find_map(|line| line.strip_prefix(&format!("# {name} Latencies:")));
        let columns = columns.with_context(|| format!("cyclictest printed no {name} latencies"))?;
        Ok(columns.split_whitespace().map(str::parse).collect::<Result<_, _>>()?)
    };
    let (min, avg, max) = (row("Min")?, row("Avg")?, row("Max")?);
    let histogram: Vec<Vec<u64>> = lines
        .iter()
        .filter(|line| line.starts_with(|c: char| c.is_ascii_digit()))
        .map(|line| line.split_whitespace().map(str::parse).collect::<Result<_, _>>())
        .collect::<Result<_, _>>()
        .context("cyclictest's histogram is not numbers")?;
    ensure!(min.len() == avg.len() && avg.len() == max.len(), "cyclictest's columns differ");
    let mut figures = Vec::new();
    for cpu in 0..min.len() {
        let total = line_of(lines, "# Total:", cpu)? + line_of(lines, "# Histogram Overflows:", cpu)?;
        let counted = histogram.iter().filter_map(|row| Some((*row.first()?, *row.get(cpu + 1)?)));
        let p99 = percentile(counted, total).unwrap_or(max[cpu]);
        for (name, us) in [("minimum", min[cpu]), ("average", avg[cpu]), ("p99", p99), ("maximum", max[cpu])]
        {
            let title = format!("cyclictest, CPU {cpu}, {name}");
            figures.push((Figure::named(title, Unit::Microseconds), us as f64 * 1e3));
        }
    }
    Ok(figures)
}

fn line_of(lines: &[&str], name: &str, column: usize) -> Result<u64> {
    let columns = lines.iter().find_map(|line| line.strip_prefix(name));
    let field = columns.and_then(|columns| columns.split_whitespace().nth(column));
    field
        .with_context(|| format!("cyclictest printed no {name:?} for CPU {column}"))?
        .parse()
        .context(name.to_owned())
}

/// What 99 of 100 did not exceed; nothing if it lies beyond the histogram.
fn percentile(counted: impl Iterator<Item = (u64, u64)>, total: u64) -> Option<u64> {
    let rank = (total * 99).div_ceil(100);
    let mut seen = 0;
    counted.into_iter().find_map(|(us, count)| {
        seen += count;
        (seen >= rank).then_some(us)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "\
# /dev/cpu_dma_latency set to 0us
# Histogram
000090 000050\t000000
000100 000049\t000098
000700 000001\t000001
# Total: 000000100 000000099
# Min Latencies: 00090 00100
# Avg Latencies: 00101 00107
# Max Latencies: 00700 09000
# Histogram Overflows: 00000 00001";

    #[test]
    fn every_cpu_has_its_figures() {
        let lines: Vec<&str> = OUTPUT.lines().collect();
        let figures = figures(&lines).unwrap();
        let value = |title: &str| figures.iter().find(|(figure, _)| figure.title == title).unwrap().1;
        assert_eq!(figures.len(), 8);
        assert_eq!(value("cyclictest, CPU 0, minimum"), 90e3);
        assert_eq!(value("cyclictest, CPU 0, p99"), 100e3);
        assert_eq!(value("cyclictest, CPU 1, average"), 107e3);
        assert_eq!(value("cyclictest, CPU 1, p99"), 700e3);
        assert_eq!(value("cyclictest, CPU 1, maximum"), 9000e3);
    }

    #[test]
    fn other_output_is_an_error() {
        assert!(figures(&["Unable to change scheduling policy!"]).is_err());
    }
}
