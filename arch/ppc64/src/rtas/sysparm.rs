//! ibm,get-system-parameter (PAPR 7.3.16): what the partition is called and what it was given.

use super::{Rtas, fill, status};

const SPLPAR_CHARACTERISTICS: u32 = 20;
const LPAR_NAME: u32 = 55;

/// parameter, buffer, length → big-endian 16-bit length and the value, a C string, in the buffer.
pub(super) fn get_system_parameter(rtas: &mut Rtas<'_>) -> i32 {
    let &[parameter, buffer, length] = rtas.args else { return status::PARAMETER_ERROR };
    let platform = rtas.platform;
    let cpus = platform.cpus.len();
    let value = match parameter {
        SPLPAR_CHARACTERISTICS => {
            let mib = platform.ram >> 20;
            format!("MaxEntCap={cpus},DesMem={mib},DesProcs={cpus},MaxPlatProcs={cpus}")
        }
        LPAR_NAME => platform.name.clone(),
        _ => return status::PARAMETER_ERROR,
    };
    // The length is one of 16 bits and counts the terminating zero.
    let end = value.len().min(usize::from(u16::MAX) - 1);
    let size = end as u16 + 1;
    let mut bytes = size.to_be_bytes().to_vec();
    bytes.extend_from_slice(&value.as_bytes()[..end]);
    bytes.push(0);
    bytes.truncate(length as usize);
    match fill(platform, buffer, &bytes) {
        Some(()) => status::SUCCESS,
        None => status::PARAMETER_ERROR,
    }
}
