//! Windows that a guest puts where it likes.

use super::*;
use crate::pci::{Bar, BarKind, Config, Identity};
use irq::{Message, Sink};
use proptest::prelude::*;
use vmm_sys_util::eventfd::EFD_NONBLOCK;

const BARS: [Bar; 2] = [
    Bar { index: 0, kind: BarKind::Memory64, size: 0x4000 },
    Bar { index: 2, kind: BarKind::Memory32, size: 0x1000 },
];

/// A function that answers with its number and the register.
struct Numbered {
    number: u8,
    config: Mutex<Config>,
    doorbells: Vec<Doorbell>,
    written: Mutex<Vec<(u8, u64)>>,
}

impl Numbered {
    fn new(number: u8) -> Arc<Self> {
        let event = Arc::new(EventFd::new(EFD_NONBLOCK).unwrap());
        let doorbells = vec![Doorbell { bar: 0, offset: 0x10, event }];
        let function = Self {
            number,
            config: Mutex::new(Config::new(&IDENTITY, &BARS)),
            doorbells,
            written: Mutex::default(),
        };
        Arc::new(function)
    }
}

const IDENTITY: Identity =
    Identity { vendor: 1, device: 2, revision: 0, class: 0, subsystem_vendor: 0, subsystem: 0 };

impl Function for Numbered {
    fn identity(&self) -> Identity {
        IDENTITY
    }

    fn bars(&self) -> &[Bar] {
        &BARS
    }

    fn vectors(&self) -> u16 {
        0
    }

    fn connect(&self, _: Arc<dyn Messages>, _: Line) {}

    fn config(&self, offset: u16, data: &mut [u8]) {
        self.config.lock().unwrap().read(offset, data);
    }

    fn set_config(&self, offset: u16, data: &[u8]) -> bool {
        self.config.lock().unwrap().write(offset, data)
    }

    fn address(&self, bar: u8) -> Option<u64> {
        self.config.lock().unwrap().address(bar)
    }

    fn doorbells(&self) -> &[Doorbell] {
        &self.doorbells
    }

    fn read(&self, bar: u8, offset: u64, data: &mut [u8]) {
        assert!(BARS.iter().any(|found| found.index == bar && offset + data.len() as u64 <= found.size));
        data.fill(self.number << 4 | bar);
    }

    fn write(&self, bar: u8, offset: u64, _: &[u8]) {
        self.written.lock().unwrap().push((bar, offset));
    }

    fn set_message(&self, _: u16, _: Message) {}

    fn enable_messages(&self, _: bool) {}

    fn reset(&self, _: Instant) -> Result<(), Stuck> {
        self.config.lock().unwrap().reset();
        Ok(())
    }
}

struct Nowhere;

impl Messages for Nowhere {
    fn route(&self, _: Message) -> Option<Line> {
        None
    }
}

impl Sink for Nowhere {
    fn set(&self, _: u32, _: bool) -> io::Result<()> {
        Ok(())
    }
}

/// What is registered; two at one address are refused, as KVM does.
#[derive(Default)]
struct Port(Mutex<Vec<u64>>);

impl DoorbellPort for Port {
    fn add(&self, address: u64, _: &EventFd) -> io::Result<()> {
        let mut registered = self.0.lock().unwrap();
        assert!(!registered.contains(&address));
        registered.push(address);
        Ok(())
    }

    fn remove(&self, address: u64, _: &EventFd) -> io::Result<()> {
        let mut registered = self.0.lock().unwrap();
        let at = registered.iter().position(|found| *found == address).expect("it was added");
        registered.remove(at);
        Ok(())
    }
}

fn bus(count: u8) -> (Bus, Vec<Arc<Numbered>>, Arc<Port>) {
    let functions: Vec<_> = (0..count).map(Numbered::new).collect();
    let mut bus = Bus::new(vec![0x8000_0000..0x9000_0000, 0x1_0000_0000..0x2_0000_0000]);
    for (slot, function) in functions.iter().enumerate() {
        assert_eq!(usize::from(bus.add(function.clone()).unwrap()), slot);
    }
    let port = Arc::<Port>::default();
    let messages: Arc<dyn Messages> = Arc::new(Nowhere);
    bus.connect(&messages, |slot| Line::new(Arc::new(Nowhere), slot.into()), port.clone());
    (bus, functions, port)
}

fn place(bus: &Bus, slot: u8, large: u64, small: u32) {
    bus.set_config(slot << 3, 0x10, &(large as u32).to_le_bytes());
    bus.set_config(slot << 3, 0x14, &((large >> 32) as u32).to_le_bytes());
    bus.set_config(slot << 3, 0x18, &small.to_le_bytes());
    bus.set_config(slot << 3, 4, &[2, 0]);
}

fn answer(bus: &Bus, address: u64) -> Option<u8> {
    let mut data = [0xee; 4];
    bus.read(address, &mut data).then_some(data[0])
}

#[test]
fn functions_answer_where_their_windows_are() {
    let (bus, functions, port) = bus(2);
    assert_eq!(answer(&bus, 0x8000_0000), None);
    place(&bus, 1, 0x1_0000_0000, 0x8000_0000);
    place(&bus, 0, 0x1_0000_4000, 0x8000_1000);
    let at = [0x8000_0000, 0x8000_0ffc, 0x8000_1000, 0x8000_1ffc, 0x1_0000_3ffc, 0x1_0000_4000];
    assert_eq!(at.map(|address| answer(&bus, address)), [0x12, 0x12, 2, 2, 0x10, 0].map(Some));
    for nothing in [0x7fff_fffc, 0x8000_0ffe, 0x8000_1ffd, 0x8000_2000, 0x1_0000_8000, u64::MAX, u64::MAX - 3]
    {
        assert_eq!(answer(&bus, nothing), None, "{nothing:#x}");
    }
    assert!(bus.write(0x1_0000_4008, &[1]));
    assert_eq!(*functions[0].written.lock().unwrap(), [(0, 8)]);
    assert_eq!(*port.0.lock().unwrap(), [0x1_0000_0010, 0x1_0000_4010]);
    bus.reset(Duration::ZERO).unwrap();
    assert_eq!(answer(&bus, 0x8000_0000), None);
    assert!(port.0.lock().unwrap().is_empty());
}

