//! Counts by what they are for: a request, a round trip.

use bench_agent::{Counts, Figure, Unit};

use crate::rounds::Values;

/// A call that is rarer than this has nothing to do with it.
const NEGLIGIBLE: f64 = 0.02;

/// What each of `number` things cost, under the titles that `title` makes of what is counted.
pub fn of(counts: &Counts, number: f64, title: impl Fn(&str) -> String) -> Values {
    let all = [
        ("system calls", counts.all_syscalls()),
        ("guest exits", counts.event("kvm_hv:kvm_guest_exit")),
        ("voluntary context switches", counts.voluntary_switches),
    ];
    let all = all.map(|(what, count)| (what.to_owned(), count, 0.0));
    let calls = counts.syscalls.iter();
    let calls = calls.map(|(name, count)| (format!("system call {name}"), *count, NEGLIGIBLE));
    all.into_iter()
        .chain(calls)
        .map(|(what, count, least)| (what, count as f64 / number, least))
        .filter(|(_, value, least)| value >= least)
        .map(|(what, value, _)| (Figure::named(title(&what), Unit::Number), value))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_rare_is_no_part_of_it() {
        let syscalls = [("ioctl".to_owned(), 200), ("write".to_owned(), 1)].into();
        let events = [("kvm_hv:kvm_guest_exit".to_owned(), 400)].into();
        let counts = Counts { seconds: 1.0, syscalls, voluntary_switches: 0, events };
        let values = of(&counts, 100.0, |what| format!("{what} per request"));
        let shown: Vec<(&str, f64)> = values.iter().map(|(f, v)| (f.title.as_ref(), *v)).collect();
        let expected = [
            ("system calls per request", 2.01),
            ("guest exits per request", 4.0),
            ("voluntary context switches per request", 0.0),
            ("system call ioctl per request", 2.0),
        ];
        assert_eq!(shown, expected);
    }
}
