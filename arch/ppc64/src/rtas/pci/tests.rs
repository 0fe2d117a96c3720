//! Configuration space and messages by RTAS calls.

use super::*;
use crate::fake::Guest;
use crate::fake::function::{COMMAND, IDENTITY, VECTORS};
use crate::hcall::Effect;
use crate::layout::{IRQ_MSI, PCI_MSI};
use irq::Message;

const HIGH: u32 = (PCI_BUID >> 32) as u32;
const LOW: u32 = PCI_BUID as u32;

/// A register of the function in `slot`, as an argument.
fn at(slot: u32, offset: u32) -> u32 {
    (offset & 0xf00) << 20 | slot << 11 | offset & 0xff
}

fn read(guest: &Guest, address: u32, size: u32) -> (i32, u32) {
    let (status, rets, effect) = guest.rtas("ibm,read-pci-config", &[address, HIGH, LOW, size], 2);
    assert_eq!(effect, Effect::None);
    (status, rets[0])
}

fn write(guest: &Guest, address: u32, size: u32, value: u32) -> i32 {
    guest.rtas("ibm,write-pci-config", &[address, HIGH, LOW, size, value], 1).0
}

/// Status, number, next sequence number, kind.
fn change(guest: &Guest, slot: u32, asked: u32, number: u32) -> (i32, [u32; 3]) {
    let (status, rets, _) = guest.rtas("ibm,change-msi", &[at(slot, 0), HIGH, LOW, asked, number, 7], 4);
    (status, rets.try_into().unwrap())
}

fn query(guest: &Guest, slot: u32, index: u32) -> (i32, Vec<u32>) {
    let args = [at(slot, 0), HIGH, LOW, index];
    let (status, rets, _) = guest.rtas("ibm,query-interrupt-source-number", &args, 3);
    (status, rets)
}

const WRONG: i32 = status::PARAMETER_ERROR;

#[test]
fn a_value_is_a_number_whatever_its_width() {
    let guest = Guest::new();
    assert_eq!(write(&guest, at(0, 0x40), 4, 0x1234_5678), status::SUCCESS);
    assert_eq!(read(&guest, at(0, 0x40), 4), (status::SUCCESS, 0x1234_5678));
    assert_eq!(read(&guest, at(0, 0x40), 2), (status::SUCCESS, 0x5678));
    assert_eq!(read(&guest, at(0, 0x42), 2), (status::SUCCESS, 0x1234));
    assert_eq!(read(&guest, at(0, 0x43), 1), (status::SUCCESS, 0x12));
    assert_eq!(write(&guest, at(0, 0x41), 1, 0xffff_ffab), status::SUCCESS);
    assert_eq!(read(&guest, at(0, 0x40), 4), (status::SUCCESS, 0x1234_ab78));
    assert_eq!(read(&guest, at(1, 0x40), 4), (status::SUCCESS, 0), "another function");
}

#[test]
fn the_calls_without_a_unit_id_reach_the_same() {
    let guest = Guest::new();
    let (done, rets, _) = guest.rtas("write-pci-config", &[at(2, 0x40), 4, 5], 1);
    assert_eq!((done, rets), (status::SUCCESS, vec![]));
    assert_eq!(read(&guest, at(2, 0x40), 4), (status::SUCCESS, 5));
    assert_eq!(guest.rtas("read-pci-config", &[at(2, 0x40), 2], 2).1, [5]);
    assert_eq!(guest.rtas("read-pci-config", &[at(2, 0x40), 3], 2).0, WRONG);
}

#[test]
fn extended_registers_have_their_bits_on_top() {
    let guest = Guest::new();
    assert_eq!(write(&guest, at(0, 0xffc), 4, 0x77), status::SUCCESS);
    assert_eq!(at(0, 0xffc), 0xf000_00fc);
    assert_eq!(read(&guest, 0xf000_00fc, 4), (status::SUCCESS, 0x77));
    assert_eq!(read(&guest, 0xfc, 4), (status::SUCCESS, 0));
}

#[test]
fn what_is_not_there_is_a_parameter_error() {
    let guest = Guest::new();
    let good = at(0, COMMAND.into());
    for (address, high, low, size) in [
        (at(3, 0), HIGH, LOW, 4),
        (at(31, 0), HIGH, LOW, 4),
        (good | 1 << 8, HIGH, LOW, 4),
        (good | 1 << 16, HIGH, LOW, 4),
        (good | 1 << 24, HIGH, LOW, 4),
        (good, HIGH + 1, LOW, 4),
        (good, HIGH, LOW ^ 1, 4),
        (good, 0, 0, 4),
        (good, HIGH, LOW, 0),
        (good, HIGH, LOW, 3),
        (good, HIGH, LOW, 8),
        (good, HIGH, LOW, u32::MAX),
        (good + 1, HIGH, LOW, 2),
        (good + 2, HIGH, LOW, 4),
        (u32::MAX, HIGH, LOW, 1),
    ] {
        let args = [address, high, low, size];
        assert_eq!(guest.rtas("ibm,read-pci-config", &args, 2).0, WRONG, "{args:x?}");
        let args = [address, high, low, size, 0];
        assert_eq!(guest.rtas("ibm,write-pci-config", &args, 1).0, WRONG, "{args:x?}");
    }
}

