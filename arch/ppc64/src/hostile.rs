//! A guest that passes anything anywhere: no call panics, every code is one of PAPR's, and what happens beside
//! is what the state of the vCPUs allows. [`Fake`](crate::fake::Fake) asserts the rest.

use crate::cpus::CpuState;
use crate::fake::function::VECTORS;
use crate::fake::{Guest, LISNS, RAM, SERVERS, Told, token};
use crate::hcall::{Effect, TABLE};
use crate::layout::{
    IRQ_EPOW, IRQ_MSI, IRQ_VIO, PCI_BUID, PCI_LIOBN, PCI_MEM32, PCI_MEM64, PCI_MEM64_SIZE, PCI_MSI, VIO_REG,
};
use crate::papr::nr::*;
use crate::papr::ret::*;
use crate::phb::tce::Tce;
use crate::rtas;
use crate::xics::IPI;
use irq::Message;
use proptest::prelude::*;
use proptest::sample::select;
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend};

const CODES: &[i64] = &[
    H_SUCCESS,
    H_BUSY,
    H_HARDWARE,
    H_FUNCTION,
    H_PARAMETER,
    H_P2,
    H_P3,
    H_P4,
    H_P5,
    H_UNSUPPORTED_FLAG_START - 63,
];

const STATUSES: &[i32] = &[
    rtas::status::SUCCESS,
    rtas::status::NO_ERROR_LOG,
    rtas::status::HARDWARE_ERROR,
    rtas::status::PARAMETER_ERROR,
];

/// Functions behind the host bridge.
const FUNCTIONS: usize = VECTORS.len();

#[derive(Debug, Clone)]
enum Step {
    Hcall {
        caller: usize,
        nr: u64,
        args: [u64; 9],
    },
    /// A block of these words at this address, then H_RTAS.
    Rtas {
        caller: usize,
        at: u64,
        words: Vec<u32>,
    },
    /// A load, or a store of these bytes.
    Mmio {
        address: u64,
        length: usize,
        stored: Option<[u8; 8]>,
    },
    /// A function's first message, if it has any.
    Message {
        slot: usize,
    },
    PowerButton,
    Refuse(bool),
    /// A vCPU's thread has left the guest.
    Left(usize),
}

/// Near the edges of RAM, page boundaries, or anywhere.
fn address() -> impl Strategy<Value = u64> {
    let edges: Vec<u64> =
        RAM.iter().flat_map(|&(start, size)| [start, start + size as u64, 4 << 30]).collect();
    prop_oneof![
        (select(edges), -64i64..64).prop_map(|(edge, by)| edge.wrapping_add_signed(by)),
        (0u64..16).prop_map(|page| page << 16),
        0u64..1 << 20,
        any::<u64>(),
    ]
}

fn argument() -> impl Strategy<Value = u64> {
    prop_oneof![
        4 => 0u64..20,
        2 => select(LISNS).prop_map(|(lisn, _)| u64::from(lisn)),
        2 => select(SERVERS).prop_map(u64::from),
        1 => Just(u64::from(VIO_REG)),
        1 => select(&[0x10, 0x18, 0x1c, 0x1d, 0xff][..]),
        2 => address(),
        1 => (0u32..64).prop_map(|bit| 1 << bit),
        1 => any::<u64>(),
    ]
}

fn hcall() -> impl Strategy<Value = Step> {
    let known: Vec<u64> = TABLE.iter().map(|hcall| hcall.nr).collect();
    let nr = prop_oneof![8 => select(known), 1 => 0u64..0x600, 1 => any::<u64>()];
    (0..SERVERS.len(), nr, prop::array::uniform9(argument())).prop_map(|(caller, nr, args)| Step::Hcall {
        caller,
        nr,
        args,
    })
}

