//! The machine on the VMM's plane: naps, doorbells, joins, and interrupts that go through the machine's own controller.

use super::*;
use crate::fake::Told;
use crate::plan::PlaneKind;
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::time::{Duration, Instant};

const MS: u64 = 1_000_000;

/// Two vCPUs, both started, which accept every interrupt; EPOW and console go to vCPU 1 with priority 5.
fn rig_of(generation: Generation, threads: u32, console: Console) -> Rig {
    let wish = Wish { threads, plane: Some(PlaneKind::Vmm), ..wish() };
    let mut rig = Rig::with(wish, generation, console).boot();
    rig.rtas(0, "start-cpu", &[1, 0x60, 0], 1);
    rig.machine.enter(1, &mut rig.vcpus[1], Entry { pc: 0x60, r3: 0 }).unwrap();
    for index in 0..2 {
        rig.hcall(index, nr::H_CPPR, &[0xff]);
    }
    for source in [layout::IRQ_EPOW, layout::IRQ_VIO] {
        rig.rtas(0, "ibm,set-xive", &[source, 1, 5], 1);
    }
    assert_eq!(rig.scheduler.told(), []);
    rig
}

fn rig(threads: u32) -> Rig {
    rig_of(Generation::Power9, threads, Console::file(Path::new("/dev/null")).unwrap())
}

/// What vCPU `index` naps for after `exit`, with its reply; `None` if it goes on at once.
fn nap_of(rig: &mut Rig, index: usize, exit: Exit) -> (Option<Nap>, Reply) {
    match rig.machine.handle(index, &mut rig.vcpus[index], exit).unwrap() {
        Action::Nap { nap, reply } => (Some(nap), reply),
        Action::Resume(reply) => (None, reply),
        action => panic!("{action:?}"),
    }
}

fn hcall(nr: u64) -> Exit {
    Exit::Hcall { nr, args: [9; 9] }
}

fn answer(ret: i64) -> Reply {
    Reply::Hcall { ret, args: [9; 9] }
}

fn xirr(rig: &mut Rig, index: usize) -> u64 {
    match rig.hcall(index, nr::H_XIRR, &[]) {
        Action::Resume(Reply::Hcall { ret: 0, args }) => args[0],
        action => panic!("{action:?}"),
    }
}

fn prepare(rig: &mut Rig, index: usize) -> bool {
    rig.machine.prepare(index, &mut rig.vcpus[index]).unwrap();
    rig.vcpus[index].pin.is_high()
}

#[test]
fn a_cede_that_comes_as_an_hcall_enables_interrupts_and_naps_till_the_decrementer() {
    for generation in [Generation::Power8, Generation::Power9] {
        let mut rig = rig_of(generation, 1, Console::file(Path::new("/dev/null")).unwrap());
        for msr in [ENTRY_MSR, ENTRY_MSR | MSR_EE] {
            let before = Regs { msr, pc: 0x700, ..Regs::default() };
            (rig.vcpus[0].regs, rig.vcpus[0].decrementer_ns) = (before, 5_000);
            let nap = Nap { timeout: Some(5_000), until: Until::Event };
            assert_eq!(nap_of(&mut rig, 0, hcall(nr::H_CEDE)), (Some(nap), answer(ret::H_SUCCESS)));
            assert_eq!(rig.vcpus[0].regs, Regs { msr: msr | MSR_EE, ..before });
        }
    }
}

#[test]
fn whose_decrementer_has_expired_does_not_nap() {
    let mut rig = rig(1);
    for expired in [0, -1, i64::MIN] {
        rig.vcpus[0].decrementer_ns = expired;
        rig.vcpus[0].regs.msr = ENTRY_MSR;
        assert_eq!(nap_of(&mut rig, 0, hcall(nr::H_CEDE)), (None, answer(ret::H_SUCCESS)));
        assert_eq!(rig.vcpus[0].regs.msr, ENTRY_MSR | MSR_EE, "enabled, so that it is taken");
        assert_eq!(nap_of(&mut rig, 0, Exit::Ceded), (None, Reply::None));
    }
}

