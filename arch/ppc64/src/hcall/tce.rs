//! The DMA window of the PCI host bridge: H_PUT_TCE and its like (PAPR 14.5.4.2; the kernel's `book3s_64_vio.c`).
//!
//! KVM takes H_PUT_TCE and H_GET_TCE for tables that it was given (KVM_CREATE_SPAPR_TCE_64) and passes others on; it is given
//! none, since a device of ours has to look into the table.

use super::Call;
use crate::layout::PCI_LIOBN;
use crate::papr::ret::{H_PARAMETER, H_SUCCESS};
use crate::phb::tce::{PAGE_SHIFT, Tce, TceTable};
use std::ops::Range;
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap};

/// The most entries of one H_PUT_TCE_INDIRECT: a page of them.
const INDIRECT_MAX: usize = 512;

/// The table that `liobn` names, and the entries of `count` pages from `ioba` in it.
fn entries<'a>(call: &Call<'a>, ioba: u64, count: u64) -> Option<(&'a TceTable, Range<usize>)> {
    let table = call.platform.phb.as_ref().filter(|_| call.args[0] == u64::from(PCI_LIOBN))?.tces();
    Some((table, table.range(ioba, count)?))
}

/// Whether an entry may be stored: what it lets a device touch is RAM.
fn is_good(memory: &GuestMemoryMmap, tce: u64) -> bool {
    let tce = Tce(tce);
    tce.permissions().is_none() || memory.check_range(GuestAddress(tce.page()), 1 << PAGE_SHIFT)
}

fn answer(done: Option<()>) -> i64 {
    if done.is_some() { H_SUCCESS } else { H_PARAMETER }
}

/// LIOBN, bus address, entry.
pub(super) fn put_tce(call: &mut Call<'_>) -> i64 {
    let [_, ioba, tce, ..] = call.args;
    answer(entries(call, ioba, 1).filter(|_| is_good(&call.platform.memory, tce)).map(|(table, range)| {
        table.set(range.start, tce);
    }))
}

/// LIOBN, bus address → entry.
pub(super) fn get_tce(call: &mut Call<'_>) -> i64 {
    let Some((table, range)) = entries(call, call.args[1], 1) else { return H_PARAMETER };
    call.args[0] = table.get(range.start);
    H_SUCCESS
}

/// LIOBN, bus address, a page of big-endian entries, how many. All of them are stored, or none.
pub(super) fn put_tce_indirect(call: &mut Call<'_>) -> i64 {
    let [_, ioba, list, count, ..] = call.args;
    let put = || {
        let (table, range) = entries(call, ioba, count)?;
        if range.len() > INDIRECT_MAX || list % (1 << PAGE_SHIFT) != 0 {
            return None;
        }
        // Read once: the guest may write there meanwhile.
        let mut tces = [[0; 8]; INDIRECT_MAX];
        let tces = &mut tces[..range.len()];
        let memory = &call.platform.memory;
        if !tces.is_empty() {
            memory.read_slice(tces.as_flattened_mut(), GuestAddress(list)).ok()?;
        }
        let tces = || tces.iter().map(|tce| u64::from_be_bytes(*tce));
        if !tces().all(|tce| is_good(memory, tce)) {
            return None;
        }
        range.zip(tces()).for_each(|(index, tce)| table.set(index, tce));
        Some(())
    };
    answer(put())
}