#[test]
fn without_a_host_bridge_there_is_nothing() {
    let mut guest = Guest::new();
    guest.platform.phb = None;
    assert_eq!(read(&guest, at(0, 0), 4).0, WRONG);
    assert_eq!(write(&guest, at(0, 4), 4, 0), WRONG);
    assert_eq!(change(&guest, 0, 4, 1).0, WRONG);
    assert_eq!(query(&guest, 0, 0).0, WRONG);
}

#[test]
fn messages_are_granted_one_after_the_other_and_set_in_the_function() {
    let guest = Guest::new();
    let message = |source| Message { address: PCI_MSI, data: source };
    let none = Message::default();
    assert_eq!(query(&guest, 0, 0).0, WRONG, "none yet");
    assert_eq!(change(&guest, 0, 4, 2), (status::SUCCESS, [2, 8, 4]));
    let set = vec![message(IRQ_MSI), message(IRQ_MSI + 1), none];
    assert_eq!(guest.functions[0].messages(), (set, true));
    assert_eq!(query(&guest, 0, 1), (status::SUCCESS, vec![IRQ_MSI + 1, 1]));
    assert_eq!(query(&guest, 0, 2).0, WRONG);
    assert_eq!(query(&guest, 0, u32::MAX).0, WRONG);

    assert_eq!(change(&guest, 2, 1, 2), (status::SUCCESS, [2, 8, 4]));
    assert_eq!(query(&guest, 2, 0), (status::SUCCESS, vec![IRQ_MSI + 3, 1]), "behind those of the first");

    assert_eq!(change(&guest, 0, 4, 0), (status::SUCCESS, [0, 8, 4]));
    assert_eq!(guest.functions[0].messages(), (vec![none; 3], false));
    assert_eq!(query(&guest, 0, 0).0, WRONG);
    assert_eq!(query(&guest, 2, 0).0, status::SUCCESS);
}

#[test]
fn who_asks_for_more_than_there_are_gets_those() {
    let guest = Guest::new();
    for number in [4, 2048, u32::MAX] {
        assert_eq!(change(&guest, 0, 4, number), (status::SUCCESS, [VECTORS[0].into(), 8, 4]), "{number}");
        assert_eq!(query(&guest, 0, 2).0, status::SUCCESS);
    }
    assert_eq!(change(&guest, 1, 4, 1), (status::SUCCESS, [0, 8, 4]), "it has none");
    assert_eq!(query(&guest, 1, 0).0, WRONG);
}

#[test]
fn there_is_no_msi_but_taking_back_none_is_right() {
    let guest = Guest::new();
    assert_eq!(change(&guest, 0, 3, 1).0, WRONG);
    assert_eq!(change(&guest, 0, 4, 3).0, status::SUCCESS);
    for asked in [0, 2, 5, 6, u32::MAX] {
        assert_eq!(change(&guest, 0, asked, 0).0, WRONG, "{asked}");
    }
    assert!(guest.functions[0].messages().1);
    assert_eq!(change(&guest, 0, 3, 0), (status::SUCCESS, [0, 8, 4]));
    assert!(!guest.functions[0].messages().1);
}

#[test]
fn messages_are_those_of_a_function_that_is_there() {
    let guest = Guest::new();
    for address in [at(3, 0), at(0, 4), 1 << 16, 1 << 8, u32::MAX] {
        let args = [address, HIGH, LOW, 4, 1, 1];
        assert_eq!(guest.rtas("ibm,change-msi", &args, 3).0, WRONG, "{address:#x}");
        let args = [address, HIGH, LOW, 0];
        assert_eq!(guest.rtas("ibm,query-interrupt-source-number", &args, 3).0, WRONG, "{address:#x}");
    }
    let args = [0, HIGH, LOW + 1, 4, 1, 1];
    assert_eq!(guest.rtas("ibm,change-msi", &args, 3).0, WRONG);
    assert!(guest.functions.iter().all(|function| !function.messages().1));
}

#[test]
fn the_kind_is_told_where_there_is_room() {
    let guest = Guest::new();
    let args = [0, HIGH, LOW, 4, 1, u32::MAX];
    assert_eq!(guest.rtas("ibm,change-msi", &args, 3).1, [1, 0], "the sequence wraps");
    assert_eq!(guest.rtas("ibm,change-msi", &args, 4).1, [1, 0, 4]);
}

#[test]
fn the_header_is_what_the_tree_says() {
    let guest = Guest::new();
    let functions = guest.platform.phb.as_ref().unwrap().functions();
    let seen: Vec<_> = functions.iter().map(|f| (f.devfn, f.identity, f.messages, f.lsi)).collect();
    let expected: Vec<_> = (0..)
        .zip(VECTORS)
        .map(|(slot, &vectors)| (slot << 3, IDENTITY, vectors, 0x1200 + u32::from(slot)))
        .collect();
    assert_eq!(seen, expected);
}