#[test]
fn where_windows_overlap_the_lower_slot_answers() {
    let (bus, _, port) = bus(3);
    for slot in [2, 1, 0] {
        place(&bus, slot, 0x1_0000_0000, 0x8000_0000);
    }
    assert_eq!((answer(&bus, 0x1_0000_0000), answer(&bus, 0x8000_0000)), (Some(0), Some(2)));
    assert_eq!(*port.0.lock().unwrap(), [0x1_0000_0010]);
    bus.set_config(0, 4, &[0, 0]);
    assert_eq!((answer(&bus, 0x1_0000_0000), answer(&bus, 0x8000_0000)), (Some(0x10), Some(0x12)));
    assert_eq!(*port.0.lock().unwrap(), [0x1_0000_0010]);
}

#[test]
fn outside_the_bridge_nothing_answers() {
    let (bus, _, port) = bus(1);
    for (large, small) in
        [(0, 0), (0x2_0000_0000, 0x7fff_f000), (u64::MAX, u32::MAX), (0x1_ffff_f000, 0x9000_0000)]
    {
        bus.set_config(0, 4, &[0, 0]);
        place(&bus, 0, large, small);
        let large = large & !0x3fff;
        let inside = (0x1_0000_0000..0x2_0000_0000).contains(&large);
        assert_eq!(answer(&bus, large), inside.then_some(0), "{large:#x}");
        assert_eq!(answer(&bus, (small & !0xfff).into()), None, "{small:#x}");
        assert_eq!(port.0.lock().unwrap().len(), usize::from(inside));
    }
}

#[test]
fn configuration_space_that_is_not_there_reads_as_ones() {
    let (bus, ..) = bus(2);
    let read = |devfn, offset, length| {
        let mut data = vec![0; length];
        bus.config(devfn, offset, &mut data);
        data
    };
    assert_eq!(read(8, 0, 4), [1, 0, 2, 0]);
    for (devfn, offset, length) in [
        (16, 0, 4),
        (1, 0, 4),
        (255, 0, 2),
        (0, 2, 4),
        (0, 1, 2),
        (0, 4096, 4),
        (0, 0xfffc, 4),
        (0, 0, 8),
        (0, 0, 3),
    ] {
        assert_eq!(read(devfn, offset, length), vec![0xff; length], "{devfn} {offset} {length}");
        bus.set_config(devfn, offset, &vec![0xff; length]);
    }
    assert_eq!(read(0, 4, 4), [0; 4]);
    assert_eq!(read(0, 0, 0), []);
}

#[test]
fn a_bus_has_32_slots() {
    let mut bus = Bus::new(Vec::new());
    for slot in 0..32 {
        assert_eq!(bus.add(Numbered::new(0)).unwrap(), slot);
    }
    assert!(bus.add(Numbered::new(0)).is_err());
    assert_eq!(
        bus.functions().map(|(devfn, _)| devfn).collect::<Vec<_>>(),
        (0..=248).step_by(8).collect::<Vec<_>>()
    );
}

/// vCPUs that move windows while others look things up.
#[test]
fn the_table_is_whole_at_any_moment() {
    let (bus, _, port) = bus(4);
    std::thread::scope(|scope| {
        for slot in 0..4 {
            let bus = &bus;
            scope.spawn(move || {
                for round in 0..200u64 {
                    let at = (round * 7 + u64::from(slot)) % 6;
                    place(bus, slot, 0x1_0000_0000 + at * 0x4000, 0x8000_0000 + at as u32 * 0x1000);
                    for address in (0x1_0000_0000..0x1_0001_8000).step_by(0x4000) {
                        assert!(answer(bus, address).is_none_or(|answer| answer & 0xf == 0));
                    }
                }
                bus.set_config(slot << 3, 4, &[0, 0]);
            });
        }
    });
    assert!(port.0.lock().unwrap().is_empty());
    assert!(bus.table.load().is_empty());
}

proptest! {
    /// The table is disjoint, sorted and within the bridge, whatever is decoded; and so are the doorbells registered.
    #[test]
    fn overlaps_do_no_harm(
        moves in proptest::collection::vec((0..4u8, 0..0x40u64, 0..0x20u32, any::<bool>()), 1..60)
    ) {
        let (bus, _, port) = bus(4);
        for (slot, large, small, on) in moves {
            place(&bus, slot, 0xfff8_0000 + large * 0x4000, 0x7fff_0000 + small * 0x1000);
            bus.set_config(slot << 3, 4, &[u8::from(on) << 1, 0]);
            let table = bus.table.load();
            for pair in table.windows(2) {
                prop_assert!(pair[0].range.end <= pair[1].range.start);
            }
            for decoded in table.iter() {
                prop_assert!(bus.windows.iter().any(|w| w.start <= decoded.range.start && decoded.range.end <= w.end));
                prop_assert_eq!(answer(&bus, decoded.range.start), Some((decoded.slot as u8) << 4 | decoded.bar));
            }
            let mut wanted: Vec<_> = table.iter().flat_map(Decoded::doorbells).map(|d| d.address).collect();
            let mut registered = port.0.lock().unwrap().clone();
            wanted.sort_unstable();
            registered.sort_unstable();
            prop_assert_eq!(wanted, registered);
        }
    }
}
