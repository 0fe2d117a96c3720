//! The orders of events that are easily got wrong, one test each.

use super::*;

const EDGE: u32 = 0x1000;
const OTHER: u32 = 0x1300;
const LSI: u32 = 0x1200;

/// Two servers that accept everything, and sources at priority 5 on server 0.
fn xics() -> Xics {
    let xics = Xics::new(2, &[(OTHER, Trigger::Edge), (EDGE, Trigger::Edge), (LSI, Trigger::Level)]);
    for irq in [EDGE, OTHER, LSI] {
        xics.set_xive(irq, 0, 5, quiet).unwrap();
    }
    (0..2).for_each(|server| xics.cppr(server, 0xff, quiet));
    xics
}

fn event(xics: &Xics, irq: u32) {
    xics.set(irq, true, quiet).unwrap();
}

/// What H_XIRR gives when it finds `irq` with CPPR `cppr`.
fn xirr(cppr: u8, irq: u32) -> u32 {
    u32::from(cppr) << 24 | irq
}

/// Accepts `irq` with everything open, and ends it.
fn serve(xics: &Xics, server: usize, irq: u32) {
    assert_eq!(xics.xirr(server), xirr(0xff, irq));
    xics.eoi(server, xirr(0xff, irq), quiet).unwrap();
}

/// Nothing is pending for this server with everything open.
fn none(xics: &Xics, server: usize) {
    assert!(!xics.pending(server));
    assert_eq!(xics.xirr(server), xirr(0xff, 0));
}

#[test]
fn an_event_is_told_accepted_and_ended() {
    let (xics, told) = (xics(), Told::default());
    xics.set(EDGE, true, told.note()).unwrap();
    assert_eq!(told.take(), [0]);
    assert!(xics.pending(0) && !xics.pending(1));
    assert_eq!(xics.ipoll(0), Ok((xirr(0xff, EDGE), 0xff)));
    assert_eq!(xics.xirr(0), xirr(0xff, EDGE));
    assert!(!xics.pending(0));
    assert_eq!(xics.xirr(0), xirr(5, 0), "CPPR is what was accepted");
    xics.eoi(0, xirr(0xff, EDGE), told.note()).unwrap();
    assert_eq!(told.take(), NOBODY);
    none(&xics, 0);
}

#[test]
fn at_boot_all_is_masked_and_closed() {
    let xics = Xics::new(1, &[(EDGE, Trigger::Edge)]);
    assert_eq!(xics.get_xive(EDGE), Ok((0, 0xff)));
    event(&xics, EDGE);
    assert_eq!(xics.ipoll(0), Ok((0, 0xff)));
    assert!(!xics.pending(0));
}

#[test]
fn the_low_level_of_an_edge_is_nothing() {
    let (xics, told) = (xics(), Told::default());
    xics.set(EDGE, false, told.note()).unwrap();
    none(&xics, 0);
    event(&xics, EDGE);
    xics.set(EDGE, false, told.note()).unwrap();
    serve(&xics, 0, EDGE);
    assert_eq!(told.take(), NOBODY);
}

#[test]
fn a_closed_server_is_told_when_it_opens() {
    let (xics, told) = (xics(), Told::default());
    xics.cppr(0, 5, quiet);
    xics.set(EDGE, true, told.note()).unwrap();
    assert_eq!(told.take(), NOBODY, "priority 5 does not interrupt CPPR 5");
    xics.cppr(0, 6, told.note());
    assert_eq!(told.take(), [0]);
    assert_eq!(xics.xirr(0), xirr(6, EDGE));
}

/// CPPR is made more favoured than what is pending, and less again.
#[test]
fn a_pending_source_goes_back_and_comes_again() {
    let (xics, told) = (xics(), Told::default());
    event(&xics, EDGE);
    xics.cppr(0, 5, told.note());
    assert!(!xics.pending(0));
    assert_eq!((xics.xirr(0), told.take()), (xirr(5, 0), NOBODY.to_vec()));
    xics.cppr(0, 0xff, told.note());
    assert_eq!(told.take(), [0]);
    serve(&xics, 0, EDGE);
    none(&xics, 0);
}

#[test]
fn a_more_favoured_source_takes_the_place() {
    let (xics, told) = (xics(), Told::default());
    xics.set_xive(OTHER, 0, 4, quiet).unwrap();
    event(&xics, EDGE);
    xics.set(OTHER, true, told.note()).unwrap();
    assert_eq!(told.take(), [0]);
    assert_eq!(xics.xirr(0), xirr(0xff, OTHER));
    assert!(!xics.pending(0), "the other one waits for the EOI");
    xics.eoi(0, xirr(0xff, OTHER), told.note()).unwrap();
    assert_eq!(told.take(), [0]);
    serve(&xics, 0, EDGE);
    none(&xics, 0);
}