/// A call of the PCI host bridge with arguments that it takes.
fn pci_call() -> impl Strategy<Value = Step> {
    let function = || prop_oneof![4 => 0u32..3, 1 => 0u32..32].prop_map(|slot| slot << 11);
    let offset = || prop_oneof![2 => select(&[0u32, 4, 0x10, 0x14][..]), 1 => 0u32..0x100];
    let size = || prop_oneof![4 => select(&[1u32, 2, 4][..]), 1 => 0u32..9];
    let value = || prop_oneof![2 => Just(0x9000_0000u32), 2 => 0u32..8, 1 => any::<u32>()];
    let [high, low] = [(PCI_BUID >> 32) as u32, PCI_BUID as u32];
    let call = prop_oneof![
        (function(), offset(), size()).prop_map(move |(function, offset, size)| {
            vec![token("ibm,read-pci-config"), 4, 2, function | offset, high, low, size]
        }),
        (function(), offset(), size(), value()).prop_map(move |(function, offset, size, value)| {
            vec![token("ibm,write-pci-config"), 5, 1, function | offset, high, low, size, value]
        }),
        (function(), 0u32..7, value()).prop_map(move |(function, asked, number)| {
            vec![token("ibm,change-msi"), 6, 4, function, high, low, asked, number, 1]
        }),
        (function(), 0u32..4).prop_map(move |(function, index)| {
            vec![token("ibm,query-interrupt-source-number"), 4, 3, function, high, low, index]
        }),
    ];
    (0..SERVERS.len(), call).prop_map(|(caller, words)| Step::Rtas { caller, at: 0x8000, words })
}

/// A call about the DMA window.
fn tce_call() -> impl Strategy<Value = Step> {
    let liobn = prop_oneof![8 => Just(u64::from(PCI_LIOBN)), 1 => argument()];
    let nr = select(&[H_PUT_TCE, H_GET_TCE, H_PUT_TCE_INDIRECT, H_STUFF_TCE][..]);
    let ioba = prop_oneof![4 => (0..0x2_0000u64).prop_map(|page| page << 12), 1 => argument()];
    let entry =
        prop_oneof![4 => (0u64..0x200, 0u64..4).prop_map(|(page, bits)| page << 12 | bits), 1 => argument()];
    let count = prop_oneof![4 => 0u64..20, 1 => 500u64..600, 1 => argument()];
    (0..SERVERS.len(), nr, liobn, ioba, entry, count).prop_map(|(caller, nr, liobn, ioba, entry, count)| {
        Step::Hcall { caller, nr, args: [liobn, ioba, entry, count, 0, 0, 0, 0, 0] }
    })
}

/// A load or a store outside memory.
fn mmio() -> impl Strategy<Value = Step> {
    let edges = [PCI_MEM32, PCI_MEM32 + 0x1000_0000, PCI_MEM64, PCI_MEM64 + PCI_MEM64_SIZE, u64::MAX];
    let near = (select(edges.to_vec()), -16i64..0x5000).prop_map(|(edge, by)| edge.wrapping_add_signed(by));
    let address = prop_oneof![8 => near, 1 => any::<u64>()];
    (address, select(&[1usize, 2, 4, 8][..]), any::<Option<[u8; 8]>>())
        .prop_map(|(address, length, stored)| Step::Mmio { address, length, stored })
}

/// A call of the interrupt controller with arguments that it takes, or hardly any would do anything.
fn xics_call() -> impl Strategy<Value = Step> {
    let server = || select(SERVERS).prop_map(u64::from);
    let priority = || prop_oneof![2 => Just(0xff), 3 => 0u64..8, 1 => 0u64..0x100];
    let source = select(&[IPI, IRQ_EPOW, IRQ_VIO][..]).prop_map(u64::from);
    let call = prop_oneof![
        2 => Just((H_XIRR, [0; 2])),
        2 => (priority(), source).prop_map(|(cppr, source)| (H_EOI, [cppr << 24 | source, 0])),
        2 => priority().prop_map(|cppr| (H_CPPR, [cppr, 0])),
        2 => (server(), priority()).prop_map(|(server, mfrr)| (H_IPI, [server, mfrr])),
        1 => server().prop_map(|server| (H_IPOLL, [server, 0])),
    ];
    (0..SERVERS.len(), call).prop_map(|(caller, (nr, [first, second]))| Step::Hcall {
        caller,
        nr,
        args: [first, second, 0, 0, 0, 0, 0, 0, 0],
    })
}

