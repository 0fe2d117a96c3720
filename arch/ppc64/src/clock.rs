//! The guest's wall clock: the host's UTC plus what the guest set it off by.

use std::sync::atomic::{AtomicI64, Ordering};
use time::{Date, Duration, Month, OffsetDateTime, PrimitiveDateTime, Time};

/// A moment as RTAS passes it: calendar fields in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// Year, such as 2026.
    pub year: u32,
    /// 1 to 12.
    pub month: u32,
    /// 1 to 31.
    pub day: u32,
    /// 0 to 23.
    pub hour: u32,
    /// 0 to 59.
    pub minute: u32,
    /// 0 to 59.
    pub second: u32,
    /// 0 to 999,999,999.
    pub nanosecond: u32,
}

/// The clock. What the guest sets lasts as long as the VM.
#[derive(Debug, Default)]
pub struct Clock {
    /// Guest minus host, in nanoseconds.
    offset: AtomicI64,
}

impl Clock {
    /// The guest's time.
    #[must_use]
    pub fn now(&self) -> Moment {
        let offset = Duration::nanoseconds(self.offset.load(Ordering::Relaxed));
        let host = OffsetDateTime::now_utc();
        let now = host.checked_add(offset).unwrap_or(host);
        Moment {
            year: u32::try_from(now.year()).unwrap_or(0),
            month: u32::from(u8::from(now.month())),
            day: u32::from(now.day()),
            hour: u32::from(now.hour()),
            minute: u32::from(now.minute()),
            second: u32::from(now.second()),
            nanosecond: now.nanosecond(),
        }
    }

    /// Sets the guest's time. `None` when it is no date, or more than 292 years from the host's.
    pub fn set(&self, to: Moment) -> Option<()> {
        let small = |v: u32| u8::try_from(v).ok();
        let month = Month::try_from(small(to.month)?).ok()?;
        let date = Date::from_calendar_date(i32::try_from(to.year).ok()?, month, small(to.day)?).ok()?;
        let time =
            Time::from_hms_nano(small(to.hour)?, small(to.minute)?, small(to.second)?, to.nanosecond).ok()?;
        let offset = PrimitiveDateTime::new(date, time).assume_utc() - OffsetDateTime::now_utc();
        self.offset.store(i64::try_from(offset.whole_nanoseconds()).ok()?, Ordering::Relaxed);
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEAP: Moment =
        Moment { year: 2032, month: 2, day: 29, hour: 23, minute: 59, second: 58, nanosecond: 7 };

    #[test]
    fn what_is_set_is_read_back() {
        let clock = Clock::default();
        clock.set(LEAP).unwrap();
        let now = clock.now();
        assert_eq!((now.year, now.month, now.day, now.hour), (2032, 2, 29, 23));
    }

    #[test]
    fn impossible_dates_change_nothing() {
        let clock = Clock::default();
        let bad = [
            Moment { month: 13, ..LEAP },
            Moment { year: 2031, ..LEAP },
            Moment { second: 60, ..LEAP },
            Moment { nanosecond: 1_000_000_000, ..LEAP },
            Moment { year: u32::MAX, ..LEAP },
            Moment { year: 9000, ..LEAP },
        ];
        for moment in bad {
            assert_eq!(clock.set(moment), None, "{moment:?}");
        }
        assert_eq!(clock.offset.load(Ordering::Relaxed), 0);
    }
}
