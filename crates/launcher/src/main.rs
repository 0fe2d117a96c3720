//! A KVM virtual machine monitor for POWER.

fn main() {}