fn rtas_call() -> impl Strategy<Value = Step> {
    let tokens = rtas::tokens(true, true).len() as u32;
    let token = prop_oneof![8 => 0x2000..0x2000 + tokens, 1 => any::<u32>()];
    let count = || prop_oneof![8 => 0u32..8, 1 => 0u32..20, 1 => any::<u32>()];
    let word = prop_oneof![4 => argument().prop_map(|a| a as u32), 1 => Just(0x4000_0000), 1 => any::<u32>()];
    let random = (token, count(), count(), prop::collection::vec(word.clone(), 0..20))
        .prop_map(|(token, nargs, nrets, rest)| [vec![token, nargs, nrets], rest].concat());
    // Half of them are well-formed, or hardly any would reach its handler.
    let good = (0..rtas::TABLE.len(), prop::collection::vec(word, 7)).prop_map(|(index, rest)| {
        let (nargs, nrets) = (rtas::TABLE[index].nargs, rtas::TABLE[index].nrets);
        [vec![0x2000 + index as u32, nargs as u32, nrets as u32], rest].concat()
    });
    let words = prop_oneof![random, good];
    (0..SERVERS.len(), address(), words).prop_map(|(caller, at, words)| Step::Rtas { caller, at, words })
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        10 => hcall().boxed(),
        10 => rtas_call().boxed(),
        5 => xics_call().boxed(),
        5 => pci_call().boxed(),
        5 => tce_call().boxed(),
        3 => mmio().boxed(),
        1 => (0..FUNCTIONS).prop_map(|slot| Step::Message { slot }),
        1 => Just(Step::PowerButton),
        1 => any::<bool>().prop_map(Step::Refuse),
        2 => (0..SERVERS.len()).prop_map(Step::Left),
    ]
}

struct Model {
    guest: Guest,
    states: [CpuState; 4],
}

impl Model {
    fn new(guest: Guest) -> Self {
        let states = [CpuState::Running, CpuState::Stopped, CpuState::Stopped, CpuState::Stopped];
        if let Some(own) = &guest.platform.own {
            for (source, server) in [(IRQ_EPOW, 0), (IRQ_VIO, 1), (IRQ_MSI, 2), (IRQ_MSI + 3, 3)] {
                own.xics.set_xive(source, server, 5, |_| {}).unwrap();
                own.xics.cppr(server, 0xff, |_| {});
            }
        }
        Self { guest, states }
    }

    fn play(&mut self, step: &Step) {
        let guest = &self.guest;
        match step {
            Step::PowerButton => {
                guest.platform.epow.press();
                // Refused where the hypervisor refuses.
                let _ = guest.platform.set_irq(IRQ_EPOW, true);
            }
            Step::Mmio { address, length, stored } => {
                let (mmio, phb) = (&guest.platform.mmio, guest.platform.phb.as_ref());
                match stored {
                    Some(data) => mmio.write(phb, *address, &data[..*length]),
                    None => mmio.read(phb, *address, &mut [0; 8][..*length]),
                }
            }
            Step::Message { slot } if VECTORS[*slot] > 0 => guest.functions[*slot].raise(0),
            Step::Message { .. } => {}
            Step::Refuse(refuse) => guest.fake.refuse(*refuse),
            Step::Left(index) => {
                if self.states[*index] == CpuState::Stopping {
                    self.states[*index] = CpuState::Stopped;
                    guest.platform.cpus.set(*index, CpuState::Stopped);
                }
            }
            Step::Hcall { caller, nr, args } => self.call(*caller, *nr, args),
            Step::Rtas { caller, at, words } => {
                for (index, word) in (0..).zip(words) {
                    let at = GuestAddress(at.wrapping_add(4 * index));
                    // What is not memory stays so; the call has to find out.
                    let _ = guest.platform.memory.write_slice(&word.to_be_bytes(), at);
                }
                self.call(*caller, H_RTAS, &[*at]);
            }
        }
        let seen: Vec<_> = (0..4).map(|index| self.guest.platform.cpus.state(index)).collect();
        assert_eq!(seen, self.states, "after {step:x?}");
        self.check_interrupts(step);
    }