/// What loses its place may have been routed elsewhere meanwhile, and displace yet another there.
#[test]
fn places_are_lost_in_a_row() {
    let xics = xics();
    event(&xics, EDGE);
    xics.set_xive(EDGE, 1, 5, quiet).unwrap();
    xics.set_xive(LSI, 1, 6, quiet).unwrap();
    event(&xics, LSI);
    xics.set_xive(OTHER, 0, 4, quiet).unwrap();
    let told = Told::default();
    xics.set(OTHER, true, told.note()).unwrap();
    assert_eq!(told.take(), [0, 1]);
    serve(&xics, 0, OTHER);
    serve(&xics, 1, EDGE);
    serve(&xics, 1, LSI);
}

#[test]
fn an_equal_source_waits_for_the_ipi_and_yields_to_it() {
    let xics = xics();
    xics.ipi(0, 5, quiet).unwrap();
    event(&xics, EDGE);
    assert_eq!(xics.xirr(0), xirr(0xff, IPI));
    xics.ipi(0, 0xff, quiet).unwrap();
    xics.eoi(0, xirr(0xff, IPI), quiet).unwrap();
    assert_eq!(xics.ipoll(0), Ok((xirr(0xff, EDGE), 0xff)));
    let told = Told::default();
    xics.ipi(0, 5, told.note()).unwrap();
    assert_eq!(told.take(), [0]);
    assert_eq!(xics.xirr(0), xirr(0xff, IPI));
    xics.ipi(0, 0xff, quiet).unwrap();
    xics.eoi(0, xirr(0xff, IPI), quiet).unwrap();
    serve(&xics, 0, EDGE);
    none(&xics, 0);
}

#[test]
fn an_ipi_comes_again_until_it_is_taken_back() {
    let (xics, told) = (xics(), Told::default());
    xics.ipi(1, 4, told.note()).unwrap();
    assert_eq!(told.take(), [1]);
    assert_eq!(xics.ipoll(1), Ok((xirr(0xff, IPI), 4)));
    assert_eq!(xics.xirr(1), xirr(0xff, IPI));
    xics.eoi(1, xirr(0xff, IPI), told.note()).unwrap();
    assert_eq!(told.take(), [1], "MFRR still asks");
    assert_eq!(xics.xirr(1), xirr(0xff, IPI));
    xics.ipi(1, 0xff, told.note()).unwrap();
    xics.eoi(1, xirr(0xff, IPI), told.note()).unwrap();
    assert_eq!(told.take(), NOBODY);
    none(&xics, 1);
}

#[test]
fn an_ipi_waits_for_cppr() {
    let (xics, told) = (xics(), Told::default());
    xics.cppr(0, 4, quiet);
    xics.ipi(0, 4, told.note()).unwrap();
    assert!(!xics.pending(0) && told.take().is_empty());
    xics.cppr(0, 5, told.note());
    assert!(xics.pending(0));
    assert_eq!(told.take(), [0]);
    xics.cppr(0, 4, quiet);
    assert!(!xics.pending(0), "an IPI goes back to MFRR");
    xics.cppr(0, 0xff, quiet);
    assert_eq!(xics.xirr(0), xirr(0xff, IPI));
}

/// An IPI of its own priority kept it out, and is taken back while the processor is closed.
#[test]
fn a_source_comes_when_the_request_is_taken_back() {
    let (xics, told) = (xics(), Told::default());
    xics.cppr(0, 3, quiet);
    xics.ipi(0, 3, quiet).unwrap();
    xics.set_xive(EDGE, 0, 3, quiet).unwrap();
    event(&xics, EDGE);
    xics.cppr(0, 4, quiet);
    xics.cppr(0, 3, quiet);
    xics.ipi(0, 0xff, quiet).unwrap();
    xics.cppr(0, 4, told.note());
    assert_eq!(told.take(), [0]);
    assert_eq!(xics.xirr(0), xirr(4, EDGE));
}

#[test]
fn eoi_of_nonsense_is_an_error_but_sets_cppr() {
    let xics = xics();
    xics.cppr(0, 0, quiet);
    event(&xics, EDGE);
    for irq in [0, 1, 3, 0x1001, 0xff_ffff] {
        xics.cppr(0, 0, quiet);
        assert_eq!(xics.eoi(0, xirr(0xff, irq), quiet), Err(XicsError::Source), "{irq:#x}");
        assert_eq!(xics.ipoll(0), Ok((xirr(0xff, EDGE), 0xff)));
    }
}

