//! What sockperf and iperf3 printed, as numbers.

use anyhow::{Context, Result};

/// Round trips of `sockperf ping-pong --full-rtt`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RoundTrips {
    /// From its begin to its end; its percentiles leave out those at either end.
    pub count: f64,
    /// What half of them did not exceed, in nanoseconds.
    pub median_ns: f64,
    /// What 99 of 100 did not exceed.
    pub p99_ns: f64,
}

/// A stream as iperf3's receiver saw it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stream {
    /// In 10^6 bits a second.
    pub mbit_per_second: f64,
    /// In all.
    pub mib: f64,
}

/// What `sockperf: ---> percentile 50.000 = 12.345` and `sockperf: [Total Run] …; ReceivedMessages=7` say.
pub fn round_trips(lines: &[String]) -> Result<RoundTrips> {
    let percentile = |percent: &str| -> Result<f64> {
        let start = format!("sockperf: ---> percentile {percent} =");
        let us = lines.iter().find_map(|line| line.strip_prefix(&start));
        let us = us.with_context(|| format!("sockperf printed no percentile {percent}"))?;
        Ok(us.trim().parse::<f64>()? * 1e3)
    };
    let total = lines.iter().find_map(|line| line.strip_prefix("sockperf: [Total Run]"));
    let received = total.and_then(|total| total.split_once("ReceivedMessages="));
    let (_, received) = received.context("sockperf printed no total")?;
    let digits = received.split(|c: char| !c.is_ascii_digit()).next().unwrap_or_default();
    Ok(RoundTrips {
        count: digits.parse().context("sockperf's total is no number")?,
        median_ns: percentile("50.000")?,
        p99_ns: percentile("99.000")?,
    })
}

/// What `[  5]   0.00-3.00   sec  1.20 MBytes  3370 Kbits/sec                  receiver` says.
pub fn stream<'a>(lines: impl IntoIterator<Item = &'a str>) -> Result<Stream> {
    let line = lines.into_iter().find(|line| line.trim_end().ends_with("receiver"));
    let line = line.context("iperf3's receiver had nothing to say")?;
    let words: Vec<&str> = line.split_whitespace().collect();
    let before = |unit: &str| -> Result<&str> {
        let at = words.iter().position(|word| *word == unit);
        let word = at.and_then(|at| words.get(at.checked_sub(1)?));
        word.copied().with_context(|| format!("no {unit} in {line:?}"))
    };
    let (begin, end) = before("sec")?.split_once('-').context("iperf3's interval has no end")?;
    let seconds = end.parse::<f64>()? - begin.parse::<f64>()?;
    let kbit_per_second: f64 = before("Kbits/sec")?.parse()?;
    // What it says of the amount is rounded, in a unit that it chooses.
    let mib = kbit_per_second * seconds * 1e3 / 8.0 / f64::from(1 << 20);
    Ok(Stream { mbit_per_second: kbit_per_second / 1e3, mib })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRINTED: &str = "\
sockperf: Test ended
sockperf: [Total Run] RunTime=1.000 sec; Warm up time=400 msec; SentMessages=701; ReceivedMessages=700
sockperf: [Valid Duration] RunTime=0.549 sec; SentMessages=385; ReceivedMessages=384
sockperf: Summary: Round trip is 1427.250 usec
sockperf: ---> percentile 99.000 = 5123.500
sockperf: ---> percentile 50.000 = 1301.250
sockperf: ---> <MIN> observation =  901.000";

    #[test]
    fn round_trips_have_percentiles_and_a_number() {
        let lines: Vec<String> = PRINTED.lines().map(str::to_owned).collect();
        let expected = RoundTrips { count: 700.0, median_ns: 1_301_250.0, p99_ns: 5_123_500.0 };
        assert_eq!(round_trips(&lines).unwrap(), expected);
        assert!(round_trips(&lines[..3]).is_err());
    }

    #[test]
    fn the_receiver_says_what_arrived() {
        let lines = [
            "[  5]   0.00-2.00   sec  9.00 MBytes  36000 Kbits/sec    3             sender",
            "[  5]   0.00-2.00   sec  8.00 MBytes  33554.432 Kbits/sec                  receiver",
        ];
        assert_eq!(stream(lines).unwrap(), Stream { mbit_per_second: 33.554432, mib: 8.0 });
        assert!(stream(["iperf3: error - unable to connect to server"]).is_err());
    }
}
