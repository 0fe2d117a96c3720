//! How the processor runs the guest: H_SET_MODE, H_REGISTER_PROC_TBL, H_GET_CPU_CHARACTERISTICS.

use super::{Call, Effect};
use crate::lpcr;
use crate::papr::ret::{
    H_FUNCTION, H_HARDWARE, H_P2, H_P3, H_P4, H_PARAMETER, H_SUCCESS, H_UNSUPPORTED_FLAG_START,
};

const RESOURCE_ADDR_TRANS_MODE: u64 = 3;
const RESOURCE_LE: u64 = 4;

/// The least significant flag bit, IBM bit 63, is not supported.
const H_UNSUPPORTED_FLAG_63: i64 = H_UNSUPPORTED_FLAG_START - 63;

/// mflags, resource, value1, value2 (PAPR 14.5.4.3.7). KVM takes the breakpoint resources itself.
pub(super) fn set_mode(call: &mut Call<'_>) -> i64 {
    let [flags, resource, value1, value2, ..] = call.args;
    if resource != RESOURCE_ADDR_TRANS_MODE && resource != RESOURCE_LE {
        return H_P2;
    }
    if value1 != 0 {
        return H_P3;
    }
    if value2 != 0 {
        return H_P4;
    }
    let (mask, value) = match (resource, flags) {
        (RESOURCE_LE, 0) => (lpcr::ILE, 0),
        (RESOURCE_LE, 1) => (lpcr::ILE, lpcr::ILE),
        (RESOURCE_ADDR_TRANS_MODE, 0) => (lpcr::AIL, 0),
        (RESOURCE_ADDR_TRANS_MODE, 3) if call.platform.ail_mode_3 => (lpcr::AIL, lpcr::AIL_3),
        _ => return H_UNSUPPORTED_FLAG_63,
    };
    call.platform.cpus.set_lpcr(mask, value);
    call.effect = Effect::Sync;
    H_SUCCESS
}

const PROC_TBL_REGISTER: u64 = 0x18;
const PROC_TBL_DEREGISTER: u64 = 0x10;
const PROC_TBL_TYPE: u64 = 0x06;
const PROC_TBL_RADIX: u64 = 0x04;
const PROC_TBL_GTSE: u64 = 0x01;
/// PTCR's and the partition table's limit: 2^(12+24) bytes.
const PROC_TBL_MAX_SIZE: u64 = 24;

/// flags, base, page size, table size as log2(bytes) − 12 (PAPR 14.5.4.3.8; ISA 3.0, process table).
///
/// The tree says which MMU the guest has, so a table of the other kind is an error. A hash guest registers
/// no table, or one of segments, which KVM does not use.
pub(super) fn register_proc_tbl(call: &mut Call<'_>) -> i64 {
    let [flags, base, page_size, size, ..] = call.args;
    if !call.platform.isa_v3 {
        return H_FUNCTION;
    }
    let known = PROC_TBL_REGISTER | PROC_TBL_TYPE | PROC_TBL_GTSE;
    let register = flags & PROC_TBL_REGISTER == PROC_TBL_REGISTER;
    let deregister = flags & PROC_TBL_REGISTER == PROC_TBL_DEREGISTER;
    if flags & !known != 0 || (flags != 0 && !register && !deregister) {
        return H_PARAMETER;
    }
    if !call.platform.radix {
        let radix = register && flags & PROC_TBL_RADIX != 0;
        return if radix { H_PARAMETER } else { H_SUCCESS };
    }
    // No operation at all, as a hash guest calls, would say that this one's tables are no radix trees.
    if flags == 0 {
        return H_PARAMETER;
    }
    let (gtse, table) = if register {
        if flags & PROC_TBL_TYPE != PROC_TBL_RADIX {
            return H_PARAMETER;
        }
        if size > PROC_TBL_MAX_SIZE {
            return H_P4;
        }
        // A table is aligned to its size, and bit 0 of the address is the radix flag's place.
        if base & ((1 << (size + 12)) - 1) != 0 || base >> 60 != 0 {
            return H_P2;
        }
        if page_size != 0 {
            return H_P3;
        }
        (flags & PROC_TBL_GTSE != 0, base | size)
    } else {
        (false, 0)
    };
    match call.platform.partition.configure_mmu(true, gtse, table) {
        Ok(()) => H_SUCCESS,
        Err(error) => {
            tracing::warn!(error = %error.source, "{}", error.call);
            H_HARDWARE
        }
    }
}

/// → character, behaviour (PAPR 14.5.4.3.9; `asm/hvcall.h`).
pub(super) fn get_cpu_characteristics(call: &mut Call<'_>) -> i64 {
    let Some(c) = call.platform.characteristics else { return H_FUNCTION };
    call.args[0] = c.character;
    call.args[1] = c.behaviour;
    H_SUCCESS
}