/// LIOBN, bus address, an entry that allows nothing, how many times.
pub(super) fn stuff_tce(call: &mut Call<'_>) -> i64 {
    let [_, ioba, tce, count, ..] = call.args;
    let entries = entries(call, ioba, count).filter(|_| Tce(tce).permissions().is_none());
    answer(entries.map(|(table, range)| range.for_each(|index| table.set(index, tce))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::Guest;
    use crate::layout::PCI_DMA_SIZE;
    use crate::papr::nr::{H_GET_TCE, H_PUT_TCE, H_PUT_TCE_INDIRECT, H_STUFF_TCE};

    const LIOBN: u64 = PCI_LIOBN as u64;
    const LIST: u64 = 0x3000;

    fn get(guest: &Guest, ioba: u64) -> u64 {
        let answer = guest.hcall(H_GET_TCE, &[LIOBN, ioba]);
        assert_eq!(answer.ret, H_SUCCESS);
        answer.args[0]
    }

    fn list(guest: &Guest, tces: &[u64]) {
        let bytes: Vec<u8> = tces.iter().flat_map(|tce| tce.to_be_bytes()).collect();
        guest.platform.memory.write_slice(&bytes, GuestAddress(LIST)).unwrap();
    }

    #[test]
    fn an_entry_reads_as_it_was_put() {
        let guest = Guest::new();
        assert_eq!(get(&guest, 0x5000), 0);
        assert_eq!(guest.ret(H_PUT_TCE, &[LIOBN, 0x5000, 0x7003]), H_SUCCESS);
        assert_eq!((get(&guest, 0x4000), get(&guest, 0x5000), get(&guest, 0x6000)), (0, 0x7003, 0));
        assert_eq!(guest.ret(H_PUT_TCE, &[LIOBN, 0x5000, 0]), H_SUCCESS);
        assert_eq!(get(&guest, 0x5000), 0);
    }

    #[test]
    fn a_bad_window_address_or_page_is_h_parameter() {
        let guest = Guest::new();
        for (liobn, ioba, tce) in [
            (0, 0, 0),
            (LIOBN + 1, 0, 0),
            (LIOBN | 1 << 32, 0, 0),
            (LIOBN, 1, 0),
            (LIOBN, PCI_DMA_SIZE, 0),
            (LIOBN, !0xfff, 0),
            (LIOBN, 0, 1 << 20 | 1),
            (LIOBN, 0, !0xfff | 3),
        ] {
            assert_eq!(
                guest.ret(H_PUT_TCE, &[liobn, ioba, tce]),
                H_PARAMETER,
                "{liobn:#x} {ioba:#x} {tce:#x}"
            );
        }
        assert_eq!(guest.ret(H_GET_TCE, &[LIOBN, PCI_DMA_SIZE]), H_PARAMETER);
        assert_eq!(guest.ret(H_GET_TCE, &[LIOBN ^ 1, 0]), H_PARAMETER);
        assert_eq!(get(&guest, 0), 0);
    }

    #[test]
    fn a_list_is_stored_whole_or_not_at_all() {
        let guest = Guest::new();
        list(&guest, &[0x1001, 0x2002, 0x3003]);
        assert_eq!(guest.ret(H_PUT_TCE_INDIRECT, &[LIOBN, 0x8000, LIST, 3]), H_SUCCESS);
        assert_eq!(
            [0x8000, 0x9000, 0xa000, 0xb000].map(|ioba| get(&guest, ioba)),
            [0x1001, 0x2002, 0x3003, 0]
        );
        list(&guest, &[0x5001, 1 << 20 | 1]);
        assert_eq!(guest.ret(H_PUT_TCE_INDIRECT, &[LIOBN, 0x8000, LIST, 2]), H_PARAMETER);
        assert_eq!(get(&guest, 0x8000), 0x1001);
        for (ioba, at, count) in [
            (0, LIST, 513),
            (0, LIST + 8, 1),
            (0, 1 << 20, 1),
            (0, !0xfff, 512),
            (PCI_DMA_SIZE - 0x1000, LIST, 2),
            (0, LIST, u64::MAX),
        ] {
            assert_eq!(
                guest.ret(H_PUT_TCE_INDIRECT, &[LIOBN, ioba, at, count]),
                H_PARAMETER,
                "{ioba:#x} {count:#x}"
            );
        }
        assert_eq!(
            guest.ret(H_PUT_TCE_INDIRECT, &[LIOBN, 0, LIST, 512]),
            H_PARAMETER,
            "the page has one bad entry"
        );
        assert_eq!(guest.ret(H_PUT_TCE_INDIRECT, &[LIOBN, 0, LIST, 0]), H_SUCCESS);
    }

    #[test]
    fn stuffing_allows_nothing() {
        let guest = Guest::new();
        for ioba in [0x1000, 0x2000, 0x3000] {
            guest.ret(H_PUT_TCE, &[LIOBN, ioba, 0x7003]);
        }
        assert_eq!(guest.ret(H_STUFF_TCE, &[LIOBN, 0x1000, 0x7001, 2]), H_PARAMETER);
        assert_eq!(guest.ret(H_STUFF_TCE, &[LIOBN, 0x1000, 0x7000, 2]), H_SUCCESS);
        assert_eq!([0x1000, 0x2000, 0x3000].map(|ioba| get(&guest, ioba)), [0x7000, 0x7000, 0x7003]);
        assert_eq!(guest.ret(H_STUFF_TCE, &[LIOBN, 0, 0, PCI_DMA_SIZE >> 12]), H_SUCCESS);
        assert_eq!(guest.ret(H_STUFF_TCE, &[LIOBN, 0, 0, (PCI_DMA_SIZE >> 12) + 1]), H_PARAMETER);
        assert_eq!(get(&guest, 0x3000), 0);
    }
}
