//! Model specific registers, many at a time.

use crate::fd::KvmFd;
use crate::ioctl::x86_64::{KVM_GET_MSR_INDEX_LIST, KVM_GET_MSRS, KVM_SET_MSRS};
use arch_api::HvError;
use kvm_bindings::{kvm_msr_entry, kvm_msr_list};
use std::io;

/// How many the kernel is told at a time.
const BATCH: usize = 64;

/// The most that a kernel lists; today's have some hundreds.
const LISTED: usize = 4096;

/// `struct kvm_msrs` with the entries behind it.
#[repr(C)]
#[derive(Clone, Copy)]
struct Msrs {
    count: u32,
    pad: u32,
    entries: [kvm_msr_entry; BATCH],
}

/// `struct kvm_msr_list` with the numbers behind it.
#[repr(C)]
#[derive(Clone, Copy)]
struct List {
    count: u32,
    indices: [u32; LISTED],
}

fn batch(msrs: &[(u32, u64)]) -> Msrs {
    let mut batch =
        Msrs { count: msrs.len().min(BATCH) as u32, pad: 0, entries: [kvm_msr_entry::default(); BATCH] };
    for (entry, &(index, data)) in batch.entries.iter_mut().zip(msrs) {
        *entry = kvm_msr_entry { index, data, ..Default::default() };
    }
    batch
}

/// How many of a batch the kernel has done.
fn done(result: Result<i32, HvError>) -> Result<usize, HvError> {
    Ok(usize::try_from(result?).unwrap_or(0))
}

/// The registers that a vCPU's state has, by KVM's own list.
pub(super) fn listed(system: &KvmFd) -> Result<Vec<u32>, HvError> {
    const _: () = assert!(std::mem::offset_of!(List, indices) == size_of::<kvm_msr_list>());
    let mut list = Box::new(List { count: LISTED as u32, indices: [0; LISTED] });
    system.exchange_long("KVM_GET_MSR_INDEX_LIST", KVM_GET_MSR_INDEX_LIST, list.as_mut())?;
    Ok(list.indices.iter().take(list.count as usize).copied().collect())
}

/// Reads registers. Those that this vCPU does not have are left out.
pub(super) fn read(vcpu: &KvmFd, indices: &[u32]) -> Result<Vec<(u32, u64)>, HvError> {
    let mut values = Vec::with_capacity(indices.len());
    let mut rest = indices;
    while !rest.is_empty() {
        let asked: Vec<(u32, u64)> = rest.iter().take(BATCH).map(|&index| (index, 0)).collect();
        let mut msrs = batch(&asked);
        let count = done(vcpu.exchange_long("KVM_GET_MSRS", KVM_GET_MSRS, &mut msrs))?.min(asked.len());
        values.extend(msrs.entries.iter().take(count).map(|entry| (entry.index, entry.data)));
        // KVM stops at the one that it cannot read.
        rest = &rest[(count + usize::from(count < asked.len())).min(rest.len())..];
    }
    Ok(values)
}

/// Writes registers that this vCPU has to have.
pub(super) fn write(vcpu: &KvmFd, msrs: &[(u32, u64)]) -> Result<(), HvError> {
    for msrs in msrs.chunks(BATCH) {
        let count = done(vcpu.read_from_long("KVM_SET_MSRS", KVM_SET_MSRS, &batch(msrs)))?;
        if let Some((index, value)) = msrs.get(count) {
            let source = io::Error::other(format!("register {index:#x} does not take {value:#x}"));
            return Err(HvError { call: "KVM_SET_MSRS", source });
        }
    }
    Ok(())
}

/// Writes back what was read. What cannot be written cannot have changed either.
pub(super) fn restore(vcpu: &KvmFd, msrs: &[(u32, u64)]) -> Result<(), HvError> {
    let mut rest = msrs;
    while !rest.is_empty() {
        let count =
            done(vcpu.read_from_long("KVM_SET_MSRS", KVM_SET_MSRS, &batch(&rest[..rest.len().min(BATCH)])))?;
        let all = count >= rest.len().min(BATCH);
        rest = &rest[(count + usize::from(!all)).min(rest.len())..];
    }
    Ok(())
}