/// An EOI of what the guest never accepted gives nothing away and takes nothing.
#[test]
fn eoi_before_its_time_loses_nothing() {
    let xics = xics();
    xics.cppr(0, 0, quiet);
    event(&xics, EDGE);
    xics.eoi(1, xirr(0xff, EDGE), quiet).unwrap();
    xics.cppr(0, 0xff, quiet);
    xics.eoi(1, xirr(0xff, EDGE), quiet).unwrap();
    serve(&xics, 0, EDGE);
    none(&xics, 0);
    none(&xics, 1);
}

/// EOI is for opening, but a guest may close with it: what is pending must not stay above CPPR.
#[test]
fn eoi_that_closes_sends_the_pending_source_back() {
    let xics = xics();
    event(&xics, EDGE);
    xics.eoi(0, xirr(3, IPI), quiet).unwrap();
    assert!(!xics.pending(0));
    xics.cppr(0, 0xff, quiet);
    serve(&xics, 0, EDGE);
}

#[test]
fn a_masked_event_is_remembered_once() {
    let (xics, told) = (xics(), Told::default());
    xics.int_off(EDGE).unwrap();
    assert_eq!(xics.get_xive(EDGE), Ok((0, 0xff)));
    event(&xics, EDGE);
    event(&xics, EDGE);
    none(&xics, 0);
    xics.int_on(EDGE, told.note()).unwrap();
    assert_eq!(told.take(), [0]);
    assert_eq!(xics.get_xive(EDGE), Ok((0, 5)));
    serve(&xics, 0, EDGE);
    none(&xics, 0);
}

/// As KVM and QEMU have it: the second int-off saves 0xff.
#[test]
fn int_off_twice_needs_a_new_priority() {
    let xics = xics();
    xics.int_off(EDGE).unwrap();
    xics.int_off(EDGE).unwrap();
    event(&xics, EDGE);
    xics.int_on(EDGE, quiet).unwrap();
    none(&xics, 0);
    xics.set_xive(EDGE, 0, 5, quiet).unwrap();
    serve(&xics, 0, EDGE);
}

/// It was pending, rejected and masked before it could come again.
#[test]
fn a_rejected_source_that_is_masked_waits_for_int_on() {
    let xics = xics();
    event(&xics, EDGE);
    xics.int_off(EDGE).unwrap();
    xics.cppr(0, 0, quiet);
    xics.cppr(0, 0xff, quiet);
    none(&xics, 0);
    xics.int_on(EDGE, quiet).unwrap();
    serve(&xics, 0, EDGE);
}

#[test]
fn set_xive_moves_a_waiting_source() {
    let (xics, told) = (xics(), Told::default());
    xics.cppr(0, 0, quiet);
    event(&xics, EDGE);
    xics.set_xive(EDGE, 1, 5, told.note()).unwrap();
    assert_eq!(told.take(), [1]);
    serve(&xics, 1, EDGE);
    xics.cppr(0, 0xff, told.note());
    assert_eq!(told.take(), NOBODY);
    none(&xics, 0);
}

#[test]
fn set_xive_leaves_a_source_where_it_is_presented() {
    let xics = xics();
    event(&xics, EDGE);
    xics.set_xive(EDGE, 1, 5, quiet).unwrap();
    none(&xics, 1);
    event(&xics, EDGE);
    assert_eq!(xics.xirr(0), xirr(0xff, EDGE));
    xics.eoi(0, xirr(0xff, EDGE), quiet).unwrap();
    none(&xics, 0);
    serve(&xics, 1, EDGE);
}

#[test]
fn events_while_it_is_served_are_one_more() {
    let xics = xics();
    event(&xics, EDGE);
    assert_eq!(xics.xirr(0), xirr(0xff, EDGE));
    event(&xics, EDGE);
    event(&xics, EDGE);
    assert!(!xics.pending(0));
    let told = Told::default();
    xics.eoi(0, xirr(0xff, EDGE), told.note()).unwrap();
    assert_eq!(told.take(), [0]);
    serve(&xics, 0, EDGE);
    none(&xics, 0);
}

#[test]
fn an_lsi_comes_again_while_it_is_asserted() {
    let (xics, told) = (xics(), Told::default());
    xics.set(LSI, true, told.note()).unwrap();
    xics.set(LSI, true, told.note()).unwrap();
    assert_eq!(told.take(), [0]);
    for _ in 0..3 {
        assert_eq!(xics.xirr(0), xirr(0xff, LSI));
        xics.eoi(0, xirr(0xff, LSI), told.note()).unwrap();
        assert_eq!(told.take(), [0]);
    }
    assert_eq!(xics.xirr(0), xirr(0xff, LSI));
    xics.set(LSI, false, quiet).unwrap();
    xics.eoi(0, xirr(0xff, LSI), told.note()).unwrap();
    assert_eq!(told.take(), NOBODY);
    none(&xics, 0);
}

