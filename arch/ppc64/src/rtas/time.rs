//! get-time-of-day and set-time-of-day (PAPR 7.3.2).

use super::{Rtas, status};
use crate::clock::Moment;

pub(super) fn get_time_of_day(rtas: &mut Rtas<'_>) -> i32 {
    let m = rtas.platform.clock.now();
    let fields = [m.year, m.month, m.day, m.hour, m.minute, m.second, m.nanosecond];
    rtas.rets[..7].copy_from_slice(&fields);
    status::SUCCESS
}

pub(super) fn set_time_of_day(rtas: &mut Rtas<'_>) -> i32 {
    let &[year, month, day, hour, minute, second, nanosecond] = rtas.args else {
        return status::PARAMETER_ERROR;
    };
    match rtas.platform.clock.set(Moment { year, month, day, hour, minute, second, nanosecond }) {
        Some(()) => status::SUCCESS,
        None => status::PARAMETER_ERROR,
    }
}
