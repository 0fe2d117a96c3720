//! What fio printed, as numbers.
//!
//! `--output-format=terse --terse-version=3` is one line of fields between semicolons (fio(1), "Terse output"). Behind the
//! first five come 41 for reads and as many for writes, in the same order.

use anyhow::{Context, Result, ensure};

/// Where the error is, and where reads and writes begin.
const ERROR: usize = 4;
const DIRECTIONS: [usize; 2] = [5, 46];

/// From where a direction begins: KiB moved, requests per second, and `PERCENT%=MICROSECONDS` twenty times.
const KIB: usize = 0;
const IOPS: usize = 2;
const PERCENTILES: std::ops::Range<usize> = 12..32;

/// KiB of a request.
const REQUEST_KIB: f64 = 4.0;

/// A job that only read, or only wrote.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Job {
    /// Requests in all.
    pub requests: f64,
    /// Requests per second.
    pub iops: f64,
    /// What half of the requests did not exceed, in nanoseconds.
    pub median_ns: f64,
    /// What 99 of 100 did not exceed.
    pub p99_ns: f64,
}

/// The job of the one line of results among `lines`.
pub fn job<'a>(lines: impl IntoIterator<Item = &'a str>) -> Result<Job> {
    let line = lines.into_iter().find(|line| line.starts_with("3;")).context("fio printed no result")?;
    let fields: Vec<&str> = line.split(';').collect();
    let field = |at: usize| fields.get(at).copied().with_context(|| format!("fio's result is short: {line}"));
    ensure!(field(ERROR)? == "0", "fio had error {}", field(ERROR)?);
    for begin in DIRECTIONS {
        let number = |at: usize| -> Result<f64> { Ok(field(begin + at)?.parse()?) };
        let kib = number(KIB)?;
        if kib > 0.0 {
            let percentile = |percent: &str| -> Result<f64> {
                let fields = fields.get(begin..).and_then(|fields| fields.get(PERCENTILES));
                let mut fields = fields.into_iter().flatten().filter_map(|field| field.split_once("%="));
                let found = fields.find(|(of, _)| *of == percent);
                let (_, us) = found.with_context(|| format!("fio printed no {percent}%: {line}"))?;
                Ok(us.parse::<f64>()? * 1e3)
            };
            return Ok(Job {
                requests: kib / REQUEST_KIB,
                iops: number(IOPS)?,
                median_ns: percentile("50.000000")?,
                p99_ns: percentile("99.000000")?,
            });
        }
    }
    anyhow::bail!("fio moved nothing: {line}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn direction(kib: &str, iops: &str) -> String {
        let percentiles = ["1.000000%=90", "50.000000%=120", "99.000000%=700"];
        let mut fields = vec![kib, "400", iops, "2000", "0", "0", "0.0", "0.0", "1", "2", "3.0", "4.0"];
        fields.extend(percentiles);
        fields.extend(vec!["0%=0"; 17]);
        fields.extend(vec!["0"; 9]);
        fields.join(";")
    }

    fn line(error: &str, read: &str, write: &str) -> String {
        format!("3;fio-3.33;job;0;{error};{read};{write};0%;0%")
    }

    #[test]
    fn the_direction_that_moved_something_counts() {
        let nothing = direction("0", "0");
        let expected = Job { requests: 200.0, iops: 100.0, median_ns: 120e3, p99_ns: 700e3 };
        for line in
            [line("0", &direction("800", "100"), &nothing), line("0", &nothing, &direction("800", "100"))]
        {
            assert_eq!(job(["job : Saving output of prerun", &line]).unwrap(), expected);
        }
        assert!(job([line("0", &nothing, &nothing).as_str()]).is_err());
    }

    #[test]
    fn other_output_is_an_error() {
        assert!(job(["fio: engine libaio not loadable"]).is_err());
        assert!(job(["3;fio-3.33;job"]).is_err());
        assert!(job([line("5", &direction("800", "100"), &direction("0", "0")).as_str()]).is_err());
    }
}