/// Low and high again while the guest serves it: the EOI sends it once more.
#[test]
fn an_lsi_that_is_asserted_before_the_eoi_is_not_lost() {
    let xics = xics();
    event(&xics, LSI);
    assert_eq!(xics.xirr(0), xirr(0xff, LSI));
    xics.set(LSI, false, quiet).unwrap();
    event(&xics, LSI);
    xics.set(LSI, false, quiet).unwrap();
    event(&xics, LSI);
    xics.eoi(0, xirr(0xff, LSI), quiet).unwrap();
    assert_eq!(xics.xirr(0), xirr(0xff, LSI));
}

#[test]
fn an_lsi_that_goes_low_before_it_was_sent_is_not_sent() {
    let xics = xics();
    xics.cppr(0, 0, quiet);
    event(&xics, LSI);
    xics.set(LSI, false, quiet).unwrap();
    xics.cppr(0, 0xff, quiet);
    none(&xics, 0);
}

#[test]
fn a_restarted_server_starts_closed_and_keeps_what_waits() {
    let (xics, told) = (xics(), Told::default());
    event(&xics, EDGE);
    event(&xics, LSI);
    xics.ipi(0, 7, quiet).unwrap();
    xics.reset_server(0, told.note());
    assert_eq!(told.take(), NOBODY);
    assert!(!xics.pending(0));
    assert_eq!(xics.ipoll(0), Ok((0, 0xff)));
    xics.cppr(0, 0xff, told.note());
    assert_eq!(told.take(), [0]);
    serve(&xics, 0, EDGE);
    xics.set(LSI, false, quiet).unwrap();
    assert_eq!(xics.xirr(0), xirr(0xff, LSI));
}

/// Its pending source may have been moved to a server that lives.
#[test]
fn a_restarted_server_hands_over_what_was_moved() {
    let (xics, told) = (xics(), Told::default());
    event(&xics, EDGE);
    xics.set_xive(EDGE, 1, 5, quiet).unwrap();
    xics.reset_server(0, told.note());
    assert_eq!(told.take(), [1]);
    serve(&xics, 1, EDGE);
}

#[test]
fn reset_forgets_all_but_lines() {
    let xics = xics();
    event(&xics, LSI);
    event(&xics, EDGE);
    xics.ipi(1, 4, quiet).unwrap();
    xics.reset();
    for server in 0..2 {
        assert_eq!(xics.ipoll(server), Ok((0, 0xff)));
        xics.cppr(server, 0xff, quiet);
        none(&xics, server);
    }
    for irq in [EDGE, OTHER, LSI] {
        assert_eq!(xics.get_xive(irq), Ok((0, 0xff)));
        xics.set_xive(irq, 1, 5, quiet).unwrap();
    }
    assert_eq!(xics.xirr(1), xirr(0xff, LSI), "its device asserts it still");
}

#[test]
fn what_is_not_there_is_an_error() {
    let xics = xics();
    for irq in [0, 2, 15, 0x1001, 0x1_001000, u32::MAX] {
        let none = Err(XicsError::Source);
        assert_eq!(xics.set_xive(irq, 0, 5, quiet), none);
        assert_eq!(xics.get_xive(irq), Err(XicsError::Source));
        assert_eq!([xics.int_off(irq), xics.int_on(irq, quiet), xics.set(irq, true, quiet)], [none; 3]);
    }
    for server in [2, 1 << 16, usize::MAX] {
        assert_eq!(xics.set_xive(EDGE, server, 5, quiet), Err(XicsError::Server));
        assert_eq!(xics.ipi(server, 4, quiet), Err(XicsError::Server));
        assert_eq!(xics.ipoll(server), Err(XicsError::Server));
    }
    for priority in [0x100, 0x105, u32::MAX] {
        assert_eq!(xics.set_xive(EDGE, 1, priority, quiet), Err(XicsError::Priority));
    }
    assert_eq!(xics.get_xive(EDGE), Ok((0, 5)), "a refused call changes nothing");
}

#[test]
#[should_panic(expected = "twice")]
fn a_source_is_there_once() {
    let _ = Xics::new(1, &[(EDGE, Trigger::Edge), (OTHER, Trigger::Edge), (EDGE, Trigger::Level)]);
}

#[test]
#[should_panic(expected = "out of range")]
fn reserved_numbers_are_no_sources() {
    let _ = Xics::new(1, &[(IPI, Trigger::Edge)]);
}
