//! ibm,get-system-parameter (PAPR 7.3.16): what the partition is called and what it was given.

use super::{Rtas, status};
use vm_memory::{Bytes, GuestAddress};

const SPLPAR_CHARACTERISTICS: u32 = 20;
const LPAR_NAME: u32 = 55;

/// parameter, buffer, length → big-endian 16-bit length and the value, a C string, in the buffer.
pub(super) fn get_system_parameter(rtas: &mut Rtas<'_>) -> i32 {
    let &[parameter, buffer, length] = rtas.args else { return status::PARAMETER_ERROR };
    let platform = rtas.platform;
    let cpus = platform.cpus.len();
    let mut value = match parameter {
        SPLPAR_CHARACTERISTICS => {
            let mib = platform.ram >> 20;
            format!("MaxEntCap={cpus},DesMem={mib},DesProcs={cpus},MaxPlatProcs={cpus}")
        }
        LPAR_NAME => platform.name.clone(),
        _ => return status::PARAMETER_ERROR,
    };
    value.push('\0');
    let size = u16::try_from(value.len()).unwrap_or(u16::MAX);
    let mut bytes = size.to_be_bytes().to_vec();
    bytes.extend_from_slice(&value.as_bytes()[..usize::from(size)]);
    bytes.truncate(length as usize);
    match platform.memory.write_slice(&bytes, GuestAddress(u64::from(buffer))) {
        Ok(()) => status::SUCCESS,
        Err(_) => status::PARAMETER_ERROR,
    }
}