/// Whatever the scheduler was told and has forgotten, and whether the line is high already.
#[test]
fn whoever_has_an_interrupt_does_not_nap() {
    let mut rig = rig(1);
    rig.machine.power_button().unwrap();
    for _ in 0..2 {
        for index in 0..2 {
            rig.vcpus[index].decrementer_ns = 7;
        }
        assert_eq!(nap_of(&mut rig, 1, hcall(nr::H_CEDE)), (None, answer(ret::H_SUCCESS)));
        assert_eq!(nap_of(&mut rig, 1, Exit::Ceded), (None, Reply::None));
        assert!(nap_of(&mut rig, 0, Exit::Ceded).0.is_some(), "the other has none");
        prepare(&mut rig, 1);
    }
    xirr(&mut rig, 1);
    assert!(nap_of(&mut rig, 1, Exit::Ceded).0.is_some(), "accepted");
}

/// The hypervisor has done what H_CEDE does to the registers.
#[test]
fn a_cede_that_comes_as_an_event_naps_and_leaves_the_registers() {
    let mut rig = rig(1);
    rig.vcpus[1].regs = Regs { msr: ENTRY_MSR | MSR_EE, ..Regs::default() };
    let before = rig.vcpus[1].regs;
    rig.vcpus[1].decrementer_ns = 7;
    let nap = Nap { timeout: Some(7), until: Until::Event };
    assert_eq!(nap_of(&mut rig, 1, Exit::Ceded), (Some(nap), Reply::None));
    assert_eq!(rig.vcpus[1].regs, before);
}

#[test]
fn on_the_kernels_plane_a_cede_is_nobodys() {
    let mut rig = Rig::booted();
    rig.vcpus[0].regs = Regs { pc: 0x700, msr: 0x1000, lr: 0x1234, ..Regs::default() };
    let error = rig.machine.handle(0, &mut rig.vcpus[0], Exit::Ceded).unwrap_err().to_string();
    assert_eq!(error, "vCPU 0 cannot continue: Ceded at pc 0x700 msr 0x1000 lr 0x1234");
    assert_eq!(nap_of(&mut rig, 0, hcall(nr::H_CEDE)), (None, answer(ret::H_FUNCTION)));
    assert!(rig.machine.raiser(0).is_none());
    rig.machine.prepare(0, &mut rig.vcpus[0]).unwrap();
    assert_eq!(rig.scheduler.told(), []);
}

#[test]
fn where_there_are_siblings_no_nap_is_longer_than_till_the_next_look() {
    let mut rig = rig(2);
    let mut naps = |decrementer_ns: u64| {
        rig.vcpus[1].decrementer_ns = i64::try_from(decrementer_ns).unwrap();
        nap_of(&mut rig, 1, Exit::Ceded).0.map(|nap| (nap.timeout.unwrap(), nap.until))
    };
    assert_eq!(naps(100 * MS + 1), Some((100 * MS, Until::EventOrAskAgain)));
    assert_eq!(naps(i64::MAX as u64), Some((100 * MS, Until::EventOrAskAgain)));
    assert_eq!(naps(100 * MS), Some((100 * MS, Until::Event)), "the decrementer itself");
    assert_eq!(naps(3), Some((3, Until::Event)));
}

#[test]
fn a_doorbell_ends_the_nap_and_naps_are_short_from_then_on() {
    let mut rig = rig(2);
    (rig.vcpus[1].decrementer_ns, rig.vcpus[1].doorbell) = (i64::MAX, true);
    assert_eq!(nap_of(&mut rig, 1, Exit::Ceded), (None, Reply::None));
    for index in 0..2 {
        rig.vcpus[index].decrementer_ns = i64::MAX;
        let nap = Nap { timeout: Some(MS), until: Until::EventOrAskAgain };
        assert_eq!(nap_of(&mut rig, index, Exit::Ceded), (Some(nap), Reply::None));
    }
    rig.vcpus[0].doorbell = true;
    assert_eq!(nap_of(&mut rig, 0, hcall(nr::H_CEDE)), (None, answer(ret::H_SUCCESS)));
}

