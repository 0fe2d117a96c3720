//! A file in place of KVM's descriptor, right and wrong ones.

use super::*;
use crate::bindings::ppc64::*;

/// What a file says.
#[derive(Clone)]
struct Layout {
    name_size: u32,
    count: u32,
    descriptors: u32,
    data: u32,
    rows: Vec<Row>,
    values: Vec<u64>,
}

#[derive(Clone)]
struct Row {
    flags: u32,
    size: u16,
    offset: u32,
    name: &'static [u8],
}

const NAME: u32 = 48;

fn row(name: &'static str, flags: u32, size: u16, offset: u32) -> Row {
    Row { flags, size, offset, name: name.as_bytes() }
}

/// As KVM lays it out: the id has a name's length.
fn good() -> Layout {
    let rows = vec![
        row("halt_successful_poll", KVM_STATS_TYPE_CUMULATIVE, 1, 0),
        row("halt_wait_hist", KVM_STATS_TYPE_LOG_HIST | KVM_STATS_UNIT_SECONDS, 4, 16),
        row("blocking", KVM_STATS_TYPE_INSTANT | KVM_STATS_UNIT_BOOLEAN, 1, 8),
    ];
    let descriptors = 24 + NAME;
    Layout {
        name_size: NAME,
        count: 3,
        descriptors,
        data: descriptors + 3 * (16 + NAME),
        rows,
        values: vec![7, 1, 10, 11, 12, u64::MAX],
    }
}

fn file(layout: &Layout) -> File {
    let mut bytes = Vec::new();
    let Layout { name_size, count, descriptors, data, rows, values } = layout;
    [0, *name_size, *count, 24, *descriptors, *data].iter().for_each(|word| bytes.extend(word.to_ne_bytes()));
    bytes.extend([b'k'; NAME as usize]);
    for row in rows {
        bytes.extend(row.flags.to_ne_bytes());
        bytes.extend((-9_i16).to_ne_bytes());
        bytes.extend(row.size.to_ne_bytes());
        bytes.extend(row.offset.to_ne_bytes());
        bytes.extend([0; 4]);
        let end = bytes.len() + NAME as usize;
        bytes.extend(row.name);
        bytes.resize(end, 0);
    }
    values.iter().for_each(|value| bytes.extend(value.to_ne_bytes()));
    let file = tempfile::tempfile().unwrap();
    file.write_all_at(&bytes, 0).unwrap();
    file
}

fn open(layout: &Layout) -> Result<KvmStats, String> {
    KvmStats::open(file(layout).into()).map_err(|error| {
        let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}"));
        error.to_string() + &cause.unwrap_or_default()
    })
}

#[test]
fn the_sizes_are_the_kernels() {
    assert_eq!((HEADER, DESCRIPTOR), (size_of::<kvm_stats_header>(), size_of::<kvm_stats_desc>()));
    assert_eq!(KIND, KVM_STATS_TYPE_MASK);
    assert_eq!(HISTOGRAMS, [KVM_STATS_TYPE_LINEAR_HIST, KVM_STATS_TYPE_LOG_HIST]);
}

#[test]
fn values_are_read_by_name_again_and_again() {
    let layout = good();
    let file = file(&layout);
    let stats = KvmStats::open(file.try_clone().unwrap().into()).unwrap();
    let mut wanted = vec![
        ("halt_successful_poll", Value::Number(7)),
        ("halt_wait_hist", Value::Histogram(vec![10, 11, 12, u64::MAX])),
        ("blocking", Value::Number(1)),
    ];
    assert_eq!(stats.read().unwrap(), wanted);
    file.write_all_at(&8_u64.to_ne_bytes(), layout.data.into()).unwrap();
    wanted[0].1 = Value::Number(8);
    assert_eq!(stats.read().unwrap(), wanted);
    // From another thread, as the VM's control does.
    std::thread::scope(|scope| scope.spawn(|| assert_eq!(stats.read().unwrap(), wanted)).join().unwrap());
}

#[test]
fn there_may_be_none() {
    let layout = Layout { count: 0, rows: vec![], values: vec![], ..good() };
    assert_eq!(open(&layout).unwrap().read().unwrap(), []);
}

#[test]
fn what_lies_is_refused() {
    type Change = fn(&mut Layout);
    let nonsense = "KVM's binary statistics make no sense: ";
    let cases: &[(Change, &str)] = &[
        (|l| l.name_size = 0, "the length of a name is 0, not 1 to 1024"),
        (|l| l.name_size = u32::MAX, "the length of a name is 4294967295, not 1 to 1024"),
        (|l| l.count = 4097, "the number of descriptors is 4097, not 0 to 4096"),
        (|l| l.count = u32::MAX, "the number of descriptors is 4294967295, not 0 to 4096"),
        (|l| l.rows[0].size = 0, "the number of values of halt_successful_poll is 0, not 1 to 1024"),
        (|l| l.rows[1].size = 1025, "the number of values of halt_wait_hist is 1025, not 1 to 1024"),
        (|l| l.rows[1].size = 0, "the number of values of halt_wait_hist is 0, not 1 to 1024"),
        (|l| l.rows[1].offset = u32::MAX, "the place of halt_wait_hist is 4294967295, not 0 to 1048544"),
        (|l| l.rows[1].offset = 1_048_545, "the place of halt_wait_hist is 1048545, not 0 to 1048544"),
        (|l| l.rows[2].name = b"", "a statistic has no name"),
        (|l| l.rows[2].name = &[b'n'; NAME as usize], "a statistic has no name"),
        (|l| l.rows[2].name = b"\xff\xfe", "a statistic has no name"),
    ];
    for (change, message) in cases {
        let mut layout = good();
        change(&mut layout);
        assert_eq!(open(&layout).unwrap_err(), format!("{nonsense}{message}"));
    }
}

#[test]
fn what_is_not_there_is_an_error() {
    let short = |part| format!("cannot read KVM's binary statistics ({part}): failed to fill whole buffer");
    for (descriptors, part) in [(u32::MAX, "descriptors"), (24 + NAME + 8 * 64, "descriptors")] {
        assert_eq!(open(&Layout { descriptors, ..good() }).unwrap_err(), short(part));
    }
    let empty = tempfile::tempfile().unwrap();
    assert!(KvmStats::open(empty.into()).unwrap_err().to_string().ends_with("(header)"));
    for data in [u32::MAX, good().data + 8] {
        let stats = open(&Layout { data, ..good() }).unwrap();
        assert_eq!(stats.read().unwrap_err().to_string(), "cannot read KVM's binary statistics (data)");
    }
    // A descriptor that reaches behind the data is found when they are read.
    let mut layout = good();
    layout.rows[1].offset = 24;
    assert!(open(&layout).unwrap().read().is_err());
}

#[test]
fn who_gives_none_is_named() {
    let (fd, _file) = crate::fd::tests::stand_in(0);
    let error = KvmStats::of(&fd).unwrap_err();
    assert_eq!(error.to_string(), "cannot read KVM's binary statistics (KVM_GET_STATS_FD)");
}
