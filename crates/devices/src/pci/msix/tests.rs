//! The table as drivers and firmware write it.

use super::*;
use irq::{Line, Sink};
use std::io;

#[derive(Default)]
struct Recorder(Mutex<Vec<u32>>);

impl Recorder {
    fn taken(&self) -> Vec<u32> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }
}

impl Sink for Recorder {
    fn set(&self, gsi: u32, _: bool) -> io::Result<()> {
        self.0.lock().unwrap().push(gsi);
        Ok(())
    }
}

struct ByData(Arc<Recorder>);

impl Messages for ByData {
    fn route(&self, message: Message) -> Option<Line> {
        (message.address == 0x1_0000_0004).then(|| Line::new(self.0.clone(), message.data))
    }
}

fn connected() -> (Msix, Arc<Recorder>) {
    let (msix, recorder) = (Msix::new(40), Arc::<Recorder>::default());
    msix.connect(Arc::new(ByData(recorder.clone())));
    (msix, recorder)
}

fn word(msix: &Msix, offset: u64) -> u32 {
    let mut data = [0; 4];
    msix.read(offset, &mut data);
    u32::from_le_bytes(data)
}

/// As a driver sets up a vector.
fn set_up(msix: &Msix, vector: u64, data: u32) {
    msix.write(16 * vector, &0x1_0000_0007u64.to_le_bytes());
    msix.write(16 * vector + 8, &data.to_le_bytes());
    msix.write(16 * vector + 12, &[0; 4]);
}

#[test]
fn a_message_is_as_the_table_has_it() {
    let (msix, recorder) = connected();
    msix.set_control(ENABLE);
    set_up(&msix, 3, 9);
    assert_eq!((0..4).map(|at| word(&msix, 48 + 4 * at)).collect::<Vec<_>>(), [4, 1, 9, 0]);
    msix.raise(3);
    assert_eq!(recorder.taken(), [9]);
    msix.write(56, &10u64.to_le_bytes());
    msix.raise(3);
    assert_eq!(recorder.taken(), [10], "data and control at once");
    msix.write(48, &[0; 4]);
    msix.raise(3);
    msix.raise(40);
    msix.raise(u16::MAX);
    assert!(recorder.taken().is_empty(), "nowhere");
}

#[test]
fn firmware_sets_and_unmasks_at_once() {
    let (msix, recorder) = connected();
    msix.set_message(5, Message { address: 0x1_0000_0004, data: 7 });
    msix.raise(5);
    assert!(recorder.taken().is_empty(), "it is not on");
    msix.set_control(ENABLE);
    msix.raise(5);
    assert_eq!(recorder.taken(), [7]);
    msix.set_control(0);
    msix.raise(5);
    assert!(recorder.taken().is_empty());
}

#[test]
fn what_is_masked_is_sent_once_afterwards() {
    let (msix, recorder) = connected();
    msix.set_control(ENABLE);
    set_up(&msix, 33, 9);
    for (mask, unmask) in [
        (
            Box::new(|| msix.write(540, &[1, 0, 0, 0])) as Box<dyn Fn()>,
            Box::new(|| msix.write(540, &[0; 4])) as Box<dyn Fn()>,
        ),
        (Box::new(|| msix.set_control(ENABLE | MASK_ALL)), Box::new(|| msix.set_control(ENABLE))),
    ] {
        mask();
        msix.raise(33);
        msix.raise(33);
        assert!(recorder.taken().is_empty());
        let pending = msix.pending_offset();
        assert_eq!((word(&msix, pending), word(&msix, pending + 4), word(&msix, pending + 8)), (0, 2, 0));
        // It goes where the table says by then.
        msix.write(536, &11u32.to_le_bytes());
        unmask();
        assert_eq!(recorder.taken(), [11]);
        assert_eq!(word(&msix, pending + 4), 0);
    }
}

#[test]
fn a_reset_forgets_everything() {
    let (msix, recorder) = connected();
    msix.set_control(ENABLE | MASK_ALL);
    set_up(&msix, 0, 9);
    msix.raise(0);
    msix.reset();
    msix.set_control(ENABLE);
    set_up(&msix, 0, 9);
    assert!(recorder.taken().is_empty());
    msix.raise(0);
    assert_eq!(recorder.taken(), [9]);
}

#[test]
fn only_words_are_there() {
    let (msix, _) = connected();
    for (offset, length) in [(0u64, 1), (0, 2), (2, 4), (4, 8), (0, 16)] {
        let mut data = vec![0; length];
        msix.read(offset, &mut data);
        assert!(data.iter().all(|byte| *byte == 0xff));
        msix.write(offset, &data);
    }
    assert_eq!(word(&msix, 0), 0);
    assert_eq!(word(&msix, 16 * 40), u32::MAX, "behind the last vector");
}

#[test]
fn table_and_pending_bits_have_half_of_the_window_each() {
    for (count, size) in [(1, 4096), (3, 4096), (128, 4096), (129, 8192), (2048, 65536)] {
        let msix = Msix::new(count);
        let (body, _) = msix.capability(2);
        assert_eq!(msix.bar(2).size, size, "{count}");
        assert_eq!(u16::from_le_bytes([body[0], body[1]]), count - 1);
        assert_eq!(body[2..6], [2, 0, 0, 0]);
        assert_eq!(u64::from(u32::from_le_bytes(body[6..].try_into().unwrap())), size / 2 + 2);
    }
}