#[test]
fn without_siblings_nobody_looks_for_doorbells() {
    let mut rig = rig(1);
    (rig.vcpus[1].decrementer_ns, rig.vcpus[1].doorbell) = (i64::MAX, true);
    let nap = Nap { timeout: Some(i64::MAX as u64), until: Until::Event };
    assert_eq!(nap_of(&mut rig, 1, Exit::Ceded), (Some(nap), Reply::None));
    assert!(rig.vcpus[1].doorbell, "not asked for");
}

#[test]
fn join_wants_interrupts_disabled() {
    let mut rig = rig(1);
    rig.vcpus[0].regs.msr = ENTRY_MSR | MSR_EE;
    assert_eq!(nap_of(&mut rig, 0, hcall(nr::H_JOIN)), (None, answer(ret::H_BAD_MODE)));
    rig.vcpus[1].regs.msr = ENTRY_MSR;
    let nap = Nap { timeout: None, until: Until::Prod };
    assert_eq!(
        nap_of(&mut rig, 1, hcall(nr::H_JOIN)),
        (Some(nap), answer(ret::H_SUCCESS)),
        "0 has not joined"
    );
}

#[test]
fn the_last_to_join_goes_on_and_whoever_runs_again_is_awake() {
    let mut rig = rig(1);
    let nap = Nap { timeout: None, until: Until::Prod };
    for index in 0..2 {
        rig.vcpus[index].regs.msr = ENTRY_MSR;
    }
    let joins = |rig: &mut Rig, index| nap_of(rig, index, hcall(nr::H_JOIN));
    assert_eq!(joins(&mut rig, 0), (Some(nap), answer(ret::H_SUCCESS)));
    assert_eq!(joins(&mut rig, 1), (None, answer(ret::H_CONTINUE)));
    assert_eq!(joins(&mut rig, 1), (None, answer(ret::H_CONTINUE)), "again");
    prepare(&mut rig, 0);
    assert_eq!(joins(&mut rig, 1), (Some(nap), answer(ret::H_SUCCESS)));
    rig.hcall(0, nr::H_PROD, &[1]);
    assert_eq!(rig.scheduler.told(), [Told::Prod(1)]);
    assert_eq!(joins(&mut rig, 0), (Some(nap), answer(ret::H_SUCCESS)), "1 was prodded");
    prepare(&mut rig, 0);
    rig.rtas(1, "stop-self", &[], 1);
    rig.machine.leave(1, &mut rig.vcpus[1]).unwrap();
    assert_eq!(joins(&mut rig, 0), (None, answer(ret::H_CONTINUE)), "1 is stopped");
}

#[test]
fn the_pin_says_what_the_controller_says_before_the_guest_is_entered() {
    let mut rig = rig(1);
    assert!(!prepare(&mut rig, 1));
    rig.machine.power_button().unwrap();
    assert_eq!(rig.machine.vm.asked(), [], "the hypervisor's controller is none");
    assert_eq!(rig.scheduler.told(), [Told::Interrupt(1)]);
    assert!(!rig.vcpus[1].pin.is_high(), "that is the scheduler's to have done");
    assert!(prepare(&mut rig, 1));
    assert!(prepare(&mut rig, 1), "as long as it is pending");
    assert!(!prepare(&mut rig, 0), "of this vCPU alone");
    assert_eq!(xirr(&mut rig, 1), 0xff00_0000 | u64::from(layout::IRQ_EPOW));
    assert!(!prepare(&mut rig, 1), "accepted");
    let args = [0x500, layout::IRQ_EPOW, EPOW_EVENTS, 0, BLOCK as u32 + 0x1000, 2048];
    rig.rtas(1, "check-exception", &args, 1);
    assert_eq!(rig.byte(BLOCK + 0x1000), 6, "a log of version 6");
}