    /// Every message leads to a source of its own function, and every page of the DMA window to RAM.
    fn check_bridge(&self) {
        let phb = self.guest.platform.phb.as_ref().unwrap();
        for (slot, function) in (0..).zip(&self.guest.functions) {
            let sources = phb.messages().of(slot << 3).unwrap();
            for message in function.messages().0.into_iter().filter(|message| *message != Message::default())
            {
                assert!(message.address == PCI_MSI && sources.contains(&message.data), "{message:x?}");
            }
        }
        for tce in phb.tces().stored().map(Tce).filter(|tce| tce.permissions().is_some()) {
            assert!(self.guest.platform.memory.check_range(GuestAddress(tce.page()), 0x1000), "{:#x}", tce.0);
        }
    }

    /// Whoever is told has an interrupt, and every pin comes to say what the controller says.
    fn check_interrupts(&self, step: &Step) {
        let told = self.guest.scheduler.told();
        let Some(own) = &self.guest.platform.own else {
            return assert_eq!(told, [], "after {step:x?}");
        };
        for told in told {
            let Told::Interrupt(index) = told else { continue };
            assert!(own.xics.pending(index), "vCPU {index} was told of nothing by {step:x?}");
        }
        for (index, pin) in self.guest.pins.iter().enumerate() {
            own.settle(index).unwrap();
            assert_eq!(pin.is_high(), own.xics.pending(index), "the pin of vCPU {index} after {step:x?}");
        }
    }

    fn call(&mut self, caller: usize, nr: u64, args: &[u64]) {
        if self.states[caller] != CpuState::Running {
            return;
        }
        let header = self.header(args[0]);
        let answer = self.guest.hcall_of(caller, nr, args);
        assert!(CODES.contains(&answer.ret), "{nr:#x} {args:x?} returned {}", answer.ret);
        if answer.ret != H_SUCCESS {
            assert_eq!(answer.effect, Effect::None, "{nr:#x} {args:x?} was refused");
        }
        match answer.effect {
            Effect::Start { vcpu, .. } => {
                assert_eq!(self.states[vcpu], CpuState::Stopped, "start-cpu of vCPU {vcpu}");
                self.states[vcpu] = CpuState::Running;
                if let Some(own) = &self.guest.platform.own {
                    own.xics.reset_server(vcpu, |index| own.notify(index));
                    assert_eq!(own.xics.ipoll(vcpu), Ok((0, 0xff)), "vCPU {vcpu} starts with a clean ICP");
                }
            }
            Effect::Park => self.states[caller] = CpuState::Stopping,
            Effect::Cede | Effect::Join => {
                assert!(self.guest.platform.own.is_some(), "{nr:#x} on KVM's plane")
            }
            Effect::None | Effect::Sync | Effect::Stop(_) => {}
        }
        if nr == H_RTAS && answer.ret == H_SUCCESS {
            let [_, nargs, _] = header.expect("a block without a header was refused");
            let status = self.guest.words(args[0] + 12 + 4 * u64::from(nargs), 1)[0] as i32;
            assert!(STATUSES.contains(&status), "status {status} of {args:x?}");
        }
    }

    /// As it is before the call, which may write a buffer over it.
    fn header(&self, at: u64) -> Option<[u32; 3]> {
        let mut words = [[0; 4]; 3];
        self.guest.platform.memory.read_slice(words.as_flattened_mut(), GuestAddress(at)).ok()?;
        Some(words.map(u32::from_be_bytes))
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_guest_gets_answers_and_nothing_else(steps in prop::collection::vec(step(), 150)) {
        for guest in [Guest::new(), Guest::on_vmm_plane()] {
            let mut model = Model::new(guest);
            steps.iter().for_each(|step| model.play(step));
            model.check_bridge();
        }
    }
}