#[test]
fn a_raiser_raises_the_pin_of_its_vcpu_and_too_late_does_no_harm() {
    let mut rig = rig(1);
    let raiser = rig.machine.raiser(1).unwrap();
    rig.machine.power_button().unwrap();
    raiser.raise();
    assert!(rig.vcpus[1].pin.is_high() && !rig.vcpus[0].pin.is_high());
    xirr(&mut rig, 1);
    raiser.raise();
    assert_eq!(xirr(&mut rig, 1), 0x0500_0000, "an interrupt of nobody");
    assert!(!prepare(&mut rig, 1));
}

#[test]
fn console_input_interrupts() {
    let console = Console::pty().unwrap();
    let path = console.pty_path().unwrap().to_owned();
    let mut rig = rig_of(Generation::Power9, 1, console);
    // O_NOCTTY from <fcntl.h>, the same on x86 and POWER.
    let mut user = OpenOptions::new().read(true).write(true).custom_flags(0o400).open(path).unwrap();
    user.write_all(b"x").unwrap();
    let deadline = Instant::now() + Duration::from_secs(10);
    while rig.scheduler.told().is_empty() {
        assert!(Instant::now() < deadline, "input did not interrupt");
        rig.machine.platform.console.pump().unwrap();
    }
    assert_eq!(rig.machine.vm.asked(), []);
    assert!(prepare(&mut rig, 1));
    assert_eq!(xirr(&mut rig, 1), 0xff00_0000 | u64::from(layout::IRQ_VIO));
}

/// Nothing of its former life is pending, and what comes waits until it opens.
#[test]
fn a_vcpu_that_starts_again_has_a_clean_icp() {
    let mut rig = rig(1);
    rig.hcall(0, nr::H_IPI, &[1, 4]);
    rig.machine.power_button().unwrap();
    rig.rtas(1, "stop-self", &[], 1);
    rig.machine.leave(1, &mut rig.vcpus[1]).unwrap();
    assert!(!rig.vcpus[1].online);
    rig.rtas(0, "start-cpu", &[1, 0x80, 0], 1);
    rig.machine.enter(1, &mut rig.vcpus[1], Entry { pc: 0x80, r3: 0 }).unwrap();
    rig.scheduler.told();
    assert!(!prepare(&mut rig, 1));
    assert_eq!(rig.machine.platform.own.as_ref().unwrap().xics.ipoll(1), Ok((0, 0xff)));
    rig.hcall(1, nr::H_CPPR, &[0xff]);
    assert_eq!(rig.scheduler.told(), [Told::Interrupt(1)], "the device's event is still to be served");
    assert_eq!(xirr(&mut rig, 1), 0xff00_0000 | u64::from(layout::IRQ_EPOW));
}

#[test]
fn a_reboot_resets_the_controller_and_who_has_joined() {
    let mut rig = rig(1);
    rig.machine.power_button().unwrap();
    rig.hcall(1, nr::H_IPI, &[0, 4]);
    rig.vcpus[1].regs.msr = ENTRY_MSR;
    assert!(matches!(rig.hcall(1, nr::H_JOIN, &[]), Action::Nap { .. }));
    assert!(prepare(&mut rig, 0));
    rig.machine.leave(0, &mut rig.vcpus[0]).unwrap();
    rig.machine.leave(1, &mut rig.vcpus[1]).unwrap();

    let mut rig = rig.boot();
    let xics = &rig.machine.platform.own.as_ref().unwrap().xics;
    for index in 0..2 {
        assert_eq!(xics.ipoll(index), Ok((0, 0xff)), "vCPU {index}");
    }
    for source in [layout::IRQ_EPOW, layout::IRQ_VIO] {
        assert_eq!(xics.get_xive(source), Ok((0, 0xff)));
    }
    assert!(!prepare(&mut rig, 0));
    rig.hcall(0, nr::H_CPPR, &[0xff]);
    assert!(rig.machine.platform.cpus.try_start(1) && rig.machine.platform.cpus.try_join(0));
}

/// The event is of the thread that opens it.
#[test]
fn cedes_are_watched_from_the_vcpus_own_thread() {
    let rig = rig(1);
    assert!(rig.vcpus.iter().all(|vcpu| vcpu.watches == 1));
}
